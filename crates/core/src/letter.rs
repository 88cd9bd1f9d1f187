//! Letters: what is written to people by e-mail. Pure data; how they read and how they travel is a [`Mailer`]'s affair.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::Cause;

/// The occasion of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Occasion {
    /// Somebody registered with this address: the link confirms it.
    ConfirmEmail,
    /// The account is to get this new address: the link confirms it.
    ConfirmNewEmail,
    /// To the address so far: a change to [`Letter::new_email`] was asked for. No link.
    EmailChangeRequested,
    /// To the address before: the account now has [`Letter::new_email`]. No link.
    EmailChanged,
    /// A password reset was asked for: the link leads to it.
    ResetPassword,
    /// The password was changed. No link.
    PasswordChanged,
    /// Too many sign-ins failed: the link unlocks the account.
    UnlockAccount,
    /// Somebody tried to register with an address that has an account. No link.
    AlreadyRegistered,
}

impl Occasion {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ConfirmEmail,
        Self::ConfirmNewEmail,
        Self::EmailChangeRequested,
        Self::EmailChanged,
        Self::ResetPassword,
        Self::PasswordChanged,
        Self::UnlockAccount,
        Self::AlreadyRegistered,
    ];

    /// Its name in files and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConfirmEmail => "confirm_email",
            Self::ConfirmNewEmail => "confirm_new_email",
            Self::EmailChangeRequested => "email_change_requested",
            Self::EmailChanged => "email_changed",
            Self::ResetPassword => "reset_password",
            Self::PasswordChanged => "password_changed",
            Self::UnlockAccount => "unlock_account",
            Self::AlreadyRegistered => "already_registered",
        }
    }

    /// From [`as_str`](Self::as_str).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|occasion| occasion.as_str() == name)
    }
}

/// One letter to one address. `Debug` hides the link, which holds a one-time token.
#[derive(Clone, PartialEq, Eq)]
pub struct Letter {
    /// Why it is written.
    pub occasion: Occasion,
    /// The kind of account.
    pub realm: String,
    /// The address.
    pub to: String,
    /// What to call the person, if the profile says so. Chosen by whoever registered: never to be trusted as markup.
    pub name: Option<String>,
    /// The languages that the person reads, as in `Accept-Language` (RFC 9110 §12.5.4); empty if not known.
    pub languages: String,
    /// Where to click, if the occasion has a link.
    pub link: Option<Zeroizing<String>>,
    /// How long the link is good, from now on.
    pub link_lifetime: Option<Duration>,
    /// The other address, on a change of it.
    pub new_email: Option<String>,
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letter").field("occasion", &self.occasion).field("realm", &self.realm).finish_non_exhaustive()
    }
}

/// A letter to be written when it is sent: with a link that is good from then on, and to an account as it is then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailOrder {
    /// Why.
    #[serde(with = "by_name")]
    pub occasion: Occasion,
    /// The account's realm.
    pub realm: String,
    /// The account's provider.
    pub provider: String,
    /// The account's uid. There need not be such an account: that is found out when the letter is written, so that asking
    /// for one takes the same time whether there is or not.
    pub uid: String,
    /// For a notice without a link: the address that it goes to, whatever has become of the account.
    pub to: Option<String>,
    /// See [`Letter::name`]; for a notice.
    pub name: Option<String>,
    /// See [`Letter::languages`].
    pub languages: String,
    /// See [`Letter::new_email`].
    pub new_email: Option<String>,
    /// Where the link leads on to; on the list of allowed ones when it was given.
    pub redirect_url: Option<String>,
    /// The front end's name for its configuration, handed back to it.
    pub config_name: Option<String>,
}

impl MailOrder {
    /// For a letter to the account of this name, with whatever it has to say by itself.
    #[must_use]
    pub fn new(occasion: Occasion, realm: &str, provider: &str, uid: &str) -> Self {
        Self {
            occasion,
            realm: realm.to_owned(),
            provider: provider.to_owned(),
            uid: uid.to_owned(),
            to: None,
            name: None,
            languages: String::new(),
            new_email: None,
            redirect_url: None,
            config_name: None,
        }
    }
}

mod by_name {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::Occasion;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
    pub(super) fn serialize<S: Serializer>(occasion: &Occasion, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(occasion.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Occasion, D::Error> {
        let name = String::deserialize(from)?;
        Occasion::parse(&name).ok_or_else(|| D::Error::custom("no such occasion"))
    }
}

/// Sends letters.
#[async_trait]
pub trait Mailer: Send + Sync {
    /// Hands a letter over to whoever delivers it. When this has returned, it is theirs.
    ///
    /// # Errors
    /// [`MailError::Later`] if another attempt may succeed, [`MailError::Never`] if none can.
    async fn send(&self, letter: &Letter) -> Result<(), MailError>;
}

/// A letter was not handed over. The causes name no address and no link.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The mail server is away, busy, or refuses for now.
    #[error("not sent yet: {0}")]
    Later(#[source] Cause),
    /// The mail server refuses this letter for good, or it cannot be written at all.
    #[error("cannot be sent: {0}")]
    Never(#[source] Cause),
}
