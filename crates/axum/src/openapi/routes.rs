//! What each route takes and answers. Beside a handler's change goes one here; the tests of this crate look up every answer
//! that they get.

use std::num::NonZeroU32;
use std::time::Duration;

use baton_core::wire::Code;
use baton_engine::{FieldFaults, LinkRequestError, RedirectRefused, Refusal, SignInError};
use http::StatusCode;
use serde_json::Value;
use utoipa::openapi::path::{HttpMethod, Parameter, ParameterIn};
use utoipa::openapi::schema::{Array, Schema};
use utoipa::openapi::{Ref, RefOr, Required, Response};

use super::schemas::{exactly, object, text};
use super::{ACCOUNT, Access, CONFIRMATION, PASSWORD, Route, SESSIONS, UNLOCK, json, page, parameter, query, redirect};
use crate::HttpSettings;
use crate::limits::{Limited, Quota};
use crate::problem::{Problem, Shape};

/// All of them.
pub(super) fn all(settings: &HttpSettings) -> Vec<Route> {
    let mut all = vec![
        register(),
        update_account(),
        delete_account(),
        sign_in(),
        sign_out(),
        validate_token(),
        list_sessions(),
        end_session(),
        request_password_reset(),
        set_password(),
        follow_password_link(),
        request_confirmation(),
        follow_confirmation_link(),
        request_unlock(),
        follow_unlock_link(),
    ];
    if settings.credentials_in_params {
        // Where credentials may come in a body, it is read on every route that takes some.
        for route in all.iter_mut().filter(|route| route.access.takes_credentials() && route.takes.is_none()) {
            route.problems.extend(bad_body());
        }
    }
    all
}

fn register() -> Route {
    let mut problems = bad_body();
    problems.extend([
        Problem::cross_site(Shape::Success),
        no_field(),
        Problem::invalid_fields(&FieldFaults::default(), Some(Value::Null)),
        Problem::redirect(RedirectRefused::NotAllowed, Value::Null),
        rate_limited(Shape::Status),
        Problem::unavailable(Shape::Status),
    ]);
    Route {
        methods: &[HttpMethod::Post],
        path: "",
        name: "register",
        tag: ACCOUNT,
        summary: "Registers an account",
        description: "It is signed in, unless its address has to be confirmed first: then no credentials come back, and \
                      nothing tells whether the address was free; `id` and the times may be null.",
        access: Access::Opens,
        parameters: Vec::new(),
        takes: Some("Registration"),
        answers: vec![(
            200,
            json("Registered.", object([("status", exactly("success")), ("data", reference("Account"))])),
        )],
        problems,
    }
}

fn update_account() -> Route {
    let mut problems = bad_body();
    problems.extend([
        Problem::cross_site(Shape::Status),
        not_found(Shape::Status, "There is no account to change: nobody is signed in."),
        no_field(),
        Problem::invalid_fields(&FieldFaults::default(), None),
        Problem::redirect(RedirectRefused::NotAllowed, Value::Null),
        rate_limited(Shape::Status),
        Problem::unavailable(Shape::Status),
    ]);
    Route {
        methods: &[HttpMethod::Put, HttpMethod::Patch],
        path: "",
        name: "update_account",
        tag: ACCOUNT,
        summary: "Changes the account or its password",
        description: "",
        access: Access::SignedIn,
        parameters: Vec::new(),
        takes: Some("AccountChange"),
        answers: vec![(
            200,
            json("Changed.", object([("status", exactly("success")), ("data", reference("Account"))])),
        )],
        problems,
    }
}

fn delete_account() -> Route {
    Route {
        methods: &[HttpMethod::Delete],
        path: "",
        name: "delete_account",
        tag: ACCOUNT,
        summary: "Deletes the account",
        description: "",
        access: Access::Ends,
        parameters: Vec::new(),
        takes: None,
        answers: vec![(200, json("Deleted.", object([("status", exactly("success")), ("message", text())])))],
        problems: vec![
            Problem::cross_site(Shape::Status),
            not_found(Shape::Status, "There is no account to delete: nobody is signed in."),
            Problem::unavailable(Shape::Status),
        ],
    }
}

fn sign_in() -> Route {
    let mut problems = bad_body();
    problems.extend([
        Problem::cross_site(Shape::Success),
        Problem::sign_in(&SignInError::BadCredentials),
        Problem::sign_in(&SignInError::Unconfirmed),
        Problem::sign_in(&SignInError::Locked),
        rate_limited(Shape::Success),
        Problem::unavailable(Shape::Success),
    ]);
    Route {
        methods: &[HttpMethod::Post],
        path: "/sign_in",
        name: "sign_in",
        tag: SESSIONS,
        summary: "E-mail and password for a session",
        description: "",
        access: Access::Opens,
        parameters: Vec::new(),
        takes: Some("SignIn"),
        answers: vec![(200, json("Signed in.", object([("data", reference("User"))])))],
        problems,
    }
}

