//! A store in memory: for tests and examples. Everything is gone when it is dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use baton_core::clock::{Clock, Timestamp};
use baton_core::error::{CreateAccountError, CreateSessionError, StoreError, UpdateAccountError};
use baton_core::ports::{Found, KeyBinding, Login, SessionEntry, Store};
use baton_core::session::{Account, AccountId, AccountUpdate, NewAccount, NewSession, Session, Swap, Swapped};
use baton_core::token::ClientId;
use parking_lot::Mutex;

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
    keys: BTreeSet<String>,
    last_id: i64,
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
        Ok(Some(Found { session: session.clone(), account: login.account.clone(), now: self.time.now() }))
    }

    async fn swap(&self, client: ClientId, swap: &Swap, seen_from: Option<IpAddr>) -> Result<Swapped, StoreError> {
        let mut tables = self.tables.lock();
        let now = self.time.now();
        let Some(entry) = tables.sessions.get_mut(&client) else { return Ok(Swapped::Gone) };
        let Some(next) = entry.session.swapped(swap, now) else { return Ok(Swapped::Moved(entry.session.clone())) };
        entry.session = next;
        entry.device.ip = seen_from.or(entry.device.ip);
        Ok(Swapped::Done(now))
    }

    async fn create_account(
        &self,
        new: NewAccount,
        session: Option<NewSession>,
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
        tables.accounts.insert(account.id, Login { account: account.clone(), password });
        let session = session.map(|session| tables.insert(account.id, session, now));
        Ok((account, session))
    }

    async fn find_login(&self, realm: &str, provider: &str, uid: &str) -> Result<Option<Login>, StoreError> {
        let tables = self.tables.lock();
        let name = (realm.to_owned(), provider.to_owned(), uid.to_owned());
        Ok(tables.logins.get(&name).and_then(|id| tables.accounts.get(id)).cloned())
    }

    async fn update_account(&self, account: AccountId, update: AccountUpdate) -> Result<Account, UpdateAccountError> {
        let mut tables = self.tables.lock();
        let now = self.time.now();
        let Some(login) = tables.accounts.get(&account) else { return Err(UpdateAccountError::Gone) };
        if update.if_password.is_some_and(|checked| checked != login.password) {
            return Err(UpdateAccountError::Overtaken);
        }
        let mut changed = login.clone();
        if let Some(uid) = update.uid {
            let name = |uid: &str| (changed.account.realm.clone(), changed.account.provider.clone(), uid.to_owned());
            let (old, new) = (name(&changed.account.uid), name(&uid));
            if tables.logins.get(&new).is_some_and(|owner| *owner != account) {
                return Err(UpdateAccountError::Taken);
            }
            tables.logins.remove(&old);
            tables.logins.insert(new, account);
            changed.account.uid = uid;
        }
        if let Some(password) = update.password {
            changed.password = password;
            changed.account.allow_password_change = false;
        }
        changed.account.email = update.email.unwrap_or(changed.account.email);
        changed.account.profile = update.profile.unwrap_or(changed.account.profile);
        changed.account.updated_at = changed.account.updated_at.max(now);
        tables.accounts.insert(account, changed.clone());
        tables.sessions.retain(|client, entry| entry.session.account != account || update.end.keeps(*client));
        Ok(changed.account)
    }

    async fn delete_account(&self, account: AccountId) -> Result<bool, StoreError> {
        let mut tables = self.tables.lock();
        tables.sessions.retain(|_, entry| entry.session.account != account);
        tables.logins.retain(|_, id| *id != account);
        Ok(tables.accounts.remove(&account).is_some())
    }

    async fn create_session(&self, account: AccountId, session: NewSession) -> Result<Session, CreateSessionError> {
        let mut tables = self.tables.lock();
        let now = self.time.now();
        let login = tables.accounts.get(&account).ok_or(CreateSessionError::NoAccount)?;
        if session.if_password.as_ref().is_some_and(|checked| *checked != login.password) {
            return Err(CreateSessionError::NoAccount);
        }
        tables.must_be_free(session.client)?;
        let max_devices = session.max_devices.max(1) as usize;
        let session = tables.insert(account, session, now);
        // The new one is kept whatever the times say, so the others share what remains.
        let others = tables.of(account).into_iter().filter(|entry| entry.session.client != session.client);
        for surplus in others.skip(max_devices - 1) {
            tables.sessions.remove(&surplus.session.client);
        }
        Ok(session)
    }

    async fn end_session(&self, account: AccountId, client: ClientId) -> Result<bool, StoreError> {
        let mut tables = self.tables.lock();
        let theirs = tables.sessions.get(&client).is_some_and(|entry| entry.session.account == account);
        Ok(theirs && tables.sessions.remove(&client).is_some())
    }

    async fn sessions(&self, account: AccountId) -> Result<(Timestamp, Vec<SessionEntry>), StoreError> {
        let tables = self.tables.lock();
        Ok((self.time.now(), tables.of(account)))
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        let mut tables = self.tables.lock();
        let now = self.time.now();
        let expired = tables.sessions.values().filter(|entry| entry.session.expires_at <= now);
        let expired: Vec<_> = expired.map(|entry| entry.session.client).take(limit as usize).collect();
        for client in &expired {
            tables.sessions.remove(client);
        }
        Ok(expired.len() as u64)
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

impl Tables {
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
