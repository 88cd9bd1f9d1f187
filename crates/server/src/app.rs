//! All routes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use baton_axum::{Auth, AuthLayer, Problem, Shape, auth_routes};
use baton_core::Store;
use baton_core::wire::Code;
use baton_mail::Mailbox;
use http::{Method, StatusCode, Uri};

use crate::access_log::RequestIds;
use crate::body_limits::BodyLimits;
use crate::client_addr::Proxies;
use crate::config::{Config, ServerConfig};
use crate::edge::Edge;
use crate::proxy::Proxy;
use crate::{demo, forward_auth, health, mailbox};

/// A realm, and where its auth routes are.
#[derive(Debug, Clone)]
pub(crate) struct Mounted {
    pub(crate) mount: String,
    pub(crate) auth: Auth,
}

/// Everything that answers, from the outside in: the edge, limits on bodies, routes.
/// With `demo`, the address that the server listens on, there are resources to try things out with.
pub(crate) fn router(
    realms: &[Mounted],
    mailbox: Option<Arc<Mailbox>>,
    store: Arc<dyn Store>,
    proxy: Option<Proxy>,
    config: &Config,
    demo: Option<SocketAddr>,
    ids: RequestIds,
) -> Edge {
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

fn around(routes: Router, proxy: Option<Proxy>, everybody: &AuthLayer, config: &ServerConfig, ids: RequestIds) -> Edge {
    let has_backends = proxy.is_some();
    let limits = BodyLimits { max: config.max_body_bytes, timeout: config.body_read_timeout };
    let routes = routes.fallback(not_found).method_not_allowed_fallback(method_not_allowed).layer(limits);
    // Behind the limits on bodies: a backend has its own.
    let routes = match proxy {
        Some(proxy) => routes.fallback_service(any(Proxy::serve).with_state(proxy)),
        None => routes,
    };
    Edge::new(routes, &everybody.cors(), Proxies::new(config.trusted_proxies.clone()), ids, has_backends)
}

async fn not_found(uri: Uri) -> Problem {
    let message = format!("There is nothing at {}.", uri.path());
    Problem::new(StatusCode::NOT_FOUND, Code::NotFound, Shape::Bare, message)
}

async fn method_not_allowed(method: Method) -> Problem {
    let message = format!("{method} is not supported here.");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, Shape::Bare, message)
}
