//! `POST` and `GET /auth/unlock`.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::fields::Fields;
use super::landing::{self, Link};
use super::{From, letter_on_its_way, link_request};
use crate::Auth;
use crate::limits::Kind;
use crate::problem::Problem;

/// Asks for the letter with the link that lifts a lock.
pub(super) async fn request(
    State(auth): State<Auth>,
    From(visitor): From,
    fields: Fields,
) -> Result<Response, Problem> {
    let request = link_request(&auth, Kind::Unlock, visitor, &fields)?;
    letter_on_its_way(auth.engine().request_unlock(request).await)
}

/// Lifts a lock, and leads on, signed in.
pub(super) async fn unlock(State(auth): State<Auth>, From(visitor): From, link: Link) -> Result<Response, Problem> {
    let engine = auth.engine();
    let to = link.redirect(&auth, engine.settings().redirects.default_unlock_success_url.as_ref())?;
    let Some(token) = link.get("unlock_token") else { return Ok(landing::stale()) };
    let unlocked = match &to {
        Some(to) => {
            let opened = engine.unlock_and_sign_in(token, &visitor).await;
            opened.map(|opened| landing::go_signed_in(&auth, to, &link, &opened, &[("unlock", "true")]))
        }
        None => {
            let unlocked = engine.unlock(token, &visitor).await;
            unlocked.map(|()| landing::page(StatusCode::OK, "Your account is unlocked. You can sign in again."))
        }
    };
    landing::or_stale(unlocked)
}
