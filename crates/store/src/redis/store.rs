//! The two stores as one.
//!
//! In what order things are done, so that a crash in between leaves nothing that should not be:
//!
//! - A session is **registered first** and opened in Redis then; at last the registry is asked again. Whatever ended it
//!   meanwhile has either seen it there, or is seen now.
//! - A session **ends in the registry first**: what is missing in Redis may have been forgotten by it, and is found in the
//!   registry again.
//! - What ends sessions is not acknowledged before they have ended in Redis too. The registry remembers, from the transaction on
//!   in which they end there, that this is still to be done: whoever repeats the operation does it, or else the next purge.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
use futures_util::future::try_join_all;

use super::RedisStore;
use super::error::NAME;
use super::sessions::Stored;
use crate::registry::Registry;

/// How often it is noted how far a session in use is. So much may be lost if Redis forgets everything.
const NOTED_EVERY: Duration = Duration::from_secs(60 * 60);
/// How many dead sessions are looked at at once.
const PURGED_TOGETHER: u32 = 64;

#[async_trait]
impl<R: Registry + ?Sized> Store for RedisStore<R> {
    async fn find(&self, client: ClientId) -> Result<Option<Found>, StoreError> {
        match self.sessions.find(client).await? {
            // Boxed because they are rare.
            None => Box::pin(self.restore(client)).await,
            Some(stored) if stored.unverified => Box::pin(self.verify(stored.into())).await,
            Some(stored) => Ok(Some(stored.into())),
        }
    }

    async fn swap(&self, client: ClientId, swap: &Swap, seen_from: Option<IpAddr>) -> Result<Swapped, StoreError> {
        self.sessions.swap(client, swap, seen_from).await
    }

    async fn create_account(
        &self,
        account: NewAccount,
        session: Option<NewSession>,
        trace: &Trace,
    ) -> Result<(Account, Option<Session>), CreateAccountError> {
        let mut ip = None;
        if let Some(new) = &session {
            self.sessions.check().await?;
            ip = new.device.ip;
        }
        let (account, session) = self.registry.create_account(account, session, trace).await?;
        self.sessions.time.observe(account.created_at);
        if let Some(session) = &session {
            self.admit(session, ip).await.map_err(made_anyway)?;
        }
        Ok((account, session))
    }

    async fn find_login(&self, realm: &str, provider: &str, uid: &str) -> Result<Option<Login>, StoreError> {
        self.registry.find_login(realm, provider, uid).await
    }

    async fn update_account(
        &self,
        account: AccountId,
        update: AccountUpdate,
        trace: &Trace,
    ) -> Result<Account, UpdateAccountError> {
        let changed = self.registry.update_account(account, update, trace).await?;
        self.follow(&changed).await.map_err(made_anyway)?;
        Ok(changed)
    }

    async fn delete_account(&self, account: AccountId, trace: &Trace) -> Result<bool, StoreError> {
        let deleted = self.registry.delete_account(account, trace).await?;
        self.end_in_redis(account).await.map_err(made_anyway)?;
        Ok(deleted)
    }

    async fn create_session(
        &self,
        account: AccountId,
        new: NewSession,
        trace: &Trace,
    ) -> Result<Session, CreateSessionError> {
        self.sessions.check().await?;
        self.note_use(account, new.max_devices).await?;
        let ip = new.device.ip;
        let session = self.registry.create_session(account, new, trace).await?;
        self.sessions.time.observe(session.created_at);
        self.end_in_redis(account).await.map_err(made_anyway)?;
        self.admit(&session, ip).await.map_err(made_anyway)?;
        Ok(session)
    }

    async fn end_session(&self, account: AccountId, client: ClientId, trace: &Trace) -> Result<bool, StoreError> {
        let ended = self.registry.end_session(account, client, trace).await?;
        // Also one that the registry does not know: it may be an old backup.
        self.sessions.close(client, Some(account)).await.map_err(made_anyway)?;
        if ended {
            self.forget_ends(&[client]).await;
        }
        Ok(ended)
    }

    async fn sessions(&self, account: AccountId) -> Result<(Timestamp, Vec<SessionEntry>), StoreError> {
        let (now, registered) = self.registry.sessions(account).await?;
        let mut now = self.sessions.time.observe(now);
        let found = registered.iter().map(|entry| self.sessions.find(entry.session.client));
        let found = try_join_all(found).await?;
        let mut entries = Vec::new();
        for (mut entry, stored) in registered.into_iter().zip(found) {
            if let Some(stored) = stored {
                now = now.max(stored.now);
                entry.session = stored.session;
                entry.device.ip = stored.ip.or(entry.device.ip);
            } else if entry.session.expires_at <= now {
                // Over for so long that Redis has forgotten it.
                continue;
            }
            entries.push(entry);
        }
        entries.sort_by_key(|SessionEntry { session, .. }| {
            std::cmp::Reverse((session.last_seen_at, session.created_at, session.client))
        });
        Ok((now, entries))
    }

