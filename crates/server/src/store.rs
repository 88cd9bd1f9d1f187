//! The store that the configuration names.

use std::fmt;
use std::sync::Arc;

use baton_core::{Clock, Store, StoreError};
use baton_store::postgres::PostgresStore;
use baton_store::sqlite::SqliteStore;

use crate::config::StoreConfig;

/// An open store.
#[derive(Clone)]
pub(crate) enum OpenStore {
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PostgresStore>),
}

impl OpenStore {
    /// Opens it and brings its schema up to date. `clock` is the time of a store that has none of its own.
    pub(crate) async fn open(config: &StoreConfig, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        match config {
            StoreConfig::Sqlite { path, options } => {
                let (path, options) = (path.clone(), options.clone());
                // Opening waits for locks and migrates.
                let opened = tokio::task::spawn_blocking(move || SqliteStore::open(path, options, clock)).await;
                match opened {
                    Ok(store) => store.map(|store| Self::Sqlite(Arc::new(store))),
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                }
            }
            StoreConfig::Postgres(options) => {
                PostgresStore::open((**options).clone()).await.map(|store| Self::Postgres(Arc::new(store)))
            }
        }
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => store.clone(),
            Self::Postgres(store) => store.clone(),
        }
    }

    /// How to have it forget the keys that it knows.
    pub(crate) fn forgets_keys(&self) -> String {
        const SQL: &str = "DELETE FROM known_keys";
        match self {
            Self::Sqlite(store) => format!("sqlite3 {} '{SQL}'", store.path().display()),
            Self::Postgres(_) => format!("{SQL}, in the schema of baton"),
        }
    }

    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => {
                store.close().await;
                Ok(())
            }
        }
    }
}

impl fmt::Debug for OpenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(store) => store.fmt(f),
            Self::Postgres(_) => f.write_str("PostgresStore"),
        }
    }
}
