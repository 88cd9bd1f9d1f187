//! Where accounts and sessions are.

use std::path::PathBuf;
use std::time::Duration;

use baton_store::sqlite::SqliteOptions;

use super::reader::Reader;

/// Where accounts and sessions are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The SQLite file.
    pub path: PathBuf,
    /// How it is used.
    pub options: SqliteOptions,
}

pub(super) fn read(reader: &mut Reader<'_>) -> StoreConfig {
    // It may get more fields than there are settings, so it cannot be written as a literal.
    let mut options = { SqliteOptions::default() };
    options.busy_timeout = reader.duration("store.busy_timeout", Duration::ZERO..=Duration::from_secs(10 * 60));
    options.readers = reader.number("store.readers", 1..=64);
    options.cache_kib = reader.number("store.cache_kib", 64..=4 * 1024 * 1024);
    options.queue = reader.number("store.queue", 1..=1_000_000);
    StoreConfig { path: path(reader), options }
}

fn path(reader: &mut Reader<'_>) -> PathBuf {
    const KEY: &str = "store.url";
    let url = reader.text(KEY);
    let path = url.strip_prefix("sqlite:").map(|rest| rest.strip_prefix("//").unwrap_or(rest));
    match path {
        None => reader.refuse_unseen(KEY, "has to be \"sqlite:PATH\", such as \"sqlite:/var/lib/baton/baton.db\""),
        Some("") => reader.refuse(KEY, "names no file"),
        Some(":memory:") => reader.refuse(KEY, "would forget every account at the next start; name a file"),
        Some(path) if path.contains(['?', '\0']) => {
            reader.refuse(KEY, "takes no parameters; see the other settings of [store]")
        }
        Some(_) => {}
    }
    path.unwrap_or_default().into()
}
