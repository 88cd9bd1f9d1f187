//! Who writes: a queue, and who runs what is in it.
//!
//! What need not wait for the disk is run in place: an operation that comes on a thread of the runtime starts a task there,
//! and what has come by its turn is one group. So nobody has to be woken, and no thread depends on what another one is busy
//! with. Whatever waits, for the disk, for another process or for the log to be written back, is left to a thread of its own,
//! and so is what comes faster than tasks can run it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use baton_core::error::StoreError;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rusqlite::{Connection, ErrorCode};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

use super::checkpoint::{self, Left};
use super::error::{unavailable, uncertain};
use super::group::{self, Busy, Counters, Durability, Job, Patience, Worker};
use super::ops::Tx;
use super::readers::{Readers, off_the_runtime};
use super::recent::Recent;
use super::{SqliteOptions, SqliteStats, file};
use crate::time::StoreTime;

/// Operations in one transaction, at most. A limit, so that the first of them does not wait for ever.
const LARGEST_GROUP: usize = 512;
/// The same where other tasks wait for the end of it.
const LARGEST_GROUP_IN_PLACE: usize = 64;
/// How often a task lets others run before its first group, at most.
const GATHERINGS: usize = 6;
/// Groups that a task runs one after the other, for others that came meanwhile, at most.
const GROUPS_IN_PLACE: usize = 8;
/// What a drop waits for, besides twice the busy timeout.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
    /// Disconnected when the thread has ended.
    ended: Mutex<std_mpsc::Receiver<()>>,
    patience: Duration,
}

struct Shared {
    queue: Mutex<Queue>,
    /// For the thread: there is something for it.
    wake: Condvar,
    /// For operations that wait or are run.
    room: Semaphore,
    /// Held by whoever writes, who takes it out meanwhile: it is gone if that panics, or when the thread has ended.
    worker: Mutex<Option<Worker>>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Box<dyn Job>>,
    /// The thread runs everything, until it finds nothing.
    left_to_thread: bool,
    /// Where a task has been started whose turn has not come.
    tasks: Vec<Place>,
    /// There may be something whose task has come and gone: whoever writes is to look again.
    left_over: bool,
    /// Where the last task was started, if that has threads of its own.
    runtime: Option<Handle>,
    /// Whether the log is to be written back.
    log_is_long: bool,
    /// Nothing is taken in any more.
    closed: bool,
    #[cfg(feature = "conformance")]
    aside: VecDeque<Aside>,
}

#[cfg(feature = "conformance")]
type Aside = Box<dyn FnOnce(&Connection) + Send>;

impl Queue {
    /// The task there has come, or never will.
    fn strike(&mut self, place: Option<Place>) {
        self.tasks.retain(|task| Some(*task) != place);
    }
}

/// Of a task: a thread, and the runtime that it runs. A task is run if those who wait for it are: a runtime that somebody
/// has stopped driving has tasks that never run.
type Place = (usize, tokio::runtime::Id);

/// A number that no other living thread has.
fn this_thread() -> usize {
    thread_local!(static OF_ITS_OWN: u8 = const { 0 });
    OF_ITS_OWN.with(|address| std::ptr::from_ref(address).addr())
}

/// Whether it may be run where tasks are.
fn is_quick(job: &dyn Job) -> bool {
    job.durability() == Durability::Relaxed
}

impl Writer {
    /// With the connection that writes to the database in `path`.
    pub(super) fn start(
        path: &Path,
        connection: Connection,
        time: Arc<StoreTime>,
        readers: Arc<Readers>,
        recent: Arc<Recent>,
        options: &SqliteOptions,
    ) -> Result<Self, StoreError> {
        let counters = Arc::new(Counters::default());
        let busy_timeout = file::busy_timeout(options);
        let worker = Worker::new(connection, busy_timeout, time, recent.clone(), counters.clone())
            .map_err(super::error::doing("open"))?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            room: Semaphore::new(options.queue.clamp(1, Semaphore::MAX_PERMITS)),
            worker: Mutex::new(Some(worker)),
            counters,
        });
        let (end, ended) = std_mpsc::channel();
        let checkpointer = Some(file::open_checkpointer(path)?);
        let own = OwnThread { shared: shared.clone(), readers, recent, checkpointer, _end: end };
        let thread = std::thread::Builder::new()
            .name("baton-sqlite".to_owned())
            .spawn(move || own.serve())
            .map_err(|error| unavailable(format!("the writer's thread could not be started: {error}")))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
            ended: Mutex::new(ended),
            patience: busy_timeout.saturating_mul(2).saturating_add(DROP_PATIENCE),
        })
    }

    /// Has `work` run in the next group, and answers when that is committed.
    pub(super) async fn run<T, W>(&self, what: &'static str, durability: Durability, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Tx<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (job, answer) = group::operation(what, durability, work);
        // Given back when it has been run.
        self.shared.room.acquire().await.map_err(|_| has_ended())?.forget();
        self.shared.push(job)?;
        answer.await.unwrap_or_else(|_| Err(uncertain("the writer has ended")))
    }

    /// Runs `work` on the thread, before what waits.
    #[cfg(feature = "conformance")]
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        {
            let mut queue = self.shared.open_queue()?;
            queue.aside.push_back(Box::new(move |connection| drop(reply.send(work(connection)))));
            self.shared.leave_to_thread(&mut queue);
        }
        answer.await.map_err(|_| uncertain("the writer has ended"))
    }

    pub(super) async fn close(&self) -> Result<(), StoreError> {
        self.shared.close();
        let Some(thread) = self.thread.lock().take() else { return Ok(()) };
        off_the_runtime(move || thread.join()).await?.unwrap_or_else(|_| Err(has_ended()))
    }

    pub(super) fn stats(&self) -> SqliteStats {
        self.shared.counters.stats()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.close();
        if self.ended.get_mut().recv_timeout(self.patience) == Err(std_mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the database is still being closed; not waiting for it any longer");
        }
    }
}

