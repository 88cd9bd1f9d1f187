//! The spellings of a path that front ends send for the same route.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use http::Uri;
use http::uri::PathAndQuery;
use tower_service::Service;

/// Mounts `routes` so that doubled slashes, a trailing slash and `.json` do not matter.
pub(super) fn mount<S>(mount: &str, routes: Router) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let lenient = Lenient(routes);
    Router::new()
        .nest_service(mount, lenient.clone())
        .nest_service(&format!("/{mount}"), lenient.clone())
        .route_service(&format!("{mount}.json"), lenient.clone())
        .route_service(&format!("/{mount}.json"), lenient)
}

#[derive(Clone)]
struct Lenient(Router);

impl Service<Request> for Lenient {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        if let Some(uri) = normalized(request.uri()) {
            *request.uri_mut() = uri;
        }
        self.0.call(request)
    }
}

/// The canonical spelling; `None` if it is that already.
fn normalized(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let mut canonical = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        canonical.push('/');
        canonical.push_str(segment);
    }
    if let Some(stem) = canonical.strip_suffix(".json") {
        canonical.truncate(stem.len());
    }
    if canonical.is_empty() {
        canonical.push('/');
    }
    if canonical == path {
        return None;
    }
    if let Some(query) = uri.query() {
        canonical.push('?');
        canonical.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(canonical).ok()?);
    Uri::from_parts(parts).ok()
}
