//! Where links in letters lead: on to a front end, or to a page that says what there is to say.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::handler::Handler;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use baton_engine::{RedeemError, Redirect, SignedIn};
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION, REFERRER_POLICY, SET_COOKIE,
};
use serde_json::Value;

use crate::Auth;
use crate::problem::{Problem, Shape};

/// A route whose `GET` uses a token up. A `HEAD`, by which programs look whether a link is good, does not.
pub(super) fn once<H, T>(handler: H) -> MethodRouter<Auth>
where
    H: Handler<T, Auth>,
    T: 'static,
{
    get(handler).head(|| async { plain(StatusCode::OK, Body::empty()) })
}

/// The parameters of a link. Of several with one name the first counts.
#[derive(Debug)]
pub(super) struct Link(Vec<(String, String)>);

impl Link {
    /// A parameter that says something.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(found, _)| found == name)?;
        Some(value.as_str()).filter(|value| !value.trim().is_empty())
    }

    /// Where it leads on to: to where it says, if that is allowed, or to the default.
    pub(super) fn redirect(&self, auth: &Auth, default: Option<&Redirect>) -> Result<Option<Redirect>, Problem> {
        let asked = auth.engine().asked_redirect(self.get("redirect_url"));
        let asked = asked.map_err(|refused| Problem::redirect(refused, Value::Null))?;
        Ok(asked.or_else(|| default.cloned()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Link {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

/// 302 to a front end, with these parameters.
pub(super) fn go(to: &Redirect, params: &[(&str, &str)]) -> Response {
    let mut response = plain(StatusCode::FOUND, Body::empty());
    // A redirect is printable ASCII; this cannot fail.
    if let Ok(mut location) = HeaderValue::from_str(&to.with_params(params)) {
        location.set_sensitive(true);
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// 302 to a front end, signed in: with the parameters that it reads the session from, under all the names that one of them
/// knows, and these. Where the token travels in a cookie alone it is there, and not in the URL.
pub(super) fn go_signed_in(
    auth: &Auth,
    to: &Redirect,
    link: &Link,
    opened: &SignedIn,
    params: &[(&str, &str)],
) -> Response {
    let names = &auth.settings().headers_names;
    let SignedIn { account, credentials } = opened;
    let (client, expiry) = (credentials.client.to_string(), credentials.expiry());
    let mut all = vec![
        (names.client.as_str(), client.as_str()),
        ("client_id", &client),
        ("config", link.get("config").unwrap_or_default()),
        ("expiry", &expiry),
        ("uid", &account.uid),
    ];
    let cookie = auth.settings().cookie.as_ref();
    if !cookie.is_some_and(|cookie| cookie.only) {
        all.push((&names.access_token, credentials.token.expose()));
        all.push(("token", credentials.token.expose()));
    }
    all.extend(params);
    let mut response = go(to, &all);
    if let Some(value) = cookie.and_then(|cookie| cookie.set(names, credentials)) {
        response.headers_mut().append(SET_COOKIE, value);
    }
    response
}

/// A page for somebody who followed a link that leads nowhere. `message` is a literal.
pub(super) fn page(status: StatusCode, message: &'static str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{message}</title></head><body><main><h1>{message}</h1></main></body></html>"
    );
    let mut response = plain(status, Body::from(html));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

/// Where a link led, or the page of one that is not good.
pub(super) fn or_stale(led: Result<Response, RedeemError>) -> Result<Response, Problem> {
    match led {
        Ok(response) => Ok(response),
        Err(RedeemError::Invalid) => Ok(stale()),
        Err(RedeemError::Store(error)) => Err(Problem::store(&error, Shape::Success)),
    }
}

/// The link is not good any more.
pub(super) fn stale() -> Response {
    page(StatusCode::NOT_FOUND, "This link is not good any more. Ask for a new one.")
}

/// The address of the request holds a token, which nobody else is to see.
fn plain(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
