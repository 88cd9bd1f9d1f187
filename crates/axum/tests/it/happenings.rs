//! Events: each is recorded when it happens and not otherwise, goes to the webhooks that want it, and tells no secret.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use baton_core::event::{Event, EventKind, Recorded};
use baton_core::letter::Occasion;
use baton_engine::{Settings, Webhook, WebhookError, WebhookSender};
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

use crate::letterbox::{
    ANN, DAY, HOUR, Link, MINUTE, Mailed, NEW, Parts, everything, held, landing, locking, settings,
};
use crate::support::{Held, PASSWORD};

use EventKind::{
    AccountChanged, AccountDeleted, Confirmed, EmailChangeRequested, EmailChanged, Locked, PasswordChanged,
    PasswordResetRequested, Registered, ReuseDetected, SessionEnded, SignInFailed, SignedIn, SignedOut, Unlocked,
};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What is recorded meanwhile.
fn during<T>(app: &Mailed, act: impl FnOnce() -> T) -> (T, Vec<Event>) {
    let before = app.events().len();
    let result = act();
    (result, app.events().split_off(before).into_iter().map(|recorded| recorded.event).collect())
}

/// These and no others are recorded meanwhile, of Ann's account and from here.
#[track_caller]
fn leaves<T>(app: &Mailed, kinds: &[EventKind], act: impl FnOnce() -> T) -> T {
    let (result, events) = during(app, act);
    assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), kinds);
    for event in events {
        assert_eq!((&*event.realm, event.device.ip), ("user", Some(HERE)), "{event:?}");
        assert!(event.account.is_some() && event.uid.as_deref() == Some(ANN), "{event:?}");
    }
    result
}

/// The session that the last event names.
fn client(app: &Mailed) -> Option<String> {
    app.events().last().and_then(|recorded| recorded.event.client).map(|client| client.to_string())
}

fn put(app: &Mailed, path: &str, held: &Held, body: &Value) -> u16 {
    app.put(path, body).held(held).send().status
}

#[test]
fn what_happens_in_a_session_is_recorded() {
    let app = Mailed::with(settings());
    let first = leaves(&app, &[Registered], || app.register(ANN));
    assert_eq!(client(&app), Some(first.client.clone()));
    leaves(&app, &[], || app.post_to("/auth", &json!({ "email": ANN, "password": PASSWORD })).send());
    let second = leaves(&app, &[SignedIn], || app.sign_in(ANN));
    assert_eq!(client(&app), Some(second.client.clone()));
    leaves(&app, &[SignInFailed], || app.signs_in(ANN, "not it at all"));
    assert_eq!(client(&app), None);
    leaves(&app, &[], || app.post_to("/auth/sign_in", &json!({ "email": ANN })).send());
    leaves(&app, &[], || app.get_as(&first, "/me").send());

    leaves(&app, &[AccountChanged], || assert_eq!(put(&app, "/auth", &first, &json!({ "name": "Ann" })), 200));
    assert_eq!(client(&app), Some(first.client.clone()));
    let refused = json!({ "name": "Ann", "email": "no address" });
    leaves(&app, &[], || assert_eq!(put(&app, "/auth", &first, &refused), 422));
    let change = |current: &str| json!({ "password": NEW, "password_confirmation": NEW, "current_password": current });
    leaves(&app, &[], || assert_eq!(put(&app, "/auth/password", &first, &change("wrong")), 422));

    let path = format!("/auth/sessions/{}", second.client);
    leaves(&app, &[SessionEnded], || app.delete(&path).held(&first).send());
    assert_eq!(client(&app), Some(second.client.clone()));
    leaves(&app, &[], || app.delete(&path).held(&first).send());
    let both = json!({ "name": "A", "password": NEW, "current_password": PASSWORD, "email": "new@example.com" });
    leaves(&app, &[AccountChanged, PasswordChanged, EmailChangeRequested], || {
        assert_eq!(put(&app, "/auth", &first, &both), 200);
    });
    let third = app.signs_in(ANN, NEW).held().expect("it signs in");
    leaves(&app, &[SignedOut], || app.delete("/auth/sign_out").held(&third).send());
    assert_eq!(client(&app), Some(third.client.clone()));
    leaves(&app, &[], || app.delete("/auth/sign_out").held(&third).send());
    leaves(&app, &[AccountDeleted], || app.delete("/auth").held(&first).send());
    leaves(&app, &[], || app.delete("/auth").held(&first).send());
}

