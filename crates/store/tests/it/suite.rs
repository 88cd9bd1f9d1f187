//! The conformance suite on the stores of this crate.

use std::sync::Arc;
use std::time::Duration;

use baton_core::{Store, Timestamp};
use baton_store::clock::ManualClock;
use baton_store::conformance::Harness;
use baton_store::memory::MemoryStore;
use baton_store::sqlite::{SqliteOptions, SqliteStore};
use parking_lot::Mutex;
use tempfile::TempDir;

const START: Timestamp = Timestamp::from_millis(1_750_000_000_000);

struct InMemory(Arc<ManualClock>);

impl InMemory {
    fn new() -> Self {
        Self(Arc::new(ManualClock::new(START)))
    }
}

#[async_trait::async_trait]
impl Harness for InMemory {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn nodes(&self, count: usize) -> Vec<Arc<dyn Store>> {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(self.0.clone()));
        vec![store; count]
    }

    async fn advance(&self, by: Duration) {
        self.0.advance(by);
    }
}

/// Each node opens the file for itself, as another process would.
struct InSqlite {
    clock: Arc<ManualClock>,
    folders: Mutex<Vec<TempDir>>,
}

impl InSqlite {
    fn new() -> Self {
        Self { clock: Arc::new(ManualClock::new(START)), folders: Mutex::default() }
    }
}

#[async_trait::async_trait]
impl Harness for InSqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn nodes(&self, count: usize) -> Vec<Arc<dyn Store>> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("baton.db");
        self.folders.lock().push(folder);
        // Rivals on two slow cores may wait for each other longer than a server should.
        let options = SqliteOptions { busy_timeout: Duration::from_secs(30), ..SqliteOptions::default() };
        let open = || SqliteStore::open(&path, options.clone(), self.clock.clone()).expect("open");
        (0..count).map(|_| Arc::new(open()) as Arc<dyn Store>).collect()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

mod memory {
    baton_store::conformance!(super::InMemory::new());
}

mod sqlite {
    baton_store::conformance!(super::InSqlite::new());
}

#[test]
fn every_check_is_in_the_macro() {
    let list = include_str!("../../src/conformance/mod.rs");
    let modules = [
        ("accounts", include_str!("../../src/conformance/accounts.rs")),
        ("attempts", include_str!("../../src/conformance/attempts.rs")),
        ("keys", include_str!("../../src/conformance/keys.rs")),
        ("model", include_str!("../../src/conformance/model.rs")),
        ("one_time", include_str!("../../src/conformance/one_time.rs")),
        ("races", include_str!("../../src/conformance/races.rs")),
        ("sessions", include_str!("../../src/conformance/sessions.rs")),
        ("swaps", include_str!("../../src/conformance/swaps.rs")),
        ("time", include_str!("../../src/conformance/time.rs")),
        ("traces", include_str!("../../src/conformance/traces.rs")),
    ];
    for (module, source) in modules {
        let checks = source.lines().filter_map(|line| line.strip_prefix("pub async fn ")?.split_once('('));
        let mut found = 0;
        for (check, _) in checks {
            assert!(list.contains(&format!(" {module}: {check}\n")), "{module}::{check} is never run");
            found += 1;
        }
        assert!(found > 0, "no checks in {module}");
    }
}
