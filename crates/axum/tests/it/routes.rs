//! The ready-made routes: statuses and bodies.

use std::time::Duration;

use baton_axum::{HttpSettings, auth_routes};
use baton_engine::{Hashing, Settings};
use http::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Held, PASSWORD, START, TestApp, keys};

const JSON: Option<&str> = Some("application/json; charset=utf-8");

fn register(app: &TestApp, body: &Value) -> Answer {
    app.post("/auth", body).send()
}

fn sign_in(app: &TestApp, email: &str, password: &str) -> Answer {
    app.post("/auth/sign_in", &json!({ "email": email, "password": password })).send()
}

fn keys_of(object: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

const USER: [&str; 8] = ["allow_password_change", "email", "id", "image", "name", "nickname", "provider", "uid"];

#[track_caller]
fn is_user(data: &Value, email: &str) {
    assert_eq!((&data["email"], &data["uid"]), (&json!(email), &json!(email)));
    assert_eq!((&data["provider"], &data["allow_password_change"]), (&json!("email"), &json!(false)));
    assert!(data["id"].is_i64());
}

/// 422 with these faults, and nobody signed in.
#[track_caller]
fn has_faults(answer: &Answer, fields: &[&str]) {
    assert_eq!(answer.refusal(), (422, "invalid".into()), "{answer:?}");
    let body = answer.json();
    assert_eq!(keys_of(&body), ["code", "data", "errors", "status"]);
    assert_eq!(body["status"], "error");
    let errors = body["errors"].as_object().expect("an object");
    for (name, messages) in errors {
        assert!(messages.as_array().is_some_and(|list| list.iter().all(Value::is_string)), "{name}: {messages}");
    }
    let mut names: Vec<_> = errors.keys().map(String::as_str).filter(|name| *name != "full_messages").collect();
    names.sort_unstable();
    assert_eq!(names, fields);
    assert_eq!(errors["full_messages"].as_array().expect("a list").len(), fields.len());
    assert_eq!((&body["data"]["id"], &body["data"]["uid"]), (&Value::Null, &json!("")));
    assert!(body["data"].get("password").is_none(), "{body}");
    assert!(answer.has_no_auth_headers());
}

/// None of the fields of a registration was in the body.
#[track_caller]
fn has_no_fields(answer: &Answer) {
    assert_eq!(answer.refusal(), (422, "invalid".into()), "{answer:?}");
    let body = answer.json();
    assert_eq!(keys_of(&body), ["code", "errors", "status", "success"]);
    assert_eq!((&body["status"], &body["success"]), (&json!("error"), &json!(false)));
    assert!(body["errors"][0].is_string());
}

#[test]
fn a_registration() {
    let app = TestApp::start();
    let body = json!({
        "email": "ann@example.com", "password": PASSWORD, "password_confirmation": PASSWORD,
        "name": "Ann", "confirm_success_url": "https://app.example.com/", "config_name": "default",
    });
    let answer = register(&app, &body);
    assert_eq!((answer.status, answer.header("content-type")), (200, JSON));
    let body = answer.json();
    assert_eq!(keys_of(&body), ["data", "status"]);
    assert_eq!(body["status"], "success");
    let data = &body["data"];
    let mut with_times = USER.to_vec();
    with_times.splice(1..1, ["created_at"]);
    with_times.push("updated_at");
    with_times.sort_unstable();
    assert_eq!(keys_of(data), with_times);
    is_user(data, "ann@example.com");
    assert_eq!((&data["name"], &data["nickname"]), (&json!("Ann"), &Value::Null));
    assert_eq!(data["created_at"], "2026-09-21T14:13:20.000Z");
    let held = answer.held().expect("a token");
    assert_eq!((held.uid.as_str(), held.generation()), ("ann@example.com", 1));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(!answer.text.contains("argon2") && !answer.text.contains(PASSWORD));
}

#[test]
fn a_sign_in_and_a_validation() {
    let app = TestApp::start();
    app.register("ann@example.com");
    let answer = sign_in(&app, "ann@example.com", PASSWORD);
    assert_eq!((answer.status, answer.header("content-type")), (200, JSON));
    assert_eq!(keys_of(&answer.json()), ["data"]);
    assert_eq!(keys_of(&answer.json()["data"]), USER);
    is_user(&answer.json()["data"], "ann@example.com");
    let held = answer.held().expect("a token");

    let answer = app.get_as(&held, "/auth/validate_token").send();
    assert_eq!((answer.status, answer.header("content-type")), (200, JSON));
    assert_eq!(keys_of(&answer.json()), ["data", "success"]);
    assert_eq!(answer.json()["success"], true);
    assert_eq!(keys_of(&answer.json()["data"]), USER);
    assert_eq!(answer.held().expect("a token").generation(), 2);
}

#[test]
fn forms_will_do() {
    let app = TestApp::start();
    let form = "email=ann%40example.com&password=pass+word%2B1&password_confirmation=pass+word%2B1&name=A%C3%A9";
    let answer = app.request(Method::POST, "/auth").form(form).send();
    assert_eq!((answer.status, &answer.json()["data"]["name"]), (200, &json!("Aé")));
    let answer =
        app.request(Method::POST, "/auth/sign_in").form("email=ann%40example.com&password=pass+word%2B1").send();
    assert_eq!(answer.status, 200);
    assert_eq!(sign_in(&app, "ann@example.com", "pass word+1").status, 200);
    for (form, status) in [
        ("email=%FF%40example.com&password=long+enough", 400),
        ("email=bob%40example.com&password=long+enough%FF", 400),
        ("%FF=x", 400),
        ("email[]=bob%40example.com&password=long+enough", 422),
        ("user[email]=bob%40example.com&user[password]=long+enough", 422),
        ("=&&=", 422),
        ("", 422),
    ] {
        assert_eq!(app.request(Method::POST, "/auth").form(form).send().status, status, "{form}");
    }
}

#[test]
fn content_types_with_parameters_and_in_any_case() {
    let app = TestApp::start();
    app.register("ann@example.com");
    let json = json!({ "email": "ann@example.com", "password": PASSWORD }).to_string();
    let call = || app.request(Method::POST, "/auth/sign_in");
    for kind in
        ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json", " application/json ;x"]
    {
        assert_eq!(call().header("content-type", kind).body(json.clone()).send().status, 200, "{kind}");
    }
    // As in the gem, text is no form, and a sign-in without fields is a wrong one.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream", "garbage", ""] {
        let answer = call().header("content-type", kind).body(json.clone()).send();
        assert_eq!(answer.refusal(), (401, "bad_credentials".into()), "{kind}");
    }
    assert_eq!(call().body(json).send().refusal(), (401, "bad_credentials".into()));
}

