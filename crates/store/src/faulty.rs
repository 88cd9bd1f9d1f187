//! A store that fails when a test says so, counts what it is asked, and can be stopped halfway.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use baton_core::attempts::{AttemptName, AttemptRule, Counted};
use baton_core::clock::Timestamp;
use baton_core::error::{CreateAccountError, CreateSessionError, RedeemError, StoreError, UpdateAccountError};
use baton_core::event::{Message, Outcome, Recorded, Trace};
use baton_core::one_time::OneTimeId;
use baton_core::ports::{Found, FoundOneTime, KeyBinding, Login, NewOneTime, SessionEntry, Store};
use baton_core::session::{Account, AccountId, AccountUpdate, NewAccount, NewSession, Session, Swap, Swapped};
use baton_core::token::ClientId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

const NAME: &str = "faulty";

/// An operation of [`Store`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is named after the method that it stands for")]
#[non_exhaustive]
pub enum Operation {
    Find,
    Swap,
    CreateAccount,
    FindLogin,
    UpdateAccount,
    DeleteAccount,
    CreateSession,
    EndSession,
    Sessions,
    CreateOneTime,
    FindOneTime,
    Redeem,
    VoidOneTime,
    CountAttempt,
    ForgetAttempts,
    Record,
    Events,
    Claim,
    Settle,
    Purge,
    PurgeEvents,
    BindKeys,
    Check,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// [`StoreError::Unavailable`]; nothing is done.
    Unavailable,
    /// [`StoreError::Uncertain`], and it was done: the acknowledgement got lost.
    UncertainApplied,
    /// [`StoreError::Uncertain`], and it was not done: the request got lost.
    UncertainNotApplied,
    /// [`StoreError::Unusable`]; nothing is done.
    Unusable,
}

/// The way between a caller and its store, for [`FaultyStore::behind`]: it may take time, and messages may be lost on it.
#[async_trait]
pub trait Wire: Send + Sync {
    /// The way there. With an error the store is not asked, and the caller is told that error.
    ///
    /// # Errors
    /// Whatever the caller is to be told.
    async fn go(&self, operation: Operation) -> Result<(), StoreError>;

    /// The way back, from the moment when the store has done it. With an error the caller is told that in place of the
    /// store's answer.
    ///
    /// # Errors
    /// Whatever the caller is to be told.
    async fn back(&self, operation: Operation) -> Result<(), StoreError>;
}

/// A [`Store`] around another one. Until told otherwise it only counts.
///
/// ```
/// # use std::sync::Arc;
/// # use baton_core::{ClientId, Store};
/// # use baton_store::{clock::ManualClock, faulty::{Fault, FaultyStore, Operation}, memory::MemoryStore};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let store = FaultyStore::new(Arc::new(MemoryStore::new(Arc::new(ManualClock::default()))));
/// store.fail_next(Operation::Find, Fault::Unavailable);
/// assert!(store.find(ClientId::from_bytes([1; 16])).await.is_err());
/// assert!(store.find(ClientId::from_bytes([1; 16])).await.is_ok());
/// assert_eq!(store.calls(Operation::Find), 2);
/// # }
/// ```
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    wire: Option<Arc<dyn Wire>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: HashMap<Operation, u64>,
    next: HashMap<Operation, VecDeque<Fault>>,
    always: HashMap<Operation, Fault>,
    everything: Option<Fault>,
    holds: Vec<Hold>,
}

struct Hold {
    operation: Operation,
    done: bool,
    reached: oneshot::Sender<()>,
    released: oneshot::Receiver<()>,
}

/// One call that was stopped: see [`FaultyStore::hold_before`]. Dropping it lets the call go on.
#[derive(Debug)]
pub struct Held {
    reached: oneshot::Receiver<()>,
    release: oneshot::Sender<()>,
}

impl Held {
    /// Waits until a call has got there.
    pub async fn reached(&mut self) {
        // An error would mean that the store is gone; the test finds that out by itself.
        let _ = (&mut self.reached).await;
    }

    /// Lets the call go on.
    pub fn release(self) {
        let _ = self.release.send(());
    }
}

