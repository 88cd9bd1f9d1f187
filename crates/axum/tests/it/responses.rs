//! What the response of a request carries: token, blank or nothing; challenges; CORS.

use std::time::Duration;

use axum::Router;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use baton_axum::{CookieSettings, HttpSettings, Origins, auth_routes};
use baton_core::wire::HeaderNames;
use baton_core::{BatchResponse, OnReuse, Rules};
use baton_engine::Settings;
use http::Method;
use serde_json::{Value, json};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::support::{Answer, Call, Held, PASSWORD, START, TestApp, keys};

const BUFFER: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ORIGIN: &str = "https://app.example.com";

fn with_rules(change: impl FnOnce(&mut Rules)) -> TestApp {
    let mut settings = Settings::default();
    change(&mut settings.rules);
    TestApp::with(settings, HttpSettings::default())
}

fn origins(exact: &[&str], localhost: bool) -> HttpSettings {
    let exact = exact.iter().map(|origin| (*origin).to_owned()).collect();
    HttpSettings { origins: Origins { exact, localhost }, ..HttpSettings::default() }
}

#[track_caller]
fn rotates(app: &TestApp, held: &Held) -> Held {
    let answer = app.get_as(held, "/me").send();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.held().unwrap_or_else(|| panic!("no token in {answer:?}"))
}

#[track_caller]
fn is_blank(app: &TestApp, held: &Held) {
    let answer = app.get_as(held, "/me").send();
    assert!(answer.status == 200 && answer.is_blank(), "{answer:?}");
}

#[track_caller]
fn is_refused(app: &TestApp, held: &Held, code: &str) {
    let answer = app.get_as(held, "/me").send();
    assert_eq!(answer.refusal(), (401, code.to_owned()), "{answer:?}");
    let challenge = answer.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with("Bearer ") && challenge.contains(r#"error="invalid_token""#), "{challenge}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.has_no_auth_headers(), "{answer:?}");
}

#[test]
fn a_rotated_answer_to_the_letter() {
    let app = TestApp::start();
    let first = app.register("ann@example.com");
    app.advance(Duration::from_secs(60));
    let answer = app.get_as(&first, "/me").send();
    let second = first.derived(&keys(), 2);
    let expiry = (START.as_secs() + 60 + 14 * 24 * 60 * 60).to_string();
    let fields = json!({
        "access-token": second.token,
        "token-type": "Bearer",
        "client": first.client,
        "expiry": expiry,
        "uid": "ann@example.com",
    });
    for (name, value) in fields.as_object().expect("an object") {
        assert_eq!(answer.all(name), [value.as_str().expect("text")], "{name}");
    }
    let bearer =
        answer.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).expect("a bearer value");
    let json: Value = serde_json::from_slice(&STANDARD.decode(bearer).expect("padded base64")).expect("JSON");
    assert_eq!(json, fields, "the expiry is text here too");
    assert_eq!(answer.all("authorization").len(), 1);
    assert_eq!(answer.all("cache-control"), ["no-store"]);
    assert_eq!(answer.json(), json!({ "uid": "ann@example.com" }), "the handler's body is untouched");
}

/// Whatever the handler answers: the first request rotates, the next one is blank in all three places.
#[test]
fn every_status_carries_the_headers() {
    let app = TestApp::start();
    let mut held = app.register("ann@example.com");
    for code in [200, 201, 204, 304, 400, 401, 403, 404, 409, 422, 429, 500, 503] {
        let path = format!("/status/{code}");
        let answer = app.get_as(&held, &path).send();
        assert_eq!(answer.status, code);
        assert_eq!(answer.all("cache-control"), ["no-store"], "{code}: the handler's was: public");
        assert!(held.adopt(&answer), "{code}: {answer:?}");

        let blank = app.get_as(&held, &path).send();
        assert_eq!(blank.status, code);
        assert!(blank.is_blank(), "{code}: {blank:?}");
        assert_eq!(blank.all("cache-control"), ["public, max-age=60"], "{code}: nothing to hide");
        app.advance(BUFFER);
    }
    // Not the handler's: there is no such route, or not with this method.
    let answer = app.get_as(&held, "/nowhere").send();
    assert_eq!(answer.status, 404);
    assert!(!held.adopt(&answer), "{answer:?}");
}

