//! The OpenAPI document says what the routes do.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use baton_axum::{Auth, CookieSettings, HttpSettings, auth_routes, openapi};
use baton_core::letter::{Letter, MailError, Mailer};
use baton_core::wire::HeaderNames;
use baton_engine::{Engine, Lockout, OsRandom, Settings};
use baton_store::clock::ManualClock;
use baton_store::memory::MemoryStore;
use http::{Method, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::support::{Answer, START, keys};

/// Of the most permissive settings: it has all that any of them answers.
static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| document("/auth", &HttpSettings { credentials_in_params: true, ..HttpSettings::default() }));

fn document(mount: &str, settings: &HttpSettings) -> Value {
    let json = openapi([(mount, settings)]).to_json().expect("a document");
    serde_json::from_str(&json).expect("JSON")
}

/// The documented methods and paths.
fn operations(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().expect("paths").iter();
    let both = paths.flat_map(|(path, item)| {
        let methods = item.as_object().expect("methods").keys();
        methods.map(|method| (method.to_uppercase(), path.clone()))
    });
    both.collect()
}

/// Called with every answer that any test of this crate gets: what the document has an operation for, it has an answer for.
pub fn look_up(method: &Method, url: &str, answer: &Answer) {
    let path = url.split_once("//").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let path = format!("/{}", path.split('?').next().unwrap_or_default());
    let template = match path.strip_prefix("/auth/sessions/") {
        Some(id) if !id.is_empty() && !id.contains('/') => "/auth/sessions/{id}",
        _ => &path,
    };
    let operation = &DOCUMENT["paths"][template][method.as_str().to_lowercase()];
    // Nothing of ours is mounted there, or not this method: what needs a letter is left out where there are none.
    let absent = answer.text.is_empty() || answer.text.contains("There is nothing at");
    if operation.is_null() || answer.status == 405 || answer.status == 404 && absent {
        return;
    }
    let response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{method} {path}: not documented: {answer:?}");
    for name in ["retry-after", "ratelimit", "ratelimit-policy", "www-authenticate", "location"] {
        let documented = response["headers"][name].is_object();
        assert!(documented || answer.header(name).is_none(), "{method} {path}: {name} is not documented: {answer:?}");
    }
    let kind = answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
    assert!(kind.is_empty() || response["content"][kind].is_object(), "{method} {path}: not documented: {answer:?}");
    if kind == "application/json" && answer.status >= 400 {
        let schema = response["content"][kind]["schema"].to_string();
        assert!(schema.contains(&format!("{:?}", answer.code())), "{method} {path}: not documented: {answer:?}");
    }
}

struct NoLetters;

#[async_trait]
impl Mailer for NoLetters {
    async fn send(&self, _: &Letter) -> Result<(), MailError> {
        Ok(())
    }
}

/// The routes, all of them.
async fn routes(mount: &str) -> Router {
    let store = Arc::new(MemoryStore::new(Arc::new(ManualClock::new(START))));
    let settings = Settings {
        lockout: Some(Lockout::default()),
        public_url: "https://api.example.com/auth".into(),
        ..Settings::default()
    };
    let engine = Engine::open(store, keys(), Arc::new(OsRandom), settings).await.expect("an engine");
    let auth = Auth::new(engine.with_mailer(Arc::new(NoLetters)), HttpSettings::default()).expect("HTTP settings");
    auth_routes(mount, &auth)
}

#[tokio::test]
async fn the_documented_routes_are_those_that_there_are() {
    let routes = routes("/v1/auth").await;
    let documented = operations(&document("/v1/auth", &HttpSettings::default()));
    // What the router was built from, whether documented or not.
    let source = include_str!("../../src/routes/mod.rs");
    let mounted = source.split(".route(\"").skip(1).filter_map(|rest| rest.split_once('"'));
    let mounted: BTreeSet<String> =
        mounted.map(|(path, _)| format!("/v1/auth{}", path.trim_end_matches('/'))).collect();
    assert_eq!(mounted, documented.iter().map(|(_, path)| path.clone()).collect());

    let mut answering = BTreeSet::new();
    for path in mounted {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"] {
            let request = Request::builder().method(method).uri(path.replace("{id}", "x")).body(Body::empty());
            let response = routes.clone().oneshot(request.expect("a request")).await.expect("an answer");
            let status = response.status();
            let body = axum::body::to_bytes(response.into_body(), 10_000).await.expect("a body");
            let nothing =
                status == StatusCode::NOT_FOUND && String::from_utf8_lossy(&body).contains("There is nothing");
            if status != StatusCode::METHOD_NOT_ALLOWED && !nothing {
                answering.insert((method.to_owned(), path.clone()));
            }
        }
    }
    assert_eq!(answering, documented);
}

#[test]
fn what_is_referred_to_is_there() {
    fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let settings = HttpSettings { cookie: Some(CookieSettings::default()), ..HttpSettings::default() };
    let document = document("/auth", &settings);
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 100);
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    let schemes = &document["components"]["securitySchemes"];
    let operations = document["paths"].as_object().into_iter().flatten().flat_map(|(_, item)| item.as_object());
    let mut ids = BTreeSet::new();
    for (_, operation) in operations.flatten() {
        assert!(ids.insert(operation["operationId"].to_string()), "{operation}");
        for requirement in operation["security"].as_array().into_iter().flatten() {
            for (name, _) in requirement.as_object().into_iter().flatten() {
                assert!(schemes[name].is_object(), "{name}");
            }
        }
    }
}

#[test]
fn names_and_the_cookie_are_as_configured() {
    let headers_names = HeaderNames { access_token: "x-token".into(), ..HeaderNames::default() };
    let cookie = Some(CookieSettings { max_age: Duration::from_secs(60), ..CookieSettings::default() });
    let document = document("/members", &HttpSettings { headers_names, cookie, ..HttpSettings::default() });
    assert!(document["paths"]["/members/sign_in"]["post"]["responses"]["200"]["headers"]["x-token"].is_object());
    assert!(document["paths"]["/members/sign_in"]["post"]["responses"]["200"]["headers"]["set-cookie"].is_object());
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes["x-token"]["name"], "x-token");
    assert_eq!(schemes["__Host-baton"]["in"], "cookie");
    assert!(schemes["access-token"].is_null());
}