#[test]
fn fields_of_other_types() {
    let app = TestApp::start();
    let with_email = |email: Value| register(&app, &json!({ "email": email, "password": PASSWORD }));
    for email in [json!(null), json!(["a@b.com"]), json!({ "a": "b" }), json!(5), json!(true), json!(""), json!("  ")] {
        has_faults(&with_email(email), &["email"]);
    }
    let with_password = |password: Value| register(&app, &json!({ "email": "ann@example.com", "password": password }));
    for password in [json!(null), json!(["long enough"]), json!({}), json!(true), json!(""), json!(1234567)] {
        has_faults(&with_password(password), &["password"]);
    }
    has_faults(&register(&app, &json!({ "name": "Ann" })), &["email", "password"]);
    has_faults(&register(&app, &json!({ "email": null })), &["email", "password"]);
    has_faults(
        &register(&app, &json!({ "name": "x".repeat(256), "email": "x", "password": "x" })),
        &["email", "name", "password"],
    );

    // A number is taken by its digits.
    let body = json!({ "email": "ann@example.com", "password": 12345678, "password_confirmation": 12345678 });
    assert_eq!(register(&app, &body).status, 200);
    assert_eq!(sign_in(&app, "ann@example.com", "12345678").status, 200);
    assert_eq!(
        app.post("/auth/sign_in", &json!({ "email": "ann@example.com", "password": 12345678 })).send().status,
        200
    );
    for email in [json!(null), json!(["ann@example.com"]), json!({ "$ne": "" }), json!(5), json!("")] {
        let answer = app.post("/auth/sign_in", &json!({ "email": email, "password": PASSWORD })).send();
        assert_eq!(answer.refusal(), (401, "bad_credentials".into()), "{email}");
    }
    for body in [json!({}), json!({ "email": "ann@example.com" }), json!({ "password": PASSWORD }), json!([]), json!(5)]
    {
        assert_eq!(app.post("/auth/sign_in", &body).send().refusal(), (401, "bad_credentials".into()), "{body}");
    }
    for nested in [json!({ "a": 1 }), json!([1]), Value::Null] {
        let email = format!("x{}@example.com", nested.to_string().len());
        let answer = register(&app, &json!({ "email": email, "password": PASSWORD, "name": nested, "nickname": 5 }));
        let data = &answer.json()["data"];
        assert_eq!((&data["name"], &data["nickname"]), (&Value::Null, &json!("5")));
    }
}

