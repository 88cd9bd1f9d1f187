//! Locks after sign-ins that failed, and the ways out of them.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use baton_core::event::EventKind;
use baton_core::letter::Occasion;
use baton_engine::{Lockout, Settings};
use baton_store::faulty::{Fault, Operation};
use http::Method;
use serde_json::json;

use crate::letterbox::{
    ANN, APP, DAY, HOUR, Mailed, NEW, assert_page, confirming, everything, held, landing, locking, redirect,
};
use crate::support::{Answer, Held, PASSWORD, agent};

const UNLOCK: &str = "/auth/unlock";
const NOBODY: &str = "nobody@example.com";

/// Locks are told.
fn telling() -> Settings {
    Settings { paranoid: false, ..locking() }
}

fn with(lockout: Lockout) -> Mailed {
    Mailed::with(Settings { lockout: Some(lockout), ..telling() })
}

fn tries(app: &Mailed, email: &str, password: &str, from: &str) -> Answer {
    let body = json!({ "email": email, "password": password });
    app.post_to("/auth/sign_in", &body).header("x-from", from).send()
}

/// From an address where no account is in use.
fn signs_in(app: &Mailed, email: &str, password: &str) -> Answer {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    tries(app, email, password, &format!("10.9.{high}.{low}"))
}

/// An account that is in use, somewhere else.
fn register(app: &Mailed, email: &str) -> Held {
    let body = json!({ "email": email, "password": PASSWORD });
    let answer = app.post_to("/auth", &body).header("x-from", "203.0.113.1").send();
    answer.held().expect("a registration signs in")
}

/// As often as it takes.
fn lock(app: &Mailed, email: &str) {
    for _ in 0..3 {
        assert_eq!(signs_in(app, email, "not it at all").code(), "bad_credentials");
    }
}

