//! Showing that an address is one's own: after a registration, and for a new address.

use std::time::Duration;

use baton_axum::{CookieSettings, HttpSettings};
use baton_core::letter::Occasion;
use baton_engine::Settings;
use http::Method;
use serde_json::{Value, json};

use crate::letterbox::{ANN, APP, DAY, Link, Mailed, NEW, Parts, assert_page, confirming, landing, redirect, settings};
use crate::support::{Answer, Held, PASSWORD};

const CONFIRMATION: &str = "/auth/confirmation";
const BOB: &str = "bob@example.com";

/// Whether the address was confirmed, by where the link leads.
#[track_caller]
fn confirms(app: &Mailed, link: &Link) -> bool {
    let (to, params) = landing(&app.follow(link));
    assert_eq!((&*to, params.len()), (APP, 1), "no session in the URL");
    params["account_confirmation_success"] == "true"
}

fn changes(app: &Mailed, held: &Held, email: &str) -> Answer {
    app.put("/auth", &json!({ "email": email, "confirm_success_url": APP, "config_name": "staff" })).held(held).send()
}

/// The letters of a change of address: to the old one a notice, to the new one a link.
#[track_caller]
fn change_link(app: &Mailed, old: &str, new: &str) -> Link {
    let letters = app.letters();
    let find = |occasion| letters.iter().find(|letter| letter.occasion == occasion).expect("a letter of each");
    let (notice, link) = (find(Occasion::EmailChangeRequested), find(Occasion::ConfirmNewEmail));
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert_eq!((&*notice.mail.to, &*link.mail.to), (old, new));
    assert!(notice.link.is_none() && notice.mail.text.contains(new), "{}", notice.mail.text);
    Link::of(link)
}

#[test]
fn a_registration_waits_until_its_address_is_confirmed() {
    let app = Mailed::with(Settings { paranoid: false, ..confirming() });
    let body = json!({
        "email": " Ann@Example.com", "password": PASSWORD, "password_confirmation": PASSWORD, "name": "Ann",
        "confirm_success_url": APP, "config_name": "staff",
    });
    let answer = app.post_to("/auth", &body).send();
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("success")), "{answer:?}");
    assert!(answer.has_no_auth_headers(), "{answer:?}");
    let data = answer.json()["data"].clone();
    assert_eq!((&data["email"], &data["uid"], &data["name"]), (&json!(ANN), &json!(ANN), &json!("Ann")));
    assert!(data["id"].is_number() && data["created_at"].is_string(), "{answer:?}");

    assert_eq!(app.signs_in(ANN, PASSWORD).refusal(), (401, "unconfirmed".into()));
    // Not told to somebody without the password.
    assert_eq!(app.signs_in(ANN, "not it at all").refusal(), (401, "bad_credentials".into()));

    let link = app.link(Occasion::ConfirmEmail);
    assert_eq!(link.at, CONFIRMATION);
    assert_eq!(
        link.params.keys().map(String::as_str).collect::<Vec<_>>(),
        ["config", "confirmation_token", "redirect_url"]
    );
    assert_eq!((&*link.params["config"], &*link.params["redirect_url"]), ("staff", APP));
    let head = app.request(Method::HEAD, &link.path()).send();
    assert_eq!((head.status, head.header("location")), (200, None));
    assert_eq!(app.signs_in(ANN, PASSWORD).code(), "unconfirmed");

    assert!(confirms(&app, &link));
    assert_eq!(app.signs_in(ANN, PASSWORD).status, 200);
    assert!(!confirms(&app, &link), "only once");
    assert_eq!(app.signs_in(ANN, PASSWORD).status, 200);
}

