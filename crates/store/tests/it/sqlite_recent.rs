//! Sessions that were read lately are not read again, and nobody can tell.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use baton_core::error::StoreError;
use baton_core::event::Trace;
use baton_core::one_time::{OneTimeId, Purpose};
use baton_core::ports::{Found, NewOneTime, Store};
use baton_core::session::{AccountId, AccountUpdate, EndSessions, NewSession, Swapped};
use baton_store::clock::ManualClock;
use baton_store::registry::Registry;
use baton_store::sqlite::{SqliteOptions, SqliteStore};

use crate::fixture::{DAY, RENEWAL, START, client, file, new_account, new_session, rotation};

struct Bench {
    store: SqliteStore,
    /// Of the same file, and remembers nothing.
    reading: SqliteStore,
    clock: Arc<ManualClock>,
    account: AccountId,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

/// With an account that has three sessions, which are remembered.
async fn bench() -> Bench {
    let (folder, path) = file();
    let clock = Arc::new(ManualClock::new(START));
    let options = SqliteOptions { busy_timeout: Duration::from_millis(30), ..SqliteOptions::default() };
    let store = SqliteStore::open(&path, options.clone(), clock.clone()).expect("open");
    let options = SqliteOptions { recent_sessions: 0, ..options };
    let reading = SqliteStore::open(&path, options, clock.clone()).expect("open");
    let made = store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("make");
    let bench = Bench { store, reading, clock, account: made.0.id, path, _folder: folder };
    for number in 2..=3 {
        bench.store.create_session(bench.account, new_session(number), &Trace::NONE).await.expect("make");
    }
    bench.look().await;
    bench.look().await;
    bench
}

impl Bench {
    /// Finds what a store that reads finds.
    async fn look(&self) {
        for number in 1..=5 {
            assert_eq!(self.find(number).await, self.reading.find(client(number)).await.expect("find"), "{number}");
        }
    }

    async fn find(&self, number: u8) -> Option<Found> {
        self.store.find(client(number)).await.expect("find")
    }

    async fn swap(&self, number: u8) {
        let session = self.find(number).await.expect("there").session;
        let ip = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let swapped = self.store.swap(client(number), &rotation(&session), ip).await.expect("swap");
        assert!(matches!(swapped, Swapped::Done(_)), "{swapped:?}");
    }

