//! Letters when something is in the way: the mail server, the store, a courier that dies.

use std::collections::VecDeque;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use async_trait::async_trait;
use baton_core::letter::{Letter, MailError, Mailer, Occasion};
use baton_engine::{Delivered, deliver};
use baton_store::faulty::{Fault, Operation};
use parking_lot::Mutex;
use serde_json::json;

use crate::letterbox::{
    ANN, APP, DAY, HOUR, Link, MINUTE, Mailed, NEW, Parts, assert_page, by_token, confirming, everything, held,
    landing, settings,
};
use crate::support::PASSWORD;

const LEASE: Duration = Duration::from_secs(5 * 60);
const EVERY_FAULT: [Fault; 4] =
    [Fault::Unavailable, Fault::Unusable, Fault::UncertainNotApplied, Fault::UncertainApplied];

/// A mail server that fails as it is told, and remembers what it was handed.
#[derive(Default)]
struct MailServer {
    faults: Mutex<VecDeque<bool>>,
    refused: Mutex<Vec<Letter>>,
    taken: Mutex<Vec<Letter>>,
}

impl MailServer {
    /// Refuses this many letters for now.
    fn away(&self, times: usize) {
        self.faults.lock().extend(vec![true; times]);
    }

    /// Refuses the next letter for good.
    fn refuse(&self) {
        self.faults.lock().push_back(false);
    }

    fn taken(&self) -> Vec<Occasion> {
        self.taken.lock().iter().map(|letter| letter.occasion).collect()
    }

    fn last_link(&self) -> Link {
        link(self.taken.lock().last().expect("a letter"))
    }
}

fn link(letter: &Letter) -> Link {
    Link::parse(letter.link.as_ref().expect("a link"))
}

#[async_trait]
impl Mailer for MailServer {
    async fn send(&self, letter: &Letter) -> Result<(), MailError> {
        let fault = self.faults.lock().pop_front();
        let kept = if fault.is_some() { &self.refused } else { &self.taken };
        kept.lock().push(letter.clone());
        match fault {
            None => Ok(()),
            Some(true) => Err(MailError::Later("busy".into())),
            Some(false) => Err(MailError::Never("no such mailbox".into())),
        }
    }
}

fn with_server(settings: baton_engine::Settings) -> (Mailed, Arc<MailServer>) {
    let server = Arc::new(MailServer::default());
    let app = Parts { settings: Some(settings), mailer: Some(server.clone()), ..Parts::default() }.start();
    (app, server)
}

const SENT: Delivered = Delivered { sent: 1, dropped: 0, postponed: 0 };
const DROPPED: Delivered = Delivered { sent: 0, dropped: 1, postponed: 0 };
const POSTPONED: Delivered = Delivered { sent: 0, dropped: 0, postponed: 1 };
const NOTHING: Delivered = Delivered { sent: 0, dropped: 0, postponed: 0 };

#[test]
fn a_letter_waits_until_the_mail_server_is_back_and_its_link_is_fresh_then() {
    let (app, server) = with_server(settings());
    app.register(ANN);
    server.away(12);
    assert_eq!(app.ask("/auth/password", ANN).status, 200, "answered at once");
    let mut waited = Duration::ZERO;
    for attempt in 0..12 {
        assert_eq!(app.post_office(), POSTPONED, "{attempt}");
        let pause = (Duration::from_secs(5) * 2_u32.pow(attempt)).min(HOUR);
        app.advance(pause - Duration::from_millis(1));
        assert_eq!(app.post_office(), NOTHING, "{attempt}: not before its time");
        app.advance(Duration::from_millis(1));
        waited += pause;
    }
    assert!(waited > HOUR, "longer than a link is good: {waited:?}");
    assert_eq!(app.post_office(), SENT);
    app.advance(DAY);
    assert_eq!(app.post_office(), NOTHING, "once");
    assert_eq!(server.taken(), [Occasion::ResetPassword]);

    let (app, server) = with_server(settings());
    app.register(ANN);
    server.away(3);
    app.ask("/auth/password", ANN);
    for _ in 0..4 {
        app.post_office();
        app.advance(MINUTE);
    }
    for refused in &*server.refused.lock() {
        assert_page(&app.follow(&link(refused)), 404);
    }
    landing(&app.follow(&server.last_link()));
}

#[test]
fn a_letter_that_is_refused_for_good_is_dropped() {
    let (app, server) = with_server(settings());
    app.register(ANN);
    server.refuse();
    app.ask("/auth/password", ANN);
    assert_eq!(app.post_office(), DROPPED);
    app.advance(DAY);
    assert_eq!(app.post_office(), NOTHING);
    assert_page(&app.follow(&link(&server.refused.lock()[0])), 404);
    assert!(app.kinds().iter().all(|kind| kind.as_str() != "password_reset_requested"));
}

