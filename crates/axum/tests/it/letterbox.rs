//! A server that writes letters, with a mailbox where the test reads them. What is due goes out when the test says so.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use baton_axum::{Auth, ClientAddr, HttpSettings, RateLimits, auth_routes};
use baton_core::event::{EventKind, Recorded};
use baton_core::letter::{Mailer, Occasion};
use baton_core::{Key, KeyRing, Store};
use baton_engine::{Delivered, Engine, Lockout, Redirect, RedirectAllowlist, Settings, WebhookSender, deliver};
use baton_mail::{Kept, Mailbox, TemplateSettings, Templates};
use baton_store::clock::ManualClock;
use baton_store::faulty::{FaultyStore, Operation};
use baton_store::memory::MemoryStore;
use baton_store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::{Value, json};

use crate::support::{Answer, Call, Held, PASSWORD, START, TestApp};

pub const HOST: &str = "http://api.example.com";
pub const APP: &str = "https://app.example.com/welcome";
pub const ANN: &str = "ann@example.com";
pub const NEW: &str = "another horse, another battery";
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(60 * 60);
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A [`TestApp`] with a mailbox.
pub struct Mailed {
    app: TestApp,
    pub mailbox: Arc<Mailbox>,
    pub store: Arc<FaultyStore>,
    _folder: Option<tempfile::TempDir>,
}

impl Deref for Mailed {
    type Target = TestApp;

    fn deref(&self) -> &TestApp {
        &self.app
    }
}

/// Letters, and redirects to `https://app.example.com`.
pub fn settings() -> Settings {
    let mut settings = Settings { public_url: format!("{HOST}/auth"), ..Settings::default() };
    settings.redirects.allowlist = RedirectAllowlist::parse(["https://app.example.com"]).expect("an origin");
    settings
}

/// Addresses have to be confirmed.
pub fn confirming() -> Settings {
    let mut settings = settings();
    settings.confirmation.required = true;
    settings
}

/// The reset link hands out its token, and no session.
pub fn by_token() -> Settings {
    let mut settings = settings();
    settings.reset.require_client_token = true;
    settings
}

/// A lock after three sign-ins that failed.
pub fn locking() -> Settings {
    Settings { lockout: Some(Lockout { max_attempts: 3, ..Lockout::default() }), ..settings() }
}

/// Everything that has routes of its own.
pub fn everything() -> Settings {
    Settings { lockout: locking().lockout, ..confirming() }
}

pub fn redirect(url: &str) -> Option<Redirect> {
    Some(Redirect::parse(url).expect("a redirect"))
}

/// What a [`Mailed`] is made of; the rest is as usual.
#[derive(Default)]
pub struct Parts {
    pub settings: Option<Settings>,
    pub http: HttpSettings,
    /// In place of the mailbox.
    pub mailer: Option<Arc<dyn Mailer>>,
    pub webhooks: Option<Arc<dyn WebhookSender>>,
    /// On a SQLite file instead of in memory.
    pub on_file: bool,
    /// The default rate limits.
    pub limited: bool,
}

impl Mailed {
    pub fn with(settings: Settings) -> Self {
        Parts { settings: Some(settings), ..Parts::default() }.start()
    }

    /// Sends everything that is due, and says what came of it.
    pub fn post_office(&self) -> Delivered {
        self.block_on(deliver(&[self.auth.engine()])).expect("an outbox")
    }

    /// The letters that were due, in the order of their coming.
    pub fn letters(&self) -> Vec<Arc<Kept>> {
        self.mailbox.clear();
        self.post_office();
        let mut letters = self.mailbox.list();
        letters.reverse();
        letters
    }

    /// Why the letters that were due were written, and to whom.
    pub fn post(&self) -> Vec<(Occasion, String)> {
        self.letters().iter().map(|letter| (letter.occasion, letter.mail.to.clone())).collect()
    }