#[test]
fn as_many_guesses_are_evaluated_as_may_fail_however_many_come_at_once() {
    let app = Mailed::with(telling());
    register(&app, ANN);
    for (email, guesses) in [(ANN, 64), (NOBODY, 16)] {
        let (start, before) = (Barrier::new(guesses), app.hashed());
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..guesses)
                .map(|number| {
                    let (app, start) = (&app, &start);
                    scope.spawn(move || {
                        let body = json!({ "email": email, "password": format!("guess number {number}") });
                        let (call, agent) = (app.post_to("/auth/sign_in", &body), agent());
                        start.wait();
                        call.send_on(&agent)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
        });
        let mut codes: BTreeMap<(u16, String), usize> = BTreeMap::new();
        for answer in &answers {
            *codes.entry(answer.refusal()).or_default() += 1;
        }
        let expected = [((401, "bad_credentials".into()), 3), ((401, "locked".into()), guesses - 3)];
        assert_eq!(codes, BTreeMap::from(expected), "{email}");
        assert_eq!(app.hashed() - before, guesses as u64, "a refused one takes as long as one that is evaluated");
        assert_eq!(signs_in(&app, email, PASSWORD).refusal(), (401, "locked".into()));
    }
    assert_eq!(app.post(), [(Occasion::UnlockAccount, ANN.into())], "one letter, and none to nobody");
    assert_eq!(app.kinds().iter().filter(|kind| **kind == EventKind::Locked).count(), 2);
}

#[test]
fn a_lock_reads_as_a_wrong_password_unless_it_is_to_be_told() {
    let app = Mailed::with(locking());
    register(&app, ANN);
    lock(&app, ANN);
    let (right, wrong) = (signs_in(&app, ANN, PASSWORD), signs_in(&app, ANN, "not it at all"));
    assert_eq!((right.refusal(), &right.text), ((401, "bad_credentials".into()), &wrong.text));
}

#[test]
fn a_lock_ends_in_time_and_attempts_do_not_make_it_longer() {
    let app = Mailed::with(telling());
    let session = register(&app, ANN);
    lock(&app, ANN);
    app.advance(HOUR - Duration::from_millis(1));
    for password in ["not it at all", PASSWORD] {
        assert_eq!(signs_in(&app, ANN, password).code(), "locked");
    }
    let call = app.get_as(&session, "/me").header("x-from", "203.0.113.1");
    assert_eq!(call.send().status, 200, "sessions go on");
    app.advance(Duration::from_millis(1));
    assert_eq!(signs_in(&app, ANN, PASSWORD).status, 200);
    // The count has begun anew.
    for _ in 0..2 {
        assert_eq!(signs_in(&app, ANN, "not it at all").code(), "bad_credentials");
    }
    assert_eq!(signs_in(&app, ANN, PASSWORD).status, 200);
}

#[test]
fn what_is_counted_are_failures_in_a_row() {
    let app = Mailed::with(telling());
    register(&app, ANN);
    for _ in 0..2 {
        for email in ["ann@example.com", " ANN@example.com"] {
            assert_eq!(signs_in(&app, email, "not it at all").code(), "bad_credentials");
        }
        assert_eq!(signs_in(&app, "Ann@Example.com ", PASSWORD).status, 200);
    }
    for pause in [0, 0, 1, 1] {
        app.advance(pause * DAY);
        assert_eq!(signs_in(&app, ANN, "not it at all").code(), "bad_credentials", "forgotten after a day");
    }
    assert_eq!(app.post(), []);
}

#[test]
fn a_lock_may_last_until_somebody_lifts_it() {
    let app = with(Lockout { max_attempts: 1, unlock_after: Duration::MAX, ..Lockout::default() });
    register(&app, ANN);
    assert_eq!(signs_in(&app, ANN, "not it at all").code(), "bad_credentials");
    let link = app.link(Occasion::UnlockAccount);
    app.advance(2 * DAY);
    assert_page(&app.follow(&link), 404);
    app.advance(10_000 * DAY);
    assert_eq!(signs_in(&app, ANN, PASSWORD).code(), "locked");
    landing(&app.follow(&app.asked(UNLOCK, ANN)));
    assert_eq!(signs_in(&app, ANN, PASSWORD).status, 200);
}

#[test]
fn the_letter_signs_in_and_lifts_the_lock() {
    let app = Mailed::with(telling());
    register(&app, ANN);
    lock(&app, ANN);
    // It goes out by itself; nobody asked, so it leads to a page.
    let own = app.link(Occasion::UnlockAccount);
    assert_eq!(own.params.keys().map(String::as_str).collect::<Vec<_>>(), ["config", "unlock_token"]);

    let request = json!({ "email": "ANN@example.com", "redirect_url": APP, "config_name": "staff" });
    let answer = app.post_to(UNLOCK, &request).send();
    assert_eq!((answer.status, &answer.json()["success"]), (200, &json!(true)), "{answer:?}");
    let link = app.link(Occasion::UnlockAccount);
    assert_eq!(link.at, UNLOCK);
    assert_eq!(app.request(Method::HEAD, &link.path()).send().status, 200);
    assert_eq!(signs_in(&app, ANN, PASSWORD).code(), "locked");
    let refused = app.follow(&link.set("redirect_url", "https://evil.example/"));
    assert_eq!(refused.refusal(), (422, "redirect_refused".into()), "{refused:?}");

    let (to, params) = landing(&app.follow(&link));
    assert_eq!(to, APP);
    let expected = ["access-token", "client", "client_id", "config", "expiry", "token", "uid", "unlock"];
    assert_eq!(params.keys().map(String::as_str).collect::<Vec<_>>(), expected);
    assert_eq!((&*params["unlock"], &*params["config"], &*params["uid"]), ("true", "staff", ANN));
    let session = held(&params);
    let answer = app.get_as(&session, "/auth/validate_token").send();
    assert_eq!(answer.json()["data"]["allow_password_change"], false, "{answer:?}");
    assert_eq!(signs_in(&app, ANN, PASSWORD).status, 200);
    assert_page(&app.follow(&link), 404);
    assert_page(&app.follow(&own), 404);
    assert_page(&app.get(UNLOCK).send(), 404);
}

#[test]
fn without_a_target_a_page_says_that_the_lock_is_lifted() {
    let app = Mailed::with(telling());
    register(&app, ANN);
    lock(&app, ANN);
    let link = app.link(Occasion::UnlockAccount);
    assert_page(&app.follow(&link), 200);
    assert_eq!(signs_in(&app, ANN, PASSWORD).status, 200);
    let mut settings = telling();
    settings.redirects.default_unlock_success_url = redirect("https://default.example.org/in");
    let app = Mailed::with(settings);
    register(&app, ANN);
    lock(&app, ANN);
    let (to, params) = landing(&app.follow(&app.link(Occasion::UnlockAccount)));
    assert_eq!(to, "https://default.example.org/in");
    assert!(app.works(&held(&params)));
}

#[test]
fn who_reads_the_letter_has_confirmed_the_address() {
    let app = Mailed::with(everything());
    app.enrol(ANN);
    app.letters();
    lock(&app, ANN);
    let link = app.link(Occasion::UnlockAccount);
    assert_page(&app.follow(&link), 200);
    assert_eq!(signs_in(&app, ANN, PASSWORD).status, 200);
}

#[test]
fn an_unconfirmed_sign_in_with_the_right_password_is_no_guess() {
    let app = Mailed::with(everything());
    app.enrol(ANN);
    for _ in 0..8 {
        assert_eq!(signs_in(&app, ANN, PASSWORD).code(), "unconfirmed");
    }
    assert_eq!(app.post(), [(Occasion::ConfirmEmail, ANN.into())]);
}

#[test]
fn resetting_the_password_lifts_the_lock() {
    for require_client_token in [false, true] {
        let mut settings = telling();
        settings.reset.require_client_token = require_client_token;
        let app = Mailed::with(settings);
        register(&app, ANN);
        lock(&app, ANN);
        let link = app.asked("/auth/password", ANN);
        landing(&app.follow(&link));
        let mut password = PASSWORD;
        if require_client_token {
            assert_eq!(signs_in(&app, ANN, PASSWORD).code(), "locked", "the token was only handed on");
            let token = link.token().1;
            let body = json!({ "password": NEW, "password_confirmation": NEW, "reset_password_token": token });
            assert_eq!(app.put("/auth/password", &body).send().status, 200);
            password = NEW;
        }
        assert_eq!(signs_in(&app, ANN, password).status, 200);
    }
}

#[test]
fn nobody_is_locked_out_where_the_account_is_in_use() {
    const HOME: &str = "192.0.2.1";
    let app = Mailed::with(telling());
    register(&app, "bob@example.com");
    let body = json!({ "email": ANN, "password": PASSWORD });
    let answer = app.post_to("/auth", &body).header("x-from", HOME).send();
    let session = answer.held().expect("a registration signs in");
    for number in 1..=3 {
        let from = format!("198.51.100.{number}");
        assert_eq!(tries(&app, ANN, "not it at all", &from).code(), "bad_credentials");
    }
    assert_eq!(tries(&app, ANN, PASSWORD, "198.51.100.1").code(), "locked");
    assert_eq!(tries(&app, ANN, "not it at all", HOME).code(), "bad_credentials");
    assert_eq!(tries(&app, "bob@example.com", PASSWORD, HOME).status, 200);
    let answer = tries(&app, ANN, PASSWORD, HOME);
    assert_eq!(answer.status, 200, "{answer:?}");

    // It has to be a live session, and where it was seen last.
    let again = answer.held().expect("a token");
    for held in [&session, &again] {
        let call = app.get_as(held, "/me").header("x-from", "203.0.113.9");
        assert_eq!(call.send().status, 200);
    }
    for _ in 0..3 {
        tries(&app, ANN, "not it at all", "198.51.100.1");
    }
    assert_eq!(tries(&app, ANN, PASSWORD, HOME).code(), "locked");
    assert_eq!(tries(&app, ANN, PASSWORD, "203.0.113.9").status, 200);
    for _ in 0..3 {
        tries(&app, ANN, "not it at all", "198.51.100.1");
    }
    let held = tries(&app, ANN, PASSWORD, "203.0.113.9").held().expect("it signs in");
    for _ in 0..3 {
        tries(&app, ANN, "not it at all", "198.51.100.1");
    }
    let list = app.get_as(&held, "/auth/sessions").header("x-from", "203.0.113.9").send().json();
    let mut entries = list["data"].as_array().expect("a list").clone();
    // Its own last.
    entries.sort_by_key(|entry| entry["current"] == true);
    for entry in entries {
        let path = format!("/auth/sessions/{}", entry["id"].as_str().expect("an id"));
        let answer = app.delete(&path).held(&held).header("x-from", "203.0.113.9").send();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(tries(&app, ANN, PASSWORD, "203.0.113.9").code(), "locked", "no session is left");
}

#[test]
fn a_session_that_has_expired_is_known_nowhere() {
    const HOME: &str = "192.0.2.1";
    let app = with(Lockout { max_attempts: 3, unlock_after: Duration::MAX, ..Lockout::default() });
    register(&app, ANN);
    assert_eq!(tries(&app, ANN, PASSWORD, HOME).status, 200);
    lock(&app, ANN);
    let before_its_end = app.auth.engine().settings().rules.token_lifespan - Duration::from_millis(1);
    app.advance(before_its_end);
    assert_eq!(tries(&app, ANN, "not it at all", HOME).code(), "bad_credentials");
    app.advance(Duration::from_millis(1));
    for password in ["not it at all", PASSWORD] {
        assert_eq!(tries(&app, ANN, password, HOME).code(), "locked");
    }
}

#[test]
fn a_lock_without_letters_just_waits() {
    let app = with(Lockout { max_attempts: 3, by_mail: false, ..Lockout::default() });
    register(&app, ANN);
    lock(&app, ANN);
    assert_eq!(app.post(), []);
    assert_eq!(app.ask(UNLOCK, ANN).status, 404);
    assert_eq!(app.get(UNLOCK).send().status, 404);
    app.advance(HOUR);
    assert_eq!(signs_in(&app, ANN, PASSWORD).status, 200);
}

#[test]
fn without_a_lockout_nothing_is_locked() {
    let app = Mailed::with(confirming());
    for _ in 0..25 {
        assert_eq!(signs_in(&app, NOBODY, "x").code(), "bad_credentials");
    }
    assert_eq!(app.ask(UNLOCK, NOBODY).status, 404);
    assert_eq!(app.kinds(), [EventKind::SignInFailed; 25]);
}

#[test]
fn a_store_that_fails_is_no_wrong_password() {
    let app = Mailed::with(telling());
    register(&app, ANN);
    let fails = |operation| app.store.fail_next(operation, Fault::Unavailable);
    for operation in [Operation::CountAttempt, Operation::FindLogin, Operation::CreateSession] {
        fails(operation);
        assert_eq!(signs_in(&app, ANN, PASSWORD).refusal(), (503, "unavailable".into()), "{operation:?}");
        assert_eq!(signs_in(&app, ANN, PASSWORD).status, 200, "{operation:?}");
    }
    // What is noted on the way is not worth failing for.
    fails(Operation::ForgetAttempts);
    assert_eq!(signs_in(&app, ANN, PASSWORD).status, 200);
    fails(Operation::Record);
    assert_eq!(tries(&app, ANN, "not it at all", "198.51.100.1").code(), "bad_credentials");

    lock(&app, "bob@example.com");
    fails(Operation::Sessions);
    assert_eq!(signs_in(&app, "bob@example.com", PASSWORD).refusal(), (503, "unavailable".into()));
}
