//! The store's time: that of its clock, and never before a time that the store already holds.

use std::sync::Arc;

use baton_core::clock::{Clock, Timestamp};
use parking_lot::Mutex;

/// A [`Clock`] with a floor.
///
/// The records may hold times that this process' clock has not reached: the wall clock was set back and the process
/// restarted, or another process with another clock writes to the same file. Time then goes on from what the records hold,
/// at half the clock's pace, until the clock has caught up. Standing still instead would hold every batch window open, and
/// going on at full pace would never come back to the clock.
pub(crate) struct StoreTime {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    /// The latest time that was answered or observed.
    latest: i64,
    /// While the clock is behind `latest`: what it showed, and what the store's time was, when that was noticed.
    behind: Option<(i64, i64)>,
}

impl StoreTime {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::new(State { latest: i64::MIN, behind: None }) }
    }

    /// The time now; never less than an earlier answer or anything observed.
    pub(crate) fn now(&self) -> Timestamp {
        // Read under the lock, so that concurrent answers are in order.
        let mut state = self.state.lock();
        let shown = self.clock.now().as_millis();
        if shown >= state.latest {
            *state = State { latest: shown, behind: None };
        } else {
            let (from, then) = match state.behind {
                Some(anchor) if shown >= anchor.0 => anchor,
                _ => (shown, state.latest),
            };
            state.behind = Some((from, then));
            let half = shown.saturating_sub(from) / 2;
            state.latest = state.latest.max(then.saturating_add(half));
        }
        Timestamp::from_millis(state.latest)
    }

    /// Takes note of a time found in a record. Answers from now on are not before it.
    #[cfg(any(feature = "sqlite", test))]
    pub(crate) fn observe(&self, found: Timestamp) {
        let mut state = self.state.lock();
        if found.as_millis() > state.latest {
            *state = State { latest: found.as_millis(), behind: None };
        }
    }

    /// How far the clock is behind what was observed; zero if it is not.
    #[cfg(any(feature = "sqlite", test))]
    pub(crate) fn clock_lag(&self) -> std::time::Duration {
        let latest = Timestamp::from_millis(self.state.lock().latest);
        latest.since(self.clock.now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn goes_on_at_half_pace_while_the_clock_is_behind_and_rejoins_it() {
        let clock = Arc::new(ManualClock::new(at(1_000)));
        let time = StoreTime::new(clock.clone());
        assert_eq!(time.now(), at(1_000));

        time.observe(at(2_000));
        assert_eq!(time.clock_lag(), Duration::from_millis(1_000));
        assert_eq!(time.now(), at(2_000));
        // One millisecond at a time: halves are not lost to rounding.
        for _ in 0..100 {
            clock.advance(Duration::from_millis(1));
            time.now();
        }
        assert_eq!(time.now(), at(2_050));
        clock.set(at(2_999));
        assert_eq!(time.now(), at(2_999));
        assert_eq!(time.clock_lag(), Duration::ZERO);
        clock.advance(Duration::from_millis(10));
        assert_eq!(time.now(), at(3_009));
    }

    #[test]
    fn a_clock_that_breaks_its_promise_is_not_believed() {
        struct Broken(Mutex<i64>);
        impl Clock for Broken {
            fn now(&self) -> Timestamp {
                at(*self.0.lock())
            }
        }
        let clock = Arc::new(Broken(Mutex::new(5_000)));
        let time = StoreTime::new(clock.clone());
        assert_eq!(time.now(), at(5_000));
        *clock.0.lock() = 1_000;
        assert_eq!(time.now(), at(5_000));
        *clock.0.lock() = 1_200;
        assert_eq!(time.now(), at(5_100));
        *clock.0.lock() = 0;
        assert_eq!(time.now(), at(5_100));
        *clock.0.lock() = 100;
        assert_eq!(time.now(), at(5_150));
    }
}
