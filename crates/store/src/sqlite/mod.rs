//! A store in one SQLite file: for one machine, with nothing to set up.
//!
//! - One connection writes. What is waiting for it is run as **one transaction** (group commit), so that a hundred concurrent
//!   rotations cost one commit and not a hundred.
//! - A group of rotations alone does not wait for the disk (`synchronous=NORMAL`), and is run in place, by a task on the
//!   thread where one of them was asked for. A group with anything durable in it does wait (`FULL`), on a thread of the
//!   store's own, and takes every rotation before it along. What a power cut may forget is what the trait allows.
//! - The write-ahead log is written into the main file by that thread, over a connection that does not hold writers up.
//! - Reads run beside it on a few connections of their own, in place: a point read takes a few microseconds, less than
//!   sending it to another thread. Sessions that were read lately are remembered, and read again when any process has
//!   changed them.
//!
//! Several processes may open the same file on the same machine. They agree, through the file, on who won a swap and on
//! what time it is. A network file system will not do: SQLite's write-ahead log needs shared memory.
//!
//! The file and its `-wal` and `-shm` companions hold password hashes; they are made readable for their owner only. None of
//! them holds a token or a key.

mod checkpoint;
mod error;
mod file;
mod group;
mod inspect;
mod ops;
mod readers;
mod recent;
mod rows;
mod schema;
mod wal_index;
mod writer;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use baton_core::attempts::{AttemptName, AttemptRule, Counted};
use baton_core::clock::{Clock, Timestamp};
use baton_core::error::{CreateAccountError, CreateSessionError, RedeemError, StoreError, UpdateAccountError};
use baton_core::event::{Message, Outcome, Recorded, Trace};
use baton_core::one_time::OneTimeId;
use baton_core::ports::{Found, FoundOneTime, KeyBinding, Login, NewOneTime, SessionEntry, Store};
use baton_core::session::{Account, AccountId, AccountUpdate, NewAccount, NewSession, Session, Swap, Swapped};
use baton_core::token::ClientId;

pub use error::SqliteError;

use crate::inspection::Inspection;
use crate::migrations::Migrations;
use crate::registry::Registry;
use crate::time::StoreTime;
use group::Durability;
use ops::Unchanged;
use readers::Readers;
use recent::Recent;
use writer::Writer;

/// A clock that is behind the file by more than this is worth a line in the log.
const NOTICEABLE_LAG: Duration = Duration::from_secs(5);

/// A purge goes on for at most so many steps, however many sessions it meets that were renewed.
const PURGE_STEPS: u32 = 10;

/// Settings of a [`SqliteStore`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteOptions {
    /// How long to wait for another process that holds the file before answering [`StoreError::Unavailable`]. Default 2 s.
    /// Longer than 24 days counts as 24 days.
    pub busy_timeout: Duration,
    /// Connections that read; at least 1. Default 4. More than there are threads that call the store is waste.
    pub readers: usize,
    /// Sessions that are remembered so that they need not be read, about a kilobyte each; 0 for none. Default 16,384. On Linux
    /// and macOS; elsewhere every session is read.
    pub recent_sessions: usize,
    /// Page cache of **each** connection, in KiB. Default 8192 (8 MiB).
    pub cache_kib: u32,
    /// Writes that may wait for the writer; at least 1. Default 1024. When it is full, callers wait for room in turn.
    pub queue: usize,
    /// Whether opening makes the file and brings its schema up to date. Default true. If not, a file that is not up to date is
    /// refused: for whoever does that with [`SqliteStore::migrate`].
    pub migrate: bool,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_secs(2),
            readers: 4,
            recent_sessions: 16_384,
            cache_kib: 8 * 1024,
            queue: 1024,
            migrate: true,
        }
    }
}

/// What a [`SqliteStore`] has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SqliteStats {
    /// Writing operations that were run.
    pub operations: u64,
    /// Transactions they were run in.
    pub groups: u64,
    /// Those of the groups that were run on a thread of the caller's runtime.
    pub groups_in_place: u64,
    /// Those of the groups that waited for the disk.
    pub synced_groups: u64,
    /// Groups that failed as a whole.
    pub failed_groups: u64,
    /// Reads that were answered in place, from the file.
    pub reads_in_place: u64,
    /// Reads that had to wait on another thread: every connection was taken, or the file locked.
    pub reads_aside: u64,
}

/// Accounts and sessions in one SQLite file. See the [module](self).
pub struct SqliteStore {
    path: PathBuf,
    time: Arc<StoreTime>,
    readers: Arc<Readers>,
    recent: Arc<Recent>,
    writer: Writer,
}

