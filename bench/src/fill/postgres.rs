//! COPY, with the indexes made afterwards.

use std::fmt::Write as _;

use baton_core::{KeyRing, Store as _};
use baton_store::postgres::{PostgresOptions, PostgresStore};
use baton_testkit::postgres::Server;
use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio_postgres::Client;

use super::{PASSWORD, Sessions, USER_AGENT, block_on, failed, uid};
use crate::Failure;

/// Bytes that are sent at once.
const CHUNK: usize = 256 * 1024;

/// Accounts and sessions into the schema `baton` of a server where nobody uses it yet.
pub(super) fn fill(server: &Server, keys: &KeyRing, sessions: Sessions) -> Result<(), Failure> {
    block_on(async {
        let options = PostgresOptions::from_url(&server.url("baton")).map_err(failed)?;
        server.client().await.batch_execute("DROP SCHEMA IF EXISTS baton CASCADE").await.map_err(failed)?;
        let store = PostgresStore::open(options).await.map_err(failed)?;
        store.bind_keys(&keys.fingerprints()).await.map_err(failed)?;
        store.close().await;
        insert(&server.client().await, sessions).await.map_err(failed)
    })
}

async fn insert(client: &Client, sessions: Sessions) -> Result<(), tokio_postgres::Error> {
    // Without looking each account up again for the foreign key.
    client.batch_execute("SET session_replication_role = replica; SET maintenance_work_mem = '512MB'").await?;
    let indexes = client
        .query(
            "SELECT indexname::text, indexdef FROM pg_indexes
             WHERE schemaname = 'baton' AND tablename = 'sessions' AND indexname <> 'sessions_pkey'",
            &[],
        )
        .await?;
    for index in &indexes {
        client.batch_execute(&format!("DROP INDEX baton.{}", index.get::<_, &str>(0))).await?;
    }
    let (since, ends) = (sessions.since, sessions.ends());
    let into = "COPY baton.accounts (id, realm, provider, uid, uid_key, email, profile, password, confirmed_at, created_at, \
                updated_at) FROM STDIN";
    let accounts = (1..=sessions.accounts() as i64).map(|number| {
        let (uid, key) = (uid(number), number);
        // The key of a name is a hash; the names of nobody who signs in may have any key that is unique.
        format!("{number}\tuser\temail\t{uid}\t\\\\x{key:064x}\t{uid}\t{{}}\t{PASSWORD}\t{since}\t{since}\t{since}\n")
    });
    copy(client, into, accounts).await?;
    let into = "COPY baton.sessions (client, account, generation, handed_out_at, confirmed, created_at, expires_at, last_seen_at, \
                purge_at, user_agent, ip) FROM STDIN";
    let rows = sessions.rows().map(|row| {
        let mut line = String::with_capacity(256);
        for byte in row.client.as_bytes() {
            let _ = write!(line, "{byte:02x}");
        }
        let _ = writeln!(
            line,
            "\t{}\t1\t{since}\t1\t{since}\t{ends}\t{since}\t{ends}\t{USER_AGENT}\t127.0.0.1",
            row.account
        );
        line
    });
    copy(client, into, rows).await?;
    for index in &indexes {
        client.batch_execute(index.get(1)).await?;
    }
    // One by one: several at once are a transaction, in which there is no VACUUM.
    for sql in ["VACUUM ANALYZE baton.accounts", "VACUUM ANALYZE baton.sessions", "CHECKPOINT"] {
        client.batch_execute(sql).await?;
    }
    Ok(())
}

async fn copy(client: &Client, into: &str, lines: impl Iterator<Item = String>) -> Result<(), tokio_postgres::Error> {
    let mut sink = std::pin::pin!(client.copy_in::<_, Bytes>(into).await?);
    let mut chunk = String::with_capacity(CHUNK + 1_024);
    for line in lines {
        chunk.push_str(&line);
        if chunk.len() >= CHUNK {
            sink.feed(Bytes::from(std::mem::take(&mut chunk))).await?;
        }
    }
    sink.feed(Bytes::from(chunk)).await?;
    sink.as_mut().finish().await.map(drop)
}