#[test]
fn nobody_is_written_to_who_is_not_there_or_has_nothing_to_do() {
    let (app, server) = with_server(everything());
    for path in ["/auth/password", "/auth/confirmation", "/auth/unlock"] {
        assert_eq!(app.ask(path, "nobody@example.com").status, 200);
        assert_eq!(app.post_office(), DROPPED, "{path}");
    }
    app.enrol(ANN);
    app.post_office();
    app.follow(&server.last_link());
    app.ask("/auth/confirmation", ANN);
    assert_eq!(app.post_office(), DROPPED, "confirmed already");
    // The account goes while its letter waits.
    for path in ["/auth/password", "/auth/unlock"] {
        app.ask(path, ANN);
    }
    let held = app.sign_in(ANN);
    assert_eq!(app.delete("/auth").held(&held).send().status, 200);
    assert_eq!(app.post_office(), Delivered { dropped: 2, ..NOTHING });
    assert_eq!(server.taken(), [Occasion::ConfirmEmail]);
}

/// A request that cannot be carried out is answered so, and nothing of it happens.
#[test]
fn a_request_that_the_store_does_not_take_leaves_nothing_behind() {
    let (app, server) = with_server(confirming());
    let register = json!({ "email": "new@example.com", "password": PASSWORD, "confirm_success_url": APP });
    assert_eq!(app.enrol(ANN).status, 200);
    app.post_office();
    landing(&app.follow(&server.last_link()));
    let session = app.sign_in(ANN);
    app.get_as(&session, "/me").send();
    let change = json!({ "email": "other@example.com", "confirm_success_url": APP });
    let password = json!({ "password": NEW, "password_confirmation": NEW, "current_password": PASSWORD });
    for fault in [Fault::Unavailable, Fault::Unusable, Fault::UncertainNotApplied] {
        let (taken, events) = (server.taken(), app.kinds());
        for (operation, call) in [
            (Operation::Record, app.post_to("/auth/password", &json!({ "email": ANN, "redirect_url": APP }))),
            (Operation::Record, app.post_to("/auth/confirmation", &json!({ "email": ANN }))),
            (Operation::FindLogin, app.post_to("/auth", &register)),
            (Operation::CreateAccount, app.post_to("/auth", &register)),
            (Operation::UpdateAccount, app.put("/auth", &change).held(&session)),
            (Operation::UpdateAccount, app.put("/auth/password", &password).held(&session)),
        ] {
            app.store.fail_next(operation, fault);
            let answer = call.send();
            assert_eq!(answer.refusal(), (503, "unavailable".into()), "{operation:?} {fault:?} {answer:?}");
            assert_eq!(app.post_office(), NOTHING, "{operation:?} {fault:?}");
        }
        assert_eq!((server.taken(), app.kinds()), (taken, events), "{fault:?}");
        assert_eq!(app.signs_in("new@example.com", PASSWORD).code(), "bad_credentials");
        assert_eq!(app.signs_in(ANN, PASSWORD).status, 200);
    }
}

/// Whatever fails while a letter is written, it is written later.
#[test]
fn a_letter_that_could_not_be_written_is_written_later() {
    for fault in EVERY_FAULT {
        for operation in [Operation::FindLogin, Operation::CreateOneTime] {
            let (app, server) = with_server(settings());
            app.register(ANN);
            app.ask("/auth/password", ANN);
            app.store.fail_next(operation, fault);
            assert_eq!(app.post_office(), POSTPONED, "{operation:?} {fault:?}");
            assert_eq!(server.taken(), []);
            app.advance(MINUTE);
            assert_eq!(app.post_office(), SENT, "{operation:?} {fault:?}");
            landing(&app.follow(&server.last_link()));
        }
        // The letter has gone out when the store forgets to say so: out again after the lease, at least once.
        let (app, server) = with_server(settings());
        app.register(ANN);
        app.ask("/auth/password", ANN);
        app.store.fail_next(Operation::Settle, fault);
        assert_eq!(app.post_office(), SENT);
        app.advance(LEASE);
        app.post_office();
        let sent = if fault == Fault::UncertainApplied { 1 } else { 2 };
        assert_eq!(server.taken().len(), sent, "{fault:?}");
        landing(&app.follow(&server.last_link()));
        // The outbox cannot be read.
        app.ask("/auth/password", ANN);
        app.store.fail_next(Operation::Claim, fault);
        assert!(app.block_on(deliver(&[app.auth.engine()])).is_err());
        app.advance(LEASE);
        assert_eq!(app.post_office(), SENT, "{fault:?}");
        // The token of a letter that was not sent cannot be made void: nobody has it.
        server.away(1);
        app.ask("/auth/password", ANN);
        app.store.fail_next(Operation::VoidOneTime, fault);
        assert_eq!(app.post_office(), POSTPONED);
        app.advance(MINUTE);
        assert_eq!(app.post_office(), SENT);
    }
}

