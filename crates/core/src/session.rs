//! The session record (DESIGN §2.1), the one conditional change that is ever made to it, and the account it belongs to.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::token::{ClientId, Generation};

/// Number of an account; unique over all realms of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub i64);

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One signed-in client of one account: all that the rotation rule looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session {
    /// Its name, and the protocol's `client` header.
    pub client: ClientId,
    /// Whose it is.
    pub account: AccountId,
    /// The newest token issued.
    pub generation: Generation,
    /// When a response last handed out the newest token to a request. `None` after sign-in: the first request rotates at
    /// once. The batch window is `[handed_out_at, handed_out_at + batch_request_buffer_throttle)`.
    pub handed_out_at: Option<Timestamp>,
    /// The highest generation ever presented, as far as the rule needs it: kept at every rotation, and in forgiving mode
    /// at every first use of a token.
    pub confirmed: Generation,
    /// Time of the sign-in. The absolute lifetime counts from here and rotation never extends it (ASVS 7.3.2).
    pub created_at: Timestamp,
    /// End of the idle lifetime: what the client is told as `expiry`. Never moves backwards.
    pub expires_at: Timestamp,
    /// When it was last written; the least recently used device is the one with the smallest value.
    pub last_seen_at: Timestamp,
}

impl Session {
    /// The record of a fresh sign-in.
    #[must_use]
    pub fn new(client: ClientId, account: AccountId, now: Timestamp, renewal: Renewal) -> Self {
        Self {
            client,
            account,
            generation: Generation::FIRST,
            handed_out_at: None,
            confirmed: Generation::ZERO,
            created_at: now,
            expires_at: renewal.expires_at(now, now, now),
            last_seen_at: now,
        }
    }

    /// What a [`Swap`] must find so as to change this record, for [`Swap::expect`].
    #[must_use]
    pub const fn version(&self) -> Version {
        Version { generation: self.generation, handed_out_at: self.handed_out_at, confirmed: self.confirmed }
    }

    /// This record after `swap` was made at `now`; `None` if it has moved on since `swap` was decided.
    ///
    /// This is the meaning of [`crate::Store::swap`]; every store has to agree with it.
    #[must_use]
    pub fn swapped(&self, swap: &Swap, now: Timestamp) -> Option<Self> {
        if self.version() != swap.expect {
            return None;
        }
        let mut next = self.clone();
        next.generation = swap.generation;
        next.confirmed = self.confirmed.max(swap.confirmed);
        next.last_seen_at = self.last_seen_at.max(now);
        if let Some(renewal) = swap.hand_out {
            next.handed_out_at = Some(now);
            next.expires_at = renewal.expires_at(self.created_at, self.expires_at, now);
        }
        Some(next)
    }
}

/// What identifies a state of a session, which is all that the rule looks at: a compare-and-set compares this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// See [`Session::generation`].
    pub generation: Generation,
    /// See [`Session::handed_out_at`].
    pub handed_out_at: Option<Timestamp>,
    /// See [`Session::confirmed`].
    pub confirmed: Generation,
}

/// How far handing out a token moves the end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Renewal {
    /// Idle lifetime, counted from the hand-out (`token_lifespan`).
    pub lifespan: Duration,
    /// Absolute lifetime, counted from the sign-in (`session_max_lifetime`).
    pub max_lifetime: Duration,
}

impl Renewal {
    /// The new `expires_at`: idle lifetime from `now`, under the absolute cap, and never before the `promised` one: two
    /// front-end clients throw a token away whose `expiry` is below the one they hold.
    #[must_use]
    pub fn expires_at(self, created_at: Timestamp, promised: Timestamp, now: Timestamp) -> Timestamp {
        now.plus(self.lifespan).min(created_at.plus(self.max_lifetime)).max(promised)
    }
}

/// The one conditional change of a session. It is made only if the record still is at `expect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Swap {
    /// The state it was decided on.
    pub expect: Version,
    /// `generation` becomes this; never less than `expect.generation`.
    pub generation: Generation,
    /// `confirmed` becomes at least this.
    pub confirmed: Generation,
    /// With `Some`, `handed_out_at` becomes the store's time of the write and `expires_at` moves on by the renewal.
    pub hand_out: Option<Renewal>,
}

impl Swap {
    /// Whether it hands out once more the token that the record is at. **A store must not forget it** once it has answered:
    /// a lost rotation shows when its token comes back, a lost resend leaves no trace, and the window that it opened would
    /// be closed again while its siblings are on their way.
    #[must_use]
    pub fn resends(&self) -> bool {
        self.hand_out.is_some() && self.generation == self.expect.generation
    }

    /// Whether it moves the generation up to a token that the store had forgotten.
    #[must_use]
    pub fn heals(&self) -> bool {
        self.generation > self.expect.generation && self.confirmed == self.generation
    }
}

