//! When the write-ahead log is written into the main file, and what comes of it.
//!
//! SQLite would do so within the commit that makes the log long enough, and whoever waits for that commit would wait for the
//! disk twice. Here a connection of its own does, beside those that write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::Connection;

/// Pages in the log after which it is written back, as in SQLite.
const LONG: u32 = 1_000;
/// Pages in the log from which on nobody may write meanwhile: who writes without a break would never let it begin anew, and
/// SQLite looks for a page among all its versions in the log.
const TOO_LONG: u32 = 4 * LONG;

/// How long the log is, as the connection that writes sees it.
pub(super) struct Log {
    /// Pages in it after the latest commit.
    pages: Arc<AtomicU32>,
    seen: u32,
    /// The number of pages at which it is to be written back.
    due: u32,
}

impl Log {
    /// Of this connection, which will not write it back by itself any more.
    pub(super) fn of(connection: &mut Connection) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicU32::new(0));
        let count = pages.clone();
        connection.wal_hook(Some(move |_: &mut _, pages| {
            count.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self { pages, seen: 0, due: LONG })
    }

    /// Whether it should be written back now. True once for each [`LONG`] pages.
    pub(super) fn is_due(&mut self) -> bool {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.seen {
            // It has begun anew.
            self.due = LONG;
        }
        self.seen = pages;
        let is_due = pages >= self.due;
        if is_due {
            self.due = pages.saturating_add(LONG);
        }
        is_due
    }
}

/// What is left of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing, or so little that it may stay.
    Enough,
    /// Too much, since others wrote meanwhile.
    TooMuch,
}

/// Writes back what nobody reads any more, and waits for the disk. Waits for no other connection.
pub(super) fn write_back(connection: &Connection) -> rusqlite::Result<Left> {
    let (pages, written): (i64, i64) =
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))?;
    Ok(if written < pages && pages >= i64::from(TOO_LONG) { Left::TooMuch } else { Left::Enough })
}

/// Writes everything back, and makes the log empty. False if another process is in the way.
pub(super) fn empty(connection: &Connection) -> rusqlite::Result<bool> {
    let blocked: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(!blocked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{SqliteOptions, file};

    #[test]
    fn a_log_that_cannot_be_written_back_is_too_much_one_day_and_begins_anew_when_it_can() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, options) = (folder.path().join("baton.db"), SqliteOptions::default());
        let mut writer = file::open_writer(&path, &options).expect("open");
        let mut log = Log::of(&mut writer).expect("watch");
        let (reader, checkpointer) = (file::open_reader(&path, &options), file::open_checkpointer(&path));
        let (reader, checkpointer) = (reader.expect("open"), checkpointer.expect("open"));
        let write = || writer.execute("UPDATE meta SET value = value + 1", []).map(drop).expect("write");

        write();
        reader.execute_batch("BEGIN; SELECT value FROM meta").expect("read");
        let mut due = 0;
        for _ in 0..LONG {
            write();
            due += u32::from(log.is_due());
        }
        assert_eq!((due, write_back(&checkpointer).expect("write back")), (1, Left::Enough), "it may stay for now");
        for _ in LONG..TOO_LONG {
            write();
            due += u32::from(log.is_due());
        }
        assert_eq!((due, write_back(&checkpointer).expect("write back")), (TOO_LONG / LONG, Left::TooMuch));

        reader.execute_batch("COMMIT").expect("end");
        assert_eq!(write_back(&checkpointer).expect("write back"), Left::Enough);
        write();
        assert!(!log.is_due());
        assert!(log.seen < LONG, "{}", log.seen);
        let again = (0..LONG).filter(|_| {
            write();
            log.is_due()
        });
        assert_eq!(again.count(), 1);
    }
}
