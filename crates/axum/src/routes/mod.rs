//! The ready-made `/auth` routes, a file each.

mod account;
mod body;
mod confirmation;
mod fields;
mod landing;
mod lenient;
mod password;
mod sessions;
mod sign_in;
mod sign_out;
mod unlock;
mod validate;

use std::future::{Ready, ready};
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use baton_core::wire::Code;
use baton_engine::{Handover, LinkRequest, LinkRequestError, SignedIn, Visitor};
use http::{Method, StatusCode, Uri};
use serde_json::json;

use crate::credentials::{self, Owner};
use crate::extract::{CurrentUser, admitted};
use crate::layer::{Denial, Settled};
use crate::limits::Kind;
use crate::problem::{Problem, Shape};
use crate::{Auth, origins};
use fields::Fields;

/// The account and session endpoints below `mount` (`/auth`, as every front end has it by default):
///
/// | | |
/// | --- | --- |
/// | `POST /auth` | register |
/// | `PUT`, `PATCH /auth` | change the account or its password |
/// | `DELETE /auth` | delete the account |
/// | `POST /auth/sign_in` | e-mail and password for a session |
/// | `DELETE /auth/sign_out` | end the session |
/// | `GET /auth/validate_token` | who is signed in |
/// | `GET /auth/sessions` | the account's devices |
/// | `DELETE /auth/sessions/{id}` | end one of them |
/// | `POST`, `PUT`, `PATCH /auth/password` | ask for a letter to reset the password; set a new one |
/// | `GET /auth/password/edit` | where that letter's link leads |
/// | `POST`, `GET /auth/confirmation` | ask for the letter that confirms an address; where its link leads |
/// | `POST`, `GET /auth/unlock` | ask for the letter that lifts a lock; where its link leads |
///
/// The last four are there if the engine can send letters ([`baton_engine::Engine::with_mailer`]) and the settings use them.
///
/// They bring their own [`crate::AuthLayer`]; one around them as well does no harm. Spellings that front ends are known to
/// send reach them too: `//auth/sign_in`, `/auth//sign_in`, `/auth/sign_in/`, `/auth/sign_in.json`.
///
/// # Panics
/// If `mount` does not begin with a slash, or ends with one.
pub fn auth_routes<S>(mount: &str, auth: &Auth) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    assert!(mount.starts_with('/') && !mount.ends_with('/'), "mount {mount:?} has to be like \"/auth\"");
    let mut opening = Router::new().route("/sign_in", post(sign_in::sign_in));
    if auth.engine().settings().registerable {
        opening = opening.route("/", post(account::register));
    }
    let opening = opening.merge(by_letter(auth)).layer(from_fn_with_state(auth.clone(), same_site));
    let signed_in = Router::new()
        .route("/", put(account::update).patch(account::update).delete(account::delete))
        .route("/password", put(password::update).patch(password::update))
        .route("/sign_out", delete(sign_out::sign_out))
        .route("/validate_token", get(validate::validate))
        .route("/sessions", get(sessions::list))
        .route("/sessions/{id}", delete(sessions::end))
        .layer(auth.layer())
        .layer(from_fn_with_state(auth.clone(), fields::credentials_in_body));
    let routes = opening
        .merge(signed_in)
        .fallback(not_found(mount))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(auth.clone());
    lenient::mount(mount, routes)
}

/// What needs a letter.
fn by_letter(auth: &Auth) -> Router<Auth> {
    let engine = auth.engine();
    let mut routes = Router::new();
    if engine.sends_mail() {
        routes =
            routes.route("/password", post(password::request)).route("/password/edit", landing::once(password::edit));
    }
    if engine.confirms() {
        routes = routes.route("/confirmation", landing::once(confirmation::confirm).post(confirmation::request));
    }
    if engine.unlocks_by_mail() {
        routes = routes.route("/unlock", landing::once(unlock::unlock).post(unlock::request));
    }
    routes
}

/// A request for a letter with a link, if it may be made once more.
fn link_request(auth: &Auth, kind: Kind, visitor: Visitor, fields: &Fields) -> Result<LinkRequest, Problem> {
    let limits = &auth.0.limits;
    limits.count_address(kind, visitor.device.ip, Shape::Success)?;
    let email = fields.text("email").unwrap_or_default();
    if !email.trim().is_empty() {
        // Each sends a letter, so each counts.
        let _counted = limits.count_account(kind, email, Shape::Success)?;
    }
    let text = |name: &str| fields.text(name).map(str::to_owned);
    Ok(LinkRequest {
        email: text("email").ok_or_else(|| Problem::link_request(&LinkRequestError::NoEmail))?,
        redirect_url: text("redirect_url"),
        config_name: text("config_name"),
        visitor,
    })
}

/// The same whether there is such an account or not.
fn letter_on_its_way(asked: Result<(), LinkRequestError>) -> Result<Response, Problem> {
    asked.map_err(|error| Problem::link_request(&error))?;
    let message = "If there is an account with this e-mail address, a letter with further instructions is on its way.";
    Ok(body::ok(&json!({ "success": true, "message": message })))
}

/// The response of a request that opened a session.
fn signed_in(auth: &Auth, signed_in: SignedIn, mut response: Response) -> Response {
    let SignedIn { account, credentials } = signed_in;
    let owner = Owner { client: credentials.client, uid: &account.uid, by_cookie: true };
    credentials::write(auth, response.headers_mut(), &Handover::Token(credentials), &owner);
    response.extensions_mut().insert(Settled);
    response
}

/// The response of a request after which its session is gone: no auth headers, no cookie.
fn signed_out(auth: &Auth, mut response: Response) -> Response {
    credentials::clear_cookie(auth, response.headers_mut());
    response.extensions_mut().insert(Settled);
    response
}

/// Where a session may travel in a cookie, a page of another site could sign its visitor in to an account of its own.
async fn same_site(State(auth): State<Auth>, request: Request, next: Next) -> Result<Response, Problem> {
    if auth.settings().cookie.is_some() && auth.0.csrf.refuses(origins::head(&request)).await {
        return Err(Problem::cross_site(Shape::Success));
    }
    Ok(next.run(request).await)
}

/// The user of a route that answers 404, with this message, where nobody is signed in: so does the gem, and front ends tell
/// it from a 401.
fn user_or_not_found(parts: &Parts, shape: Shape, message: &'static str) -> Result<CurrentUser, Problem> {
    admitted(parts)?.map_err(|denial| match denial {
        Denial::Anonymous | Denial::Refused(_) => gone(shape, message),
        Denial::Unavailable | Denial::CrossSite => denial.problem(shape),
    })
}

fn gone(shape: Shape, message: &'static str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, Code::NotFound, shape, message)
}

/// Not by `OriginalUri`, for which axum would keep a copy of every request's.
fn not_found(mount: &str) -> impl Fn(Uri) -> Ready<Problem> + Clone + Send + Sync + 'static + use<> {
    let mount: Arc<str> = mount.into();
    move |uri| {
        let message = format!("There is nothing at {mount}{}.", uri.path());
        ready(Problem::new(StatusCode::NOT_FOUND, Code::NotFound, Shape::Success, message))
    }
}

async fn method_not_allowed(method: Method) -> Problem {
    let message = format!("{method} is not supported here.");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, Shape::Success, message)
}

/// Who makes a request, as an argument of a handler.
struct From(Visitor);

impl<S: Send + Sync> FromRequestParts<S> for From {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(credentials::visitor(&parts.headers, &parts.extensions)))
    }
}
