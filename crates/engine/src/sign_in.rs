//! E-mail and password for a session.

use baton_core::event::{EventKind, Trace};
use baton_core::ports::Login;
use baton_core::session::{AccountUpdate, NewSession, PasswordHash};
use baton_core::{AccountId, CreateSessionError, StoreError};
use secrecy::SecretString;

use crate::lockout::Lock;
use crate::passwords::PasswordError;
use crate::register::{EMAIL_PROVIDER, normalize_email};
use crate::visitor::Visitor;
use crate::{Engine, SignedIn};

/// Why nobody was signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// E-mail or password are wrong; which of them is not told, and takes the same time.
    #[error("wrong e-mail or password")]
    BadCredentials,
    /// The password is right, and the address has not been confirmed yet. Never told to somebody without the password.
    #[error("the e-mail address is not confirmed")]
    Unconfirmed,
    /// Too many sign-ins failed, whether there is such an account or not. Told only where [`crate::Settings::paranoid`] is
    /// off; otherwise it reads as [`Self::BadCredentials`].
    #[error("sign-ins are locked")]
    Locked,
    /// The password could not be checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Checks the password and opens a session. An unknown address costs the same password check, the same reads and the same
    /// writes as a known one (ASVS 6.3.8).
    ///
    /// # Errors
    /// [`SignInError`].
    pub async fn sign_in(
        &self,
        email: &str,
        password: SecretString,
        visitor: &Visitor,
    ) -> Result<SignedIn, SignInError> {
        let uid = normalize_email(email);
        let counted = self.count_sign_in(&uid).await?;
        let login = self.store.find_login(&self.settings.realm, EMAIL_PROVIDER, &uid).await?;
        let hash = login.as_ref().map(|login| &login.password);
        let matches = self.passwords.verify(password.clone(), hash).await?;
        let lock = self.lock(counted, login.as_ref(), visitor.device.ip).await?;

        let right = login.as_ref().filter(|_| matches);
        let login = match self.admit_sign_in(lock, right) {
            Ok(login) => login,
            Err(refused) => {
                let last = lock == (Lock::Open { last: true }) && right.is_none();
                let account = login.as_ref().map(|login| &login.account);
                self.note(&self.failure(&uid, account, last, visitor)).await;
                if right.is_some() && lock != Lock::Locked {
                    self.forget_failures(&uid).await;
                }
                return Err(refused);
            }
        };
        let account = login.account.clone();
        let session = self.new_session(visitor.device.clone())?;
        let trace: Trace = self.trace(EventKind::SignedIn, &account, Some(session.client), &visitor.device);
        let session = NewSession { if_password: Some(login.password.clone()), ..session };
        let session = match self.store.create_session(account.id, session, &trace).await {
            Ok(session) => session,
            Err(CreateSessionError::NoAccount) => return Err(SignInError::BadCredentials),
            Err(CreateSessionError::Store(error)) => return Err(error.into()),
        };
        self.left(&trace, None);
        self.forget_failures(&uid).await;
        self.upgrade_hash(account.id, &login.password, password).await;
        Ok(SignedIn { credentials: self.credentials(&account, &session), account })
    }

    /// The login that may be used; `right`: the one whose password was given.
    fn admit_sign_in<'a>(&self, lock: Lock, right: Option<&'a Login>) -> Result<&'a Login, SignInError> {
        match (lock, right) {
            (Lock::Locked, _) if self.settings.paranoid => Err(SignInError::BadCredentials),
            (Lock::Locked, _) => Err(SignInError::Locked),
            (Lock::Open { .. }, None) => Err(SignInError::BadCredentials),
            (Lock::Open { .. }, Some(login)) if login.confirmed_at.is_none() && self.requires_confirmation() => {
                Err(SignInError::Unconfirmed)
            }
            (Lock::Open { .. }, Some(login)) => Ok(login),
        }
    }

    /// Hashes the password anew if the costs have been raised since. Not worth failing a sign-in for.
    async fn upgrade_hash(&self, account: AccountId, old: &PasswordHash, password: SecretString) {
        if !self.passwords.is_outdated(old) {
            return;
        }
        let upgraded = match self.passwords.hash(password).await {
            Ok(hash) => {
                let update =
                    AccountUpdate { password: Some(hash), if_password: Some(old.clone()), ..Default::default() };
                self.store
                    .update_account(account, update, &Trace::NONE)
                    .await
                    .map(drop)
                    .map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = upgraded {
            tracing::warn!(%account, error, "could not upgrade a password hash");
        }
    }
}
