//! To ask about an address that has an account and about one that has none looks the same, from the outside and to the store.

use std::collections::BTreeMap;

use baton_core::event::EventKind;
use baton_core::letter::Occasion;
use baton_engine::{Settings, Webhook};
use baton_store::faulty::Operation;
use serde_json::{Value, json};

use crate::letterbox::{ANN, APP, Mailed, NEW, Parts, confirming, everything, settings};
use crate::support::{Answer, PASSWORD};

/// As long as [`ANN`].
const EVE: &str = "eve@example.com";
const NEW_ACCOUNT: [Operation; 2] = [Operation::FindLogin, Operation::CreateAccount];

/// What the outside sees.
fn seen(answer: &Answer) -> (u16, Vec<(String, Vec<u8>)>, String) {
    let headers = answer.headers.iter().filter(|(name, _)| *name != "date");
    let headers = headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    // The address is what the client has sent.
    (answer.status, headers, answer.text.replace(ANN, "someone").replace(EVE, "someone"))
}

/// The same request for both addresses is answered and carried out in the same way.
#[track_caller]
fn alike(app: &Mailed, path: &str, fields: &Value) -> (Answer, BTreeMap<Operation, u64>) {
    let ask = |email: &str| {
        let mut body = fields.clone();
        body["email"] = email.into();
        app.counting(|| app.post_to(path, &body).send())
    };
    let ((known, known_calls), (unknown, unknown_calls)) = (ask(ANN), ask(EVE));
    assert_eq!(seen(&known), seen(&unknown), "{path} {fields}");
    assert_eq!(known_calls, unknown_calls, "{path} {fields}");
    (known, known_calls)
}

/// In all the states that an account can be in.
#[test]
fn letters_are_asked_for_alike() {
    let mut with_default = everything();
    with_default.webhooks = vec![Webhook { url: "https://hooks.example.com/".into(), events: Vec::new() }];
    let app = Mailed::with(with_default);
    let one_write = BTreeMap::from([(Operation::Record, 1)]);
    let ask_all = |app: &Mailed| {
        for path in ["/auth/password", "/auth/confirmation", "/auth/unlock"] {
            let (answer, calls) = alike(app, path, &json!({ "redirect_url": APP, "config_name": "x" }));
            assert_eq!((answer.status, &calls), (200, &one_write), "{path}");
            let (answer, _) = alike(app, path, &json!({ "redirect_url": "https://evil.example" }));
            assert_eq!(answer.status, 422);
        }
    };
    app.enrol(ANN);
    ask_all(&app);
    let letters = app.letters();
    assert!(letters.iter().all(|letter| letter.mail.to == ANN), "nothing is sent to the other one");
    let confirm = letters.iter().rfind(|letter| letter.occasion == Occasion::ConfirmEmail).expect("a letter");
    let confirm = crate::letterbox::Link::of(confirm);
    app.follow(&confirm);
    ask_all(&app);
    for _ in 0..3 {
        alike(&app, "/auth/sign_in", &json!({ "password": "not it at all" }));
    }
    ask_all(&app);
    for (path, status) in [("/auth/confirmation", 200), ("/auth/unlock", 200), ("/auth/password", 401)] {
        assert_eq!(alike(&app, path, &json!({})).0.status, status);
    }
}

#[test]
fn sign_ins_fail_alike() {
    let app = Mailed::with(everything());
    app.enrol(ANN);
    let wrong = json!({ "password": "not it at all" });
    let open = BTreeMap::from([(Operation::CountAttempt, 1), (Operation::FindLogin, 1), (Operation::Record, 1)]);
    let mut locked = open.clone();
    locked.insert(Operation::Sessions, 1);
    let hashed = app.hashed();
    for calls in [&open, &open, &open, &locked, &locked] {
        let (answer, counted) = alike(&app, "/auth/sign_in", &wrong);
        assert_eq!((answer.refusal(), &counted), ((401, "bad_credentials".into()), calls));
    }
    assert_eq!(app.hashed() - hashed, 10);
    // While it is locked, the right password is as good as any.
    let (answer, counted) = alike(&app, "/auth/sign_in", &json!({ "password": PASSWORD }));
    assert_eq!((answer.refusal(), &counted), ((401, "bad_credentials".into()), &locked));
    let letters: Vec<_> = app.post().into_iter().filter(|(occasion, _)| *occasion == Occasion::UnlockAccount).collect();
    assert_eq!(letters, [(Occasion::UnlockAccount, ANN.into())]);
}

