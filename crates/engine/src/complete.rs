//! After the handler: which token does the response carry?

use baton_core::decide::{Plan, Reply, complete};
use baton_core::session::Swapped;
use baton_core::wire::Credentials;
use baton_core::{Session, StoreError};

use crate::Engine;
use crate::authenticate::Grant;

/// What a response carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handover {
    /// This token.
    Token(Credentials),
    /// No token; the client keeps the one it has.
    Blank,
    /// The session has ended: no auth headers.
    Nothing,
}

impl Engine {
    /// Decides what the response of an accepted request carries, and rotates. Call it when the response head is ready, once.
    ///
    /// Never fails: the handler has run, and its response must not be lost because a store is away. If the rotation was
    /// not made the answer is blank and the presented token stays good; if that is not known the new token is handed out,
    /// since a token that the store forgot heals. Handing out a token once more leaves nothing to heal from, and nobody has
    /// used that token yet, so there the answer is blank too.
    pub async fn complete(&self, grant: &Grant) -> Handover {
        let Grant { session, plan, .. } = grant;
        match complete(session, plan, &self.answer(grant).await) {
            Reply::Token { generation, expires_at } => {
                let delivered = Session { generation, expires_at, ..session.clone() };
                Handover::Token(self.credentials(&grant.account, &delivered))
            }
            Reply::Blank => Handover::Blank,
            Reply::Nothing => Handover::Nothing,
        }
    }

    async fn answer(&self, grant: &Grant) -> Swapped {
        let Grant { session, plan, now, ip, .. } = grant;
        let unmoved = || Swapped::Moved(session.clone());
        match plan {
            Plan::Blank | Plan::Keep => unmoved(),
            Plan::HandOut { swap, .. } => match self.store.swap(session.client, swap, *ip).await {
                Ok(swapped) => swapped,
                Err(error @ StoreError::Uncertain { .. }) if !swap.resends() => {
                    tracing::warn!(
                        client = %session.client, generation = %swap.generation, %error,
                        "rotation may not have been stored"
                    );
                    Swapped::Done(*now)
                }
                Err(error) => {
                    tracing::warn!(client = %session.client, %error, "could not rotate");
                    unmoved()
                }
            },
            // A slow request may have been overtaken: the token that is current now is the one to repeat.
            Plan::Repeat => match self.store.find(session.client).await {
                Ok(Some(found)) => Swapped::Moved(found.session),
                Ok(None) => Swapped::Gone,
                Err(error) => {
                    tracing::warn!(client = %session.client, %error, "could not look for the current token");
                    unmoved()
                }
            },
        }
    }
}
