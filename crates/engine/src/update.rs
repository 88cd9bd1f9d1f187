//! Changes of an account by whoever is signed in to it.

use baton_core::event::{EventKind, Trace};
use baton_core::letter::Occasion;
use baton_core::ports::Login;
use baton_core::session::{AccountUpdate, EndSessions, PasswordHash, Profile};
use baton_core::{Account, StoreError, UpdateAccountError};
use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::Engine;
use crate::authenticate::Grant;
use crate::confirm::give_address;
use crate::letters::leading_on;
use crate::passwords::PasswordError;
use crate::redirects::RedirectRefused;
use crate::register::{FieldFaults, check_email, normalize_email};
use crate::visitor::Visitor;

/// What a person wants changed. What is absent stays as it is.
#[derive(Debug, Clone, Default)]
pub struct AccountChange {
    /// A new e-mail address as typed. It becomes the account's when it has been confirmed
    /// ([`crate::Confirmation::reconfirmable`]) or at once, and the uid too of an account that signs in with it.
    pub email: Option<String>,
    /// A new password.
    pub password: Option<SecretString>,
    /// The new password again; may be left out.
    pub password_confirmation: Option<SecretString>,
    /// The password so far. Checked whenever it is given; see [`CurrentPassword`] for when it has to be.
    pub current_password: Option<SecretString>,
    /// Profile fields; the ones not declared are dropped.
    pub profile: Map<String, Value>,
    /// Where the confirmation of a new address leads on to (`confirm_success_url`).
    pub confirm_success_url: Option<String>,
    /// The front end's name for its configuration (`config_name`).
    pub config_name: Option<String>,
}

/// Which changes take the current password (`check_current_password_before_update`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CurrentPassword {
    /// None: whoever finds a device unlocked can take the account over. The gem's default.
    Never,
    /// A change of the password (ASVS 6.2.3).
    #[default]
    Password,
    /// Every change.
    Attributes,
}

