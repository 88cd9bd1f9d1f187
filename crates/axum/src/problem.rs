//! The one file that turns errors into statuses and bodies.
//!
//! Bodies have the gem's shapes, because front ends read `errors` from them, and a stable `code` besides.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::IntoResponse;
use baton_core::wire::Code;
use baton_engine::{
    FieldFaults, LinkRequestError, PasswordError, RedirectRefused, Refusal, RegisterError, SignInError,
};
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::credentials::MORE_HEADERS;
use crate::limits::Limited;

/// Which of the gem's error bodies a front end expects at this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"errors": […]}`: protected resources.
    Bare,
    /// `{"success": false, "errors": […]}`: sign-in, validation and sign-out.
    Success,
    /// `{"success": false, "status": "error", "errors": […]}`: the account itself.
    Status,
}

/// A refusal or failure as the client sees it. Says nothing about the cause of an internal failure; that is in the log.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    /// Boxed, so that what may fail with it stays small.
    body: Box<Body>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug, Clone, Serialize)]
struct Body {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    errors: Errors,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    success: Option<bool>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
enum Errors {
    Message([Cow<'static, str>; 1]),
    Fields(serde_json::Map<String, Value>),
}

impl Problem {
    /// A problem of this status, code and message.
    pub fn new(status: StatusCode, code: Code, shape: Shape, message: impl Into<Cow<'static, str>>) -> Self {
        let body = Body {
            code: code.as_str(),
            data: None,
            errors: Errors::Message([message.into()]),
            status: (shape == Shape::Status).then_some("error"),
            success: (shape != Shape::Bare).then_some(false),
        };
        Self { status, body: Box::new(body), headers: Vec::new() }
    }

    /// 401 with a challenge that names no error: it is not about a token.
    pub(crate) fn unauthorized(code: Code, shape: Shape, message: impl Into<Cow<'static, str>>) -> Self {
        let challenge = HeaderValue::from_static(r#"Bearer realm="baton""#);
        Self::new(StatusCode::UNAUTHORIZED, code, shape, message).with(WWW_AUTHENTICATE, challenge)
    }

    /// Nobody is signed in. The challenge names no error, since nothing was presented (RFC 6750 §3.1).
    #[must_use]
    pub fn anonymous(shape: Shape) -> Self {
        Self::unauthorized(Code::NotAuthenticated, shape, "Sign in or sign up to continue.")
    }

    /// The credentials are no good.
    #[must_use]
    pub fn refused(refusal: Refusal, shape: Shape) -> Self {
        // Constants, or each refusal would look at every byte of its challenge.
        const INVALID: HeaderValue = HeaderValue::from_static(
            r#"Bearer realm="baton", error="invalid_token", error_description="The access token is not valid""#,
        );
        const SUPERSEDED: HeaderValue = HeaderValue::from_static(
            r#"Bearer realm="baton", error="invalid_token", error_description="The access token was superseded""#,
        );
        const EXPIRED: HeaderValue = HeaderValue::from_static(
            r#"Bearer realm="baton", error="invalid_token", error_description="The session expired""#,
        );
        const REVOKED: HeaderValue = HeaderValue::from_static(
            r#"Bearer realm="baton", error="invalid_token", error_description="The session has ended""#,
        );
        let (code, message, challenge) = match refusal {
            Refusal::Invalid => (Code::TokenInvalid, "The access token is not valid.", INVALID),
            Refusal::Superseded => {
                (Code::TokenSuperseded, "A newer access token has taken the place of this one.", SUPERSEDED)
            }
            Refusal::Expired => (Code::TokenExpired, "The session has expired. Sign in again.", EXPIRED),
            Refusal::Revoked => (Code::SessionRevoked, "The session has ended. Sign in again.", REVOKED),
        };
        Self::new(StatusCode::UNAUTHORIZED, code, shape, message).with(WWW_AUTHENTICATE, challenge)
    }

    /// A page of another site made the request with the user's cookie.
    #[must_use]
    pub fn cross_site(shape: Shape) -> Self {
        let message = "Requests with a cookie are accepted from this site's own pages only.";
        Self::new(StatusCode::FORBIDDEN, Code::CrossSite, shape, message)
    }

    /// The store is away or the server is busy. 503 and never 401: a client must not throw its session away for it.
    #[must_use]
    pub fn unavailable(shape: Shape) -> Self {
        let message = "The service is not available right now. Try again in a moment.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, shape, message)
            .with(RETRY_AFTER, HeaderValue::from_static("2"))
    }

    /// Too many attempts. The fields are those of draft-ietf-httpapi-ratelimit-headers-10; `t` is the time of `Retry-After`.
    pub(crate) fn rate_limited(limited: &Limited, shape: Shape) -> Self {
        let Limited { policy, quota, wait } = limited;
        let seconds = rounded_up(*wait).max(1);
        let message = format!("Too many attempts. Try again in {seconds} s.");
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, Code::RateLimited, shape, message)
            .with(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after, ratelimit, ratelimit-policy"));
        for (name, value) in [
            (RETRY_AFTER, seconds.to_string()),
            (RATELIMIT_POLICY, format!("\"{policy}\";q={};w={}", quota.burst, rounded_up(quota.period))),
            (RATELIMIT, format!("\"{policy}\";r=0;t={seconds}")),
        ] {
            // Digits and a name of ours; this cannot fail.
            problem.headers.extend(HeaderValue::from_str(&value).ok().map(|value| (name, value)));
        }
        problem
    }

    /// Fields of a form are missing or wrong. `data` is the record as it was sent, which front ends put back into the form of
    /// a registration.
    #[must_use]
    pub fn invalid_fields(faults: &FieldFaults, data: Option<Value>) -> Self {
        let mut errors = serde_json::Map::new();
        let mut full = Vec::new();
        for (field, fault) in faults.iter() {
            full.push(Value::String(format!("{} {fault}", humanized(field))));
            if let Value::Array(list) = errors.entry(field).or_insert_with(|| json!([])) {
                list.push(fault.into());
            }
        }
        errors.insert("full_messages".into(), Value::Array(full));
        let errors = Errors::Fields(errors);
        let body = Body { code: Code::Invalid.as_str(), data, errors, status: Some("error"), success: None };
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, body: Box::new(body), headers: Vec::new() }
    }

    /// Sign-in failed, for whatever reason.
    #[must_use]
    pub fn sign_in(error: &SignInError) -> Self {
        match error {
            SignInError::BadCredentials => Self::bad_credentials(),
            SignInError::Unconfirmed => {
                let message = "Confirm your e-mail address first: follow the link in the letter that was sent to it.";
                Self::unauthorized(Code::Unconfirmed, Shape::Success, message)
            }
            SignInError::Locked => {
                let message = "Too many sign-ins failed. Try again later, or follow the link in the letter.";
                Self::unauthorized(Code::Locked, Shape::Success, message)
            }
            SignInError::Password(error) => Self::password(error, Shape::Success),
            SignInError::Store(error) => Self::store(error, Shape::Success),
        }
    }

    /// E-mail or password are wrong or missing.
    #[must_use]
    pub fn bad_credentials() -> Self {
        Self::unauthorized(Code::BadCredentials, Shape::Success, "Wrong e-mail address or password.")
    }

    /// Registration failed. `data`: see [`invalid_fields`](Self::invalid_fields).
    #[must_use]
    pub fn register(error: &RegisterError, data: Value) -> Self {
        match error {
            RegisterError::Invalid(faults) => Self::invalid_fields(faults, Some(data)),
            RegisterError::Redirect(refused) => Self::redirect(*refused, data),
            RegisterError::Password(error) => Self::password(error, Shape::Status),
            RegisterError::Store(error) => Self::store(error, Shape::Status),
        }
    }

    /// A letter was not asked for.
    #[must_use]
    pub fn link_request(error: &LinkRequestError) -> Self {
        let unauthorized = |message: &'static str| Self::unauthorized(Code::Invalid, Shape::Success, message);
        match error {
            LinkRequestError::NoEmail => unauthorized("An e-mail address is needed."),
            LinkRequestError::NoRedirect => unauthorized("A redirect_url is needed."),
            LinkRequestError::Refused(refused) => Self::redirect(*refused, Value::Null),
            LinkRequestError::Unknown => {
                let message = "There is no account with this e-mail address.";
                Self::new(StatusCode::NOT_FOUND, Code::NotFound, Shape::Success, message)
            }
            LinkRequestError::Store(error) => Self::store(error, Shape::Success),
        }
    }

    /// A link may not lead on to there. `data`: see [`invalid_fields`](Self::invalid_fields).
    #[must_use]
    pub fn redirect(refused: RedirectRefused, data: Value) -> Self {
        let message = format!("The address to go on to {refused}.");
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, Code::RedirectRefused, Shape::Status, message);
        problem.body.data = Some(data);
        problem
    }

    /// A password was not set. Front ends read these with `success` and not with `status`.
    #[must_use]
    pub fn new_password(faults: &FieldFaults) -> Self {
        let mut problem = Self::invalid_fields(faults, None);
        (problem.body.status, problem.body.success) = (None, Some(false));
        problem
    }

    /// The store failed; the cause goes to the log.
    #[must_use]
    pub fn store(error: &baton_core::StoreError, shape: Shape) -> Self {
        tracing::error!(%error, "the store failed");
        Self::unavailable(shape)
    }

    /// A password could not be hashed or checked; the cause goes to the log.
    #[must_use]
    pub fn password(error: &PasswordError, shape: Shape) -> Self {
        tracing::error!(%error, "could not hash a password");
        Self::unavailable(shape)
    }

    /// Its machine-readable reason, as the body has it.
    #[must_use]
    pub const fn code(&self) -> &str {
        self.body.code
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Status, body and headers, for whoever describes it.
    #[cfg(feature = "openapi")]
    pub(crate) fn parts(&self) -> (StatusCode, Value, &[(HeaderName, HeaderValue)]) {
        (self.status, serde_json::to_value(&self.body).unwrap_or_default(), &self.headers)
    }

    /// The response, with whatever kind of body the service around has.
    #[must_use]
    pub fn into_response_of<B: From<Bytes>>(self) -> Response<B> {
        // Text under keys that are text can always be written.
        let body = serde_json::to_vec(&self.body).unwrap_or_default();
        let mut response = Response::new(B::from(Bytes::from(body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.reserve(self.headers.len() + MORE_HEADERS);
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

pub(crate) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Whole seconds: whoever waits that long has waited long enough.
fn rounded_up(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

/// What the gem sends, character for character: some front ends look at it.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

impl IntoResponse for Problem {
    fn into_response(self) -> Response<axum::body::Body> {
        self.into_response_of()
    }
}

/// `password_confirmation` → `Password confirmation`, for a sentence about the field.
fn humanized(field: &str) -> String {
    let mut words = field.replace('_', " ");
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}
