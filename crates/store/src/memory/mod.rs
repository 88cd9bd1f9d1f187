//! A store in memory: for tests and examples. Everything is gone when it is dropped.

mod losing;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use baton_core::attempts::{AttemptName, AttemptRule, Attempts, Counted};
use baton_core::clock::{Clock, Timestamp};
use baton_core::error::{CreateAccountError, CreateSessionError, RedeemError, StoreError, UpdateAccountError};
use baton_core::event::{Event, Message, MessageBody, Outcome, Recorded, Trace};
use baton_core::one_time::{OneTime, OneTimeId};
use baton_core::ports::{Found, FoundOneTime, KeyBinding, Login, NewOneTime, SessionEntry, Store};
use baton_core::session::{
    Account, AccountId, AccountUpdate, EndSessions, NewAccount, NewSession, Session, Swap, Swapped,
};
use baton_core::token::ClientId;
use parking_lot::Mutex;

use crate::registry::Registry;
use crate::time::StoreTime;

const NAME: &str = "memory";

/// Accounts and sessions in a few maps behind one lock.
pub struct MemoryStore {
    time: StoreTime,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    accounts: BTreeMap<AccountId, Login>,
    logins: HashMap<(String, String, String), AccountId>,
    sessions: HashMap<ClientId, SessionEntry>,
    /// Sessions that have to end elsewhere too, if they are kept elsewhere.
    ended: Option<BTreeMap<ClientId, AccountId>>,
    one_time: HashMap<OneTimeId, OneTime>,
    attempts: HashMap<AttemptName, Attempts>,
    events: BTreeMap<i64, Recorded>,
    outbox: BTreeMap<i64, Posted>,
    keys: BTreeSet<String>,
    at_risk: losing::AtRisk,
    last_id: i64,
    last_event: i64,
    last_message: i64,
}

struct Posted {
    message: Message,
    due_at: Timestamp,
}

impl MemoryStore {
    /// An empty store whose time is that of `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { time: StoreTime::new(clock), tables: Mutex::default() }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.tables.lock();
        f.debug_struct("MemoryStore")
            .field("accounts", &tables.accounts.len())
            .field("sessions", &tables.sessions.len())
            .finish_non_exhaustive()
    }
}

// The lock is taken before the clock is read, so that the times of the changes are in the order of the changes.
#[async_trait]
impl Store for MemoryStore {
    async fn find(&self, client: ClientId) -> Result<Option<Found>, StoreError> {
        let tables = self.tables.lock();
        let Some(SessionEntry { session, .. }) = tables.sessions.get(&client) else { return Ok(None) };
        let Some(login) = tables.accounts.get(&session.account) else { return Ok(None) };
        Ok(Some(Found { session: session.clone(), account: Arc::new(login.account.clone()), now: self.time.now() }))
    }

    async fn swap(&self, client: ClientId, swap: &Swap, seen_from: Option<IpAddr>) -> Result<Swapped, StoreError> {
        let mut tables = self.tables.lock();
        let now = self.time.now();
        let Some(entry) = tables.sessions.get_mut(&client) else { return Ok(Swapped::Gone) };
        let Some(next) = entry.session.swapped(swap, now) else { return Ok(Swapped::Moved(entry.session.clone())) };
        let mut device = entry.device.clone();
        device.ip = seen_from.or(device.ip);
        let before = std::mem::replace(entry, SessionEntry { session: next, device });
        tables.risk(before, swap);
        Ok(Swapped::Done(now))
    }

    async fn create_account(
        &self,
        new: NewAccount,
        session: Option<NewSession>,
        trace: &Trace,
    ) -> Result<(Account, Option<Session>), CreateAccountError> {
        let mut tables = self.tables.lock();
        let now = self.time.now();
        let name = (new.realm.clone(), new.provider.clone(), new.uid.clone());
        if tables.logins.contains_key(&name) {
            return Err(CreateAccountError::Taken);
        }
        if let Some(session) = &session {
            tables.must_be_free(session.client)?;
        }
        tables.last_id += 1;
        let (account, password) = new.made(AccountId(tables.last_id), now);
        tables.logins.insert(name, account.id);
        let login = Login { account: account.clone(), password, confirmed_at: None, unconfirmed_email: None };
        tables.accounts.insert(account.id, login);
        let session = session.map(|session| tables.insert(account.id, session, now));
        tables.leave(trace, Some(account.id), now);
        Ok((account, session))
    }