#[test]
fn bodies_without_any_field() {
    let app = TestApp::start();
    for body in [json!({}), json!([]), json!([1, 2]), json!("x"), json!(5), json!(null), json!({ "foo": 1 })] {
        has_no_fields(&register(&app, &body));
    }
    let account = json!({ "email": "ann@example.com", "password": PASSWORD });
    has_no_fields(&register(&app, &json!({ "user": account })));
    has_no_fields(&register(&app, &json!({ "registration": account })));
    has_no_fields(&app.request(Method::POST, "/auth").send());
    has_no_fields(&app.request(Method::POST, "/auth").header("content-type", "application/json").send());
    has_no_fields(
        &app.request(Method::POST, "/auth").header("content-type", "text/plain").body(account.to_string()).send(),
    );
    // The query is no body: what is in it ends up in logs.
    has_no_fields(&app.request(Method::POST, "/auth?email=ann@example.com&password=long+enough").send());
}

#[test]
fn malformed_json_is_400_and_not_repeated() {
    let app = TestApp::start();
    for path in ["/auth", "/auth/sign_in"] {
        for body in [
            &b"{\"email\": "[..],
            b"{\"password\": \"topsecret\" x",
            b"{'email': 'a'}",
            b"{\"email\": \"\xff\xfe\"}",
            b"\xef\xbb\xbf{}",
            b"nul",
            b"{} {}",
            &[b'['; 20_000],
        ] {
            let answer = app.request(Method::POST, path).header("content-type", "application/json").body(body).send();
            assert_eq!(answer.refusal(), (400, "malformed".into()), "{body:?}");
            assert_eq!(answer.header("content-type"), JSON);
            assert!(!answer.text.contains("topsecret"), "{}", answer.text);
        }
    }
}

#[test]
fn an_oversized_body_is_413() {
    let app = TestApp::start();
    app.register("ann@example.com");
    for path in ["/auth", "/auth/sign_in"] {
        let fitting = json!({ "email": "ann@example.com", "password": "x".repeat(65_000) });
        assert!([401, 422].contains(&app.post(path, &fitting).send().status));
        let answer = app.post(path, &json!({ "email": "a", "password": "x".repeat(65_536) })).send();
        assert_eq!(answer.refusal(), (413, "too_large".into()));
    }
    // Announced, but never sent: nobody waits for it.
    let head = "POST /auth HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let answer = app.raw(format!("{head}Content-Length: 1073741824\r\n\r\n{}", "x".repeat(70_000)));
    assert_eq!(answer.status, 413);
}