#[test]
fn a_registration_gives_no_account_away() {
    let app = Mailed::with(confirming());
    let body = json!({ "email": ANN, "password": PASSWORD, "name": "Ann", "confirm_success_url": APP });
    let first = app.post_to("/auth", &body).send();
    assert_eq!(first.status, 200, "{first:?}");
    let data = first.json()["data"].clone();
    assert_eq!((&data["id"], &data["uid"], &data["email"]), (&Value::Null, &json!(""), &json!(ANN)), "{first:?}");
    assert_eq!(app.post(), [(Occasion::ConfirmEmail, ANN.into())]);
    let second = app.post_to("/auth", &body).send();
    assert_eq!((second.status, &second.text), (200, &first.text));
    assert_eq!(app.post(), [(Occasion::AlreadyRegistered, ANN.into())], "its owner is told");
    // The account that was there has not been changed.
    let mut other = body;
    other["password"] = NEW.into();
    assert_eq!(app.post_to("/auth", &other).send().text, first.text);
    assert_eq!(app.signs_in(ANN, NEW).code(), "bad_credentials");
    assert_eq!(app.signs_in(ANN, PASSWORD).code(), "unconfirmed");

    let told = Mailed::with(Settings { paranoid: false, ..confirming() });
    assert_eq!(told.enrol(ANN).status, 200);
    let answer = told.enrol(ANN);
    assert!(answer.status == 422 && answer.json()["errors"]["email"].is_array(), "{answer:?}");
    assert_eq!(told.post(), [(Occasion::ConfirmEmail, ANN.into())]);
}

#[test]
fn in_cookie_mode_a_pending_registration_sets_no_cookie() {
    let http = HttpSettings { cookie: Some(CookieSettings::default()), ..HttpSettings::default() };
    let app = Parts { settings: Some(confirming()), http, ..Parts::default() }.start();
    let answer = app.enrol(ANN);
    assert!(answer.status == 200 && answer.all("set-cookie").is_empty(), "{answer:?}");
    let link = app.link(Occasion::ConfirmEmail);
    assert!(confirms(&app, &link));
    assert!(app.follow(&link).all("set-cookie").is_empty());
}

#[test]
fn the_letter_can_be_asked_for_again() {
    let app = Mailed::with(confirming());
    app.enrol(ANN);
    let first = app.link(Occasion::ConfirmEmail);
    let request = json!({ "email": "ANN@example.com ", "redirect_url": APP, "config_name": "again" });
    let answer = app.post_to(CONFIRMATION, &request).send();
    assert_eq!((answer.status, &answer.json()["success"]), (200, &json!(true)), "{answer:?}");
    let second = app.link(Occasion::ConfirmEmail);
    assert_eq!(second.params["config"], "again");
    assert_ne!(first.token(), second.token());
    assert!(confirms(&app, &first), "the first one is still good");
    assert!(!confirms(&app, &second), "and makes the others void");
    // Confirmed: there is nothing to write about.
    assert_eq!(app.ask(CONFIRMATION, ANN).text, answer.text);
    assert_eq!(app.post(), []);
    for nothing in [json!({}), json!({ "email": " " }), json!({ "email": null })] {
        assert_eq!(app.post_to(CONFIRMATION, &nothing).send().refusal(), (401, "invalid".into()));
    }
    let evil = json!({ "email": ANN, "redirect_url": "https://evil.example" });
    assert_eq!(app.post_to(CONFIRMATION, &evil).send().refusal(), (422, "redirect_refused".into()));
}

#[test]
fn without_a_target_a_page_says_what_there_is_to_say() {
    let app = Mailed::with(confirming());
    let answer = app.post_to("/auth", &json!({ "email": ANN, "password": PASSWORD })).send();
    assert_eq!(answer.status, 200, "two clients never send one: {answer:?}");
    let link = app.link(Occasion::ConfirmEmail);
    assert!(!link.params.contains_key("redirect_url"));
    assert_page(&app.follow(&link), 200);
    assert_eq!(app.signs_in(ANN, PASSWORD).status, 200);
    assert_page(&app.follow(&link), 404);
    assert_page(&app.get(CONFIRMATION).send(), 404);

    let mut settings = confirming();
    settings.redirects.default_confirm_success_url = redirect("https://default.example.org/ok?z=1");
    let app = Mailed::with(settings);
    app.post_to("/auth", &json!({ "email": ANN, "password": PASSWORD })).send();
    let link = app.link(Occasion::ConfirmEmail);
    let (to, params) = landing(&app.follow(&link));
    assert_eq!((&*to, &*params["account_confirmation_success"]), ("https://default.example.org/ok", "true"));
    assert_eq!(params["z"], "1");
    assert_eq!(landing(&app.follow(&link)).1["account_confirmation_success"], "false");
}

