//! What an operator gets to see.

use baton_core::Store as _;
use baton_core::clock::Clock;
use baton_core::error::StoreError;
use serde_json::json;
use tokio::time::Instant;
use tokio_postgres::types::{FromSqlOwned, ToSql, Type};
use tokio_postgres::{Client, Row};

use super::error::{doing, unreadable, unusable};
use super::link::Connector;
use super::options::PostgresOptions;
use super::queries::in_schema;
use super::{PostgresStore, SslMode, schema, unreachable};
use crate::inspection::{Inspection, TRIPS, bytes};

const DOING: &str = "look at the server";
/// The oldest version that has all that the functions use.
const OLDEST: i32 = 13;

pub(super) async fn inspect(options: PostgresOptions, clock: &dyn Clock) -> Inspection {
    let mut found = Inspection::default();
    found.note("kind", "postgres");
    found.note("where", options.place());
    if let Err(error) = look(&options, clock, &mut found).await {
        found.fail(error);
    }
    found
}

async fn look(options: &PostgresOptions, clock: &dyn Clock, found: &mut Inspection) -> Result<(), StoreError> {
    options.check_schema()?;
    let connected = Connector::new(options.clone())?.connect().await;
    let (wire, _driver) = connected.map_err(unreachable)?;
    let pooled = wire.is_pooled();
    let mut client = wire.client;
    about_the_server(&client, options, pooled, found).await?;
    about_the_way(&client, clock, found).await?;
    let migrations = match schema::look(&mut client, &options.schema).await {
        Ok(migrations) => migrations,
        Err(error) => {
            found.fail(error);
            return Ok(());
        }
    };
    if !migrations.are_complete() {
        found.note_as("schema version", migrations.made, format!("{} of {}", migrations.made, migrations.known));
        found.fail(migrations.missing(format!("the schema {}", options.schema)));
        return Ok(());
    }
    found.note_as("schema version", migrations.made, format!("{}, up to date", migrations.made));
    about_the_schema(&client, &options.schema, found).await?;
    if found.is_usable() {
        let options = PostgresOptions { migrate: false, connections: 1, writers: 1, ..options.clone() };
        let store = PostgresStore::open(options).await?;
        let checked = store.check().await;
        store.close().await;
        checked?;
        found.note("reads and writes", "work");
    }
    Ok(())
}