fn sign_out() -> Route {
    Route {
        methods: &[HttpMethod::Delete],
        path: "/sign_out",
        name: "sign_out",
        tag: SESSIONS,
        summary: "Ends the session",
        description: "",
        access: Access::Ends,
        parameters: Vec::new(),
        takes: None,
        answers: vec![(200, json("Signed out.", object([("success", exactly(true))])))],
        problems: vec![
            Problem::cross_site(Shape::Success),
            not_found(Shape::Success, "Nobody is signed in with these credentials."),
            Problem::unavailable(Shape::Success),
        ],
    }
}

fn validate_token() -> Route {
    let mut problems = refusals(Shape::Success);
    problems.push(Problem::unavailable(Shape::Success));
    Route {
        methods: &[HttpMethod::Get],
        path: "/validate_token",
        name: "validate_token",
        tag: SESSIONS,
        summary: "Who is signed in",
        description: "",
        access: Access::SignedIn,
        parameters: Vec::new(),
        takes: None,
        answers: vec![(200, json("The account.", object([("success", exactly(true)), ("data", reference("User"))])))],
        problems,
    }
}

fn list_sessions() -> Route {
    let mut problems = refusals(Shape::Bare);
    problems.extend([Problem::unavailable(Shape::Bare), Problem::unavailable(Shape::Success)]);
    let devices = Array::new(Ref::from_schema_name("Device"));
    Route {
        methods: &[HttpMethod::Get],
        path: "/sessions",
        name: "list_sessions",
        tag: SESSIONS,
        summary: "The account's devices",
        description: "Its live sessions, most recently used first.",
        access: Access::SignedIn,
        parameters: Vec::new(),
        takes: None,
        answers: vec![(200, json("The sessions.", object([("success", exactly(true)), ("data", devices.into())])))],
        problems,
    }
}

fn end_session() -> Route {
    let mut problems = refusals(Shape::Bare);
    problems.extend([
        Problem::cross_site(Shape::Bare),
        not_found(Shape::Success, "The account has no session of that name."),
        Problem::unavailable(Shape::Bare),
        Problem::unavailable(Shape::Success),
    ]);
    Route {
        methods: &[HttpMethod::Delete],
        path: "/sessions/{id}",
        name: "end_session",
        tag: SESSIONS,
        summary: "Ends one of the account's sessions",
        description: "No credentials come back if it is the session of this request.",
        access: Access::SignedIn,
        parameters: vec![parameter(ParameterIn::Path, "id", "The `id` of a device.", Required::True)],
        takes: None,
        answers: vec![(200, json("Ended.", object([("success", exactly(true))])))],
        problems,
    }
}

fn request_password_reset() -> Route {
    letter_request(
        "/password",
        "request_password_reset",
        PASSWORD,
        "Asks for a letter with a link that leads to a new password",
    )
}

fn set_password() -> Route {
    let mut problems = bad_body();
    problems.extend(refusals(Shape::Success));
    problems.extend([
        Problem::cross_site(Shape::Success),
        Problem::new(
            StatusCode::UNAUTHORIZED,
            Code::LinkInvalid,
            Shape::Success,
            "This link is not good any more. Ask for a new one.",
        ),
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            Code::Invalid,
            Shape::Success,
            "Both password and password_confirmation are needed.",
        ),
        Problem::new_password(&FieldFaults::default()),
        rate_limited(Shape::Success),
        rate_limited(Shape::Status),
        Problem::unavailable(Shape::Success),
    ]);
    let members = [("success", exactly(true)), ("data", reference("Account")), ("message", text())];
    Route {
        methods: &[HttpMethod::Put, HttpMethod::Patch],
        path: "/password",
        name: "set_password",
        tag: PASSWORD,
        summary: "Sets a new password",
        description: "That of the account that is signed in; or, where a reset takes the token itself, that of the account \
                      whose `reset_password_token` it is, which is signed in then.",
        access: Access::SignedInOrByLetter,
        parameters: Vec::new(),
        takes: Some("NewPassword"),
        answers: vec![(200, json("Changed.", object(members)))],
        problems,
    }
}

fn follow_password_link() -> Route {
    Route {
        answers: vec![
            (302, redirect("To the front end, signed in or with the token, as the settings have it.")),
            (404, stale()),
        ],
        problems: vec![
            Problem::link_request(&LinkRequestError::NoRedirect),
            Problem::redirect(RedirectRefused::NotAllowed, Value::Null),
            Problem::unavailable(Shape::Success),
        ],
        ..link(
            "/password/edit",
            "follow_password_link",
            PASSWORD,
            "Where the link of a password reset leads",
            "reset_password_token",
        )
    }
}

