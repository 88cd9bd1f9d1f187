//! What is counted. Everything that a round does is fixed: keys, time and random bytes do not come from outside.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use baton_axum::{Auth, AuthService, ClientAddr, HttpSettings};
use baton_core::decide::{Plan, Verdict, complete, decide};
use baton_core::event::Trace;
use baton_core::ports::{Random, RandomError};
use baton_core::session::{Device, NewAccount, NewSession, PasswordHash, Profile, Swapped};
use baton_core::{AccountId, ClientId, Generation, Key, KeyRing, Rules, Session, Store, Timestamp};
use baton_engine::{Attempt, Engine, Grant, Handover, Settings};
use baton_store::clock::ManualClock;
use baton_store::memory::MemoryStore;
use baton_store::sqlite::{SqliteOptions, SqliteStore};
use http::{Request, Response};
use tokio::runtime::Runtime;
use tower_layer::Layer as _;
use tower_service::Service as _;

const UID: &str = "someone@example.com";
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// Longer than the batch window.
const PAUSE: Duration = Duration::from_secs(10);
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

type Error = Box<dyn std::error::Error>;
/// A round.
type Round = Box<dyn FnMut() -> Result<(), Error>>;

/// Makes one.
type Case = fn() -> Result<Round, Error>;

const CASES: [(&str, Case); 10] = [
    ("token: derive", derive),
    ("token: verify", verify),
    ("rule: decide and complete, rotating", rule),
    ("engine, memory: authenticate and complete, rotating", || engine(PAUSE)),
    ("engine, memory: authenticate and complete, in a batch", || engine(Duration::ZERO)),
    ("layer, memory: a request, rotating", || layer(PAUSE)),
    ("layer, memory: a request, in a batch", || layer(Duration::ZERO)),
    ("layer, memory: a request with a forged token", forged),
    ("sqlite: find", || sqlite(false)),
    ("sqlite: find and swap", || sqlite(true)),
];

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|(name, _)| *name)
}

/// Runs rounds of the case with this name.
pub(crate) fn run(name: &str, rounds: u32) -> Result<(), String> {
    let (_, case) = CASES.iter().find(|(known, _)| *known == name).ok_or_else(|| format!("no such case: {name}"))?;
    let failed = |error: Error| format!("{name}: {error}");
    let mut round = case().map_err(failed)?;
    (0..rounds).try_for_each(|_| round()).map_err(failed)
}

fn derive() -> Result<Round, Error> {
    let (keys, client) = (keys()?, client());
    let mut generation = Generation::FIRST;
    Ok(Box::new(move || {
        generation = generation.next().ok_or("the last generation")?;
        require(keys.derive(std::hint::black_box(client), generation).expose().len() == 28)
    }))
}

fn verify() -> Result<Round, Error> {
    let (keys, client) = (keys()?, client());
    let token = keys.derive(client, Generation::FIRST);
    Ok(Box::new(move || {
        keys.verify(std::hint::black_box(client), token.expose())?;
        Ok(())
    }))
}

fn rule() -> Result<Round, Error> {
    let (keys, client, rules) = (keys()?, client(), Rules::default());
    let mut session = Session {
        client,
        account: AccountId(1),
        generation: Generation::FIRST,
        handed_out_at: None,
        confirmed: Generation::ZERO,
        created_at: START,
        expires_at: START.plus(rules.token_lifespan),
        last_seen_at: START,
    };
    let genuine = keys.verify(client, keys.derive(client, Generation::FIRST).expose())?;
    session.confirmed = genuine.generation();
    Ok(Box::new(move || {
        let session = std::hint::black_box(&session);
        let Verdict::Accept(plan @ Plan::HandOut { .. }) = decide(session, genuine, false, START, &rules) else {
            return Err("it does not rotate".into());
        };
        std::hint::black_box(complete(session, &plan, &Swapped::Done(START)));
        Ok(())
    }))
}

/// The second request of a session comes `pause` after the first, and so on.
fn engine(pause: Duration) -> Result<Round, Error> {
    let Bench { runtime, clock, keys, store } = Bench::with_memory()?;
    let engine = runtime.block_on(open_engine(store, keys.clone()))?;
    let client = client().to_string();
    let mut token = keys.derive(self::client(), Generation::FIRST).expose().to_owned();
    Ok(Box::new(move || {
        clock.advance(pause);
        let attempt = Attempt { token: &token, client: &client, uid: UID, unbatch: false, ip: Some(FROM) };
        let grant: Grant = runtime.block_on(engine.authenticate(attempt))?;
        match runtime.block_on(engine.complete(&grant)) {
            Handover::Token(credentials) => {
                token.clear();
                token.push_str(credentials.token.expose());
                Ok(())
            }
            Handover::Blank => require(pause.is_zero()),
            Handover::Nothing => Err("the session has ended".into()),
        }
    }))
}

/// As [`engine`], with a request and a response around it. The request is made within the round.
fn layer(pause: Duration) -> Result<Round, Error> {
    let Bench { runtime, clock, keys, store } = Bench::with_memory()?;
    let auth = Auth::new(runtime.block_on(open_engine(store, keys.clone()))?, HttpSettings::default())?;
    let mut service = service(&auth);
    let client = client().to_string();
    let mut token = keys.derive(self::client(), Generation::FIRST).expose().to_owned();
    Ok(Box::new(move || {
        clock.advance(pause);
        let response = runtime.block_on(service.call(request(&token, &client)?))?;
        let next = response.headers().get("access-token").ok_or("no token")?.to_str()?;
        if !next.is_empty() {
            token.clear();
            token.push_str(next);
        }
        require(pause.is_zero() || !next.is_empty())
    }))
}

