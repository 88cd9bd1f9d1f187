//! Where accounts and sessions are.

use std::path::PathBuf;
use std::time::Duration;

use baton_store::postgres::PostgresOptions;
use baton_store::sqlite::SqliteOptions;

use super::reader::Reader;

/// Where accounts and sessions are.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// In an SQLite file.
    Sqlite {
        /// The file.
        path: PathBuf,
        /// How it is used.
        options: SqliteOptions,
    },
    /// In PostgreSQL.
    Postgres(Box<PostgresOptions>),
}

/// May hold a password.
pub(super) const URL: &str = "store.url";

pub(super) fn read(reader: &mut Reader<'_>) -> StoreConfig {
    // It may get more fields than there are settings, so it cannot be written as a literal.
    let mut options = { SqliteOptions::default() };
    options.busy_timeout = reader.duration("store.busy_timeout", Duration::ZERO..=Duration::from_secs(10 * 60));
    options.readers = reader.number("store.readers", 1..=64);
    options.recent_sessions = reader.number("store.recent_sessions", 0..=100_000_000);
    options.cache_kib = reader.number("store.cache_kib", 64..=4 * 1024 * 1024);
    options.queue = reader.number("store.queue", 1..=1_000_000);
    options.migrate = reader.flag("store.migrate");
    let (connections, writers) = (reader.number("store.connections", 1..=64), reader.number("store.writers", 1..=64));
    let url = reader.text(URL);
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return StoreConfig::Sqlite { path: path(reader, &url), options };
    }
    if reader.is_typed_in_a_command(URL) && holds_a_password(&url) {
        reader.refuse_unseen(
            URL,
            "holds a password, which a command line does not keep; set it in the environment or a file",
        );
    }
    match PostgresOptions::from_url(&url) {
        Ok(mut postgres) => {
            (postgres.connections, postgres.writers) = (connections, writers);
            postgres.migrate = options.migrate;
            StoreConfig::Postgres(Box::new(postgres))
        }
        Err(error) => {
            reader.refuse_unseen(URL, error);
            StoreConfig::Sqlite { path: PathBuf::new(), options }
        }
    }
}

pub(super) fn holds_a_password(url: &str) -> bool {
    let user = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':')) || url.contains("password=")
}

fn path(reader: &mut Reader<'_>, url: &str) -> PathBuf {
    let path = url.strip_prefix("sqlite:").map(|rest| rest.strip_prefix("//").unwrap_or(rest));
    match path {
        None => reader.refuse_unseen(
            URL,
            "has to be \"sqlite:PATH\", such as \"sqlite:/var/lib/baton/baton.db\", or \"postgres://…\"",
        ),
        Some("") => reader.refuse(URL, "names no file"),
        Some(":memory:") => reader.refuse(URL, "would forget every account at the next start; name a file"),
        Some(path) if path.contains(['?', '\0']) => {
            reader.refuse(URL, "takes no parameters; see the other settings of [store]")
        }
        Some(_) => {}
    }
    path.unwrap_or_default().into()
}