fn request_confirmation() -> Route {
    letter_request(
        "/confirmation",
        "request_confirmation",
        CONFIRMATION,
        "Asks for the letter that confirms an address once more",
    )
}

fn follow_confirmation_link() -> Route {
    Route {
        answers: vec![
            (200, page("The address is confirmed, and there is nowhere to go on to.")),
            (302, redirect("To the front end, which `account_confirmation_success` tells whether the token was good.")),
            (404, stale()),
        ],
        ..link(
            "/confirmation",
            "follow_confirmation_link",
            CONFIRMATION,
            "Where the link that confirms an address leads",
            "confirmation_token",
        )
    }
}

fn request_unlock() -> Route {
    letter_request("/unlock", "request_unlock", UNLOCK, "Asks for the letter that lifts a lock")
}

fn follow_unlock_link() -> Route {
    Route {
        answers: vec![
            (200, page("The account is unlocked, and there is nowhere to go on to.")),
            (302, redirect("To the front end, signed in.")),
            (404, stale()),
        ],
        ..link("/unlock", "follow_unlock_link", UNLOCK, "Where the link that lifts a lock leads", "unlock_token")
    }
}

/// A route that asks for a letter.
fn letter_request(path: &'static str, name: &'static str, tag: &'static str, summary: &'static str) -> Route {
    let mut problems = bad_body();
    problems.extend([
        Problem::cross_site(Shape::Success),
        Problem::link_request(&LinkRequestError::NoEmail),
        Problem::link_request(&LinkRequestError::NoRedirect),
        Problem::link_request(&LinkRequestError::Unknown),
        Problem::redirect(RedirectRefused::NotAllowed, Value::Null),
        rate_limited(Shape::Success),
        Problem::unavailable(Shape::Success),
    ]);
    Route {
        methods: &[HttpMethod::Post],
        path,
        name,
        tag,
        summary,
        description: "The answer is the same whether there is such an account or not, unless `paranoid` is off (404). The \
                      route is there if the server sends letters.",
        access: Access::Anybody,
        parameters: Vec::new(),
        takes: Some("LetterRequest"),
        answers: vec![(
            200,
            json("The letter is on its way.", object([("success", exactly(true)), ("message", text())])),
        )],
        problems,
    }
}

/// A route that a letter's link leads to.
fn link(
    path: &'static str,
    name: &'static str,
    tag: &'static str,
    summary: &'static str,
    token: &'static str,
) -> Route {
    Route {
        methods: &[HttpMethod::Get],
        path,
        name,
        tag,
        summary,
        description: "For browsers. A `HEAD` answers 200 and does not use the token up. The route is there if the server \
                      sends letters.",
        access: Access::Anybody,
        parameters: vec![
            query(token, "The token of the link.", Required::True),
            query("redirect_url", "Where to go on to; the default if it is missing.", Required::False),
            config(),
        ],
        takes: None,
        answers: Vec::new(),
        problems: vec![
            Problem::redirect(RedirectRefused::NotAllowed, Value::Null),
            Problem::unavailable(Shape::Success),
        ],
    }
}

fn config() -> Parameter {
    query("config", "Given back to the front end (ng-token-auth's name of a configuration).", Required::False)
}

fn stale() -> Response {
    page("The link is not good any more.")
}

fn reference(schema: &str) -> RefOr<Schema> {
    Ref::from_schema_name(schema).into()
}

/// A body that cannot be read. Layers around may be stricter and answer in the bare shape.
fn bad_body() -> Vec<Problem> {
    let too_large = |shape| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, shape, "The body is too long.");
    let message = "The body is not what its Content-Type says, or could not be read to its end.";
    vec![
        Problem::new(StatusCode::BAD_REQUEST, Code::Malformed, Shape::Success, message),
        too_large(Shape::Success),
        too_large(Shape::Bare),
    ]
}

fn no_field() -> Problem {
    let message = "The request body holds none of the fields of an account.";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, Code::Invalid, Shape::Status, message)
}

fn not_found(shape: Shape, message: &'static str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, Code::NotFound, shape, message)
}

/// Everything that may be wrong with credentials.
fn refusals(shape: Shape) -> Vec<Problem> {
    let refusals = [Refusal::Invalid, Refusal::Superseded, Refusal::Expired, Refusal::Revoked];
    let refused = refusals.map(|refusal| Problem::refused(refusal, shape));
    std::iter::once(Problem::anonymous(shape)).chain(refused).collect()
}

fn rate_limited(shape: Shape) -> Problem {
    let quota = Quota { burst: NonZeroU32::MIN, period: Duration::from_secs(6) };
    Problem::rate_limited(&Limited { policy: "sign_in_per_account", quota, wait: quota.period }, shape)
}
