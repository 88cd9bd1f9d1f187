//! The ready-made `/auth` routes, a file each.

mod account;
mod body;
mod fields;
mod lenient;
mod sessions;
mod sign_in;
mod sign_out;
mod validate;

use axum::Router;
use axum::extract::{FromRequestParts, OriginalUri, Request, State};
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use baton_core::wire::Code;
use baton_engine::{Handover, SignedIn};
use http::{Method, StatusCode};

use crate::credentials::{self, Owner};
use crate::extract::{CurrentUser, admitted};
use crate::layer::{Denial, Settled};
use crate::problem::{Problem, Shape};
use crate::{Auth, origins};

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
    let opening = Router::new()
        .route("/", post(account::register))
        .route("/sign_in", post(sign_in::sign_in))
        .layer(from_fn_with_state(auth.clone(), same_site));
    let signed_in = Router::new()
        .route("/", put(account::update).patch(account::update).delete(account::delete))
        .route("/sign_out", delete(sign_out::sign_out))
        .route("/validate_token", get(validate::validate))
        .route("/sessions", get(sessions::list))
        .route("/sessions/{id}", delete(sessions::end))
        .layer(auth.layer())
        .layer(from_fn_with_state(auth.clone(), fields::credentials_in_body));
    let routes = opening
        .merge(signed_in)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(auth.clone());
    lenient::mount(mount, routes)
}

/// The response of a request that opened a session.
fn signed_in(auth: &Auth, signed_in: SignedIn, mut response: Response) -> Response {
    let SignedIn { account, credentials } = signed_in;
    let client = credentials.client.to_string();
    let owner = Owner { client: &client, uid: &account.uid, by_cookie: true };
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
fn user_or_not_found(parts: &Parts, shape: Shape, message: &str) -> Result<CurrentUser, Problem> {
    admitted(parts)?.map_err(|denial| match denial {
        Denial::Anonymous | Denial::Refused(_) => gone(shape, message),
        Denial::Unavailable | Denial::CrossSite => denial.problem(shape),
    })
}

fn gone(shape: Shape, message: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, Code::NotFound, shape, message)
}

async fn not_found(OriginalUri(uri): OriginalUri) -> Problem {
    let message = format!("There is nothing at {}.", uri.path());
    Problem::new(StatusCode::NOT_FOUND, Code::NotFound, Shape::Success, message)
}

async fn method_not_allowed(method: Method) -> Problem {
    let message = format!("{method} is not supported here.");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, Shape::Success, message)
}

/// The device that a request comes from, as an argument of a handler.
struct From(baton_core::session::Device);

impl<S: Send + Sync> FromRequestParts<S> for From {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(credentials::device(&parts.headers, &parts.extensions)))
    }
}
