//! `GET /auth/sessions` and `DELETE /auth/sessions/{id}`: the account's devices.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::{From, body, gone, signed_out};
use crate::problem::{Problem, Shape};
use crate::{Auth, CurrentUser};

/// Lists the live sessions, most recently used first.
pub(super) async fn list(State(auth): State<Auth>, user: CurrentUser) -> Result<Response, Problem> {
    let sessions = auth.engine().sessions(&user.0).await;
    let sessions = sessions.map_err(|error| Problem::store(&error, Shape::Success))?;
    let data: Vec<Value> = sessions.iter().map(body::device).collect();
    Ok(body::ok(&json!({ "success": true, "data": data })))
}

/// Ends one of them.
pub(super) async fn end(
    State(auth): State<Auth>,
    user: CurrentUser,
    From(visitor): From,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    const UNKNOWN: &str = "The account has no session of that name.";
    let Ok(Path(id)) = id else { return Err(gone(Shape::Success, UNKNOWN)) };
    let response = match auth.engine().end_session(user.account(), &id, &visitor).await {
        Ok(true) => body::ok(&json!({ "success": true })),
        Ok(false) => return Err(gone(Shape::Success, UNKNOWN)),
        Err(error) => return Err(Problem::store(&error, Shape::Success)),
    };
    Ok(if id == user.session().client.to_string() { signed_out(&auth, response) } else { response })
}
