//! The stores that the configuration names.

use std::fmt;
use std::sync::Arc;

use baton_core::{Clock, Store, StoreError};
use baton_engine::OsRandom;
use baton_store::postgres::PostgresStore;
use baton_store::redis::{RedisOptions, RedisStore};
use baton_store::registry::Registry;
use baton_store::sqlite::SqliteStore;

use crate::config::StoreConfig;

/// Open stores, which are one to whoever uses them.
#[derive(Clone)]
pub(crate) struct OpenStore {
    accounts: Accounts,
    sessions: Option<Arc<RedisStore<dyn Registry>>>,
}

/// With the sessions, unless those are elsewhere.
#[derive(Clone)]
enum Accounts {
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PostgresStore>),
}

impl OpenStore {
    /// Opens them and brings the schema up to date. `clock` is the time of a store that has none of its own.
    pub(crate) async fn open(
        store: &StoreConfig,
        sessions: Option<&RedisOptions>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let accounts = Accounts::open(store, clock).await?;
        let sessions = match sessions {
            Some(options) => Some(Arc::new(RedisStore::open(options, accounts.registry(), &OsRandom).await?)),
            None => None,
        };
        Ok(Self { accounts, sessions })
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match &self.sessions {
            Some(sessions) => sessions.clone(),
            None => self.accounts.registry(),
        }
    }

    /// How to have it forget the keys that it knows.
    pub(crate) fn forgets_keys(&self) -> String {
        const SQL: &str = "DELETE FROM known_keys";
        match &self.accounts {
            Accounts::Sqlite(store) => format!("sqlite3 {} '{SQL}'", store.path().display()),
            Accounts::Postgres(_) => format!("{SQL}, in the schema of baton"),
        }
    }

    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        if let Some(sessions) = &self.sessions {
            sessions.close();
        }
        match &self.accounts {
            Accounts::Sqlite(store) => store.close().await,
            Accounts::Postgres(store) => {
                store.close().await;
                Ok(())
            }
        }
    }
}

impl Accounts {
    async fn open(config: &StoreConfig, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
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

    fn registry(&self) -> Arc<dyn Registry> {
        match self {
            Self::Sqlite(store) => store.clone(),
            Self::Postgres(store) => store.clone(),
        }
    }
}

impl fmt::Debug for OpenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("OpenStore");
        match &self.accounts {
            Accounts::Sqlite(store) => shown.field("accounts", store),
            Accounts::Postgres(store) => shown.field("accounts", store),
        };
        shown.field("sessions", &self.sessions).finish()
    }
}
