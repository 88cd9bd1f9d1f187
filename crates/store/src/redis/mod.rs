//! Sessions in Redis or Valkey (one server, one that sentinels watch over, or a cluster), beside accounts in another store.
//!
//! - The accounts' store ([`Registry`]) has all that must not be lost: accounts, letters, events, and a row for each session
//!   that says that it exists. **A session is good only while that row is there.** Redis has what changes with the requests,
//!   and with each session what a request wants to know about its account.
//! - A request is one read in Redis, and a rotation one script that compares and sets. An operation that was made, and whose
//!   answer was lost, is recognised when it is repeated.
//! - What Redis forgets in a failover is forgotten rotations, which heal. What must not be forgotten (a new session, the end
//!   of one, a token handed out again) waits for as many replicas as was asked ([`RedisOptions::wait_replicas`]).
//! - What has ended in the registry and could not be told to Redis is remembered there, until it has been.
//! - Should Redis forget an end, because nobody was asked to wait, the registry tells: a session in use is looked for there every
//!   [`RedisOptions::recheck`]. While the registry is away that is put off, so
//!   that requests with tokens go on without it.
//! - Dead sessions go by themselves: each has an expiry in Redis, and its row is found by an index.
//!
//! It needs Redis 6 or Valkey. There are neither tokens nor keys in it, and no password hashes.

mod error;
mod inspect;
mod link;
mod options;
mod record;
mod sessions;
mod store;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use baton_core::clock::Clock;
use baton_core::error::StoreError;
use baton_core::ports::Random;

pub use error::RedisStoreError;
pub use options::RedisOptions;

use crate::inspection::Inspection;
use crate::registry::Registry;
use sessions::Sessions;

/// Sessions in Redis, and the rest in `R`. See the [module](self).
pub struct RedisStore<R: ?Sized> {
    registry: Arc<R>,
    sessions: Sessions,
    /// Whether the registry did not answer when it was last asked about a session.
    registry_is_away: AtomicBool,
}

impl<R: Registry + ?Sized> RedisStore<R> {
    /// Connects. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if Redis cannot be reached or lets nobody in.
    pub async fn open(options: &RedisOptions, registry: Arc<R>, random: &dyn Random) -> Result<Self, StoreError> {
        let sessions = Sessions::new(options, random)?;
        sessions.links.connect().await?;
        sessions.check().await?;
        sessions.warn_of_eviction().await;
        registry.remember_ends().await?;
        Ok(Self { registry, sessions, registry_is_away: AtomicBool::new(false) })
    }

    /// The store of the accounts.
    #[must_use]
    pub const fn registry(&self) -> &Arc<R> {
        &self.registry
    }

    /// Ends the connections. Operations that come later are answered [`StoreError::Unavailable`]. Leaves the registry open.
    pub fn close(&self) {
        self.sessions.links.close();
    }

    /// Its time is not before this from now on: for tests, which cannot set the clock of Redis.
    #[cfg(feature = "conformance")]
    #[doc(hidden)]
    pub fn observe(&self, time: baton_core::Timestamp) {
        self.sessions.time.observe(time);
    }
}

impl Sessions {
    /// A cache may throw away what it likes; here that signs people out.
    async fn warn_of_eviction(&self) {
        let Some(policy) = inspect::eviction_policy(&self.links).await else { return };
        if policy != "noeviction" {
            tracing::warn!(
                maxmemory_policy = policy,
                "Redis may throw sessions away when its memory is full, which signs people out; set maxmemory-policy to noeviction"
            );
        }
    }
}

/// Looks at the server that these name: how it keeps what it is given, how far away it is, and what may do harm. `clock` is
/// this machine's.
pub async fn inspect(options: &RedisOptions, clock: &dyn Clock) -> Inspection {
    inspect::inspect(options, clock).await
}

impl<R: ?Sized> fmt::Debug for RedisStore<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}