/// A link keeps its token when the store fails, and says that it does not know.
#[test]
fn a_link_that_the_store_does_not_take_stays_good() {
    for path in ["/auth/unlock", "/auth/password", "/auth/confirmation"] {
        let (app, server) = with_server(everything());
        app.enrol(ANN);
        app.post_office();
        app.ask(path, ANN);
        assert_eq!(app.post_office(), SENT, "{path}");
        let link = server.last_link();
        for operation in [Operation::FindOneTime, Operation::Redeem] {
            for fault in [Fault::Unavailable, Fault::Unusable, Fault::UncertainNotApplied] {
                app.store.fail_next(operation, fault);
                let answer = app.follow(&link);
                assert_eq!(answer.refusal(), (503, "unavailable".into()), "{path} {operation:?} {answer:?}");
                assert!(answer.header("retry-after").is_some() && answer.header("location").is_none());
            }
        }
        let (_, params) = landing(&app.follow(&link));
        assert_ne!(params.get("account_confirmation_success").map(String::as_str), Some("false"));
    }
    let (app, server) = with_server(by_token());
    app.register(ANN);
    app.ask("/auth/password", ANN);
    app.post_office();
    let token = server.last_link().token().1.to_owned();
    let body = json!({ "password": NEW, "password_confirmation": NEW, "reset_password_token": token });
    for operation in [Operation::FindOneTime, Operation::Redeem] {
        app.store.fail_next(operation, Fault::Unavailable);
        assert_eq!(app.put("/auth/password", &body).send().refusal(), (503, "unavailable".into()));
    }
    // An acknowledgement that was lost: it has happened, and the client is told that nobody knows.
    app.store.fail_next(Operation::Redeem, Fault::UncertainApplied);
    assert_eq!(app.put("/auth/password", &body).send().refusal(), (503, "unavailable".into()));
    assert_eq!(app.put("/auth/password", &body).send().refusal(), (401, "link_invalid".into()));
    assert_eq!(app.signs_in(ANN, NEW).status, 200);
}

#[test]
fn what_a_courier_was_carrying_when_it_died_goes_out_again() {
    for on_file in [false, true] {
        let app = Parts { on_file, ..Parts::default() }.start();
        app.register(ANN);
        app.ask("/auth/password", ANN);
        app.block_on(async {
            let mut held = app.store.hold_before(Operation::Settle);
            let engines = [app.auth.engine()];
            tokio::select! {
                _ = deliver(&engines) => panic!("it was to be held"),
                () = held.reached() => {}
            }
        });
        let first = Link::of(app.mailbox.list().first().expect("it was sent"));
        app.advance(LEASE - Duration::from_millis(1));
        assert_eq!(app.post(), [], "it may still be on its way");
        app.advance(Duration::from_millis(1));
        let second = app.link(Occasion::ResetPassword);
        assert_ne!(first.token(), second.token());
        app.advance(DAY);
        assert_eq!(app.post(), []);
        assert_page(&app.follow(&second), 404);
        // Either is good, and one of them.
        let again = app.asked("/auth/password", ANN);
        assert!(app.works(&held(&landing(&app.follow(&again)).1)));
    }
}

#[test]
fn of_two_links_for_the_same_either_is_good_and_one_of_them() {
    let app = Mailed::with(settings());
    app.register(ANN);
    app.ask("/auth/password", ANN);
    app.store.fail_next(Operation::Settle, Fault::Unavailable);
    let first = app.link(Occasion::ResetPassword);
    app.advance(LEASE);
    let second = app.link(Occasion::ResetPassword);
    landing(&app.follow(&first));
    assert_page(&app.follow(&second), 404);
}

#[test]
fn several_couriers_send_each_letter_once() {
    const LETTERS: usize = 20;
    for on_file in [false, true] {
        let app = Parts { on_file, ..Parts::default() }.start();
        app.register(ANN);
        for _ in 0..LETTERS {
            app.ask("/auth/password", ANN);
        }
        let start = Barrier::new(4);
        let carry = || {
            start.wait();
            app.post_office().sent
        };
        let sent: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(carry)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!((sent, app.mailbox.list().len()), (LETTERS, LETTERS));
        app.advance(DAY);
        assert_eq!(app.post_office(), NOTHING);
    }
}

#[test]
fn letters_of_a_realm_that_nobody_serves_wait_for_it() {
    let (app, server) = with_server(settings());
    app.register(ANN);
    app.ask("/auth/password", ANN);
    assert_eq!(app.block_on(deliver(&[])).expect("nothing to read"), NOTHING);
    let admins = app.block_on(async {
        let settings = baton_engine::Settings { realm: "admin".into(), ..settings() };
        let random = Arc::new(baton_engine::OsRandom);
        baton_engine::Engine::open(app.store.clone(), crate::support::keys(), random, settings)
            .await
            .expect("an engine")
    });
    assert_eq!(app.block_on(deliver(&[&admins])).expect("an outbox"), POSTPONED);
    app.advance(MINUTE);
    assert_eq!(app.post_office(), SENT);
    landing(&app.follow(&server.last_link()));
}