/// Why an account was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// Fields are missing or wrong.
    #[error("invalid fields")]
    Invalid(FieldFaults),
    /// The confirmation of the new address may not lead on to there.
    #[error(transparent)]
    Redirect(#[from] RedirectRefused),
    /// The account was deleted meanwhile.
    #[error("there is no such account")]
    Gone,
    /// A password could not be checked or hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Changes the account of an accepted request, all of it or nothing. With a new password all other sessions end
    /// (ASVS 7.4.3), unless [`crate::Settings::remove_tokens_after_password_reset`] is off; the one that asks goes on.
    ///
    /// # Errors
    /// [`UpdateError::Invalid`] with all faults at once; a wrong current password is one of them.
    pub async fn update_account(
        &self,
        grant: &Grant,
        change: AccountChange,
        visitor: &Visitor,
    ) -> Result<Account, UpdateError> {
        let account = grant.account();
        let mut faults = FieldFaults::default();
        let email = change.email.as_deref().map(normalize_email);
        if let Some(email) = &email {
            check_email(email, &mut faults);
        }
        if let Some(password) = &change.password {
            self.check_password(password, change.password_confirmation.as_ref(), &mut faults);
            let mut profile = account.profile.fields();
            profile.extend(change.profile.clone());
            let email = email.as_deref().unwrap_or(&account.email);
            self.check_strength(password, email, &profile, &mut faults).await?;
        }
        let profile = self.changed_profile(account, change.profile, &mut faults);
        let if_password =
            self.check_current(grant, change.current_password, change.password.is_some(), &mut faults).await?;
        let email = email.filter(|email| *email != account.email);
        let redirect = match &email {
            Some(_) if self.reconfirms() => self.asked_redirect(change.confirm_success_url.as_deref())?,
            _ => None,
        };
        if !faults.is_empty() {
            return Err(UpdateError::Invalid(faults));
        }

        let mut update = AccountUpdate { profile, if_password, ..AccountUpdate::default() };
        let mut trace = Trace::default();
        let client = Some(grant.session().client);
        let event = |kind| self.event_of(kind, account, client, &visitor.device);
        if update.profile.is_some() {
            self.add_event(&mut trace, event(EventKind::AccountChanged));
        }
        if let Some(password) = change.password {
            update.password = Some(self.passwords.hash(password).await?);
            // An address that somebody else may have asked for, and links that they may have.
            (update.unconfirmed_email, update.void_one_time) = (Some(None), true);
            if self.settings.remove_tokens_after_password_reset {
                update.end = EndSessions::AllBut(grant.session().client);
            }
            self.add_password_change(&mut trace, account, client, visitor);
        }
        if let Some(email) = email {
            update.void_one_time = true;
            if self.reconfirms() {
                self.add_event(&mut trace, event(EventKind::EmailChangeRequested));
                let notice = self.address_notice(Occasion::EmailChangeRequested, account, &email, visitor);
                let mut link = self.order(Occasion::ConfirmNewEmail, &account.uid, visitor);
                link.provider.clone_from(&account.provider);
                trace.mails.extend(notice.into_iter().chain([leading_on(link, redirect, change.config_name)]));
                update.unconfirmed_email = Some(Some(email));
            } else {
                self.add_event(&mut trace, event(EventKind::EmailChanged));
                trace.mails.extend(self.address_notice(Occasion::EmailChanged, account, &email, visitor));
                give_address(&mut update, account, email);
            }
        }
        match self.store.update_account(account.id, update, &trace).await {
            Ok(changed) => {
                self.left(&trace, None);
                Ok(changed)
            }
            Err(UpdateAccountError::Gone) => Err(UpdateError::Gone),
            Err(UpdateAccountError::Overtaken) => {
                faults.add("current_password", WRONG);
                Err(UpdateError::Invalid(faults))
            }
            Err(UpdateAccountError::Taken) => {
                faults.add("email", "is already registered");
                Err(UpdateError::Invalid(faults))
            }
            Err(UpdateAccountError::Store(error)) => Err(error.into()),
        }
    }

    /// The hash that the change is made on: that which the current password was found to fit, if it was given.
    async fn check_current(
        &self,
        grant: &Grant,
        given: Option<SecretString>,
        changes_password: bool,
        faults: &mut FieldFaults,
    ) -> Result<Option<PasswordHash>, UpdateError> {
        let account = grant.account();
        let needed = match self.settings.check_current_password_before_update {
            CurrentPassword::Never => false,
            CurrentPassword::Password => changes_password,
            CurrentPassword::Attributes => true,
        };
        let Some(given) = given else {
            if !needed {
                return Ok(None);
            }
            if changes_password && grant.may_set_password() {
                // Once, and on the password that the leave was given for: whoever sets another one meanwhile takes it back.
                let login = self.login_of(account).await?;
                if login.account.permit == account.permit {
                    return Ok(Some(login.password));
                }
            }
            faults.add("current_password", "can't be blank");
            return Ok(None);
        };
        let login = self.login_of(account).await?;
        if !self.passwords.verify(given, Some(&login.password)).await? {
            faults.add("current_password", WRONG);
        }
        Ok(Some(login.password))
    }

    async fn login_of(&self, account: &Account) -> Result<Login, UpdateError> {
        let login = self.store.find_login(&account.realm, &account.provider, &account.uid).await?;
        login.filter(|login| login.account.id == account.id).ok_or(UpdateError::Gone)
    }

    /// `None` if nothing of it is given: then it is not written either, and a change made beside this one stays.
    fn changed_profile(
        &self,
        account: &Account,
        given: Map<String, Value>,
        faults: &mut FieldFaults,
    ) -> Option<Profile> {
        let changes = self.profile_fields(given, faults);
        if changes.is_empty() {
            return None;
        }
        let mut fields = account.profile.fields();
        fields.extend(changes);
        Some(Profile::from_fields(&fields))
    }
}

const WRONG: &str = "is not the current password";
