//! The tables, and how a file of an older version becomes one of this version.

use std::path::Path;

use baton_core::error::StoreError;
use rusqlite::{Connection, TransactionBehavior};

use super::error::unusable;
use super::file::about;
use crate::migrations::Migrations;

/// "BATN": marks a file as ours.
const APPLICATION_ID: i32 = 0x4241_544e;

/// Each entry brings the schema from its index to the next number. Released entries are never changed.
const MIGRATIONS: &[&str] = &[
    // `AUTOINCREMENT`: the number of a deleted account is not given to another one, which an old backup or a slow request
    // would then meet. `meta.time` is the store's high-water mark, in milliseconds. `sessions_by_account` does without
    // `last_seen_at`: an account has a handful of sessions to sort, and each rotation would have to move its entry.
    "
    CREATE TABLE meta (
        name  TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO meta (name, value) VALUES ('time', 0);

    CREATE TABLE known_keys (
        fingerprint TEXT PRIMARY KEY
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE accounts (
        id                    INTEGER PRIMARY KEY AUTOINCREMENT,
        realm                 TEXT NOT NULL,
        provider              TEXT NOT NULL,
        uid                   TEXT NOT NULL,
        email                 TEXT NOT NULL,
        profile               TEXT NOT NULL,
        password              TEXT NOT NULL,
        allow_password_change INTEGER NOT NULL DEFAULT 0 CHECK (allow_password_change IN (0, 1)),
        created_at            INTEGER NOT NULL,
        updated_at            INTEGER NOT NULL,
        UNIQUE (realm, provider, uid)
    ) STRICT;

    CREATE TABLE sessions (
        client        BLOB PRIMARY KEY CHECK (length(client) = 16),
        account       INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
        generation    INTEGER NOT NULL,
        handed_out_at INTEGER,
        confirmed     INTEGER NOT NULL,
        created_at    INTEGER NOT NULL,
        expires_at    INTEGER NOT NULL,
        last_seen_at  INTEGER NOT NULL,
        user_agent    TEXT,
        ip            TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX sessions_by_account ON sessions (account);
    CREATE INDEX sessions_by_expiry ON sessions (expires_at);
    ",
    // `permit_*`: leave to set a password once without the current one. `attempts.name` is a pseudonym. An event outlives its
    // account, so it does not refer to it; `AUTOINCREMENT`, since the numbers say what came later. A row of the outbox has
    // either a mail, as JSON, or a URL with an event.
    "
    ALTER TABLE accounts DROP COLUMN allow_password_change;
    ALTER TABLE accounts ADD COLUMN permit_client BLOB;
    ALTER TABLE accounts ADD COLUMN permit_until INTEGER;
    ALTER TABLE accounts ADD COLUMN confirmed_at INTEGER;
    ALTER TABLE accounts ADD COLUMN unconfirmed_email TEXT;

    CREATE TABLE one_time_tokens (
        id         BLOB PRIMARY KEY CHECK (length(id) = 16),
        account    INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
        purpose    TEXT NOT NULL,
        email      TEXT NOT NULL,
        expires_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX one_time_tokens_by_account ON one_time_tokens (account);
    CREATE INDEX one_time_tokens_by_expiry ON one_time_tokens (expires_at);

    CREATE TABLE attempts (
        name         BLOB PRIMARY KEY CHECK (length(name) = 16),
        count        INTEGER NOT NULL,
        locked_until INTEGER,
        expires_at   INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX attempts_by_expiry ON attempts (expires_at);

    CREATE TABLE audit_events (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        at         INTEGER NOT NULL,
        kind       TEXT NOT NULL,
        realm      TEXT NOT NULL,
        account    INTEGER,
        uid        TEXT,
        client     BLOB,
        ip         TEXT,
        user_agent TEXT
    ) STRICT;
    CREATE INDEX audit_events_by_time ON audit_events (at);
    CREATE INDEX audit_events_by_account ON audit_events (account);

    CREATE TABLE outbox (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        mail       TEXT,
        url        TEXT,
        event      INTEGER REFERENCES audit_events (id),
        attempt    INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL,
        due_at     INTEGER NOT NULL,
        CHECK ((mail IS NULL) = (url IS NOT NULL AND event IS NOT NULL))
    ) STRICT;
    CREATE INDEX outbox_by_due ON outbox (due_at);
    CREATE INDEX outbox_by_event ON outbox (event) WHERE event IS NOT NULL;
    ",
    // `purge_at` is never after `expires_at`, and a rotation leaves it alone: an index on what a rotation changes has to be
    // written to by each of them. The default is for processes of the version before, which go on while this one starts: a
    // session of theirs is looked at by the next purge and put off.
    "
    ALTER TABLE sessions ADD COLUMN purge_at INTEGER NOT NULL DEFAULT 0;
    UPDATE sessions SET purge_at = expires_at;
    DROP INDEX sessions_by_expiry;
    CREATE INDEX sessions_by_purge ON sessions (purge_at);
    ",
    // Sessions that have ended here and have to end elsewhere too, while `meta` says that they are kept elsewhere. A trigger,
    // because sessions end in many ways.
    "
    CREATE TABLE ended_sessions (
        client  BLOB PRIMARY KEY,
        account INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX ended_sessions_by_account ON ended_sessions (account);
    CREATE TRIGGER remember_end AFTER DELETE ON sessions
    WHEN EXISTS (SELECT 1 FROM meta WHERE name = 'remembers_ends')
    BEGIN
        INSERT OR REPLACE INTO ended_sessions (client, account) VALUES (OLD.client, OLD.account);
    END;
    ",
];

/// What a file says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// Nothing is in it yet.
    Blank,
    /// Ours, with so many migrations made.
    Ours(usize),
    /// Somebody else's.
    Other,
}

pub(super) fn identify(connection: &Connection) -> rusqlite::Result<Identity> {
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application, usize::try_from(version)) {
        (APPLICATION_ID, Ok(version)) => Identity::Ours(version),
        (0, Ok(0)) if tables == 0 => Identity::Blank,
        _ => Identity::Other,
    })
}

impl Identity {
    /// How many migrations have been made.
    pub(super) fn check(self, path: &Path) -> Result<Migrations, StoreError> {
        let of = |made| Migrations { made, known: MIGRATIONS.len() };
        match self {
            Self::Blank => Ok(of(0)),
            Self::Ours(version) if version <= MIGRATIONS.len() => Ok(of(version)),
            Self::Ours(version) => Err(unusable(format!(
                "{} has schema {version}, and this version of baton knows up to {}; use a newer one",
                path.display(),
                MIGRATIONS.len()
            ))),
            Self::Other => Err(unusable(format!("{} is a database of another application", path.display()))),
        }
    }
}

/// Makes the migrations that are missing, all or none, and answers how far it was. Several processes may do this at once.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<Migrations, StoreError> {
    let failed = about(path, "migrate");
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
    // Looked at again, now that nobody else can change it.
    let before = identify(&tx).map_err(&failed)?.check(path)?;
    if !before.are_complete() {
        for migration in &MIGRATIONS[before.made..] {
            tx.execute_batch(migration).map_err(&failed)?;
        }
        tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(&failed)?;
        tx.pragma_update(None, "user_version", MIGRATIONS.len() as i64).map_err(&failed)?;
        tracing::info!(from = before.made, to = before.known, "database schema brought up to date");
    }
    tx.commit().map_err(&failed)?;
    Ok(before)
}