    async fn find_login(&self, realm: &str, provider: &str, uid: &str) -> Result<Option<Login>, StoreError> {
        let tables = self.tables.lock();
        let name = (realm.to_owned(), provider.to_owned(), uid.to_owned());
        Ok(tables.logins.get(&name).and_then(|id| tables.accounts.get(id)).cloned())
    }

    async fn update_account(
        &self,
        account: AccountId,
        update: AccountUpdate,
        trace: &Trace,
    ) -> Result<Account, UpdateAccountError> {
        let mut tables = self.tables.lock();
        let now = self.time.now();
        let changed = tables.update(account, update, now)?;
        tables.leave(trace, Some(account), now);
        Ok(changed)
    }

    async fn delete_account(&self, account: AccountId, trace: &Trace) -> Result<bool, StoreError> {
        let mut tables = self.tables.lock();
        let existed = tables.accounts.remove(&account).is_some();
        if existed {
            tables.end(account, EndSessions::All);
            tables.one_time.retain(|_, token| token.account != account);
            tables.logins.retain(|_, id| *id != account);
            tables.leave(trace, Some(account), self.time.now());
        }
        Ok(existed)
    }

    async fn create_session(
        &self,
        account: AccountId,
        session: NewSession,
        trace: &Trace,
    ) -> Result<Session, CreateSessionError> {
        let mut tables = self.tables.lock();
        let now = self.time.now();
        let login = tables.accounts.get(&account).ok_or(CreateSessionError::NoAccount)?;
        if session.if_password.as_ref().is_some_and(|checked| *checked != login.password) {
            return Err(CreateSessionError::NoAccount);
        }
        tables.must_be_free(session.client)?;
        let session = tables.insert_with_room(account, session, now);
        tables.leave(trace, Some(account), now);
        Ok(session)
    }

    async fn end_session(&self, account: AccountId, client: ClientId, trace: &Trace) -> Result<bool, StoreError> {
        let mut tables = self.tables.lock();
        let theirs = tables.sessions.get(&client).is_some_and(|entry| entry.session.account == account);
        if theirs {
            tables.remove(client);
            tables.leave(trace, Some(account), self.time.now());
        }
        Ok(theirs)
    }

    async fn sessions(&self, account: AccountId) -> Result<(Timestamp, Vec<SessionEntry>), StoreError> {
        let tables = self.tables.lock();
        Ok((self.time.now(), tables.of(account)))
    }

    async fn create_one_time(&self, new: NewOneTime) -> Result<bool, StoreError> {
        let mut tables = self.tables.lock();
        let NewOneTime { id, account, purpose, email, lifetime } = new;
        if !tables.accounts.contains_key(&account) {
            return Ok(false);
        }
        // As with client ids: whose token it is must not change.
        if tables.one_time.contains_key(&id) {
            return Err(StoreError::Unavailable { store: NAME, cause: "a one-time token with this id exists".into() });
        }
        let expires_at = self.time.now().plus(lifetime);
        tables.one_time.insert(id, OneTime { id, account, purpose, email, expires_at });
        Ok(true)
    }

    async fn find_one_time(&self, id: OneTimeId) -> Result<Option<FoundOneTime>, StoreError> {
        let tables = self.tables.lock();
        let now = self.time.now();
        let Some(one_time) = tables.good_one_time(id, now) else { return Ok(None) };
        let login = tables.accounts.get(&one_time.account).cloned();
        Ok(login.map(|login| FoundOneTime { one_time: one_time.clone(), login, now }))
    }

