//! Tokens are derived, not drawn and stored (DESIGN §2.2).
//!
//! A token is 21 bytes, written as 28 characters of base64url:
//!
//! ```text
//! byte 0       version (high nibble, 1) and key id (low nibble, 0..=15)
//! bytes 1-4    generation, big endian
//! bytes 5-20   HMAC-SHA-256(key, "baton access token v1" ‖ byte 0 ‖ client ‖ generation), first 128 bits
//! ```
//!
//! Nothing of it is kept in a database: a copy of the database holds nothing that can be presented, a forged token is
//! turned away before any I/O, and a superseded one is *known* to be genuine however old it is.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

const VERSION: u8 = 1;
const CONTEXT: &[u8] = b"baton access token v1";
const PSEUDONYM_CONTEXT: &[u8] = b"baton pseudonym v1";
const FINGERPRINT_CONTEXT: &[u8] = b"baton key fingerprint v1";
pub(crate) const MAC_LEN: usize = 16;
const TOKEN_LEN: usize = 1 + 4 + MAC_LEN;
/// Length of a token in characters.
pub const TOKEN_CHARS: usize = 28;
/// Length of a client id in characters.
pub const CLIENT_CHARS: usize = 22;
/// Length of a key in bytes.
pub const KEY_LEN: usize = 32;

/// The number of a token within its session; 1 at sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u32);

impl Generation {
    /// "None yet": what `confirmed` holds until the first token is presented. Never signed.
    pub const ZERO: Self = Self(0);
    /// The token of the sign-in.
    pub const FIRST: Self = Self(1);

    /// From its number, as a store keeps it.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The one after this; `None` at the end of the range (2³²−1 rotations).
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// Whether this is the one just before `later`.
    #[must_use]
    pub fn precedes(self, later: Self) -> bool {
        self.next() == Some(later)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The protocol's `client`: 128 random bits that name a session; 22 characters of base64url. Not a secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId([u8; 16]);

impl ClientId {
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

    /// The protocol's text: 22 characters of base64url.
    #[must_use]
    pub fn encoded(&self) -> [u8; CLIENT_CHARS] {
        let mut text = [0; CLIENT_CHARS];
        // There is room for exactly that, so it cannot fail.
        let _ = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text);
        text
    }

    /// From the protocol's text; `None` unless it is exactly 22 characters of canonical base64url.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        decode_exact(text, CLIENT_CHARS, &mut bytes).then_some(Self(bytes))
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.encoded()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({self})")
    }
}

/// A token in the form in which it travels. `Debug` hides it, and it is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

impl Token {
    pub(crate) fn from_text(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The 28 characters. This is the secret: it belongs in a response and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Proof that a token of this client and generation was issued with a key of the ring. Only [`KeyRing::verify`] makes
/// one, so the rule cannot be asked about a token whose MAC nobody checked (S5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Genuine {
    client: ClientId,
    generation: Generation,
}

impl Genuine {
    /// The session that the token names.
    #[must_use]
    pub const fn client(&self) -> ClientId {
        self.client
    }

    /// The generation that the token carries.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }
}

/// Why a string is not a token of ours. Nothing was read from a store to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not 28 characters of base64url, or of a version that this build does not know.
    #[error("not a token")]
    Malformed,
    /// Signed with a key that is not in the ring (any more).
    #[error("signed with key {0}, which is not in the ring")]
    UnknownKey(u8),
    /// The MAC does not belong to this client and generation.
    #[error("the signature does not fit")]
    Forged,
}

/// One secret of the ring.
#[derive(Clone)]
pub struct Key {
    id: u8,
    secret: Zeroizing<[u8; KEY_LEN]>,
}

impl Key {
    /// A key with its id.
    ///
    /// # Errors
    /// [`KeyRingError::IdOutOfRange`] unless `id` is 0..=15.
    pub fn new(id: u8, secret: [u8; KEY_LEN]) -> Result<Self, KeyRingError> {
        if id > 0x0f {
            return Err(KeyRingError::IdOutOfRange(id.to_string()));
        }
        Ok(Self { id, secret: Zeroizing::new(secret) })
    }