#[test]
fn what_happens_by_letter_is_recorded() {
    let app = Mailed::with(everything());
    leaves(&app, &[Registered], || app.enrol(ANN));
    assert_eq!(client(&app), None);
    leaves(&app, &[], || app.enrol(ANN));
    let link = leaves(&app, &[], || app.link(Occasion::ConfirmEmail));
    leaves(&app, &[SignInFailed], || app.signs_in(ANN, PASSWORD));
    leaves(&app, &[], || app.follow(&link.with_token("x")));
    leaves(&app, &[], || app.request(Method::HEAD, &link.path()).send());
    leaves(&app, &[Confirmed], || app.follow(&link));
    leaves(&app, &[], || app.follow(&link));

    leaves(&app, &[SignInFailed, SignInFailed, SignInFailed, Locked], || {
        (0..3).for_each(|_| drop(app.signs_in(ANN, "not it at all")));
    });
    leaves(&app, &[SignInFailed], || app.signs_in(ANN, PASSWORD));
    let page = app.link(Occasion::UnlockAccount);
    leaves(&app, &[Unlocked], || app.follow(&page));
    let link = leaves(&app, &[], || app.asked("/auth/unlock", ANN));
    let answer = leaves(&app, &[Unlocked, SignedIn], || app.follow(&link));
    assert_eq!(client(&app), Some(held(&landing(&answer).1).client));

    let ((), events) = during(&app, || assert_eq!(app.ask("/auth/password", ANN).status, 200));
    assert_eq!(events, [], "nobody has looked yet whether there is such an account");
    let (link, events) = during(&app, || app.link(Occasion::ResetPassword));
    assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), [PasswordResetRequested]);
    assert_eq!(events[0].uid.as_deref(), Some(ANN));
    let session = held(&landing(&leaves(&app, &[SignedIn], || app.follow(&link))).1);
    leaves(&app, &[], || app.follow(&link));
    let change = json!({ "email": "new@example.com" });
    leaves(&app, &[EmailChangeRequested], || assert_eq!(put(&app, "/auth", &session, &change), 200));
    let link = app.link(Occasion::ConfirmNewEmail);
    leaves(&app, &[EmailChanged], || app.follow(&link));

    let mut settings = settings();
    settings.reset.require_client_token = true;
    let app = Mailed::with(settings);
    app.register(ANN);
    let link = app.asked("/auth/password", ANN);
    leaves(&app, &[], || app.follow(&link));
    let mut body = json!({ "password": "short", "password_confirmation": "short" });
    body["reset_password_token"] = link.token().1.into();
    leaves(&app, &[], || assert_eq!(app.put("/auth/password", &body).send().status, 422));
    (body["password"], body["password_confirmation"]) = (NEW.into(), NEW.into());
    leaves(&app, &[PasswordChanged, SignedIn], || assert_eq!(app.put("/auth/password", &body).send().status, 200));
    leaves(&app, &[], || assert_eq!(app.put("/auth/password", &body).send().status, 401));
}

#[test]
fn a_superseded_token_is_recorded_once_a_minute() {
    const WINDOW: Duration = Duration::from_secs(6);
    let app = Mailed::with(settings());
    let stale = app.register(ANN);
    let mut held = stale.clone();
    for _ in 0..3 {
        assert!(held.adopt(&app.get_as(&held, "/me").send()));
        app.advance(WINDOW);
    }
    let present = || assert_eq!(app.get_as(&stale, "/me").send().code(), "token_superseded");
    leaves(&app, &[ReuseDetected], present);
    assert_eq!(client(&app), Some(stale.client.clone()));
    leaves(&app, &[], || (0..10).for_each(|_| present()));
    app.advance(MINUTE);
    leaves(&app, &[ReuseDetected], present);
    assert!(app.works(&held));
}

/// A receiver that is away for as many posts as it is told.
#[derive(Default)]
struct Receiver {
    away: Mutex<u32>,
    got: Mutex<Vec<(String, Recorded)>>,
}

impl Receiver {
    fn got(&self, url: &str) -> Vec<EventKind> {
        self.got.lock().iter().filter(|(to, _)| to == url).map(|(_, recorded)| recorded.event.kind).collect()
    }
}

#[async_trait]
impl WebhookSender for Receiver {
    async fn post(&self, url: &str, event: &Recorded) -> Result<(), WebhookError> {
        let mut away = self.away.lock();
        if *away > 0 {
            *away -= 1;
            return Err(WebhookError("busy".into()));
        }
        self.got.lock().push((url.to_owned(), event.clone()));
        Ok(())
    }
}

const ALL: &str = "https://hooks.example.com/all";
const SOME: &str = "https://hooks.example.com/some";

fn with_webhooks(settings: Settings) -> (Mailed, Arc<Receiver>) {
    let webhooks = vec![
        Webhook { url: ALL.into(), events: Vec::new() },
        Webhook { url: SOME.into(), events: vec![PasswordChanged, Locked] },
    ];
    let receiver = Arc::new(Receiver::default());
    let settings = Some(Settings { webhooks, ..settings });
    let app = Parts { settings, webhooks: Some(receiver.clone()), ..Parts::default() }.start();
    (app, receiver)
}