    async fn redeem(
        &self,
        id: OneTimeId,
        update: AccountUpdate,
        session: Option<NewSession>,
        trace: &Trace,
    ) -> Result<(Account, Option<Session>), RedeemError> {
        let mut tables = self.tables.lock();
        let now = self.time.now();
        let OneTime { account, purpose, .. } = tables.good_one_time(id, now).ok_or(RedeemError::Gone)?.clone();
        if let Some(session) = &session {
            tables.must_be_free(session.client)?;
        }
        let changed = tables.update(account, update, now).map_err(|error| match error {
            UpdateAccountError::Gone | UpdateAccountError::Overtaken => RedeemError::Gone,
            UpdateAccountError::Taken => RedeemError::Taken,
            UpdateAccountError::Store(error) => error.into(),
        })?;
        tables.one_time.retain(|_, token| token.account != account || token.purpose != purpose);
        let session = session.map(|session| tables.insert_with_room(account, session, now));
        tables.leave(trace, Some(account), now);
        Ok((changed, session))
    }

    async fn void_one_time(&self, id: OneTimeId) -> Result<(), StoreError> {
        self.tables.lock().one_time.remove(&id);
        Ok(())
    }

    async fn count_attempt(&self, name: AttemptName, rule: AttemptRule) -> Result<Counted, StoreError> {
        let attempts = &mut self.tables.lock().attempts;
        let (next, counted) = attempts.get(&name).copied().unwrap_or_default().counted(rule, self.time.now());
        attempts.insert(name, next);
        Ok(counted)
    }

    async fn forget_attempts(&self, name: AttemptName) -> Result<(), StoreError> {
        self.tables.lock().attempts.remove(&name);
        Ok(())
    }

    async fn record(&self, trace: &Trace) -> Result<(), StoreError> {
        let mut tables = self.tables.lock();
        tables.leave(trace, None, self.time.now());
        Ok(())
    }

    async fn events(&self, after: i64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        let tables = self.tables.lock();
        let later = tables.events.range((Bound::Excluded(after), Bound::Unbounded));
        Ok(later.map(|(_, recorded)| recorded.clone()).take(limit as usize).collect())
    }

    async fn claim(&self, limit: u32, lease: Duration) -> Result<Vec<Message>, StoreError> {
        let mut tables = self.tables.lock();
        let now = self.time.now();
        let mut due: Vec<&mut Posted> = tables.outbox.values_mut().filter(|posted| posted.due_at <= now).collect();
        due.sort_by_key(|posted| (posted.due_at, posted.message.id));
        let claimed = due.into_iter().take(limit as usize).map(|posted| {
            posted.due_at = now.plus(lease);
            posted.message.attempt = posted.message.attempt.saturating_add(1);
            posted.message.clone()
        });
        Ok(claimed.collect())
    }

    async fn settle(&self, id: i64, attempt: u32, outcome: Outcome) -> Result<(), StoreError> {
        let mut tables = self.tables.lock();
        let now = self.time.now();
        if let Some(posted) = tables.outbox.get_mut(&id).filter(|posted| posted.message.attempt == attempt) {
            match outcome {
                Outcome::Retry(after) => posted.due_at = now.plus(after),
                Outcome::Done => drop(tables.outbox.remove(&id)),
            }
        }
        Ok(())
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        let mut tables = self.tables.lock();
        let (now, limit) = (self.time.now(), limit as usize);
        let sessions = remove(&mut tables.sessions, limit, |entry| entry.session.expires_at <= now);
        Ok(sessions + tables.purge_others(now, limit))
    }

    async fn purge_events(&self, age: Duration, limit: u32) -> Result<u64, StoreError> {
        let mut tables = self.tables.lock();
        let now = self.time.now();
        let waiting: BTreeSet<i64> = tables.outbox.values().filter_map(|posted| posted.event()).collect();
        let old = tables.events.values().filter(|recorded| recorded.at.plus(age) <= now);
        let old = old.map(|recorded| recorded.id).filter(|id| !waiting.contains(id));
        let old: Vec<i64> = old.take(limit as usize).collect();
        for id in &old {
            tables.events.remove(id);
        }
        Ok(old.len() as u64)
    }

