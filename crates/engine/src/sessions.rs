//! Ending sessions, and the list of devices.

use baton_core::decide::is_expired;
use baton_core::ports::SessionEntry;
use baton_core::{Account, ClientId, StoreError};

use crate::Engine;
use crate::authenticate::Grant;

/// One line of the list of devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// The session and where it comes from.
    pub entry: SessionEntry,
    /// Whether it is the one that asks.
    pub current: bool,
}

impl Engine {
    /// Ends the session of an accepted request. When this has returned, no token of it is accepted any more, after any
    /// crash (S4). False if it had ended already.
    ///
    /// # Errors
    /// [`StoreError`]; the session may then still live.
    pub async fn sign_out(&self, grant: &Grant) -> Result<bool, StoreError> {
        let ended = self.store.end_session(grant.account.id, grant.session.client).await?;
        tracing::info!(account = %grant.account.id, client = %grant.session.client, "signed out");
        Ok(ended)
    }

    /// The live sessions of the account that asks, most recently used first (ASVS 7.5.2).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sessions(&self, grant: &Grant) -> Result<Vec<SessionView>, StoreError> {
        let (now, entries) = self.store.sessions(grant.account.id).await?;
        Ok(entries
            .into_iter()
            .filter(|entry| !is_expired(&entry.session, now, &self.settings.rules))
            .map(|entry| SessionView { current: entry.session.client == grant.session.client, entry })
            .collect())
    }

    /// Ends one of the account's sessions by its id. False if it has none of that name.
    ///
    /// # Errors
    /// [`StoreError`]; the session may then still live.
    pub async fn end_session(&self, account: &Account, id: &str) -> Result<bool, StoreError> {
        let Some(client) = ClientId::parse(id) else { return Ok(false) };
        let ended = self.store.end_session(account.id, client).await?;
        if ended {
            tracing::info!(account = %account.id, %client, "session ended");
        }
        Ok(ended)
    }

    /// Removes the account and all its sessions (ASVS 7.4.2). False if it was gone already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_account(&self, account: &Account) -> Result<bool, StoreError> {
        let deleted = self.store.delete_account(account.id).await?;
        tracing::info!(account = %account.id, "account deleted");
        Ok(deleted)
    }
}