#[test]
fn each_webhook_gets_the_events_that_it_wants() {
    let (app, receiver) = with_webhooks(locking());
    let held = app.register(ANN);
    let change = json!({ "name": "Ann", "password": NEW, "current_password": PASSWORD });
    assert_eq!(put(&app, "/auth", &held, &change), 200);
    (0..3).for_each(|_| drop(app.signs_in("nobody@example.com", "not it at all")));
    app.post_office();
    let all = [Registered, AccountChanged, PasswordChanged, SignInFailed, SignInFailed, SignInFailed, Locked];
    assert_eq!(receiver.got(ALL), all);
    assert_eq!(receiver.got(SOME), [PasswordChanged, Locked]);
    let posted: Vec<Recorded> =
        receiver.got.lock().iter().filter(|(to, _)| to == ALL).map(|(_, recorded)| recorded.clone()).collect();
    assert_eq!(posted, app.events(), "as they were recorded, with the account that was made");
}

#[test]
fn an_event_is_posted_until_it_is_taken() {
    let (app, receiver) = with_webhooks(settings());
    *receiver.away.lock() = 3;
    app.register(ANN);
    for pause in [5, 10, 20] {
        assert_eq!(app.post_office().postponed, 1);
        app.advance(Duration::from_secs(pause) - Duration::from_millis(1));
        assert_eq!((app.post_office().postponed, receiver.got(ALL)), (0, vec![]));
        app.advance(Duration::from_millis(1));
    }
    assert_eq!((app.post_office().sent, receiver.got(ALL)), (1, vec![Registered]));
    app.advance(DAY);
    assert_eq!((app.post_office().sent, receiver.got(ALL)), (0, vec![Registered]));
    // One that stays away does not keep the others waiting.
    *receiver.away.lock() = 1;
    app.ask("/auth/password", ANN);
    app.sign_in(ANN);
    let delivered = app.post_office();
    assert_eq!((delivered.sent, delivered.postponed), (2, 1), "{delivered:?}");
    app.advance(HOUR);
    assert_eq!(app.post_office().sent, 1);
    let mut got = receiver.got(ALL);
    got.sort();
    assert_eq!(got, [Registered, SignedIn, PasswordResetRequested]);
}

/// All that this process writes into its log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        let crates = ["baton_core", "baton_engine", "baton_axum", "baton_store", "baton_mail"];
        let filter = crates.map(|name| format!("{name}=trace")).join(",");
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(move || writer.clone());
        subscriber.try_init().expect("the only subscriber");
        log
    })
}

#[test]
fn neither_events_nor_the_log_tell_a_secret() {
    let log = log();
    let (app, receiver) = with_webhooks(everything());
    let mut secrets = vec![PASSWORD.to_owned(), NEW.to_owned(), "a guess that failed".to_owned()];
    app.enrol(ANN);
    let follow = |link: &Link, secrets: &mut Vec<String>| {
        secrets.push(link.token().1.to_owned());
        let answer = app.follow(link);
        for name in ["access-token", "token"] {
            secrets.extend(landing(&answer).1.get(name).cloned());
        }
        app.follow(link);
        landing(&answer).1
    };
    follow(&app.link(Occasion::ConfirmEmail), &mut secrets);
    (0..4).for_each(|_| drop(app.signs_in(ANN, "a guess that failed")));
    secrets.push(app.link(Occasion::UnlockAccount).token().1.to_owned());
    follow(&app.asked("/auth/unlock", ANN), &mut secrets);
    let mut session = held(&follow(&app.asked("/auth/password", ANN), &mut secrets));
    let stale = session.clone();
    for _ in 0..3 {
        session.adopt(&app.get_as(&session, "/me").send());
        secrets.push(session.token.clone());
        app.advance(MINUTE);
    }
    app.get_as(&stale, "/me").send();
    app.store.fail_next(baton_store::faulty::Operation::Find, baton_store::faulty::Fault::Unavailable);
    app.get_as(&session, "/me").send();
    let body = json!({ "password": NEW, "password_confirmation": NEW, "current_password": PASSWORD });
    assert_eq!(put(&app, "/auth/password", &session, &body), 200);
    assert_eq!(put(&app, "/auth", &session, &json!({ "email": "new@example.com" })), 200);
    let link = app.link(Occasion::ConfirmNewEmail);
    secrets.push(link.token().1.to_owned());
    app.follow(&link);
    app.post_office();

    let login = app.block_on(app.store.inner().find_login("user", "email", "new@example.com")).expect("a store");
    secrets.push(login.expect("an account").password.expose().to_owned());
    let log = String::from_utf8(log.0.lock().clone()).expect("UTF-8");
    let (events, posted) = (format!("{:?}", app.events()), format!("{:?}", receiver.got.lock()));
    assert!(log.contains("letter sent") && log.contains("signed_in") && posted.contains("SignedIn"), "{log}");
    assert!(secrets.len() > 12);
    for secret in &secrets {
        for (place, text) in [("log", &log), ("events", &events), ("webhooks", &posted)] {
            assert!(!text.contains(secret.as_str()), "{secret} is in the {place}");
        }
    }
    // Nor do they say to whom letters go, or what was typed.
    assert!(!log.contains("new@example.com") && !log.contains("password/edit?"), "{log}");
}