    /// The link of the one letter on this occasion that was due.
    #[track_caller]
    pub fn link(&self, occasion: Occasion) -> Link {
        let letters: Vec<_> = self.letters().into_iter().filter(|letter| letter.occasion == occasion).collect();
        let [letter] = &*letters else { panic!("not one letter: {letters:?}") };
        Link::of(letter)
    }

    /// Asks for a letter with a link.
    pub fn ask(&self, path: &str, email: &str) -> Answer {
        self.post_to(path, &json!({ "email": email, "redirect_url": APP })).send()
    }

    /// The link of a letter that is asked for.
    #[track_caller]
    pub fn asked(&self, path: &str, email: &str) -> Link {
        let answer = self.ask(path, email);
        assert_eq!(answer.status, 200, "{answer:?}");
        self.link(match path {
            "/auth/password" => Occasion::ResetPassword,
            "/auth/unlock" => Occasion::UnlockAccount,
            _ => Occasion::ConfirmEmail,
        })
    }

    pub fn post_to(&self, path: &str, body: &Value) -> Call {
        self.app.post(path, body)
    }

    pub fn follow(&self, link: &Link) -> Answer {
        self.get(&link.path()).send()
    }

    /// Registers where the address has to be confirmed.
    pub fn enrol(&self, email: &str) -> Answer {
        let body = json!({ "email": email, "password": PASSWORD, "confirm_success_url": APP });
        self.post_to("/auth", &body).send()
    }

    pub fn signs_in(&self, email: &str, password: &str) -> Answer {
        self.post_to("/auth/sign_in", &json!({ "email": email, "password": password })).send()
    }

    pub fn works(&self, held: &Held) -> bool {
        self.get_as(held, "/me").send().status == 200
    }

    pub fn hashed(&self) -> u64 {
        self.auth.engine().hashing_load().computed
    }

    /// All recorded events.
    pub fn events(&self) -> Vec<Recorded> {
        self.block_on(self.store.inner().events(0, 10_000)).expect("events")
    }

    /// The kinds of those that were recorded after the event of this number.
    pub fn kinds(&self) -> Vec<EventKind> {
        self.events().iter().map(|recorded| recorded.event.kind).collect()
    }

    /// How often each operation of the store is called meanwhile.
    pub fn counting<T>(&self, act: impl FnOnce() -> T) -> (T, BTreeMap<Operation, u64>) {
        self.store.reset_calls();
        let result = act();
        let calls = OPERATIONS.iter().map(|operation| (*operation, self.store.calls(*operation)));
        (result, calls.filter(|(_, count)| *count > 0).collect())
    }
}

/// What a request may ask of a store.
pub const OPERATIONS: [Operation; 16] = [
    Operation::Find,
    Operation::Swap,
    Operation::CreateAccount,
    Operation::FindLogin,
    Operation::UpdateAccount,
    Operation::DeleteAccount,
    Operation::CreateSession,
    Operation::EndSession,
    Operation::Sessions,
    Operation::CreateOneTime,
    Operation::FindOneTime,
    Operation::Redeem,
    Operation::VoidOneTime,
    Operation::CountAttempt,
    Operation::ForgetAttempts,
    Operation::Record,
];

impl Parts {
    /// The client's address is taken from `x-from`.
    pub fn start(self) -> Mailed {
        let Self { settings: given, mut http, mailer, webhooks, on_file, limited } = self;
        let clock = Arc::new(ManualClock::new(START));
        let folder = on_file.then(|| tempfile::tempdir().expect("a temporary folder"));
        let inner: Arc<dyn Store> = match &folder {
            Some(folder) => {
                let path = folder.path().join("baton.sqlite");
                Arc::new(SqliteStore::open(path, SqliteOptions::default(), clock.clone()).expect("a fresh SQLite file"))
            }
            None => Arc::new(MemoryStore::new(clock.clone())),
        };
        let store = Arc::new(FaultyStore::new(inner));
        let templates = Templates::load(&TemplateSettings::default()).expect("the built-in templates");
        let mailbox = Arc::new(Mailbox::new(Arc::new(templates), clock.clone()));
        if limited {
            http.rate_limits = Some(RateLimits::new(clock.clone()));
        }
        let mailer = mailer.unwrap_or_else(|| mailbox.clone());
        let equip = |engine: Engine| {
            let engine = engine.with_mailer(mailer);
            match webhooks {
                Some(sender) => engine.with_webhook_sender(sender),
                None => engine,
            }
        };
        let given = given.unwrap_or_else(settings);
        let app = TestApp::equipped(store.clone(), clock, given, http, equip, |protected, auth: &Auth| {
            let routes = protected.layer(auth.layer()).merge(auth_routes("/auth", auth));
            routes.layer(auth.cors()).layer(from_fn(from_header))
        });
        Mailed { app, mailbox, store, _folder: folder }
    }
}

