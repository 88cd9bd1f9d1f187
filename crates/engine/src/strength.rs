//! How easily a new password is guessed: lists of common ones, what everybody knows about its owner, and a score
//! (NIST SP 800-63B-4 §3.1.1.2, ASVS 6.2.4 and 6.2.11).

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use baton_core::password::PasswordFault;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use zxcvbn::matching::patterns::MatchPattern;
use zxcvbn::zxcvbn;

use crate::Engine;
use crate::passwords::PasswordError;
use crate::register::FieldFaults;

/// How hard a new password has to be to guess.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordStrength {
    /// The least score, 0 to 4 (more counts as 4); 2 by default. The powers of ten are the guesses that it takes, as zxcvbn
    /// estimates them: 1 more than 10³, 2 more than 10⁶, 3 more than 10⁸, 4 more than 10¹⁰. 0: neither the score nor the
    /// built-in lists nor the owner's details are looked at.
    pub min_score: u8,
    /// Passwords that are refused whatever their score.
    pub blocklist: Blocklist,
}

impl Default for PasswordStrength {
    fn default() -> Self {
        Self { min_score: 2, blocklist: Blocklist::default() }
    }
}

/// Passwords that must not be used, compared in lower case. Takes 8 bytes each: of a password a 64-bit hash is kept, so that
/// another one is refused by mistake once in 10¹² or so.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Blocklist(Arc<[u64]>);

impl fmt::Debug for Blocklist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blocklist({} passwords)", self.0.len())
    }
}

/// A block-list could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BlocklistError {
    /// Its source failed.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// This line, counted from 1, is not UTF-8.
    #[error("line {0} is not UTF-8; `iconv` converts the file")]
    NotText(usize),
    /// This line, counted from 1, has more than 4096 bytes.
    #[error("line {0} has more than {MAX_LINE} bytes; one password a line is expected")]
    LongLine(usize),
    /// It has more than 10 million lines.
    #[error("it has more than {MAX_LINES} lines")]
    TooMany,
}

const MAX_LINE: usize = 4096;
const MAX_LINES: usize = 10_000_000;

impl Blocklist {
    /// Of these passwords.
    pub fn new<P: AsRef<str>>(passwords: impl IntoIterator<Item = P>) -> Self {
        Self::of(passwords.into_iter().map(|password| fingerprint(password.as_ref())).collect())
    }

    /// One password a line, in UTF-8; empty lines are passed over. At most 10 million lines of at most 4096 bytes.
    ///
    /// # Errors
    /// [`BlocklistError`].
    pub fn read(source: impl Read) -> Result<Self, BlocklistError> {
        let mut source = BufReader::new(source);
        let (mut fingerprints, mut line) = (Vec::new(), Vec::new());
        for number in 1.. {
            line.clear();
            // One byte more for the end of the line and one to see that it is missing.
            if source.by_ref().take(MAX_LINE as u64 + 2).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if text.len() > MAX_LINE {
                return Err(BlocklistError::LongLine(number));
            }
            if number > MAX_LINES {
                return Err(BlocklistError::TooMany);
            }
            match std::str::from_utf8(text) {
                Ok("") => {}
                Ok(text) => fingerprints.push(fingerprint(text)),
                Err(_) => return Err(BlocklistError::NotText(number)),
            }
        }
        Ok(Self::of(fingerprints))
    }

    fn of(mut fingerprints: Vec<u64>) -> Self {
        fingerprints.sort_unstable();
        fingerprints.dedup();
        Self(fingerprints.into())
    }

    /// Whether `password` is one of them.
    #[must_use]
    pub fn contains(&self, password: &str) -> bool {
        self.0.binary_search(&fingerprint(password)).is_ok()
    }

