//! A new account.

use baton_core::password::PasswordFault;
use baton_core::session::{Device, NewAccount};
use baton_core::{CreateAccountError, StoreError};
use email_address::{EmailAddress, Options};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use crate::passwords::PasswordError;
use crate::{Engine, SignedIn};

/// What a person fills in.
#[derive(Debug, Clone, Default)]
pub struct Registration {
    /// E-mail address as typed.
    pub email: Option<String>,
    /// The password.
    pub password: Option<SecretString>,
    /// The password again; may be left out.
    pub password_confirmation: Option<SecretString>,
    /// Profile fields; the ones not declared are dropped.
    pub profile: Map<String, Value>,
}

/// What is wrong with the fields of a form, in the order in which it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldFaults(Vec<(String, String)>);

impl FieldFaults {
    pub(crate) fn add(&mut self, field: &str, fault: impl ToString) {
        self.0.push((field.to_owned(), fault.to_string()));
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether anything is wrong with this field.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        self.0.iter().any(|(faulty, _)| faulty == field)
    }

    /// Field and what is wrong with it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(field, fault)| (field.as_str(), fault.as_str()))
    }
}

/// Why an account was not made.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Fields are missing or wrong.
    #[error("invalid fields")]
    Invalid(FieldFaults),
    /// The password could not be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Makes an account and signs it in.
    ///
    /// # Errors
    /// [`RegisterError::Invalid`] with all faults at once; an address that is taken is one of them, and is found only after
    /// the password was hashed.
    pub async fn register(&self, form: Registration, device: Device) -> Result<SignedIn, RegisterError> {
        let email = form.email.as_deref().map(normalize_email).unwrap_or_default();
        let mut faults = FieldFaults::default();
        check_email(&email, &mut faults);
        let password = form.password.unwrap_or_default();
        self.check_password(&password, form.password_confirmation.as_ref(), &mut faults);
        self.check_strength(&password, &email, &form.profile, &mut faults).await?;
        let profile = self.new_profile(form.profile, &mut faults);
        if !faults.is_empty() {
            return Err(RegisterError::Invalid(faults));
        }

        let account = NewAccount {
            realm: self.settings.realm.clone(),
            provider: EMAIL_PROVIDER.into(),
            uid: email.clone(),
            email,
            profile,
            password: self.passwords.hash(password).await?,
        };
        match self.store.create_account(account, Some(self.new_session(device)?)).await {
            Ok((account, Some(session))) => {
                tracing::info!(account = %account.id, client = %session.client, "registered");
                Ok(SignedIn { credentials: self.credentials(&account, &session), account })
            }
            Ok((account, None)) => Err(RegisterError::Store(StoreError::Unusable {
                store: "accounts",
                cause: format!("account {} was made without its session", account.id).into(),
            })),
            Err(CreateAccountError::Taken) => {
                faults.add("email", "is already registered");
                Err(RegisterError::Invalid(faults))
            }
            Err(CreateAccountError::Store(error)) => Err(error.into()),
        }
    }

    pub(crate) fn check_password(
        &self,
        password: &SecretString,
        again: Option<&SecretString>,
        faults: &mut FieldFaults,
    ) {
        let password = password.expose_secret();
        if let Err(fault) = self.settings.password_policy.check(password) {
            faults.add("password", fault);
        }
        if again.is_some_and(|again| again.expose_secret() != password) {
            faults.add("password_confirmation", "doesn't match the password");
        }
    }
}

/// The provider of an account that signs in with e-mail and password.
pub(crate) const EMAIL_PROVIDER: &str = "email";

/// The form in which addresses are kept and compared: trimmed, in lower case.
#[must_use]
pub fn normalize_email(typed: &str) -> String {
    typed.trim().to_lowercase()
}

pub(crate) fn check_email(email: &str, faults: &mut FieldFaults) {
    if email.is_empty() {
        faults.add("email", PasswordFault::Blank);
        return;
    }
    // As in the gem, a host name alone is taken for a typo.
    let options = Options::default().without_display_text().without_domain_literal().with_required_tld();
    if email.len() > 254 || EmailAddress::parse_with_options(email, options).is_err() {
        faults.add("email", "is not an e-mail address");
    }
}
