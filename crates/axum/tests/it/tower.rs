//! The layer around services of other kinds and around itself, and what becomes of requests while the store is away.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ::tower::{Layer as _, ServiceExt as _, service_fn};
use axum::Router;
use axum::routing::get;
use baton_axum::{Auth, CurrentUser, HttpSettings, auth_routes};
use baton_core::{OnReuse, Store};
use baton_engine::{Engine, OsRandom, Registered, SecretString, Settings, SignedIn, Visitor};
use baton_store::clock::ManualClock;
use baton_store::faulty::{Fault, Operation};
use baton_store::memory::MemoryStore;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use crate::support::{Held, PASSWORD, START, TestApp, keys};

const BUFFER: Duration = Duration::from_secs(5);

async fn auth_over(store: Arc<dyn Store>, realm: &str) -> Auth {
    let settings = Settings { realm: realm.into(), ..Settings::default() };
    let engine = Engine::open(store, keys(), Arc::new(OsRandom), settings).await.expect("an engine");
    Auth::new(engine, HttpSettings::default()).expect("HTTP settings")
}

async fn registered(auth: &Auth, email: &str) -> SignedIn {
    let password = || Some(SecretString::from(PASSWORD));
    let form = baton_engine::Registration { email: Some(email.into()), password: password(), ..Default::default() };
    match auth.engine().register(form, &Visitor::default()).await.expect("an account") {
        Registered::SignedIn(opened) => opened,
        Registered::Pending(_) => panic!("nobody has to confirm anything"),
    }
}

fn request_of(who: &SignedIn, path: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().uri(path).header("uid", &who.account.uid);
    let request = request.header("access-token", who.credentials.token.expose());
    request.header("client", who.credentials.client.to_string()).body(Full::default()).expect("a request")
}

fn memory() -> (Arc<ManualClock>, Arc<MemoryStore>) {
    let clock = Arc::new(ManualClock::new(START));
    (clock.clone(), Arc::new(MemoryStore::new(clock)))
}

/// No router, no axum body: the layer protects any service as a whole.
#[tokio::test]
async fn required_protects_a_plain_tower_service() {
    let auth = auth_over(memory().1, "user").await;
    let ann = registered(&auth, "ann@example.com").await;
    let inner = service_fn(|request: Request<Full<Bytes>>| async move {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(request.uri().path().to_owned()))))
    });
    let protected = auth.layer().required().layer(inner);
    let open = auth.layer().layer(inner);
    let anonymous =
        |method: Method| Request::builder().method(method).uri("/x").body(Full::default()).expect("a request");

    let answer = protected.clone().oneshot(anonymous(Method::GET)).await.expect("infallible");
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["www-authenticate"], r#"Bearer realm="baton""#);
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["code"], "not_authenticated");

    let answer = protected.clone().oneshot(anonymous(Method::OPTIONS)).await.expect("infallible");
    assert_eq!(answer.status(), 200, "a preflight carries no credentials");
    let answer = open.oneshot(anonymous(Method::GET)).await.expect("infallible");
    assert_eq!(answer.status(), 200, "not required: the service decides");

    let answer = protected.clone().oneshot(request_of(&ann, "/in")).await.expect("infallible");
    assert_eq!((answer.status().as_u16(), answer.headers()["access-token"].len()), (200, 28));
    assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "/in");
    let answer = protected.oneshot(request_of(&ann, "/in")).await.expect("infallible");
    assert_eq!((answer.status().as_u16(), answer.headers()["access-token"].len()), (200, 0));
}

#[tokio::test]
async fn an_error_of_the_inner_service_rotates_nothing() {
    let auth = auth_over(memory().1, "user").await;
    let ann = registered(&auth, "ann@example.com").await;
    let failing = service_fn(|_: Request<Full<Bytes>>| async { Err::<Response<Full<Bytes>>, _>("failed") });
    assert_eq!(auth.layer().layer(failing).oneshot(request_of(&ann, "/")).await.err(), Some("failed"));
    let working =
        service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) });
    let answer = auth.layer().layer(working).oneshot(request_of(&ann, "/")).await.expect("infallible");
    assert_eq!(answer.headers()["access-token"].len(), 28);
}

