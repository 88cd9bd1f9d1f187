//! Ending sessions, and the list of devices.

use baton_core::decide::is_expired;
use baton_core::event::EventKind;
use baton_core::ports::SessionEntry;
use baton_core::{Account, ClientId, StoreError};

use crate::Engine;
use crate::authenticate::Grant;
use crate::visitor::Visitor;

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
    pub async fn sign_out(&self, grant: &Grant, visitor: &Visitor) -> Result<bool, StoreError> {
        let client = grant.session.client;
        let trace = self.trace(EventKind::SignedOut, &grant.account, Some(client), &visitor.device);
        let ended = self.store.end_session(grant.account.id, client, &trace).await?;
        if ended {
            self.left(&trace, None);
        }
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
    pub async fn end_session(&self, account: &Account, id: &str, visitor: &Visitor) -> Result<bool, StoreError> {
        let Some(client) = ClientId::parse(id) else { return Ok(false) };
        let trace = self.trace(EventKind::SessionEnded, account, Some(client), &visitor.device);
        let ended = self.store.end_session(account.id, client, &trace).await?;
        if ended {
            self.left(&trace, None);
        }
        Ok(ended)
    }

    /// Removes the account and all its sessions (ASVS 7.4.2). False if it was gone already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_account(&self, account: &Account, visitor: &Visitor) -> Result<bool, StoreError> {
        let trace = self.trace(EventKind::AccountDeleted, account, None, &visitor.device);
        let deleted = self.store.delete_account(account.id, &trace).await?;
        if deleted {
            self.left(&trace, None);
        }
        Ok(deleted)
    }
}