#[test]
fn addresses_are_trimmed_and_lower_case_and_taken_once() {
    let app = TestApp::start();
    let answer = register(&app, &json!({ "email": "  Ann@EXAMPLE.com\t", "password": PASSWORD }));
    is_user(&answer.json()["data"], "ann@example.com");
    for email in ["ann@example.com", "ANN@example.com", " Ann@Example.Com "] {
        let answer = register(&app, &json!({ "email": email, "password": "another password" }));
        has_faults(&answer, &["email"]);
        assert_eq!(answer.json()["data"]["email"], "ann@example.com");
        assert_eq!(sign_in(&app, email, PASSWORD).status, 200);
        assert_eq!(sign_in(&app, email, "another password").status, 401, "the attempt changed nothing");
    }
}

#[test]
fn an_address_is_taken_once_however_many_ask_at_once() {
    let app = TestApp::start();
    let barrier = std::sync::Barrier::new(8);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask = |index: usize| {
            barrier.wait();
            register(&app, &json!({ "email": "ann@example.com", "password": format!("password {index}") }))
        };
        let threads: Vec<_> = (0..8).map(|index| scope.spawn(move || ask(index))).collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1, "{answers:?}");
    for (index, answer) in answers.iter().enumerate() {
        let status = sign_in(&app, "ann@example.com", &format!("password {index}")).status;
        if answer.status == 200 {
            assert_eq!(status, 200, "the winner's password is the account's");
        } else {
            has_faults(answer, &["email"]);
            assert_eq!(status, 401);
        }
    }
}

#[test]
fn addresses_that_are_none() {
    let app = TestApp::start();
    for email in [
        "nope",
        "ann@localhost",
        "@example.com",
        "ann@",
        "a b@example.com",
        "ann@exa mple.com",
        "ann@@example.com",
        "Ann <ann@example.com>",
        "ann@example.com, bob@example.com",
        "ann@[127.0.0.1]",
        "ann@example..com",
        ".ann@example.com",
        "ann\u{0}@example.com",
        "ann@example.com\nbcc: bob@example.com",
        "ann\r\nx@example.com",
        "ann@exam\u{0}ple.com",
        "\"a\u{1}\"@example.com",
        "\"a\r\nb\"@example.com",
        "\"a\u{7f}\"@example.com",
        "ann\u{85}@example.com",
        "ann\u{fffd}\u{0}@example.com",
    ] {
        has_faults(&register(&app, &json!({ "email": email, "password": PASSWORD })), &["email"]);
    }
    let long = format!("{}@example.com", "a".repeat(250));
    has_faults(&register(&app, &json!({ "email": long, "password": PASSWORD })), &["email"]);
}

#[test]
fn passwords_have_bounds() {
    let app = TestApp::start();
    let mut number = 0;
    let mut with = |password: &str| {
        number += 1;
        register(&app, &json!({ "email": format!("user{number}@example.com"), "password": password }))
    };
    has_faults(&with(&"x".repeat(7)), &["password"]);
    assert_eq!(with(&"x".repeat(8)).status, 200);
    assert_eq!(with(&"x".repeat(128)).status, 200);
    has_faults(&with(&"x".repeat(129)), &["password"]);
    // Counted in characters, whatever bytes they take.
    has_faults(&with(&"é".repeat(7)), &["password"]);
    assert_eq!(with(&"💩".repeat(128)).status, 200);
    assert_eq!(with("        ").status, 200, "spaces are characters (NIST SP 800-63B-4)");
    assert_eq!(with("nul\u{0}inside").status, 200);
}

/// Nothing is cut off, at a NUL or anywhere else.
#[test]
fn every_character_of_a_password_counts() {
    let app = TestApp::start();
    let long = format!("{}a", "x".repeat(127));
    register(&app, &json!({ "email": "ann@example.com", "password": long }));
    register(&app, &json!({ "email": "bob@example.com", "password": "before\u{0}after" }));
    assert_eq!(sign_in(&app, "ann@example.com", &long).status, 200);
    assert_eq!(sign_in(&app, "ann@example.com", &format!("{}b", "x".repeat(127))).status, 401);
    assert_eq!(sign_in(&app, "ann@example.com", &long[..72]).status, 401);
    assert_eq!(sign_in(&app, "bob@example.com", "before\u{0}after").status, 200);
    assert_eq!(sign_in(&app, "bob@example.com", "before\u{0}afteR").status, 401);
    assert_eq!(sign_in(&app, "bob@example.com", "before").status, 401);
    assert_eq!(sign_in(&app, "bob@example.com", " before\u{0}after").status, 401);
}

