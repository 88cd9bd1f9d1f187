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
use redis::{FromRedisValue, ParsingError, Value};
use tokio::time::Instant;

use super::error::unavailable;
use super::link::{Call, Links, Lua, Operation};
use super::options::RedisOptions;
use super::record::{self, Head};

/// How long a session that is over is still known as such, unless it is purged before. Redis removes it by itself then.
const AFTERLIFE: Duration = Duration::from_secs(60 * 60);
/// When Redis may forget a session is a multiple of this, so that most rotations need not say it anew.
const EXPIRY_STEP: Duration = Duration::from_secs(10 * 60);
/// What ends later than this never does.
const FOR_EVER: i64 = 1 << 52;
/// So many sessions are held between a request's read and its swap.
const HELD: usize = 4096;

static REPLACE: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("replace.lua")));
static OPEN: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("open.lua")));
static CLOSE: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("close.lua")));
static CHECK: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("check.lua")));

pub(super) struct Sessions {
    pub(super) links: Links,
    prefix: String,
    recheck: u64,
    pub(super) time: Time,
    held: Held,
    /// With it and a number, an operation has a name that no other one has, of whichever node.
    node: u64,
    operations: AtomicU64,
}

/// A session that was found.
pub(super) struct Stored {
    pub(super) session: Session,
    pub(super) ip: Option<IpAddr>,
    pub(super) account: Account,
    /// Not before any time that this node has seen.
    pub(super) now: Timestamp,
    /// Whether it has to be looked for in the registry again.
    pub(super) unverified: bool,
}

/// The answer of `replace.lua`.
enum Replaced {
    Made,
    /// It is this by now.
    Moved(Vec<u8>),
    Gone,
}

