//! `/healthz`: the process lives. `/readyz`: it can answer. Both without authentication.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use baton_axum::{Problem, Shape};
use baton_core::Store;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long an answer of the store is good for. Anybody may ask, and to ask the store means to write to it.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Readiness {
    store: Arc<dyn Store>,
    /// When the store was last asked, and whether it was ready.
    last: Arc<Mutex<Option<(Instant, bool)>>>,
}

pub(crate) fn routes(store: Arc<dyn Store>) -> Router {
    let state = Readiness { store, last: Arc::default() };
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready)).with_state(state)
}

async fn alive() -> Response {
    ([(CACHE_CONTROL, "no-store"), (CONTENT_TYPE, "text/plain; charset=utf-8")], "ok\n").into_response()
}

async fn ready(State(state): State<Readiness>) -> Response {
    if state.is_ready().await {
        let headers = [(CACHE_CONTROL, "no-store"), (CONTENT_TYPE, "application/json; charset=utf-8")];
        (headers, r#"{"status":"ready"}"#).into_response()
    } else {
        Problem::unavailable(Shape::Bare).into_response()
    }
}

impl Readiness {
    /// Asks the store, one question at a time.
    async fn is_ready(&self) -> bool {
        let mut last = self.last.lock().await;
        if let Some((at, ready)) = *last
            && at.elapsed() < FRESH
        {
            return ready;
        }
        let ready = match self.store.check().await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "not ready");
                false
            }
        };
        *last = Some((Instant::now(), ready));
        ready
    }
}
