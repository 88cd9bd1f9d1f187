//! What the core needs from outside: a store and a random source. (The clock is in [`crate::clock`].)

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::attempts::{AttemptName, AttemptRule, Counted};
use crate::clock::Timestamp;
use crate::error::{CreateAccountError, CreateSessionError, RedeemError, StoreError, UpdateAccountError};
use crate::event::{Message, Outcome, Recorded, Trace};
use crate::one_time::{OneTime, OneTimeId, Purpose};
use crate::session::{
    Account, AccountId, AccountUpdate, Device, NewAccount, NewSession, PasswordHash, Session, Swap, Swapped,
};
use crate::token::ClientId;

/// Where accounts and sessions live.
///
/// Two kinds of promise, and no default bodies that could weaken one:
///
/// - **relaxed**: a [`swap`](Store::swap), unless it [`resends`](Swap::resends). A rotation that the store forgets in a power
///   cut heals at the client's next request (DESIGN §2.2), so it need not wait for the disk. It must still be seen by every
///   later read while the store runs. The same goes for the few others that say so: what a crash undoes of them is made up
///   for by itself.
/// - **durable**: everything else that writes. When the call has returned, no crash undoes it (S4). A session that ended
///   stays ended.
///
/// `now` in an answer is the **store's** time, which never goes backwards: the clocks of the nodes do not matter.
///
/// A store of your own can be checked with the conformance suite in `baton-store` (feature `conformance`).
#[async_trait]
pub trait Store: Send + Sync {
    /// The session, its account and the store's time, in one read. `None` if there is no such session.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot answer; never because the session is missing.
    async fn find(&self, client: ClientId) -> Result<Option<Found>, StoreError>;

    /// Makes `swap` if the session still is at [`Swap::expect`], and notes the address it was `seen_from`. Exactly one of
    /// several racing swaps with the same expectation is made, on whichever node. Means [`Session::swapped`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nothing was changed, [`StoreError::Uncertain`] if that is not known.
    async fn swap(
        &self,
        client: ClientId,
        swap: &Swap,
        seen_from: Option<std::net::IpAddr>,
    ) -> Result<Swapped, StoreError>;

    /// Adds an account, with its first session if one is given, and leaves the trace: all or nothing.
    ///
    /// # Errors
    /// [`CreateAccountError::Taken`] if realm, provider and uid exist.
    async fn create_account(
        &self,
        account: NewAccount,
        session: Option<NewSession>,
        trace: &Trace,
    ) -> Result<(Account, Option<Session>), CreateAccountError>;

    /// The account that signs in with this uid, with its password hash.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn find_login(&self, realm: &str, provider: &str, uid: &str) -> Result<Option<Login>, StoreError>;

    /// Changes an account, ends sessions and leaves the trace, all of it or nothing; the account as it is then.
    ///
    /// # Errors
    /// [`UpdateAccountError`]: the account is gone, its password was changed meanwhile, or the new uid is taken.
    async fn update_account(
        &self,
        account: AccountId,
        update: AccountUpdate,
        trace: &Trace,
    ) -> Result<Account, UpdateAccountError>;

    /// Removes the account, all its sessions and one-time tokens, and leaves the trace. False, and no trace, if there was
    /// none.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn delete_account(&self, account: AccountId, trace: &Trace) -> Result<bool, StoreError>;

    /// Adds a session, ends the least recently used ones beyond [`NewSession::max_devices`], never the new one, and leaves
    /// the trace.
    ///
    /// # Errors
    /// [`CreateSessionError::NoAccount`] if the account is gone, or [`NewSession::if_password`] is not its password any more.
    async fn create_session(
        &self,
        account: AccountId,
        session: NewSession,
        trace: &Trace,
    ) -> Result<Session, CreateSessionError>;

    /// Ends a session of this account and leaves the trace. False, and no trace, if it has no such session (any more).
    ///
    /// # Errors
    /// [`StoreError`].
    async fn end_session(&self, account: AccountId, client: ClientId, trace: &Trace) -> Result<bool, StoreError>;

    /// The sessions of an account, expired ones included, most recently used first, with the store's time.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn sessions(&self, account: AccountId) -> Result<(Timestamp, Vec<SessionEntry>), StoreError>;

    /// Keeps a one-time token that is good for `lifetime` from now on. False if the account is gone.
    ///
    /// # Errors
    /// [`StoreError`], also if one with this id exists.
    async fn create_one_time(&self, token: NewOneTime) -> Result<bool, StoreError>;

    /// A one-time token that is still good, with its account. `None` if it was redeemed, has expired or become void.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn find_one_time(&self, id: OneTimeId) -> Result<Option<FoundOneTime>, StoreError>;