fn forged() -> Result<Round, Error> {
    let Bench { runtime, keys, store, .. } = Bench::with_memory()?;
    let auth = Auth::new(runtime.block_on(open_engine(store, keys.clone()))?, HttpSettings::default())?;
    let mut service = service(&auth);
    let client = client().to_string();
    let foreign = KeyRing::new(vec![Key::new(0, *b"another example key of 32 bytes!")?])?;
    let token = foreign.derive(self::client(), Generation::FIRST);
    Ok(Box::new(move || {
        let response = runtime.block_on(service.call(request(token.expose(), &client)?))?;
        require(!response.headers().contains_key("access-token"))
    }))
}

/// A read, and a write in place.
fn sqlite(swaps: bool) -> Result<Round, Error> {
    let folder = tempfile::tempdir()?;
    let clock = Arc::new(ManualClock::new(START));
    let options = SqliteOptions::default();
    let path = folder.path().join("baton.db");
    let store = Arc::new(SqliteStore::open(&path, options, clock.clone())?);
    let Bench { runtime, keys, .. } = Bench::over(clock.clone(), store.clone())?;
    let (client, rules) = (client(), Rules::default());
    // A log that gets long is written back by a thread, at any time.
    let (log, mut round) = (rusqlite::Connection::open(&path)?, 0_u32);
    Ok(Box::new(move || {
        let _ = &folder;
        round += 1;
        if swaps && round.is_multiple_of(200) {
            log.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        }
        clock.advance(PAUSE);
        let found = runtime.block_on(store.find(client))?.ok_or("the session is gone")?;
        if !swaps {
            return Ok(());
        }
        let token = keys.derive(client, found.session.generation);
        let genuine = keys.verify(client, token.expose())?;
        let Verdict::Accept(Plan::HandOut { swap, .. }) = decide(&found.session, genuine, false, found.now, &rules)
        else {
            return Err("it does not rotate".into());
        };
        require(matches!(runtime.block_on(store.swap(client, &swap, Some(FROM)))?, Swapped::Done(_)))
    }))
}

/// A store with one account that has one session.
struct Bench {
    runtime: Runtime,
    clock: Arc<ManualClock>,
    keys: KeyRing,
    store: Arc<dyn Store>,
}

impl Bench {
    fn with_memory() -> Result<Self, Error> {
        let clock = Arc::new(ManualClock::new(START));
        Self::over(clock.clone(), Arc::new(MemoryStore::new(clock)))
    }

    fn over(clock: Arc<ManualClock>, store: Arc<dyn Store>) -> Result<Self, Error> {
        // Without timers: they would read the time of day.
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let account = NewAccount {
            realm: "user".into(),
            provider: "email".into(),
            uid: UID.into(),
            email: UID.into(),
            profile: Profile::default(),
            password: PasswordHash::new("none".into()),
        };
        let session = NewSession {
            client: client(),
            renewal: Rules::default().renewal(),
            device: Device::default(),
            max_devices: 10,
            if_password: None,
        };
        runtime.block_on(store.create_account(account, Some(session), &Trace::NONE))?;
        Ok(Self { runtime, clock, keys: keys()?, store })
    }
}

fn open_engine(
    store: Arc<dyn Store>,
    keys: KeyRing,
) -> impl Future<Output = Result<Engine, baton_engine::EngineError>> {
    Engine::open(store, keys, Arc::new(Fixed), Settings::default())
}

fn keys() -> Result<KeyRing, Error> {
    Ok(KeyRing::new(vec![Key::new(0, *b"an example key of 32 bytes only!")?])?)
}

fn client() -> ClientId {
    ClientId::from_bytes(*b"a session's name")
}

/// Not random.
struct Fixed;

impl Random for Fixed {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        bytes.fill(7);
        Ok(())
    }
}

type Answer = std::future::Ready<Result<Response<Body>, Infallible>>;

type Handler = fn(Request<Body>) -> Answer;

fn service(auth: &Auth) -> AuthService<tower::util::ServiceFn<Handler>> {
    let answer: Handler = |_| std::future::ready(Ok(Response::new(Body::from("{}"))));
    auth.layer().layer(tower::service_fn(answer))
}

/// With as many headers as a browser sends.
fn request(token: &str, client: &str) -> Result<Request<Body>, Error> {
    let request = Request::get("/orders?page=2")
        .header("host", "api.example.com")
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
        .header("accept", "application/json")
        .header("accept-language", "en,de;q=0.5")
        .header("accept-encoding", "gzip, deflate, br")
        .header("origin", "https://app.example.com")
        .header("token-type", "Bearer")
        .header("access-token", token)
        .header("client", client)
        .header("uid", UID)
        .extension(ClientAddr(FROM));
    Ok(request.body(Body::empty())?)
}

fn require(holds: bool) -> Result<(), Error> {
    if holds { Ok(()) } else { Err("not as expected".into()) }
}
