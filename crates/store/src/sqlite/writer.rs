//! The one thread that writes, in groups.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use baton_core::clock::Timestamp;
use baton_core::error::StoreError;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::error::{Failure, SqliteError, unavailable, uncertain};
use super::ops::{self, Tx};
use super::readers::{Readers, off_the_runtime};
use super::recent::{Change, Recent};
use super::wal_index::Mark;
use super::{SqliteOptions, SqliteStats, file, rows};
use crate::time::StoreTime;

/// Operations in one transaction, at most. A limit, so that the first of them does not wait for ever.
const LARGEST_GROUP: usize = 512;
/// How late the store's time may be written down by groups that need not wait for the disk. Their records have times of
/// their own, and every read of one takes note of those.
const KEEP_TIME_EVERY: Duration = Duration::from_secs(1);
/// What a drop waits for, besides twice the busy timeout.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

/// What a crash of the machine may do to an operation that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// It may be forgotten. For operations of one statement.
    Relaxed,
    /// Nothing.
    Durable,
}

pub(super) struct Writer {
    /// `None` only while being dropped.
    queue: Option<mpsc::Sender<Message>>,
    counters: Arc<Counters>,
    thread: Mutex<Option<JoinHandle<Result<(), Failure>>>>,
    /// Disconnected when the thread has ended.
    ended: Mutex<std_mpsc::Receiver<()>>,
    patience: Duration,
}

enum Message {
    Run(Box<dyn Job>),
    #[cfg(feature = "conformance")]
    Aside(Box<dyn FnOnce(&Connection) + Send>),
    Close,
}

#[derive(Default)]
struct Counters {
    operations: AtomicU64,
    groups: AtomicU64,
    synced_groups: AtomicU64,
    failed_groups: AtomicU64,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        time: Arc<StoreTime>,
        readers: Arc<Readers>,
        recent: Arc<Recent>,
        options: &SqliteOptions,
    ) -> Result<Self, StoreError> {
        let (queue, waiting) = mpsc::channel(options.queue.clamp(1, usize::MAX >> 4));
        let (end, ended) = std_mpsc::channel();
        let counters = Arc::new(Counters::default());
        let worker = Worker {
            connection,
            time,
            recent,
            counters: counters.clone(),
            last_commit: None,
            time_kept: None,
            synced: false,
            log_in_doubt: false,
            failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("baton-sqlite".to_owned())
            .spawn(move || {
                let _end: std_mpsc::Sender<()> = end;
                worker.serve(waiting, &readers)
            })
            .map_err(|error| unavailable(format!("the writer's thread could not be started: {error}")))?;
        Ok(Self {
            queue: Some(queue),
            counters,
            thread: Mutex::new(Some(thread)),
            ended: Mutex::new(ended),
            patience: file::busy_timeout(options).saturating_mul(2).saturating_add(DROP_PATIENCE),
        })
    }

    /// Has `work` run in the next group, and answers when that is committed.
    pub(super) async fn run<T, W>(&self, what: &'static str, durability: Durability, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Operation { what, durability, work: Some(work), result: None, reply };
        self.send(Message::Run(Box::new(job))).await?;
        answer.await.unwrap_or_else(|_| Err(uncertain("the writer's thread ended")))
    }

    #[cfg(feature = "conformance")]
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Aside(Box::new(move |connection| drop(reply.send(work(connection)))))).await?;
        answer.await.map_err(|_| uncertain("the writer's thread ended"))
    }

    pub(super) async fn close(&self) -> Result<(), StoreError> {
        // If it cannot be sent, the thread is ending already.
        let _ = self.send(Message::Close).await;
        let Some(thread) = self.thread.lock().take() else { return Ok(()) };
        match off_the_runtime(move || thread.join()).await? {
            Ok(result) => result.map_err(StoreError::from),
            Err(_) => Err(unavailable("the writer's thread had ended")),
        }
    }

    pub(super) fn stats(&self) -> SqliteStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SqliteStats {
            operations: read(&self.counters.operations),
            groups: read(&self.counters.groups),
            synced_groups: read(&self.counters.synced_groups),
            failed_groups: read(&self.counters.failed_groups),
            ..SqliteStats::default()
        }
    }

    async fn send(&self, message: Message) -> Result<(), StoreError> {
        let stopped = || unavailable("the store was closed, or its writer's thread has ended");
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(message).await.map_err(|_| stopped())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Without a sender the thread finishes what is waiting and ends.
        self.queue = None;
        if self.ended.get_mut().recv_timeout(self.patience) == Err(std_mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the database is still being closed; not waiting for it any longer");
        }
    }
}

/// An operation in the queue, whatever it answers.
trait Job: Send {
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

struct Worker {
    connection: Connection,
    time: Arc<StoreTime>,
    recent: Arc<Recent>,
    counters: Arc<Counters>,
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
    /// Until closed, or until nobody is left who could ask.
    fn serve(mut self, mut queue: mpsc::Receiver<Message>, readers: &Readers) -> Result<(), Failure> {
        let mut group = Vec::new();
        while let Some(first) = queue.blocking_recv() {
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Run(job) => group.push(job),
                    #[cfg(feature = "conformance")]
                    Message::Aside(work) => {
                        self.run_group(&mut group);
                        work(&self.connection);
                    }
                    // Refuses what comes from now on; what is in the queue is still answered.
                    Message::Close => queue.close(),
                }
                next = if group.len() < LARGEST_GROUP { queue.try_recv().ok() } else { None };
            }
            self.run_group(&mut group);
        }
        // The last connection to close removes the log, and only one that may write can do so.
        readers.close();
        self.recent.close();
        if !self.checkpoint()? {
            tracing::debug!("another process uses the database; it will empty the log");
        }
        self.connection.close().map_err(|(_, error)| Failure::of("close", error))
    }

    fn run_group(&mut self, group: &mut Vec<Box<dyn Job>>) {
        if group.is_empty() {
            return;
        }
        let count = |counter: &AtomicU64, by: usize| counter.fetch_add(by as u64, Ordering::Relaxed);
        count(&self.counters.groups, 1);
        count(&self.counters.operations, group.len());
        let durable = group.iter().any(|job| job.durability() == Durability::Durable);
        let lost = self.attempt(group, durable).err();
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
    }

    fn attempt(&mut self, group: &mut [Box<dyn Job>], durable: bool) -> Result<(), Failure> {
        if self.log_in_doubt {
            if !self.checkpoint()? {
                return Err(Failure::of("checkpoint", busy("the log is in use by another process")));
            }
            self.log_in_doubt = false;
        }
        self.sync_commits(durable).map_err(|error| Failure::of("set synchronous", error))?;

        let connection = &self.connection;
        let execute = |sql| connection.prepare_cached(sql)?.execute([]).map(drop);
        execute("BEGIN IMMEDIATE").map_err(|error| Failure::of("begin", error))?;
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
        self.last_commit = self.recent.around(from, changes, || execute("COMMIT")).map_err(|error| {
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
    fn checkpoint(&self) -> Result<bool, Failure> {
        let blocked: bool = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(|error| Failure::of("checkpoint", error))?;
        Ok(!blocked)
    }
}

fn busy(why: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), Some(why.to_owned()))
}
