//! Sessions in Redis, by themselves: what is said to it, and what it answers.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baton_core::clock::{Timestamp, millis};
use baton_core::error::StoreError;
use baton_core::ports::Random;
use baton_core::session::{Account, AccountId, Session, Swap, Swapped};
use baton_core::token::ClientId;
use parking_lot::Mutex;
use redis::FromRedisValue;
use tokio::time::Instant;

use super::error::{unavailable, unusable};
use super::link::{Kind, Links, Lua, Operation};
use super::options::RedisOptions;
use super::record::{self, Record};

/// How long a session that is over is still known as such, unless it is purged before. Redis removes it by itself then.
const AFTERLIFE: Duration = Duration::from_secs(60 * 60);
/// Numbers of Lua are exact below this.
const EXACT: i64 = 1 << 52;

static FIND: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("find.lua")));
static SWAP: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("swap.lua")));
static OPEN: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("open.lua")));
static REFRESH: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("refresh.lua")));
static CLOSE: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("close.lua")));
static CHECK: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("check.lua")));

pub(super) struct Sessions {
    pub(super) links: Links,
    prefix: String,
    recheck: u64,
    pub(super) time: Time,
    /// With it and a number, an operation has a name that no other one has, of whichever node.
    node: u64,
    operations: AtomicU64,
}

/// A session that was found.
pub(super) struct Stored {
    pub(super) record: Record,
    /// Not before any time that this node has seen.
    pub(super) now: Timestamp,
    /// Whether it has to be looked for in the registry again.
    pub(super) unverified: bool,
}

impl Sessions {
    pub(super) fn new(options: &RedisOptions, random: &dyn Random) -> Result<Self, StoreError> {
        let mut node = [0; 8];
        random.fill(&mut node).map_err(|error| unavailable(error.to_string()))?;
        Self::named(options, u64::from_ne_bytes(node))
    }

    /// `node` has to be unlike that of any other node.
    pub(super) fn named(options: &RedisOptions, node: u64) -> Result<Self, StoreError> {
        Ok(Self {
            links: Links::new(options)?,
            prefix: options.prefix.clone(),
            recheck: millis(options.recheck).unsigned_abs(),
            time: Time::new(),
            node,
            operations: AtomicU64::new(0),
        })
    }

    pub(super) async fn find(&self, client: ClientId) -> Result<Option<Stored>, StoreError> {
        let ((seconds, micros), values): ((i64, i64), Vec<Option<Vec<u8>>>) =
            self.run("find a session", &FIND, client, Vec::new(), Kind::Read).await?;
        let time = seconds.saturating_mul(1_000).saturating_add(micros / 1_000);
        let record = Record::read(client, values)?;
        Ok(record.map(|record| {
            let session = &record.session;
            let latest = session.last_seen_at.max(session.created_at).max(Timestamp::from_millis(time));
            // A clock that was set back must not put it off either.
            let unverified = time.abs_diff(record.verified_at) >= self.recheck;
            Stored { now: self.time.observe(latest), unverified, record }
        }))
    }

    pub(super) async fn swap(
        &self,
        client: ClientId,
        swap: &Swap,
        seen_from: Option<IpAddr>,
    ) -> Result<Swapped, StoreError> {
        let expect = swap.expect;
        let span = |span: Duration| match millis(span) {
            long if long >= EXACT => "inf".to_owned(),
            span => span.to_string(),
        };
        let args = [
            self.name_operation(),
            self.time.now().as_millis().to_string(),
            expect.generation.get().to_string(),
            record::optional(expect.handed_out_at),
            expect.confirmed.get().to_string(),
            swap.generation.get().to_string(),
            swap.confirmed.get().to_string(),
            swap.hand_out.map(|renewal| span(renewal.lifespan)).unwrap_or_default(),
            swap.hand_out.map(|renewal| span(renewal.max_lifetime)).unwrap_or_default(),
            seen_from.map(|ip| ip.to_string()).unwrap_or_default(),
            millis(AFTERLIFE).to_string(),
        ];
        let kind = if swap.resends() { Kind::Durable } else { Kind::Relaxed };
        let mut answer: Vec<Option<Vec<u8>>> = self.run("swap", &SWAP, client, texts(args), kind).await?;
        match answer.first_mut().map(Option::take) {
            None => Ok(Swapped::Gone),
            Some(made) if made.as_deref() == Some(b"1") => {
                let at = answer.get(1).and_then(Option::as_deref).and_then(|at| std::str::from_utf8(at).ok());
                let at = at.and_then(|at| at.parse().ok()).ok_or_else(|| unusable("swap: no time"))?;
                let at = Timestamp::from_millis(at);
                self.time.observe(at);
                Ok(Swapped::Done(at))
            }
            Some(_) => {
                answer.remove(0);
                record::moved(client, answer).map(Swapped::Moved)
            }
        }
    }

