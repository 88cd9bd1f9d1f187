//! Before the handler: who is this, and what may the request do?

use std::net::IpAddr;
use std::sync::Arc;

use baton_core::decide::{Plan, Rejection, Verdict, decide};
use baton_core::event::{EventKind, Trace};
use baton_core::ports::Found;
use baton_core::session::{Device, Swap, Swapped};
use baton_core::{Account, ClientId, Genuine, Session, StoreError, Timestamp};

use crate::Engine;

/// How often a decision is made anew because the session moved under it. Each time somebody else got ahead, so a few
/// rounds are plenty; the bound only keeps a broken store from spinning.
const ROUNDS: usize = 16;

/// What a request presents.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// The token.
    pub token: &'a str,
    /// The client id.
    pub client: &'a str,
    /// The account's uid. Has to be exactly the account's, as in the protocol.
    pub uid: &'a str,
    /// Whether it asks for the current token inside the batch window.
    pub unbatch: bool,
    /// Where it comes from, for the list of devices.
    pub ip: Option<IpAddr>,
}

impl std::fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt").field("client", &self.client).field("uid", &self.uid).finish_non_exhaustive()
    }
}

/// An accepted request: who it is, and what [`Engine::complete`] has to do when its response is ready.
#[derive(Debug, Clone)]
pub struct Grant {
    pub(crate) account: Arc<Account>,
    pub(crate) session: Session,
    pub(crate) plan: Plan,
    pub(crate) now: Timestamp,
    pub(crate) ip: Option<IpAddr>,
}

impl Grant {
    /// Who is signed in.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// With which session.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// Whether it may set a password without the one so far: its session was opened by a reset link a while ago.
    #[must_use]
    pub fn may_set_password(&self) -> bool {
        self.account.permit.is_some_and(|permit| permit.client == self.session.client && self.now < permit.until)
    }
}

/// Why a request is not let through.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// Its credentials are no good.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// The store failed, which says nothing about the credentials: the client has to keep them.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is wrong with the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Malformed, forged, signed with a retired key, or presented with another client or uid.
    Invalid,
    /// A newer token has taken its place.
    Superseded,
    /// The session is over its idle or absolute lifetime.
    Expired,
    /// It was issued once, but its session has ended.
    Revoked,
}

impl From<Refusal> for AuthenticateError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Engine {
    /// Checks the credentials of a request. A forged or malformed token costs no store access; a good one costs one read.
    ///
    /// # Errors
    /// [`AuthenticateError::Refused`] with the reason, [`AuthenticateError::Store`] if the store cannot answer.
    pub async fn authenticate(&self, attempt: Attempt<'_>) -> Result<Grant, AuthenticateError> {
        let client = ClientId::parse(attempt.client).ok_or(Refusal::Invalid)?;
        let token = self.keys.verify(client, attempt.token).map_err(|_| Refusal::Invalid)?;
        // The signature proves that there was such a session.
        let found = self.store.find(client).await?.ok_or(Refusal::Revoked)?;
        if found.account.uid != attempt.uid || found.account.realm != self.settings.realm {
            return Err(Refusal::Invalid.into());
        }
        self.admit(found, token, attempt).await
    }

    async fn admit(&self, found: Found, token: Genuine, attempt: Attempt<'_>) -> Result<Grant, AuthenticateError> {
        let Found { mut session, account, mut now } = found;
        for _ in 0..ROUNDS {
            match decide(&session, token, attempt.unbatch, now, &self.settings.rules) {
                Verdict::Accept(plan) => return Ok(Grant { account, session, plan, now, ip: attempt.ip }),
                Verdict::Reject(Rejection::Expired) => return Err(self.remove_expired(&session).await),
                Verdict::Reject(Rejection::Superseded { revoke }) => {
                    let device = Device { ip: attempt.ip, user_agent: None };
                    self.note_reuse(&account, &session, &device, now).await;
                    return Err(self.refuse_superseded(&account, &session, token, revoke, &device).await);
                }
                Verdict::First(swap) => {
                    now = self.write_first(&mut session, &swap, now, attempt.ip).await?;
                }
            }
        }
        Err(StoreError::Unavailable { store: "session", cause: "it kept changing while it was looked at".into() }
            .into())
    }

    /// Makes a change that the rule wants on record before it decides; leaves the record to decide on in `session`.
    async fn write_first(
        &self,
        session: &mut Session,
        swap: &Swap,
        now: Timestamp,
        ip: Option<IpAddr>,
    ) -> Result<Timestamp, AuthenticateError> {
        let (next, at) = match self.store.swap(session.client, swap, ip).await {
            Ok(Swapped::Done(at)) => (session.swapped(swap, at), at),
            // The store's time is not in this answer; the read's is still good, since the record can only have got younger.
            Ok(Swapped::Moved(found)) => (Some(found), now),
            Ok(Swapped::Gone) => return Err(Refusal::Revoked.into()),
            Err(error) if swap.heals() => return Err(error.into()),
            Err(error) => {
                // A note about what was seen. The request can be served without it.
                tracing::warn!(
                    client = %session.client, generation = %swap.confirmed, %error,
                    "could not note the use of a token"
                );
                (session.swapped(swap, now), now)
            }
        };
        if swap.heals() {
            tracing::info!(client = %session.client, from = %swap.expect.generation, to = %swap.generation, "healed a lost rotation");
        }
        if let Some(next) = next {
            *session = next;
        }
        Ok(at)
    }

    async fn remove_expired(&self, session: &Session) -> AuthenticateError {
        // It stays expired, whether the store can be written or not.
        if let Err(error) = self.store.end_session(session.account, session.client, &Trace::NONE).await {
            tracing::warn!(client = %session.client, %error, "could not remove an expired session");
        }
        Refusal::Expired.into()
    }

    async fn refuse_superseded(
        &self,
        account: &Account,
        session: &Session,
        token: Genuine,
        revoke: bool,
        device: &Device,
    ) -> AuthenticateError {
        let client = session.client;
        tracing::warn!(
            account = %account.id, %client,
            presented = %token.generation(), current = %session.generation, revoke,
            "superseded token presented"
        );
        if revoke {
            let trace = self.trace(EventKind::SessionEnded, account, Some(client), device);
            // To answer 401 although the session lives on would leave a thief with it.
            match self.store.end_session(account.id, client, &trace).await {
                Ok(true) => self.left(&trace, None),
                Ok(false) => {}
                Err(error) => return error.into(),
            }
        }
        Refusal::Superseded.into()
    }
}