#[test]
fn the_confirmation_may_be_missing_but_not_different() {
    let app = TestApp::start();
    let with = |email: &str, again: Value| {
        register(&app, &json!({ "email": email, "password": PASSWORD, "password_confirmation": again }))
    };
    assert_eq!(with("a@example.com", Value::Null).status, 200);
    assert_eq!(with("b@example.com", json!(PASSWORD)).status, 200);
    has_faults(&with("c@example.com", json!("")), &["password_confirmation"]);
    has_faults(&with("c@example.com", json!("different one")), &["password_confirmation"]);
    has_faults(&with("c@example.com", json!(5)), &["password_confirmation"]);
}

#[test]
fn unknown_fields_are_dropped() {
    let app = TestApp::start();
    let body = json!({
        "email": "ann@example.com", "password": PASSWORD, "id": 99, "uid": "hax", "provider": "github", "admin": true,
        "realm": "admin", "tokens": {}, "allow_password_change": true, "created_at": "1999-01-01",
        "encrypted_password": "x",
    });
    let answer = register(&app, &body);
    let data = &answer.json()["data"];
    is_user(data, "ann@example.com");
    assert_eq!(data["id"], 1);
    assert_eq!(keys_of(data).len(), USER.len() + 2);
}

#[test]
fn every_spelling_of_a_route() {
    let app = TestApp::start();
    let credentials = json!({ "email": "ann@example.com", "password": PASSWORD });
    app.register("ann@example.com");
    for path in [
        "/auth/sign_in",
        "//auth/sign_in",
        "/auth//sign_in",
        "//auth//sign_in",
        "/auth/sign_in/",
        "/auth/sign_in.json",
        "/auth/sign_in//",
        "//auth/sign_in.json",
        "/auth/sign_in?app_id=1",
        "/auth/sign_in.json?x=/y.json",
    ] {
        assert_eq!(app.post(path, &credentials).send().status, 200, "{path}");
    }
    for path in [
        "/auth",
        "//auth",
        "/auth/",
        "//auth/",
        "/auth//",
        "/auth.json",
        "//auth.json",
        "/auth/?app_id=1",
        "/auth.json?x=1",
    ] {
        has_no_fields(&app.post(path, &json!({})).send());
    }
    let held = app.settled("bob@example.com");
    for path in
        ["/auth/validate_token/?app_id=1", "//auth/validate_token.json", "/auth/sessions/", "/auth//sessions.json"]
    {
        assert_eq!(app.get_as(&held, path).send().status, 200, "{path}");
    }
    for path in [
        "/AUTH/sign_in",
        "/auth/SIGN_IN",
        "/Auth",
        "/auth/sign_in.xml",
        "/auth/sign_in.json.json",
        "/auth/sign_in/x",
        "/auth/x",
        "/authsign_in",
        "/auth.xml",
        "/auth/..",
        "/auth/%73ign_in",
        "/auth/sign_in%2F",
        "/auth.json/sign_in",
        "/auth/auth",
        "/auth/auth/sign_in",
    ] {
        assert_eq!(app.post(path, &credentials).send().status, 404, "{path}");
    }
    let answer = app.get("/auth/nothing?x=1").send();
    assert_eq!(answer.refusal(), (404, "not_found".into()));
    assert_eq!(answer.header("content-type"), JSON);
    assert!(answer.json()["errors"][0].as_str().expect("a message").contains("/auth/nothing"), "as it was asked for");
}

