//! Opening the file: where it is, who may read it, whether it is ours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_core::error::StoreError;
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::{doing, is_busy, unavailable, unusable};
use super::{SqliteOptions, schema};
use crate::migrations::Migrations;

/// Prepared statements kept per connection: all that there are.
const STATEMENTS: usize = 64;
/// The write-ahead log is cut back to this many bytes when it has been written into the main file.
const LOG_LIMIT: u32 = 64 * 1024 * 1024;
/// How often a locked file is tried again where SQLite does not wait by itself.
const RETRY: Duration = Duration::from_millis(10);

/// The absolute path of the file, with a folder that exists around it.
///
/// Absolute, because SQLite gives some relative names (`:memory:`, the empty one) a meaning of their own.
pub(super) fn locate(path: &Path) -> Result<PathBuf, StoreError> {
    let path =
        std::path::absolute(path).map_err(|error| unavailable(format!("{}: not a path: {error}", path.display())))?;
    let Some(folder) = path.parent() else {
        return Err(unavailable(format!("{} is a folder; the database has to be a file", path.display())));
    };
    if !folder.is_dir() {
        return Err(unavailable(format!("the folder {} does not exist", folder.display())));
    }
    if path.is_dir() {
        return Err(unavailable(format!("{} is a folder; the database has to be a file", path.display())));
    }
    Ok(path)
}

/// The connection that writes, to a file that is ours and up to date.
pub(super) fn open_writer(path: &Path, options: &SqliteOptions) -> Result<Connection, StoreError> {
    let connection = if options.migrate {
        migrate(path, options)?.1
    } else {
        let (migrations, connection) = look(path, options)?;
        let connection = connection.filter(|_| migrations.are_complete());
        let connection = connection.ok_or_else(|| unusable(migrations.missing(path.display())))?;
        warn_if_others_can_read(path);
        enter_wal(&connection, path, options)?;
        connection
    };
    settings(&connection, options)
        .and_then(|()| {
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.pragma_update(None, "foreign_keys", true)?;
            // Where fsync leaves the data in the drive's cache (macOS), ask for more.
            connection.pragma_update(None, "fullfsync", true)?;
            connection.pragma_update(None, "checkpoint_fullfsync", true)?;
            // A deleted account's hash does not stay in a free part of a page.
            connection.pragma_update(None, "secure_delete", "FAST")?;
            connection.pragma_update(None, "journal_size_limit", LOG_LIMIT)
        })
        .map_err(about(path, "open"))?;
    Ok(connection)
}

/// Makes the file if there is none and the migrations that are missing; how far it was.
pub(super) fn migrate(path: &Path, options: &SqliteOptions) -> Result<(Migrations, Connection), StoreError> {
    create(path)?;
    // Before anything is changed: another application's file is not to be touched.
    let (_, mut connection) = connect(path, options)?;
    enter_wal(&connection, path, options)?;
    let before = schema::migrate(&mut connection, path)?;
    Ok((before, connection))
}

/// How far the file is, and a connection if there is one. Changes nothing.
pub(super) fn look(path: &Path, options: &SqliteOptions) -> Result<(Migrations, Option<Connection>), StoreError> {
    if !path.exists() {
        return Ok((schema::Identity::Blank.check(path)?, None));
    }
    connect(path, options).map(|(migrations, connection)| (migrations, Some(connection)))
}

/// To a file that is ours and that this user may write.
fn connect(path: &Path, options: &SqliteOptions) -> Result<(Migrations, Connection), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(about(path, "open"))?;
    connection.busy_timeout(busy_timeout(options)).map_err(about(path, "open"))?;
    if connection.is_readonly("main").map_err(about(path, "open"))? {
        return Err(unavailable(format!("{} may not be written by this user", path.display())));
    }
    // In one transaction, so that it is not looked at half before and half after another process sets it up.
    let reading = connection.transaction().map_err(about(path, "read"))?;
    let migrations = schema::identify(&reading).map_err(about(path, "read"))?.check(path)?;
    drop(reading);
    Ok((migrations, connection))
}

/// A connection that reads and does not wait: [`super::readers`] decides where waiting is done.
pub(super) fn open_reader(path: &Path, options: &SqliteOptions) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(about(path, "open"))?;
    settings(&connection, options)
        .and_then(|()| connection.pragma_update(None, "query_only", true))
        .and_then(|()| connection.busy_timeout(Duration::ZERO))
        .map_err(about(path, "open"))?;
    Ok(connection)
}

/// A connection that only writes the log into the main file.
pub(super) fn open_checkpointer(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "checkpoint_fullfsync", true)?;
        Ok(connection)
    };
    open().map_err(about(path, "open"))
}

/// As SQLite takes it: whole milliseconds in 31 bits.
pub(super) fn busy_timeout(options: &SqliteOptions) -> Duration {
    options.busy_timeout.min(Duration::from_millis(i32::MAX as u64))
}

fn settings(connection: &Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Without this, SQLite plans a prepared statement anew whenever a parameter of an equality changes: at every use.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "cache_size", -i64::from(options.cache_kib.max(64)))?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // The schema is data of a file; nothing in it may call functions with side effects.
    connection.pragma_update(None, "trusted_schema", false)
}

/// Makes an empty file that only its owner can read. SQLite gives the `-wal` and `-shm` files the same mode.
fn create(path: &Path) -> Result<(), StoreError> {
    // Closing any descriptor of a file drops this process' locks on it, also those that SQLite holds through another
    // descriptor. So it is only opened by hand if it is new, and nobody else here opens it meanwhile.
    static CREATING: Mutex<()> = Mutex::new(());
    let _guard = CREATING.lock();

    let mut how = std::fs::OpenOptions::new();
    how.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut how, 0o600);
    match how.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            warn_if_others_can_read(path);
            Ok(())
        }
        Err(error) => Err(unavailable(format!("{} cannot be made: {error}", path.display()))),
    }
}

#[cfg(unix)]
fn warn_if_others_can_read(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Ok(metadata) = std::fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(
            path = %path.display(),
            "the database holds password hashes and can be read by others than its owner (chmod 600)"
        );
    }
}

#[cfg(not(unix))]
fn warn_if_others_can_read(_: &Path) {}

/// Switches to the write-ahead log. SQLite does not wait for a lock here, so this does.
fn enter_wal(connection: &Connection, path: &Path, options: &SqliteOptions) -> Result<(), StoreError> {
    let mut waited = Duration::ZERO;
    loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Ok(mode) => {
                return Err(unusable(format!(
                    "{}: no write-ahead log (journal mode is {mode}); is it on a network file system?",
                    path.display()
                )));
            }
            Err(error) if is_busy(&error) && waited < options.busy_timeout => {
                std::thread::sleep(RETRY);
                waited += RETRY;
            }
            Err(error) => return Err(about(path, "open")(error)),
        }
    }
}

/// For `map_err` while opening: says what an operator can do about it.
pub(super) fn about(path: &Path, what: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => unusable(format!("{} is not an SQLite database", path.display())),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            unavailable(format!("{} is locked by another process", path.display()))
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => unavailable(format!(
            "{} cannot be opened for writing; this user needs to be able to write the file and its folder ({error})",
            path.display()
        )),
        _ => doing(what)(error),
    }
}