    async fn bind_keys(&self, fingerprints: &[String]) -> Result<KeyBinding, StoreError> {
        let known = &mut self.tables.lock().keys;
        if !known.is_empty() && !fingerprints.iter().any(|fingerprint| known.contains(fingerprint)) {
            return Ok(KeyBinding::Foreign);
        }
        known.extend(fingerprints.iter().cloned());
        Ok(KeyBinding::Bound)
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl Registry for MemoryStore {
    async fn remember_ends(&self) -> Result<(), StoreError> {
        self.tables.lock().ended.get_or_insert_default();
        Ok(())
    }

    async fn remembered_ends(&self, account: Option<AccountId>, limit: u32) -> Result<Vec<ClientId>, StoreError> {
        let tables = self.tables.lock();
        let ended = tables.ended.iter().flatten().filter(|(_, of)| account.is_none_or(|account| **of == account));
        Ok(ended.map(|(client, _)| *client).take(limit as usize).collect())
    }

    async fn forget_ends(&self, clients: &[ClientId]) -> Result<(), StoreError> {
        if let Some(ended) = &mut self.tables.lock().ended {
            ended.retain(|client, _| !clients.contains(client));
        }
        Ok(())
    }

    async fn due(&self, limit: u32) -> Result<Vec<(AccountId, ClientId)>, StoreError> {
        let tables = self.tables.lock();
        let now = self.time.now();
        let mut due: Vec<&Session> = tables.sessions.values().map(|entry| &entry.session).collect();
        due.retain(|session| session.expires_at <= now);
        due.sort_by_key(|session| session.expires_at);
        Ok(due.into_iter().take(limit as usize).map(|session| (session.account, session.client)).collect())
    }

    async fn note(&self, session: &Session) -> Result<(), StoreError> {
        if let Some(SessionEntry { session: known, .. }) = self.tables.lock().sessions.get_mut(&session.client) {
            if session.generation >= known.generation {
                (known.generation, known.handed_out_at) = (session.generation, session.handed_out_at);
            }
            known.confirmed = known.confirmed.max(session.confirmed);
            known.last_seen_at = known.last_seen_at.max(session.last_seen_at);
            known.expires_at = known.expires_at.max(session.expires_at);
        }
        Ok(())
    }

    async fn purge_others(&self, limit: u32) -> Result<u64, StoreError> {
        let mut tables = self.tables.lock();
        let now = self.time.now();
        Ok(tables.purge_others(now, limit as usize))
    }
}

impl Tables {
    fn purge_others(&mut self, now: Timestamp, limit: usize) -> u64 {
        remove(&mut self.one_time, limit, |token| token.expires_at <= now)
            + remove(&mut self.attempts, limit, |attempts| attempts.expires_at <= now)
    }

    /// A client id is 128 random bits: one that exists is a broken random source, and its owner must not lose the session.
    fn must_be_free(&self, client: ClientId) -> Result<(), StoreError> {
        if self.sessions.contains_key(&client) {
            return Err(StoreError::Unavailable { store: NAME, cause: "a session with this client id exists".into() });
        }
        Ok(())
    }

    fn insert(&mut self, account: AccountId, new: NewSession, now: Timestamp) -> Session {
        let session = Session::new(new.client, account, now, new.renewal);
        self.sessions.insert(new.client, SessionEntry { session: session.clone(), device: new.device });
        session
    }

    /// The same, in the place of the least recently used ones if there are too many.
    fn insert_with_room(&mut self, account: AccountId, new: NewSession, now: Timestamp) -> Session {
        let max_devices = new.max_devices.max(1) as usize;
        let session = self.insert(account, new, now);
        // The new one is kept whatever the times say, so the others share what remains.
        let others = self.of(account).into_iter().map(|entry| entry.session.client);
        let surplus: Vec<ClientId> = others.filter(|other| *other != session.client).skip(max_devices - 1).collect();
        for client in surplus {
            self.remove(client);
        }
        session
    }

    fn update(
        &mut self,
        account: AccountId,
        update: AccountUpdate,
        now: Timestamp,
    ) -> Result<Account, UpdateAccountError> {
        let Some(login) = self.accounts.get(&account) else { return Err(UpdateAccountError::Gone) };
        if update.if_password.is_some_and(|checked| checked != login.password) {
            return Err(UpdateAccountError::Overtaken);
        }
        let mut changed = login.clone();
        if let Some(uid) = update.uid {
            let name = |uid: &str| (changed.account.realm.clone(), changed.account.provider.clone(), uid.to_owned());
            let (old, new) = (name(&changed.account.uid), name(&uid));
            if self.logins.get(&new).is_some_and(|owner| *owner != account) {
                return Err(UpdateAccountError::Taken);
            }
            self.logins.remove(&old);
            self.logins.insert(new, account);
            changed.account.uid = uid;
        }
        if let Some(password) = update.password {
            changed.password = password;
            changed.account.permit = None;
        }
        changed.account.email = update.email.unwrap_or(changed.account.email);
        changed.unconfirmed_email = update.unconfirmed_email.unwrap_or(changed.unconfirmed_email);
        changed.confirmed_at = changed.confirmed_at.or(update.confirm.then_some(now));
        changed.account.permit = update.permit.or(changed.account.permit);
        changed.account.profile = update.profile.unwrap_or(changed.account.profile);
        changed.account.updated_at = changed.account.updated_at.max(now);
        self.accounts.insert(account, changed.clone());
        self.end(account, update.end);
        self.one_time.retain(|_, token| token.account != account || !update.void_one_time);
        Ok(changed.account)
    }

    fn remove(&mut self, client: ClientId) {
        if let Some(entry) = self.sessions.remove(&client)
            && let Some(ended) = &mut self.ended
        {
            ended.insert(client, entry.session.account);
        }
    }

    fn end(&mut self, account: AccountId, which: EndSessions) {
        let theirs = self.sessions.values().map(|entry| &entry.session).filter(|session| session.account == account);
        let ended: Vec<ClientId> =
            theirs.map(|session| session.client).filter(|client| !which.keeps(*client)).collect();
        for client in ended {
            self.remove(client);
        }
    }

    fn good_one_time(&self, id: OneTimeId, now: Timestamp) -> Option<&OneTime> {
        self.one_time.get(&id).filter(|token| now < token.expires_at)
    }

    /// Leaves a trace of a change of this account.
    fn leave(&mut self, trace: &Trace, account: Option<AccountId>, now: Timestamp) {
        for event in &trace.events {
            self.last_event += 1;
            let event = Event { account: event.account.or(account), ..event.clone() };
            let recorded = Recorded { id: self.last_event, at: now, event };
            for url in &trace.webhooks {
                self.post(MessageBody::Webhook(url.clone(), recorded.clone()), now);
            }
            self.events.insert(recorded.id, recorded);
        }
        for mail in &trace.mails {
            self.post(MessageBody::Mail(mail.clone()), now);
        }
    }

    fn post(&mut self, body: MessageBody, now: Timestamp) {
        self.last_message += 1;
        let message = Message { id: self.last_message, attempt: 0, created_at: now, body };
        self.outbox.insert(message.id, Posted { message, due_at: now });
    }

    /// The sessions of an account, most recently used first.
    fn of(&self, account: AccountId) -> Vec<SessionEntry> {
        let mut entries: Vec<_> =
            self.sessions.values().filter(|entry| entry.session.account == account).cloned().collect();
        entries.sort_by_key(|SessionEntry { session, .. }| {
            std::cmp::Reverse((session.last_seen_at, session.created_at, session.client))
        });
        entries
    }
}

impl Posted {
    /// The event that it tells of.
    const fn event(&self) -> Option<i64> {
        match &self.message.body {
            MessageBody::Webhook(_, recorded) => Some(recorded.id),
            MessageBody::Mail(_) => None,
        }
    }
}

/// Removes up to `limit` entries; how many there were.
fn remove<K: Copy + Eq + Hash, V>(entries: &mut HashMap<K, V>, limit: usize, expired: impl Fn(&V) -> bool) -> u64 {
    let found: Vec<K> = entries.iter().filter(|(_, entry)| expired(entry)).map(|(key, _)| *key).take(limit).collect();
    for key in &found {
        entries.remove(key);
    }
    found.len() as u64
}
