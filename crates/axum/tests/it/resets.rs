//! Forgotten passwords: the letter, where its link leads, and what may be done from there.

use std::time::Duration;

use baton_axum::{CookieSettings, HttpSettings};
use baton_core::letter::Occasion;
use baton_core::wire::HeaderNames;
use baton_engine::Settings;
use baton_store::faulty::Operation;
use http::Method;
use serde_json::{Value, json};

use crate::letterbox::{
    ANN, APP, HOUR, Link, MINUTE, Mailed, NEW, Parts, assert_page, assert_private, by_token, confirming, held, landing,
    redirect, settings, split,
};
use crate::support::{Answer, Held, PASSWORD};

const PASSWORDS: &str = "/auth/password";

fn body(password: &str) -> Value {
    json!({ "password": password, "password_confirmation": password })
}

/// A new password from within a session, without the one so far.
fn sets(app: &Mailed, session: &Held, password: &str) -> Answer {
    app.put(PASSWORDS, &body(password)).held(session).send()
}

/// A new password with the token of a link.
fn resets(app: &Mailed, link: &Link, password: &str) -> Answer {
    let mut body = body(password);
    body["reset_password_token"] = link.token().1.into();
    app.put(PASSWORDS, &body).send()
}

fn in_session(app: &Mailed, email: &str) -> Held {
    let (_, params) = landing(&app.follow(&app.asked(PASSWORDS, email)));
    held(&params)
}

fn names(link: &Link) -> Vec<&str> {
    link.params.keys().map(String::as_str).collect()
}

fn lacks_the_current_one(answer: &Answer) -> bool {
    answer.status == 422 && answer.json()["errors"]["current_password"].is_array()
}

#[test]
fn a_link_leads_on_signed_in_to_a_new_password() {
    let app = Mailed::with(settings());
    let other = app.register(ANN);
    let request = json!({ "email": " Ann@Example.COM ", "redirect_url": APP, "config_name": "staff" });
    let answer = app.post_to(PASSWORDS, &request).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["success"], true);
    assert!(answer.json()["message"].is_string() && answer.has_no_auth_headers(), "{answer:?}");

    let link = app.link(Occasion::ResetPassword);
    assert_eq!(link.at, "/auth/password/edit");
    assert_eq!(names(&link), ["config", "redirect_url", "reset_password_token"]);
    assert_eq!((&*link.params["config"], &*link.params["redirect_url"]), ("staff", APP));
    // A program that looks whether the link is good does not use it up.
    let head = app.request(Method::HEAD, &link.path()).send();
    assert_eq!((head.status, head.header("location"), &*head.text), (200, None, ""), "{head:?}");
    assert_private(&head);

    let (to, params) = landing(&app.follow(&link));
    assert_eq!(to, APP);
    let expected = [
        "access-token",
        "client",
        "client_id",
        "config",
        "expiry",
        "reset_password",
        "reset_password_token",
        "token",
        "uid",
    ];
    assert_eq!(params.keys().map(String::as_str).collect::<Vec<_>>(), expected);
    assert_eq!((&*params["config"], &*params["reset_password"], &*params["uid"]), ("staff", "true", ANN));
    assert_eq!((&params["access-token"], &params["client"]), (&params["token"], &params["client_id"]));
    assert_eq!(params["reset_password_token"], link.token().1);
    assert_page(&app.follow(&link), 404);

    let answer = app.get_as(&held(&params), "/auth/validate_token").send();
    assert_eq!(answer.json()["data"]["allow_password_change"], true, "{answer:?}");
    let session = answer.held().expect("the first request rotates");
    let answer = app.get_as(&other, "/auth/validate_token").send();
    assert_eq!(answer.json()["data"]["allow_password_change"], false, "{answer:?}");
    let other = answer.held().expect("the first request rotates");
    assert!(lacks_the_current_one(&sets(&app, &other, NEW)), "only the session of the link may");

    let answer = sets(&app, &session, NEW);
    assert_eq!(answer.status, 200, "{answer:?}");
    let said = answer.json();
    assert_eq!((&said["success"], &said["data"]["uid"]), (&json!(true), &json!(ANN)), "{answer:?}");
    assert!(said["message"].is_string() && said["data"]["created_at"].is_string(), "{answer:?}");
    assert!(answer.is_blank() || answer.held().is_some(), "auth headers as on any response: {answer:?}");
    assert!(app.works(&session), "its own session goes on");
    assert_eq!(app.get_as(&other, "/me").send().code(), "session_revoked");
    assert!(lacks_the_current_one(&sets(&app, &session, PASSWORD)), "only once");
    assert_eq!(app.signs_in(ANN, NEW).status, 200);
    assert_eq!(app.signs_in(ANN, PASSWORD).status, 401);
    assert_eq!(app.post(), [(Occasion::PasswordChanged, ANN.into())]);
}