    /// Reads from the file, since the store was opened.
    fn reads(&self) -> u64 {
        let stats = self.store.stats();
        stats.reads_in_place + stats.reads_aside
    }
}

#[tokio::test]
#[cfg_attr(not(any(target_os = "linux", target_os = "macos")), ignore = "nothing is remembered here")]
async fn a_session_is_read_once() {
    let bench = bench().await;
    let before = bench.reads();
    for round in 0..5 {
        bench.clock.advance(Duration::from_secs(1));
        bench.look().await;
        bench.swap(1).await;
        bench.swap(2).await;
        // Those that do not exist are looked for each time.
        assert_eq!(bench.reads() - before, 2 * (round + 1));
    }
    // What changes one session leaves the others.
    assert!(bench.store.end_session(bench.account, client(3), &Trace::NONE).await.expect("end"));
    bench.find(1).await.expect("there");
    assert_eq!(bench.reads() - before, 10);
}

#[tokio::test]
async fn every_change_is_seen_at_the_next_look() {
    let bench = bench().await;
    let store = &bench.store;
    let id = bench.account;

    store.create_session(id, NewSession { max_devices: 3, ..new_session(4) }, &Trace::NONE).await.expect("make");
    bench.look().await;
    store.end_session(id, client(4), &Trace::NONE).await.expect("end");
    bench.look().await;
    // Each at a time of its own, so that it is known to be a commit and nothing but what it changes is forgotten.
    bench.clock.advance(Duration::from_millis(1));
    let rename = AccountUpdate { uid: Some("grace".to_owned()), ..AccountUpdate::default() };
    store.update_account(id, rename, &Trace::NONE).await.expect("update");
    bench.look().await;
    assert_eq!(bench.find(2).await.expect("there").account.uid, "grace");
    bench.clock.advance(Duration::from_millis(1));
    let end = AccountUpdate { end: EndSessions::AllBut(client(2)), ..AccountUpdate::default() };
    store.update_account(id, end, &Trace::NONE).await.expect("update");
    bench.look().await;

    let one_time = OneTimeId::from_bytes([7; 16]);
    let (email, lifetime) = ("ada@example.test".to_owned(), DAY);
    let token = NewOneTime { id: one_time, account: id, purpose: Purpose::Reset, email, lifetime };
    assert!(store.create_one_time(token).await.expect("keep"));
    let end = AccountUpdate { end: EndSessions::All, confirm: true, ..AccountUpdate::default() };
    store.redeem(one_time, end, Some(new_session(5)), &Trace::NONE).await.expect("redeem");
    bench.look().await;

    let ahead = bench.find(5).await.expect("there").session;
    let ahead = ahead.swapped(&rotation(&ahead), START).expect("it is at that");
    store.note(&ahead).await.expect("note");
    bench.look().await;
    assert_eq!(bench.find(5).await.expect("there").session.generation, ahead.generation);

    bench.clock.advance(RENEWAL.lifespan);
    assert_eq!(store.purge(10).await.expect("purge"), 1);
    bench.look().await;
    store.create_session(id, new_session(1), &Trace::NONE).await.expect("make");
    bench.look().await;
    assert!(store.delete_account(id, &Trace::NONE).await.expect("delete"));
    bench.look().await;
    assert_eq!(bench.find(1).await, None);
}

#[tokio::test]
async fn what_others_change_is_seen_at_the_next_look() {
    let bench = bench().await;
    // Another store, as of another process.
    for _ in 0..3 {
        let session = bench.find(1).await.expect("there").session;
        bench.reading.swap(client(1), &rotation(&session), None).await.expect("swap");
        bench.look().await;
        // Both in turn.
        bench.swap(1).await;
        bench.look().await;
    }
    assert!(bench.reading.end_session(bench.account, client(1), &Trace::NONE).await.expect("end"));
    assert_eq!(bench.find(1).await, None);
    bench.look().await;

    // Somebody with a tool of SQLite's.
    let tool = rusqlite::Connection::open(&bench.path).expect("open");
    tool.execute("UPDATE accounts SET email = 'new@example.test'", []).expect("update");
    assert_eq!(bench.find(2).await.expect("there").account.email, "new@example.test");
    tool.execute("DELETE FROM sessions WHERE client = ?1", [client(2).as_bytes()]).expect("delete");
    assert_eq!(bench.find(2).await, None);
    bench.look().await;
    // It empties the log, and the next write starts it anew.
    tool.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("checkpoint");
    bench.look().await;
    bench.swap(3).await;
    bench.look().await;
    drop(tool);
    bench.swap(3).await;
    bench.look().await;
}

#[tokio::test]
async fn what_came_to_nothing_is_not_remembered() {
    let bench = bench().await;
    let session = bench.find(1).await.expect("there").session;
    // The whole group is rolled back after the swap.
    let break_it = |connection: &rusqlite::Connection| {
        connection.execute_batch(
            "CREATE TEMP TRIGGER spoil AFTER UPDATE ON main.sessions BEGIN SELECT raise(ROLLBACK, 'spoilt'); END",
        )
    };
    bench.store.aside(break_it).await.expect("aside").expect("make a trigger");
    let failed = bench.store.swap(client(1), &rotation(&session), None).await;
    assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
    bench.look().await;
    assert_eq!(bench.find(1).await.expect("there").session, session);
}

#[tokio::test]
async fn nothing_is_remembered_of_a_file_that_is_closed() {
    let bench = bench().await;
    // Somebody reads, so closing cannot begin the log anew, which would be seen.
    let other = rusqlite::Connection::open(&bench.path).expect("open");
    other.execute_batch("BEGIN; SELECT value FROM meta").expect("read");
    bench.store.close().await.expect("close");
    let answer = bench.store.find(client(3)).await;
    assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
    drop(other);
    assert!(bench.reading.end_session(bench.account, client(1), &Trace::NONE).await.expect("end"));
    for number in 1..=2 {
        let answer = bench.store.find(client(number)).await;
        assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
    }
}
