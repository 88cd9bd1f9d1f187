//! `POST /auth/sign_in`.

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::fields::Fields;
use super::{From, body, signed_in};
use crate::Auth;
use crate::problem::Problem;

/// E-mail and password for a session.
pub(super) async fn sign_in(State(auth): State<Auth>, From(device): From, fields: Fields) -> Result<Response, Problem> {
    let (Some(email), Some(password)) = (fields.text("email"), fields.secret("password")) else {
        return Err(Problem::bad_credentials());
    };
    let opened = auth.engine().sign_in(email, password, device).await.map_err(|error| Problem::sign_in(&error))?;
    let response = body::ok(&json!({ "data": body::user(&opened.account) }));
    Ok(signed_in(&auth, opened, response))
}