#[test]
fn the_session_of_a_link_may_set_a_password_for_a_quarter_of_an_hour() {
    let app = Mailed::with(settings());
    app.register(ANN);
    let session = in_session(&app, ANN);
    app.advance(15 * MINUTE);
    assert!(lacks_the_current_one(&sets(&app, &session, NEW)));
    let session = in_session(&app, ANN);
    app.advance(15 * MINUTE - Duration::from_millis(1));
    // One that is refused for another reason does not use it up.
    assert_eq!(sets(&app, &session, "short").status, 422);
    let answer = app.put(PASSWORDS, &json!({ "password": NEW })).held(&session).send();
    assert_eq!(answer.refusal(), (422, "invalid".into()), "{answer:?}");
    assert_eq!(sets(&app, &session, NEW).status, 200);

    // By the account's own route as well.
    let session = in_session(&app, ANN);
    let answer = app.put("/auth", &body(PASSWORD)).held(&session).send();
    assert_eq!((answer.status, answer.json()["status"].clone()), (200, json!("success")), "{answer:?}");
}

#[test]
fn a_later_link_takes_the_leave_from_the_session_of_the_one_before() {
    let app = Mailed::with(settings());
    app.register(ANN);
    let (first, second) = (in_session(&app, ANN), in_session(&app, ANN));
    assert!(lacks_the_current_one(&sets(&app, &first, NEW)));
    assert_eq!(sets(&app, &second, NEW).status, 200);
}

#[test]
fn of_two_passwords_at_once_one_is_set() {
    let app = Mailed::with(settings());
    app.register(ANN);
    let session = in_session(&app, ANN);
    let mut first = app.store.hold_before(Operation::UpdateAccount);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| sets(&app, &session, "the one that was overtaken"));
        app.block_on(first.reached());
        assert_eq!(sets(&app, &session, NEW).status, 200);
        first.release();
        let slow = slow.join().expect("an answer");
        assert!(lacks_the_current_one(&slow), "{slow:?}");
    });
    assert_eq!(app.signs_in(ANN, NEW).status, 200);
}

/// Whoever holds the session of a link and the owner who changes the password at the same time.
#[test]
fn the_owners_new_password_stays() {
    let app = Mailed::with(settings());
    let owner = app.register(ANN);
    let session = in_session(&app, ANN);
    let mut slow_update = app.store.hold_before(Operation::UpdateAccount);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| sets(&app, &session, "the one that was overtaken"));
        app.block_on(slow_update.reached());
        let mut change = body(NEW);
        change["current_password"] = PASSWORD.into();
        assert_eq!(app.put(PASSWORDS, &change).held(&owner).send().status, 200);
        slow_update.release();
        let slow = slow.join().expect("an answer");
        assert_ne!(slow.status, 200, "{slow:?}");
    });
    assert_eq!(app.signs_in(ANN, NEW).status, 200);
}

#[test]
fn other_sessions_may_be_left_alone() {
    for mut settings in [settings(), by_token()] {
        settings.remove_tokens_after_password_reset = false;
        let by_token = settings.reset.require_client_token;
        let app = Mailed::with(settings);
        let other = app.register(ANN);
        let link = app.asked(PASSWORDS, ANN);
        let answer =
            if by_token { resets(&app, &link, NEW) } else { sets(&app, &held(&landing(&app.follow(&link)).1), NEW) };
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(app.works(&other));
    }
}

