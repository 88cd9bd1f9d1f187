//! Groups: operations that wait together become one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baton_core::clock::Timestamp;
use baton_core::error::StoreError;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::checkpoint::{self, Log};
use super::error::{Failure, SqliteError, is_busy, unavailable};
use super::ops::{self, Tx};
use super::recent::{Change, Recent};
use super::wal_index::Mark;
use super::{SqliteStats, rows};
use crate::time::StoreTime;

/// How late the store's time may be written down by groups that need not wait for the disk. Their records have times of
/// their own, and every read of one takes note of those.
const KEEP_TIME_EVERY: Duration = Duration::from_secs(1);

/// What a crash of the machine may do to an operation that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// It may be forgotten. For operations of one statement.
    Relaxed,
    /// Nothing.
    Durable,
}

/// How long a group waits for another process that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not at all: it is run where that would hold tasks up.
    None,
    /// As long as the settings say.
    BusyTimeout,
}

/// Another process writes, and nobody has waited for it.
pub(super) struct Busy;

#[derive(Default)]
pub(super) struct Counters {
    operations: AtomicU64,
    groups: AtomicU64,
    groups_in_place: AtomicU64,
    synced_groups: AtomicU64,
    failed_groups: AtomicU64,
}

impl Counters {
    pub(super) fn stats(&self) -> SqliteStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SqliteStats {
            operations: read(&self.operations),
            groups: read(&self.groups),
            groups_in_place: read(&self.groups_in_place),
            synced_groups: read(&self.synced_groups),
            failed_groups: read(&self.failed_groups),
            ..SqliteStats::default()
        }
    }
}

/// An operation in the queue, whatever it answers.
pub(super) trait Job: Send {
    fn durability(&self) -> Durability;
    /// Runs it inside the transaction. Its own failure undoes only what it did itself.
    fn run(&mut self, tx: &Tx<'_>) -> Result<(), SqliteError>;
    /// Tells the caller. With `lost`, the transaction came to nothing, and so did whatever the operation found in it.
    fn answer(self: Box<Self>, lost: Option<&Failure>);
}

struct Operation<T, W> {
    what: &'static str,
    durability: Durability,
    work: Option<W>,
    result: Option<Result<T, Failure>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

/// This work as an operation, and its answer, which comes when its group is committed.
pub(super) fn operation<T, W>(
    what: &'static str,
    durability: Durability,
    work: W,
) -> (Box<dyn Job>, oneshot::Receiver<Result<T, StoreError>>)
where
    T: Send + 'static,
    W: FnOnce(&Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    (Box::new(Operation { what, durability, work: Some(work), result: None, reply }), answer)
}

impl<T, W> Job for Operation<T, W>
where
    T: Send,
    W: FnOnce(&Tx<'_>) -> rusqlite::Result<T> + Send,
{
    fn durability(&self) -> Durability {
        self.durability
    }

    fn run(&mut self, tx: &Tx<'_>) -> Result<(), SqliteError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let result = match self.durability {
            Durability::Relaxed => work(tx),
            Durability::Durable => in_savepoint(tx, work),
        };
        let result = result.map_err(|error| Failure::of(self.what, error));
        let error = result.as_ref().map(drop).map_err(|failure| failure.error().clone());
        self.result = Some(result);
        error
    }

    fn answer(self: Box<Self>, lost: Option<&Failure>) {
        let result = match (lost, self.result) {
            (Some(lost), _) => Err(lost.clone().into()),
            (None, Some(result)) => result.map_err(StoreError::from),
            (None, None) => Err(unavailable("the operation was not run")),
        };
        // Nobody listens if the caller was cancelled.
        let _ = self.reply.send(result);
    }
}

fn in_savepoint<T>(tx: &Tx<'_>, work: impl FnOnce(&Tx<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let execute = |sql| tx.connection.prepare_cached(sql)?.execute([]).map(drop);
    execute("SAVEPOINT operation")?;
    let result = work(tx);
    // After some failures SQLite has rolled the whole transaction back; then there is no savepoint to go back to.
    if tx.connection.is_autocommit() {
        return result;
    }
    let undone = if result.is_err() { execute("ROLLBACK TO operation") } else { Ok(()) };
    if let Err(error) = undone.and_then(|()| execute("RELEASE operation")) {
        tx.spoilt.set(true);
        return result.and(Err(error));
    }
    result
}

/// The connection that writes, and what is known of its file.
pub(super) struct Worker {
    connection: Connection,
    log: Log,
    time: Arc<StoreTime>,
    recent: Arc<Recent>,
    counters: Arc<Counters>,
    /// How long to wait for another process, on the thread.
    busy_timeout: Duration,
    /// The last group's.
    patience: Patience,
    /// The commit of the last group, if it can be told from those of others.
    last_commit: Option<Mark>,
    /// When the store's time was last written down.
    time_kept: Option<Timestamp>,
    /// Whether commits wait for the disk at present.
    synced: bool,
    /// Whether an I/O error has left pages in the log of which nobody knows whether they reached the disk.
    log_in_doubt: bool,
    /// Whether the last group failed.
    failing: bool,
}

impl Worker {
    /// `connection` waits for other processes as long as `busy_timeout`.
    pub(super) fn new(
        mut connection: Connection,
        busy_timeout: Duration,
        time: Arc<StoreTime>,
        recent: Arc<Recent>,
        counters: Arc<Counters>,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            log: Log::of(&mut connection)?,
            connection,
            time,
            recent,
            counters,
            busy_timeout,
            patience: Patience::BusyTimeout,
            last_commit: None,
            time_kept: None,
            synced: false,
            log_in_doubt: false,
            failing: false,
        })
    }

