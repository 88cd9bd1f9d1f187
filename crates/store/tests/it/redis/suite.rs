//! The conformance suite: on one server and on a cluster, with accounts in SQLite; and what of it runs many at once, with
//! accounts in PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use baton_core::clock::{Clock, millis};
use baton_core::{Store, Timestamp};
use baton_store::clock::SystemClock;
use baton_store::conformance::{Harness, accounts, one_time, races, sessions};
use baton_store::postgres::PostgresStore;
use baton_store::redis::{RedisOptions, RedisStore};
use baton_store::registry::Registry;
use baton_store::sqlite::{SqliteOptions, SqliteStore};
use baton_testkit::redis::{shared, shared_cluster};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::Seeded;
use crate::postgres::Schema;

/// Each node has connections of its own, as another process would.
struct InRedis {
    url: String,
    accounts: Accounts,
    nodes: Mutex<Vec<Arc<dyn Pushed>>>,
}

enum Accounts {
    Sqlite { clock: Arc<Ahead>, folders: Mutex<Vec<TempDir>> },
    Postgres { schema: Mutex<Option<Arc<Schema>>> },
}

/// A clock that goes on by itself, and is ahead of that of Redis: so it is the time that counts, and a test can move it.
struct Ahead {
    clock: SystemClock,
    by: AtomicI64,
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.now().as_millis() + self.by.load(Ordering::Relaxed))
    }
}

/// The clock of Redis cannot be set, but a node can be told that it is later.
trait Pushed: Send + Sync {
    fn push(&self, time: Timestamp);
}

impl<R: Registry> Pushed for RedisStore<R> {
    fn push(&self, time: Timestamp) {
        self.observe(time);
    }
}

impl InRedis {
    fn new(url: String, accounts: Accounts) -> Self {
        Self { url, accounts, nodes: Mutex::default() }
    }

    fn one() -> Self {
        Self::new(format!("redis://127.0.0.1:{}", shared()), Accounts::in_sqlite())
    }

    fn one_beside_postgres() -> Self {
        Self::new(format!("redis://127.0.0.1:{}", shared()), Accounts::Postgres { schema: Mutex::default() })
    }

    fn cluster() -> Self {
        let nodes: Vec<String> = shared_cluster().iter().take(2).map(|port| format!("127.0.0.1:{port}")).collect();
        Self::new(format!("redis+cluster://{}", nodes.join(",")), Accounts::in_sqlite())
    }

    async fn node<R: Registry + 'static>(&self, registry: R, prefix: &str) -> Arc<dyn Store> {
        let mut options = RedisOptions::from_url(&format!("{}?prefix={prefix}", self.url)).expect("a good URL");
        // Rivals on two slow cores may wait for each other longer than a server should.
        options.timeout = Duration::from_secs(30);
        let store = Arc::new(RedisStore::open(&options, Arc::new(registry), &Seeded::new()).await.expect("open"));
        self.nodes.lock().push(store.clone());
        store
    }
}

impl Accounts {
    fn in_sqlite() -> Self {
        let clock = Ahead { clock: SystemClock::new(), by: AtomicI64::new(millis(Duration::from_secs(60))) };
        Self::Sqlite { clock: Arc::new(clock), folders: Mutex::default() }
    }
}

#[async_trait::async_trait]
impl Harness for InRedis {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn nodes(&self, count: usize) -> Vec<Arc<dyn Store>> {
        let mut nodes = Vec::new();
        let prefix = baton_testkit::postgres::unique_name();
        match &self.accounts {
            Accounts::Sqlite { clock, folders } => {
                let folder = tempfile::tempdir().expect("a folder");
                let path = folder.path().join("baton.db");
                folders.lock().push(folder);
                let options = SqliteOptions { busy_timeout: Duration::from_secs(30), ..SqliteOptions::default() };
                for _ in 0..count {
                    let accounts = SqliteStore::open(&path, options.clone(), clock.clone()).expect("open");
                    nodes.push(self.node(accounts, &prefix).await);
                }
            }
            Accounts::Postgres { schema: newest } => {
                let schema = Arc::new(Schema::fresh());
                for _ in 0..count {
                    let mut options = schema.options();
                    let patience = Duration::from_secs(30);
                    (options.acquire_timeout, options.statement_timeout) = (patience, patience);
                    let accounts = PostgresStore::open(options).await.expect("open");
                    nodes.push(self.node(accounts, &prefix).await);
                }
                *newest.lock() = Some(schema);
            }
        }
        nodes
    }

    async fn advance(&self, by: Duration) {
        let now = match &self.accounts {
            Accounts::Sqlite { clock, .. } => {
                clock.by.fetch_add(millis(by), Ordering::Relaxed);
                clock.now()
            }
            Accounts::Postgres { schema } => {
                let Some(schema) = schema.lock().clone() else { return };
                schema.advance(by).await
            }
        };
        for node in &*self.nodes.lock() {
            node.push(now);
        }
    }
}

mod one {
    baton_store::conformance!(super::InRedis::one());
}

mod cluster {
    baton_store::conformance!(super::InRedis::cluster());
}

/// Two clocks that cannot be moved alike: what needs time to pass is left to the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_beside_postgres() {
    let harness = InRedis::one_beside_postgres();
    let harness: &dyn Harness = &harness;
    races::nothing_brings_an_ended_session_back(harness).await;
    races::nothing_is_left_of_an_account_deleted_meanwhile(harness).await;
    races::the_device_limit_holds(harness).await;
    races::a_read_sees_every_answered_swap(harness).await;
    one_time::one_of_many_redemptions_is_made(harness).await;
    accounts::a_new_password_ends_the_sessions_it_is_told_to(harness).await;
    accounts::a_permit_lasts_until_a_new_password(harness).await;
    sessions::a_client_id_is_not_taken_over(harness).await;
}