/// A base address that ends in a slash doubles the one before the last segment.
#[test]
fn spellings_of_a_longer_mount() {
    let app = TestApp::layered(HttpSettings::default(), |app, auth| {
        app.layer(auth.layer()).merge(auth_routes("/api/v1/auth", auth))
    });
    for path in
        ["/api/v1/auth", "/api/v1//auth", "/api//v1/auth", "//api/v1/auth", "/api/v1//auth/", "/api/v1//auth.json"]
    {
        has_no_fields(&app.post(path, &json!({})).send());
    }
    for path in ["/api/v1//auth/sign_in", "/api/v1/auth//sign_in.json"] {
        assert_eq!(app.post(path, &json!({})).send().status, 401, "{path}");
    }
    assert_eq!(app.post("/auth/sign_in", &json!({})).send().status, 404);
}

#[test]
fn other_methods_are_405_with_allow() {
    let app = TestApp::start();
    let held = app.settled("ann@example.com");
    for (path, wrong, allowed) in [
        ("/auth/sign_in", Method::GET, "POST"),
        ("/auth/sign_in", Method::DELETE, "POST"),
        ("/auth/sign_out", Method::GET, "DELETE"),
        ("/auth/sign_out", Method::POST, "DELETE"),
        ("/auth/validate_token", Method::POST, "GET,HEAD"),
        ("/auth/sessions", Method::DELETE, "GET,HEAD"),
        ("/auth/sessions/x", Method::GET, "DELETE"),
        ("/auth", Method::GET, "POST,PUT,PATCH,DELETE"),
        ("/auth/", Method::GET, "POST,PUT,PATCH,DELETE"),
        ("/auth.json", Method::HEAD, "POST,PUT,PATCH,DELETE"),
    ] {
        let answer = app.request(wrong.clone(), path).held(&held).send();
        assert_eq!(answer.status, 405, "{wrong} {path}");
        assert_eq!(answer.header("allow"), Some(allowed), "{wrong} {path}");
        if wrong != Method::HEAD {
            assert_eq!(answer.code(), "method_not_allowed");
        }
    }
}

#[test]
fn a_sign_in_while_holding_a_session_makes_another() {
    let app = TestApp::start();
    let held = app.settled("ann@example.com");
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let answer = app.post("/auth/sign_in", &body).held(&held).send();
    let other = answer.held().expect("a token");
    assert_ne!(other.client, held.client);
    for session in [&held, &other] {
        assert_eq!(app.get_as(session, "/me").send().status, 200);
    }
    let wrong = json!({ "email": "ann@example.com", "password": "wrong one" });
    let answer = app.post("/auth/sign_in", &wrong).held(&held).send();
    assert!(answer.status == 401 && answer.has_no_auth_headers(), "{answer:?}");
    assert_eq!(app.get_as(&held, "/me").send().status, 200);
}

#[test]
fn a_sign_out_ends_the_session_once() {
    let app = TestApp::start();
    let first = app.register("ann@example.com");
    let held = app.get_as(&first, "/me").send().held().expect("a token");
    // With the token before the newest, while the window is open.
    let answer = app.delete("/auth/sign_out").held(&first).send();
    assert_eq!((answer.status, answer.json()), (200, json!({ "success": true })));
    assert!(answer.has_no_auth_headers(), "{answer:?}");
    for call in [app.delete("/auth/sign_out").held(&held), app.delete("/auth/sign_out")] {
        let answer = call.send();
        assert_eq!(answer.refusal(), (404, "not_found".into()));
        assert_eq!(keys_of(&answer.json()), ["code", "errors", "success"]);
        assert!(answer.has_no_auth_headers());
    }
    assert_eq!(app.get_as(&held, "/me").send().refusal(), (401, "session_revoked".into()));
}

