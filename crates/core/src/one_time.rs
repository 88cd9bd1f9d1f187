//! One-time tokens: what a link in a letter carries (ASVS 6.4.1, 6.5.1, 6.6.3).
//!
//! Derived like access tokens and for the same reasons: 33 bytes, written as 44 characters of base64url.
//!
//! ```text
//! byte 0        version (high nibble, 2) and key id (low nibble, 0..=15)
//! bytes 1-16    id: 128 random bits
//! bytes 17-32   HMAC-SHA-256(key, "baton one-time token v1" ‖ byte 0 ‖ purpose ‖ id), first 128 bits
//! ```
//!
//! A store keeps the id, whose it is and until when. So a copy of it holds nothing that can be presented, a forged token is
//! turned away before any I/O, and a letter that is to carry one can wait in the store without it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::session::AccountId;
use crate::token::{KeyRing, MAC_LEN, Token, TokenError, decode_exact};

const VERSION: u8 = 2;
const CONTEXT: &[u8] = b"baton one-time token v1";
const LEN: usize = 1 + 16 + MAC_LEN;
/// Length of a one-time token in characters.
pub const ONE_TIME_CHARS: usize = 44;

/// What a one-time token is good for; for anything else it is as good as forged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// To show that its bearer reads the mail of an address.
    Confirm,
    /// To set a new password without the old one.
    Reset,
    /// To lift a lock.
    Unlock,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Confirm, Self::Reset, Self::Unlock];

    /// As a store keeps it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Reset => "reset",
            Self::Unlock => "unlock",
        }
    }

    /// From [`as_str`](Self::as_str).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == name)
    }
}

/// Names a one-time token: 128 random bits. Not a secret, since without its MAC it cannot be presented.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OneTimeId([u8; 16]);

impl OneTimeId {
    /// From 16 random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// As a store keeps it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for OneTimeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OneTimeId({})", URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// A one-time token as a store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneTime {
    /// Its name.
    pub id: OneTimeId,
    /// Whose it is.
    pub account: AccountId,
    /// What it is good for.
    pub purpose: Purpose,
    /// The address that it was sent to, and whose mail its bearer therefore reads.
    pub email: String,
    /// From when on it is good for nothing.
    pub expires_at: Timestamp,
}

impl KeyRing {
    /// The one-time token of this id. The same input always gives the same token.
    #[must_use]
    pub fn derive_one_time(&self, purpose: Purpose, id: OneTimeId) -> Token {
        let entry = self.signing();
        let head = VERSION << 4 | entry.id();
        let mut bytes = Zeroizing::new([0; LEN]);
        bytes[0] = head;
        bytes[1..17].copy_from_slice(&id.0);
        bytes[17..].copy_from_slice(&entry.mac::<MAC_LEN>(&[CONTEXT, &[head], purpose.as_str().as_bytes(), &id.0]));
        Token::from_text(URL_SAFE_NO_PAD.encode(*bytes))
    }

    /// Whether `token` was made for this purpose by a key of this ring, and which one it is. Compares in constant time and
    /// does no I/O. Whether it is still good is for the store to say.
    ///
    /// # Errors
    /// [`TokenError`]: malformed, signed by a key not in the ring, or forged.
    pub fn verify_one_time(&self, purpose: Purpose, token: &str) -> Result<OneTimeId, TokenError> {
        let mut bytes = Zeroizing::new([0; LEN]);
        if !decode_exact(token, ONE_TIME_CHARS, bytes.as_mut_slice()) || bytes[0] >> 4 != VERSION {
            return Err(TokenError::Malformed);
        }
        let head = bytes[0];
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[1..17]);
        let entry = self.named(head & 0x0f)?;
        let expected = entry.mac::<MAC_LEN>(&[CONTEXT, &[head], purpose.as_str().as_bytes(), &id]);
        if bool::from(expected.ct_eq(&bytes[17..])) { Ok(OneTimeId(id)) } else { Err(TokenError::Forged) }
    }
}
