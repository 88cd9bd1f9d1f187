//! The use cases of baton, each in a file of its own, over a [`Store`]: they know neither which store nor which web
//! framework.
//!
//! One request runs [`Engine::authenticate`] → handler → [`Engine::complete`]. Everything else ([`Engine::register`],
//! [`Engine::sign_in`], [`Engine::sign_out`], [`Engine::sessions`], …) happens rarely.

mod authenticate;
mod complete;
mod devise;
mod passwords;
mod profile;
mod random;
mod redirects;
mod register;
mod sessions;
mod sign_in;
mod strength;
mod update;

use std::sync::Arc;

use baton_core::password::PasswordPolicy;
use baton_core::ports::KeyBinding;
use baton_core::session::{Device, NewSession};
use baton_core::wire::Credentials;
use baton_core::{Account, ClientId, KeyRing, Random, Rules, Session, Store, StoreError};

pub use authenticate::{Attempt, AuthenticateError, Grant, Refusal};
pub use complete::Handover;
pub use passwords::{Hashing, HashingError, HashingLoad, PasswordError};
pub use profile::{FieldKind, InvalidProfileField, ProfileField};
pub use random::OsRandom;
pub use redirects::{InvalidRedirectPattern, Redirect, RedirectAllowlist, RedirectRefused};
pub use register::{FieldFaults, RegisterError, Registration, normalize_email};
pub use secrecy::SecretString;
pub use sessions::SessionView;
pub use sign_in::SignInError;
pub use strength::{Blocklist, BlocklistError, PasswordStrength};
pub use update::{AccountChange, CurrentPassword, UpdateError};

use passwords::Passwords;

/// What an engine is told about its accounts and sessions.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The rotation rule's settings.
    pub rules: Rules,
    /// The kind of account that this engine serves; `user` by default. A token of another realm is refused.
    pub realm: String,
    /// How many sessions an account may have; at least 1, 10 by default. The least recently used ones beyond it end.
    pub max_number_of_devices: u32,
    /// Bounds on a new password.
    pub password_policy: PasswordPolicy,
    /// How hard a new password has to be to guess.
    pub password_strength: PasswordStrength,
    /// Cost of a password hash.
    pub hashing: Hashing,
    /// What Devise was told to append to each password (`config.pepper`); empty if nothing. Only hashes of bcrypt have it.
    pub bcrypt_pepper: SecretString,
    /// Which changes of an account take the current password.
    pub check_current_password_before_update: CurrentPassword,
    /// Whether a new password ends the account's other sessions (ASVS 7.4.3); the one that changed it goes on.
    pub remove_tokens_after_password_reset: bool,
    /// The profile fields that an account may have, no name twice; others that are sent are dropped.
    pub profile_fields: Vec<ProfileField>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            realm: "user".into(),
            max_number_of_devices: 10,
            password_policy: PasswordPolicy::default(),
            password_strength: PasswordStrength::default(),
            hashing: Hashing::default(),
            bcrypt_pepper: SecretString::default(),
            check_current_password_before_update: CurrentPassword::default(),
            remove_tokens_after_password_reset: true,
            profile_fields: ["name", "nickname", "image"].map(ProfileField::text).into(),
        }
    }
}

/// The use cases over one store.
pub struct Engine {
    store: Arc<dyn Store>,
    keys: KeyRing,
    random: Arc<dyn Random>,
    passwords: Passwords,
    settings: Settings,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("keys", &self.keys).field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Why an engine could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store's sessions were signed with other keys: with these every one of them would be refused.
    #[error("the store belongs to other keys than the ones given: every session in it would be refused")]
    ForeignKeys,
    /// The parameters of the password hash are out of range.
    #[error(transparent)]
    Hashing(#[from] HashingError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A fresh session with the account it belongs to and the token to hand out.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// Who signed in.
    pub account: Account,
    /// The first token of the new session.
    pub credentials: Credentials,
}

impl Engine {
    /// An engine over `store`, which has to belong to `keys` (or to none yet).
    ///
    /// # Errors
    /// [`EngineError`]: foreign keys, impossible hashing parameters, or the store failed.
    pub async fn open(
        store: Arc<dyn Store>,
        keys: KeyRing,
        random: Arc<dyn Random>,
        settings: Settings,
    ) -> Result<Self, EngineError> {
        let passwords = Passwords::new(&settings.hashing, settings.bcrypt_pepper.clone(), Arc::clone(&random))?;
        match store.bind_keys(&keys.fingerprints()).await? {
            KeyBinding::Bound => Ok(Self { store, keys, random, passwords, settings }),
            KeyBinding::Foreign => Err(EngineError::ForeignKeys),
        }
    }

    /// What it was made with.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How busy the password checks are.
    #[must_use]
    pub fn hashing_load(&self) -> HashingLoad {
        self.passwords.load()
    }

    /// Whether the store can be read and written right now.
    ///
    /// # Errors
    /// [`StoreError`] saying why not.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.store.check().await
    }

    /// Removes up to `limit` sessions that have expired; how many there were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        self.store.purge(limit).await
    }

    fn new_session(&self, device: Device) -> Result<NewSession, StoreError> {
        let mut id = [0; 16];
        self.random
            .fill(&mut id)
            .map_err(|error| StoreError::Unavailable { store: "random source", cause: Box::new(error) })?;
        Ok(NewSession {
            client: ClientId::from_bytes(id),
            renewal: self.settings.rules.renewal(),
            device,
            max_devices: self.settings.max_number_of_devices,
            if_password: None,
        })
    }

    fn credentials(&self, account: &Account, session: &Session) -> Credentials {
        Credentials {
            token: self.keys.derive(session.client, session.generation),
            client: session.client,
            uid: account.uid.clone(),
            expires_at: session.expires_at,
        }
    }
}
