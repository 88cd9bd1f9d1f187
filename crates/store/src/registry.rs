//! What a store of accounts does besides, if the sessions live elsewhere.

use async_trait::async_trait;
use baton_core::error::StoreError;
use baton_core::ports::Store;
use baton_core::session::{AccountId, Session};
use baton_core::token::ClientId;

/// A store that keeps the accounts, and of each session that it **exists**: a row that is made at the sign-in and goes with the
/// session, in the same transactions as ever. What changes with the requests (generation, window, end) is kept by another
/// store, such as `RedisStore`, in which a session has to be registered here in order to be good.
///
/// What else is in a registered session's row is of its sign-in, or of when it was last [noted](Self::note).
#[async_trait]
pub trait Registry: Store {
    /// From now on, whatever ends a session remembers in the same transaction that it has ended, for as long as nobody has
    /// said that it has ended elsewhere too ([`forget_ends`](Self::forget_ends)).
    ///
    /// # Errors
    /// [`StoreError`].
    async fn remember_ends(&self) -> Result<(), StoreError>;

    /// Up to `limit` of the sessions that are remembered to have ended; of this account alone, if one is given.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn remembered_ends(&self, account: Option<AccountId>, limit: u32) -> Result<Vec<ClientId>, StoreError>;

    /// These have ended elsewhere too. May be relaxed.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn forget_ends(&self, clients: &[ClientId]) -> Result<(), StoreError>;

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

    /// [`Store::purge`], leaving sessions alone.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn purge_others(&self, limit: u32) -> Result<u64, StoreError>;
}
