//! The playground of `baton dev`: a page that makes requests to this server and draws what becomes of their tokens.
//!
//! | | |
//! | --- | --- |
//! | `GET /dev/playground`, `GET /` unless a backend has that path | the page |
//! | `GET /dev/playground/{file}` | what it consists of |
//! | `GET /dev/settings` | the settings in force that a front end would want to know, as JSON; nothing secret |

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use baton_axum::HttpSettings;
use baton_core::wire::HeaderNames;
use baton_core::{BatchResponse, OnReuse};
use http::Uri;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use crate::app::not_found;
use crate::config::{Config, RealmConfig};
use crate::mailbox;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
/// Nothing from elsewhere, nothing inline, and no form that leads anywhere: scripts send what there is to send.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("playground/index.html");
const FILES: [(&str, &str, &str); 8] = [
    ("style.css", CSS, include_str!("playground/style.css")),
    ("diagram.css", CSS, include_str!("playground/diagram.css")),
    ("icon.svg", SVG, include_str!("playground/icon.svg")),
    ("playground.mjs", SCRIPT, include_str!("playground/playground.mjs")),
    ("stage.mjs", SCRIPT, include_str!("playground/stage.mjs")),
    ("diagram.mjs", SCRIPT, include_str!("playground/diagram.mjs")),
    ("recorder.mjs", SCRIPT, include_str!("playground/recorder.mjs")),
    ("scenarios.mjs", SCRIPT, include_str!("playground/scenarios.mjs")),
];

/// Without the page at `/`, which is there if nobody else has that path.
pub(crate) fn routes(config: &Config) -> Router {
    let settings = settings(config);
    Router::new()
        .route("/dev/playground", get(page))
        .route("/dev/playground/{name}", get(file))
        .route("/dev/settings", get(async move || guarded(Json(settings))))
}

pub(crate) fn at_root() -> Router {
    Router::new().route("/", get(page))
}

async fn page() -> Response {
    guarded(([(CONTENT_TYPE, HTML)], PAGE))
}

async fn file(Path(name): Path<String>, uri: Uri) -> Response {
    match FILES.iter().find(|(file, ..)| *file == name) {
        Some((_, kind, text)) => guarded(([(CONTENT_TYPE, *kind)], *text)),
        None => not_found(uri).await.into_response(),
    }
}

fn guarded(answer: impl IntoResponse) -> Response {
    mailbox::guarded(HeaderValue::from_static(POLICY), "no-referrer", answer)
}

/// By the names that they have in the configuration; durations in seconds.
fn settings(config: &Config) -> Value {
    let realms: Vec<Value> = config.realms.iter().map(of_realm).collect();
    json!({ "version": env!("CARGO_PKG_VERSION"), "realms": realms })
}

fn of_realm(RealmConfig { mount, engine, http, rate_limits }: &RealmConfig) -> Value {
    let rules = &engine.rules;
    let HttpSettings { headers_names, cookie, credentials_in_params, .. } = http;
    let HeaderNames { access_token, token_type, client, expiry, uid, authorization } = headers_names;
    json!({
        "realm": engine.realm,
        "mount": mount,
        "change_headers_on_each_request": rules.change_headers_on_each_request,
        "batch_request_buffer_throttle": rules.batch_request_buffer_throttle.as_secs_f64(),
        "batch_response": match rules.batch_response {
            BatchResponse::Blank => "blank",
            BatchResponse::Omit => "omit",
            BatchResponse::Repeat => "repeat",
        },
        "forgive_lost_responses": rules.forgive_lost_responses,
        "on_reuse": match rules.on_reuse {
            OnReuse::Reject => "reject",
            OnReuse::Revoke => "revoke",
        },
        "token_lifespan": rules.token_lifespan.as_secs_f64(),
        "session_max_lifetime": rules.session_max_lifetime.as_secs_f64(),
        "max_number_of_devices": engine.max_number_of_devices,
        "credentials_in_params": credentials_in_params,
        "cookie_enabled": cookie.is_some(),
        "cookie_only": cookie.as_ref().is_some_and(|cookie| cookie.only),
        "registerable": engine.registerable,
        "confirmable": engine.confirmation.required,
        "password": {
            "min_length": engine.password_policy.min_length,
            "max_length": engine.password_policy.max_length,
        },
        "rate_limits": rate_limits.is_some(),
        "headers_names": {
            "access-token": access_token,
            "token-type": token_type,
            "client": client,
            "expiry": expiry,
            "uid": uid,
            "authorization": authorization,
        },
    })
}

#[cfg(test)]
mod tests;
