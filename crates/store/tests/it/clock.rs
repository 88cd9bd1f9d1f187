//! The clocks.

use std::sync::Arc;
use std::time::Duration;

use baton_core::{Clock, Timestamp};
use baton_store::clock::{ManualClock, SystemClock, TimeSource};
use parking_lot::Mutex;
use proptest::prelude::*;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Raw clocks that show what they are told, in milliseconds.
#[derive(Clone, Default)]
struct Raw(Arc<Mutex<(u64, u64)>>);

impl Raw {
    fn at(wall: u64, monotonic: u64) -> Self {
        Self(Arc::new(Mutex::new((wall, monotonic))))
    }

    fn set(&self, wall: u64, monotonic: u64) {
        *self.0.lock() = (wall, monotonic);
    }
}

impl TimeSource for Raw {
    fn wall(&self) -> Duration {
        Duration::from_millis(self.0.lock().0)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.lock().1)
    }
}

#[test]
fn shows_the_wall_clock_while_that_behaves() {
    let raw = Raw::at(1_000_000, 50);
    let clock = SystemClock::over(raw.clone());
    assert_eq!(clock.now(), at(1_000_000));
    raw.set(1_000_100, 150);
    assert_eq!(clock.now(), at(1_000_100));
}

#[test]
fn goes_on_when_the_wall_clock_is_set_back() {
    let raw = Raw::at(1_000_000, 0);
    let clock = SystemClock::over(raw.clone());
    raw.set(400_000, 1_000);
    assert_eq!(clock.now(), at(1_001_000));
    raw.set(400_000, 7_000);
    assert_eq!(clock.now(), at(1_007_000));
    // Until it has caught up.
    raw.set(1_007_999, 8_000);
    assert_eq!(clock.now(), at(1_008_000));
    raw.set(1_008_500, 8_100);
    assert_eq!(clock.now(), at(1_008_500));
}

#[test]
fn jumps_when_the_wall_clock_is_ahead() {
    let raw = Raw::at(1_000_000, 0);
    let clock = SystemClock::over(raw.clone());
    raw.set(9_000_000, 10);
    assert_eq!(clock.now(), at(9_000_000));
    // The wall clock stands still, as while it is being slewed; time does not.
    raw.set(9_000_000, 510);
    assert_eq!(clock.now(), at(9_000_500));
}

#[test]
fn can_be_raised_and_not_lowered() {
    let raw = Raw::at(1_000_000, 100);
    let clock = SystemClock::over(raw.clone());
    clock.raise_to(at(2_000_000));
    assert_eq!(clock.now(), at(2_000_000));
    raw.set(1_000_250, 350);
    assert_eq!(clock.now(), at(2_000_250));
    clock.raise_to(at(1_500_000));
    clock.raise_to(at(-5));
    assert_eq!(clock.now(), at(2_000_250));
    raw.set(2_000_300, 360);
    assert_eq!(clock.now(), at(2_000_300));
}

#[test]
fn the_real_one_is_near_the_time_of_day() {
    let clock = SystemClock::new();
    let (first, second) = (clock.now(), clock.now());
    assert!(second >= first);
    // After 2024, before 2200.
    assert!(first > at(1_704_000_000_000) && first < at(7_258_000_000_000));
}

#[test]
fn the_manual_one_moves_forward_only() {
    let clock = ManualClock::new(at(5));
    clock.advance(Duration::from_millis(10));
    assert_eq!(clock.now(), at(15));
    clock.set(at(3));
    assert_eq!(clock.now(), at(15));
    clock.set(at(100));
    assert_eq!(clock.now(), at(100));
    clock.advance(Duration::MAX);
    assert_eq!(clock.now(), at(i64::MAX));
}

proptest! {
    /// Whatever the wall clock does: never back, and never slower than the monotonic clock.
    #[test]
    fn never_back_and_never_slow(steps in proptest::collection::vec((0..10_000_000_u64, 0..5_000_u64), 1..50)) {
        let raw = Raw::at(1_000_000, 0);
        let clock = SystemClock::over(raw.clone());
        let mut monotonic = 0;
        let mut last = clock.now();
        for (wall, step) in steps {
            monotonic += step;
            raw.set(wall, monotonic);
            let now = clock.now();
            prop_assert!(now >= last.plus(Duration::from_millis(step)));
            prop_assert!(now.as_millis() >= i64::try_from(wall).expect("small"));
            last = now;
        }
    }
}