/// Two kinds of account, each with a layer, one around the other: a user is nobody to the layer of the admins.
#[tokio::test]
async fn layers_of_two_realms_do_not_take_each_others_word() {
    let (_, store) = memory();
    let users = auth_over(store.clone(), "user").await;
    let admins = auth_over(store, "admin").await;
    let user = registered(&users, "ann@example.com").await;
    let admin = registered(&admins, "ann@example.com").await;
    let whoami =
        || get(|user: Option<CurrentUser>| async move { user.map(|user| user.realm.clone()).unwrap_or_default() });
    let app = Router::new()
        .route("/admin/required", whoami().layer(admins.layer().required()))
        .route("/admin/open", whoami().layer(admins.layer()))
        .route("/user", whoami())
        .merge(auth_routes("/admin_auth", &admins))
        .layer(users.layer());
    let ask = async |who: &SignedIn, method: Method, path: &str| {
        let (mut parts, _) = request_of(who, path).into_parts();
        parts.method = method;
        let answer =
            app.clone().oneshot(Request::from_parts(parts, axum::body::Body::empty())).await.expect("infallible");
        let tokens = answer.headers().get_all("access-token").iter().count();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, tokens, String::from_utf8(body.to_vec()).expect("UTF-8"))
    };
    let get = Method::GET;
    assert_eq!(ask(&user, get.clone(), "/admin/required").await.0, 401);
    assert_eq!(ask(&user, get.clone(), "/admin/open").await, (200, 1, String::new()));
    assert_eq!(ask(&user, get.clone(), "/admin_auth/validate_token").await.0, 401);
    assert_eq!(ask(&user, Method::DELETE, "/admin_auth").await.0, 404);
    assert_eq!(ask(&user, get.clone(), "/user").await, (200, 1, "user".into()));
    assert_eq!(ask(&admin, get.clone(), "/admin/required").await, (200, 1, "admin".into()));
    assert_eq!(ask(&admin, get.clone(), "/admin/open").await, (200, 1, "admin".into()));
    assert_eq!(ask(&admin, get.clone(), "/admin_auth/validate_token").await.0, 200);
    assert_eq!(ask(&admin, get, "/user").await, (200, 0, String::new()));
}

#[test]
fn an_optional_user() {
    let app = TestApp::start();
    let held = app.settled("ann@example.com");
    assert_eq!(app.get_as(&held, "/maybe").send().json(), json!("ann@example.com"));
    let bad = Held { token: "x".into(), ..held };
    let answer = app.get_as(&bad, "/maybe").send();
    assert_eq!((answer.status, answer.json()), (200, Value::Null));
    assert!(answer.has_no_auth_headers());
}

#[test]
fn a_route_without_the_layer_is_a_clear_500() {
    let app = TestApp::layered(HttpSettings::default(), |app, _| app);
    for path in ["/me", "/maybe"] {
        let answer = app.get(path).send();
        assert_eq!(answer.status, 500);
        assert!(answer.json()["errors"][0].as_str().is_some_and(|message| message.contains("set up")), "{answer:?}");
    }
    assert_eq!(app.get("/open").send().status, 200);
}

fn is_unavailable(answer: &crate::support::Answer) {
    assert_eq!(answer.refusal(), (503, "unavailable".into()), "{answer:?}");
    assert!(answer.header("retry-after").is_some() && answer.header("www-authenticate").is_none());
    assert!(answer.has_no_auth_headers());
    assert!(!answer.text.contains("faulty"), "the cause is for the log: {}", answer.text);
}

