//! The reverse proxy: what is at no path of baton's own goes on to a backend (`[[upstream]]`).
//!
//! ```text
//! socket → baton's own routes
//!        ↳ Proxy::serve → route::find → AuthLayer → Upstream::forward → headers::to_target → a target
//!                                                                    ← headers::to_client ←
//! ```
//!
//! Each message is taken apart and written anew, so what was ambiguous in it never reaches a backend. Bodies are passed on piece
//! by piece, as fast as the slower side takes them, and each side learns when the other one is gone.

mod body;
mod clients;
mod forward;
mod headers;
mod health;
mod route;
mod targets;
mod tunnel;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::{FromRequestParts, OptionalFromRequestParts, Request};
use axum::response::{IntoResponse as _, Response};
use baton_axum::{AuthLayer, CurrentUser, Problem, Shape};
use baton_core::wire::Code;
use http::request::Parts;
use http::{Method, StatusCode};
use tokio::task::JoinSet;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

use crate::app::Mounted;
use crate::config::{Config, Require, UpstreamConfig};
use crate::jwt::Issuer;
use crate::tls::TrustError;
use forward::Upstream;
use headers::Secrets;

pub(crate) use headers::{IDENTITY, identity};

/// All backends.
#[derive(Clone)]
pub(crate) struct Proxy(Arc<[Route]>);

struct Route {
    upstream: Arc<Upstream>,
    /// The upstream behind what it requires.
    service: BoxCloneSyncService<Request, Response, Infallible>,
}

/// On a response: it is a backend's and not baton's own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passed;

impl Proxy {
    /// Does not connect yet.
    ///
    /// # Errors
    /// [`TrustError`] if a target cannot be called over TLS.
    pub(crate) fn new(config: &Config, realms: &[Mounted], issuer: Option<&Issuer>) -> Result<Self, TrustError> {
        let secrets = Arc::new(Secrets::of(realms));
        let origins = config.realms.first().map(|realm| realm.http.origins.clone()).unwrap_or_default();
        let route = |upstream: &UpstreamConfig| {
            let service = |require: Option<AuthLayer>, upstream: &Arc<Upstream>| {
                let upstream = Arc::clone(upstream);
                let forward = service_fn(move |request| {
                    let upstream = Arc::clone(&upstream);
                    async move { Ok::<_, Infallible>(upstream.forward(request).await) }
                });
                match require {
                    Some(layer) => BoxCloneSyncService::new(layer.layer(forward)),
                    None => BoxCloneSyncService::new(forward),
                }
            };
            let layer = layer(&upstream.require, realms);
            let signer = issuer
                .zip(upstream.jwt_audience.as_deref())
                .map(|(issuer, audience)| issuer.signer(audience, upstream.jwt_header));
            let upstream =
                Upstream::new(upstream.clone(), Arc::clone(&secrets), signer, origins.clone(), &config.server)?;
            let upstream = Arc::new(upstream);
            Ok(Route { service: service(layer, &upstream), upstream })
        };
        Ok(Self(config.upstreams.iter().map(route).collect::<Result<_, _>>()?))
    }

    /// Asks targets whether they are well, where that is wanted, until what this returns is dropped.
    pub(crate) fn watch(&self) -> JoinSet<()> {
        let mut watching = JoinSet::new();
        for route in &*self.0 {
            health::watch(&route.upstream, &mut watching);
        }
        watching
    }

    /// Answers a request that none of baton's own routes is for.
    async fn serve(self, request: Request) -> Response {
        let Self(routes) = self;
        let refuse =
            |status, code, message: &'static str| Problem::new(status, code, Shape::Bare, message).into_response();
        let Ok(host) = headers::host(&request) else {
            return refuse(StatusCode::BAD_REQUEST, Code::Malformed, "The request has to name one host.");
        };
        let Some(path) = route::canonical(request.uri().path()) else {
            let message = "The path holds dots or control characters that could be read in more than one way.";
            return refuse(StatusCode::BAD_REQUEST, Code::Malformed, message);
        };
        let known = routes.iter().map(|route| (route.upstream.config.host.as_deref(), &*route.upstream.config.path));
        let Some(found) = route::find(known, &host, &path) else {
            return refuse(StatusCode::NOT_FOUND, Code::NotFound, "There is nothing at this address.");
        };
        let Ok(response) = routes[found].service.clone().oneshot(request).await;
        response
    }
}

/// Without what a handler of axum would clone and box for each request.
impl Service<Request> for Proxy {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let answer = self.clone().serve(request);
        Box::pin(async { Ok(answer.await) })
    }
}

/// Who is signed in, and nobody for preflight requests, which are everybody's. Only within an [`AuthLayer`].
///
/// # Errors
/// What the client has to be told, if somebody has to be signed in or the store cannot say.
pub(crate) async fn signed_in(parts: &mut Parts, is_optional: bool) -> Result<Option<CurrentUser>, Problem> {
    if parts.method == Method::OPTIONS {
        Ok(None)
    } else if is_optional {
        <CurrentUser as OptionalFromRequestParts<()>>::from_request_parts(parts, &()).await
    } else {
        <CurrentUser as FromRequestParts<()>>::from_request_parts(parts, &()).await.map(Some)
    }
}

/// What stands before a backend; nothing if it is for everybody and nobody is to be looked at.
fn layer(require: &Require, realms: &[Mounted]) -> Option<AuthLayer> {
    let auths = realms.iter().map(|realm| realm.auth.clone());
    match require {
        Require::None => None,
        Require::Any | Require::Optional => Some(AuthLayer::any_of(auths)),
        Require::Realm(name) => Some(AuthLayer::any_of(auths.filter(|auth| auth.engine().settings().realm == *name))),
    }
}
