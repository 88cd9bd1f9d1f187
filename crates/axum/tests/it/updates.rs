//! `PUT` and `PATCH /auth`: the account's profile, e-mail address and password.

use std::time::Duration;

use baton_axum::HttpSettings;
use baton_engine::{CurrentPassword, Settings};
use baton_store::faulty::Operation;
use http::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Held, PASSWORD, TestApp};

const NEW: &str = "another horse, another battery";

fn put(app: &TestApp, held: &Held, change: &Value) -> Answer {
    app.request(Method::PUT, "/auth").held(held).json(change).send()
}

fn with(check: CurrentPassword) -> TestApp {
    let settings = Settings { check_current_password_before_update: check, ..Settings::default() };
    TestApp::with(settings, HttpSettings::default())
}

fn signs_in(app: &TestApp, email: &str, password: &str) -> bool {
    app.post("/auth/sign_in", &json!({ "email": email, "password": password })).send().status == 200
}

fn works(app: &TestApp, held: &Held) -> bool {
    app.get_as(held, "/me").send().status == 200
}

fn faults(answer: &Answer, field: &str) -> usize {
    assert_eq!(answer.status, 422, "{answer:?}");
    let body = answer.json();
    assert_eq!((&body["status"], body.get("data")), (&json!("error"), None), "{answer:?}");
    body["errors"][field].as_array().map_or(0, Vec::len)
}

#[test]
fn a_profile_is_changed_field_by_field() {
    let app = TestApp::start();
    let held = app.register("ann@example.com");
    let answer = put(&app, &held, &json!({ "name": "Ann", "nickname": "an", "id": 7, "admin": true }));
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("success")), "{answer:?}");
    let next = answer.held().expect("a request like any other: it rotates");

    let answer = app.request(Method::PATCH, "/auth").held(&next).json(&json!({ "nickname": null })).send();
    let data = answer.json()["data"].clone();
    assert_eq!((&data["name"], &data["nickname"]), (&json!("Ann"), &Value::Null), "{answer:?}");
    assert!(data["id"] != 7 && data.get("admin").is_none() && data["updated_at"].is_string(), "{answer:?}");
    let seen = app.get_as(&next, "/auth/validate_token").send().json();
    assert_eq!(seen["data"]["name"], "Ann");
}

#[test]
fn a_change_takes_a_signed_in_user_and_a_field() {
    let app = TestApp::start();
    let answer = app.request(Method::PUT, "/auth").json(&json!({ "name": "x" })).send();
    assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{answer:?}");
    let held = app.register("ann@example.com");
    for nothing in [json!({}), json!({ "admin": true }), json!({ "current_password": PASSWORD }), json!([1])] {
        let answer = put(&app, &held, &nothing);
        assert_eq!((answer.status, &answer.json()["status"]), (422, &json!("error")), "{nothing}: {answer:?}");
    }
}

#[test]
fn a_new_password_takes_the_old_one_and_ends_the_other_sessions() {
    let app = TestApp::start();
    let other = app.register("ann@example.com");
    let held = app.sign_in("ann@example.com");
    let change =
        |current: Option<&str>| json!({ "password": NEW, "password_confirmation": NEW, "current_password": current });

    for (current, why) in [(None, "missing"), (Some(""), "blank"), (Some("not it"), "wrong")] {
        let answer = put(&app, &held, &change(current));
        assert_eq!(faults(&answer, "current_password"), 1, "{why}: {answer:?}");
        assert!(answer.held().is_some() || answer.is_blank(), "{why}: auth headers as on any response: {answer:?}");
    }
    assert!(works(&app, &other) && !signs_in(&app, "ann@example.com", NEW), "nothing has changed");

    let answer = put(&app, &held, &change(Some(PASSWORD)));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(works(&app, &held), "the session that made the change goes on");
    assert_eq!(app.get_as(&other, "/me").send().code(), "session_revoked");
    assert!(signs_in(&app, "ann@example.com", NEW) && !signs_in(&app, "ann@example.com", PASSWORD));
}

#[test]
fn a_new_password_has_to_be_a_good_one() {
    let app = TestApp::start();
    let held = app.register("ann@example.com");
    let answer = put(&app, &held, &json!({ "password": "short", "current_password": PASSWORD }));
    assert_ne!(faults(&answer, "password"), 0);
    let answer =
        put(&app, &held, &json!({ "password": NEW, "password_confirmation": "other", "current_password": PASSWORD }));
    assert_eq!(faults(&answer, "password_confirmation"), 1);
    assert!(signs_in(&app, "ann@example.com", PASSWORD));
}

