//! The tables and functions, and how a schema of an older version becomes one of this version.

use std::borrow::Cow;

use baton_core::error::StoreError;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Transaction};

use super::error::{doing, unreadable, unusable};
use super::queries::in_schema;
use crate::migrations::Migrations;

/// Each entry brings the schema from its index to the next number. Released entries are never changed, and a function that
/// was released keeps its signature: nodes of the version before go on calling it while the next one is rolled out.
const MIGRATIONS: &[&str] = &[include_str!("schema_1.sql")];

/// "BATN", and what the lock of two nodes that start at once is taken on.
const LOCK: i32 = 0x4241_544e;

/// What a schema says that it is.
enum Identity {
    /// It does not exist.
    Missing,
    /// Nothing is in it.
    Blank,
    /// Ours, with so many migrations made.
    Ours(usize),
    /// Somebody else's.
    Other,
}

/// How far it is. Changes nothing.
pub(super) async fn look(client: &mut Client, schema: &str) -> Result<Migrations, StoreError> {
    let tx = client.transaction().await.map_err(doing("look at the schema"))?;
    identify(&tx, schema).await?.check(schema)
}

/// Refuses a schema that is not up to date.
pub(super) async fn require(client: &mut Client, schema: &str) -> Result<(), StoreError> {
    check_server(client).await?;
    let migrations = look(client, schema).await?;
    if migrations.are_complete() { Ok(()) } else { Err(unusable(migrations.missing(format!("the schema {schema}")))) }
}

/// Makes the migrations that are missing, all or none, and answers how far it was. Several nodes may do this at once.
pub(super) async fn migrate(client: &mut Client, schema: &str) -> Result<Migrations, StoreError> {
    check_server(client).await?;
    let failed = || doing("migrate");
    let tx = client.transaction().await.map_err(failed())?;
    let before = identify(&tx, schema).await?.check(schema)?;
    if before.are_complete() {
        return Ok(before);
    }
    // The others wait here. The time-out for statements is for statements that somebody waits for.
    tx.batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '60s'").await.map_err(failed())?;
    let lock = "SELECT pg_advisory_xact_lock($1, hashtext($2))";
    tx.query_typed(lock, &[(&LOCK, Type::INT4), (&schema, Type::TEXT)]).await.map_err(failed())?;
    // Looked at again, now that nobody else can change it.
    let identity = identify(&tx, schema).await?;
    let before = identity.check(schema)?;
    if matches!(identity, Identity::Missing) {
        tx.batch_execute(&format!("CREATE SCHEMA \"{schema}\"")).await.map_err(failed())?;
    }
    for (number, migration) in (1..).zip(MIGRATIONS).skip(before.made) {
        tx.batch_execute(&in_schema(migration, schema)).await.map_err(failed())?;
        let note: Cow<'_, str> = in_schema("INSERT INTO baton.baton_schema (version) VALUES ($1)", schema);
        tx.query_typed(&note, &[(&number, Type::INT4)]).await.map_err(failed())?;
    }
    tx.commit().await.map_err(failed())?;
    if !before.are_complete() {
        tracing::info!(from = before.made, to = before.known, "database schema brought up to date");
    }
    Ok(before)
}

/// Whether the server is one that this store can trust its data to.
async fn check_server(client: &Client) -> Result<(), StoreError> {
    let settings = "SELECT current_setting('server_encoding'), current_setting('fsync')";
    let failed = || unreadable("read the server's settings");
    let rows = client.query_typed(settings, &[]).await.map_err(doing("read the server's settings"))?;
    let Some(row) = rows.first() else { return Ok(()) };
    let (encoding, fsync): (&str, &str) = (row.try_get(0).map_err(failed())?, row.try_get(1).map_err(failed())?);
    if encoding != "UTF8" {
        return Err(unusable(format!("the database's encoding is {encoding}; create one with ENCODING 'UTF8'")));
    }
    if fsync == "off" {
        tracing::warn!("PostgreSQL runs with fsync=off: a crash of its machine may undo anything");
    }
    Ok(())
}

async fn identify(tx: &Transaction<'_>, schema: &str) -> Result<Identity, StoreError> {
    let sql = "SELECT n.oid IS NOT NULL, EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid)
                   OR EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = n.oid),
                   EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'baton_schema')
               FROM (SELECT to_regnamespace($1) AS oid) n";
    // As it would be written in a statement.
    let quoted = format!("\"{schema}\"");
    let rows = tx.query_typed(sql, &[(&quoted, Type::TEXT)]).await.map_err(doing("look at the schema"))?;
    let flag = |column| rows.first().is_some_and(|row| row.get(column));
    if !flag(0) {
        return Ok(Identity::Missing);
    }
    if !flag(2) {
        return Ok(if flag(1) { Identity::Other } else { Identity::Blank });
    }
    let sql = in_schema("SELECT coalesce(max(version), 0) FROM baton.baton_schema", schema);
    let rows = tx.query_typed(&sql, &[]).await.map_err(doing("read the schema's version"))?;
    let version: i32 = match rows.first() {
        Some(row) => row.try_get(0).map_err(unreadable("read the schema's version"))?,
        None => 0,
    };
    Ok(usize::try_from(version).map_or(Identity::Other, Identity::Ours))
}

impl Identity {
    /// How many migrations have been made.
    fn check(&self, schema: &str) -> Result<Migrations, StoreError> {
        let of = |made| Migrations { made, known: MIGRATIONS.len() };
        match self {
            Self::Missing | Self::Blank => Ok(of(0)),
            Self::Ours(version) if *version <= MIGRATIONS.len() => Ok(of(*version)),
            Self::Ours(version) => Err(unusable(format!(
                "the schema {schema} has version {version}, and this version of baton knows up to {}; use a newer one",
                MIGRATIONS.len()
            ))),
            Self::Other => Err(unusable(format!(
                "the schema {schema} is used by another application; name another one with `schema=` in the URL"
            ))),
        }
    }
}
