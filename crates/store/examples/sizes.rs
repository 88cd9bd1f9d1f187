//! How much a session takes in each store: the figures of docs/stores.md.
//!
//! ```sh
//! cargo run -p baton-store --all-features --example sizes -- 100000
//! ```
//!
//! Fills a throw-away store of each kind with that many sessions, has each of them rotated, and asks the database before and
//! after how much room its tables and indexes take, and Redis how much memory.

#![allow(clippy::print_stdout, reason = "it is what it is for")]

use std::sync::Arc;
use std::time::Duration;

use baton_core::Store;
use baton_core::event::Trace;
use baton_core::ports::{Random, RandomError};
use baton_core::session::{Device, NewAccount, NewSession, PasswordHash, Profile, Renewal, Swap};
use baton_core::token::ClientId;
use baton_store::clock::SystemClock;
use baton_store::postgres::{PostgresOptions, PostgresStore};
use baton_store::redis::{RedisOptions, RedisStore};
use baton_store::sqlite::{SqliteOptions, SqliteStore};
use baton_testkit::postgres::Server;
use tokio::task::JoinSet;

const USER_AGENT: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
const RENEWAL: Renewal =
    Renewal { lifespan: Duration::from_secs(14 * 86_400), max_lifetime: Duration::from_secs(30 * 86_400) };
/// How often each session is rotated.
const ROTATIONS: u32 = 3;
const SESSIONS_PER_ACCOUNT: usize = 4;
/// What is under way at once.
const TASKS: usize = 64;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let sessions: usize = std::env::args().nth(1).map_or(Ok(100_000), |count| count.parse())?;
    println!("{sessions} sessions, {SESSIONS_PER_ACCOUNT} an account, each rotated {ROTATIONS} times");
    in_sqlite(sessions).await?;
    in_postgres(sessions).await?;
    in_redis(sessions).await
}

async fn in_sqlite(sessions: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("baton.db");
    let store: Arc<SqliteStore> =
        Arc::new(SqliteStore::open(&path, SqliteOptions::default(), Arc::new(SystemClock::new()))?);
    let sizes = || -> Result<Vec<(String, i64)>, Failure> {
        let connection = rusqlite::Connection::open(&path)?;
        let mut sizes = connection.prepare(
            "SELECT d.name, sum(d.pgsize) FROM dbstat d JOIN sqlite_schema s ON s.name = d.name
             WHERE s.tbl_name = 'sessions' GROUP BY d.name ORDER BY 2 DESC",
        )?;
        Ok(sizes.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<Vec<_>, _>>()?)
    };
    println!("SQLite {}", rusqlite::version());
    let clients = sign_in(store.clone(), sessions).await?;
    report("signed in", sessions, &sizes()?);
    rotate(store.clone(), clients).await?;
    report("rotated", sessions, &sizes()?);
    Ok(store.close().await?)
}

async fn in_postgres(sessions: usize) -> Result<(), Failure> {
    let server = Server::own(&["-c", "fsync=off", "-c", "autovacuum=on"]);
    let store = Arc::new(PostgresStore::open(PostgresOptions::from_url(&server.url("baton"))?).await?);
    let client = server.client().await;
    let sizes = async || -> Result<Vec<(String, i64)>, Failure> {
        let sql = "SELECT c.relname::text, pg_relation_size(c.oid) FROM pg_class c
             WHERE c.oid = 'baton.sessions'::regclass
                OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'baton.sessions'::regclass)
             ORDER BY 2 DESC";
        Ok(client.query(sql, &[]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
    };
    println!("PostgreSQL {}", client.query_one("SHOW server_version", &[]).await?.get::<_, String>(0));
    let clients = sign_in(store.clone(), sessions).await?;
    report("signed in", sessions, &sizes().await?);
    rotate(store.clone(), clients).await?;
    report("rotated", sessions, &sizes().await?);
    store.close().await;
    Ok(())
}

async fn in_redis(sessions: usize) -> Result<(), Failure> {
    let server = baton_testkit::redis::Server::own(&[]);
    let folder = tempfile::tempdir()?;
    let clock = Arc::new(SystemClock::new());
    let accounts = Arc::new(SqliteStore::open(folder.path().join("baton.db"), SqliteOptions::default(), clock)?);
    let options = RedisOptions::from_url(&format!("redis://127.0.0.1:{}", server.port))?;
    let store = Arc::new(RedisStore::open(&options, accounts.clone(), &OneNode).await?);
    let told = |section: &str, name: &str| {
        let info = server.says(&["INFO", section]);
        let value = info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
        value.ok_or_else(|| format!("Redis does not tell {name}"))
    };
    let memory = || -> Result<i64, Failure> { Ok(told("memory", "used_memory")?.parse()?) };
    println!("Redis {}, besides the row in SQLite or PostgreSQL", told("server", "redis_version")?);
    let before = memory()?;
    let clients = sign_in(store.clone(), sessions).await?;
    report("signed in", sessions, &[("memory".to_owned(), memory()? - before)]);
    rotate(store.clone(), clients).await?;
    report("rotated", sessions, &[("memory".to_owned(), memory()? - before)]);
    store.close();
    Ok(accounts.close().await?)
}

/// There is only one, so its name may be anything.
struct OneNode;

impl Random for OneNode {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        bytes.fill(1);
        Ok(())
    }
}