#[test]
fn head_counts_as_get() {
    let app = TestApp::start();
    let held = app.register("ann@example.com");
    let answer = app.request(Method::HEAD, "/me").held(&held).send();
    assert_eq!((answer.status, answer.text.as_str()), (200, ""));
    assert_eq!(answer.held().expect("a token").generation(), 2);
    let answer = app.request(Method::HEAD, "/auth/validate_token").held(&held).send();
    assert!(answer.status == 200 && answer.is_blank(), "{answer:?}");
    assert_eq!(app.request(Method::HEAD, "/me").send().status, 401);
}

#[test]
fn a_handler_that_panics_rotates_nothing() {
    let app = TestApp::start();
    let held = app.register("ann@example.com");
    let head = format!("access-token: {}\r\nclient: {}\r\nuid: {}\r\n", held.token, held.client, held.uid);
    let answer = app.raw_bytes(format!("GET /panic HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n"));
    assert_eq!(answer, b"", "the connection ends without an answer");
    assert_eq!(rotates(&app, &held).generation(), 2);
}

#[test]
fn a_request_without_credentials_changes_nothing() {
    let app = TestApp::start();
    for path in ["/open", "/maybe"] {
        let answer = app.get(path).send();
        assert_eq!(answer.status, 200);
        assert!(answer.has_no_auth_headers() && answer.header("www-authenticate").is_none(), "{answer:?}");
    }
    let held = app.register("ann@example.com");
    // A resource that does not ask who is there: the token rotates all the same.
    assert_eq!(app.get_as(&held, "/open").send().held().expect("a token").generation(), 2);
}