    async fn create_one_time(&self, token: NewOneTime) -> Result<bool, StoreError> {
        self.registry.create_one_time(token).await
    }

    async fn find_one_time(&self, id: OneTimeId) -> Result<Option<FoundOneTime>, StoreError> {
        let found = self.registry.find_one_time(id).await?;
        Ok(found.map(|found| FoundOneTime { now: self.sessions.time.observe(found.now), ..found }))
    }

    async fn redeem(
        &self,
        id: OneTimeId,
        update: AccountUpdate,
        session: Option<NewSession>,
        trace: &Trace,
    ) -> Result<(Account, Option<Session>), RedeemError> {
        let mut ip = None;
        if let Some(new) = &session {
            self.sessions.check().await?;
            if let Some(found) = self.registry.find_one_time(id).await? {
                self.note_use(found.one_time.account, new.max_devices).await?;
            }
            ip = new.device.ip;
        }
        let (changed, made) = self.registry.redeem(id, update, session, trace).await?;
        self.follow(&changed).await.map_err(made_anyway)?;
        if let Some(session) = &made {
            self.admit(session, ip).await.map_err(made_anyway)?;
        }
        Ok((changed, made))
    }

    async fn void_one_time(&self, id: OneTimeId) -> Result<(), StoreError> {
        self.registry.void_one_time(id).await
    }

    async fn count_attempt(&self, name: AttemptName, rule: AttemptRule) -> Result<Counted, StoreError> {
        self.registry.count_attempt(name, rule).await
    }

    async fn forget_attempts(&self, name: AttemptName) -> Result<(), StoreError> {
        self.registry.forget_attempts(name).await
    }

    async fn record(&self, trace: &Trace) -> Result<(), StoreError> {
        self.registry.record(trace).await
    }

    async fn events(&self, after: i64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        self.registry.events(after, limit).await
    }

    async fn claim(&self, limit: u32, lease: Duration) -> Result<Vec<Message>, StoreError> {
        self.registry.claim(limit, lease).await
    }

    async fn settle(&self, id: i64, attempt: u32, outcome: Outcome) -> Result<(), StoreError> {
        self.registry.settle(id, attempt, outcome).await
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        let others = self.registry.purge_others(limit).await?;
        self.end_all(&self.registry.remembered_ends(None, limit).await?).await?;
        let mut purged = 0;
        // Those that are put off count as looked at: a round has an end.
        let mut looked_at = 0;
        while purged < limit && looked_at < limit.saturating_mul(10) {
            let due = self.registry.due((limit - purged).min(PURGED_TOGETHER)).await?;
            if due.is_empty() {
                break;
            }
            looked_at = looked_at.saturating_add(PURGED_TOGETHER);
            let ended = due.iter().map(|(account, client)| self.purge_one(*account, *client));
            purged += try_join_all(ended).await?.into_iter().map(u32::from).sum::<u32>();
        }
        Ok(others + u64::from(purged))
    }

    async fn purge_events(&self, age: Duration, limit: u32) -> Result<u64, StoreError> {
        self.registry.purge_events(age, limit).await
    }

    async fn bind_keys(&self, fingerprints: &[String]) -> Result<KeyBinding, StoreError> {
        self.registry.bind_keys(fingerprints).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.sessions.check().await?;
        self.registry.check().await
    }
}

impl<R: Registry + ?Sized> RedisStore<R> {
    /// A session that Redis does not know, and may have forgotten: then it goes on from where it was last noted, and the token
    /// that its client presents heals the rest. If its registered end has come, nobody can say whether it went on.
    async fn restore(&self, client: ClientId) -> Result<Option<Found>, StoreError> {
        let Some(registered) = self.registry.find(client).await? else { return Ok(None) };
        if self.sessions.time.observe(registered.now) >= registered.session.expires_at {
            return Ok(None);
        }
        self.open_registered(&registered.session, None).await?;
        let restored = self.sessions.find(client).await?;
        if restored.is_some() {
            tracing::warn!(%client, "restored a session that Redis had forgotten");
        }
        Ok(restored.map(Into::into))
    }

