//! `POST`, `PUT`, `PATCH` and `DELETE /auth`.

use axum::extract::State;
use axum::http::request::Parts;
use axum::response::Response;
use baton_core::wire::Code;
use baton_engine::{AccountChange, ProfileField, Registration, UpdateError, normalize_email};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::{From, body, gone, signed_in, signed_out, user_or_not_found};
use crate::Auth;
use crate::layer::Renamed;
use crate::limits::Kind;
use crate::problem::{Problem, Shape};

/// Registers an account and signs it in.
pub(super) async fn register(
    State(auth): State<Auth>,
    From(device): From,
    fields: Fields,
) -> Result<Response, Problem> {
    auth.0.limits.count_address(Kind::Register, device.ip, Shape::Status)?;
    has_any_field(&auth, &fields)?;
    if let Some(email) = fields.text("email") {
        // Every attempt counts: each may tell whether the address is taken.
        let _counted = auth.0.limits.count_account(Kind::Register, email, Shape::Status)?;
    }
    let form = Registration {
        email: fields.text("email").map(str::to_owned),
        password: fields.secret("password"),
        password_confirmation: fields.secret("password_confirmation"),
        profile: profile(&auth, &fields),
    };
    let registered = auth.engine().register(form, device).await;
    let registered = registered.map_err(|error| Problem::register(&error, unsaved(&auth, &fields)))?;
    let response = body::ok(&json!({ "status": "success", "data": body::user_with_times(&registered.account) }));
    Ok(signed_in(&auth, registered, response))
}

/// The account as it was asked for, for the form that is to be corrected.
fn unsaved(auth: &Auth, fields: &Fields) -> Value {
    let mut user = Map::new();
    for field in &auth.engine().settings().profile_fields {
        let given = fields.get(field.name()).filter(|given| !given.is_array() && !given.is_object());
        user.insert(field.name().to_owned(), given.cloned().unwrap_or_default());
    }
    let email = fields.text("email").map(normalize_email);
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

/// Changes the account that is signed in, or its password.
pub(super) async fn update(State(auth): State<Auth>, parts: Parts, fields: Fields) -> Result<Response, Problem> {
    const NOBODY: &str = "There is no account to change: nobody is signed in.";
    let user = user_or_not_found(&parts, Shape::Status, NOBODY)?;
    has_any_field(&auth, &fields)?;
    let change = AccountChange {
        email: fields.text("email").map(str::to_owned),
        password: fields.secret("password"),
        password_confirmation: fields.secret("password_confirmation"),
        current_password: fields.secret("current_password"),
        profile: profile(&auth, &fields),
    };
    // A session that was left open is no place to guess the password from: it is the sign-in's limit.
    let guess = match &change.current_password {
        Some(_) => Some(auth.0.limits.count_account(Kind::SignIn, &user.uid, Shape::Status)?),
        None => None,
    };
    let result = auth.engine().update_account(&user.0, change).await;
    let wrong = matches!(&result, Err(UpdateError::Invalid(faults)) if faults.has("current_password"));
    if let Some(guess) = guess
        && !wrong
    {
        guess.take_back();
    }
    match result {
        Ok(account) => {
            let body = json!({ "status": "success", "data": body::user_with_times(&account) });
            let mut response = body::ok(&body);
            // The headers of this very response have to tell the client under which uid to come back.
            response.extensions_mut().insert(Renamed(account.uid));
            Ok(response)
        }
        Err(UpdateError::Invalid(faults)) => Err(Problem::invalid_fields(&faults, None)),
        Err(UpdateError::Gone) => Err(gone(Shape::Status, NOBODY)),
        Err(UpdateError::Password(error)) => Err(Problem::password(&error, Shape::Status)),
        Err(UpdateError::Store(error)) => Err(Problem::store(&error, Shape::Status)),
    }
}

/// The declared profile fields among those that were sent, and no other: beside them is the password.
fn profile(auth: &Auth, fields: &Fields) -> Map<String, Value> {
    let declared = auth.engine().settings().profile_fields.iter();
    declared.filter_map(|field| Some((field.name().to_owned(), fields.get(field.name())?.clone()))).collect()
}

/// Neither a registration nor a change is a request without one of its fields.
fn has_any_field(auth: &Auth, fields: &Fields) -> Result<(), Problem> {
    let known = ["email", "password", "password_confirmation"].into_iter();
    let declared = auth.engine().settings().profile_fields.iter().map(ProfileField::name);
    if known.chain(declared).any(|name| fields.has(name)) {
        return Ok(());
    }
    let message = "The request body holds none of the fields of an account.";
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, Code::Invalid, Shape::Status, message))
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
