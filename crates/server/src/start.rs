//! From a configuration to a running server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use baton_axum::{Auth, HttpSettingsError, RateLimits};
use baton_core::{Clock, KeyRing, StoreError};
use baton_engine::{Engine, EngineError, OsRandom};
use baton_store::sqlite::SqliteStore;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::access_log::RequestIds;
use crate::app::Mounted;
use crate::config::{Config, RealmConfig};
use crate::{app, listen, purge};

/// Which routes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routes {
    /// The auth routes and the health checks.
    Plain,
    /// Besides them the protected resources below `/demo`.
    WithDemo,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken, or the address is not one of this machine.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The database could not be opened.
    #[error("the database cannot be used: {0}")]
    Store(#[source] StoreError),
    /// The database belongs to other keys.
    #[error(
        "the keys do not belong to the database {0}: its sessions were signed with others, and with these everybody would \
         be signed out. Put back the key file that this database was used with; a new key goes in front of the old ones \
         (`baton keys new --file`). If the old keys are lost for good, have the database forget them, so that everybody \
         signs in again: sqlite3 {0} 'DELETE FROM known_keys'"
    )]
    ForeignKeys(PathBuf),
    /// The engine could not be made.
    #[error(transparent)]
    Engine(EngineError),
    /// The configuration holds what cannot go over HTTP.
    #[error(transparent)]
    Http(#[from] HttpSettingsError),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] baton_core::ports::RandomError),
}

/// A server that accepts connections.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    realms: Vec<Mounted>,
    store: Arc<SqliteStore>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<bool>,
    purging: JoinHandle<()>,
}

/// Starts a server. The time of day is `clock`'s; how long requests may take and similar limits are real time.
///
/// # Errors
/// [`StartError`].
pub async fn start(
    config: &Config,
    keys: KeyRing,
    clock: Arc<dyn Clock>,
    routes: Routes,
) -> Result<Running, StartError> {
    let wanted = config.server.listen;
    // First, so that a second server by mistake does not touch the first one's database.
    let listener = TcpListener::bind(wanted).await.map_err(|error| StartError::Listen(wanted, error))?;
    let address = listener.local_addr().map_err(|error| StartError::Listen(wanted, error))?;

    let ids = RequestIds::new(&OsRandom)?;
    let store = open(config, Arc::clone(&clock)).await?;
    let mut realms = Vec::new();
    for realm in &config.realms {
        let auth = auth(realm, &store, &keys, &clock).await?;
        realms.push(Mounted { mount: realm.mount.clone(), auth });
    }

    let app = app::router(&realms, store.clone(), config, routes, address, ids);
    let (stop, stopped) = oneshot::channel();
    let server = config.server.clone();
    let serving = tokio::spawn(async move {
        // An error means that the sender is gone, which is as good a reason to stop.
        listen::serve(listener, app, &server, async { drop(stopped.await) }).await
    });
    let purging = tokio::spawn(purge::run(store.clone()));
    Ok(Running { address, realms, store, stop, serving, purging })
}

async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<SqliteStore>, StartError> {
    let (path, options) = (config.store.path.clone(), config.store.options.clone());
    // Opening waits for locks and migrates.
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(path, options, clock)).await;
    match opened {
        Ok(store) => store.map(Arc::new).map_err(StartError::Store),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

async fn auth(
    realm: &RealmConfig,
    store: &Arc<SqliteStore>,
    keys: &KeyRing,
    clock: &Arc<dyn Clock>,
) -> Result<Auth, StartError> {
    let engine = Engine::open(store.clone(), keys.clone(), Arc::new(OsRandom), realm.engine.clone()).await;
    let engine = engine.map_err(|error| match error {
        EngineError::ForeignKeys => StartError::ForeignKeys(store.path().to_owned()),
        EngineError::Store(error) => StartError::Store(error),
        error @ EngineError::Hashing(_) => StartError::Engine(error),
    })?;
    let mut http = realm.http.clone();
    http.rate_limits = realm.rate_limits.map(|quotas| RateLimits { quotas, clock: Arc::clone(clock) });
    Ok(Auth::new(engine, http)?)
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it serves: its realms, in the order of [`Config::realms`].
    pub fn auths(&self) -> impl Iterator<Item = &Auth> {
        self.realms.iter().map(|realm| &realm.auth)
    }

    /// Stops accepting, lets requests in flight finish within `shutdown_grace`, and closes the database.
    ///
    /// # Errors
    /// [`StoreError`] if the last step failed; nothing is lost then.
    pub async fn stop(self) -> Result<(), StoreError> {
        // The receiver is gone only if the task is.
        let _ = self.stop.send(());
        if !self.serving.await.unwrap_or(false) {
            tracing::warn!("requests that took longer than shutdown_grace were cut off");
        }
        self.purging.abort();
        self.store.close().await
    }
}
