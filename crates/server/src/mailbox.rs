//! The mailbox of `baton dev`: what would have been sent by e-mail, to read in a browser or by a script.
//!
//! | | |
//! | --- | --- |
//! | `GET /dev/mailbox` | the mails, newest first; refreshes itself unless `?refresh=off` |
//! | `GET /dev/mailbox/{id}` | one mail |
//! | `GET /dev/mailbox/{id}.html` | its HTML part, as the page before shows it in a frame |
//! | `GET /dev/mailbox.json` | `{"mails": […]}`, newest first, each as in the next line |
//! | `GET /dev/mailbox/{id}.json` | `id`, `at` (RFC 3339), `to`, `subject`, `text`, `html`, `link` or null, `locale`, `occasion`, `realm` |
//! | `DELETE /dev/mailbox` | empties it (204) |
//! | `POST /dev/mailbox` | the same for the button on the page (303 to the list) |
//!
//! Whoever reads these mails can take over every account that they are about, and they say what strangers typed. Therefore
//! nothing in them becomes markup or is fetched from elsewhere, pages of other origins cannot empty it, and a request has to
//! have been made for a name of this machine: otherwise, a page could have its own name point here (DNS rebinding) and read
//! along.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use baton_axum::{Problem, Shape};
use baton_core::wire::Code;
use baton_mail::{Kept, Mailbox};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::uri::Authority;
use http::{StatusCode, Uri};
use minijinja::{Environment, UndefinedBehavior, Value};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tower_http::csrf::CsrfLayer;

const LIST: &str = "list.html";
const MAIL: &str = "mail.html";
const STYLE: &str = include_str!("mailbox/style.css");
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";
/// For the HTML part, in a frame or out of it: a letter has its styles in attributes, and may show pictures that it contains.
const PART_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
                           form-action 'none'; frame-ancestors 'self'; sandbox";

#[derive(Clone)]
struct Pages {
    mailbox: Arc<Mailbox>,
    templates: Arc<Environment<'static>>,
    /// The Content-Security-Policy of the pages.
    policy: HeaderValue,
}

/// Routes that show `mailbox` to whoever reaches them, at a name of this machine.
pub(crate) fn routes(mailbox: Arc<Mailbox>) -> Router {
    Router::new()
        .route("/dev/mailbox", get(list).post(empty_by_form).delete(empty))
        .route("/dev/mailbox.json", get(list_json))
        .route("/dev/mailbox/{name}", get(one))
        .route_layer(
            CsrfLayer::new()
                .with_rejection_response(|_| refused("Only the mailbox's own page may empty it.").into_response()),
        )
        .route_layer(from_fn(only_here))
        .with_state(Pages { mailbox, templates: Arc::new(templates()), policy: policy() })
}

#[expect(clippy::expect_used, reason = "the templates are part of the program")]
fn templates() -> Environment<'static> {
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    // Their names end in `.html`: that is what makes the environment escape all that they are given.
    for (name, source) in [(LIST, include_str!("mailbox/list.html")), (MAIL, include_str!("mailbox/mail.html"))] {
        templates.add_template(name, source).expect("a sound template");
    }
    templates
}

#[expect(clippy::expect_used, reason = "base64 and the rest of it are printable")]
fn policy() -> HeaderValue {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; frame-src 'self'; base-uri 'none'; form-action 'self'; \
         frame-ancestors 'none'"
    );
    policy.try_into().expect("a header value")
}

/// Refuses what was not asked of a name of this machine.
async fn only_here(request: Request, next: Next) -> Response {
    if !is_for_here(&request) {
        return refused("The mailbox is only shown at localhost, 127.0.0.1 or [::1].").into_response();
    }
    next.run(request).await
}

fn is_for_here(request: &Request) -> bool {
    let hosts = request.headers().get_all(HOST).iter();
    let mut hosts = hosts.map(|host| Authority::try_from(host.as_bytes()).ok());
    // HTTP/2 has the name here, and no header.
    let uri = request.uri().authority();
    (uri.is_some() || request.headers().contains_key(HOST))
        && uri.is_none_or(|name| is_local(name.host()))
        && hosts.all(|name| name.is_some_and(|name| is_local(name.host())))
}

fn is_local(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || matches!(host, "127.0.0.1" | "[::1]")
}

fn refused(message: &'static str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, Code::CrossSite, Shape::Bare, message)
}

async fn list(State(pages): State<Pages>, RawQuery(query): RawQuery) -> Response {
    let mails: Value = pages.mailbox.list().iter().map(|kept| shown(kept)).collect();
    pages.page(
        LIST,
        [
            ("mails", mails),
            ("capacity", Mailbox::CAPACITY.into()),
            ("refreshes", (query.as_deref() != Some("refresh=off")).into()),
        ],
    )
}

