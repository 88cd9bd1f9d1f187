//! `GET /auth/validate_token`.

use axum::http::request::Parts;
use axum::response::Response;
use serde_json::json;

use super::body;
use crate::extract::admitted;
use crate::problem::{Problem, Shape};

/// Who is signed in.
pub(super) async fn validate(parts: Parts) -> Result<Response, Problem> {
    let user = admitted(&parts)?.map_err(|denial| denial.problem(Shape::Success))?;
    Ok(body::ok(&json!({ "success": true, "data": body::user(user.account(), user.0.may_set_password()) })))
}
