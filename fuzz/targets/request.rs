//! Any request through the layer and the routes, in process: nothing panics, nothing is a 5xx, and without a valid token no
//! response carries one and no session is harmed.
//!
//! An input is a byte of settings and a request as text: `METHOD path?query`, header lines, an empty line, a body. In its head
//! and body `{token}`, `{client}`, `{uid}`, `{bearer}`, `{cookie}` and `{password}` stand for what a signed-in client holds.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::routing::any;
use axum::{Json, Router};
use baton_axum::{Auth, CookieSettings, CurrentUser, HttpSettings, Origins, auth_routes};
use baton_core::decide::{BatchResponse, OnReuse};
use baton_core::event::Trace;
use baton_core::session::{Device, NewAccount, NewSession, PasswordHash, Profile};
use baton_core::{ClientId, Generation, Key, KeyRing, Rules, Store, Timestamp};
use baton_engine::{Attempt, Engine, OsRandom, Registration, Settings, Visitor};
use baton_store::clock::ManualClock;
use baton_store::memory::MemoryStore;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

const UID: &str = "ann@example.com";
const PASSWORD: &str = "correct horse battery";
const CLIENT: ClientId = ClientId::from_bytes(*b"a client's bytes");
const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));
/// Of [`PASSWORD`]. Made once, since it takes longer than everything else.
static HASH: LazyLock<PasswordHash> = LazyLock::new(|| RUNTIME.block_on(hash()));

fuzz_target!(|data: &[u8]| {
    let Some((flags, text)) = data.split_first() else { return };
    LazyLock::force(&HASH);
    RUNTIME.block_on(run(*flags, &String::from_utf8_lossy(text)));
});

fn keys() -> KeyRing {
    KeyRing::new(vec![Key::new(0, *b"a key for the fuzzer, 32 bytes..").expect("an id in range")]).expect("a key")
}

async fn hash() -> PasswordHash {
    let store = Arc::new(MemoryStore::new(Arc::new(ManualClock::new(START))));
    let engine = Engine::open(store.clone(), keys(), Arc::new(OsRandom), Settings::default()).await.expect("an engine");
    let form = Registration { email: Some(UID.into()), password: Some(PASSWORD.into()), ..Registration::default() };
    engine.register(form, &Visitor::default()).await.expect("an account");
    store.find_login("user", "email", UID).await.expect("a store").expect("the account").password
}

async fn run(flags: u8, text: &str) {
    let (clock, auth, app) = server(flags).await;
    // Whoever names one of these holds a token; the others are known to everybody.
    let holds_token = ["{token}", "{bearer}", "{cookie}"].iter().any(|name| text.contains(name));
    // The second time the batch window is over, and what the first one did is done.
    for _ in 0..2 {
        let Some(request) = parse(&filled_in(text)) else { return };
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = app.clone().oneshot(request).await.expect("infallible");
        assert!(response.status().as_u16() < 500, "{} for {text:?}", response.status());
        let opens_session = method == Method::POST && response.status() == 200 && path.contains("auth");
        if !holds_token && !opens_session {
            carries_nothing(&response, text);
        }
        has_genuine_token_if_any(&response, text);
        response.into_body().collect().await.expect("a whole body");
        if !holds_token && !opens_session {
            is_unharmed(&auth).await;
        }
        clock.advance(Duration::from_secs(6));
    }
}

/// A server with one account and one session, and settings by the bits of `flags`.
async fn server(flags: u8) -> (Arc<ManualClock>, Auth, Router) {
    let set = |bit: u8| flags & (1 << bit) != 0;
    let clock = Arc::new(ManualClock::new(START));
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let rules = Rules {
        forgive_lost_responses: set(2),
        on_reuse: if set(3) { OnReuse::Revoke } else { OnReuse::Reject },
        batch_response: if set(4) { BatchResponse::Repeat } else { BatchResponse::Blank },
        change_headers_on_each_request: !set(5),
        ..Rules::default()
    };
    let account = NewAccount {
        realm: "user".into(),
        provider: "email".into(),
        uid: UID.into(),
        email: UID.into(),
        profile: Profile::default(),
        password: HASH.clone(),
    };
    let device = Device::default();
    let session = NewSession { client: CLIENT, renewal: rules.renewal(), device, max_devices: 10, if_password: None };
    store.create_account(account, Some(session), &Trace::NONE).await.expect("an empty store");

    let settings = Settings { rules, ..Settings::default() };
    let engine = Engine::open(store, keys(), Arc::new(OsRandom), settings).await.expect("an engine");
    let http = HttpSettings {
        credentials_in_params: set(0),
        cookie: set(1).then(|| CookieSettings { only: set(6), ..CookieSettings::default() }),
        origins: Origins { exact: vec!["https://app.example.com".into()], localhost: true },
        ..HttpSettings::default()
    };
    let auth = Auth::new(engine, http).expect("HTTP settings");
    let app = Router::new()
        .route("/me", any(|user: CurrentUser| async move { Json(user.uid.clone()) }))
        .route("/maybe", any(|user: Option<CurrentUser>| async move { Json(user.map(|user| user.uid.clone())) }))
        .layer(auth.layer())
        .merge(auth_routes("/auth", &auth));
    let app = if set(7) { app.layer(auth.layer()) } else { app.layer(auth.cors()) };
    (clock, auth, app)
}

fn token() -> String {
    keys().derive(CLIENT, Generation::FIRST).expose().to_owned()
}

fn filled_in(text: &str) -> String {
    let token = token();
    let json = format!(r#"{{"access-token":"{token}","client":"{CLIENT}","uid":"{UID}"}}"#);
    text.replace("{cookie}", &json)
        .replace("{bearer}", &base64(json.as_bytes()))
        .replace("{token}", &token)
        .replace("{client}", &CLIENT.to_string())
        .replace("{uid}", UID)
        .replace("{password}", PASSWORD)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups =
        bytes.chunks(3).map(|group| (group, group.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte))));
    groups
        .flat_map(|(group, bits)| {
            let bits = bits << (8 * (3 - group.len()));
            (0..=group.len()).map(move |digit| char::from(DIGITS[bits >> (18 - 6 * digit) & 63]))
        })
        .collect()
}

fn parse(text: &str) -> Option<Request<Body>> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let (method, uri) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    request.body(Body::from(body.to_owned())).ok()
}

fn carries_nothing(response: &Response<Body>, text: &str) {
    for name in ["access-token", "authorization", "client", "expiry", "uid"] {
        assert!(!response.headers().contains_key(name), "{name} for {text:?}");
    }
    // Taking the cookie away needs no token; setting it does.
    for cookie in response.headers().get_all("set-cookie") {
        assert!(cookie.as_bytes().starts_with(b"__Host-baton=; "), "{cookie:?} for {text:?}");
    }
}

fn has_genuine_token_if_any(response: &Response<Body>, text: &str) {
    let value = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = value("access-token");
    if !token.is_empty() {
        let client = ClientId::parse(value("client")).unwrap_or_else(|| panic!("no client for {text:?}"));
        assert!(keys().verify(client, token).is_ok(), "a token of its own for {text:?}");
        assert_eq!(value("cache-control"), "no-store", "{text:?}");
    }
}

async fn is_unharmed(auth: &Auth) {
    let (client, token) = (CLIENT.to_string(), token());
    let attempt = Attempt { token: &token, client: &client, uid: UID, unbatch: false, ip: None };
    let grant = auth.engine().authenticate(attempt).await.expect("the session lives on");
    assert_eq!(grant.session().generation, Generation::FIRST);
}
