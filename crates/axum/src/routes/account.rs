//! `POST`, `PUT`, `PATCH` and `DELETE /auth`.

use axum::extract::State;
use axum::http::request::Parts;
use axum::response::Response;
use baton_core::Account;
use baton_core::wire::Code;
use baton_engine::{AccountChange, ProfileField, Registered, Registration, UpdateError, Visitor, normalize_email};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::{From, body, gone, signed_in, signed_out, user_or_not_found};
use crate::layer::Renamed;
use crate::limits::Kind;
use crate::problem::{Problem, Shape};
use crate::{Auth, CurrentUser};

/// Registers an account and signs it in.
pub(super) async fn register(
    State(auth): State<Auth>,
    From(visitor): From,
    fields: Fields,
) -> Result<Response, Problem> {
    auth.0.limits.count_address(Kind::Register, visitor.device.ip, Shape::Status)?;
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
        confirm_success_url: fields.text("confirm_success_url").map(str::to_owned),
        config_name: fields.text("config_name").map(str::to_owned),
    };
    let registered = auth.engine().register(form, &visitor).await;
    let registered = registered.map_err(|error| Problem::register(&error, unsaved(&auth, &fields)))?;
    let body = |data: Value| body::ok(&json!({ "status": "success", "data": data }));
    Ok(match registered {
        Registered::SignedIn(opened) => {
            let response = body(body::user_with_times(&opened.account, false).into());
            signed_in(&auth, opened, response)
        }
        Registered::Pending(Some(account)) => body(body::user_with_times(&account, false).into()),
        // Whether the address was free is not told: what was sent goes back.
        Registered::Pending(None) => body(unsaved(&auth, &fields)),
    })
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
pub(super) async fn update(
    State(auth): State<Auth>,
    From(visitor): From,
    parts: Parts,
    fields: Fields,
) -> Result<Response, Problem> {
    const NOBODY: &str = "There is no account to change: nobody is signed in.";
    let user = user_or_not_found(&parts, Shape::Status, NOBODY)?;
    has_any_field(&auth, &fields)?;
    let change = AccountChange {
        email: fields.text("email").map(str::to_owned),
        password: fields.secret("password"),
        password_confirmation: fields.secret("password_confirmation"),
        current_password: fields.secret("current_password"),
        profile: profile(&auth, &fields),
        confirm_success_url: fields.text("confirm_success_url").map(str::to_owned),
        config_name: fields.text("config_name").map(str::to_owned),
    };
    match change_account(&auth, &user, change, &visitor).await? {
        Ok(account) => {
            let body = body::user_with_times(&account, false);
            let mut response = body::ok(&json!({ "status": "success", "data": body }));
            // The headers of this very response have to tell the client under which uid to come back.
            response.extensions_mut().insert(Renamed(account.uid));
            Ok(response)
        }
        Err(UpdateError::Invalid(faults)) => Err(Problem::invalid_fields(&faults, None)),
        Err(UpdateError::Redirect(refused)) => Err(Problem::redirect(refused, Value::Null)),
        Err(UpdateError::Gone) => Err(gone(Shape::Status, NOBODY)),
        Err(UpdateError::Password(error)) => Err(Problem::password(&error, Shape::Status)),
        Err(UpdateError::Store(error)) => Err(Problem::store(&error, Shape::Status)),
    }
}

/// A session that was left open is no place to guess the password from: it is the sign-in's limit.
pub(super) async fn change_account(
    auth: &Auth,
    user: &CurrentUser,
    change: AccountChange,
    visitor: &Visitor,
) -> Result<Result<Account, UpdateError>, Problem> {
    let guess = match &change.current_password {
        Some(_) => Some(auth.0.limits.count_account(Kind::SignIn, &user.uid, Shape::Status)?),
        None => None,
    };
    let result = auth.engine().update_account(&user.0, change, visitor).await;
    let wrong = matches!(&result, Err(UpdateError::Invalid(faults)) if faults.has("current_password"));
    if let Some(guess) = guess
        && !wrong
    {
        guess.take_back();
    }
    Ok(result)
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
pub(super) async fn delete(State(auth): State<Auth>, From(visitor): From, parts: Parts) -> Result<Response, Problem> {
    const NOBODY: &str = "There is no account to delete: nobody is signed in.";
    let user = user_or_not_found(&parts, Shape::Status, NOBODY)?;
    match auth.engine().delete_account(user.account(), &visitor).await {
        Ok(true) => {
            let message = format!("The account {} was deleted.", user.uid);
            Ok(signed_out(&auth, body::ok(&json!({ "status": "success", "message": message }))))
        }
        Ok(false) => Err(gone(Shape::Status, NOBODY)),
        Err(error) => Err(Problem::store(&error, Shape::Status)),
    }
}