/// 503 and never 401: front ends throw their session away at a 401.
#[test]
fn a_store_that_is_away_costs_nobody_the_session() {
    let (app, store) = TestApp::faulty(Settings::default(), HttpSettings::default());
    let first = app.register("ann@example.com");
    for fault in [Fault::Unavailable, Fault::UncertainNotApplied] {
        store.fail(Operation::Find, fault);
        for path in ["/me", "/maybe", "/auth/validate_token", "/auth/sessions"] {
            is_unavailable(&app.get_as(&first, path).send());
        }
        is_unavailable(&app.delete("/auth/sign_out").held(&first).send());
        is_unavailable(&app.delete("/auth").held(&first).send());
        assert_eq!(app.get_as(&first, "/open").send().status, 200, "for everybody, hence for this one too");
        assert_eq!(app.get("/me").send().status, 401, "nobody is nobody");
        let forged = Held { token: "A".repeat(28), ..first.clone() };
        assert_eq!(app.get_as(&forged, "/me").send().status, 401, "what can be told without the store is told");
        store.heal();
    }
    for (operation, call) in [
        (Operation::EndSession, app.delete("/auth/sign_out").held(&first)),
        (Operation::EndSession, app.delete(&format!("/auth/sessions/{}", first.client)).held(&first)),
        (Operation::DeleteAccount, app.delete("/auth").held(&first)),
        (Operation::Sessions, app.get_as(&first, "/auth/sessions")),
        (Operation::FindLogin, app.post("/auth/sign_in", &json!({ "email": "ann@example.com", "password": PASSWORD }))),
        (
            Operation::CreateSession,
            app.post("/auth/sign_in", &json!({ "email": "ann@example.com", "password": PASSWORD })),
        ),
        (Operation::CreateAccount, app.post("/auth", &json!({ "email": "bob@example.com", "password": PASSWORD }))),
    ] {
        store.fail(operation, Fault::Unavailable);
        store.fail(Operation::Swap, Fault::Unavailable);
        let answer = call.send();
        assert_eq!(answer.refusal(), (503, "unavailable".into()), "{operation:?}");
        assert_eq!(answer.held(), None, "{operation:?}");
        store.heal();
    }
    assert_eq!(app.get_as(&first, "/me").send().held().expect("a token").generation(), 2);
}

/// The handler has run: its answer must not be lost because the token could not be changed.
#[test]
fn a_rotation_that_failed_leaves_the_old_token_good() {
    let (app, store) = TestApp::faulty(Settings::default(), HttpSettings::default());
    let first = app.register("ann@example.com");
    store.fail(Operation::Swap, Fault::Unavailable);
    for _ in 0..3 {
        let answer = app.get_as(&first, "/me").send();
        assert!(answer.status == 200 && answer.is_blank(), "{answer:?}");
        app.advance(2 * BUFFER);
    }
    store.heal();
    assert_eq!(app.get_as(&first, "/me").send().held().expect("a token").generation(), 2);
}

/// Nobody knows whether it was stored: the token is handed out, and either way the client goes on with it.
#[test]
fn a_rotation_of_unknown_outcome_hands_the_token_out() {
    for fault in [Fault::UncertainApplied, Fault::UncertainNotApplied] {
        let (app, store) = TestApp::faulty(Settings::default(), HttpSettings::default());
        let first = app.register("ann@example.com");
        store.fail(Operation::Swap, fault);
        let second = app.get_as(&first, "/me").send().held().unwrap_or_else(|| panic!("{fault:?}: no token"));
        assert_eq!(second.generation(), 2);
        store.heal();
        // A sibling that was sent before the token arrived.
        assert_eq!(app.get_as(&first, "/me").send().status, 200, "{fault:?}");
        assert_eq!(app.get_as(&second, "/me").send().status, 200, "{fault:?}");
        app.advance(BUFFER);
        let third = app.get_as(&second, "/me").send().held().unwrap_or_else(|| panic!("{fault:?}: no token"));
        assert!(third.generation() > 2 && third.expiry >= second.expiry, "{fault:?}");
        app.advance(BUFFER);
        assert_eq!(app.get_as(&first, "/me").send().refusal(), (401, "token_superseded".into()), "{fault:?}");
        assert_eq!(app.get_as(&third, "/me").send().status, 200, "{fault:?}");
    }
}

