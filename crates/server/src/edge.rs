//! What surrounds all routes: the client's address, the access log, CORS and panics.
//!
//! One function and no layers: the router clones and boxes what each of its layers makes, for every request.

use std::any::Any;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use baton_axum::{ClientAddr, Problem, Shape};
use baton_core::wire::Code;
use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, ORIGIN, TRANSFER_ENCODING, VARY};
use http::{HeaderValue, Method, Request, StatusCode};
use tower::{Layer as _, Service as _};
use tower_http::cors::{Cors, CorsLayer};

use crate::access_log::{Line, RequestIds};
use crate::client_addr::Proxies;
use crate::forward_auth;
use crate::listen::Place;

/// On a request, where there are backends: how it came here, for whoever passes it on.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// The other end of its connection.
    pub(crate) peer: IpAddr,
    /// What the log calls it.
    pub(crate) request_id: Option<HeaderValue>,
    /// The place of its connection. Whoever takes the connection over keeps it.
    pub(crate) place: Option<Place>,
}

/// Answers requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Edge(Arc<Inner>);

struct Inner {
    routes: Router,
    to_pages: Cors<Router>,
    proxies: Proxies,
    ids: RequestIds,
    has_backends: bool,
}

impl Edge {
    pub(crate) fn new(routes: Router, cors: &CorsLayer, proxies: Proxies, ids: RequestIds, has_backends: bool) -> Self {
        // Or the router would make each handler's layers anew for every request.
        let routes = routes.with_state(());
        let to_pages = cors.layer(routes.clone());
        Self(Arc::new(Inner { routes, to_pages, proxies, ids, has_backends }))
    }

    /// Answers a request that came from `peer`.
    pub(crate) async fn answer<B>(
        self,
        mut request: Request<B>,
        peer: SocketAddr,
        place: Option<Place>,
    ) -> Result<Response, Infallible>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        // What follows a body in chunks is not looked at as closely as what came before (`lengths`), so nothing does.
        let is_last = request.headers().contains_key(TRANSFER_ENCODING);
        let client = self.0.proxies.client(peer.ip(), request.headers());
        let line = Line::begin(&self.0.ids, request.method(), request.uri().path());
        let extensions = request.extensions_mut();
        extensions.insert(ClientAddr(client));
        if self.0.has_backends {
            extensions.insert(Arrival { peer: peer.ip(), request_id: line.id(), place });
        }
        let answer = AssertUnwindSafe(self.pass_on(request.map(Body::new))).catch_unwind().await;
        let mut response = answer.unwrap_or_else(panicked);
        line.end(&mut response);
        if is_last {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    /// Refuses a request that says two lengths, and ends its connection: to somebody on its way, what follows it may be its body.
    pub(crate) fn refuse<B>(&self, request: &Request<B>) -> Response {
        let line = Line::begin(&self.0.ids, request.method(), request.uri().path());
        let message = "The request has both Content-Length and Transfer-Encoding.";
        let mut response = Problem::new(StatusCode::BAD_REQUEST, Code::Malformed, Shape::Bare, message).into_response();
        line.end(&mut response);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// Calls before it is polled: a future that keeps the request for later would be as large again.
    fn pass_on(&self, request: Request<Body>) -> impl Future<Output = Response> + Send + use<> {
        let is_from_page = request.headers().contains_key(ORIGIN);
        let is_options = request.method() == Method::OPTIONS;
        // tower-http's layer answers every `OPTIONS` itself. What a gateway asks is no page's call, whatever it says of the
        // request that it asks about; and an `OPTIONS` that is no preflight is for the backends to answer, where there are any.
        let is_preflight = is_from_page && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let is_for_anybody =
            forward_auth::is_at(request.uri().path()) || self.0.has_backends && is_options && !is_preflight;
        let is_for_page = !is_for_anybody && (is_from_page || is_options);
        let answer = if is_for_page {
            Either::Left(self.0.to_pages.clone().call(request))
        } else {
            Either::Right(self.0.routes.clone().call(request))
        };
        async move {
            let mut response = infallible(answer.await);
            if !is_for_anybody && !is_for_page {
                // A cache must not give this answer to a page.
                response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
            }
            response
        }
    }
}

fn infallible(answer: Result<Response, Infallible>) -> Response {
    answer.unwrap_or_else(|never| match never {})
}

/// What the client gets for a panic. The log has it from the panic hook.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    let message = "Something went wrong here. It has been logged.";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unavailable, Shape::Bare, message).into_response()
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use baton_engine::OsRandom;

    use super::*;
    use crate::client_addr::TrustedProxies;

    #[tokio::test]
    async fn a_panic_is_answered_in_json_and_ends_nothing() {
        let panics = || async {
            let text = String::from("secret");
            assert!(text.is_empty(), "{text}");
        };
        let routes = Router::new().route("/panics", get(panics)).route("/works", get(|| async { "fine" }));
        let proxies = Proxies::new(TrustedProxies::default());
        let edge = Edge::new(routes, &CorsLayer::new(), proxies, RequestIds::new(&OsRandom).unwrap(), false);
        let peer = SocketAddr::from(([127, 0, 0, 1], 4711));
        let call = |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let edge = edge.clone();
            async move { infallible(edge.answer(request, peer, None).await) }
        };

        let response = call("/panics").await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.headers().contains_key("x-request-id"));
        let body = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(body["errors"].is_array() && !body.to_string().contains("secret"), "{body}");
        assert_eq!(call("/works").await.status(), StatusCode::OK);
    }
}