fn has_ended() -> StoreError {
    unavailable("the store was closed, or its writer has ended")
}

impl Shared {
    fn push(self: &Arc<Self>, job: Box<dyn Job>) -> Result<(), StoreError> {
        let mut queue = self.open_queue()?;
        let is_quick = is_quick(&*job);
        queue.waiting.push_back(job);
        if queue.left_to_thread {
            return Ok(());
        }
        let Some(runtime) = Handle::try_current().ok().filter(|_| is_quick) else {
            self.leave_to_thread(&mut queue);
            return Ok(());
        };
        let place = (this_thread(), runtime.id());
        if !queue.tasks.contains(&place) {
            queue.tasks.push(place);
            if runtime.runtime_flavor() == RuntimeFlavor::MultiThread {
                queue.runtime = Some(runtime.clone());
            }
            // Before the task is made: a runtime that is shutting down drops it at once, and that takes the lock.
            drop(queue);
            runtime.spawn(Task { shared: self.clone(), place: Some(place), is_done: false }.serve());
        }
        Ok(())
    }

    fn open_queue(&self) -> Result<MutexGuard<'_, Queue>, StoreError> {
        Some(self.queue.lock()).filter(|queue| !queue.closed).ok_or_else(has_ended)
    }

    fn leave_to_thread(&self, queue: &mut Queue) {
        queue.left_to_thread = true;
        self.wake.notify_one();
    }

    /// Takes nothing in any more; the thread runs what waits and ends.
    fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        self.leave_to_thread(&mut queue);
        drop(queue);
        self.room.close();
    }

    /// Runs a group with the worker that was taken from here, and puts it back. With nobody's patience it may be left to the
    /// thread instead.
    fn run(&self, desk: &mut Option<Worker>, mut worker: Worker, group: &mut Vec<Box<dyn Job>>, patience: Patience) {
        let count = group.len();
        let result = worker.run(group, patience);
        let log_is_long = worker.log_is_long();
        *desk = Some(worker);
        match result {
            Ok(()) => self.room.add_permits(count),
            Err(Busy) => {
                let mut queue = self.queue.lock();
                for job in group.drain(..).rev() {
                    queue.waiting.push_front(job);
                }
                self.leave_to_thread(&mut queue);
            }
        }
        if log_is_long {
            self.queue.lock().log_is_long = true;
            self.wake.notify_one();
        }
    }
}

/// Runs what is quick.
struct Task {
    shared: Arc<Shared>,
    /// None if it was the thread who started it.
    place: Option<Place>,
    is_done: bool,
}

impl Task {
    async fn serve(mut self) {
        if self.place.is_some() {
            // What is ready to run runs first, and may join the group. Once is not enough: a thread of tokio's runtime runs next
            // what was woken last, and a task that has yielded is woken after those that there is something to read for.
            let mut waiting = 0;
            for round in 1..=GATHERINGS {
                tokio::task::yield_now().await;
                let before = std::mem::replace(&mut waiting, self.shared.queue.lock().waiting.len());
                if round > 1 && waiting <= before {
                    break;
                }
            }
        }
        self.run_groups();
        self.is_done = true;
    }

