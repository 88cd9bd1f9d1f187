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
