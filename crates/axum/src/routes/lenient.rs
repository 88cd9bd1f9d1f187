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
    let doubled = mount.match_indices('/').map(|(at, slash)| [&mount[..at], slash, &mount[at..]].concat());
    std::iter::once(mount.to_owned()).chain(doubled).fold(Router::new(), |router, path| {
        router
            .nest_service(&path, Lenient { routes: routes.clone(), whole: false })
            .route_service(&format!("{path}.json"), Lenient { routes: routes.clone(), whole: true })
    })
}

#[derive(Clone)]
struct Lenient {
    routes: Router,
    /// The path still is the whole one, mount and all, and means the root of `routes`.
    whole: bool,
}

impl Service<Request> for Lenient {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.routes, cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let canonical = if self.whole { "/".to_owned() } else { canonical(request.uri().path()) };
        if canonical != request.uri().path()
            && let Some(uri) = at(request.uri(), &canonical)
        {
            *request.uri_mut() = uri;
        }
        self.routes.call(request)
    }
}

/// The canonical spelling of a path.
fn canonical(path: &str) -> String {
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
    canonical
}

/// The same address with another path.
fn at(uri: &Uri, path: &str) -> Option<Uri> {
    let path_and_query = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query).ok()?);
    Uri::from_parts(parts).ok()
}
