//! How often a sign-in may fail before it is locked (`lockable`).
//!
//! What is counted and locked is a name that is tried, whether there is such an account or not: so neither the answer nor its
//! time can tell. An attempt is counted **before** the password is looked at, so that a thousand at once are not a thousand
//! guesses; the right password takes the count back.

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;

/// A name under which attempts are counted: a pseudonym ([`crate::KeyRing::pseudonym`]) of realm and uid, since people also
/// type their password there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptName(pub [u8; 16]);

impl fmt::Debug for AttemptName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttemptName(..)")
    }
}

/// When attempts are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptRule {
    /// How many may fail; at least 1.
    pub max_attempts: u32,
    /// For how long further ones are then refused. Those that are refused do not make it longer.
    pub lock_for: Duration,
    /// After how long without an attempt the count begins anew.
    pub forget_after: Duration,
}

/// The attempts under one name so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attempts {
    /// How many, since the last that succeeded.
    pub count: u32,
    /// Until when further ones are refused.
    pub locked_until: Option<Timestamp>,
    /// From when on all of this is forgotten.
    pub expires_at: Timestamp,
}

/// Whether an attempt may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It may. `last`: unless it succeeds, it was the last one for [`AttemptRule::lock_for`].
    Allowed {
        /// See above.
        last: bool,
    },
    /// It may not, until then.
    Locked(Timestamp),
}

impl Attempts {
    /// These attempts and one more at `now`, and whether that may go on. This is the meaning of
    /// [`crate::Store::count_attempt`]; `self` is the default if there is no record.
    #[must_use]
    pub fn counted(self, rule: AttemptRule, now: Timestamp) -> (Self, Counted) {
        if let Some(until) = self.locked_until
            && now < until
        {
            return (self, Counted::Locked(until));
        }
        // A lock that has ended expires at that moment, with all that led to it.
        let count = if self.expires_at <= now { 1 } else { self.count.saturating_add(1) };
        let last = count >= rule.max_attempts;
        let locked_until = last.then(|| now.plus(rule.lock_for));
        let expires_at = locked_until.unwrap_or_else(|| now.plus(rule.forget_after));
        (Self { count, locked_until, expires_at }, Counted::Allowed { last })
    }
}
