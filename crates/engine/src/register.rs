//! A new account.

use baton_core::event::{EventKind, Trace};
use baton_core::letter::{MailOrder, Occasion};
use baton_core::password::PasswordFault;
use baton_core::session::NewAccount;
use baton_core::{Account, ClientId, CreateAccountError, StoreError};
use email_address::{EmailAddress, Options};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use crate::letters::leading_on;
use crate::passwords::PasswordError;
use crate::redirects::RedirectRefused;
use crate::visitor::Visitor;
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
    /// Where the confirmation leads on to (`confirm_success_url`).
    pub confirm_success_url: Option<String>,
    /// The front end's name for its configuration (`config_name`).
    pub config_name: Option<String>,
}

/// What became of a registration.
#[derive(Debug, Clone)]
pub enum Registered {
    /// The account was made and is signed in.
    SignedIn(SignedIn),
    /// A letter is on its way: to confirm the address, or to say that it has an account already. Which of them is not told
    /// where [`crate::Settings::paranoid`] is on; otherwise this is the new account.
    Pending(Option<Account>),
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
    /// The confirmation may not lead on to there.
    #[error(transparent)]
    Redirect(#[from] RedirectRefused),
    /// The password could not be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Makes an account. It is signed in at once, or when its address has been confirmed ([`crate::Confirmation::required`]).
    ///
    /// # Errors
    /// [`RegisterError::Invalid`] with all faults at once. An address that is taken is one of them, unless it has to be
    /// confirmed and nobody is to be told ([`crate::Settings::paranoid`]).
    pub async fn register(&self, form: Registration, visitor: &Visitor) -> Result<Registered, RegisterError> {
        let confirms = self.requires_confirmation();
        let redirect = if confirms { self.asked_redirect(form.confirm_success_url.as_deref())? } else { None };
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
        if !confirms {
            return self.register_and_sign_in(account, visitor).await.map(Registered::SignedIn);
        }
        let order = self.order(Occasion::ConfirmEmail, &account.uid, visitor);
        let mail = leading_on(order, redirect, form.config_name);
        self.register_unconfirmed(account, mail, visitor).await
    }

    async fn register_and_sign_in(&self, account: NewAccount, visitor: &Visitor) -> Result<SignedIn, RegisterError> {
        let session = self.new_session(visitor.device.clone())?;
        let trace = self.registered(&account, Some(session.client), visitor);
        match self.store.create_account(account, Some(session), &trace).await {
            Ok((account, Some(session))) => {
                self.left(&trace, Some(&account));
                Ok(SignedIn { credentials: self.credentials(&account, &session), account })
            }
            Ok((account, None)) => Err(RegisterError::Store(StoreError::Unusable {
                store: "accounts",
                cause: format!("account {} was made without its session", account.id).into(),
            })),
            Err(CreateAccountError::Taken) => Err(taken()),
            Err(CreateAccountError::Store(error)) => Err(error.into()),
        }
    }

    async fn register_unconfirmed(
        &self,
        account: NewAccount,
        mail: MailOrder,
        visitor: &Visitor,
    ) -> Result<Registered, RegisterError> {
        let notice = Trace { mails: vec![self.already_registered(&account, visitor)], ..Trace::default() };
        if self.settings.paranoid
            && self.store.find_login(&account.realm, &account.provider, &account.uid).await?.is_some()
        {
            // One read and one write, as for an address that is free.
            self.record(&notice).await?;
            return Ok(Registered::Pending(None));
        }
        let mut trace = self.registered(&account, None, visitor);
        trace.mails.push(mail);
        match self.store.create_account(account, None, &trace).await {
            Ok((account, _)) => {
                self.left(&trace, Some(&account));
                Ok(Registered::Pending((!self.settings.paranoid).then_some(account)))
            }
            Err(CreateAccountError::Taken) if self.settings.paranoid => {
                self.record(&notice).await?;
                Ok(Registered::Pending(None))
            }
            Err(CreateAccountError::Taken) => Err(taken()),
            Err(CreateAccountError::Store(error)) => Err(error.into()),
        }
    }

    fn registered(&self, account: &NewAccount, client: Option<ClientId>, visitor: &Visitor) -> Trace {
        let mut event = self.event(EventKind::Registered, client, &visitor.device);
        event.uid = Some(account.uid.clone());
        self.trace_of(event)
    }

    /// To somebody who may have forgotten about the account, or whose address was tried out.
    fn already_registered(&self, account: &NewAccount, visitor: &Visitor) -> MailOrder {
        let mut notice = self.order(Occasion::AlreadyRegistered, &account.uid, visitor);
        notice.to = Some(account.email.clone());
        notice
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

fn taken() -> RegisterError {
    let mut faults = FieldFaults::default();
    faults.add("email", "is already registered");
    RegisterError::Invalid(faults)
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
    let plain = email.len() <= 254 && EmailAddress::parse_with_options(email, options).is_ok_and(|it| is_plain(&it));
    if !plain {
        faults.add("email", "is not an e-mail address");
    }
}

/// Nobody has an address with a quoted part (`"a b"@c.de`) or a domain that is no name of a host (`b.cc?subject=x`), and no
/// letter gets there; but mail programs have found a second recipient or a header in such.
fn is_plain(email: &EmailAddress) -> bool {
    let hosts = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    !email.local_part().contains('"') && email.domain().chars().all(hosts)
}
