//! What a store of accounts does besides, if the sessions live elsewhere.

use async_trait::async_trait;
use baton_core::error::{CreateSessionError, StoreError};
use baton_core::event::Trace;
use baton_core::ports::Store;
use baton_core::session::{AccountId, NewSession, Session};
use baton_core::token::ClientId;

/// A store that keeps the accounts, and of each session that it **exists**: a row that is made at the sign-in and goes with the
/// session, in the same transactions as ever. What changes with the requests (generation, window, end) is kept by another
/// store, such as `RedisStore`, in which a session has to be registered here in order to be good.
///
/// What else is in a registered session's row is of its sign-in, or of when it was last [noted](Self::note).
#[async_trait]
pub trait Registry: Store {
    /// Up to `limit` sessions whose registered end has come, the earliest first. They may live.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn due(&self, limit: u32) -> Result<Vec<(AccountId, ClientId)>, StoreError>;

    /// Takes over how far a session is, if it is registered. Nothing goes back: neither the generation nor the end. May be
    /// relaxed.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn note(&self, session: &Session) -> Result<(), StoreError>;

    /// [`Store::create_session`], and which sessions it has ended so as to make room, in no order. To choose well, it has to
    /// have been told ([`note`](Self::note)) when they were last seen.
    ///
    /// # Errors
    /// [`CreateSessionError`].
    async fn register(
        &self,
        account: AccountId,
        session: NewSession,
        trace: &Trace,
    ) -> Result<(Session, Vec<ClientId>), CreateSessionError>;

    /// [`Store::purge`], leaving sessions alone.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn purge_others(&self, limit: u32) -> Result<u64, StoreError>;
}