impl SqliteStore {
    /// Opens the file, and, if that is what the options say, makes it if there is none and brings its schema up to date. The
    /// folder has to exist and to be writable. Blocks for as long as that takes.
    ///
    /// The store's time is that of `clock`, but never before what the file holds: after a restart with a wall clock that
    /// was set back, time goes on from where it was, at half its pace, until the clock has caught up.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the file is not a database, belongs to another application, was written by a newer version,
    /// or is not up to date and may not be changed; [`StoreError::Unavailable`] if it cannot be reached, written or locked.
    pub fn open(path: impl AsRef<Path>, options: SqliteOptions, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let path = file::locate(path.as_ref())?;
        let connection = file::open_writer(&path, &options)?;
        let time = Arc::new(StoreTime::new(clock));
        time.observe(rows::high_water_mark(&connection).map_err(error::doing("read the stored time"))?);
        let lag = time.clock_lag();
        if lag > NOTICEABLE_LAG {
            tracing::warn!(
                behind_seconds = lag.as_secs(),
                "the clock is behind the times in the database; time goes on from those, at half its pace"
            );
        }
        let readers = Arc::new(Readers::open(&path, &options)?);
        let recent = Arc::new(Recent::new(&path, options.recent_sessions));
        let writer = Writer::start(&path, connection, time.clone(), readers.clone(), recent.clone(), &options)?;
        Ok(Self { path, time, readers, recent, writer })
    }