async fn list_json(State(pages): State<Pages>) -> Response {
    let mails: Vec<_> = pages.mailbox.list().iter().map(|kept| as_json(kept)).collect();
    answer(JSON, &pages.policy, json!({ "mails": mails }).to_string())
}

async fn one(State(pages): State<Pages>, Path(name): Path<String>, uri: Uri) -> Response {
    let (id, form) = name.split_once('.').unwrap_or((&name, ""));
    // `+1` is a number, but not the name of a mail.
    let id = Some(id).filter(|id| id.bytes().all(|byte| byte.is_ascii_digit())).and_then(|id| id.parse().ok());
    match (id.and_then(|id| pages.mailbox.get(id)), form) {
        (Some(kept), "") => {
            let follows = kept.link.as_ref().is_some_and(|link| is_web(link));
            pages.page(MAIL, [("mail", shown(&kept)), ("follows", follows.into())])
        }
        (Some(kept), "json") => answer(JSON, &pages.policy, as_json(&kept).to_string()),
        (Some(kept), "html") => answer(HTML, &HeaderValue::from_static(PART_POLICY), kept.mail.html.clone()),
        _ => {
            let message = format!("There is no mail at {} (any more).", uri.path());
            Problem::new(StatusCode::NOT_FOUND, Code::NotFound, Shape::Bare, message).into_response()
        }
    }
}

async fn empty(State(pages): State<Pages>) -> StatusCode {
    pages.mailbox.clear();
    StatusCode::NO_CONTENT
}

async fn empty_by_form(State(pages): State<Pages>) -> Redirect {
    pages.mailbox.clear();
    Redirect::to("/dev/mailbox")
}

impl Pages {
    fn page<const N: usize>(&self, template: &str, values: [(&str, Value); N]) -> Response {
        let mut values = BTreeMap::from(values);
        values.insert("style", STYLE.into());
        match self.templates.get_template(template).and_then(|template| template.render(values)) {
            Ok(page) => answer(HTML, &self.policy, page),
            Err(error) => {
                tracing::error!(%error, "could not show the mailbox");
                let message = "The page could not be made. The log says why.";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unavailable, Shape::Bare, message).into_response()
            }
        }
    }
}

/// Whether a click may lead there; not to a script in the link.
fn is_web(link: &str) -> bool {
    let link = link.to_ascii_lowercase();
    link.starts_with("https://") || link.starts_with("http://")
}

fn at(kept: &Kept) -> jiff::Timestamp {
    // A time that no calendar knows cannot have come from a clock.
    jiff::Timestamp::from_millisecond(kept.at.as_millis()).unwrap_or_default()
}

/// For the templates.
fn shown(kept: &Kept) -> Value {
    let link = kept.link.as_ref().map_or("", |link| link.as_str());
    let fields: [(&str, Value); 10] = [
        ("id", kept.id.into()),
        ("at", format!("{:.3}", at(kept)).into()),
        ("time", at(kept).strftime("%Y-%m-%d %H:%M:%S").to_string().into()),
        ("to", kept.mail.to.as_str().into()),
        ("subject", kept.mail.subject.as_str().into()),
        ("text", kept.mail.text.as_str().into()),
        ("link", link.into()),
        ("locale", kept.mail.locale.as_str().into()),
        ("occasion", kept.occasion.as_str().into()),
        ("realm", kept.realm.as_str().into()),
    ];
    fields.into_iter().collect::<BTreeMap<_, _>>().into()
}

fn as_json(kept: &Kept) -> serde_json::Value {
    json!({
        "id": kept.id,
        "at": format!("{:.3}", at(kept)),
        "to": kept.mail.to,
        "subject": kept.mail.subject,
        "text": kept.mail.text,
        "html": kept.mail.html,
        "link": kept.link.as_ref().map(|link| link.as_str()),
        "locale": kept.mail.locale,
        "occasion": kept.occasion.as_str(),
        "realm": kept.realm,
    })
}

fn answer(kind: &'static str, policy: &HeaderValue, body: String) -> Response {
    // Not `no-referrer`: with it, a browser without `Sec-Fetch-Site` would not say whose the button is.
    guarded(policy.clone(), "same-origin", ([(CONTENT_TYPE, kind)], body))
}

/// A page that pages of other origins neither show nor read, with this Content-Security-Policy and Referrer-Policy.
pub(crate) fn guarded(policy: HeaderValue, referrer: &'static str, answer: impl IntoResponse) -> Response {
    let headers = [
        (CONTENT_SECURITY_POLICY, policy),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static(referrer)),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    ];
    (headers, answer).into_response()
}

#[cfg(test)]
mod tests;
