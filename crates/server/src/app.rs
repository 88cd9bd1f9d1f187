//! All routes.

use std::sync::Arc;

use axum::Router;
use baton_axum::{Auth, AuthLayer, Problem, Shape, auth_routes};
use baton_core::Store;
use baton_core::wire::Code;
use baton_mail::Mailbox;
use http::{Method, StatusCode, Uri};

use crate::access_log::RequestIds;
use crate::body_limits::BodyLimits;
use crate::client_addr::Proxies;
use crate::config::{Config, JwtHeader, ServerConfig};
use crate::edge::Edge;
use crate::jwt::Issuer;
use crate::proxy::Proxy;
use crate::{demo, forward_auth, health, mailbox, playground};

/// A realm, and where its auth routes are.
#[derive(Debug, Clone)]
pub(crate) struct Mounted {
    pub(crate) mount: String,
    pub(crate) auth: Auth,
}

/// What there may be besides the auth routes.
pub(crate) struct Outside {
    /// Who signs JWTs.
    pub(crate) issuer: Option<Issuer>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) mailbox: Option<Arc<Mailbox>>,
    /// Whether there are resources to try things out with, and a page to do so.
    pub(crate) demo: bool,
}

/// Everything that answers, from the outside in: the edge, routes.
pub(crate) fn router(
    realms: &[Mounted],
    store: Arc<dyn Store>,
    outside: Outside,
    config: &Config,
    ids: RequestIds,
) -> Edge {
    let Outside { issuer, proxy, mailbox, demo } = outside;
    let everybody = AuthLayer::any_of(realms.iter().map(|realm| realm.auth.clone()));
    let audience = config.jwt.forward_auth_audience.as_deref();
    let signer = issuer.as_ref().zip(audience).map(|(issuer, audience)| issuer.signer(audience, JwtHeader::Own));
    let limits = BodyLimits { max: config.server.max_body_bytes, timeout: config.server.body_read_timeout };
    let mut app = health::routes(store).merge(forward_auth::routes(realms, signer));
    if let Some(issuer) = issuer {
        app = app.merge(issuer.routes());
    }
    for Mounted { mount, auth } in realms {
        // Nobody else reads a body; a backend has limits of its own.
        app = app.merge(auth_routes(mount, auth).layer(limits));
    }
    if demo {
        app = app.merge(demo::routes(realms, &everybody)).merge(playground::routes(config));
        if proxy.is_none() {
            app = app.merge(playground::at_root());
        }
    }
    if let Some(mailbox) = mailbox {
        app = app.merge(mailbox::routes(mailbox));
    }
    around(app, proxy, &everybody, &config.server, ids)
}

fn around(routes: Router, proxy: Option<Proxy>, everybody: &AuthLayer, config: &ServerConfig, ids: RequestIds) -> Edge {
    let has_backends = proxy.is_some();
    let routes = routes.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
    let routes = match proxy {
        Some(proxy) => routes.fallback_service(proxy),
        None => routes,
    };
    Edge::new(routes, &everybody.cors(), Proxies::new(config.trusted_proxies.clone()), ids, has_backends)
}

pub(crate) async fn not_found(uri: Uri) -> Problem {
    let message = format!("There is nothing at {}.", uri.path());
    Problem::new(StatusCode::NOT_FOUND, Code::NotFound, Shape::Bare, message)
}

async fn method_not_allowed(method: Method) -> Problem {
    let message = format!("{method} is not supported here.");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, Shape::Bare, message)
}