    /// Its id, 0..=15: what a token names it by.
    #[must_use]
    pub const fn id(&self) -> u8 {
        self.id
    }

    /// The line of a key file that [`KeyRing::parse`] reads. This is the secret.
    #[must_use]
    pub fn to_line(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(*self.secret));
        Zeroizing::new(format!("{} {}", self.id, *secret))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, ..)", self.id)
    }
}

/// The server's keys: the first one signs, all of them verify. Kept outside the database.
///
/// To change the key, put a new one in front and keep the old one until `token_lifespan` has passed; clients move over at
/// their next rotation.
#[derive(Clone)]
pub struct KeyRing {
    /// In the order given: the first signs. A key has been mixed into its HMAC state once, here, and not per token.
    entries: Vec<Entry>,
}

#[derive(Clone)]
pub(crate) struct Entry {
    id: u8,
    mac: Hmac<Sha256>,
}

/// Why a ring of keys cannot be used. Never shows a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// There is no key at all.
    #[error("no key given")]
    Empty,
    /// A key id is not a number from 0 to 15.
    #[error("key id {0:?} is not a number from 0 to 15")]
    IdOutOfRange(String),
    /// Two keys have the same id.
    #[error("key id {0} is given twice")]
    DuplicateId(u8),
    /// A line is not `ID KEY`.
    #[error("line {0}: expected a key id (0 to 15), a space, and 32 bytes as 43 characters of base64url")]
    Malformed(usize),
    /// A key without any randomness in it, such as 32 equal bytes.
    #[error("key {0} is not random: all its bytes are equal")]
    Weak(u8),
}

impl KeyRing {
    /// A ring of these keys; the first one signs.
    ///
    /// # Errors
    /// When there is none, when an id occurs twice, or when a key is a run of equal bytes.
    pub fn new(keys: Vec<Key>) -> Result<Self, KeyRingError> {
        let mut entries: Vec<Entry> = Vec::with_capacity(keys.len());
        for key in keys {
            if entries.iter().any(|entry| entry.id == key.id) {
                return Err(KeyRingError::DuplicateId(key.id));
            }
            if key.secret.iter().all(|byte| *byte == key.secret[0]) {
                return Err(KeyRingError::Weak(key.id));
            }
            entries.push(Entry { id: key.id, mac: keyed(&key.secret) });
        }
        if entries.is_empty() { Err(KeyRingError::Empty) } else { Ok(Self { entries }) }
    }

