//! The use cases of baton, each in a file of its own, over a [`Store`]: they know neither which store nor which web
//! framework.
//!
//! One request runs [`Engine::authenticate`] → handler → [`Engine::complete`]. Everything else ([`Engine::register`],
//! [`Engine::sign_in`], [`Engine::sign_out`], [`Engine::sessions`], …) happens rarely.

mod authenticate;
mod complete;
mod confirm;
mod courier;
mod devise;
mod events;
mod letters;
mod lockout;
mod passwords;
mod profile;
mod random;
mod redirects;
mod register;
mod reset;
mod sessions;
mod sign_in;
mod strength;
mod update;
mod visitor;

use std::sync::Arc;

use baton_core::letter::Mailer;
use baton_core::password::PasswordPolicy;
use baton_core::ports::KeyBinding;
use baton_core::session::{Device, NewSession};
use baton_core::wire::Credentials;
use baton_core::{Account, ClientId, KeyRing, Random, Rules, Session, Store, StoreError};
use tokio::sync::Notify;

pub use authenticate::{Attempt, AuthenticateError, Grant, Refusal};
pub use complete::Handover;
pub use confirm::{Confirmation, RedeemError};
pub use courier::{Delivered, WebhookError, WebhookSender, deliver};
pub use events::Webhook;
pub use letters::{LinkRequest, LinkRequestError};
pub use lockout::Lockout;
pub use passwords::{Hashing, HashingError, HashingLoad, PasswordError};
pub use profile::{FieldKind, InvalidProfileField, ProfileField};
pub use random::OsRandom;
pub use redirects::{InvalidRedirectPattern, Redirect, RedirectAllowlist, RedirectRefused};
pub use register::{FieldFaults, RegisterError, Registered, Registration, normalize_email};
pub use reset::{NewPassword, PasswordReset, ResetError};
pub use secrecy::SecretString;
pub use sessions::SessionView;
pub use sign_in::SignInError;
pub use strength::{Blocklist, BlocklistError, PasswordStrength};
pub use update::{AccountChange, CurrentPassword, UpdateError};
pub use visitor::Visitor;

use events::Reuses;
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
    /// Whether answers and their times are the same for addresses with an account and without one (ASVS 6.3.8), as Devise's
    /// setting of that name. `true` by default.
    pub paranoid: bool,
    /// The address of the auth routes as the outside world has it, such as `https://api.example.com/auth`: what links in
    /// letters begin with. Never taken from a request.
    pub public_url: String,
    /// Where links may lead on to.
    pub redirects: Redirects,
    /// Confirming addresses (Devise's `confirmable`).
    pub confirmation: Confirmation,
    /// Forgotten passwords (Devise's `recoverable`).
    pub reset: PasswordReset,
    /// When sign-ins are locked (Devise's `lockable`); never by default, since [rate limits] slow guessing down without it.
    ///
    /// [rate limits]: https://www.rfc-editor.org/rfc/rfc6585#section-4
    pub lockout: Option<Lockout>,
    /// Where events are posted to.
    pub webhooks: Vec<Webhook>,
    /// Whether anybody may register (Devise's `registerable`). `true` by default.
    pub registerable: bool,
}

/// Where links in letters may lead on to, with credentials in the URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redirects {
    /// What a request may ask for. Nothing by default.
    pub allowlist: RedirectAllowlist,
    /// Where a confirmation leads on to if nothing was asked for (`default_confirm_success_url`).
    pub default_confirm_success_url: Option<Redirect>,
    /// Where a password reset leads on to if nothing was asked for (`default_password_reset_url`).
    pub default_password_reset_url: Option<Redirect>,
    /// Where unlocking leads on to if nothing was asked for.
    pub default_unlock_success_url: Option<Redirect>,
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
            paranoid: true,
            public_url: String::new(),
            redirects: Redirects::default(),
            confirmation: Confirmation::default(),
            reset: PasswordReset::default(),
            lockout: None,
            webhooks: Vec::new(),
            registerable: true,
        }
    }
}

/// The use cases over one store.
pub struct Engine {
    store: Arc<dyn Store>,
    keys: KeyRing,
    random: Arc<dyn Random>,
    passwords: Arc<Passwords>,
    settings: Settings,
    mailer: Option<Arc<dyn Mailer>>,
    webhook_sender: Option<Arc<dyn WebhookSender>>,
    bell: Arc<Notify>,
    reuses: Reuses,
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
            KeyBinding::Bound => Ok(Self {
                store,
                keys,
                random,
                passwords: Arc::new(passwords),
                settings,
                mailer: None,
                webhook_sender: None,
                bell: Arc::default(),
                reuses: Reuses::default(),
            }),
            KeyBinding::Foreign => Err(EngineError::ForeignKeys),
        }
    }

    /// An engine for another realm of the same store, with the same keys, mailer, webhooks and bell. Both take turns at hashing
    /// passwords: what `settings` says about [`Settings::hashing`] and [`Settings::bcrypt_pepper`] has no effect.
    #[must_use]
    pub fn for_realm(&self, settings: Settings) -> Self {
        Self {
            store: Arc::clone(&self.store),
            keys: self.keys.clone(),
            random: Arc::clone(&self.random),
            passwords: Arc::clone(&self.passwords),
            settings,
            mailer: self.mailer.clone(),
            webhook_sender: self.webhook_sender.clone(),
            bell: Arc::clone(&self.bell),
            reuses: Reuses::default(),
        }
    }

    /// The same with somebody who sends letters. Without, nothing that needs a letter can be asked for, and nobody has to
    /// confirm an address.
    #[must_use]
    pub fn with_mailer(self, mailer: Arc<dyn Mailer>) -> Self {
        Self { mailer: Some(mailer), ..self }
    }

    /// The same with somebody who posts events to [`Settings::webhooks`].
    #[must_use]
    pub fn with_webhook_sender(self, sender: Arc<dyn WebhookSender>) -> Self {
        Self { webhook_sender: Some(sender), ..self }
    }

    /// The same with a bell that rings when there is something in the outbox: for whoever calls [`deliver`].
    #[must_use]
    pub fn with_bell(self, bell: Arc<Notify>) -> Self {
        Self { bell, ..self }
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

    /// Removes up to `limit` of each: sessions, one-time tokens and counts of attempts that have expired; how many there were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        self.store.purge(limit).await
    }

    fn new_session(&self, device: Device) -> Result<NewSession, StoreError> {
        Ok(NewSession {
            client: ClientId::from_bytes(self.draw()?),
            renewal: self.settings.rules.renewal(),
            device,
            max_devices: self.settings.max_number_of_devices,
            if_password: None,
        })
    }

    /// 128 random bits.
    fn draw(&self) -> Result<[u8; 16], StoreError> {
        let mut bytes = [0; 16];
        self.random
            .fill(&mut bytes)
            .map_err(|error| StoreError::Unavailable { store: "random source", cause: Box::new(error) })?;
        Ok(bytes)
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