#[test]
fn deleting_the_account_ends_all_its_sessions() {
    let app = TestApp::start();
    let first = app.register("ann@example.com");
    let second = app.sign_in("ann@example.com");
    let other = app.register("bob@example.com");
    let answer = app.delete("/auth").held(&first).send();
    assert_eq!(answer.status, 200);
    assert_eq!(keys_of(&answer.json()), ["message", "status"]);
    assert_eq!(answer.json()["status"], "success");
    assert!(answer.has_no_auth_headers());
    for held in [&first, &second] {
        assert_eq!(app.get_as(held, "/me").send().refusal(), (401, "session_revoked".into()));
    }
    for call in [app.delete("/auth").held(&first), app.delete("/auth")] {
        let answer = call.send();
        assert_eq!(answer.refusal(), (404, "not_found".into()));
        assert_eq!(keys_of(&answer.json()), ["code", "errors", "status", "success"]);
    }
    assert_eq!(sign_in(&app, "ann@example.com", PASSWORD).status, 401);
    assert_eq!(app.get_as(&other, "/me").send().status, 200);
    // The address is free again, and its new owner has nothing of the old one.
    let again = app.register("ann@example.com");
    assert_eq!(app.get_as(&Held { client: second.client, ..again }, "/me").send().status, 401);
}

#[test]
fn the_list_of_devices() {
    let app = TestApp::start();
    let minute = Duration::from_secs(60);
    let sign_in = |agent: &str| {
        let body = json!({ "email": "ann@example.com", "password": PASSWORD });
        app.post("/auth/sign_in", &body).header("user-agent", agent).send().held().expect("a token")
    };
    let expiring = app.register("ann@example.com");
    app.advance(14 * 24 * 60 * minute - 3 * minute);
    let phone = sign_in("Phone/1.0 (é)");
    app.advance(minute);
    let laptop = sign_in(&"x".repeat(2000));
    app.advance(minute);
    let phone = app.get_as(&phone, "/me").send().held().expect("a token");
    app.advance(minute);
    app.register("bob@example.com");

    let answer = app.get_as(&laptop, "/auth/sessions").send();
    assert_eq!((answer.status, answer.header("content-type")), (200, JSON));
    assert!(answer.held().is_some(), "it rotates like any other request");
    let body = answer.json();
    assert_eq!(keys_of(&body), ["data", "success"]);
    let list = body["data"].as_array().expect("a list");
    let ids: Vec<_> = list.iter().map(|entry| entry["id"].as_str().expect("an id")).collect();
    assert_eq!(ids, [&phone.client, &laptop.client], "newest use first; without the expired one and other people's");
    assert!(!ids.contains(&expiring.client.as_str()));
    assert_eq!(list.iter().map(|entry| entry["current"] == true).collect::<Vec<_>>(), [false, true]);
    let entry = &list[0];
    let names = ["created_at", "current", "expires_at", "id", "ip", "last_seen_at", "user_agent"];
    assert_eq!(keys_of(entry), names);
    assert_eq!((&entry["ip"], &entry["user_agent"]), (&json!("127.0.0.1"), &json!("Phone/1.0 (é)")));
    assert_eq!(list[1]["user_agent"].as_str().expect("text").len(), 512);
    let time = |minutes: i64| {
        let at = START.as_millis() + (14 * 24 * 60 - 3 + minutes) * 60_000;
        json!(format!("{:.3}", jiff::Timestamp::from_millisecond(at).expect("a time")))
    };
    assert_eq!((&entry["created_at"], &entry["last_seen_at"]), (&time(0), &time(2)));
    assert_eq!(entry["expires_at"], time(2 + 14 * 24 * 60));
    assert!(!answer.text.contains(&phone.token));
    assert_eq!(app.get("/auth/sessions").send().status, 401);
}