    /// Makes the file if there is none and brings its schema up to date, whatever [`SqliteOptions::migrate`] says, and answers
    /// how far it was. Several processes may do this at once. Blocks for as long as that takes.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn migrate(path: impl AsRef<Path>, options: &SqliteOptions) -> Result<Migrations, StoreError> {
        let path = file::locate(path.as_ref())?;
        file::migrate(&path, options).map(|(before, _)| before)
    }

    /// How far the schema of the file is. Makes and changes nothing. Blocks for as long as that takes.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn migrations(path: impl AsRef<Path>, options: &SqliteOptions) -> Result<Migrations, StoreError> {
        let path = file::locate(path.as_ref())?;
        file::look(&path, options).map(|(migrations, _)| migrations)
    }

    /// What an operator may want to know of this file, and whether a server could work with it. Makes and changes nothing.
    /// `clock`: this machine's.
    pub async fn inspect(path: impl AsRef<Path>, options: SqliteOptions, clock: Arc<dyn Clock>) -> Inspection {
        inspect::inspect(path.as_ref(), options, clock).await
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store's time now: not before any time that it holds. For [`SystemClock::raise_to`], so that a clock that starts
    /// behind the file need not go at half pace.
    ///
    /// [`SystemClock::raise_to`]: crate::clock::SystemClock::raise_to
    #[must_use]
    pub fn high_water_mark(&self) -> Timestamp {
        self.time.now()
    }

    /// What it has done since it was opened.
    #[must_use]
    pub fn stats(&self) -> SqliteStats {
        let mut stats = self.writer.stats();
        (stats.reads_in_place, stats.reads_aside) = self.readers.counts();
        stats
    }

    /// Runs what is waiting, writes everything into the main file and closes it. Operations that come later are answered
    /// [`StoreError::Unavailable`]. Closing twice is harmless; dropping the store does the same, but waits no longer than a
    /// few seconds and tells nobody what went wrong.
    ///
    /// # Errors
    /// [`StoreError`] if the last step failed: nothing is lost, the next start reads it from the write-ahead log.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.writer.close().await
    }

    /// Runs `work` on the writer's thread, while no group is run: for tests that hold the writer up or fill the disk.
    ///
    /// # Errors
    /// [`StoreError`] if the writer has stopped or `work` panicked.
    #[cfg(feature = "conformance")]
    #[doc(hidden)]
    pub async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.aside(work).await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn find(&self, client: ClientId) -> Result<Option<Found>, StoreError> {
        let since = match self.recent.find(client) {
            Ok((session, account)) => return Ok(Some(Found { session, account, now: self.time.now() })),
            Err(since) => since,
        };
        let row = self.readers.read("find a session", move |connection| rows::find(connection, client)).await?;
        Ok(row.map(|(session, account)| {
            // In this order: the time of the answer must not be before a time in the record, and the record may have been
            // written a moment ago, or by a process whose clock is ahead.
            self.time.observe(session.latest_time());
            let account = Arc::new(account);
            if let Some(since) = since {
                self.recent.add(since, &session, &account);
            }
            Found { session, account, now: self.time.now() }
        }))
    }

    async fn swap(&self, client: ClientId, swap: &Swap, seen_from: Option<IpAddr>) -> Result<Swapped, StoreError> {
        let swap = *swap;
        let durability = if swap.resends() { Durability::Durable } else { Durability::Relaxed };
        self.writer.run("swap", durability, move |tx| ops::swap(tx, client, &swap, seen_from)).await
    }

    async fn create_account(
        &self,
        account: NewAccount,
        session: Option<NewSession>,
        trace: &Trace,
    ) -> Result<(Account, Option<Session>), CreateAccountError> {
        let trace = trace.clone();
        self.writer
            .run("create an account", Durability::Durable, move |tx| ops::create_account(tx, account, session, &trace))
            .await?
            .ok_or(CreateAccountError::Taken)
    }

    async fn find_login(&self, realm: &str, provider: &str, uid: &str) -> Result<Option<Login>, StoreError> {
        let name = [realm.to_owned(), provider.to_owned(), uid.to_owned()];
        self.readers.read("find a login", move |connection| rows::find_login(connection, &name)).await
    }

    async fn update_account(
        &self,
        account: AccountId,
        update: AccountUpdate,
        trace: &Trace,
    ) -> Result<Account, UpdateAccountError> {
        let trace = trace.clone();
        self.writer
            .run("update an account", Durability::Durable, move |tx| ops::update_account(tx, account, &update, &trace))
            .await?
            .map_err(|unchanged| match unchanged {
                Unchanged::Gone => UpdateAccountError::Gone,
                Unchanged::Overtaken => UpdateAccountError::Overtaken,
                Unchanged::Taken => UpdateAccountError::Taken,
            })
    }

    async fn delete_account(&self, account: AccountId, trace: &Trace) -> Result<bool, StoreError> {
        let trace = trace.clone();
        let work = move |tx: &ops::Tx<'_>| ops::delete_account(tx, account, &trace);
        self.writer.run("delete an account", Durability::Durable, work).await
    }

    async fn create_session(
        &self,
        account: AccountId,
        session: NewSession,
        trace: &Trace,
    ) -> Result<Session, CreateSessionError> {
        let trace = trace.clone();
        self.writer
            .run("create a session", Durability::Durable, move |tx| ops::create_session(tx, account, &session, &trace))
            .await?
            .ok_or(CreateSessionError::NoAccount)
    }

    async fn end_session(&self, account: AccountId, client: ClientId, trace: &Trace) -> Result<bool, StoreError> {
        let trace = trace.clone();
        let work = move |tx: &ops::Tx<'_>| ops::end_session(tx, account, client, &trace);
        self.writer.run("end a session", Durability::Durable, work).await
    }

    async fn sessions(&self, account: AccountId) -> Result<(Timestamp, Vec<SessionEntry>), StoreError> {
        let entries =
            self.readers.read("list sessions", move |connection| rows::sessions_of(connection, account)).await?;
        for entry in &entries {
            self.time.observe(entry.session.latest_time());
        }
        Ok((self.time.now(), entries))
    }

    async fn create_one_time(&self, token: NewOneTime) -> Result<bool, StoreError> {
        let work = move |tx: &ops::Tx<'_>| ops::create_one_time(tx, &token);
        self.writer.run("keep a one-time token", Durability::Durable, work).await
    }

    async fn find_one_time(&self, id: OneTimeId) -> Result<Option<FoundOneTime>, StoreError> {
        let time = self.time.clone();
        let find = move |connection: &rusqlite::Connection| {
            let found = rows::find_one_time(connection, id)?;
            // It may have expired by the clock of another process, which is ahead of this one.
            time.observe(rows::high_water_mark(connection)?);
            Ok(found)
        };
        let found = self.readers.read("find a one-time token", find).await?;
        let now = self.time.now();
        let good = found.filter(|(one_time, _)| now < one_time.expires_at);
        Ok(good.map(|(one_time, login)| FoundOneTime { one_time, login, now }))
    }

    async fn redeem(
        &self,
        id: OneTimeId,
        update: AccountUpdate,
        session: Option<NewSession>,
        trace: &Trace,
    ) -> Result<(Account, Option<Session>), RedeemError> {
        let trace = trace.clone();
        let work = move |tx: &ops::Tx<'_>| ops::redeem(tx, id, &update, session.as_ref(), &trace);
        self.writer.run("redeem a one-time token", Durability::Durable, work).await?.map_err(
            |unchanged| match unchanged {
                Unchanged::Gone | Unchanged::Overtaken => RedeemError::Gone,
                Unchanged::Taken => RedeemError::Taken,
            },
        )
    }

    async fn void_one_time(&self, id: OneTimeId) -> Result<(), StoreError> {
        self.writer.run("void a one-time token", Durability::Relaxed, move |tx| ops::void_one_time(tx, id)).await
    }

    async fn count_attempt(&self, name: AttemptName, rule: AttemptRule) -> Result<Counted, StoreError> {
        self.writer.run("count an attempt", Durability::Relaxed, move |tx| ops::count_attempt(tx, name, rule)).await
    }

    async fn forget_attempts(&self, name: AttemptName) -> Result<(), StoreError> {
        self.writer.run("forget attempts", Durability::Relaxed, move |tx| ops::forget_attempts(tx, name)).await
    }

    async fn record(&self, trace: &Trace) -> Result<(), StoreError> {
        let trace = trace.clone();
        self.writer.run("record", Durability::Durable, move |tx| ops::leave(tx, &trace, None)).await
    }

    async fn events(&self, after: i64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        self.readers.read("list events", move |connection| rows::events(connection, after, limit)).await
    }

    async fn claim(&self, limit: u32, lease: Duration) -> Result<Vec<Message>, StoreError> {
        let time = self.time.clone();
        let is_due = move |connection: &rusqlite::Connection| {
            // What another process has put there is due also if its clock is ahead of this one.
            time.observe(rows::high_water_mark(connection)?);
            rows::is_due(connection, time.now())
        };
        // Asked every second or so and hardly ever yes: not a task for the writer.
        if !self.readers.read("look into the outbox", is_due).await? {
            return Ok(Vec::new());
        }
        self.writer.run("claim messages", Durability::Durable, move |tx| ops::claim(tx, limit, lease)).await
    }

    async fn settle(&self, id: i64, attempt: u32, outcome: Outcome) -> Result<(), StoreError> {
        let durability = if outcome == Outcome::Done { Durability::Durable } else { Durability::Relaxed };
        self.writer.run("settle a message", durability, move |tx| ops::settle(tx, id, attempt, outcome)).await
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        let others = move |tx: &ops::Tx<'_>| Ok((ops::purge_sessions(tx, limit)?, ops::purge_others(tx, limit)?));
        let ((mut looked_at, mut sessions), others) = self.writer.run("purge", Durability::Durable, others).await?;
        // Again while some were put off, for a while; what waits for the writer gets its turn in between.
        for _ in 1..PURGE_STEPS {
            let left = limit - sessions;
            if looked_at == 0 || left == 0 {
                break;
            }
            let step = move |tx: &ops::Tx<'_>| ops::purge_sessions(tx, left);
            let purged;
            (looked_at, purged) = self.writer.run("purge", Durability::Durable, step).await?;
            sessions += purged;
        }
        Ok(others + u64::from(sessions))
    }

    async fn purge_events(&self, age: Duration, limit: u32) -> Result<u64, StoreError> {
        self.writer.run("purge events", Durability::Relaxed, move |tx| ops::purge_events(tx, age, limit)).await
    }

    async fn bind_keys(&self, fingerprints: &[String]) -> Result<KeyBinding, StoreError> {
        let fingerprints = fingerprints.to_vec();
        self.writer.run("bind keys", Durability::Durable, move |tx| ops::bind_keys(tx, &fingerprints)).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.readers.read("check", |connection| rows::high_water_mark(connection).map(drop)).await?;
        self.writer.run("check", Durability::Relaxed, ops::touch).await
    }
}

