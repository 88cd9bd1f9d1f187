//! Tokens of links: which are refused, and that each is good once.

use std::sync::{Arc, Barrier};

use baton_core::event::EventKind;
use baton_core::letter::Occasion;
use baton_core::one_time::{OneTimeId, Purpose};
use baton_engine::{Engine, LinkRequest, OsRandom, Registration, Settings, Visitor, deliver};
use baton_store::faulty::Operation;
use serde_json::json;

use crate::letterbox::{ANN, APP, Link, Mailed, NEW, Parts, everything, other_keys};
use crate::support::{Answer, PASSWORD, agent, keys};

const EDIT: &str = "/auth/password/edit";

/// A way to use a token up.
type Use = fn(&Mailed, &Link) -> crate::support::Call;

const FOLLOW: Use = |app, link| app.get(&link.path());
const RESET: Use = |app, link| {
    let token = link.token().1;
    app.put("/auth/password", &json!({ "password": NEW, "password_confirmation": NEW, "reset_password_token": token }))
};

/// Whether the token did what it is for.
fn took(answer: &Answer) -> bool {
    match answer.status {
        200 => true,
        302 => !answer.header("location").expect("a location").contains("account_confirmation_success=false"),
        401 => {
            assert_eq!(answer.code(), "link_invalid");
            false
        }
        404 => false,
        _ => panic!("{answer:?}"),
    }
}

fn with_links(by_token: bool, on_file: bool) -> Mailed {
    let mut settings = everything();
    settings.reset.require_client_token = by_token;
    let app = Parts { settings: Some(settings), on_file, ..Parts::default() }.start();
    assert_eq!(app.enrol(ANN).status, 200);
    app.letters();
    app
}

#[test]
fn of_many_that_present_a_token_at_once_one_wins() {
    const THREADS: usize = 16;
    for on_file in [false, true] {
        for (by_token, ask, using, kind) in [
            (false, "/auth/password", FOLLOW, EventKind::SignedIn),
            (true, "/auth/password", RESET, EventKind::PasswordChanged),
            (false, "/auth/confirmation", FOLLOW, EventKind::Confirmed),
            (false, "/auth/unlock", FOLLOW, EventKind::Unlocked),
        ] {
            let app = with_links(by_token, on_file);
            let link = app.asked(ask, ANN);
            let before = app.kinds().len();
            let start = Barrier::new(THREADS);
            let race = || {
                let (call, agent) = (using(&app, &link), agent());
                start.wait();
                call.send_on(&agent)
            };
            let answers: Vec<Answer> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(race)).collect();
                threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
            });
            let winners: Vec<_> = answers.iter().filter(|answer| took(answer)).collect();
            assert_eq!(winners.len(), 1, "{ask} {on_file}: {answers:?}");
            assert_eq!(app.kinds()[before..].iter().filter(|made| **made == kind).count(), 1, "{ask}");
            let late = using(&app, &link).send();
            assert!(!took(&late), "{late:?}");
        }
    }
}

