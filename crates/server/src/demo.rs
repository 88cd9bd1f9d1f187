//! Protected resources to try things out with (`baton dev` only).

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::RawQuery;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use baton_axum::{AuthLayer, CurrentUser, Problem, Shape};
use baton_core::wire::Code;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::app::Mounted;

/// Longest sleep of `/demo/slow`, in milliseconds.
const MAX_SLEEP: u64 = 60_000;

pub(crate) fn routes(realms: &[Mounted], everybody: &AuthLayer) -> Router {
    let mut protected = Router::new()
        .route("/demo/members_only", any(members_only))
        .route("/demo/slow", any(slow))
        .route("/demo/status", any(status))
        .layer(everybody.clone());
    for realm in realms {
        protected = protected.route(&only(realm), any(members_only).layer(realm.auth.layer()));
    }
    protected
}

/// Where only accounts of this realm are let in.
fn only(realm: &Mounted) -> String {
    format!("/demo/realms/{}/members_only", realm.auth.engine().settings().realm)
}

/// Who is signed in, as the gem's own demo answers.
async fn members_only(user: CurrentUser) -> Response {
    #[derive(Serialize)]
    struct Answer<'a> {
        data: Data<'a>,
    }
    #[derive(Serialize)]
    struct Data<'a> {
        id: i64,
        uid: &'a str,
    }
    answer(StatusCode::OK, &Answer { data: Data { id: user.id.0, uid: &user.uid } })
}

/// The same after `ms` milliseconds, 1000 if not given.
async fn slow(user: CurrentUser, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let ms = number(query.as_deref(), "ms").unwrap_or(Some(1_000));
    let ms = ms
        .filter(|ms| *ms <= MAX_SLEEP)
        .ok_or_else(|| bad_parameter(format!("ms has to be a whole number of milliseconds from 0 to {MAX_SLEEP}.")))?;
    tracing::debug!(ms, "sleeping");
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok(members_only(user).await)
}

/// An answer with the status `code`, 200 if not given.
async fn status(_: CurrentUser, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let code = number(query.as_deref(), "code").unwrap_or(Some(200));
    let status = code
        .filter(|code| (200..=599).contains(code))
        .and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok())
        .ok_or_else(|| bad_parameter("code has to be a status from 200 to 599.".into()))?;
    if matches!(status.as_u16(), 204 | 205 | 304) {
        return Ok((status, Body::empty()).into_response());
    }
    Ok(answer(status, &json!({ "status": status.as_u16() })))
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
    match serde_json::to_vec(body) {
        Ok(body) => {
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, JSON);
            response
        }
        // These bodies are numbers and text, which can always be written.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A parameter: `None` if it is not there, `Some(None)` if it is no number.
fn number(query: Option<&str>, name: &str) -> Option<Option<u64>> {
    let (_, value) = form_urlencoded::parse(query?.as_bytes()).find(|(found, _)| found == name)?;
    Some(value.parse().ok())
}

fn bad_parameter(message: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, Code::Invalid, Shape::Bare, message)
}