#[test]
fn sessions_end_one_by_one() {
    let app = TestApp::start();
    let mine = app.settled("ann@example.com");
    let other = app.sign_in("ann@example.com");
    let foreign = app.register("bob@example.com");
    let end = |id: &str| app.delete(&format!("/auth/sessions/{id}")).held(&mine).send();

    for id in [&foreign.client, "AAAAAAAAAAAAAAAAAAAAAA", "x", "%00", "%FF", "%2F", "..%2F", &"a".repeat(2000), "é%C3"]
    {
        let answer = end(&id.replace('é', "%C3%A9"));
        assert_eq!(answer.refusal(), (404, "not_found".into()), "{id}");
        assert_eq!(answer.header("content-type"), JSON);
        assert!(answer.is_blank(), "a request like any other: {answer:?}");
    }
    assert_eq!(app.get_as(&foreign, "/me").send().status, 200);

    let answer = end(&other.client);
    assert_eq!((answer.status, answer.json()), (200, json!({ "success": true })));
    assert!(answer.is_blank());
    assert_eq!(app.get_as(&other, "/me").send().refusal(), (401, "session_revoked".into()));
    assert_eq!(end(&other.client).status, 404);

    assert_eq!(app.delete(&format!("/auth/sessions/{}", mine.client)).send().status, 401);
    let answer = end(&format!("{}.json", mine.client));
    assert!(answer.status == 200 && answer.has_no_auth_headers(), "{answer:?}");
    assert_eq!(app.get_as(&mine, "/me").send().refusal(), (401, "session_revoked".into()));
}

#[test]
fn the_least_recently_used_device_goes() {
    let settings = Settings { max_number_of_devices: 3, ..Settings::default() };
    let app = TestApp::with(settings, HttpSettings::default());
    let tick = || app.advance(Duration::from_secs(6));
    let mut first = app.register("ann@example.com");
    tick();
    let second = app.sign_in("ann@example.com");
    tick();
    let third = app.sign_in("ann@example.com");
    tick();
    assert!(first.adopt(&app.get_as(&first, "/me").send()));
    tick();
    let fourth = app.sign_in("ann@example.com");
    for (held, status) in [(&first, 200), (&second, 401), (&third, 200), (&fourth, 200)] {
        assert_eq!(app.get_as(held, "/me").send().status, status);
    }
}

#[test]
fn with_one_device_the_newest_sign_in_stays() {
    let settings = Settings { max_number_of_devices: 1, ..Settings::default() };
    let app = TestApp::with(settings, HttpSettings::default());
    let mut held = app.register("ann@example.com");
    // Also within one and the same millisecond.
    for _ in 0..5 {
        let next = app.sign_in("ann@example.com");
        assert_eq!(app.get_as(&held, "/me").send().refusal(), (401, "session_revoked".into()));
        assert_eq!(app.get_as(&next, "/me").send().status, 200);
        held = next;
    }
}

/// The one thing that takes time is done equally often, whoever is asked for.
#[test]
fn known_and_unknown_addresses_cost_the_same_hashes() {
    let app = TestApp::start();
    app.register("ann@example.com");
    let computed = || app.auth.engine().hashing_load().computed;
    let cost = |email: &str, password: &str, status: u16| {
        let before = computed();
        let answer = sign_in(&app, email, password);
        assert_eq!(answer.status, status);
        (computed() - before, answer.text)
    };
    let (known, known_text) = cost("ann@example.com", "wrong one", 401);
    let (unknown, unknown_text) = cost("nobody@example.com", "wrong one", 401);
    assert_eq!((known, unknown), (1, 1));
    assert_eq!(known_text, unknown_text);
    assert_eq!(cost("ann@example.com", PASSWORD, 200).0, 1);
    assert_eq!(cost("not an address", "", 401).0, 1);
}

#[test]
fn too_many_password_checks_at_once_are_503() {
    let hashing = Hashing { concurrent: 1, waiting: 0, ..Hashing::default() };
    let app = TestApp::with(Settings { hashing, ..Settings::default() }, HttpSettings::default());
    let held = app.settled("ann@example.com");
    let barrier = std::sync::Barrier::new(8);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    sign_in(&app, "ann@example.com", PASSWORD)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert!(answers.iter().any(|answer| answer.status == 200));
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(answer.refusal(), (503, "unavailable".into()));
        assert!(answer.header("retry-after").is_some());
    }
    // Tokens are checked all the while.
    assert_eq!(app.get_as(&held, "/me").send().status, 200);
    assert_eq!(held.derived(&keys(), 2), held);
}
