//! Which commit a file is at, as every process that has it open sees it, without a transaction.
//!
//! SQLite keeps the header of its wal-index at the beginning of the `-shm` file and writes it anew with every commit, whoever
//! commits (<https://www.sqlite.org/walformat.html>, 2.1). It may be read with a plain read: what processes share through a
//! mapping of a file is what the file holds.

use std::num::NonZeroU64;
use std::path::Path;

/// The state of the database after a commit, told apart from the states after all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(NonZeroU64);

impl Mark {
    /// From the first copy of the header. `None` while it is being set up, or if it is of a version that is not known.
    #[cfg_attr(not(any(target_os = "linux", target_os = "macos")), expect(dead_code))]
    fn of(header: [u8; HEADER]) -> Option<Self> {
        const VERSION: u32 = 3_007_000;
        let word = |at: usize| header[at..at + 4].try_into().map(u32::from_ne_bytes).unwrap_or_default();
        let (version, is_set_up, changes, checksum) = (word(0), header[12] != 0, word(8), word(44));
        // The number of the change goes up by one with each commit. When the index is made anew after a crash it starts
        // again; then the checksum of the header, which covers how far the log is and its salt, makes the difference.
        let mark = NonZeroU64::new(u64::from(changes) << 32 | u64::from(checksum));
        mark.filter(|_| version == VERSION && is_set_up).map(Self)
    }

    /// Whether it is that of the very next commit.
    pub(super) const fn follows(self, earlier: Self) -> bool {
        (self.get() >> 32) as u32 == ((earlier.get() >> 32) as u32).wrapping_add(1)
    }

    /// Never 0.
    pub(super) const fn get(self) -> u64 {
        self.0.get()
    }
}

/// Bytes of one copy of the header.
const HEADER: usize = 48;

/// Where the header is read.
pub(super) struct WalIndex(#[cfg(any(target_os = "linux", target_os = "macos"))] std::sync::Arc<std::fs::File>);

#[cfg(any(target_os = "linux", target_os = "macos"))]
impl WalIndex {
    /// Of a database that is open in this process. `None` if the index cannot be read; then no commit can be told from another.
    pub(super) fn of(database: &Path) -> Option<Self> {
        let mut path = database.canonicalize().ok()?.into_os_string();
        path.push("-shm");
        kept_open::file(Path::new(&path)).ok().map(Self)
    }

    /// The commit that is the latest.
    pub(super) fn mark(&self) -> Option<Mark> {
        let mut header = [0; HEADER];
        std::os::unix::fs::FileExt::read_exact_at(&*self.0, &mut header, 0).ok()?;
        Mark::of(header)
    }
}

/// Elsewhere nobody has looked whether a read sees what is written through a mapping.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
impl WalIndex {
    pub(super) fn of(_: &Path) -> Option<Self> {
        None
    }

    pub(super) fn mark(&self) -> Option<Mark> {
        None
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
mod kept_open {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;
    use std::sync::Arc;

    use parking_lot::Mutex;

    /// Closing any descriptor of a file drops all locks that the process has on it, also those that SQLite has taken through
    /// another descriptor. So none is closed before the file is deleted, which the last connection to the database does.
    static FILES: Mutex<Vec<Arc<File>>> = Mutex::new(Vec::new());

    pub(super) fn file(path: &Path) -> io::Result<Arc<File>> {
        let mut files = FILES.lock();
        files.retain(|file| file.metadata().is_ok_and(|metadata| metadata.nlink() > 0));
        // Not by opening it: to close that again is what must not happen.
        let wanted = std::fs::metadata(path)?;
        let same = |file: &&Arc<File>| {
            file.metadata().is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == (wanted.dev(), wanted.ino()))
        };
        if let Some(file) = files.iter().find(same) {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(path)?);
        files.push(file.clone());
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{SqliteOptions, file};

    #[test]
    fn every_commit_makes_a_mark_of_its_own_and_reads_make_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("baton.db");
        let connections = [(); 2].map(|()| file::open_writer(&path, &SqliteOptions::default()).expect("open"));
        let index = WalIndex::of(&path).expect("the index can be read here");

        let mut marks = vec![index.mark().expect("set up")];
        for round in 0..6 {
            connections[round % 2].execute("UPDATE meta SET value = value + 1", []).expect("write");
            let mark = index.mark().expect("set up");
            assert!(!marks.contains(&mark), "{round}");
            let follows: Vec<_> = marks.iter().map(|earlier| mark.follows(*earlier)).collect();
            assert_eq!(follows.iter().rposition(|follows| *follows), Some(round), "{follows:?}");
            assert_eq!(follows.iter().filter(|follows| **follows).count(), 1, "{follows:?}");
            marks.push(mark);
            let _: i64 = connections[1].query_row("SELECT value FROM meta", [], |row| row.get(0)).expect("read");
            connections[0].execute_batch("BEGIN IMMEDIATE; UPDATE meta SET value = 0; ROLLBACK").expect("roll back");
            assert_eq!(index.mark(), Some(mark), "{round}");
        }
    }

    #[test]
    fn what_is_no_index_has_no_mark() {
        let mut header = [0_u8; HEADER];
        assert_eq!(Mark::of(header), None);
        header[..4].copy_from_slice(&3_007_000_u32.to_ne_bytes());
        assert_eq!(Mark::of(header), None);
        header[12] = 1;
        assert_eq!(Mark::of(header), None);
        header[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        header[44..].copy_from_slice(&9_u32.to_ne_bytes());
        assert_eq!(Mark::of(header).map(Mark::get), Some(7 << 32 | 9));
        header[..4].copy_from_slice(&3_008_000_u32.to_ne_bytes());
        assert_eq!(Mark::of(header), None);
    }

    #[test]
    fn the_file_is_closed_when_its_database_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("baton.db");
        let connection = file::open_writer(&path, &SqliteOptions::default()).expect("open");
        let (first, second) = (WalIndex::of(&path).expect("open"), WalIndex::of(&path).expect("open"));
        assert!(std::sync::Arc::ptr_eq(&first.0, &second.0), "opened once");
        let file = std::sync::Arc::downgrade(&first.0);
        drop((first, second));
        assert!(file.upgrade().is_some(), "still locked");
        drop(connection);
        let connection = file::open_writer(&path, &SqliteOptions::default()).expect("open");
        let again = WalIndex::of(&path).expect("open");
        assert!(file.upgrade().is_none());
        drop((again, connection));
    }
}