fn report(when: &str, sessions: usize, sizes: &[(String, i64)]) {
    let each = |size: i64| size as f64 / sessions as f64;
    println!("  {when}: {:.0} bytes a session", each(sizes.iter().map(|(_, size)| size).sum()));
    for (name, size) in sizes {
        println!("    {name:<24} {:>6.1}", each(*size));
    }
}

async fn sign_in(store: Arc<dyn Store>, sessions: usize) -> Result<Vec<ClientId>, Failure> {
    let firsts: Vec<usize> = (0..sessions).step_by(SESSIONS_PER_ACCOUNT).collect();
    let clients = at_once(firsts, move |first| {
        let store = store.clone();
        async move { account(&*store, first, SESSIONS_PER_ACCOUNT.min(sessions - first)).await }
    });
    Ok(clients.await?.concat())
}

/// Each as often as [`ROTATIONS`] says, in turn.
async fn rotate(store: Arc<dyn Store>, clients: Vec<ClientId>) -> Result<(), Failure> {
    for _ in 0..ROTATIONS {
        let store = store.clone();
        let rotation = move |client| {
            let store = store.clone();
            async move {
                let session = store.find(client).await?.ok_or("a session is gone")?.session;
                let swap = Swap {
                    expect: session.version(),
                    generation: session.generation.next().ok_or("no generation is left")?,
                    confirmed: session.generation,
                    hand_out: Some(RENEWAL),
                };
                store.swap(client, &swap, None).await?;
                Ok(())
            }
        };
        at_once(clients.clone(), rotation).await?;
    }
    Ok(())
}

/// A few at a time.
async fn at_once<I, T, F>(items: Vec<I>, work: impl Fn(I) -> F) -> Result<Vec<T>, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let (mut tasks, mut done) = (JoinSet::new(), Vec::with_capacity(items.len()));
    for item in items {
        if tasks.len() >= TASKS
            && let Some(answer) = tasks.join_next().await
        {
            done.push(answer??);
        }
        tasks.spawn(work(item));
    }
    while let Some(answer) = tasks.join_next().await {
        done.push(answer??);
    }
    Ok(done)
}

async fn account(store: &dyn Store, first: usize, sessions: usize) -> Result<Vec<ClientId>, Failure> {
    let uid = format!("somebody{first}@example.com");
    let account = NewAccount {
        realm: "user".to_owned(),
        provider: "email".to_owned(),
        email: uid.clone(),
        uid,
        profile: Profile::default(),
        password: PasswordHash::new("$argon2id$v=19$m=19456,t=2,p=1$".to_owned() + &"x".repeat(66)),
    };
    let (account, _) = store.create_account(account, None, &Trace::NONE).await?;
    let mut clients = Vec::new();
    for number in first..first + sessions {
        let ip = std::net::Ipv4Addr::from_bits(0xc633_0000 | (number as u32 & 0xffff));
        let new = NewSession {
            client: client(number as u64),
            renewal: RENEWAL,
            device: Device { user_agent: Some(USER_AGENT.to_owned()), ip: Some(ip.into()) },
            max_devices: SESSIONS_PER_ACCOUNT as u32,
            if_password: None,
        };
        clients.push(store.create_session(account.id, new, &Trace::NONE).await?.client);
    }
    Ok(clients)
}

/// Spread over all names, as random ones are, and the same each time (SplitMix64).
fn client(number: u64) -> ClientId {
    let mix = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let bits = u128::from(mix(2 * number + 1)) << 64 | u128::from(mix(2 * number + 2));
    ClientId::from_bytes(bits.to_be_bytes())
}