#[test]
fn the_link_may_hand_out_its_token_instead_of_a_session() {
    let app = Mailed::with(by_token());
    let other = app.register(ANN);
    let link = app.asked(PASSWORDS, ANN);
    for _ in 0..2 {
        let (to, params) = landing(&app.follow(&link));
        assert_eq!((&*to, params.len()), (APP, 1));
        assert_eq!(params["reset_password_token"], link.token().1, "not used up by looking at it");
    }
    assert!(app.works(&other));

    let answer = resets(&app, &link, "short");
    assert_eq!(answer.refusal(), (422, "invalid".into()), "{answer:?}");
    let said = answer.json();
    assert!(said["errors"]["password"].is_array() && said["success"] == false, "{answer:?}");
    for incomplete in [json!({}), json!({ "password": NEW }), json!({ "password_confirmation": NEW })] {
        let mut body = incomplete;
        body["reset_password_token"] = link.token().1.into();
        let answer = app.put(PASSWORDS, &body).send();
        assert_eq!(answer.refusal(), (422, "invalid".into()), "{answer:?}");
        body["reset_password_token"] = "x".into();
        // To somebody without a good token it says nothing about passwords.
        assert_eq!(app.put(PASSWORDS, &body).send().refusal(), (401, "link_invalid".into()));
    }
    let mut mismatch = body(NEW);
    mismatch["reset_password_token"] = link.token().1.into();
    mismatch["password_confirmation"] = "something else".into();
    let answer = app.put(PASSWORDS, &mismatch).send();
    assert!(answer.json()["errors"]["password_confirmation"].is_array(), "{answer:?}");

    // After all that the token is still good.
    let answer = resets(&app, &link, NEW);
    assert_eq!((answer.status, &answer.json()["success"]), (200, &json!(true)), "{answer:?}");
    let session = answer.held().expect("it signs in");
    assert!(app.works(&session));
    assert_eq!(app.get_as(&other, "/me").send().code(), "session_revoked");
    let again = resets(&app, &link, PASSWORD);
    assert_eq!(again.refusal(), (401, "link_invalid".into()), "{again:?}");
    assert!(again.has_no_auth_headers() && again.header("www-authenticate").is_some(), "{again:?}");
    assert_page(&app.follow(&link), 404);
    assert_eq!(app.signs_in(ANN, NEW).status, 200);
    assert_eq!(app.post(), [(Occasion::PasswordChanged, ANN.into())]);
}

#[test]
fn where_links_open_sessions_their_tokens_set_no_password() {
    let app = Mailed::with(settings());
    app.register(ANN);
    let link = app.asked(PASSWORDS, ANN);
    assert_eq!(resets(&app, &link, NEW).refusal(), (401, "not_authenticated".into()));
    landing(&app.follow(&link));
}