    /// Runs these as one transaction, and answers them.
    ///
    /// # Errors
    /// [`Busy`] in [`Patience::None`] only; then nothing was done, and they are still to be run.
    pub(super) fn run(&mut self, group: &mut Vec<Box<dyn Job>>, patience: Patience) -> Result<(), Busy> {
        let durable = group.iter().any(|job| job.durability() == Durability::Durable);
        let begun = self.begin(durable, patience);
        if patience == Patience::None && begun.as_ref().is_err_and(|failure| is_busy(&failure.error().source)) {
            return Err(Busy);
        }
        let count = |counter: &AtomicU64, by: usize| counter.fetch_add(by as u64, Ordering::Relaxed);
        count(&self.counters.groups, 1);
        count(&self.counters.groups_in_place, usize::from(patience == Patience::None));
        count(&self.counters.operations, group.len());
        let lost = begun.and_then(|()| self.attempt(group, durable)).err();
        if let Some(failure) = &lost {
            count(&self.counters.failed_groups, 1);
            // Once, and not for every group for as long as the disk is full.
            if !std::mem::replace(&mut self.failing, true) {
                tracing::error!(operations = group.len(), error = %failure.error(), "a group of writes failed");
            }
            self.roll_back();
        } else {
            if std::mem::replace(&mut self.failing, false) {
                tracing::info!("writes succeed again");
            }
            if durable {
                count(&self.counters.synced_groups, 1);
            }
        }
        for job in group.drain(..) {
            job.answer(lost.as_ref());
        }
        Ok(())
    }

    /// Whether the next group may have to wait for the disk, whatever is in it.
    pub(super) const fn is_in_doubt(&self) -> bool {
        self.log_in_doubt
    }

    /// After an I/O error elsewhere. See [`Worker::empty_log`].
    pub(super) const fn doubt(&mut self) {
        self.log_in_doubt = true;
    }

    /// Whether the log should be written back now.
    pub(super) fn log_is_long(&mut self) -> bool {
        self.log.is_due()
    }

