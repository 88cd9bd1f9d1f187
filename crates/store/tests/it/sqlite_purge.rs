//! Removing what has expired, in a file where most has not.

use std::sync::Arc;
use std::time::Duration;

use baton_core::event::Trace;
use baton_core::ports::Store;
use baton_core::session::{Session, Swapped};
use baton_store::clock::ManualClock;
use baton_store::sqlite::SqliteStore;
use tempfile::TempDir;

use crate::fixture::{DAY, RENEWAL, START, client, file, must_open, new_account, new_session, rotation, with_suffix};

struct Bench {
    _folder: TempDir,
    path: std::path::PathBuf,
    clock: Arc<ManualClock>,
    store: SqliteStore,
}

impl Bench {
    /// A file with five sessions of interest, and 5000 that nobody uses and that do not expire.
    async fn new() -> Self {
        let (folder, path) = file();
        let clock = Arc::new(ManualClock::new(START));
        let store = must_open(&path, clock.clone());
        let (account, _) = store.create_account(new_account("ada"), None, &Trace::NONE).await.expect("make");
        for number in 1..=5 {
            store.create_session(account.id, new_session(number), &Trace::NONE).await.expect("make");
        }
        let bench = Self { _folder: folder, path, clock, store };
        bench
            .sql(
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 5000)
                 INSERT INTO sessions (client, account, generation, confirmed, created_at, expires_at, last_seen_at, purge_at,
                                       user_agent)
                 SELECT randomblob(16), 1, 1, 0, 0, 9000000000000, 0, 9000000000000 + n, 'Lynx' FROM n",
            )
            .await;
        bench
    }

    async fn sql(&self, sql: &'static str) {
        self.store.aside(move |connection| connection.execute_batch(sql)).await.expect("it runs").expect(sql);
    }

    async fn number(&self, sql: &'static str) -> i64 {
        let read = move |connection: &rusqlite::Connection| connection.query_row(sql, [], |row| row.get(0));
        self.store.aside(read).await.expect("it runs").expect(sql)
    }

    async fn session(&self, number: u8) -> Option<Session> {
        self.store.find(client(number)).await.expect("find").map(|found| found.session)
    }

    async fn rotate(&self, number: u8) {
        let session = self.session(number).await.expect("it exists");
        let swapped = self.store.swap(client(number), &rotation(&session), None).await.expect("swap");
        assert!(matches!(swapped, Swapped::Done(_)), "{swapped:?}");
    }
}

/// An index on what a rotation changes would have to be written to by each of them.
#[tokio::test]
async fn a_rotation_writes_to_its_row_and_moves_no_index_entry() {
    let bench = Bench::new().await;
    // With all of its values set, so that the row does not grow.
    bench.rotate(1).await;
    bench.clock.advance(DAY);
    bench.number("PRAGMA wal_checkpoint(TRUNCATE)").await;
    let pages = || (std::fs::metadata(with_suffix(&bench.path, "-wal")).expect("a log").len() - 32) / (4096 + 24);
    bench.rotate(1).await;
    assert_eq!(pages(), 2, "one for the row, one for the store's time");
    bench.clock.advance(Duration::from_millis(999));
    bench.rotate(1).await;
    assert_eq!(pages(), 3, "the time is not written every time");
    bench.clock.advance(Duration::from_millis(1));
    bench.rotate(1).await;
    assert_eq!(pages(), 5, "but a second later at most");
}

#[tokio::test]
async fn a_renewed_session_is_put_off_and_not_purged() {
    let bench = Bench::new().await;
    bench.clock.advance(RENEWAL.lifespan - DAY);
    bench.rotate(1).await;
    bench.rotate(2).await;
    bench.clock.advance(DAY);
    assert_eq!(bench.store.purge(2).await.expect("purge"), 2, "however many were renewed");
    assert_eq!(bench.store.purge(2).await.expect("purge"), 1);
    assert_eq!(bench.store.purge(2).await.expect("purge"), 0);
    assert_eq!(bench.number("SELECT count(*) FROM sessions").await, 5_002);
    assert_eq!(bench.number("SELECT count(*) FROM sessions WHERE purge_at <> expires_at").await, 5_000);
    assert!(bench.session(1).await.is_some() && bench.session(2).await.is_some());
    bench.clock.advance(RENEWAL.lifespan);
    assert_eq!(bench.store.purge(10).await.expect("purge"), 2);
}

/// The writer is not held for longer than a few take: others get their turn in between.
#[tokio::test]
async fn many_that_were_renewed_are_put_off_a_few_at_a_time() {
    let bench = Bench::new().await;
    bench.sql("UPDATE sessions SET purge_at = 0 WHERE created_at > 0").await;
    let before = bench.store.stats().operations;
    assert_eq!(bench.store.purge(2).await.expect("purge"), 0);
    // Two, two, one, none.
    assert_eq!(bench.store.stats().operations - before, 4);
    assert_eq!(bench.number("SELECT count(*) FROM sessions WHERE purge_at = 0").await, 0);
    // And it ends.
    bench.sql("UPDATE sessions SET purge_at = 0").await;
    assert_eq!(bench.store.purge(2).await.expect("purge"), 0);
    assert_eq!(bench.number("SELECT count(*) FROM sessions WHERE purge_at = 0").await, 5_005 - 20);
}

/// A reader does not wait for whoever writes.
#[tokio::test]
async fn requests_are_answered_while_a_purge_is_under_way() {
    let bench = Bench::new().await;
    bench.clock.advance(RENEWAL.lifespan + Duration::from_secs(1));
    let purging = rusqlite::Connection::open(&bench.path).expect("open");
    purging.execute_batch("BEGIN IMMEDIATE; DELETE FROM sessions WHERE created_at > 0").expect("purge");
    assert!(bench.session(1).await.is_some());
    purging.execute_batch("COMMIT").expect("commit");
    assert!(bench.session(1).await.is_none());
}