impl FaultyStore {
    /// Around this one.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, wire: None, state: Mutex::default() }
    }

    /// Around this one, at the other end of a wire.
    #[must_use]
    pub fn behind(wire: Arc<dyn Wire>, inner: Arc<dyn Store>) -> Self {
        Self { wire: Some(wire), ..Self::new(inner) }
    }

    /// The one inside, which does not fail and does not count.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn Store> {
        &self.inner
    }

    /// The next call of `operation` fails, or the one after those that have been told to fail already.
    pub fn fail_next(&self, operation: Operation, fault: Fault) {
        self.state.lock().next.entry(operation).or_default().push_back(fault);
    }

    /// Every call of `operation` fails until [`heal`](Self::heal).
    pub fn fail(&self, operation: Operation, fault: Fault) {
        self.state.lock().always.insert(operation, fault);
    }

    /// Every call of anything fails until [`heal`](Self::heal).
    pub fn fail_everything(&self, fault: Fault) {
        self.state.lock().everything = Some(fault);
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.next.clear();
        state.always.clear();
        state.everything = None;
    }

    /// The next call of `operation` stops before the store is asked.
    #[must_use]
    pub fn hold_before(&self, operation: Operation) -> Held {
        self.hold(operation, false)
    }

    /// The next call of `operation` stops when the store has answered, before the caller is told.
    #[must_use]
    pub fn hold_after(&self, operation: Operation) -> Held {
        self.hold(operation, true)
    }

    /// How often `operation` was called, failed calls included.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.state.lock().calls.get(&operation).copied().unwrap_or(0)
    }

    /// How often anything was called.
    #[must_use]
    pub fn all_calls(&self) -> u64 {
        self.state.lock().calls.values().sum()
    }

    /// Counts from zero again.
    pub fn reset_calls(&self) {
        self.state.lock().calls.clear();
    }

    fn hold(&self, operation: Operation, done: bool) -> Held {
        let (reached, is_reached) = oneshot::channel();
        let (release, released) = oneshot::channel();
        self.state.lock().holds.push(Hold { operation, done, reached, released });
        Held { reached: is_reached, release }
    }

    async fn through<T, E: From<StoreError>>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        let fault = self.state.lock().arrive(operation);
        self.stop(operation, false).await;
        let result = match fault {
            None => self.ask(operation, call).await,
            Some(Fault::Unavailable) => Err(StoreError::Unavailable { store: NAME, cause: "as told".into() }.into()),
            Some(Fault::Unusable) => Err(StoreError::Unusable { store: NAME, cause: "as told".into() }.into()),
            Some(Fault::UncertainNotApplied) => Err(uncertain().into()),
            Some(Fault::UncertainApplied) => call.await.and_then(|_| Err(uncertain().into())),
        };
        self.stop(operation, true).await;
        result
    }

    async fn ask<T, E: From<StoreError>>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        let Some(wire) = &self.wire else { return call.await };
        wire.go(operation).await?;
        let answer = call.await;
        wire.back(operation).await?;
        answer
    }

    async fn stop(&self, operation: Operation, done: bool) {
        let hold = {
            let holds = &mut self.state.lock().holds;
            let index = holds.iter().position(|hold| hold.operation == operation && hold.done == done);
            index.map(|index| holds.remove(index))
        };
        if let Some(hold) = hold {
            let _ = hold.reached.send(());
            let _ = hold.released.await;
        }
    }
}

impl State {
    fn arrive(&mut self, operation: Operation) -> Option<Fault> {
        *self.calls.entry(operation).or_default() += 1;
        let next = self.next.get_mut(&operation).and_then(VecDeque::pop_front);
        next.or(self.always.get(&operation).copied()).or(self.everything)
    }
}

fn uncertain() -> StoreError {
    StoreError::Uncertain { store: NAME, cause: "as told".into() }
}

#[async_trait]
impl Store for FaultyStore {
    async fn find(&self, client: ClientId) -> Result<Option<Found>, StoreError> {
        self.through(Operation::Find, self.inner.find(client)).await
    }

    async fn swap(&self, client: ClientId, swap: &Swap, seen_from: Option<IpAddr>) -> Result<Swapped, StoreError> {
        self.through(Operation::Swap, self.inner.swap(client, swap, seen_from)).await
    }

