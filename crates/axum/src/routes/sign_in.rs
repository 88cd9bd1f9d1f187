//! `POST /auth/sign_in`.

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::fields::Fields;
use super::{From, body, signed_in};
use crate::Auth;
use crate::limits::Kind;
use crate::problem::{Problem, Shape};

/// E-mail and password for a session.
pub(super) async fn sign_in(
    State(auth): State<Auth>,
    From(visitor): From,
    fields: Fields,
) -> Result<Response, Problem> {
    auth.0.limits.count_address(Kind::SignIn, visitor.device.ip, Shape::Success)?;
    let (Some(email), Some(password)) = (fields.text("email"), fields.secret("password")) else {
        return Err(Problem::bad_credentials());
    };
    // Before anything is looked up or hashed.
    let attempt = auth.0.limits.count_account(Kind::SignIn, email, Shape::Success)?;
    let opened = auth.engine().sign_in(email, password, &visitor).await.map_err(|error| Problem::sign_in(&error))?;
    attempt.take_back();
    let response = body::ok(&json!({ "data": body::user(&opened.account, false) }));
    Ok(signed_in(&auth, opened, response))
}