/// The latest of the times in a record that were "now" when they were written.
trait LatestTime {
    fn latest_time(&self) -> Timestamp;
}

impl LatestTime for Session {
    fn latest_time(&self) -> Timestamp {
        self.handed_out_at.unwrap_or(self.created_at).max(self.last_seen_at)
    }
}

#[async_trait]
impl Registry for SqliteStore {
    async fn remember_ends(&self) -> Result<(), StoreError> {
        self.writer.run("remember ends", Durability::Durable, ops::remember_ends).await
    }

    async fn remembered_ends(&self, account: Option<AccountId>, limit: u32) -> Result<Vec<ClientId>, StoreError> {
        let list = move |connection: &rusqlite::Connection| rows::ended_sessions(connection, account, limit);
        self.readers.read("list ends", list).await
    }

    async fn forget_ends(&self, clients: &[ClientId]) -> Result<(), StoreError> {
        let clients = clients.to_vec();
        self.writer.run("forget ends", Durability::Relaxed, move |tx| ops::forget_ends(tx, &clients)).await
    }

    async fn due(&self, limit: u32) -> Result<Vec<(AccountId, ClientId)>, StoreError> {
        let time = self.time.clone();
        let due = move |connection: &rusqlite::Connection| rows::due_sessions(connection, time.now(), limit);
        self.readers.read("look for sessions that are over", due).await
    }

    async fn note(&self, session: &Session) -> Result<(), StoreError> {
        let session = session.clone();
        self.writer.run("note a session", Durability::Relaxed, move |tx| ops::note(tx, &session)).await
    }

    async fn purge_others(&self, limit: u32) -> Result<u64, StoreError> {
        self.writer.run("purge", Durability::Durable, move |tx| ops::purge_others(tx, limit)).await
    }
}