#[test]
fn a_target_that_is_not_allowed_makes_no_account_and_uses_no_token_up() {
    let app = Mailed::with(confirming());
    let body = json!({ "email": ANN, "password": PASSWORD, "confirm_success_url": "https://evil.example/" });
    let answer = app.post_to("/auth", &body).send();
    assert_eq!(answer.refusal(), (422, "redirect_refused".into()), "{answer:?}");
    assert_eq!(answer.json()["data"]["email"], ANN, "for the form that is to be corrected");
    assert_eq!(app.hashed(), 0);
    app.enrol(ANN);
    let link = app.link(Occasion::ConfirmEmail);
    let answer = app.follow(&link.set("redirect_url", "https://evil.example/"));
    assert_eq!((answer.refusal(), answer.header("location")), ((422, "redirect_refused".into()), None), "{answer:?}");
    assert!(confirms(&app, &link));
}

#[test]
fn a_link_is_good_for_three_days() {
    let app = Mailed::with(confirming());
    app.enrol(ANN);
    let (first, second) = (app.link(Occasion::ConfirmEmail), app.asked(CONFIRMATION, ANN));
    app.advance(3 * DAY - Duration::from_millis(1));
    assert!(confirms(&app, &first));
    let app = Mailed::with(confirming());
    app.enrol(ANN);
    let link = app.link(Occasion::ConfirmEmail);
    app.advance(3 * DAY);
    assert!(!confirms(&app, &link) && !confirms(&app, &second));
    assert_eq!(app.signs_in(ANN, PASSWORD).code(), "unconfirmed");
}

#[test]
fn a_new_address_is_the_accounts_when_it_has_been_confirmed() {
    let app = Mailed::with(settings());
    let session = app.register(ANN);
    let answer = changes(&app, &session, " New@Example.com");
    assert_eq!(answer.status, 200, "{answer:?}");
    let data = answer.json()["data"].clone();
    assert_eq!((&data["email"], &data["uid"]), (&json!(ANN), &json!(ANN)), "not yet");
    let session = answer.held().expect("it rotates");
    assert_eq!(session.uid, ANN);
    let link = change_link(&app, ANN, "new@example.com");
    assert_eq!(link.params["config"], "staff");
    assert_eq!(app.signs_in(ANN, PASSWORD).status, 200);
    assert_eq!(app.signs_in("new@example.com", PASSWORD).code(), "bad_credentials");
    let reset = app.asked("/auth/password", ANN);

    assert!(confirms(&app, &link));
    assert_eq!(app.post(), [(Occasion::EmailChanged, ANN.into())]);
    assert_eq!(app.signs_in("new@example.com", PASSWORD).status, 200);
    assert_eq!(app.signs_in(ANN, PASSWORD).code(), "bad_credentials");
    assert!(!confirms(&app, &link));
    // A link that went to the old address is in hands that may not be the owner's any more.
    assert_page(&app.follow(&reset), 404);
    app.advance(Duration::from_secs(60));
    let moved = Held { uid: "new@example.com".into(), ..session };
    assert!(app.works(&moved), "the session goes on under the new uid");
    // The old address is free.
    assert_eq!(app.register(ANN).uid, ANN);
}