    /// How many different ones there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The hasher has fixed keys. Whoever finds a collision has found a password that is refused.
fn fingerprint(password: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    password.to_lowercase().hash(&mut hasher);
    hasher.finish()
}

impl Engine {
    /// Notes a fault if the password is listed, is one of its owner's details, or is easily guessed. A password whose length
    /// is wrong is not looked at: that is said already, and the work stays bounded.
    ///
    /// # Errors
    /// [`PasswordError`] if it could not be found out: it waits in line with the hashes.
    pub(crate) async fn check_strength(
        &self,
        password: &SecretString,
        email: &str,
        profile: &Map<String, Value>,
        faults: &mut FieldFaults,
    ) -> Result<(), PasswordError> {
        let PasswordStrength { min_score, ref blocklist } = self.settings.password_strength;
        if self.settings.password_policy.check(password.expose_secret()).is_err() {
            return Ok(());
        }
        let fault = if blocklist.contains(password.expose_secret()) {
            Some(PasswordFault::Common)
        } else if min_score == 0 {
            None
        } else {
            let texts = self.settings.profile_fields.iter().filter_map(|field| profile.get(field.name())?.as_str());
            let details = details(email, texts);
            let password = password.clone();
            self.passwords.in_turn(move || Ok(judge(password.expose_secret(), &details, min_score))).await?
        };
        if let Some(fault) = fault {
            faults.add("password", fault);
        }
        Ok(())
    }
}

/// How many characters of a password are scored. The estimate takes more than linear time: of 64 characters of the worst kind
/// (digits and signs that stand for letters) about as long as the hash, 20 ms; of 100 of them up to a second. Few passwords
/// are longer, and what was cut off could only have raised the score.
const SCORED_CHARS: usize = 64;

fn judge(password: &str, details: &[String], min_score: u8) -> Option<PasswordFault> {
    if details.contains(&password.to_lowercase()) {
        return Some(PasswordFault::Personal);
    }
    let scored = password.char_indices().nth(SCORED_CHARS).map_or(password, |(end, _)| &password[..end]);
    let details: Vec<&str> = details.iter().map(String::as_str).collect();
    let estimate = zxcvbn(scored, &details);
    if let [only] = estimate.sequence()
        && let MatchPattern::Dictionary(word) = &only.pattern
    {
        let personal = details.contains(&word.matched_word.as_str());
        return Some(if personal { PasswordFault::Personal } else { PasswordFault::Common });
    }
    (u8::from(estimate.score()) < min_score.min(4)).then_some(PasswordFault::Guessable)
}

/// What whoever knows the account tries first, in lower case: the address, its parts, the profile and its words. Bounded,
/// because each makes the estimate slower.
fn details<'a>(email: &'a str, profile: impl Iterator<Item = &'a str>) -> Vec<String> {
    const MAX_DETAILS: usize = 64;
    const MAX_CHARS: usize = 255;
    // Shorter words are parts of too many others.
    const MIN_WORD: usize = 3;
    let local = email.rsplit_once('@').map(|(local, _)| local);
    let whole = |text: &'a str| text.char_indices().nth(MAX_CHARS).map_or(text, |(end, _)| &text[..end]);
    let texts: Vec<&str> = [Some(email), local].into_iter().flatten().chain(profile).map(whole).collect();
    let words = texts.iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
    let mut details: Vec<String> = Vec::new();
    for text in texts.iter().copied().chain(words).filter(|text| text.chars().count() >= MIN_WORD) {
        let text = text.to_lowercase();
        if details.len() < MAX_DETAILS && !details.contains(&text) {
            details.push(text);
        }
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_whole_texts_and_their_words_and_bounded() {
        let found = details("ann.lee@mail.example.com", ["Ann Lee", "x", ""].into_iter());
        assert_eq!(found, ["ann.lee@mail.example.com", "ann.lee", "ann lee", "ann", "lee", "mail", "example", "com"]);
        let many: Vec<String> = (0..1000).map(|n| format!("word{n}")).collect();
        assert_eq!(details("", many.iter().map(String::as_str)).len(), 64);
    }

    #[test]
    fn a_blocklist_is_read_line_by_line() {
        let list = Blocklist::read(&b"Hunter2\r\n\n  spaced \nhunter2\nGR\xc3\x9c\xc3\x9fE"[..]).unwrap();
        assert_eq!(list.len(), 3);
        assert!(list.contains("HUNTER2") && list.contains("  Spaced ") && list.contains("grüße"));
        assert!(!list.contains("spaced") && !list.contains(""));
        assert_eq!(format!("{list:?}"), "Blocklist(3 passwords)");
        assert_eq!(list, Blocklist::new(["hunter2", "  spaced ", "grüße"]));
        assert!(matches!(Blocklist::read(&b"a\n\xff\n"[..]), Err(BlocklistError::NotText(2))));
        let longest = "x".repeat(MAX_LINE);
        assert!(Blocklist::read(format!("{longest}\r\n").as_bytes()).is_ok());
        assert!(matches!(Blocklist::read(format!("\n{longest}x").as_bytes()), Err(BlocklistError::LongLine(2))));
        assert!(matches!(Blocklist::read(io::repeat(b'x')), Err(BlocklistError::LongLine(1))));
        assert!(Blocklist::read(io::empty()).unwrap().is_empty());
    }
}