/// A window that may not be open must not be counted on: had the token been handed out and used, a sibling of the request
/// would be refused.
#[test]
fn a_resend_of_unknown_outcome_hands_nothing_out() {
    for fault in [Fault::UncertainNotApplied, Fault::UncertainApplied] {
        let mut settings = Settings::default();
        settings.rules.forgive_lost_responses = true;
        let (app, store) = TestApp::faulty(settings, HttpSettings::default());
        let first = app.register("ann@example.com");
        assert!(app.get_as(&first, "/me").send().held().is_some(), "and this response is lost");
        app.advance(BUFFER);
        store.fail_next(Operation::Swap, fault);
        let mut held = first.clone();
        held.adopt(&app.get_as(&first, "/me").send());
        assert_eq!(app.get_as(&held, "/me").send().status, 200, "{fault:?}");
        assert_eq!(app.get_as(&first, "/me").send().status, 200, "{fault:?}: a sibling is refused");
        app.advance(BUFFER);
        let second = app.get_as(&first, "/me").send().held().unwrap_or_else(|| panic!("{fault:?}: no token"));
        assert_eq!(second.generation(), 2, "{fault:?}");
    }
}

/// A token from ahead can only be let in once the record has been moved up to it.
#[test]
fn a_session_that_cannot_be_healed_is_503() {
    let (app, store) = TestApp::faulty(Settings::default(), HttpSettings::default());
    let ahead = app.register("ann@example.com").derived(&keys(), 5);
    for fault in [Fault::Unavailable, Fault::UncertainNotApplied] {
        store.fail(Operation::Swap, fault);
        is_unavailable(&app.get_as(&ahead, "/me").send());
        store.heal();
    }
    assert!(app.get_as(&ahead, "/me").send().is_blank());
}

/// That it is over is known without writing it down.
#[test]
fn an_expired_session_that_cannot_be_removed_is_expired() {
    let (app, store) = TestApp::faulty(Settings::default(), HttpSettings::default());
    let held = app.register("ann@example.com");
    app.advance(Duration::from_secs(14 * 24 * 60 * 60));
    store.fail(Operation::EndSession, Fault::Unavailable);
    for _ in 0..2 {
        assert_eq!(app.get_as(&held, "/me").send().refusal(), (401, "token_expired".into()));
    }
}

/// To say that the session was revoked while it lives on would leave a thief with it.
#[test]
fn a_reuse_that_cannot_be_punished_is_503() {
    let mut settings = Settings::default();
    settings.rules.on_reuse = OnReuse::Revoke;
    let (app, store) = TestApp::faulty(settings, HttpSettings::default());
    let first = app.register("ann@example.com");
    let second = app.get_as(&first, "/me").send().held().expect("a token");
    app.advance(BUFFER);
    store.fail(Operation::EndSession, Fault::Unavailable);
    is_unavailable(&app.get_as(&first, "/me").send());
    store.heal();
    assert_eq!(app.get_as(&first, "/me").send().refusal(), (401, "token_superseded".into()));
    assert_eq!(app.get_as(&second, "/me").send().refusal(), (401, "session_revoked".into()));
}

/// What has been seen cannot be written down: the request is served, and the token stays as it is.
#[test]
fn a_forgiving_session_is_served_while_nothing_can_be_written() {
    let mut settings = Settings::default();
    settings.rules.forgive_lost_responses = true;
    let (app, store) = TestApp::faulty(settings, HttpSettings::default());
    let first = app.register("ann@example.com");
    let second = app.get_as(&first, "/me").send().held().expect("a token");
    app.advance(BUFFER);
    store.fail(Operation::Swap, Fault::Unavailable);
    for held in [&first, &second] {
        let answer = app.get_as(held, "/me").send();
        assert!(answer.status == 200 && answer.is_blank(), "{answer:?}");
    }
    store.heal();
    assert_eq!(app.get_as(&second, "/me").send().held().expect("a token").generation(), 3);
}