#[test]
fn a_letter_for_a_new_address_can_be_asked_for_again() {
    let app = Mailed::with(settings());
    let session = app.register(ANN);
    changes(&app, &session, "new@example.com");
    let first = change_link(&app, ANN, "new@example.com");
    assert_eq!(app.ask(CONFIRMATION, ANN).status, 200);
    let second = app.link(Occasion::ConfirmNewEmail);
    assert_ne!(first.token(), second.token());
    assert!(confirms(&app, &second));
    assert!(!confirms(&app, &first));
}

#[test]
fn a_second_change_takes_the_place_of_the_first() {
    let app = Mailed::with(settings());
    let session = app.register(ANN);
    let session = changes(&app, &session, "one@example.com").held().expect("it rotates");
    let first = change_link(&app, ANN, "one@example.com");
    assert_eq!(changes(&app, &session, "two@example.com").status, 200);
    let second = change_link(&app, ANN, "two@example.com");
    assert!(!confirms(&app, &first));
    assert!(confirms(&app, &second));
    assert_eq!(app.signs_in("two@example.com", PASSWORD).status, 200);
}

#[test]
fn an_address_that_was_taken_meanwhile_is_not_confirmed_and_nobody_is_told_why() {
    let app = Mailed::with(settings());
    let session = app.register(ANN);
    assert_eq!(changes(&app, &session, BOB).status, 200);
    let link = change_link(&app, ANN, BOB);
    app.register(BOB);
    let answer = app.follow(&link);
    let bad = app.follow(&link.with_token("x"));
    assert_eq!((answer.status, answer.header("location")), (bad.status, bad.header("location")), "{answer:?}");
    assert_eq!(landing(&answer).1["account_confirmation_success"], "false");
    assert_eq!(app.post(), []);
    assert_eq!((app.signs_in(ANN, PASSWORD).status, app.signs_in(BOB, PASSWORD).status), (200, 200));
    // Asking for an address that is taken already is answered as for any other.
    let held = app.sign_in(ANN);
    let answer = changes(&app, &held, BOB);
    assert_eq!((answer.status, &answer.json()["data"]["email"]), (200, &json!(ANN)), "{answer:?}");
}

#[test]
fn a_new_address_may_count_at_once_and_the_old_one_is_told() {
    let mut settings = settings();
    settings.confirmation.reconfirmable = false;
    let app = Mailed::with(settings);
    let session = app.register(ANN);
    let reset = app.asked("/auth/password", ANN);
    let answer = changes(&app, &session, "new@example.com");
    assert_eq!(answer.json()["data"]["uid"], "new@example.com", "{answer:?}");
    assert_eq!(app.post(), [(Occasion::EmailChanged, ANN.into())]);
    assert_page(&app.follow(&reset), 404);
    assert_eq!(app.ask(CONFIRMATION, "new@example.com").status, 404, "there is nothing to confirm");
}

#[test]
fn an_address_may_not_change_to_where_it_must_not_lead() {
    let app = Mailed::with(settings());
    let session = app.register(ANN);
    let change = json!({ "email": "new@example.com", "confirm_success_url": "https://evil.example/" });
    let answer = app.put("/auth", &change).held(&session).send();
    assert_eq!(answer.refusal(), (422, "redirect_refused".into()), "{answer:?}");
    assert_eq!(app.post(), []);
    // An address that stays the same is no change of it.
    let answer = app.put("/auth", &json!({ "email": ANN })).held(&session).send();
    assert_eq!((answer.status, app.post()), (200, vec![]), "{answer:?}");
}

#[test]
fn an_altered_token_confirms_nobody() {
    let app = Mailed::with(confirming());
    app.enrol(BOB);
    let link = app.link(Occasion::ConfirmEmail);
    app.enrol(ANN);
    for token in [link.token().1.to_uppercase(), format!("{}A", link.token().1), "\u{1f511}".into()] {
        assert!(!confirms(&app, &link.with_token(&token)));
    }
    assert!(confirms(&app, &link));
    assert_eq!(app.signs_in(BOB, PASSWORD).status, 200);
    assert_eq!(app.signs_in(ANN, PASSWORD).code(), "unconfirmed", "the other account is as it was");
}