#[test]
fn registrations_are_answered_alike() {
    let app = Mailed::with(confirming());
    app.enrol(ANN);
    let fields = json!({ "password": NEW, "password_confirmation": NEW, "name": "Ann", "confirm_success_url": APP });
    let ask = |email: &str| {
        let mut body = fields.clone();
        body["email"] = email.into();
        let hashed = app.hashed();
        let (answer, calls) = app.counting(|| app.post_to("/auth", &body).send());
        (seen(&answer), app.hashed() - hashed, calls)
    };
    let ((known, known_hashed, known_calls), (unknown, unknown_hashed, unknown_calls)) = (ask(ANN), ask(EVE));
    assert_eq!((known, known_hashed), (unknown, unknown_hashed));
    // One read and one durable write: of a letter, or of an account with its letter.
    assert_eq!(known_calls, BTreeMap::from([(Operation::FindLogin, 1), (Operation::Record, 1)]));
    assert_eq!(unknown_calls, BTreeMap::from(NEW_ACCOUNT.map(|operation| (operation, 1))));
    // What is wrong with the rest is told, and nothing about the address.
    for faulty in [json!({ "password": "short" }), json!({}), json!({ "password": NEW, "password_confirmation": "x" })]
    {
        assert_eq!(alike(&app, "/auth", &faulty).0.status, 422);
    }
}

#[test]
fn a_change_of_address_does_not_tell_which_are_taken() {
    let app = Mailed::with(settings());
    app.register(ANN);
    let held = app.settled("bob@example.com");
    let ask = |email: &str| {
        let change = json!({ "email": email, "confirm_success_url": APP });
        let (answer, calls) = app.counting(|| app.put("/auth", &change).held(&held).send());
        (seen(&answer), calls)
    };
    assert_eq!(ask(ANN), ask(EVE));
}

#[test]
fn what_is_not_to_be_hidden_has_the_gems_statuses() {
    let app = Mailed::with(Settings { paranoid: false, ..everything() });
    app.enrol(ANN);
    for path in ["/auth/password", "/auth/confirmation", "/auth/unlock"] {
        assert_eq!(app.ask(path, ANN).status, 200, "{path}");
        let unknown = app.ask(path, EVE);
        assert_eq!(unknown.refusal(), (404, "not_found".into()), "{path}");
        let said = unknown.json();
        assert!(said["success"] == false && said["errors"].is_array(), "{unknown:?}");
        assert_eq!(app.post_to(path, &json!({ "redirect_url": APP })).send().refusal(), (401, "invalid".into()));
    }
    for _ in 0..3 {
        assert_eq!(app.signs_in(ANN, "not it at all").refusal(), (401, "bad_credentials".into()));
    }
    assert_eq!(app.signs_in(ANN, PASSWORD).refusal(), (401, "locked".into()));
    assert_eq!(app.enrol(ANN).status, 422);
}

#[test]
fn an_unknown_name_is_in_no_event() {
    let app = Parts { settings: Some(everything()), ..Parts::default() }.start();
    for _ in 0..4 {
        app.signs_in(EVE, "not it at all");
    }
    for path in ["/auth/password", "/auth/confirmation", "/auth/unlock"] {
        app.ask(path, EVE);
    }
    assert_eq!(app.post_office().sent, 0);
    let events = app.events();
    let kinds: Vec<EventKind> = events.iter().map(|recorded| recorded.event.kind).collect();
    let failed = EventKind::SignInFailed;
    assert_eq!(kinds, [failed, failed, failed, EventKind::Locked, failed]);
    assert!(events.iter().all(|recorded| recorded.event.account.is_none() && recorded.event.uid.is_none()));
}
