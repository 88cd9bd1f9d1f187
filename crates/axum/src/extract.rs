//! Who is signed in, as an argument of a handler.

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use baton_core::{Account, Session};
use baton_engine::Grant;
use http::StatusCode;

use crate::layer::{Admission, Denial};
use crate::problem::{Problem, Shape};

/// The signed-in account. Derefs to [`Account`].
///
/// As an argument it turns anonymous requests away with 401; as `Option<CurrentUser>` it is `None` for a request without
/// credentials or with bad ones. While the store is away both answer 503: "nobody" would be a guess.
#[derive(Debug, Clone)]
pub struct CurrentUser(pub(crate) Arc<Grant>);

impl CurrentUser {
    /// The account.
    #[must_use]
    pub fn account(&self) -> &Account {
        self.0.account()
    }

    /// The session with which the request was made.
    #[must_use]
    pub fn session(&self) -> &Session {
        self.0.session()
    }
}

impl Deref for CurrentUser {
    type Target = Account;

    fn deref(&self) -> &Account {
        self.0.account()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for CurrentUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        admitted(parts)?.map_err(|denial| denial.problem(Shape::Bare))
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for CurrentUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Problem> {
        match admitted(parts)? {
            Ok(user) => Ok(Some(user)),
            Err(denial @ Denial::Unavailable) => Err(denial.problem(Shape::Bare)),
            Err(_) => Ok(None),
        }
    }
}

/// What the layer found out.
pub(crate) fn admitted(parts: &Parts) -> Result<Result<CurrentUser, Denial>, Problem> {
    match parts.extensions.get::<Admission>() {
        Some(Admission { user, .. }) => Ok(user.clone().map(CurrentUser)),
        None => {
            tracing::error!("CurrentUser was asked for on a route without AuthLayer around it");
            let code = baton_core::wire::Code::Unavailable;
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, code, Shape::Bare, "The server is set up wrongly."))
        }
    }
}
