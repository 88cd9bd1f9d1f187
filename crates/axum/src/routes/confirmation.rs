//! `POST` and `GET /auth/confirmation`.

use axum::extract::State;
use axum::response::Response;
use baton_engine::RedeemError;
use http::StatusCode;

use super::fields::Fields;
use super::landing::{self, Link};
use super::{From, letter_on_its_way, link_request};
use crate::Auth;
use crate::limits::Kind;
use crate::problem::{Problem, Shape};

/// Asks for the letter with the confirmation link once more.
pub(super) async fn request(
    State(auth): State<Auth>,
    From(visitor): From,
    fields: Fields,
) -> Result<Response, Problem> {
    let request = link_request(&auth, Kind::Confirm, visitor, &fields)?;
    letter_on_its_way(auth.engine().request_confirmation(request).await)
}

/// Confirms an address, and leads on.
pub(super) async fn confirm(State(auth): State<Auth>, From(visitor): From, link: Link) -> Result<Response, Problem> {
    let default = auth.engine().settings().redirects.default_confirm_success_url.as_ref();
    let to = link.redirect(&auth, default)?;
    let confirmed = match link.get("confirmation_token") {
        Some(token) => auth.engine().confirm(token, &visitor).await.map(drop),
        None => Err(RedeemError::Invalid),
    };
    let good = match confirmed {
        Ok(()) => true,
        Err(RedeemError::Invalid) => false,
        Err(RedeemError::Store(error)) => return Err(Problem::store(&error, Shape::Success)),
    };
    Ok(match to {
        Some(to) => landing::go(&to, &[("account_confirmation_success", if good { "true" } else { "false" })]),
        None if good => landing::page(StatusCode::OK, "Your e-mail address is confirmed."),
        None => landing::stale(),
    })
}
