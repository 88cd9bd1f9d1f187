//! `POST /auth` and `DELETE /auth`.

use axum::extract::State;
use axum::http::request::Parts;
use axum::response::Response;
use baton_core::wire::Code;
use baton_engine::Registration;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::{From, body, gone, signed_in, signed_out, user_or_not_found};
use crate::Auth;
use crate::problem::{Problem, Shape};

/// Registers an account and signs it in.
pub(super) async fn register(
    State(auth): State<Auth>,
    From(device): From,
    fields: Fields,
) -> Result<Response, Problem> {
    let profile_fields = &auth.engine().settings().profile_fields;
    let known = ["email", "password", "password_confirmation"].into_iter();
    if !known.chain(profile_fields.iter().map(String::as_str)).any(|name| fields.has(name)) {
        let message = "The request body holds none of the fields of a registration.";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, Code::Invalid, Shape::Status, message));
    }
    let form = Registration {
        email: fields.text("email").map(str::to_owned),
        password: fields.secret("password"),
        password_confirmation: fields.secret("password_confirmation"),
        profile: fields.as_map().clone(),
    };
    let registered = auth.engine().register(form, device).await;
    let registered = registered.map_err(|error| Problem::register(&error, unsaved(&fields, profile_fields)))?;
    let response = body::ok(&json!({ "status": "success", "data": body::user_with_times(&registered.account) }));
    Ok(signed_in(&auth, registered, response))
}

/// The account as it was asked for, for the form that is to be corrected.
fn unsaved(fields: &Fields, profile_fields: &[String]) -> Value {
    let mut user = Map::new();
    for name in profile_fields {
        user.insert(name.clone(), fields.text(name).into());
    }
    let email = fields.text("email").map(|email| email.trim().to_lowercase());
    for (name, value) in [
        ("id", Value::Null),
        ("provider", "email".into()),
        ("uid", "".into()),
        ("email", email.into()),
        ("allow_password_change", false.into()),
        ("created_at", Value::Null),
        ("updated_at", Value::Null),
    ] {
        user.insert(name.into(), value);
    }
    Value::Object(user)
}

/// Deletes the account that is signed in.
pub(super) async fn delete(State(auth): State<Auth>, parts: Parts) -> Result<Response, Problem> {
    const NOBODY: &str = "There is no account to delete: nobody is signed in.";
    let user = user_or_not_found(&parts, Shape::Status, NOBODY)?;
    match auth.engine().delete_account(user.account()).await {
        Ok(true) => {
            let message = format!("The account {} was deleted.", user.uid);
            Ok(signed_out(&auth, body::ok(&json!({ "status": "success", "message": message }))))
        }
        Ok(false) => Err(gone(Shape::Status, NOBODY)),
        Err(error) => Err(Problem::store(&error, Shape::Status)),
    }
}
