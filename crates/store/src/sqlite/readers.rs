//! A few connections that read beside the writer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use baton_core::error::StoreError;
use parking_lot::Mutex;
use rusqlite::Connection;

use super::error::{doing, is_busy, unavailable};
use super::{SqliteOptions, file};

pub(super) struct Readers {
    /// `None` once closed.
    connections: Vec<Mutex<Option<Connection>>>,
    busy_timeout: Duration,
    turn: AtomicUsize,
    in_place: AtomicU64,
    aside: AtomicU64,
}

impl Readers {
    pub(super) fn open(path: &Path, options: &SqliteOptions) -> Result<Self, StoreError> {
        let open = || file::open_reader(path, options).map(|connection| Mutex::new(Some(connection)));
        Ok(Self {
            connections: (0..options.readers.max(1)).map(|_| open()).collect::<Result<_, _>>()?,
            busy_timeout: file::busy_timeout(options),
            turn: AtomicUsize::new(0),
            in_place: AtomicU64::new(0),
            aside: AtomicU64::new(0),
        })
    }

    /// Runs `query`, in place if a connection is free and the file not locked; otherwise on a thread where waiting hurts
    /// nobody.
    pub(super) async fn read<T, Q>(self: &Arc<Self>, what: &'static str, query: Q) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Q: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        if let Some(answer) = self.try_in_place(&query) {
            return answer.map_err(doing(what));
        }
        self.aside.fetch_add(1, Ordering::Relaxed);
        let readers = self.clone();
        off_the_runtime(move || readers.wait(what, query)).await?
    }

    /// Reads answered in place, and aside.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.in_place.load(Ordering::Relaxed), self.aside.load(Ordering::Relaxed))
    }

    /// Closes every connection, waiting for the reads that run.
    pub(super) fn close(&self) {
        for connection in &self.connections {
            connection.lock().take();
        }
    }

    fn try_in_place<T>(&self, query: impl Fn(&Connection) -> rusqlite::Result<T>) -> Option<rusqlite::Result<T>> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.connections.len();
        for index in 0..count {
            let Some(slot) = self.connections[first.wrapping_add(index) % count].try_lock() else { continue };
            let connection = slot.as_ref()?;
            let answer = query(connection);
            if answer.as_ref().is_err_and(is_busy) {
                return None;
            }
            self.in_place.fetch_add(1, Ordering::Relaxed);
            return Some(answer);
        }
        None
    }

    fn wait<T>(&self, what: &'static str, query: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        let slot = self.connections[turn].lock();
        let connection = slot.as_ref().ok_or_else(|| unavailable("the store was closed"))?;
        let answer = connection.busy_timeout(self.busy_timeout).and_then(|()| query(connection));
        // Whatever came of it: the next read in place must not wait.
        connection.busy_timeout(Duration::ZERO).and(answer).map_err(doing(what))
    }
}

/// Runs what may block where it does not hold up other tasks; in place if there is no runtime.
pub(super) async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn_blocking(work).await.map_err(|error| unavailable(format!("a thread was lost: {error}")))
        }
        Err(_) => Ok(work()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readers(count: usize) -> (tempfile::TempDir, Arc<Readers>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("baton.db");
        let options =
            SqliteOptions { readers: count, busy_timeout: Duration::from_secs(30), ..SqliteOptions::default() };
        file::open_writer(&path, &options).expect("open");
        let readers = Readers::open(&path, &options).expect("open");
        (folder, Arc::new(readers))
    }

    fn one(connection: &Connection) -> rusqlite::Result<i64> {
        connection.query_row("SELECT 1", [], |row| row.get(0))
    }

    #[tokio::test]
    async fn reads_in_place_while_a_connection_is_free() {
        let (_folder, readers) = readers(2);
        let taken = readers.connections[0].lock();
        for _ in 0..4 {
            assert_eq!(readers.try_in_place(one).expect("in place").expect("read"), 1);
        }
        drop(taken);
        assert_eq!(readers.read("test", one).await.expect("read"), 1);
        assert_eq!(readers.counts(), (5, 0));
    }

    #[tokio::test]
    async fn waits_aside_when_every_connection_is_taken() {
        let (_folder, readers) = readers(1);
        let (release, released) = std::sync::mpsc::channel();
        let (took, taken) = tokio::sync::oneshot::channel();
        let holder = readers.clone();
        let thread = std::thread::spawn(move || {
            let _slot = holder.connections[0].lock();
            took.send(()).expect("the test waits");
            released.recv().expect("the test releases");
        });
        taken.await.expect("taken");

        let reading = tokio::spawn({
            let readers = readers.clone();
            async move { readers.read("test", one).await }
        });
        // On this one thread, the read gets as far as it can before this task goes on: it did not block it.
        tokio::task::yield_now().await;
        assert_eq!(readers.counts(), (0, 1));
        release.send(()).expect("the holder waits");
        assert_eq!(reading.await.expect("joined").expect("read"), 1);
        thread.join().expect("the holder");
    }

    #[tokio::test]
    async fn waits_aside_when_the_file_is_locked() {
        let (_folder, readers) = readers(1);
        let asked = Arc::new(AtomicU64::new(0));
        let query = {
            let asked = asked.clone();
            move |connection: &Connection| {
                let patience: i64 = connection.query_row("PRAGMA busy_timeout", [], |row| row.get(0))?;
                if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                    assert_eq!(patience, 0, "waiting in place holds other tasks up");
                    return Err(rusqlite::Error::SqliteFailure(
                        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                        None,
                    ));
                }
                Ok(patience)
            }
        };
        assert_eq!(readers.read("test", query).await.expect("read"), 30_000);
        assert_eq!((asked.load(Ordering::SeqCst), readers.counts()), (2, (0, 1)));
        // And the next one in place does not wait again.
        let patience = |connection: &Connection| connection.query_row("PRAGMA busy_timeout", [], |row| row.get(0));
        assert_eq!(readers.read::<i64, _>("test", patience).await.expect("read"), 0);
    }

    #[tokio::test]
    async fn answers_unavailable_once_closed() {
        let (_folder, readers) = readers(2);
        readers.close();
        assert!(matches!(readers.read("test", one).await, Err(StoreError::Unavailable { .. })));
    }

    #[test]
    fn needs_no_runtime() {
        let (_folder, readers) = readers(1);
        let mut reading = std::pin::pin!(readers.read("test", one));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(matches!(reading.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(1))));
    }

    #[test]
    fn cannot_write() {
        let (_folder, readers) = readers(1);
        let slot = readers.connections[0].lock();
        let connection = slot.as_ref().expect("open");
        assert!(connection.execute("DELETE FROM accounts", []).is_err());
    }
}
