//! Stores that hold a great many sessions, without anybody having signed in: rows are put there as they would be found after a
//! while, and the tokens that go with them are derived from the server's key.

mod postgres;
mod redis;
mod sqlite;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use baton_core::token::Generation;
use baton_core::{ClientId, Clock as _, Key, KeyRing, Store};
use baton_store::clock::SystemClock;
use baton_store::sqlite::{SqliteOptions, SqliteStore};
use tempfile::TempDir;

use crate::Failure;
use crate::load::User;
use crate::random::SplitMix;
use crate::server::Engine;

/// Sessions of an account, on average.
const SESSIONS_PER_ACCOUNT: u64 = 4;
const DAY: i64 = 24 * 60 * 60 * 1_000;
/// No password has it.
const PASSWORD: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const USER_AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// A data folder for `baton dev`, whose store holds these sessions.
pub(crate) struct Filled {
    pub(crate) folder: TempDir,
    keys: KeyRing,
    sessions: Sessions,
}

/// Sessions by number, always the same ones.
#[derive(Debug, Clone, Copy)]
struct Sessions {
    count: u64,
    /// When they were opened, and their tokens last handed out.
    since: i64,
}

/// What a store keeps of one.
struct Row {
    client: ClientId,
    account: i64,
}

impl Filled {
    /// Puts `count` sessions into the store; accounts go with them. Nobody else uses it yet.
    pub(crate) fn new(engine: &Engine, count: u64) -> Result<Self, Failure> {
        let folder = TempDir::new().map_err(|error| Failure::Io("a temporary folder".into(), error))?;
        let (key, keys) = keys()?;
        write_key(&folder.path().join("secret.key"), &key)?;
        let since = SystemClock::new().now().as_millis() - DAY;
        let sessions = Sessions { count, since };
        match engine {
            Engine::Sqlite => fill_sqlite(folder.path(), &keys, sessions)?,
            Engine::Postgres(server) => postgres::fill(server, &keys, sessions)?,
            Engine::Redis(server) => {
                // The accounts, and which sessions there are, are in SQLite.
                fill_sqlite(folder.path(), &keys, sessions)?;
                redis::fill(server, sessions)?;
            }
        }
        Ok(Self { folder, keys, sessions })
    }

    /// Some of its users, drawn at random, with good tokens.
    pub(crate) fn users(&self, count: usize, seed: u64) -> Vec<User> {
        let mut random = SplitMix::new(seed);
        // As many as there are: each once, so that no two hold the same token.
        let mut numbers: Vec<u64> = if count as u64 >= self.sessions.count {
            (0..self.sessions.count).collect()
        } else {
            let among = usize::try_from(self.sessions.count).unwrap_or(usize::MAX);
            let mut drawn = std::collections::HashSet::with_capacity(count);
            while drawn.len() < count {
                drawn.insert(random.below(among) as u64);
            }
            let mut drawn: Vec<u64> = drawn.into_iter().collect();
            drawn.sort_unstable();
            drawn
        };
        random.shuffle(&mut numbers);
        let user = |number| {
            let Row { client, account } = self.sessions.row(number);
            let token = self.keys.derive(client, Generation::FIRST);
            User { uid: uid(account), client: client.to_string(), token: token.expose().to_owned(), expiry: 0 }
        };
        numbers.into_iter().map(user).collect()
    }
}

impl Sessions {
    fn accounts(self) -> u64 {
        self.count.div_ceil(SESSIONS_PER_ACCOUNT)
    }

    /// In the order of their names, so that they can be written one after the other; whose they are has no order.
    fn row(self, number: u64) -> Row {
        let mut random = SplitMix::new(number);
        let mut client = [0; 16];
        client[..8].copy_from_slice(&(u64::MAX / self.count * number).to_be_bytes());
        client[8..].copy_from_slice(&random.next().to_be_bytes());
        let account = 1 + random.next() % self.accounts();
        Row { client: ClientId::from_bytes(client), account: account as i64 }
    }

    fn rows(self) -> impl Iterator<Item = Row> {
        (0..self.count).map(move |number| self.row(number))
    }

    const fn ends(self) -> i64 {
        self.since + 14 * DAY
    }
}

fn uid(account: i64) -> String {
    format!("bench-{account:08}@example.com")
}

fn keys() -> Result<(Key, KeyRing), Failure> {
    let unusable = |error: baton_core::token::KeyRingError| Failure::Usage(error.to_string());
    // Of a server that is there for a few minutes, for sessions of nobody.
    let key = Key::new(0, *b"a key for measuring, and no more").map_err(unusable)?;
    let ring = KeyRing::new(vec![key.clone()]).map_err(unusable)?;
    Ok((key, ring))
}

/// As `baton dev` keeps it.
fn write_key(path: &Path, key: &Key) -> Result<(), Failure> {
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| writeln!(file, "{}", *key.to_line()));
    written.map_err(|error| Failure::Io(path.display().to_string(), error))
}

fn fill_sqlite(folder: &Path, keys: &KeyRing, sessions: Sessions) -> Result<(), Failure> {
    let path = folder.join("baton.db");
    block_on(async {
        let store = SqliteStore::open(&path, SqliteOptions::default(), Arc::new(SystemClock::new())).map_err(failed)?;
        store.bind_keys(&keys.fingerprints()).await.map_err(failed)?;
        store.close().await.map_err(failed)
    })?;
    sqlite::fill(&path, sessions)
}

fn failed(error: impl std::error::Error) -> Failure {
    let mut text = format!("fill a store: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    Failure::Server(text)
}

fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Io("the runtime".into(), error))?.block_on(work)
}