#[test]
fn a_session_travels_in_the_cookie_where_it_does_so() {
    let only = CookieSettings::default();
    let both = CookieSettings { only: false, ..CookieSettings::default() };
    for cookie in [only, both] {
        let only = cookie.only;
        let http = HttpSettings { cookie: Some(cookie), ..HttpSettings::default() };
        let app = Parts { http, ..Parts::default() }.start();
        assert_eq!(app.post_to("/auth", &json!({ "email": ANN, "password": PASSWORD })).send().status, 200);
        let link = app.asked(PASSWORDS, ANN);
        // As a browser follows it from the pages of a mail provider.
        let answer = app.get(&link.path()).header("sec-fetch-site", "cross-site").send();
        let (_, params) = landing(&answer);
        assert_eq!(params.contains_key("access-token"), !only, "{answer:?}");
        assert_eq!(params.contains_key("token"), !only, "{answer:?}");
        assert_eq!((&*params["uid"], &*params["config"]), (ANN, "default"));
        assert!(params.contains_key("client") && params.contains_key("expiry"), "{answer:?}");
        let cookies = answer.all("set-cookie");
        assert_eq!(cookies.len(), 1, "{answer:?}");
        let pair = cookies[0].split("; ").next().expect("a pair");
        let answer = app.put(PASSWORDS, &body(NEW)).header("cookie", pair).send();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // Without a session there is no cookie either.
    let http = HttpSettings { cookie: Some(CookieSettings::default()), ..HttpSettings::default() };
    let app = Parts { http, settings: Some(by_token()), ..Parts::default() }.start();
    assert_eq!(app.post_to("/auth", &json!({ "email": ANN, "password": PASSWORD })).send().status, 200);
    let link = app.asked(PASSWORDS, ANN);
    assert!(app.follow(&link).all("set-cookie").is_empty());
    let answer = resets(&app, &link, NEW);
    assert_eq!((answer.status, answer.all("set-cookie").len()), (200, 1), "{answer:?}");
}

#[test]
fn parameters_are_renamed_with_the_headers() {
    let headers_names = HeaderNames {
        access_token: "X-Token".into(),
        client: "X-Client".into(),
        expiry: "X-Expiry".into(),
        uid: "X-Uid".into(),
        ..HeaderNames::default()
    };
    let app = Parts { http: HttpSettings { headers_names, ..HttpSettings::default() }, ..Parts::default() }.start();
    assert_eq!(app.post_to("/auth", &json!({ "email": ANN, "password": PASSWORD })).send().status, 200);
    let answer = app.follow(&app.asked(PASSWORDS, ANN));
    let (_, params) = split(answer.header("location").expect("a location"));
    let expected = [
        "X-Client",
        "X-Token",
        "client_id",
        "config",
        "expiry",
        "reset_password",
        "reset_password_token",
        "token",
        "uid",
    ];
    assert_eq!(params.keys().map(String::as_str).collect::<Vec<_>>(), expected, "as the gem renames them");
    let call = app.put(PASSWORDS, &body(NEW)).header("X-Token", &params["X-Token"]);
    let answer = call.header("X-Client", &params["X-Client"]).header("X-Uid", ANN).send();
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn without_a_target_it_leads_to_the_default() {
    let app = Mailed::with(settings());
    app.register(ANN);
    for nothing in [json!({ "email": ANN }), json!({ "email": ANN, "redirect_url": " " })] {
        let answer = app.post_to(PASSWORDS, &nothing).send();
        assert_eq!(answer.refusal(), (401, "invalid".into()), "{answer:?}");
    }
    assert_eq!(app.post_to(PASSWORDS, &json!({ "redirect_url": APP })).send().refusal(), (401, "invalid".into()));
    assert_eq!(app.post(), []);
    // Nor does a link from which the target was lost: its token stays good.
    let link = app.asked(PASSWORDS, ANN);
    assert_eq!(app.follow(&link.set("redirect_url", "")).refusal(), (401, "invalid".into()));
    landing(&app.follow(&link));

    let mut settings = settings();
    settings.redirects.default_password_reset_url = redirect("https://default.example.org/#/reset");
    let app = Mailed::with(settings);
    app.register(ANN);
    assert_eq!(app.post_to(PASSWORDS, &json!({ "email": ANN })).send().status, 200);
    let link = app.link(Occasion::ResetPassword);
    assert_eq!(names(&link), ["config", "reset_password_token"]);
    assert_eq!(link.params["config"], "default");
    let answer = app.follow(&link);
    let location = answer.header("location").expect("a location");
    let (before, after) = location.split_once("#/reset?").expect("a route in the fragment");
    let (to, params) = split(before);
    assert_eq!((&*to, &split(&format!("?{after}")).1), ("https://default.example.org/", &params));
    assert!(app.works(&held(&params)));
    // What the request asks for goes before.
    let (to, _) = landing(&app.follow(&app.asked(PASSWORDS, ANN)));
    assert_eq!(to, APP);
}

#[test]
fn a_target_that_is_not_allowed_uses_no_token_up() {
    let app = Mailed::with(settings());
    app.register(ANN);
    let evil = "https://evil.example/";
    let answer = app.post_to(PASSWORDS, &json!({ "email": ANN, "redirect_url": evil })).send();
    assert_eq!(answer.refusal(), (422, "redirect_refused".into()), "{answer:?}");
    assert_eq!(answer.json().get("data"), Some(&Value::Null));
    assert_eq!(app.post(), []);
    let link = app.asked(PASSWORDS, ANN);
    let answer = app.follow(&link.set("redirect_url", evil));
    assert_eq!((answer.refusal(), answer.header("location")), ((422, "redirect_refused".into()), None), "{answer:?}");
    landing(&app.follow(&link));
}

#[test]
fn a_link_without_a_token_leads_to_a_page() {
    for settings in [settings(), by_token()] {
        let app = Mailed::with(settings);
        app.register(ANN);
        let link = app.asked(PASSWORDS, ANN);
        assert_page(&app.follow(&link.with_token("")), 404);
        assert_page(&app.follow(&link.with_token("x")), 404);
        landing(&app.follow(&link));
    }
}

#[test]
fn a_new_password_makes_links_and_an_address_to_be_confirmed_void() {
    for by_session in [true, false] {
        let app = Mailed::with(if by_session { settings() } else { by_token() });
        let session = app.register(ANN);
        let change = json!({ "email": "new@example.com", "confirm_success_url": APP });
        let answer = app.put("/auth", &change).held(&session).send();
        assert_eq!(answer.status, 200, "{answer:?}");
        let letters = app.letters();
        let confirm = letters.iter().find(|letter| letter.occasion == Occasion::ConfirmNewEmail);
        let confirm = Link::of(confirm.expect("a letter to the new address"));
        let (first, second) = (app.asked(PASSWORDS, ANN), app.asked(PASSWORDS, ANN));
        let set = if by_session {
            let session = held(&landing(&app.follow(&first)).1);
            let answer = app.put(
                PASSWORDS,
                &json!({
                    "password": NEW, "password_confirmation": NEW, "current_password": PASSWORD
                }),
            );
            answer.held(&session).send()
        } else {
            resets(&app, &first, NEW)
        };
        assert_eq!(set.status, 200, "{set:?}");
        assert_page(&app.follow(&second), 404);
        let (_, params) = landing(&app.follow(&confirm));
        assert_eq!(params["account_confirmation_success"], "false");
        // The new address is not waiting for another letter either.
        assert_eq!(app.ask("/auth/confirmation", ANN).status, 200);
        assert_eq!(app.post(), [(Occasion::PasswordChanged, ANN.into())]);
    }
}

#[test]
fn the_link_confirms_the_address() {
    for require_client_token in [false, true] {
        let mut settings = confirming();
        settings.reset.require_client_token = require_client_token;
        let app = Mailed::with(settings);
        assert_eq!(app.enrol(ANN).status, 200);
        app.letters();
        assert_eq!(app.signs_in(ANN, PASSWORD).code(), "unconfirmed");
        let link = app.asked(PASSWORDS, ANN);
        landing(&app.follow(&link));
        if require_client_token {
            assert_eq!(app.signs_in(ANN, PASSWORD).code(), "unconfirmed", "the token was only handed on");
            assert_eq!(resets(&app, &link, NEW).status, 200);
            assert_eq!(app.signs_in(ANN, NEW).status, 200);
        } else {
            assert_eq!(app.signs_in(ANN, PASSWORD).status, 200);
        }
    }
}

#[test]
fn a_link_is_good_for_an_hour_from_when_it_was_sent() {
    let app = Mailed::with(settings());
    app.register(ANN);
    assert_eq!(app.ask(PASSWORDS, ANN).status, 200);
    app.advance(2 * HOUR);
    let link = app.link(Occasion::ResetPassword);
    app.advance(HOUR - Duration::from_millis(1));
    landing(&app.follow(&link));
    let link = app.asked(PASSWORDS, ANN);
    app.advance(HOUR);
    assert_page(&app.follow(&link), 404);
}

#[test]
fn passwords_of_many_bytes_are_kept_whole() {
    let app = Mailed::with(by_token());
    app.register(ANN);
    let link = app.asked(PASSWORDS, ANN);
    let longest = "\u{1f511}".repeat(127) + "a";
    assert_eq!(resets(&app, &link, &format!("{longest}b")).status, 422);
    assert_eq!(resets(&app, &link, &longest).status, 200);
    assert_eq!(app.signs_in(ANN, &longest).status, 200);
    for other in [longest.trim_end_matches('a').to_owned(), format!("{longest}b"), longest.replace('a', "b")] {
        assert_eq!(app.signs_in(ANN, &other).refusal(), (401, "bad_credentials".into()));
    }
}

#[test]
fn links_begin_with_the_public_address_whatever_the_request_says() {
    let app = Mailed::with(settings());
    app.register(ANN);
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("email", ANN)
        .append_pair("redirect_url", APP)
        .finish();
    let answer = app.raw(format!(
        "POST /auth/password HTTP/1.1\r\nhost: evil.example\r\nx-forwarded-host: evil.example\r\n\
         forwarded: host=evil.example\r\norigin: https://evil.example\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{form}",
        form.len()
    ));
    assert_eq!(answer.status, 200, "{answer:?}");
    // Which is looked at there.
    landing(&app.follow(&app.link(Occasion::ResetPassword)));
}

#[test]
fn whoever_does_not_send_letters_has_no_such_routes() {
    let app = crate::support::TestApp::with(Settings::default(), HttpSettings::default());
    for path in [PASSWORDS, "/auth/confirmation", "/auth/unlock"] {
        let answer = app.post(path, &json!({ "email": ANN, "redirect_url": APP })).send();
        assert!(matches!(answer.status, 404 | 405), "{answer:?}");
    }
    assert_eq!(app.get("/auth/password/edit?reset_password_token=x").send().status, 404);
}
