//! `POST`, `PUT`, `PATCH /auth/password` and `GET /auth/password/edit`.

use axum::extract::State;
use axum::http::request::Parts;
use axum::response::Response;
use baton_core::wire::Code;
use baton_engine::{AccountChange, NewPassword, RedeemError, ResetError, UpdateError, Visitor};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::account::change_account;
use super::fields::Fields;
use super::landing::{self, Link};
use super::{From, body, letter_on_its_way, link_request, signed_in};
use crate::Auth;
use crate::extract::admitted;
use crate::layer::Denial;
use crate::limits::Kind;
use crate::problem::{Problem, Shape};

/// Asks for a letter with a link that leads to a new password.
pub(super) async fn request(
    State(auth): State<Auth>,
    From(visitor): From,
    fields: Fields,
) -> Result<Response, Problem> {
    let request = link_request(&auth, Kind::Reset, visitor, &fields)?;
    letter_on_its_way(auth.engine().request_password_reset(request).await)
}

/// Leads on to the front end: with a session that may set a password, or with the token.
pub(super) async fn edit(State(auth): State<Auth>, From(visitor): From, link: Link) -> Result<Response, Problem> {
    let engine = auth.engine();
    let settings = engine.settings();
    let to = link.redirect(&auth, settings.redirects.default_password_reset_url.as_ref())?;
    let Some(to) = to else {
        return Err(Problem::link_request(&baton_engine::LinkRequestError::NoRedirect));
    };
    let Some(token) = link.get("reset_password_token") else { return Ok(landing::stale()) };
    let response = if settings.reset.require_client_token {
        let good = engine.check_reset_token(token).await;
        good.map(|()| landing::go(&to, &[("reset_password_token", token)]))
    } else {
        let params = [("reset_password", "true"), ("reset_password_token", token)];
        let opened = engine.open_password_reset(token, &visitor).await;
        opened.map(|opened| landing::go_signed_in(&auth, &to, &link, &opened, &params))
    };
    landing::or_stale(response)
}

/// Sets a new password: that of the account that is signed in, or of the one whose reset token is in the body.
pub(super) async fn update(
    State(auth): State<Auth>,
    From(visitor): From,
    parts: Parts,
    fields: Fields,
) -> Result<Response, Problem> {
    let by_token = auth.engine().settings().reset.require_client_token;
    match fields.text("reset_password_token").filter(|_| by_token) {
        Some(token) => reset(&auth, &visitor, token, &fields).await,
        None => change(&auth, &visitor, &parts, &fields).await,
    }
}

async fn reset(auth: &Auth, visitor: &Visitor, token: &str, fields: &Fields) -> Result<Response, Problem> {
    auth.0.limits.count_address(Kind::Reset, visitor.device.ip, Shape::Success)?;
    // Before the password is looked at: to somebody without a good token it says nothing.
    let NewPassword { password, confirmation } = match new_password(fields) {
        Ok(new) => new,
        Err(problem) => {
            return Err(match auth.engine().check_reset_token(token).await {
                Ok(()) => problem,
                Err(RedeemError::Invalid) => bad_token(),
                Err(RedeemError::Store(error)) => Problem::store(&error, Shape::Success),
            });
        }
    };
    match auth.engine().reset_password(token, NewPassword { password, confirmation }, visitor).await {
        Ok(opened) => {
            let response = done(body::user_with_times(&opened.account, false));
            Ok(signed_in(auth, opened, response))
        }
        Err(ResetError::Token) => Err(bad_token()),
        Err(ResetError::Invalid(faults)) => Err(Problem::new_password(&faults)),
        Err(ResetError::Password(error)) => Err(Problem::password(&error, Shape::Success)),
        Err(ResetError::Store(error)) => Err(Problem::store(&error, Shape::Success)),
    }
}

async fn change(auth: &Auth, visitor: &Visitor, parts: &Parts, fields: &Fields) -> Result<Response, Problem> {
    let user = admitted(parts)?.map_err(|denial| denial.problem(Shape::Success))?;
    let NewPassword { password, confirmation } = new_password(fields)?;
    let change = AccountChange {
        password: Some(password),
        password_confirmation: confirmation,
        current_password: fields.secret("current_password"),
        ..AccountChange::default()
    };
    match change_account(auth, &user, change, visitor).await? {
        Ok(account) => Ok(done(body::user_with_times(&account, false))),
        Err(UpdateError::Invalid(faults)) => Err(Problem::new_password(&faults)),
        Err(UpdateError::Redirect(refused)) => Err(Problem::redirect(refused, Value::Null)),
        // As a request after it would be answered.
        Err(UpdateError::Gone) => Err(Denial::Refused(baton_engine::Refusal::Revoked).problem(Shape::Success)),
        Err(UpdateError::Password(error)) => Err(Problem::password(&error, Shape::Success)),
        Err(UpdateError::Store(error)) => Err(Problem::store(&error, Shape::Success)),
    }
}

/// Both fields are needed here, as in the gem: this is a form of its own.
fn new_password(fields: &Fields) -> Result<NewPassword, Problem> {
    match (fields.secret("password"), fields.secret("password_confirmation")) {
        (Some(password), confirmation @ Some(_)) => Ok(NewPassword { password, confirmation }),
        _ => {
            let message = "Both password and password_confirmation are needed.";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, Code::Invalid, Shape::Success, message))
        }
    }
}

fn bad_token() -> Problem {
    let message = "This link is not good any more. Ask for a new one.";
    Problem::unauthorized(Code::LinkInvalid, Shape::Success, message)
}

fn done(user: Map<String, Value>) -> Response {
    body::ok(&json!({ "success": true, "data": user, "message": "The password was changed." }))
}