/// A store's answer to a [`Swap`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Swapped {
    /// Made, at this time of the store.
    Done(Timestamp),
    /// Not made: the record is now this one.
    Moved(Session),
    /// Not made: there is no such session (any more).
    Gone,
}

/// Who is signed in. Carries no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub id: AccountId,
    /// The kind of account (DTA's resource class), such as `user`. A token of one realm is worthless in another.
    pub realm: String,
    /// How it signs in; `email` for a password account.
    pub provider: String,
    /// Its name within realm and provider, which the client sends as `uid`.
    pub uid: String,
    /// E-mail address, trimmed and in lower case.
    pub email: String,
    /// The declared profile fields.
    pub profile: Profile,
    /// Who may set a password without knowing the current one: whoever followed a reset link.
    pub permit: Option<Permit>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Leave to set a password once without knowing the current one: for one session and for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// The session.
    pub client: ClientId,
    /// From when on it is void.
    pub until: Timestamp,
}

/// Profile fields (`name`, `nickname`, `image`, …) as the text of a JSON object. Kept as text because a request that only
/// wants to know who is there should not pay for parsing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile(String);

impl Profile {
    /// From its fields.
    #[must_use]
    pub fn from_fields(fields: &serde_json::Map<String, serde_json::Value>) -> Self {
        Self(serde_json::Value::Object(fields.clone()).to_string())
    }

    /// From what a store kept.
    #[must_use]
    pub const fn from_stored(json: String) -> Self {
        Self(json)
    }

    /// As a store keeps it.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// The fields. A stored text that is no object reads as one without fields.
    #[must_use]
    pub fn fields(&self) -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self("{}".to_owned())
    }
}

/// An account to be made.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// See [`Account::realm`].
    pub realm: String,
    /// See [`Account::provider`].
    pub provider: String,
    /// See [`Account::uid`].
    pub uid: String,
    /// See [`Account::email`].
    pub email: String,
    /// See [`Account::profile`].
    pub profile: Profile,
    /// Hash of the password.
    pub password: PasswordHash,
}

impl NewAccount {
    /// The account that a store makes of it, and the hash that goes with it.
    #[must_use]
    pub fn made(self, id: AccountId, now: Timestamp) -> (Account, PasswordHash) {
        let Self { realm, provider, uid, email, profile, password } = self;
        let (permit, created_at, updated_at) = (None, now, now);
        let account = Account { id, realm, provider, uid, email, profile, permit, created_at, updated_at };
        (account, password)
    }
}

/// A session to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Its name, freshly drawn.
    pub client: ClientId,
    /// Its lifetimes.
    pub renewal: Renewal,
    /// Where it comes from.
    pub device: Device,
    /// How many sessions the account may have, this one counted; at least 1. The least recently used ones beyond it end.
    pub max_devices: u32,
    /// It is opened only if the account's password hash still is this one: a sign-in with the old password that was checked
    /// just before a password change must not outlive it. `None`: whatever the password.
    pub if_password: Option<PasswordHash>,
}

/// A change of an account. What is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct AccountUpdate {
    /// See [`Account::uid`].
    pub uid: Option<String>,
    /// See [`Account::email`].
    pub email: Option<String>,
    /// See [`Account::profile`].
    pub profile: Option<Profile>,
    /// An address that is to become the account's when it has been confirmed; `Some(None)` forgets about it.
    pub unconfirmed_email: Option<Option<String>>,
    /// Whether the address is confirmed with the change, if it was not before.
    pub confirm: bool,
    /// Hash of a new password. Setting one takes the [`Account::permit`] back.
    pub password: Option<PasswordHash>,
    /// Leave to set a password.
    pub permit: Option<Permit>,
    /// Whether all one-time tokens of the account become void: those sent to an address that is the account's no more, or
    /// while somebody else had its password.
    pub void_one_time: bool,
    /// The change is made only if the password hash still is this one.
    pub if_password: Option<PasswordHash>,
    /// Sessions that end with the change, in the same step.
    pub end: EndSessions,
}

/// Which sessions a change of an account ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndSessions {
    /// None.
    #[default]
    None,
    /// All but the one that made the change (ASVS 7.4.3).
    AllBut(ClientId),
    /// All.
    All,
}

impl EndSessions {
    /// Whether this session of the account goes on.
    #[must_use]
    pub fn keeps(self, client: ClientId) -> bool {
        match self {
            Self::None => true,
            Self::AllBut(kept) => client == kept,
            Self::All => false,
        }
    }
}

/// Where a session comes from, for the list of devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// The `User-Agent` at sign-in, cut to 512 bytes.
    pub user_agent: Option<String>,
    /// The address that it was last seen from.
    pub ip: Option<IpAddr>,
}

/// A hash in PHC or modular crypt form (`$argon2id$…`, `$2a$…`). `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Zeroizing<String>);

impl PasswordHash {
    /// From its text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Its text, for a store or a verifier.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}
