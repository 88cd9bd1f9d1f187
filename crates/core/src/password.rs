//! What a new password has to be (NIST SP 800-63B-4 §3.1.1.2: length, no composition rules, no truncation).

/// Bounds on the length of a new password, in Unicode scalar values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordPolicy {
    /// Fewest characters; 8 by default.
    pub min_length: usize,
    /// Most characters; 128 by default. An upper bound keeps the cost of hashing bounded; nothing is ever cut off.
    pub max_length: usize,
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self { min_length: 8, max_length: 128 }
    }
}

/// What is wrong with a new password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordFault {
    /// None was given.
    #[error("can't be blank")]
    Blank,
    /// Fewer characters than this.
    #[error("is too short (minimum is {0} characters)")]
    TooShort(usize),
    /// More characters than this.
    #[error("is too long (maximum is {0} characters)")]
    TooLong(usize),
    /// It is on a list of those that are tried first.
    #[error("is too common")]
    Common,
    /// It is the e-mail address or taken from the profile.
    #[error("must not be taken from the e-mail address or the profile")]
    Personal,
    /// Its score is too low.
    #[error("is too easy to guess")]
    Guessable,
}

impl PasswordPolicy {
    /// Whether `password` may be set.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(&self, password: &str) -> Result<(), PasswordFault> {
        match password.chars().count() {
            0 => Err(PasswordFault::Blank),
            n if n < self.min_length => Err(PasswordFault::TooShort(self.min_length)),
            n if n > self.max_length => Err(PasswordFault::TooLong(self.max_length)),
            _ => Ok(()),
        }
    }
}
