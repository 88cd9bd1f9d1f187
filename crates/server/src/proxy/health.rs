//! Asking targets whether they are well.

use std::sync::Arc;

use axum::body::Body;
use http::header::USER_AGENT;
use http::uri::PathAndQuery;
use http::{Request, StatusCode};
use tokio::task::JoinSet;

use super::forward::Upstream;
use super::targets::Target;
use crate::chain;

const AGENT: &str = concat!("baton/", env!("CARGO_PKG_VERSION"));

/// A task for each target.
pub(super) fn watch(upstream: &Arc<Upstream>, watching: &mut JoinSet<()>) {
    let Some(path) = upstream.config.health_path.as_deref().and_then(|path| path.parse::<PathAndQuery>().ok()) else {
        return;
    };
    for number in 0..upstream.targets.iter().count() {
        let (upstream, path) = (Arc::clone(upstream), path.clone());
        watching.spawn(async move {
            let Some(target) = upstream.targets.iter().nth(number) else { return };
            let mut ticks = tokio::time::interval(upstream.config.health_interval);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                target.set_well(ask(&upstream, target, &path).await);
            }
        });
    }
}

async fn ask(upstream: &Upstream, target: &Target, path: &PathAndQuery) -> Result<(), String> {
    let uri = target.at(path.clone()).map_err(|error| error.to_string())?;
    let request = Request::get(uri).header(USER_AGENT, AGENT).body(Body::empty()).map_err(|error| error.to_string())?;
    let limit = upstream.config.health_interval;
    match tokio::time::timeout(limit, upstream.clients.request(request)).await {
        Err(_) => Err(format!("did not answer within {limit:?}")),
        Ok(Err(error)) => Err(chain(&error)),
        Ok(Ok(response)) => is_good(response.status()),
    }
}

fn is_good(status: StatusCode) -> Result<(), String> {
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("answered {}", status.as_u16())) }
}
