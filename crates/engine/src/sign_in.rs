//! E-mail and password for a session.

use baton_core::session::{AccountUpdate, Device, NewSession, PasswordHash};
use baton_core::{AccountId, CreateSessionError, StoreError};
use secrecy::SecretString;

use crate::passwords::PasswordError;
use crate::register::{EMAIL_PROVIDER, normalize_email};
use crate::{Engine, SignedIn};

/// Why nobody was signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// E-mail or password are wrong; which of them is not told, and takes the same time.
    #[error("wrong e-mail or password")]
    BadCredentials,
    /// The password could not be checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Checks the password and opens a session. An unknown address costs the same password check as a known one
    /// (ASVS 6.3.8).
    ///
    /// # Errors
    /// [`SignInError`].
    pub async fn sign_in(&self, email: &str, password: SecretString, device: Device) -> Result<SignedIn, SignInError> {
        let uid = normalize_email(email);
        let login = self.store.find_login(&self.settings.realm, EMAIL_PROVIDER, &uid).await?;
        let hash = login.as_ref().map(|login| &login.password);
        let matches = self.passwords.verify(password.clone(), hash).await?;
        let Some(login) = login.filter(|_| matches) else {
            tracing::info!(ip = ?device.ip, "sign-in failed");
            return Err(SignInError::BadCredentials);
        };
        let account = login.account;
        let session = NewSession { if_password: Some(login.password.clone()), ..self.new_session(device)? };
        let session = match self.store.create_session(account.id, session).await {
            Ok(session) => session,
            Err(CreateSessionError::NoAccount) => return Err(SignInError::BadCredentials),
            Err(CreateSessionError::Store(error)) => return Err(error.into()),
        };
        tracing::info!(account = %account.id, client = %session.client, "signed in");
        self.upgrade_hash(account.id, &login.password, password).await;
        Ok(SignedIn { credentials: self.credentials(&account, &session), account })
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
                self.store.update_account(account, update).await.map(drop).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = upgraded {
            tracing::warn!(%account, error, "could not upgrade a password hash");
        }
    }
}