    /// Adds a session that is in the registry, unless it is there. If Redis forgets it, it is found in the registry again.
    pub(super) async fn open(
        &self,
        session: &Session,
        ip: Option<IpAddr>,
        account: &Account,
    ) -> Result<(), StoreError> {
        let end = session.expires_at.as_millis();
        let forget = if end < EXACT { (end + millis(AFTERLIFE)).to_string() } else { String::new() };
        let mut args = texts([forget]);
        args.extend(record::session(session, ip));
        args.extend(record::account(account));
        self.run::<i64>("open a session", &OPEN, session.client, args, Kind::Relaxed).await.map(drop)
    }

    /// The session was just found in the registry, and this is its account.
    pub(super) async fn refresh(&self, client: ClientId, account: &Account) -> Result<(), StoreError> {
        let mut args = texts([account.updated_at.as_millis().to_string()]);
        args.extend(record::account(account));
        self.run::<i64>("refresh a session", &REFRESH, client, args, Kind::Relaxed).await.map(drop)
    }

    /// Ends a session, of this account if one is given. Whether there was one.
    pub(super) async fn close(&self, client: ClientId, account: Option<AccountId>) -> Result<bool, StoreError> {
        let args = texts([account.map(|account| account.0.to_string()).unwrap_or_default()]);
        self.run("end a session", &CLOSE, client, args, Kind::Durable).await
    }

    /// Whether it can be read and written.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let key = format!("{}:check", self.prefix);
        let operation = Operation { doing: "check", script: &CHECK, key: &key, args: Vec::new(), kind: Kind::Relaxed };
        self.links.run::<i64>(&operation).await.map(drop)
    }

    async fn run<T: FromRedisValue>(
        &self,
        doing: &'static str,
        script: &Lua,
        client: ClientId,
        args: Vec<Vec<u8>>,
        kind: Kind,
    ) -> Result<T, StoreError> {
        let key = format!("{}:s:{client}", self.prefix);
        self.links.run(&Operation { doing, script, key: &key, args, kind }).await
    }

    fn name_operation(&self) -> String {
        format!("{:x}.{:x}", self.node, self.operations.fetch_add(1, Ordering::Relaxed))
    }
}

fn texts<const N: usize>(texts: [String; N]) -> Vec<Vec<u8>> {
    texts.into_iter().map(String::into_bytes).collect()
}

/// What this node knows of the store's time: its answers are never before what it has seen, of whichever server.
///
/// If the servers' clocks differ, or one is set back, time goes on from the latest at half its pace until they have caught up:
/// standing still would hold every batch window open.
pub(super) struct Time(Mutex<(i64, Instant)>);

impl Time {
    fn new() -> Self {
        Self(Mutex::new((i64::MIN, Instant::now())))
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millis(floor(*self.0.lock()))
    }

    /// Takes note of a time; the time it is now.
    pub(super) fn observe(&self, time: Timestamp) -> Timestamp {
        let mut seen = self.0.lock();
        let floor = floor(*seen);
        if time.as_millis() >= floor {
            *seen = (time.as_millis(), Instant::now());
            return time;
        }
        Timestamp::from_millis(floor)
    }
}

fn floor((latest, at): (i64, Instant)) -> i64 {
    latest.saturating_add(millis(at.elapsed()) / 2)
}
