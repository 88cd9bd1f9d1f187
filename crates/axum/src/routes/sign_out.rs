//! `DELETE /auth/sign_out`.

use axum::extract::State;
use axum::http::request::Parts;
use axum::response::Response;
use serde_json::json;

use super::{From, body, gone, signed_out, user_or_not_found};
use crate::Auth;
use crate::problem::{Problem, Shape};

/// Ends the session.
pub(super) async fn sign_out(State(auth): State<Auth>, From(visitor): From, parts: Parts) -> Result<Response, Problem> {
    const NOBODY: &str = "Nobody is signed in with these credentials.";
    let user = user_or_not_found(&parts, Shape::Success, NOBODY)?;
    match auth.engine().sign_out(&user.0, &visitor).await {
        Ok(true) => Ok(signed_out(&auth, body::ok(&json!({ "success": true })))),
        Ok(false) => Err(gone(Shape::Success, NOBODY)),
        Err(error) => Err(Problem::store(&error, Shape::Success)),
    }
}
