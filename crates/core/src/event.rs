//! What happens to accounts, as typed events (ASVS 16.3.1), and what a change leaves behind besides itself.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::letter::MailOrder;
use crate::session::{AccountId, Device};
use crate::token::ClientId;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it; those that do not have a line of their own")]
pub enum EventKind {
    Registered,
    SignedIn,
    /// The password was wrong, the account does not exist, is not confirmed or is locked.
    SignInFailed,
    SignedOut,
    /// A session was ended from another one.
    SessionEnded,
    /// A superseded token was presented: somebody has a copy of it, or a client went back to an old one.
    ReuseDetected,
    /// Too many sign-ins failed.
    Locked,
    Unlocked,
    PasswordResetRequested,
    /// By whoever is signed in, or with a reset token.
    PasswordChanged,
    /// The profile was changed.
    AccountChanged,
    /// To be confirmed by a letter to the new address.
    EmailChangeRequested,
    EmailChanged,
    /// The address was confirmed.
    Confirmed,
    AccountDeleted,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Registered,
        Self::SignedIn,
        Self::SignInFailed,
        Self::SignedOut,
        Self::SessionEnded,
        Self::ReuseDetected,
        Self::Locked,
        Self::Unlocked,
        Self::PasswordResetRequested,
        Self::PasswordChanged,
        Self::AccountChanged,
        Self::EmailChangeRequested,
        Self::EmailChanged,
        Self::Confirmed,
        Self::AccountDeleted,
    ];

    /// Its stable name, in logs, tables and webhooks.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::SignedIn => "signed_in",
            Self::SignInFailed => "sign_in_failed",
            Self::SignedOut => "signed_out",
            Self::SessionEnded => "session_ended",
            Self::ReuseDetected => "reuse_detected",
            Self::Locked => "locked",
            Self::Unlocked => "unlocked",
            Self::PasswordResetRequested => "password_reset_requested",
            Self::PasswordChanged => "password_changed",
            Self::AccountChanged => "account_changed",
            Self::EmailChangeRequested => "email_change_requested",
            Self::EmailChanged => "email_changed",
            Self::Confirmed => "confirmed",
            Self::AccountDeleted => "account_deleted",
        }
    }

    /// From [`as_str`](Self::as_str).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Something that happened. Carries no secret, and of what was typed only the name of an account that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// In which realm.
    pub realm: String,
    /// To which account. `None` if there is none, or, until the store has made it, none yet.
    pub account: Option<AccountId>,
    /// That account's uid at the time.
    pub uid: Option<String>,
    /// With which session.
    pub client: Option<ClientId>,
    /// From where.
    pub device: Device,
}

/// An event as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its number; those of later events are larger.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}

/// What a change leaves behind, in the same step as the change: either all of it is there or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// For the table of events. One without an account is given the account that the change made.
    pub events: Vec<Event>,
    /// Each event goes to each of these addresses, by way of the outbox.
    pub webhooks: Vec<String>,
    /// Letters to be written, by way of the outbox.
    pub mails: Vec<MailOrder>,
}

impl Trace {
    /// Nothing.
    pub const NONE: Self = Self { events: Vec::new(), webhooks: Vec::new(), mails: Vec::new() };

    /// Whether something of it is for the outbox.
    #[must_use]
    pub const fn posts(&self) -> bool {
        !self.mails.is_empty() || !self.events.is_empty() && !self.webhooks.is_empty()
    }
}

/// Something in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its number.
    pub id: i64,
    /// How often it was claimed, this time included.
    pub attempt: u32,
    /// When it was put there.
    pub created_at: Timestamp,
    /// What it is.
    pub body: MessageBody,
}

/// What is to go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageBody {
    /// A letter to be written.
    Mail(MailOrder),
    /// An event, to this address.
    Webhook(String, Recorded),
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is out, or will never be: the outbox forgets it.
    Done,
    /// It is due again after this time.
    Retry(Duration),
}
