//! The fields of a request body, JSON or form, as front ends send them.

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use baton_core::wire::{Code, Presented};
use baton_engine::SecretString;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap};
use http_body_util::{BodyExt as _, Collected, LengthLimitError, Limited};
use serde_json::{Map, Value};

use crate::Auth;
use crate::credentials::FromBody;
use crate::problem::{Problem, Shape};

/// Longest body of an auth route, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// The top-level fields of a JSON object or a form. Anything else (no body, an array, plain text) has none.
#[derive(Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// A field that is text; `None` if it is absent, null or of another type.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A password; a number is taken by its digits, as in the gem.
    pub(super) fn secret(&self, name: &str) -> Option<SecretString> {
        match self.0.get(name)? {
            Value::String(text) => Some(text.as_str().into()),
            Value::Number(number) => Some(number.to_string().into()),
            _ => None,
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        parse(&parts.headers, &whole(body).await?)
    }
}

async fn whole(body: Body) -> Result<Bytes, Problem> {
    Limited::new(body, MAX_BODY).collect().await.map(Collected::to_bytes).map_err(|error| {
        tracing::debug!(%error, "could not read a body");
        if error.is::<LengthLimitError>() {
            let message = format!("The body is longer than {MAX_BODY} bytes.");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, Shape::Success, message)
        } else {
            // The client was too slow or hung up, or an outer layer's limit was reached.
            malformed("The body could not be read to its end.".into())
        }
    })
}

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Fields, Problem> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || essence.ends_with("+json") {
        json(body)
    } else if essence == "application/x-www-form-urlencoded" {
        form(body)
    } else {
        Ok(Fields::default())
    }
}

fn json(body: &[u8]) -> Result<Fields, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Fields::default());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(Fields(fields)),
        Ok(_) => Ok(Fields::default()),
        // Position and kind, never the text: it may hold a password.
        Err(error) => Err(malformed(format!(
            "The body is not JSON: {:?} error at line {}, column {}.",
            error.classify(),
            error.line(),
            error.column()
        ))),
    }
}

fn form(body: &[u8]) -> Result<Fields, Problem> {
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(body) {
        // Decoding put it where bytes were no UTF-8. To go on would set a password other than the one typed.
        if name.contains(char::REPLACEMENT_CHARACTER) || value.contains(char::REPLACEMENT_CHARACTER) {
            return Err(malformed("The form is not UTF-8.".into()));
        }
        fields.insert(name.into_owned(), Value::String(value.into_owned()));
    }
    Ok(Fields(fields))
}

fn malformed(message: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, Code::Malformed, Shape::Success, message)
}

/// Reads credentials from the body, where that is asked for; the handler finds the body as it was.
pub(super) async fn credentials_in_body(
    State(auth): State<Auth>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if !auth.settings().credentials_in_params {
        return Ok(next.run(request).await);
    }
    let (mut parts, body) = request.into_parts();
    let bytes = whole(body).await?;
    let names = &auth.settings().headers_names;
    let mut presented = Presented::default();
    for (name, value) in &parse(&parts.headers, &bytes)?.0 {
        presented.set(names, name, value.as_str().unwrap_or_default());
    }
    if !presented.is_empty() {
        parts.extensions.insert(FromBody(presented));
    }
    Ok(next.run(Request::from_parts(parts, Body::from(bytes))).await)
}