impl FromRedisValue for Replaced {
    fn from_redis_value(answer: Value) -> Result<Self, ParsingError> {
        match answer {
            Value::Int(_) => Ok(Self::Made),
            Value::Nil => Ok(Self::Gone),
            kept => redis::from_redis_value(kept).map(Self::Moved),
        }
    }
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
            held: Held::new(),
            node,
            // 0 is nobody's.
            operations: AtomicU64::new(1),
        })
    }

    pub(super) async fn find(&self, client: ClientId) -> Result<Option<Stored>, StoreError> {
        let Some(kept) = self.read(client).await? else { return Ok(None) };
        let (head, account) = Head::split(client, &kept)?;
        let account = record::account(head.session.account, account)?;
        self.held.put(client, kept);
        let Head { session, ip, verified_at, .. } = head;
        // A clock that was set back must not put it off either.
        let unverified = self.time.shown().as_millis().abs_diff(verified_at.as_millis()) >= self.recheck;
        let now = self.time.now(session.last_seen_at.max(session.created_at));
        Ok(Some(Stored { session, ip, account, now, unverified }))
    }

    pub(super) async fn swap(
        &self,
        client: ClientId,
        swap: &Swap,
        seen_from: Option<IpAddr>,
    ) -> Result<Swapped, StoreError> {
        let operation = self.name_operation();
        // What was held when the swap was decided is most often what is there. If not, look.
        let is_it =
            |kept: &Vec<u8>| Head::split(client, kept).is_ok_and(|(head, _)| head.session.version() == swap.expect);
        let mut kept = self.held(client).filter(is_it);
        loop {
            if kept.is_none() {
                kept = self.read(client).await?;
            }
            let Some(found) = kept else { return Ok(Swapped::Gone) };
            let (head, account) = Head::split(client, &found)?;
            let Head { session, ip, verified_at, operation: last } = head;
            if last == operation {
                // It was made, and the answer was lost.
                return Ok(Swapped::Done(session.last_seen_at));
            }
            let at = self.time.now(session.last_seen_at);
            let Some(next) = session.swapped(swap, at) else { return Ok(Swapped::Moved(session)) };
            let ends = (session.expires_at, next.expires_at);
            let next = Head { session: next, ip: seen_from.or(ip), verified_at, operation }.with(account);
            match self.replace("swap", client, &found, &next, ends, swap.resends()).await? {
                Replaced::Made => return Ok(Swapped::Done(at)),
                Replaced::Moved(now) => kept = Some(now),
                Replaced::Gone => return Ok(Swapped::Gone),
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
        if !self.time.is_fresh() {
            self.read(session.client).await?;
        }
        let head = Head { session: session.clone(), ip, verified_at: self.time.shown(), operation: [0; 16] };
        let kept = head.with(&record::keep_account(account));
        let expiry = expiry(session.expires_at).map(|at| at.to_string());
        let args: Vec<&[u8]> = [Some(&*kept), expiry.as_ref().map(String::as_bytes)].into_iter().flatten().collect();
        self.run::<i64>("open a session", session.client, &OPEN, &args, false).await.map(drop)
    }

    /// The session was just found in the registry, and this is its account. One that is newer than this is left as it is.
    pub(super) async fn refresh(&self, client: ClientId, account: &Account) -> Result<(), StoreError> {
        let refreshed = record::keep_account(account);
        let mut kept = self.held(client);
        loop {
            if kept.is_none() {
                kept = self.read(client).await?;
            }
            let Some(found) = kept else { return Ok(()) };
            let (head, known) = Head::split(client, &found)?;
            let newer = record::account(head.session.account, known)?.updated_at > account.updated_at;
            let next = Head { verified_at: self.time.shown(), ..head };
            let ends = (next.session.expires_at, next.session.expires_at);
            let next = next.with(if newer { known } else { &refreshed });
            match self.replace("refresh a session", client, &found, &next, ends, false).await? {
                Replaced::Moved(now) => kept = Some(now),
                Replaced::Made => {
                    self.held.put(client, next);
                    return Ok(());
                }
                Replaced::Gone => return Ok(()),
            }
        }
    }

    /// Ends a session, of this account if one is given. Whether there was one.
    pub(super) async fn close(&self, client: ClientId, account: Option<AccountId>) -> Result<bool, StoreError> {
        let account = account.map(record::account_id);
        let account = account.as_ref().map_or(&[][..], |account| account);
        self.run("end a session", client, &CLOSE, &[account], true).await
    }

    /// Whether it can be read and written.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let key = format!("{}:check", self.prefix);
        let call = Call::Script { script: &CHECK, args: &[], durable: false };
        self.links.run::<i64>(&Operation { doing: "check", key: &key, call }).await.map(drop)
    }

    /// What is kept of a session. Then it is known what time it is.
    async fn read(&self, client: ClientId) -> Result<Option<Vec<u8>>, StoreError> {
        let (doing, key) = ("find a session", self.key(client));
        if self.time.is_fresh() {
            return self.links.run(&Operation { doing, key: &key, call: Call::Get }).await;
        }
        let ((seconds, micros), kept): ((i64, i64), _) =
            self.links.run(&Operation { doing, key: &key, call: Call::TimeAndGet }).await?;
        self.time.show(seconds.saturating_mul(1_000).saturating_add(micros / 1_000));
        Ok(kept)
    }

    /// What was found of a session a moment ago, if it is known what time it is.
    fn held(&self, client: ClientId) -> Option<Vec<u8>> {
        self.held.take(client).filter(|_| self.time.is_fresh())
    }

    /// `ends`: when the session ends as it was found, and as it shall be.
    async fn replace(
        &self,
        doing: &'static str,
        client: ClientId,
        found: &[u8],
        next: &[u8],
        ends: (Timestamp, Timestamp),
        durable: bool,
    ) -> Result<Replaced, StoreError> {
        let (before, after) = (expiry(ends.0), expiry(ends.1));
        if before == after {
            return self.run(doing, client, &REPLACE, &[found, next], durable).await;
        }
        let after = after.map(|at| at.to_string()).unwrap_or_default();
        self.run(doing, client, &REPLACE, &[found, next, after.as_bytes()], durable).await
    }

    async fn run<T: FromRedisValue>(
        &self,
        doing: &'static str,
        client: ClientId,
        script: &Lua,
        args: &[&[u8]],
        durable: bool,
    ) -> Result<T, StoreError> {
        let call = Call::Script { script, args, durable };
        self.links.run(&Operation { doing, key: &self.key(client), call }).await
    }

    fn key(&self, client: ClientId) -> String {
        format!("{}:s:{client}", self.prefix)
    }

    fn name_operation(&self) -> [u8; 16] {
        let number = self.operations.fetch_add(1, Ordering::Relaxed);
        (u128::from(self.node) << 64 | u128::from(number)).to_be_bytes()
    }
}

/// When Redis may forget a session that ends then, by its clock: [`AFTERLIFE`] to [`EXPIRY_STEP`] more later. `None`: never.
fn expiry(ends: Timestamp) -> Option<i64> {
    let (ends, step) = (ends.as_millis(), millis(EXPIRY_STEP));
    (ends < FOR_EVER).then(|| (ends.saturating_add(millis(AFTERLIFE)).div_euclid(step) + 1) * step)
}

/// What was found last of some sessions. It only spares the read before a swap: whatever is not there, or is not so any more,
/// is read again.
struct Held(Box<[Place]>);

type Place = Mutex<Option<(ClientId, Vec<u8>)>>;

impl Held {
    fn new() -> Self {
        Self((0..HELD).map(|_| Mutex::default()).collect())
    }