async fn from_header(mut request: Request, next: Next) -> Response {
    let from = request.headers().get("x-from").and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(from) = from {
        request.extensions_mut().insert(ClientAddr(from));
    }
    next.run(request).await
}

/// The link of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// `/auth/…`, without the query.
    pub at: String,
    pub params: BTreeMap<String, String>,
}

impl Link {
    pub fn of(letter: &Kept) -> Self {
        Self::parse(letter.link.as_ref().expect("a letter with a link"))
    }

    pub fn parse(url: &str) -> Self {
        let path = url.strip_prefix(HOST).unwrap_or_else(|| panic!("{url} is not below the public URL"));
        let (at, params) = split(path);
        Self { at, params }
    }

    pub fn path(&self) -> String {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.params).finish();
        format!("{}?{query}", self.at)
    }

    /// The name of its token, and the token.
    pub fn token(&self) -> (&str, &str) {
        let (name, token) = self.params.iter().find(|(name, _)| name.ends_with("_token")).expect("a token");
        (name, token)
    }

    /// With another parameter; without it if that is blank.
    pub fn set(&self, name: &str, value: &str) -> Self {
        let mut link = self.clone();
        link.params.insert(name.into(), value.into());
        link.params.retain(|_, value| !value.is_empty());
        link
    }

    /// With another token.
    pub fn with_token(&self, token: &str) -> Self {
        self.set(self.token().0, token)
    }
}

/// A URL and its parameters; each may be there once.
pub fn split(url: &str) -> (String, BTreeMap<String, String>) {
    let (at, query) = url.split_once('?').unwrap_or((url, ""));
    let mut params = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
        let before = params.insert(name, value);
        assert!(before.is_none(), "a parameter twice: {url}");
    }
    (at.to_owned(), params)
}

/// Where a landing leads, and with which parameters. No landing may be kept by a cache or named to another site.
#[track_caller]
pub fn landing(answer: &Answer) -> (String, BTreeMap<String, String>) {
    assert_eq!(answer.status, 302, "{answer:?}");
    assert_private(answer);
    assert!(answer.text.is_empty() && answer.has_no_auth_headers(), "{answer:?}");
    split(answer.header("location").expect("a location"))
}

/// It is a page for people, and says what there is to say.
#[track_caller]
pub fn assert_page(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_private(answer);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{answer:?}");
    assert!(answer.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
    assert!(answer.header("location").is_none() && answer.header("set-cookie").is_none(), "{answer:?}");
    assert!(answer.has_no_auth_headers() && answer.text.contains("<h1>"), "{answer:?}");
}

#[track_caller]
pub fn assert_private(answer: &Answer) {
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{answer:?}");
}

/// The session in a landing URL.
#[track_caller]
pub fn held(params: &BTreeMap<String, String>) -> Held {
    let get = |name: &str| params.get(name).unwrap_or_else(|| panic!("no {name} in {params:?}")).clone();
    Held {
        token: get("access-token"),
        client: get("client"),
        uid: get("uid"),
        expiry: get("expiry").parse().expect("Unix seconds"),
    }
}

/// A ring with another secret.
pub fn other_keys() -> KeyRing {
    KeyRing::new(vec![Key::new(0, *b"another secret, of the same size").expect("id in range")]).expect("a ring")
}
