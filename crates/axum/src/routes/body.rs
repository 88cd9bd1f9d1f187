//! JSON bodies in the shapes that front ends read.

use axum::body::Body;
use axum::response::Response;
use baton_core::{Account, Timestamp};
use baton_engine::SessionView;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use crate::problem::JSON;

/// 200 with a JSON body.
pub(super) fn ok(body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// An account, as in sign-in and validation. `may_set_password`: whether this session may, without the one so far.
pub(super) fn user(account: &Account, may_set_password: bool) -> Map<String, Value> {
    let mut user = account.profile.fields();
    user.insert("id".into(), account.id.0.into());
    user.insert("email".into(), account.email.as_str().into());
    user.insert("provider".into(), account.provider.as_str().into());
    user.insert("uid".into(), account.uid.as_str().into());
    user.insert("allow_password_change".into(), may_set_password.into());
    user
}

/// An account with its times, as in registration.
pub(super) fn user_with_times(account: &Account, may_set_password: bool) -> Map<String, Value> {
    let mut user = user(account, may_set_password);
    user.insert("created_at".into(), time(account.created_at));
    user.insert("updated_at".into(), time(account.updated_at));
    user
}

/// One device of the list.
pub(super) fn device(view: &SessionView) -> Value {
    let session = &view.entry.session;
    json!({
        "id": session.client.to_string(),
        "current": view.current,
        "created_at": time(session.created_at),
        "last_seen_at": time(session.last_seen_at),
        "expires_at": time(session.expires_at),
        "ip": view.entry.device.ip.map(|ip| ip.to_string()),
        "user_agent": view.entry.device.user_agent,
    })
}

/// ISO 8601 in UTC with milliseconds; null for a time that no calendar has.
fn time(at: Timestamp) -> Value {
    jiff::Timestamp::from_millisecond(at.as_millis()).map_or(Value::Null, |at| format!("{at:.3}").into())
}
