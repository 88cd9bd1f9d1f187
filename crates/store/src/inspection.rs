//! What an operator gets to see of a store: `baton store check`.

use std::fmt::Display;
#[cfg(any(feature = "postgres", feature = "redis"))]
use std::time::Duration;

use serde_json::Value;

/// Round trips that are timed.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) const TRIPS: usize = 9;
/// A clock that is wrong by more than this is noticed elsewhere: receivers of webhooks allow for five minutes.
#[cfg(any(feature = "postgres", feature = "redis"))]
const NOTICEABLE: Duration = Duration::from_secs(60);

/// What was found out about a store, in the order in which it is told. No secret is in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inspection {
    /// What is so.
    pub facts: Vec<Fact>,
    /// What works and may do harm all the same.
    pub warnings: Vec<String>,
    /// What keeps a server from working with it.
    pub failures: Vec<String>,
}

/// One thing that was found out.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// What it is about: a few words, for people; with `_` between them, the key for programs.
    pub name: &'static str,
    /// For programs.
    pub value: Value,
    /// For people.
    pub shown: String,
}

impl Inspection {
    /// Adds a fact that reads the same for people and for programs.
    pub fn note(&mut self, name: &'static str, value: impl Into<String>) {
        let shown = value.into();
        self.facts.push(Fact { name, value: shown.clone().into(), shown });
    }

    /// Adds a fact whose value people are shown differently.
    pub fn note_as(&mut self, name: &'static str, value: impl Into<Value>, shown: impl Into<String>) {
        self.facts.push(Fact { name, value: value.into(), shown: shown.into() });
    }

    /// Adds a warning: a sentence without a full stop.
    pub fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Adds a failure: what is wrong, and what to do about it.
    pub fn fail(&mut self, failure: impl Display) {
        self.failures.push(failure.to_string());
    }

    /// Adds how long a round trip takes and how the clocks agree, of trips with how far the server's clock was ahead.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) fn note_trips(&mut self, server: &str, mut trips: Vec<(Duration, i64)>) {
        trips.sort_by_key(|(took, _)| *took);
        let (Some(&(quickest, ahead)), Some(&(median, _))) = (trips.first(), trips.get(trips.len() / 2)) else {
            return;
        };
        let median = (median.as_secs_f64() * 100_000.0).round() / 100.0;
        self.note_as("round trip ms", median, format!("{median:.2}"));
        let (apart, unsure) = (u128::from(ahead.unsigned_abs()), quickest.as_millis() / 2 + 1);
        let how = match ahead {
            _ if apart <= unsure => "agrees with",
            1.. => "is ahead of",
            _ => "is behind",
        };
        self.note_as(
            "clock ahead ms",
            ahead,
            format!("{ahead} ± {unsure}: the clock of {server} {how} this machine's"),
        );
        if apart > NOTICEABLE.as_millis() {
            self.warn(format!(
                "the clocks disagree; sessions go by that of {server}, logs and webhooks by this machine's"
            ));
        }
    }

    /// Whether a server could work with this store right now.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.failures.is_empty()
    }
}

/// For people: thousands, millions and so on, of bytes.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
pub(crate) fn bytes(count: u64) -> String {
    let mut count = count as f64;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if count < 1000.0 {
            return if unit == "bytes" { format!("{count} {unit}") } else { format!("{count:.1} {unit}") };
        }
        count /= 1000.0;
    }
    format!("{count:.1} TB")
}

#[cfg(all(test, any(feature = "sqlite", feature = "postgres")))]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_for_people() {
        for (count, shown) in [(0, "0 bytes"), (999, "999 bytes"), (1_000, "1.0 kB"), (45_678_900, "45.7 MB")] {
            assert_eq!(bytes(count), shown);
        }
        assert_eq!(bytes(7_200_000_000_000), "7.2 TB");
    }
}