    #[cfg(feature = "conformance")]
    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Closes the file, with an empty log if no other process uses it.
    pub(super) fn close(self) -> Result<(), Failure> {
        if !self.empty_log()? {
            tracing::debug!("another process uses the database; it will empty the log");
        }
        self.connection.close().map_err(|(_, error)| Failure::of("close", error))
    }

    fn begin(&mut self, durable: bool, patience: Patience) -> Result<(), Failure> {
        if patience != self.patience {
            let busy_timeout = if patience == Patience::None { Duration::ZERO } else { self.busy_timeout };
            self.connection.busy_timeout(busy_timeout).map_err(|error| Failure::of("begin", error))?;
            self.patience = patience;
        }
        if self.log_in_doubt {
            if !self.empty_log()? {
                return Err(Failure::of("checkpoint", busy("the log is in use by another process")));
            }
            self.log_in_doubt = false;
        }
        self.sync_commits(durable).map_err(|error| Failure::of("set synchronous", error))?;
        self.execute("BEGIN IMMEDIATE").map_err(|error| Failure::of("begin", error))
    }

    fn attempt(&mut self, group: &mut [Box<dyn Job>], durable: bool) -> Result<(), Failure> {
        let connection = &self.connection;
        let tx = Tx::new(connection, &self.time);
        let mark = self.recent.begin();
        if mark.is_none() || mark != self.last_commit {
            // Another process has written meanwhile, perhaps by a clock that is ahead of this one.
            let found =
                rows::high_water_mark(connection).map_err(|error| Failure::of("read the stored time", error))?;
            self.time.observe(found);
        }
        let before = connection.total_changes();
        for job in group {
            let result = job.run(&tx);
            if result.is_err() {
                // Whether it leaves anything behind, be it unchanged pages, is SQLite's to know.
                tx.changes(Change::All);
            }
            if connection.is_autocommit() || tx.spoilt.get() {
                // SQLite has rolled everything back: the disk is full, say. The others must not be run outside of a
                // transaction.
                return Err(Failure::Unavailable(result.err().unwrap_or_else(|| SqliteError {
                    doing: "run a group",
                    source: Arc::new(rusqlite::Error::InvalidQuery),
                })));
            }
        }
        let has_changed = connection.total_changes() != before;
        let now = self.time.now();
        let keep_time = durable || self.time_kept.is_none_or(|kept| now.since(kept) >= KEEP_TIME_EVERY);
        if keep_time && has_changed {
            ops::keep_time(&tx, now).map_err(|error| Failure::of("keep the time", error))?;
        }
        // Whether there is a commit to look for has to be sure.
        let from = mark.filter(|_| has_changed == tx.writes.get());
        let changes = has_changed.then(|| tx.changes.take());
        self.last_commit = self.recent.around(from, changes, || self.execute("COMMIT")).map_err(|error| {
            let failure = Failure::of_commit(error);
            self.log_in_doubt = matches!(failure, Failure::Uncertain(_));
            failure
        })?;
        if keep_time && has_changed {
            self.time_kept = Some(now);
        }
        Ok(())
    }

    /// Whether the next commits wait for the disk.
    fn sync_commits(&mut self, durable: bool) -> rusqlite::Result<()> {
        if durable != self.synced {
            self.connection.pragma_update(None, "synchronous", if durable { "FULL" } else { "NORMAL" })?;
            self.synced = durable;
        }
        Ok(())
    }

    /// After a failure. What cannot be rolled back makes the next BEGIN fail, so nothing is ever added to it.
    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "roll back");
        }
    }

    /// Writes the log into the main file, waits for the disk, and empties the log. False if another process is in the way.
    ///
    /// Also the way out after an I/O error in a commit: pages that the disk did not take may count as written for the
    /// operating system, so a later sync of the log would prove nothing about them. Here they are written once more, to
    /// another place, and synced there.
    fn empty_log(&self) -> Result<bool, Failure> {
        checkpoint::empty(&self.connection).map_err(|error| Failure::of("checkpoint", error))
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}

fn busy(why: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), Some(why.to_owned()))
}
