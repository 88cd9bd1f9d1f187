//! All routes, and the layers around them.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use baton_axum::{Auth, AuthLayer, Problem, Shape, auth_routes};
use baton_core::Store;
use baton_core::wire::Code;
use baton_mail::Mailbox;
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode, Uri};
use http_body_util::Limited;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;

use crate::access_log::{self, RequestIds};
use crate::client_addr::{self, Proxies};
use crate::config::{Config, ServerConfig};
use crate::edge_cors::EdgeCors;
use crate::proxy::Proxy;
use crate::{demo, forward_auth, health, mailbox};

/// A realm, and where its auth routes are.
#[derive(Debug, Clone)]
pub(crate) struct Mounted {
    pub(crate) mount: String,
    pub(crate) auth: Auth,
}

/// Everything that answers, from the outside in: the client's address, access log, CORS, panics, limits on bodies, routes.
/// With `demo`, the address that the server listens on, there are resources to try things out with.
pub(crate) fn router(
    realms: &[Mounted],
    mailbox: Option<Arc<Mailbox>>,
    store: Arc<dyn Store>,
    proxy: Option<Proxy>,
    config: &Config,
    demo: Option<SocketAddr>,
    ids: RequestIds,
) -> Router {
    let everybody = AuthLayer::any_of(realms.iter().map(|realm| realm.auth.clone()));
    let mut app = health::routes(store).merge(forward_auth::routes(realms));
    for Mounted { mount, auth } in realms {
        app = app.merge(auth_routes(mount, auth));
    }
    if let Some(address) = demo {
        app = app.merge(demo::routes(realms, &everybody));
        if proxy.is_none() {
            app = app.merge(demo::at_root(realms, address));
        }
    }
    if let Some(mailbox) = mailbox {
        app = app.merge(mailbox::routes(mailbox));
    }
    around(app, proxy, &everybody, &config.server, ids)
}

fn around(
    routes: Router,
    proxy: Option<Proxy>,
    everybody: &AuthLayer,
    config: &ServerConfig,
    ids: RequestIds,
) -> Router {
    let proxies = Proxies::new(config.trusted_proxies.clone());
    // As one layer: the router boxes what each of its own layers makes, for every request.
    let layers = ServiceBuilder::new()
        .map_request(move |request| client_addr::set(&proxies, request))
        .layer(from_fn_with_state(ids, access_log::log))
        .layer(EdgeCors::new(everybody.cors(), proxy.is_some()))
        .layer(CatchPanicLayer::custom(panicked));
    let routes = routes.fallback(not_found).method_not_allowed_fallback(method_not_allowed).layer(
        ServiceBuilder::new()
            .layer(from_fn_with_state(config.max_body_bytes, limit_body))
            .layer(RequestBodyTimeoutLayer::new(config.body_read_timeout)),
    );
    // Behind the limits on bodies: a backend has its own.
    let routes = match proxy {
        Some(proxy) => routes.fallback_service(any(Proxy::serve).with_state(proxy)),
        None => routes,
    };
    routes.layer(layers)
}

async fn not_found(uri: Uri) -> Problem {
    let message = format!("There is nothing at {}.", uri.path());
    Problem::new(StatusCode::NOT_FOUND, Code::NotFound, Shape::Bare, message)
}

async fn method_not_allowed(method: Method) -> Problem {
    let message = format!("{method} is not supported here.");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, Shape::Bare, message)
}

/// A body that says it is too long is refused unread; one that turns out to be is cut off.
async fn limit_body(State(max): State<usize>, request: Request, next: Next) -> Response {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > max as u64) {
        let message = format!("The body is longer than {max} bytes.");
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, Shape::Bare, message).into_response();
    }
    next.run(request.map(|body| Body::new(Limited::new(body, max)))).await
}

/// What the client gets for a panic. The log has it from the panic hook.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    let message = "Something went wrong here. It has been logged.";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unavailable, Shape::Bare, message).into_response()
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use baton_axum::HttpSettings;
    use baton_core::{Key, KeyRing};
    use baton_engine::{Engine, OsRandom, Settings};
    use baton_store::clock::ManualClock;
    use baton_store::memory::MemoryStore;
    use tower::ServiceExt as _;

    use super::*;
    use crate::Sources;

    #[tokio::test]
    async fn a_panic_is_answered_in_json_and_ends_nothing() {
        let store = Arc::new(MemoryStore::new(Arc::new(ManualClock::default())));
        let keys = KeyRing::new(vec![Key::new(0, *b"an example key of 32 bytes only!").unwrap()]).unwrap();
        let engine = Engine::open(store, keys, Arc::new(OsRandom), Settings::default()).await.unwrap();
        let auth = Auth::new(engine, HttpSettings::default()).unwrap();
        let config = Config::load(&Sources::default()).unwrap();
        let panics = || async {
            let text = String::from("secret");
            assert!(text.is_empty(), "{text}");
        };
        let routes = Router::new().route("/panics", get(panics)).route("/works", get(|| async { "fine" }));
        let app = around(routes, None, &auth.layer(), &config.server, RequestIds::new(&OsRandom).unwrap());
        let call = |path: &str| app.clone().oneshot(Request::get(path).body(Body::empty()).unwrap());

        let response = call("/panics").await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.headers().contains_key("x-request-id"));
        let body = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(body["errors"].is_array() && !body.to_string().contains("secret"), "{body}");
        assert_eq!(call("/works").await.unwrap().status(), StatusCode::OK);
    }
}