    fn place(&self, client: ClientId) -> &Place {
        let [.., high, low] = *client.as_bytes();
        &self.0[usize::from(u16::from_be_bytes([high, low])) % HELD]
    }

    fn put(&self, client: ClientId, kept: Vec<u8>) {
        *self.place(client).lock() = Some((client, kept));
    }

    fn take(&self, client: ClientId) -> Option<Vec<u8>> {
        self.place(client).lock().take_if(|(holds, _)| *holds == client).map(|(_, kept)| kept)
    }
}

/// What this node knows of the store's time: its answers are never before what it has seen, of whichever server.
///
/// The servers are not asked for each request: for [`FRESH`] after an answer their clock is taken to go on as this machine's.
///
/// If the servers' clocks differ, or one is set back, time goes on from the latest at half its pace until they have caught up:
/// standing still would hold every batch window open.
pub(super) struct Time(Mutex<Seen>);

/// How long after a server has said what time it is it need not be asked again.
const FRESH: Duration = Duration::from_secs(1);

struct Seen {
    /// The latest time that was answered or observed, and when.
    latest: (i64, Instant),
    /// What a server's clock showed last, and when.
    shown: Option<(i64, Instant)>,
}

impl Seen {
    fn floor(&self) -> i64 {
        let (latest, at) = self.latest;
        latest.saturating_add(millis(at.elapsed()) / 2)
    }

    fn shown(&self) -> i64 {
        self.shown.map_or(i64::MIN, |(shown, at)| shown.saturating_add(millis(at.elapsed())))
    }

    fn observe(&mut self, time: i64) -> i64 {
        let floor = self.floor();
        if time < floor {
            return floor;
        }
        self.latest = (time, Instant::now());
        time
    }
}

impl Time {
    fn new() -> Self {
        Self(Mutex::new(Seen { latest: (i64::MIN, Instant::now()), shown: None }))
    }

    /// Whether a server has just said what time it is.
    fn is_fresh(&self) -> bool {
        self.0.lock().shown.is_some_and(|(_, at)| at.elapsed() < FRESH)
    }

    /// A server says so.
    fn show(&self, time: i64) {
        self.0.lock().shown = Some((time, Instant::now()));
    }

    /// What the server's clock shows that was asked last.
    fn shown(&self) -> Timestamp {
        Timestamp::from_millis(self.0.lock().shown())
    }

    /// The time it is now, and at least this one.
    fn now(&self, least: Timestamp) -> Timestamp {
        let mut seen = self.0.lock();
        let time = seen.shown().max(least.as_millis());
        Timestamp::from_millis(seen.observe(time))
    }

    /// Takes note of a time; the time it is now.
    pub(super) fn observe(&self, time: Timestamp) -> Timestamp {
        Timestamp::from_millis(self.0.lock().observe(time.as_millis()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_forgets_nothing_early() {
        let step = millis(EXPIRY_STEP);
        for ends in [-step - 1, -1, 0, 1, step - 1, step, 1 << 40, FOR_EVER - 1] {
            let kept = expiry(Timestamp::from_millis(ends)).expect("it ends") - ends;
            assert!(kept > millis(AFTERLIFE) && kept <= millis(AFTERLIFE) + step, "{ends}: {kept}");
        }
        assert_eq!(expiry(Timestamp::from_millis(FOR_EVER)), None);
        assert_eq!(expiry(Timestamp::from_millis(i64::MAX)), None);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_set_time_back() {
        let time = Time::new();
        let never = Timestamp::from_millis(i64::MIN);
        assert!(!time.is_fresh(), "nobody has said what time it is");
        time.show(1 << 40);
        assert!(time.is_fresh());
        let before = time.now(never);
        assert!(before.as_millis() >= 1 << 40);
        time.show(5);
        assert!(time.shown().as_millis() < 1 << 40);
        assert!(time.now(never) >= before);
        let later = Timestamp::from_millis(1 << 41);
        assert_eq!(time.now(later), later);
        assert!(time.observe(before) >= later);
    }

    #[test]
    fn what_was_found_is_held_once() {
        let held = Held::new();
        let mut other = [1; 16];
        other[0] = 2;
        let (one, same_place) = (ClientId::from_bytes([1; 16]), ClientId::from_bytes(other));
        held.put(one, vec![1]);
        assert_eq!(held.take(same_place), None);
        assert_eq!(held.take(one), Some(vec![1]));
        assert_eq!(held.take(one), None);
        held.put(one, vec![1]);
        held.put(same_place, vec![2]);
        assert_eq!((held.take(one), held.take(same_place)), (None, Some(vec![2])));
    }
}