#[test]
fn every_refusal_says_why() {
    let app = TestApp::start();
    let first = app.register("ann@example.com");
    let second = rotates(&app, &first);
    app.advance(BUFFER);
    is_refused(&app, &first, "token_superseded");
    is_refused(&app, &Held { uid: "bob@example.com".into(), ..second.clone() }, "token_invalid");

    let answer = app.get("/me").send();
    assert_eq!(answer.refusal(), (401, "not_authenticated".into()));
    assert_eq!(answer.all("www-authenticate"), [r#"Bearer realm="baton""#]);
    let answer = app.post("/auth/sign_in", &json!({ "email": "ann@example.com", "password": "wrong one" })).send();
    assert_eq!(answer.refusal(), (401, "bad_credentials".into()));
    assert_eq!(answer.all("www-authenticate"), [r#"Bearer realm="baton""#]);
    assert!(answer.has_no_auth_headers());

    assert_eq!(app.delete("/auth/sign_out").held(&second).send().status, 200);
    is_refused(&app, &second, "session_revoked");
    is_refused(&app, &first, "session_revoked");

    let third = app.sign_in("ann@example.com");
    app.advance(14 * DAY - Duration::from_millis(1));
    let fourth = rotates(&app, &third);
    app.advance(14 * DAY);
    is_refused(&app, &fourth, "token_expired");
}

#[test]
fn validation_refuses_in_its_own_shape() {
    let app = TestApp::start();
    let answer = app.get("/auth/validate_token").send();
    assert_eq!((answer.status, &answer.json()["success"]), (401, &json!(false)));
    assert!(answer.json()["errors"][0].is_string());
    let bare = app.get("/me").send().json();
    assert_eq!(bare.get("success"), None);
    assert!(bare["errors"][0].is_string());
}

#[test]
fn expiry_never_goes_down() {
    let app = with_rules(|rules| rules.session_max_lifetime = 20 * DAY);
    let mut held = app.register("ann@example.com");
    let mut shown = vec![held.expiry];
    for _ in 0..19 {
        app.advance(DAY);
        held = rotates(&app, &held);
        shown.push(held.expiry);
    }
    assert!(shown.is_sorted(), "{shown:?}");
    let cap = (START.plus(20 * DAY)).as_secs();
    assert_eq!(shown.last().copied(), u64::try_from(cap).ok(), "rotation does not extend the absolute lifetime");
    app.advance(DAY);
    is_refused(&app, &held, "token_expired");
}

#[test]
fn options_is_neither_authenticated_nor_rotated() {
    let (with_cors, store) = TestApp::faulty(Settings::default(), HttpSettings::default());
    let held = with_cors.register("ann@example.com");
    let before = store.all_calls();
    let answer = with_cors.request(Method::OPTIONS, "/me").held(&held).send();
    assert!(answer.status == 200 && answer.has_no_auth_headers(), "{answer:?}");
    assert_eq!(store.all_calls(), before);
    assert_eq!(rotates(&with_cors, &held).generation(), 2);

    // Without a CORS layer they reach the handlers.
    let app = TestApp::layered(HttpSettings::default(), |app, auth| {
        app.layer(auth.layer()).merge(auth_routes("/auth", auth))
    });
    let held = app.register("ann@example.com");
    let answer = app.request(Method::OPTIONS, "/open").held(&held).send();
    assert!(answer.status == 200 && answer.has_no_auth_headers(), "{answer:?}");
    let answer = app.request(Method::OPTIONS, "/me").held(&held).send();
    assert_eq!(answer.refusal(), (401, "not_authenticated".into()), "one that asks for somebody gets nobody");
    assert!(answer.has_no_auth_headers(), "{answer:?}");
    let answer = app.request(Method::OPTIONS, "/auth/sign_out").held(&held).send();
    assert_eq!(answer.refusal(), (405, "method_not_allowed".into()));
    assert_eq!(rotates(&app, &held).generation(), 2);
}

fn exposes_all(answer: &Answer) {
    let lists = answer.all("access-control-expose-headers").join(",");
    let exposed: Vec<_> = lists.split(',').map(str::trim).collect();
    for name in ["access-token", "token-type", "client", "expiry", "uid"] {
        assert!(exposed.contains(&name), "{name} in {answer:?}");
    }
}

fn from_page(call: Call, origin: &str) -> Answer {
    call.header("origin", origin).send()
}

#[test]
fn auth_headers_are_exposed_to_pages_with_the_cors_layer() {
    let app = TestApp::with(Settings::default(), origins(&[ORIGIN], false));
    let held = app.register("ann@example.com");
    for (answer, status) in [
        (from_page(app.get_as(&held, "/me"), ORIGIN), 200),
        (from_page(app.get("/me"), ORIGIN), 401),
        (from_page(app.get_as(&held, "/auth/validate_token"), ORIGIN), 200),
        (from_page(app.get("/auth/validate_token"), ORIGIN), 401),
        (
            from_page(app.post("/auth/sign_in", &json!({ "email": "ann@example.com", "password": PASSWORD })), ORIGIN),
            200,
        ),
        (from_page(app.post("/auth/sign_in", &json!({})), ORIGIN), 401),
        (from_page(app.post("/auth", &json!({})), ORIGIN), 422),
        (from_page(app.delete("/auth/sign_out"), ORIGIN), 404),
    ] {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.all("access-control-allow-origin"), [ORIGIN]);
        assert_eq!(answer.all("access-control-allow-credentials"), [] as [&str; 0]);
        exposes_all(&answer);
    }
    let stranger = from_page(app.get_as(&held, "/me"), "https://evil.example.net");
    assert_eq!(stranger.header("access-control-allow-origin"), None);
}

#[test]
fn auth_headers_are_exposed_without_a_cors_layer_and_around_a_foreign_one() {
    let foreign = || CorsLayer::new().allow_origin(AllowOrigin::mirror_request()).expose_headers([http::header::ETAG]);
    let bare = TestApp::layered(HttpSettings::default(), |app, auth| app.layer(auth.layer()));
    let around = TestApp::layered(HttpSettings::default(), |app, auth| {
        app.layer(foreign()).merge(auth_routes("/auth", auth)).layer(auth.layer())
    });
    exposes_all(&from_page(bare.get("/me"), ORIGIN));
    let held = around.register("ann@example.com");
    let answer = from_page(around.get_as(&held, "/me"), ORIGIN);
    assert!(answer.held().is_some());
    exposes_all(&answer);
    assert!(answer.all("access-control-expose-headers").contains(&"etag"), "{answer:?}");
    exposes_all(&from_page(around.get("/me"), ORIGIN));
    exposes_all(&from_page(around.get("/auth/validate_token"), ORIGIN));
    // No page asked.
    assert_eq!(around.get("/me").send().all("access-control-expose-headers"), ["etag"]);
    assert_eq!(bare.get("/me").send().all("access-control-expose-headers"), [] as [&str; 0]);
}

#[test]
fn preflights_are_answered_for_what_the_clients_send() {
    let app = TestApp::with(Settings::default(), origins(&[ORIGIN], false));
    let headers = "access-token, client, uid, expiry, token-type, content-type, if-modified-since";
    for (path, method) in [
        ("/me", "GET"),
        ("/auth", "POST"),
        ("/auth", "PUT"),
        ("/auth", "DELETE"),
        ("/auth/sign_in", "POST"),
        ("/auth/sign_out", "DELETE"),
        ("/auth/validate_token", "GET"),
    ] {
        let preflight = app.request(Method::OPTIONS, path).header("access-control-request-method", method);
        let answer = from_page(preflight.header("access-control-request-headers", headers), ORIGIN);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN));
        let methods = answer.header("access-control-allow-methods").expect("methods");
        assert!(methods.split(',').any(|allowed| allowed.trim() == method), "{methods}");
        let allowed = answer.header("access-control-allow-headers").expect("headers").to_lowercase();
        for header in headers.split(", ") {
            assert!(allowed.split(',').any(|name| name.trim() == header), "{header} in {allowed}");
        }
    }
}

#[test]
fn origins_are_matched_exactly() {
    let app = TestApp::with(Settings::default(), origins(&[ORIGIN], true));
    for allowed in [
        ORIGIN,
        "http://localhost",
        "http://localhost:3000",
        "https://localhost:8443",
        "http://127.0.0.1:5173",
        "http://[::1]:80",
        "http://[::1]",
    ] {
        let answer = from_page(app.get("/open"), allowed);
        assert_eq!(answer.header("access-control-allow-origin"), Some(allowed));
    }
    for foreign in [
        "null",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.net",
        "https://evil.net/https://app.example.com",
        "https://xapp.example.com",
        "http://localhost.evil.net",
        "http://localhost:3000.evil.net",
        "http://localhost:",
        "http://evil@localhost",
        "http://127.0.0.1.evil.net",
        "http://127.0.0.2",
        "http://xlocalhost",
        "file://localhost",
        "localhost",
        "",
    ] {
        let answer = from_page(app.get("/open"), foreign);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{foreign}");
    }
    let production = TestApp::with(Settings::default(), origins(&[ORIGIN], false));
    let answer = from_page(production.get("/open"), "http://localhost:3000");
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[test]
fn origins_that_are_none_are_refused_at_start() {
    for origin in [
        "*",
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/x",
        "null",
        "https://App.example.com",
    ] {
        let built = Origins { exact: vec![origin.into()], localhost: false };
        let app = std::panic::catch_unwind(|| {
            TestApp::with(Settings::default(), HttpSettings { origins: built, ..HttpSettings::default() })
        });
        assert!(app.is_err(), "{origin} was taken for an origin");
    }
}

fn renamed() -> HeaderNames {
    HeaderNames {
        access_token: "X-Token".into(),
        token_type: "X-Token-Type".into(),
        client: "X-Client".into(),
        expiry: "X-Expiry".into(),
        uid: "X-Uid".into(),
        authorization: "X-Authorization".into(),
    }
}

#[test]
fn renamed_headers_everywhere() {
    let cookie = CookieSettings { name: "auth".into(), secure: false, only: false, ..CookieSettings::default() };
    let app = TestApp::with(
        Settings::default(),
        HttpSettings {
            headers_names: renamed(),
            credentials_in_params: true,
            cookie: Some(cookie),
            ..origins(&[ORIGIN], false)
        },
    );
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let answer = from_page(app.post("/auth", &body), ORIGIN);
    assert_eq!(answer.status, 200);
    assert!(answer.has_no_auth_headers(), "none of the usual names: {answer:?}");
    let exposed = answer.header("access-control-expose-headers").expect("a list").to_lowercase();
    let text =
        |answer: &Answer, name: &str| answer.header(name).unwrap_or_else(|| panic!("{name} in {answer:?}")).to_owned();
    for name in ["x-token", "x-token-type", "x-client", "x-expiry", "x-uid", "x-authorization"] {
        assert!(!text(&answer, name).is_empty(), "{name}");
        assert!(exposed.split(',').any(|exposed| exposed.trim() == name), "{name}");
    }

    let by_bearer = app.get("/me").header("x-authorization", &text(&answer, "x-authorization")).send();
    let (token, client, uid) = (text(&by_bearer, "x-token"), text(&answer, "x-client"), text(&answer, "x-uid"));
    assert_ne!(token, text(&answer, "x-token"));
    let word = text(&by_bearer, "x-authorization");
    let json: Value =
        serde_json::from_slice(&STANDARD.decode(word.trim_start_matches("Bearer ")).expect("base64")).expect("JSON");
    assert_eq!((&json["X-Token"], &json["X-Uid"]), (&json!(token), &json!("ann@example.com")));

    let lets_in = |call: Call| assert_eq!(call.send().status, 200);
    lets_in(app.get("/me").header("x-token", &token).header("x-client", &client).header("X-UID", &uid));
    lets_in(app.get(&format!("/me?X-Token={token}&X-Client={client}&X-Uid={uid}")));
    lets_in(app.get("/me").cookie("auth", &json));
    assert!(by_bearer.header("set-cookie").expect("a cookie").contains("X%2DToken"));
    // The usual names mean nothing now.
    let usual = Held { token, client, uid, expiry: 0 };
    assert_eq!(app.get_as(&usual, "/me").send().refusal(), (401, "not_authenticated".into()));
    assert_eq!(app.get("/me").bearer(&json).send().refusal(), (401, "not_authenticated".into()));
    assert_eq!(app.delete("/auth/sign_out").json(&json).send().status, 200);
}

#[test]
fn omitted_batch_answers_have_no_auth_headers() {
    let app = with_rules(|rules| rules.batch_response = BatchResponse::Omit);
    let first = app.register("ann@example.com");
    let second = rotates(&app, &first);
    for held in [&first, &second] {
        let answer = app.get_as(held, "/me").send();
        assert_eq!(answer.status, 200);
        assert!(answer.has_no_auth_headers(), "{answer:?}");
    }
    app.advance(BUFFER);
    assert_eq!(rotates(&app, &second).generation(), 3);
}

#[test]
fn repeated_batch_answers_have_the_current_token() {
    let app = with_rules(|rules| rules.batch_response = BatchResponse::Repeat);
    let first = app.register("ann@example.com");
    let second = rotates(&app, &first);
    for held in [&first, &second] {
        let answer = app.get_as(held, "/me").send();
        assert_eq!(answer.held().as_ref(), Some(&second));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    app.advance(BUFFER);
    is_refused(&app, &first, "token_superseded");
    assert_eq!(rotates(&app, &second).generation(), 3);
}

/// A slow answer repeats the token that is current when it is ready, not the one that was when it began.
#[test]
fn a_slow_batch_answer_repeats_the_token_of_its_end() {
    let app = with_rules(|rules| rules.batch_response = BatchResponse::Repeat);
    let first = app.register("ann@example.com");
    let second = rotates(&app, &first);
    std::thread::scope(|scope| {
        let in_window = scope.spawn(|| app.get_as(&first, "/gate").send());
        app.await_at_gate(1);
        app.advance(BUFFER);
        let would_rotate = scope.spawn(|| app.get_as(&second, "/gate").send());
        app.await_at_gate(1);
        let third = rotates(&app, &second);
        app.gate.let_go(2);
        for slow in [in_window, would_rotate] {
            assert_eq!(slow.join().expect("an answer").held().as_ref(), Some(&third));
        }
    });
}

#[test]
fn a_slow_batch_answer_of_a_session_that_ended_carries_nothing() {
    let app = with_rules(|rules| rules.batch_response = BatchResponse::Repeat);
    let first = app.register("ann@example.com");
    let second = rotates(&app, &first);
    std::thread::scope(|scope| {
        let repeats = scope.spawn(|| app.get_as(&second, "/gate").send());
        app.await_at_gate(1);
        app.advance(BUFFER);
        let rotates = scope.spawn(|| app.get_as(&second, "/gate").send());
        app.await_at_gate(1);
        assert_eq!(app.delete("/auth/sign_out").held(&second).send().status, 200);
        app.gate.let_go(2);
        for slow in [repeats, rotates] {
            let answer = slow.join().expect("an answer");
            assert!(answer.status == 200 && answer.has_no_auth_headers(), "{answer:?}");
        }
    });
}

#[test]
fn unbatch_asks_for_the_current_token() {
    let app = TestApp::start();
    let first = app.register("ann@example.com");
    let second = rotates(&app, &first);
    for path in ["/me?unbatch=true", "/me?x=1&unbatch=1", "/auth/validate_token?unbatch=true"] {
        for held in [&first, &second] {
            assert_eq!(app.get_as(held, path).send().held().as_ref(), Some(&second), "{path}");
        }
    }
    for path in ["/me?unbatch=false", "/me?unbatch=0", "/me?unbatched=true", "/me?x=unbatch"] {
        assert!(app.get_as(&second, path).send().is_blank(), "{path}");
    }
    assert!(app.get_as(&second, "/me").header("unbatch", "true").send().is_blank(), "a header means nothing");
    // Nothing rotated and the window stayed as it was.
    app.advance(BUFFER);
    is_refused(&app, &first, "token_superseded");
    let third = app.get_as(&second, "/me?unbatch=true").send().held().expect("a token");
    assert_eq!(third.generation(), 3, "outside the window it rotates like any other");
}

#[test]
fn tokens_that_do_not_change() {
    let app = with_rules(|rules| rules.change_headers_on_each_request = false);
    let held = app.register("ann@example.com");
    let last_seen = || app.get_as(&held, "/auth/sessions").send().json()["data"][0]["last_seen_at"].clone();
    let before = last_seen();
    for _ in 0..20 {
        for path in ["/me", "/me?unbatch=true", "/status/304", "/status/500"] {
            let answer = app.get_as(&held, path).send();
            assert_eq!(answer.held().as_ref(), Some(&held), "{path}");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
        app.advance(Duration::from_secs(6));
    }
    assert_ne!(last_seen(), before, "the list of devices stays true");
    app.advance(14 * DAY);
    is_refused(&app, &held, "token_expired");
}

#[test]
fn a_lost_response_is_forgiven_until_its_token_is_seen() {
    let app = with_rules(|rules| rules.forgive_lost_responses = true);
    let first = app.register("ann@example.com");
    let lost = rotates(&app, &first);
    app.advance(3 * BUFFER);

    // The client never got it and goes on with the old one: it is sent the same token again.
    let again = rotates(&app, &first);
    assert_eq!((&again.token, again.generation()), (&lost.token, 2));
    is_blank(&app, &first);
    // Even this one is lost, and the next one too.
    for _ in 0..3 {
        app.advance(DAY);
        assert_eq!(rotates(&app, &first).token, lost.token);
    }
    // Now it arrives and is used: what came before it is over as soon as the window is.
    is_blank(&app, &again);
    is_blank(&app, &first);
    app.advance(BUFFER);
    is_refused(&app, &first, "token_superseded");
    assert_eq!(rotates(&app, &again).generation(), 3);
}

#[test]
fn reuse_can_end_the_session() {
    let app = with_rules(|rules| rules.on_reuse = OnReuse::Revoke);
    let first = app.register("ann@example.com");
    let elsewhere = app.sign_in("ann@example.com");
    let second = rotates(&app, &first);
    is_blank(&app, &first);
    app.advance(BUFFER);
    is_refused(&app, &first, "token_superseded");
    is_refused(&app, &second, "session_revoked");
    is_refused(&app, &first, "session_revoked");
    assert_eq!(rotates(&app, &elsewhere).generation(), 2, "it was another session's token");
}

/// A noise token does not: whoever can only guess must not be able to sign anybody out.
#[test]
fn only_a_genuine_token_ends_the_session() {
    let app = with_rules(|rules| rules.on_reuse = OnReuse::Revoke);
    let first = app.register("ann@example.com");
    let second = rotates(&app, &first);
    app.advance(BUFFER);
    is_refused(&app, &Held { token: "EAAAAAFaaaaaaaaaaaaaaaaaaaaa".into(), ..first.clone() }, "token_invalid");
    is_refused(&app, &Held { uid: "bob@example.com".into(), ..first }, "token_invalid");
    assert_eq!(rotates(&app, &second).generation(), 3);
}

/// The store has lost rotations: a token from ahead of it proves that it was issued.
#[test]
fn a_token_from_ahead_heals_the_session() {
    let app = TestApp::start();
    let first = app.register("ann@example.com");
    let ahead = first.derived(&keys(), 7);
    is_blank(&app, &ahead);
    // Its sibling that was sent before it is on its way.
    is_blank(&app, &first.derived(&keys(), 6));
    is_refused(&app, &first, "token_superseded");
    app.advance(BUFFER);
    is_refused(&app, &first.derived(&keys(), 6), "token_superseded");
    assert_eq!(rotates(&app, &ahead).generation(), 8);
    let last = first.derived(&keys(), u32::MAX);
    is_blank(&app, &last);
    app.advance(BUFFER);
    is_refused(&app, &last, "token_expired");
}

/// Two layers of one realm rotate once, also around routes that bring their own.
#[test]
fn a_layer_applied_twice_rotates_once() {
    let app = TestApp::layered(HttpSettings { credentials_in_params: true, ..HttpSettings::default() }, |app, auth| {
        let routes: Router = auth_routes("/auth", auth);
        app.layer(auth.layer()).merge(routes).layer(auth.layer())
    });
    let first = app.register("ann@example.com");
    assert_eq!(first.generation(), 1, "the outer layer leaves the answer of a registration alone");
    let answer = app.get_as(&first, "/auth/validate_token").send();
    assert_eq!(answer.all("access-token").len(), 1);
    let second = answer.held().expect("a token");
    assert_eq!(second.generation(), 2);
    app.advance(BUFFER);
    let third = rotates(&app, &second);
    assert_eq!(third.generation(), 3);

    // Another sign-in with the credentials of a session: the answer is the new session's.
    app.advance(BUFFER);
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let other = app.post("/auth/sign_in", &body).held(&third).send().held().expect("a token");
    assert_ne!(other.client, third.client);
    assert_eq!(other.generation(), 1);
    assert_eq!(rotates(&app, &third).generation(), 4, "and the old session goes on where it was");

    let answer = app.delete("/auth/sign_out").held(&other).send();
    assert!(answer.status == 200 && answer.has_no_auth_headers(), "{answer:?}");
    // The outer layer knows nothing of the body.
    let held = app.sign_in("ann@example.com");
    assert_eq!(app.delete("/auth/sign_out").json(&held.json()).send().status, 200);
    assert_eq!(app.get_as(&held, "/me").send().refusal(), (401, "session_revoked".into()));
}
