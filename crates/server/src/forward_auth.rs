//! `/forward-auth`: answers for a gateway that asks before it passes a request on (nginx `auth_request`, Caddy `forward_auth`,
//! Traefik `ForwardAuth`, Envoy `ext_authz`).
//!
//! 200 with who is signed in, and with the next token; 401, 403 or 503 as a protected resource would answer. The gateway hands
//! the token headers to its client and the identity headers to its backend.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use baton_axum::{AuthLayer, CurrentUser, Problem, Shape};
use baton_core::wire::Code;
use http::header::{CACHE_CONTROL, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::app::Mounted;
use crate::jwt::{self, Signer};
use crate::proxy::{IDENTITY, identity, signed_in};

/// Where it is.
const PATH: &str = "/forward-auth";
/// What a gateway says of the request that it asks about.
const METHODS: [&str; 2] = ["x-forwarded-method", "x-original-method"];
const URIS: [&str; 2] = ["x-forwarded-uri", "x-original-uri"];
/// Why somebody is not let through.
const CODE: HeaderName = HeaderName::from_static("x-auth-code");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Whether this path is its.
pub(crate) fn is_at(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

struct Gate {
    realms: Vec<Mounted>,
    signer: Option<Signer>,
}

pub(crate) fn routes(realms: &[Mounted], signer: Option<Signer>) -> Router {
    let gate = Arc::new(Gate { realms: realms.to_vec(), signer });
    // Envoy puts the path that it asks about behind.
    Router::new().route(PATH, any(answer)).route(&format!("{PATH}/{{*path}}"), any(answer)).with_state(gate)
}

async fn answer(State(gate): State<Arc<Gate>>, RawQuery(query): RawQuery, request: Request) -> Response {
    let is_own = request.uri().path() == PATH;
    let wanted = query.as_deref().filter(|_| is_own).and_then(|query| parameter(query, "require"));
    let wanted = wanted.as_deref().unwrap_or("any");
    let is_optional = wanted == "optional";
    let auths = gate.realms.iter().map(|realm| realm.auth.clone());
    let is_meant = |realm: &str| is_optional || wanted == "any" || realm == wanted;
    let auths: Vec<_> = auths.filter(|auth| is_meant(&auth.engine().settings().realm)).collect();
    if auths.is_empty() {
        let message = "require has to be \"any\", \"optional\" or the name of a realm.";
        return Problem::new(StatusCode::BAD_REQUEST, Code::Invalid, Shape::Bare, message).into_response();
    }
    let layer = AuthLayer::any_of(auths);
    let admit = service_fn(move |request| {
        let gate = Arc::clone(&gate);
        async move { Ok::<_, std::convert::Infallible>(admit(request, is_optional, gate.signer.as_ref()).await) }
    });
    let Ok(response) = layer.layer(admit).oneshot(asked_about(request)).await;
    response
}

/// The request that the gateway asks about, as far as it is of any interest.
fn asked_about(request: Request) -> Request {
    let (mut parts, _) = request.into_parts();
    let headers = &parts.headers;
    // A client can send such a header too, and one that the gateway does not write comes through: what is believed has to be said by
    // all of them, and by the method, if the gateway passes that on.
    let mut methods = METHODS.iter().flat_map(|name| headers.get_all(*name)).map(HeaderValue::as_bytes);
    let said = methods.next().filter(|first| methods.all(|method| method == *first));
    let method = match said.and_then(|method| Method::from_bytes(method).ok()) {
        Some(method) if parts.method == Method::GET || parts.method == method => method,
        // The strictest that there is: a change, and no preflight.
        None if METHODS.iter().any(|name| headers.contains_key(*name)) => Method::POST,
        Some(_) => Method::POST,
        None => parts.method.clone(),
    };
    let behind = parts.uri.path_and_query().and_then(|path| path.as_str().strip_prefix(PATH));
    let behind = behind.filter(|path| path.starts_with('/'));
    let uri = behind.or_else(|| text(headers, URIS[0])).or_else(|| text(headers, URIS[1]));
    let uri = uri.and_then(|uri| uri.parse::<Uri>().ok()).and_then(|uri| uri.path_and_query().cloned());
    let host = headers.get(FORWARDED_HOST).cloned();
    parts.uri = Uri::from(uri.unwrap_or_else(|| PathAndQuery::from_static("/")));
    if let Some(host) = host {
        parts.headers.insert(HOST, host);
    }
    parts.method = method;
    Request::from_parts(parts, Body::empty())
}

async fn admit(request: Request, is_optional: bool, signer: Option<&Signer>) -> Response {
    let (mut parts, _) = request.into_parts();
    match signed_in(&mut parts, is_optional).await {
        Ok(user) => admitted(user.as_ref(), signer),
        Err(problem) => refused(problem),
    }
}

/// With the reason in a header as well: not every gateway can hand the body to its client.
fn refused(problem: Problem) -> Response {
    let code = HeaderValue::from_str(problem.code());
    let mut response = problem.into_response();
    if let Ok(code) = code {
        response.headers_mut().insert(CODE, code);
    }
    response
}

/// All of them in any case: a gateway then writes them over what its client sent under these names.
fn admitted(user: Option<&CurrentUser>, signer: Option<&Signer>) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in IDENTITY.into_iter().zip(user.map(identity).unwrap_or_default()) {
        headers.insert(name, value.unwrap_or(HeaderValue::from_static("")));
    }
    let jwt = signer.zip(user).map(|(signer, user)| signer.sign(user));
    headers.insert(jwt::HEADER, jwt.unwrap_or(HeaderValue::from_static("")));
    response
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes()).find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}