    /// Reads a key file: one `ID KEY` a line (`0 q1…`, base64url), the signing key first; blank lines and `#` comments are
    /// passed over.
    ///
    /// # Errors
    /// As [`KeyRing::new`], and [`KeyRingError::Malformed`] with the number of a line that cannot be read.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        Self::new(parse_keys(text)?)
    }

    /// The token of this generation of this session. The same input always gives the same token.
    #[must_use]
    pub fn derive(&self, client: ClientId, generation: Generation) -> Token {
        let entry = self.signing();
        let head = VERSION << 4 | entry.id;
        let mut bytes = Zeroizing::new([0; TOKEN_LEN]);
        bytes[0] = head;
        bytes[1..5].copy_from_slice(&generation.0.to_be_bytes());
        bytes[5..].copy_from_slice(&entry.mac_of(head, client, generation));
        Token::from_text(URL_SAFE_NO_PAD.encode(*bytes))
    }

    /// Whether `token` was issued for `client` by a key of this ring, and which generation it is. Compares in constant
    /// time and does no I/O.
    ///
    /// # Errors
    /// [`TokenError`]: malformed, signed by a key not in the ring, or forged.
    pub fn verify(&self, client: ClientId, token: &str) -> Result<Genuine, TokenError> {
        let mut bytes = Zeroizing::new([0; TOKEN_LEN]);
        if !decode_exact(token, TOKEN_CHARS, bytes.as_mut_slice()) || bytes[0] >> 4 != VERSION {
            return Err(TokenError::Malformed);
        }
        let head = bytes[0];
        let generation = Generation(u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]));
        let entry = self.named(head & 0x0f)?;
        let expected = entry.mac_of(head, client, generation);
        if bool::from(expected.ct_eq(&bytes[5..])) && generation > Generation::ZERO {
            Ok(Genuine { client, generation })
        } else {
            Err(TokenError::Forged)
        }
    }

    /// One short, public name per key, in the ring's order, by which a store can notice that it was opened with keys that
    /// are not its own. A fingerprint tells nothing about the key.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<String> {
        self.entries.iter().map(Entry::fingerprint).collect()
    }

    /// A name for a text that tells nothing about it to somebody without the key. With another signing key it is another.
    #[must_use]
    pub fn pseudonym(&self, parts: &[&str]) -> [u8; 16] {
        let lengths: Vec<[u8; 8]> = parts.iter().map(|part| (part.len() as u64).to_be_bytes()).collect();
        // With its length before each part, no two lists of parts read the same.
        let framed = lengths.iter().zip(parts).flat_map(|(length, part)| [length.as_slice(), part.as_bytes()]);
        let input: Vec<&[u8]> = std::iter::once(PSEUDONYM_CONTEXT).chain(framed).collect();
        self.signing().mac(&input)
    }

    pub(crate) fn signing(&self) -> &Entry {
        // `new` lets no empty ring through.
        &self.entries[0]
    }

    pub(crate) fn named(&self, id: u8) -> Result<&Entry, TokenError> {
        self.entries.iter().find(|entry| entry.id == id).ok_or(TokenError::UnknownKey(id))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| entry.id)).finish()
    }
}

impl Entry {
    pub(crate) const fn id(&self) -> u8 {
        self.id
    }

    fn mac_of(&self, head: u8, client: ClientId, generation: Generation) -> [u8; MAC_LEN] {
        self.mac(&[CONTEXT, &[head], client.as_bytes(), &generation.0.to_be_bytes()])
    }

    fn fingerprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.mac::<12>(&[FINGERPRINT_CONTEXT, &[self.id]]))
    }

    /// The first `N` bytes of the MAC of these parts, one after the other.
    pub(crate) fn mac<const N: usize>(&self, parts: &[&[u8]]) -> [u8; N] {
        let mut mac = self.mac.clone();
        for part in parts {
            mac.update(part);
        }
        truncated(mac)
    }
}

/// The keys of a key file, in its order. Apart from [`KeyRing::parse`] for those who want to put one in front.
///
/// # Errors
/// [`KeyRingError::Malformed`] and [`KeyRingError::IdOutOfRange`].
pub fn parse_keys(text: &str) -> Result<Vec<Key>, KeyRingError> {
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let malformed = || KeyRingError::Malformed(index + 1);
        let (id, secret) = line.split_once(char::is_whitespace).ok_or_else(malformed)?;
        let mut bytes = [0; KEY_LEN];
        if !decode_exact(secret.trim(), 43, &mut bytes) {
            return Err(malformed());
        }
        // Not the text of the line: had the two been swapped, it would be the key.
        let id = id.parse().map_err(|_| malformed())?;
        keys.push(Key::new(id, bytes)?);
        bytes.zeroize();
    }
    Ok(keys)
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn keyed(secret: &[u8; KEY_LEN]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length")
}

fn truncated<const N: usize>(mac: Hmac<Sha256>) -> [u8; N] {
    let full = mac.finalize().into_bytes();
    let mut cut = [0; N];
    cut.copy_from_slice(&full[..N]);
    cut
}

/// Decodes base64url without padding into exactly `out`; false for anything else, including a non-canonical last digit.
pub(crate) fn decode_exact(text: &str, chars: usize, out: &mut [u8]) -> bool {
    // The length is checked first: decoding an attacker's megabyte would be work for nothing.
    text.len() == chars && URL_SAFE_NO_PAD.decode_slice(text, out).is_ok_and(|written| written == out.len())
}
