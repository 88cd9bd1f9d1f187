//! What an operator gets to see.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use baton_core::Store as _;
use baton_core::clock::Clock;
use baton_core::error::StoreError;
use baton_core::token::ClientId;
use rusqlite::Connection;
use serde_json::json;
use tokio::time::Instant;

use super::error::doing;
use super::readers::off_the_runtime;
use super::{SqliteOptions, SqliteStore, file, rows};
use crate::inspection::{Inspection, bytes};

/// Rows are counted up to here; a count looks at each of them.
const COUNTED: i64 = 100_000;
/// Reads that are timed.
const TRIPS: usize = 9;
/// A clock that is behind the file by more than this will be noticed.
const NOTICEABLE: Duration = Duration::from_secs(5);

pub(super) async fn inspect(path: &Path, options: SqliteOptions, clock: Arc<dyn Clock>) -> Inspection {
    let mut found = Inspection::default();
    found.note("kind", "sqlite");
    let shown = std::path::absolute(path);
    found.note("where", shown.as_deref().unwrap_or(path).display().to_string());
    found.note("version", rusqlite::version());
    found.note("encryption", "none; the file's permissions protect it");
    if let Err(error) = look(path, options, clock, &mut found).await {
        found.fail(error);
    }
    found
}

async fn look(
    path: &Path,
    options: SqliteOptions,
    clock: Arc<dyn Clock>,
    found: &mut Inspection,
) -> Result<(), StoreError> {
    let path = file::locate(path)?;
    about_the_file(&path, found);
    let (asked, how) = (path.clone(), options.clone());
    let (migrations, connection) = off_the_runtime(move || file::look(&asked, &how)).await??;
    if !migrations.are_complete() {
        found.note_as("schema version", migrations.made, format!("{} of {}", migrations.made, migrations.known));
        found.fail(migrations.missing(path.display()));
        return Ok(());
    }
    found.note_as("schema version", migrations.made, format!("{}, up to date", migrations.made));
    if let Some(connection) = connection {
        let told = off_the_runtime(move || about_the_contents(&connection, &*clock)).await?;
        let told = told.map_err(doing("look at the database"))?;
        found.facts.extend(told.facts);
        found.warnings.extend(told.warnings);
    }
    let store = open(path, SqliteOptions { migrate: false, readers: 1, ..options }).await?;
    let answered = ask(&store, found).await;
    // Nothing is lost if this fails; the check has its answer.
    let _ = store.close().await;
    answered
}

#[cfg(unix)]
fn about_the_file(path: &Path, found: &mut Inspection) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o7777;
    found.note("permissions", format!("{mode:04o}"));
    if mode & 0o077 != 0 {
        found.warn("the file holds password hashes and can be read by others than its owner (chmod 600)");
    }
    let size = metadata.len();
    found.note_as("bytes", size, bytes(size));
}

#[cfg(not(unix))]
fn about_the_file(_: &Path, _: &mut Inspection) {}

fn about_the_contents(connection: &Connection, clock: &dyn Clock) -> rusqlite::Result<Inspection> {
    let mut found = Inspection::default();
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        found.warn("the file is not in WAL mode; the server will switch it, unless another program keeps it open");
    }
    found.note("journal mode", mode);
    found.note("synchronous", "NORMAL for rotations, FULL for everything else");
    let ahead = rows::high_water_mark(connection)?.as_millis() - clock.now().as_millis();
    found.note_as(
        "clock ahead ms",
        ahead.max(0),
        if ahead > 0 {
            format!("{ahead}: the times in the file are ahead of this machine's clock")
        } else {
            "0: no time in the file is ahead of this machine's clock".to_owned()
        },
    );
    if ahead > NOTICEABLE.as_millis() as i64 {
        found.warn("this machine's clock is behind the file; time goes on from there, at half its pace");
    }
    for (name, sql) in [
        ("accounts", "SELECT count(*) FROM (SELECT 1 FROM accounts LIMIT ?1)"),
        ("sessions", "SELECT count(*) FROM (SELECT 1 FROM sessions LIMIT ?1)"),
    ] {
        let count: i64 = connection.query_row(sql, [COUNTED + 1], |row| row.get(0))?;
        let more = count > COUNTED;
        let value = json!({ "counted": count.min(COUNTED), "more": more });
        found.note_as(name, value, if more { format!("more than {COUNTED}") } else { count.to_string() });
    }
    Ok(found)
}

async fn open(path: PathBuf, options: SqliteOptions) -> Result<SqliteStore, StoreError> {
    let clock = Arc::new(crate::clock::SystemClock::new());
    off_the_runtime(move || SqliteStore::open(path, options, clock)).await?
}

async fn ask(store: &SqliteStore, found: &mut Inspection) -> Result<(), StoreError> {
    let nobody = ClientId::from_bytes([0; 16]);
    let mut trips = Vec::new();
    for _ in 0..TRIPS {
        let asked = Instant::now();
        store.find(nobody).await?;
        trips.push(asked.elapsed());
    }
    trips.sort();
    let median = trips[TRIPS / 2].as_secs_f64() * 1000.0;
    found.note_as("round trip ms", (median * 1000.0).round() / 1000.0, format!("{median:.3}"));
    store.check().await?;
    found.note("reads and writes", "work");
    Ok(())
}