#[test]
fn a_token_that_nobody_was_sent_costs_no_look_into_the_store() {
    let app = with_links(false, false);
    let id = OneTimeId::from_bytes([7; 16]);
    for (at, name, purpose) in [
        (EDIT, "reset_password_token", Purpose::Reset),
        ("/auth/confirmation", "confirmation_token", Purpose::Confirm),
        ("/auth/unlock", "unlock_token", Purpose::Unlock),
    ] {
        let genuine = keys().derive_one_time(purpose, id).expose().to_owned();
        let mut forged: Vec<String> = (0..genuine.len()).map(|end| genuine[..end].to_owned()).collect();
        for at in 0..genuine.len() {
            let mut token = genuine.clone().into_bytes();
            token[at] = if token[at] == b'A' { b'B' } else { b'A' };
            forged.push(String::from_utf8(token).expect("ASCII"));
        }
        for other in Purpose::ALL {
            forged.push(other_keys().derive_one_time(other, id).expose().to_owned());
            if other != purpose {
                forged.push(keys().derive_one_time(other, id).expose().to_owned());
            }
        }
        forged.extend([format!("{genuine}="), format!("{genuine}A"), format!(" {genuine}"), "x".repeat(20_000)]);
        forged.push(app.signs_in(ANN, PASSWORD).header("access-token").unwrap_or("none").to_owned());
        let (_, calls) = app.counting(|| {
            for token in &forged {
                let query = form_urlencoded::Serializer::new(String::new())
                    .append_pair(name, token)
                    .append_pair("redirect_url", APP)
                    .finish();
                let answer = app.get(&format!("{at}?{query}")).send();
                assert!(!took(&answer), "{token}: {answer:?}");
            }
        });
        assert_eq!(calls.get(&Operation::FindOneTime), None, "{at} {calls:?}");
        // One with a good signature is looked up.
        let link = Link::parse(&format!("{}{at}?{name}={genuine}&redirect_url={APP}", crate::letterbox::HOST));
        let (answer, calls) = app.counting(|| app.follow(&link));
        assert!(!took(&answer) && calls[&Operation::FindOneTime] == 1, "{answer:?}");
    }
}

#[test]
fn a_token_is_good_for_its_own_purpose_alone() {
    let app = with_links(false, false);
    let links: Vec<Link> =
        ["/auth/password", "/auth/confirmation", "/auth/unlock"].iter().map(|path| app.asked(path, ANN)).collect();
    for link in &links {
        for other in links.iter().filter(|other| other.at != link.at) {
            let answer = app.follow(&link.with_token(other.token().1));
            assert!(!took(&answer), "{answer:?}");
        }
    }
    for link in &links {
        assert!(took(&app.follow(link)), "none of them was used up: {link:?}");
    }
}

#[test]
fn a_token_of_another_realm_is_no_good() {
    let app = with_links(false, false);
    let settings = Settings { realm: "admin".into(), ..everything() };
    let (store, mailbox) = (app.store.clone(), Arc::clone(&app.mailbox));
    let token = app.block_on(async {
        let admins = Engine::open(store, keys(), Arc::new(OsRandom), settings).await.expect("an engine");
        let admins = admins.with_mailer(mailbox.clone());
        let form = Registration {
            email: Some(ANN.into()),
            password: Some("a passphrase hard to guess 7!".into()),
            ..Registration::default()
        };
        admins.register(form, &Visitor::default()).await.expect("an account");
        let request = LinkRequest { email: ANN.into(), redirect_url: Some(APP.into()), ..LinkRequest::default() };
        admins.request_password_reset(request).await.expect("a request");
        mailbox.clear();
        deliver(&[admins.settings().realm.as_str()].map(|_| &admins)).await.expect("an outbox");
        let letters = mailbox.list();
        let letter = letters.iter().find(|letter| letter.occasion == Occasion::ResetPassword).expect("a letter");
        assert_eq!(letter.realm, "admin");
        let token = Link::of(letter).token().1.to_owned();
        (admins, token)
    });
    let (admins, token) = token;
    let link = app.asked("/auth/password", ANN);
    let answer = app.follow(&link.with_token(&token));
    assert!(!took(&answer), "{answer:?}");
    app.block_on(admins.check_reset_token(&token)).expect("it is still good where it belongs");
    assert!(took(&app.follow(&link)));
}

#[test]
fn tokens_of_an_account_end_with_it() {
    let app = with_links(false, false);
    let confirm = app.asked("/auth/confirmation", ANN);
    let links = [app.asked("/auth/password", ANN), app.asked("/auth/unlock", ANN)];
    assert!(took(&app.follow(&confirm)));
    let held = app.sign_in(ANN);
    assert_eq!(app.delete("/auth").held(&held).send().status, 200);
    app.enrol(ANN);
    for link in &links {
        let answer = app.follow(link);
        assert!(!took(&answer), "{answer:?}");
    }
}