    /// Looks a session up in the registry. One that is not there has ended; if the registry cannot tell, it is asked another
    /// time.
    async fn verify(&self, found: Found) -> Result<Option<Found>, StoreError> {
        let client = found.session.client;
        let registered = match self.registry.find(client).await {
            Ok(registered) => registered,
            Err(error @ StoreError::Unusable { .. }) => return Err(error),
            Err(error) => {
                if !self.registry_is_away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "sessions cannot be looked for in the registry; they go on without");
                }
                return Ok(Some(found));
            }
        };
        if self.registry_is_away.swap(false, Ordering::Relaxed) {
            tracing::info!("sessions are looked for in the registry again");
        }
        let Some(registered) = registered else {
            tracing::warn!(%client, "a session that had ended was still in Redis");
            self.sessions.close(client, None).await?;
            return Ok(None);
        };
        if let Err(error) = self.sessions.refresh(client, &registered.account).await {
            tracing::debug!(%client, %error, "it is not noted that the session was found in the registry");
        }
        let unnoted = found.session.last_seen_at.since(registered.session.last_seen_at);
        if unnoted >= NOTED_EVERY
            && let Err(error) = self.registry.note(&found.session).await
        {
            tracing::debug!(%client, %error, "it is not noted how far a session is");
        }
        let newer = registered.account.updated_at >= found.account.updated_at;
        Ok(Some(Found { account: if newer { registered.account } else { found.account }, ..found }))
    }

    /// Tells the registry when the sessions of an account were last seen, if it is to choose one that ends.
    async fn note_use(&self, account: AccountId, max_devices: u32) -> Result<(), StoreError> {
        let (_, registered) = self.registry.sessions(account).await?;
        if registered.len() < max_devices as usize {
            return Ok(());
        }
        let noted = registered.iter().map(async |entry| match self.sessions.find(entry.session.client).await? {
            Some(stored) => self.registry.note(&stored.session).await,
            None => Ok(()),
        });
        try_join_all(noted).await.map(drop)
    }

    /// Opens a session that was just registered. It may have ended since: its account is gone, or others have signed in.
    async fn admit(&self, session: &Session, ip: Option<IpAddr>) -> Result<(), StoreError> {
        let opened = self.open_registered(session, ip).await;
        if opened.is_err() {
            // Nobody knows of it. If this fails too it is in the way of nobody until it is purged.
            let _ = self.sessions.close(session.client, None).await;
            let _ = self.registry.end_session(session.account, session.client, &Trace::NONE).await;
        }
        opened
    }

    async fn open_registered(&self, session: &Session, ip: Option<IpAddr>) -> Result<(), StoreError> {
        let Some(found) = self.registry.find(session.client).await? else { return Ok(()) };
        self.sessions.open(session, ip, &found.account).await?;
        match self.registry.find(session.client).await? {
            None => self.sessions.close(session.client, None).await.map(drop),
            Some(again) if again.account != found.account => {
                self.sessions.refresh(session.client, &again.account).await
            }
            Some(_) => Ok(()),
        }
    }

    /// Makes a change of an account good in Redis.
    async fn follow(&self, changed: &Account) -> Result<(), StoreError> {
        self.sessions.time.observe(changed.updated_at);
        self.end_in_redis(changed.id).await?;
        let (_, registered) = self.registry.sessions(changed.id).await?;
        let refreshed = registered.iter().map(|entry| self.sessions.refresh(entry.session.client, changed));
        try_join_all(refreshed).await.map(drop)
    }

    /// Ends the sessions of this account in Redis that have ended in the registry, now or earlier.
    async fn end_in_redis(&self, account: AccountId) -> Result<(), StoreError> {
        let ended = self.registry.remembered_ends(Some(account), u32::MAX).await?;
        self.end_all(&ended).await
    }

    async fn end_all(&self, ended: &[ClientId]) -> Result<(), StoreError> {
        try_join_all(ended.iter().map(|client| self.sessions.close(*client, None))).await?;
        if !ended.is_empty() {
            self.forget_ends(ended).await;
        }
        Ok(())
    }

    /// If it fails they end once more, which does no harm.
    async fn forget_ends(&self, ended: &[ClientId]) {
        if let Err(error) = self.registry.forget_ends(ended).await {
            tracing::debug!(%error, "it is not noted which sessions have ended in Redis");
        }
    }

    /// Ends a session whose registered end has come, or puts that off. Whether it ended.
    async fn purge_one(&self, account: AccountId, client: ClientId) -> Result<bool, StoreError> {
        if let Some(Stored { session, now, .. }) = self.sessions.find(client).await?
            && session.expires_at > now
        {
            self.registry.note(&session).await?;
            return Ok(false);
        }
        self.end_session(account, client, &Trace::NONE).await
    }
}

impl From<Stored> for Found {
    fn from(Stored { session, account, now, .. }: Stored) -> Self {
        Self { session, account: Arc::new(account), now }
    }
}

/// For an operation that the registry has made, and Redis has not: to say that nothing was changed would be wrong.
fn made_anyway(error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable { cause, .. } => StoreError::Uncertain { store: NAME, cause },
        other => other,
    }
}