    async fn create_account(
        &self,
        account: NewAccount,
        session: Option<NewSession>,
        trace: &Trace,
    ) -> Result<(Account, Option<Session>), CreateAccountError> {
        self.through(Operation::CreateAccount, self.inner.create_account(account, session, trace)).await
    }

    async fn find_login(&self, realm: &str, provider: &str, uid: &str) -> Result<Option<Login>, StoreError> {
        self.through(Operation::FindLogin, self.inner.find_login(realm, provider, uid)).await
    }

    async fn update_account(
        &self,
        account: AccountId,
        update: AccountUpdate,
        trace: &Trace,
    ) -> Result<Account, UpdateAccountError> {
        self.through(Operation::UpdateAccount, self.inner.update_account(account, update, trace)).await
    }

    async fn delete_account(&self, account: AccountId, trace: &Trace) -> Result<bool, StoreError> {
        self.through(Operation::DeleteAccount, self.inner.delete_account(account, trace)).await
    }

    async fn create_session(
        &self,
        account: AccountId,
        session: NewSession,
        trace: &Trace,
    ) -> Result<Session, CreateSessionError> {
        self.through(Operation::CreateSession, self.inner.create_session(account, session, trace)).await
    }

    async fn end_session(&self, account: AccountId, client: ClientId, trace: &Trace) -> Result<bool, StoreError> {
        self.through(Operation::EndSession, self.inner.end_session(account, client, trace)).await
    }

    async fn sessions(&self, account: AccountId) -> Result<(Timestamp, Vec<SessionEntry>), StoreError> {
        self.through(Operation::Sessions, self.inner.sessions(account)).await
    }

    async fn create_one_time(&self, token: NewOneTime) -> Result<bool, StoreError> {
        self.through(Operation::CreateOneTime, self.inner.create_one_time(token)).await
    }

    async fn find_one_time(&self, id: OneTimeId) -> Result<Option<FoundOneTime>, StoreError> {
        self.through(Operation::FindOneTime, self.inner.find_one_time(id)).await
    }

    async fn redeem(
        &self,
        id: OneTimeId,
        update: AccountUpdate,
        session: Option<NewSession>,
        trace: &Trace,
    ) -> Result<(Account, Option<Session>), RedeemError> {
        self.through(Operation::Redeem, self.inner.redeem(id, update, session, trace)).await
    }

    async fn void_one_time(&self, id: OneTimeId) -> Result<(), StoreError> {
        self.through(Operation::VoidOneTime, self.inner.void_one_time(id)).await
    }

    async fn count_attempt(&self, name: AttemptName, rule: AttemptRule) -> Result<Counted, StoreError> {
        self.through(Operation::CountAttempt, self.inner.count_attempt(name, rule)).await
    }

    async fn forget_attempts(&self, name: AttemptName) -> Result<(), StoreError> {
        self.through(Operation::ForgetAttempts, self.inner.forget_attempts(name)).await
    }

    async fn record(&self, trace: &Trace) -> Result<(), StoreError> {
        self.through(Operation::Record, self.inner.record(trace)).await
    }

    async fn events(&self, after: i64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        self.through(Operation::Events, self.inner.events(after, limit)).await
    }

    async fn claim(&self, limit: u32, lease: Duration) -> Result<Vec<Message>, StoreError> {
        self.through(Operation::Claim, self.inner.claim(limit, lease)).await
    }

    async fn settle(&self, id: i64, attempt: u32, outcome: Outcome) -> Result<(), StoreError> {
        self.through(Operation::Settle, self.inner.settle(id, attempt, outcome)).await
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        self.through(Operation::Purge, self.inner.purge(limit)).await
    }

    async fn purge_events(&self, age: Duration, limit: u32) -> Result<u64, StoreError> {
        self.through(Operation::PurgeEvents, self.inner.purge_events(age, limit)).await
    }

    async fn bind_keys(&self, fingerprints: &[String]) -> Result<KeyBinding, StoreError> {
        self.through(Operation::BindKeys, self.inner.bind_keys(fingerprints)).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.through(Operation::Check, self.inner.check()).await
    }
}
