//! Sessions in Redis, on real servers.

mod faults;
mod processes;
mod suite;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use baton_core::ports::{Random, RandomError};
use baton_store::redis::{RedisOptions, RedisStore};
use baton_store::sqlite::SqliteStore;

/// With accounts in SQLite.
type Sessions = RedisStore<SqliteStore>;

/// Different bytes each time, in this process and in others.
struct Seeded(u64);

impl Seeded {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self((u64::from(std::process::id()) << 32) + NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        for (byte, seed) in bytes.iter_mut().zip(self.0.to_ne_bytes()) {
            *byte = seed;
        }
        Ok(())
    }
}

/// With names for its keys that nobody else uses.
fn fresh_url(place: &str) -> String {
    format!("{place}?prefix={}", baton_testkit::postgres::unique_name())
}

async fn must_open(url: &str, accounts: Arc<SqliteStore>, set: impl FnOnce(&mut RedisOptions)) -> Sessions {
    let mut options = RedisOptions::from_url(url).expect("a good URL");
    set(&mut options);
    RedisStore::open(&options, accounts, &Seeded::new()).await.expect("open")
}