async fn about_the_server(
    client: &Client,
    options: &PostgresOptions,
    pooled: bool,
    found: &mut Inspection,
) -> Result<(), StoreError> {
    let sql = "SELECT current_setting('server_version'), current_setting('server_version_num')::integer / 10000,
                   current_user::text, current_database()::text, current_setting('server_encoding'),
                   s.ssl, s.version, pg_is_in_recovery(),
                   current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
                   current_setting('synchronous_standby_names'), (SELECT count(*) FROM pg_stat_replication),
                   current_setting('max_connections')::bigint,
                   (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
                   current_setting('statement_timeout')
               FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid()";
    let row = one(client, sql, &[]).await?;
    let text =
        |column| row.try_get::<_, Option<&str>>(column).map(Option::unwrap_or_default).map_err(unreadable(DOING));
    let version: i32 = get(&row, 1)?;
    found.note("version", text(0)?);
    if version < OLDEST {
        found.fail(format!("PostgreSQL {version} is too old; version {OLDEST} or later is needed"));
    }
    found.note("database", text(3)?);
    found.note("schema", &options.schema);
    found.note("role", text(2)?);
    if text(4)? != "UTF8" {
        found.fail(format!("the database's encoding is {}; create one with ENCODING 'UTF8'", text(4)?));
    }

    let encrypted = if get(&row, 5)? { text(6)? } else { "none" };
    let mode = options.ssl_mode.as_str();
    if pooled {
        found.note("pooler", "yes, by the transaction");
        found.note("encryption", format!("sslmode={mode} up to the pooler; {encrypted} behind it"));
    } else {
        found.note("pooler", "none");
        found.note("encryption", format!("{encrypted} (sslmode={mode})"));
    }
    if options.is_exposed() {
        found.warn("sslmode=prefer keeps nobody out who can change what goes over the network; use verify-full");
    } else if options.ssl_mode == SslMode::Require {
        found.warn("sslmode=require does not look at whose certificate it is; use verify-full");
    }
    if pooled && text(15)? == "0" {
        found.warn("nothing ends a statement that hangs: ALTER ROLE … SET statement_timeout = '5s'");
    }

    let (most, taken): (i64, i64) = (get(&row, 13)?, get(&row, 14)?);
    let wanted = options.connections + options.writers;
    let shown = format!("{wanted} for each node; {taken} of {most} are taken, this one included");
    found.note_as("connections", json!({ "per_node": wanted, "max": most, "taken": taken }), shown);

    if get(&row, 7)? {
        found.fail("this is a replica, which takes no writes; name the primary (target_session_attrs=read-write)");
    }
    let (fsync, full_pages, commit, standbys) = (text(8)?, text(9)?, text(10)?, text(11)?);
    let replicas: i64 = get(&row, 12)?;
    found.note("fsync", fsync);
    found.note("full_page_writes", full_pages);
    found.note("synchronous_commit", commit);
    found.note("synchronous_standby_names", standbys);
    found.note_as("replicas", replicas, replicas.to_string());
    if fsync == "off" || full_pages == "off" {
        found.warn("a crash of the machine may undo anything, or damage it (fsync or full_page_writes is off)");
    }
    if standbys.is_empty() && replicas > 0 {
        found.warn("no replica is synchronous: a failover may undo the last moments, sign-outs included");
    } else if !standbys.is_empty() && matches!(commit, "local" | "off") {
        found.warn("nothing waits for the synchronous replicas (synchronous_commit): a failover may undo sign-outs");
    }
    Ok(())
}

/// How long a round trip takes, and how the clocks agree.
async fn about_the_way(client: &Client, clock: &dyn Clock, found: &mut Inspection) -> Result<(), StoreError> {
    let sql = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let mut trips = Vec::new();
    for _ in 0..TRIPS {
        let (sent, asked_at) = (Instant::now(), clock.now());
        let theirs: i64 = get(&one(client, sql, &[]).await?, 0)?;
        let took = sent.elapsed();
        // It was read half-way, as far as anybody can tell.
        trips.push((took, theirs - asked_at.plus(took / 2).as_millis()));
    }
    found.note_trips("PostgreSQL", trips);
    Ok(())
}

async fn about_the_schema(client: &Client, schema: &str, found: &mut Inspection) -> Result<(), StoreError> {
    // As it would be written in a statement.
    let quoted = format!("\"{schema}\"");
    let rights = "SELECT coalesce(string_agg(c.relname::text, ', ' ORDER BY c.relname), ''),
                      has_schema_privilege(to_regnamespace($1)::oid, 'USAGE')
                  FROM pg_class c
                  WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r' AND c.relname <> 'baton_schema'
                      AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                          AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))";
    let row = one(client, rights, &[(&quoted, Type::TEXT)]).await?;
    let (tables, enter): (String, bool) = (get(&row, 0)?, get(&row, 1)?);
    if !tables.is_empty() || !enter {
        found.fail(format!(
            "the role lacks rights in the schema ({}); it needs USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on \
             all of its tables",
            if enter { &tables } else { "USAGE" }
        ));
        return Ok(());
    }

    let ahead = in_schema("SELECT c.ahead FROM baton.clock c", schema);
    let ahead: i64 = get(&one(client, &ahead, &[]).await?, 0)?;
    if ahead > 0 {
        found.warn(format!(
            "PostgreSQL's clock was set back; the store's time is {ahead} ms ahead of it, until it has caught up"
        ));
    }

    // As the planner does it: what the last ANALYZE or VACUUM saw in a page, times the pages that there are now.
    let sizes = "SELECT c.relname::text,
                     CASE WHEN c.relpages > 0 AND c.reltuples >= 0
                         THEN (c.reltuples / c.relpages * pg_relation_size(c.oid)
                             / current_setting('block_size')::bigint)::bigint
                         ELSE coalesce(pg_stat_get_live_tuples(c.oid), 0) END,
                     pg_total_relation_size(c.oid)
                 FROM pg_class c
                 WHERE c.relnamespace = to_regnamespace($1) AND c.relname IN ('accounts', 'sessions') ORDER BY c.relname";
    let rows = client.query_typed(sizes, &[(&quoted, Type::TEXT)]).await.map_err(doing(DOING))?;
    for row in rows {
        let (name, rows, size): (String, i64, i64) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
        let name = if name == "accounts" { "accounts" } else { "sessions" };
        let value = json!({ "estimate": rows, "bytes": size });
        found.note_as(name, value, format!("about {rows}, {} with indexes", bytes(size.unsigned_abs())));
    }
    Ok(())
}

fn get<T: FromSqlOwned>(row: &Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(unreadable(DOING))
}

/// The row of a statement that has one always.
async fn one(client: &Client, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Row, StoreError> {
    let mut rows = client.query_typed(sql, params).await.map_err(doing(DOING))?;
    rows.pop().ok_or_else(|| unusable(format!("{DOING}: no answer")))
}