    fn run_groups(&mut self) {
        let shared = &*self.shared;
        let mut group = Vec::new();
        for _ in 0..GROUPS_IN_PLACE {
            let mut queue = shared.queue.lock();
            queue.strike(self.place.take());
            if queue.left_to_thread {
                return;
            }
            // With the queue's lock: whoever writes takes that afterwards, and finds that somebody was here.
            let Some(mut desk) = shared.worker.try_lock() else {
                queue.left_over = true;
                return;
            };
            let quick = queue.waiting.iter().take(LARGEST_GROUP_IN_PLACE).take_while(|job| is_quick(&***job)).count();
            if queue.waiting.is_empty() {
                return;
            }
            let Some(worker) = desk.take_if(|worker| quick > 0 && !worker.is_in_doubt()) else { break };
            queue.left_over = quick < queue.waiting.len();
            group.extend(queue.waiting.drain(..quick));
            drop(queue);
            shared.run(&mut desk, worker, &mut group, Patience::None);
            drop(desk);
            if !shared.queue.lock().left_over {
                return;
            }
        }
        shared.leave_to_thread(&mut shared.queue.lock());
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // Its runtime ends, or a group has panicked.
        let mut queue = self.shared.queue.lock();
        queue.strike(self.place);
        self.shared.leave_to_thread(&mut queue);
    }
}

/// The writer's own thread.
struct OwnThread {
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    recent: Arc<Recent>,
    checkpointer: Option<Connection>,
    _end: std_mpsc::Sender<()>,
}

impl OwnThread {
    /// Until the store is closed.
    fn serve(mut self) -> Result<(), StoreError> {
        loop {
            let mut queue = self.shared.queue.lock();
            self.shared
                .wake
                .wait_while(&mut queue, |queue| !queue.left_to_thread && !queue.log_is_long && !queue.closed);
            let Queue { left_to_thread, closed, .. } = *queue;
            let log_is_long = std::mem::take(&mut queue.log_is_long);
            drop(queue);
            if left_to_thread || closed {
                self.run_groups()?;
            }
            if closed {
                return self.end();
            }
            if log_is_long {
                self.write_back();
            }
        }
    }

    /// Runs what waits, until there is nothing or a task can go on with it.
    fn run_groups(&self) -> Result<(), StoreError> {
        let shared = &self.shared;
        let mut group = Vec::new();
        let mut has_run = false;
        loop {
            let mut desk = shared.worker.lock();
            let mut queue = shared.queue.lock();
            #[cfg(feature = "conformance")]
            while let Some(work) = queue.aside.pop_front() {
                MutexGuard::unlocked(&mut queue, || desk.as_ref().map(|worker| work(worker.connection())));
            }
            if queue.waiting.is_empty() {
                // In this order: a task that has come in vain would go again.
                drop(desk);
                queue.left_to_thread = false;
                return Ok(());
            }
            // Something has to be done each time: a runtime that is ending drops the task, and that leaves it to this thread.
            let is_for_tasks = has_run && !queue.closed && queue.waiting.front().is_some_and(|job| is_quick(&**job));
            if let Some(runtime) = queue.runtime.clone().filter(|_| is_for_tasks) {
                drop(desk);
                queue.left_to_thread = false;
                queue.left_over = true;
                drop(queue);
                runtime.spawn(Task { shared: shared.clone(), place: None, is_done: false }.serve());
                return Ok(());
            }
            let worker = desk.take().ok_or_else(has_ended)?;
            let count = queue.waiting.len().min(LARGEST_GROUP);
            group.extend(queue.waiting.drain(..count));
            drop(queue);
            shared.run(&mut desk, worker, &mut group, Patience::BusyTimeout);
            has_run = true;
        }
    }

    /// Writes the log into the main file while others write on, or, if it has grown too long over that, while nobody does.
    fn write_back(&self) {
        let Some(connection) = &self.checkpointer else { return };
        let mut result = checkpoint::write_back(connection);
        if let Ok(Left::TooMuch) = result {
            let _desk = self.desk();
            result = checkpoint::write_back(connection);
        }
        if let Err(error) = result {
            tracing::warn!(%error, "the write-ahead log cannot be written into the database; it grows");
            if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
                && let Some(worker) = &mut *self.desk()
            {
                worker.doubt();
            }
        }
    }

    /// Meanwhile all that comes is left to this thread.
    fn desk(&self) -> MutexGuard<'_, Option<Worker>> {
        self.shared.leave_to_thread(&mut self.shared.queue.lock());
        self.shared.worker.lock()
    }

    fn end(&mut self) -> Result<(), StoreError> {
        let worker = self.shared.worker.lock().take().ok_or_else(has_ended)?;
        // The last connection to close removes the log, and only one that may write can do so.
        self.readers.close();
        self.recent.close();
        self.checkpointer = None;
        worker.close().map_err(StoreError::from)
    }
}

impl Drop for OwnThread {
    /// Also if it panics: nobody is to wait for it.
    fn drop(&mut self) {
        self.shared.close();
        let mut queue = self.shared.queue.lock();
        let waiting = std::mem::take(&mut queue.waiting);
        #[cfg(feature = "conformance")]
        queue.aside.clear();
        drop(queue);
        drop(waiting);
        drop(self.shared.worker.lock().take());
    }
}
