//! One line a request. Never a header, never the query, never a body: that is where secrets are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use baton_core::Random;
use baton_core::ports::RandomError;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderName, HeaderValue, Method};
use tokio::time::Instant;

use crate::proxy::Passed;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_PATH: usize = 256;

/// Numbers the requests of this process.
#[derive(Debug, Clone)]
pub(crate) struct RequestIds {
    /// Tells this process from others, and from the one before it.
    process: u32,
    next: Arc<AtomicU64>,
}

impl RequestIds {
    pub(crate) fn new(random: &dyn Random) -> Result<Self, RandomError> {
        let mut process = [0; 4];
        random.fill(&mut process)?;
        Ok(Self { process: u32::from_ne_bytes(process), next: Arc::new(AtomicU64::new(1)) })
    }

    fn next(&self) -> String {
        // Not what the client calls it: a log line is no place for a text of somebody else.
        format!("{:08x}-{:x}", self.process, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// On a request: its id, for whoever passes it on.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) HeaderValue);

/// Logs a request when its response head is ready, and gives the response its id.
pub(crate) async fn log(State(ids): State<RequestIds>, mut request: Request, next: Next) -> Response {
    let id = ids.next();
    let method = known(request.method());
    let path = shortened(request.uri().path()).to_owned();
    let header = HeaderValue::from_str(&id).ok();
    if let Some(header) = &header {
        request.extensions_mut().insert(RequestId(header.clone()));
    }
    let start = Instant::now();
    let mut response = next.run(request).await;
    let (status, ms) = (response.status().as_u16(), start.elapsed().as_secs_f64() * 1000.0);
    let ms = (ms * 1000.0).round() / 1000.0;
    if matches!(&*path, "/healthz" | "/readyz") {
        tracing::debug!(method, path, status, ms, request = id, "request");
    } else {
        tracing::info!(method, path, status, ms, request = id, "request");
    }
    if let Some(header) = header {
        response.headers_mut().insert(REQUEST_ID, header);
    }
    // How a browser is to take a backend's answers is the backend's affair.
    if response.extensions().get::<Passed>().is_none() {
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response
}

/// A client may call its method what it likes; the log has it only if HTTP does.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "(other)",
    }
}

fn shortened(path: &str) -> &str {
    let end = (0..=path.len().min(MAX_PATH)).rev().find(|at| path.is_char_boundary(*at)).unwrap_or(0);
    &path[..end]
}