#[test]
fn when_the_current_password_is_asked_for_can_be_chosen() {
    let app = with(CurrentPassword::Never);
    let held = app.register("ann@example.com");
    assert_eq!(put(&app, &held, &json!({ "password": NEW })).status, 200);
    // One that is given is checked all the same.
    assert_eq!(faults(&put(&app, &held, &json!({ "name": "x", "current_password": PASSWORD })), "current_password"), 1);

    let app = with(CurrentPassword::Attributes);
    let held = app.register("ann@example.com");
    assert_eq!(faults(&put(&app, &held, &json!({ "name": "x" })), "current_password"), 1);
    assert_eq!(put(&app, &held, &json!({ "name": "x", "current_password": PASSWORD })).status, 200);
}

#[test]
fn other_sessions_may_be_left_alone() {
    let settings = Settings { remove_tokens_after_password_reset: false, ..Settings::default() };
    let app = TestApp::with(settings, HttpSettings::default());
    let other = app.register("ann@example.com");
    let held = app.sign_in("ann@example.com");
    assert_eq!(put(&app, &held, &json!({ "password": NEW, "current_password": PASSWORD })).status, 200);
    assert!(works(&app, &other));
}

#[test]
fn a_new_address_is_the_uid_at_once() {
    let app = TestApp::start();
    app.register("bob@example.com");
    let held = app.register("ann@example.com");
    assert_eq!(faults(&put(&app, &held, &json!({ "email": " BOB@example.com" })), "email"), 1);
    assert_eq!(faults(&put(&app, &held, &json!({ "email": "no address" })), "email"), 1);

    app.advance(Duration::from_secs(60));
    let held = app.sign_in("ann@example.com");
    let answer = put(&app, &held, &json!({ "email": "Ann@New.example.com" }));
    assert_eq!(answer.json()["data"]["uid"], "ann@new.example.com", "{answer:?}");
    let next = answer.held().expect("it rotates");
    assert_eq!(next.uid, "ann@new.example.com", "this response tells under which uid to come back");
    assert!(works(&app, &next));
    let bearer = app.get("/me").header("authorization", answer.header("authorization").expect("a bearer")).send();
    assert_eq!(bearer.status, 200, "the bearer value holds the new uid too");
    assert_eq!(app.get_as(&Held { uid: held.uid, ..next }, "/me").send().code(), "token_invalid");
    assert!(signs_in(&app, "ann@new.example.com", PASSWORD) && !signs_in(&app, "ann@example.com", PASSWORD));
}

/// The old password was checked a moment before it was changed: no session comes of it.
#[test]
fn a_sign_in_does_not_outlive_a_password_change() {
    let (app, store) = TestApp::faulty(Settings::default(), HttpSettings::default());
    let held = app.register("ann@example.com");
    std::thread::scope(|scope| {
        let mut hold = store.hold_before(Operation::CreateSession);
        let late = scope
            .spawn(|| app.post("/auth/sign_in", &json!({ "email": "ann@example.com", "password": PASSWORD })).send());
        app.block_on(hold.reached());
        assert_eq!(put(&app, &held, &json!({ "password": NEW, "current_password": PASSWORD })).status, 200);
        hold.release();
        let answer = late.join().expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), (401, "bad_credentials"), "{answer:?}");
    });
    assert_eq!(app.get_as(&held, "/auth/sessions").send().json()["data"].as_array().map(Vec::len), Some(1));
}

/// Two changes with the same current password: the second finds that it is not the current one any more.
#[test]
fn one_of_two_password_changes_wins() {
    let (app, store) = TestApp::faulty(Settings::default(), HttpSettings::default());
    let held = app.register("ann@example.com");
    let change = |new: &str| json!({ "password": new, "current_password": PASSWORD });
    std::thread::scope(|scope| {
        let mut hold = store.hold_before(Operation::UpdateAccount);
        let late = scope.spawn(|| put(&app, &held, &change("yet another battery")));
        app.block_on(hold.reached());
        assert_eq!(put(&app, &held, &change(NEW)).status, 200);
        hold.release();
        assert_eq!(faults(&late.join().expect("an answer"), "current_password"), 1);
    });
    assert!(signs_in(&app, "ann@example.com", NEW));
}

/// What a change does not name it does not write, so it takes nothing back that was changed meanwhile.
#[test]
fn a_password_change_leaves_the_profile_alone() {
    let (app, store) = TestApp::faulty(Settings::default(), HttpSettings::default());
    let held = app.register("ann@example.com");
    std::thread::scope(|scope| {
        let mut hold = store.hold_before(Operation::UpdateAccount);
        let late = scope.spawn(|| put(&app, &held, &json!({ "password": NEW, "current_password": PASSWORD })));
        app.block_on(hold.reached());
        assert_eq!(put(&app, &held, &json!({ "name": "Ann" })).status, 200);
        hold.release();
        let answer = late.join().expect("an answer");
        assert_eq!((answer.status, &answer.json()["data"]["name"]), (200, &json!("Ann")), "{answer:?}");
    });
}
