//! Locking sign-ins after too many that failed, and unlocking them (Devise's `lockable`).
//!
//! A lock is a weapon too: whoever knows an address can have it locked, again and again. So it never holds for an address of
//! the network from which the account is in use, the letter that tells of it opens a session, and attempts while it lasts do
//! not make it longer.

use std::net::IpAddr;
use std::time::Duration;

use baton_core::attempts::{AttemptName, AttemptRule, Counted};
use baton_core::event::{EventKind, Trace};
use baton_core::letter::Occasion;
use baton_core::one_time::Purpose;
use baton_core::ports::{FoundOneTime, Login};
use baton_core::session::{AccountUpdate, Device};
use baton_core::{Account, AccountId, StoreError};

use crate::confirm::RedeemError;
use crate::letters::{LinkRequest, LinkRequestError};
use crate::register::EMAIL_PROVIDER;
use crate::visitor::Visitor;
use crate::{Engine, SignedIn};

/// When sign-ins are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lockout {
    /// How many sign-ins may fail in a row; at least 1, 20 by default.
    pub max_attempts: u32,
    /// For how long further ones are then refused; 1 hour by default. [`Duration::MAX`]: until the link in the letter is
    /// followed or the password is reset.
    pub unlock_after: Duration,
    /// After how long without an attempt the count begins anew; a day by default.
    pub forget_after: Duration,
    /// Whether a letter with a link goes out that lifts the lock; `true` by default.
    pub by_mail: bool,
    /// How long that link is good; 1 day by default.
    pub link_lifetime: Duration,
}

impl Default for Lockout {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self { max_attempts: 20, unlock_after: HOUR, forget_after: DAY, by_mail: true, link_lifetime: DAY }
    }
}

/// What a lock says to a sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// It may go on. `last`: if it fails, the next ones are refused.
    Open { last: bool },
    /// It is refused, whatever the password.
    Locked,
}

impl Engine {
    /// Asks for a letter with a link that lifts the lock.
    ///
    /// # Errors
    /// [`LinkRequestError`].
    pub async fn request_unlock(&self, request: LinkRequest) -> Result<(), LinkRequestError> {
        self.ask(Occasion::UnlockAccount, request).await
    }

    /// Whether there are locks that a letter can lift.
    #[must_use]
    pub fn unlocks_by_mail(&self) -> bool {
        self.sends_mail() && self.settings.lockout.is_some_and(|lockout| lockout.by_mail)
    }

    /// Lifts the lock with the token of a letter.
    ///
    /// # Errors
    /// [`RedeemError`].
    pub async fn unlock(&self, token: &str, visitor: &Visitor) -> Result<(), RedeemError> {
        let FoundOneTime { one_time, login, .. } = self.find_one_time(Purpose::Unlock, token).await?;
        let trace = self.trace(EventKind::Unlocked, &login.account, None, &visitor.device);
        let (account, _) = self.redeem(one_time.id, confirming(), None, &trace).await?;
        self.forget_failures(&account.uid).await;
        Ok(())
    }

    /// Lifts the lock with the token of a letter, and signs its reader in: for somebody whom an attacker locks out again and
    /// again it is the way in.
    ///
    /// # Errors
    /// [`RedeemError`].
    pub async fn unlock_and_sign_in(&self, token: &str, visitor: &Visitor) -> Result<SignedIn, RedeemError> {
        let FoundOneTime { one_time, login, .. } = self.find_one_time(Purpose::Unlock, token).await?;
        let session = self.new_session(visitor.device.clone())?;
        let mut trace = self.trace(EventKind::Unlocked, &login.account, Some(session.client), &visitor.device);
        self.add_sign_in(&mut trace, &login.account, session.client, visitor);
        self.open_session(one_time.id, confirming(), session, trace).await
    }

    /// Counts a sign-in with this uid, before its password is looked at.
    pub(crate) async fn count_sign_in(&self, uid: &str) -> Result<Counted, StoreError> {
        match self.settings.lockout {
            Some(Lockout { max_attempts, unlock_after: lock_for, forget_after, .. }) => {
                let rule = AttemptRule { max_attempts, lock_for, forget_after };
                self.store.count_attempt(self.attempts_at(uid), rule).await
            }
            None => Ok(Counted::Allowed { last: false }),
        }
    }

    /// Forgets failed sign-ins with this uid: its owner has come. Worth a line in the log if it fails, and no more.
    pub(crate) async fn forget_failures(&self, uid: &str) {
        if self.settings.lockout.is_some()
            && let Err(error) = self.store.forget_attempts(self.attempts_at(uid)).await
        {
            tracing::warn!(%error, "could not forget failed sign-ins");
        }
    }

    /// Whether the lock holds for whoever tries to sign in to this account.
    pub(crate) async fn lock(
        &self,
        counted: Counted,
        login: Option<&Login>,
        ip: Option<IpAddr>,
    ) -> Result<Lock, StoreError> {
        match counted {
            Counted::Allowed { last } => Ok(Lock::Open { last }),
            Counted::Locked(_) => {
                // No account has the number 0: it takes the same time to find out nothing.
                let account = login.map_or(AccountId(0), |login| login.account.id);
                Ok(if self.knows(account, ip).await? { Lock::Open { last: false } } else { Lock::Locked })
            }
        }
    }

    /// What a failed sign-in leaves behind; the last one before a lock also the news of that.
    pub(crate) fn failure(&self, uid: &str, account: Option<&Account>, last: bool, visitor: &Visitor) -> Trace {
        let event = |kind| match account {
            Some(account) => self.event_of(kind, account, None, &visitor.device),
            None => self.event(kind, None, &visitor.device),
        };
        let mut trace = self.trace_of(event(EventKind::SignInFailed));
        if last {
            self.add_event(&mut trace, event(EventKind::Locked));
        }
        if last && self.unlocks_by_mail() {
            // Ordered whether there is such an account or not: it takes the same time.
            trace.mails.push(self.order(Occasion::UnlockAccount, uid, visitor));
        }
        trace
    }

    /// Whether a live session of the account was last seen at this address.
    async fn knows(&self, account: AccountId, ip: Option<IpAddr>) -> Result<bool, StoreError> {
        let Some(ip) = ip else { return Ok(false) };
        let (now, entries) = self.store.sessions(account).await?;
        let here = |device: &Device| device.ip == Some(ip);
        Ok(entries.iter().any(|entry| here(&entry.device) && now < entry.session.expires_at))
    }

    fn attempts_at(&self, uid: &str) -> AttemptName {
        AttemptName(self.keys.pseudonym(&["sign_in", &self.settings.realm, EMAIL_PROVIDER, uid]))
    }
}

/// Whoever reads the owner's mail is the owner.
fn confirming() -> AccountUpdate {
    AccountUpdate { confirm: true, ..AccountUpdate::default() }
}
