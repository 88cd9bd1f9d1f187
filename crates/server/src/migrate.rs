//! `baton migrate`: the schema of the store, brought up to date by hand.

use baton_core::StoreError;
use baton_store::migrations::Migrations;
use baton_store::postgres::PostgresStore;
use baton_store::sqlite::SqliteStore;

use crate::config::StoreConfig;

/// Makes the migrations that are missing; how far the schema was.
pub(crate) async fn migrate(store: &StoreConfig) -> Result<Migrations, StoreError> {
    match store {
        // It blocks, and nothing else is waiting.
        StoreConfig::Sqlite { path, options } => SqliteStore::migrate(path, options),
        StoreConfig::Postgres(options) => PostgresStore::migrate((**options).clone()).await,
    }
}

/// How far the schema is.
pub(crate) async fn look(store: &StoreConfig) -> Result<Migrations, StoreError> {
    match store {
        StoreConfig::Sqlite { path, options } => SqliteStore::migrations(path, options),
        StoreConfig::Postgres(options) => PostgresStore::migrations((**options).clone()).await,
    }
}

/// What was done, or would be.
pub(crate) fn told(Migrations { made, known }: Migrations, done: bool) -> String {
    if made == known {
        return format!("nothing to do: the schema is at version {known}\n");
    }
    let from = if made == 0 { "none".to_owned() } else { format!("version {made}") };
    let what = if done { "brought up to date" } else { "not up to date" };
    format!("the schema is {what}: from {from} to version {known}\n")
}
