//! Forgotten passwords (Devise's `recoverable`; ASVS 6.4.3, 6.6.3).

use std::time::Duration;

use baton_core::event::{EventKind, Trace};
use baton_core::letter::Occasion;
use baton_core::one_time::Purpose;
use baton_core::ports::FoundOneTime;
use baton_core::session::{AccountUpdate, EndSessions, Permit};
use baton_core::{Account, ClientId, StoreError};
use secrecy::SecretString;

use crate::confirm::RedeemError;
use crate::letters::{LinkRequest, LinkRequestError, named};
use crate::passwords::PasswordError;
use crate::register::FieldFaults;
use crate::visitor::Visitor;
use crate::{Engine, SignedIn};

/// Resetting passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordReset {
    /// How long a link is good; 1 hour by default.
    pub lifetime: Duration,
    /// For how long the session that a link opens may set a password without the one so far; 15 minutes by default.
    pub permit_lifetime: Duration,
    /// Whether the link hands the front end its token instead of a session (`require_client_password_reset_token`): no
    /// credentials in a URL, and a link that a mail scanner opens is not used up. Off by default, as most front ends expect.
    pub require_client_token: bool,
}

impl Default for PasswordReset {
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        Self { lifetime: 60 * MINUTE, permit_lifetime: 15 * MINUTE, require_client_token: false }
    }
}

/// A new password as typed.
#[derive(Debug, Clone, Default)]
pub struct NewPassword {
    /// The password.
    pub password: SecretString,
    /// The password again; may be left out.
    pub confirmation: Option<SecretString>,
}

/// Why a password was not reset.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// The token is not good (any more).
    #[error("the token is not good (any more)")]
    Token,
    /// The password cannot be used. The token stays good.
    #[error("invalid fields")]
    Invalid(FieldFaults),
    /// It could not be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<RedeemError> for ResetError {
    fn from(error: RedeemError) -> Self {
        match error {
            RedeemError::Invalid => Self::Token,
            RedeemError::Store(error) => Self::Store(error),
        }
    }
}

impl Engine {
    /// Asks for a letter with a link that leads to a new password.
    ///
    /// # Errors
    /// [`LinkRequestError`].
    pub async fn request_password_reset(&self, request: LinkRequest) -> Result<(), LinkRequestError> {
        let default = &self.settings.redirects.default_password_reset_url;
        if default.is_none() && named(request.redirect_url.as_deref()).is_none() {
            return Err(LinkRequestError::NoRedirect);
        }
        self.ask(Occasion::ResetPassword, request).await
    }

    /// Whether a reset token is good. It stays so.
    ///
    /// # Errors
    /// [`RedeemError`] if it is not.
    pub async fn check_reset_token(&self, token: &str) -> Result<(), RedeemError> {
        self.find_one_time(Purpose::Reset, token).await.map(drop)
    }

    /// Redeems a reset token for a session that may set a password without the one so far. The address counts as confirmed:
    /// its mail was read.
    ///
    /// # Errors
    /// [`RedeemError`].
    pub async fn open_password_reset(&self, token: &str, visitor: &Visitor) -> Result<SignedIn, RedeemError> {
        let FoundOneTime { one_time, login, now } = self.find_one_time(Purpose::Reset, token).await?;
        let session = self.new_session(visitor.device.clone())?;
        let mut trace = Trace::default();
        self.add_sign_in(&mut trace, &login.account, session.client, visitor);
        let permit = Permit { client: session.client, until: now.plus(self.settings.reset.permit_lifetime) };
        let update = AccountUpdate { permit: Some(permit), confirm: true, ..AccountUpdate::default() };
        self.open_session(one_time.id, update, session, trace).await
    }

    /// Redeems a reset token for a new password, and signs in. All other sessions end (ASVS 7.4.3), unless
    /// [`crate::Settings::remove_tokens_after_password_reset`] is off.
    ///
    /// # Errors
    /// [`ResetError`].
    pub async fn reset_password(
        &self,
        token: &str,
        new: NewPassword,
        visitor: &Visitor,
    ) -> Result<SignedIn, ResetError> {
        let FoundOneTime { one_time, login, .. } = self.find_one_time(Purpose::Reset, token).await?;
        let account = login.account;
        let mut faults = FieldFaults::default();
        self.check_password(&new.password, new.confirmation.as_ref(), &mut faults);
        self.check_strength(&new.password, &account.email, &account.profile.fields(), &mut faults).await?;
        if !faults.is_empty() {
            return Err(ResetError::Invalid(faults));
        }
        let hash = self.passwords.hash(new.password).await?;

        let session = self.new_session(visitor.device.clone())?;
        let mut trace = Trace::default();
        self.add_password_change(&mut trace, &account, None, visitor);
        self.add_sign_in(&mut trace, &account, session.client, visitor);
        let ends = self.settings.remove_tokens_after_password_reset;
        let update = AccountUpdate {
            password: Some(hash),
            confirm: true,
            end: if ends { EndSessions::All } else { EndSessions::None },
            unconfirmed_email: Some(None),
            void_one_time: true,
            ..AccountUpdate::default()
        };
        Ok(self.open_session(one_time.id, update, session, trace).await?)
    }

    /// What a new password leaves behind: an event, and a notice to the owner (ASVS 6.3.7).
    pub(crate) fn add_password_change(
        &self,
        trace: &mut Trace,
        account: &Account,
        client: Option<ClientId>,
        visitor: &Visitor,
    ) {
        self.add_event(trace, self.event_of(EventKind::PasswordChanged, account, client, &visitor.device));
        trace.mails.extend(self.notice(Occasion::PasswordChanged, account, visitor));
    }
}