    /// Makes a one-time token and all others of its account and purpose void, changes the account, opens a session if one
    /// is given, and leaves the trace: all of it or nothing, and of several at once exactly one.
    ///
    /// # Errors
    /// [`RedeemError`]: the token is not good any more, or the new uid is taken.
    async fn redeem(
        &self,
        id: OneTimeId,
        update: AccountUpdate,
        session: Option<NewSession>,
        trace: &Trace,
    ) -> Result<(Account, Option<Session>), RedeemError>;

    /// Makes a one-time token void, if it still is good: its letter did not go out. May be relaxed.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn void_one_time(&self, id: OneTimeId) -> Result<(), StoreError>;

    /// Counts an attempt under this name, or refuses it, by the rule of
    /// [`Attempts::counted`](crate::attempts::Attempts::counted). Of any number of attempts at once no more pass than the
    /// rule says. May be relaxed.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn count_attempt(&self, name: AttemptName, rule: AttemptRule) -> Result<Counted, StoreError>;

    /// Forgets the attempts under this name: the right password was given, or the lock is lifted. May be relaxed.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn forget_attempts(&self, name: AttemptName) -> Result<(), StoreError>;

    /// Leaves a trace of something that changes nothing else.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn record(&self, trace: &Trace) -> Result<(), StoreError>;

    /// Up to `limit` recorded events with numbers above `after`, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn events(&self, after: i64, limit: u32) -> Result<Vec<Recorded>, StoreError>;

    /// Takes up to `limit` messages that are due out of the outbox, in the order in which they became due. Until `lease` has
    /// passed nobody else gets them; then, unless they were settled, they are due again.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn claim(&self, limit: u32, lease: Duration) -> Result<Vec<Message>, StoreError>;

    /// Says what became of a claimed message. Changes nothing if it was claimed again since. May be relaxed unless it is
    /// [`Outcome::Done`].
    ///
    /// # Errors
    /// [`StoreError`].
    async fn settle(&self, id: i64, attempt: u32, outcome: Outcome) -> Result<(), StoreError>;

    /// Removes up to `limit` of each: sessions, one-time tokens and counts of attempts that have expired; how many there
    /// were. Safe to run at any time.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn purge(&self, limit: u32) -> Result<u64, StoreError>;

    /// Removes up to `limit` events that are older than `age` and not waiting in the outbox; how many there were. May be
    /// relaxed.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn purge_events(&self, age: Duration, limit: u32) -> Result<u64, StoreError>;

    /// Tells the store which keys its sessions are signed with ([`crate::KeyRing::fingerprints`]). It remembers them, and
    /// answers [`KeyBinding::Foreign`], remembering nothing, if it knows others and none of these.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn bind_keys(&self, fingerprints: &[String]) -> Result<KeyBinding, StoreError>;

    /// Whether it can be read and written right now: the answer of a readiness check.
    ///
    /// # Errors
    /// [`StoreError`] saying why not.
    async fn check(&self) -> Result<(), StoreError>;
}

/// A session as read for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The record.
    pub session: Session,
    /// Whose it is. Shared, since a store may remember it.
    pub account: Arc<Account>,
    /// The store's time of the read.
    pub now: Timestamp,
}

/// An account with what is needed to check a password and to write to its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The account.
    pub account: Account,
    /// Its password hash.
    pub password: PasswordHash,
    /// When its address was confirmed.
    pub confirmed_at: Option<Timestamp>,
    /// An address that is to become the account's when it has been confirmed.
    pub unconfirmed_email: Option<String>,
}

/// A one-time token to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOneTime {
    /// Its name, freshly drawn.
    pub id: OneTimeId,
    /// Whose it is.
    pub account: AccountId,
    /// What it is good for.
    pub purpose: Purpose,
    /// The address that it goes to.
    pub email: String,
    /// How long it is good.
    pub lifetime: Duration,
}

/// A one-time token that is still good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundOneTime {
    /// The token.
    pub one_time: OneTime,
    /// Whose it is.
    pub login: Login,
    /// The store's time of the read.
    pub now: Timestamp,
}

/// A session as it appears in the list of devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEntry {
    /// The record.
    pub session: Session,
    /// Where it comes from.
    pub device: Device,
}

/// A store's answer to [`Store::bind_keys`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyBinding {
    /// They are, or now are, the store's keys.
    Bound,
    /// The store was used with other keys: with these, every session in it would be refused.
    Foreign,
}

/// A source of random bytes fit for secrets.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// [`RandomError`] if the source failed; nothing weaker may take its place.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError>;
}

/// The random source failed.
#[derive(Debug, thiserror::Error)]
#[error("no random bytes: {0}")]
pub struct RandomError(pub String);
