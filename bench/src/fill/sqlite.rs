//! One transaction of prepared statements, with the indexes made afterwards.

use std::path::Path;

use rusqlite::{Connection, params};

use super::{DAY, PASSWORD, Sessions, USER_AGENT, failed, uid};
use crate::Failure;

/// Accounts and sessions into a file that has its tables and nobody uses.
pub(super) fn fill(path: &Path, sessions: Sessions) -> Result<(), Failure> {
    let filled = Connection::open(path).and_then(|mut connection| insert(&mut connection, sessions));
    filled.map_err(failed)
}

fn insert(connection: &mut Connection, sessions: Sessions) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -262144")?;
    let tx = connection.transaction()?;
    let indexes: Vec<(String, String)> = tx
        .prepare(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'sessions' AND sql IS NOT NULL",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (name, _) in &indexes {
        tx.execute_batch(&format!("DROP INDEX {name}"))?;
    }
    let (since, ends) = (sessions.since, sessions.ends());
    let mut account = tx.prepare(
        "INSERT INTO accounts (id, realm, provider, uid, email, profile, password, created_at, updated_at, confirmed_at)
         VALUES (?1, 'user', 'email', ?2, ?2, '{}', ?3, ?4, ?4, ?4)",
    )?;
    for number in 1..=sessions.accounts() as i64 {
        account.execute(params![number, uid(number), PASSWORD, since])?;
    }
    let mut session = tx.prepare(
        "INSERT INTO sessions (client, account, generation, handed_out_at, confirmed, created_at, expires_at, last_seen_at,
                               purge_at, user_agent, ip)
         VALUES (?1, ?2, 1, ?3, 1, ?3, ?4, ?3, ?4, ?5, '127.0.0.1')",
    )?;
    for row in sessions.rows() {
        session.execute(params![row.client.as_bytes(), row.account, since, ends, USER_AGENT])?;
    }
    drop((account, session));
    for (_, sql) in &indexes {
        tx.execute_batch(sql)?;
    }
    tx.execute("UPDATE meta SET value = ?1 WHERE name = 'time'", [since + DAY])?;
    tx.commit()?;
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
}
