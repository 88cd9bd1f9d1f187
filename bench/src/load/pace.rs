//! Arrivals at a constant rate, which do not wait for the server.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::clock::now;

/// Pages that are due. The timer of the runtime is too coarse for them (1 ms), so a thread of its own releases them.
#[derive(Debug)]
pub(crate) struct Arrivals {
    start: Instant,
    per_second: f64,
    /// A permit for each page that is due and that nobody has begun.
    due: Semaphore,
    begun: AtomicU64,
}

impl Arrivals {
    pub(crate) fn new(start: Instant, per_second: f64) -> Self {
        Self { start, per_second, due: Semaphore::new(0), begun: AtomicU64::new(0) }
    }

    /// Waits for the next page, and says when it should have begun; `None` when there are no more.
    pub(crate) async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        Some(self.intended(self.begun.fetch_add(1, Ordering::Relaxed)))
    }

    /// When the pages should have begun that nobody had time for, after [`Self::release`].
    pub(crate) fn unserved(&self, end: Instant) -> impl Iterator<Item = Instant> {
        (self.begun.load(Ordering::Relaxed)..self.due_at(end)).map(|number| self.intended(number))
    }

    /// Releases pages as they become due, until `end`.
    pub(crate) fn release(&self, end: Instant) {
        // A sleep ends up to 50 µs late by default, and the latencies would hold that. Without it they still do: measured as lag.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let mut released = 0;
        loop {
            let time = now();
            let due = self.due_at(time.min(end));
            self.due.add_permits(usize::try_from(due - released).unwrap_or(usize::MAX));
            released = due;
            if time >= end {
                break;
            }
            thread::sleep(self.intended(released).min(end).saturating_duration_since(now()));
        }
        // Those that are still waiting are counted as unserved.
        self.due.close();
    }

    fn intended(&self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.per_second)
    }

    /// How many are due before `time`, the first one at the start.
    fn due_at(&self, time: Instant) -> u64 {
        (time.saturating_duration_since(self.start).as_secs_f64() * self.per_second).ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_unserved() {
        let start = now();
        let arrivals = Arrivals::new(start, 1_000.0);
        arrivals.begun.store(3, Ordering::Relaxed);
        let unserved: Vec<Duration> =
            arrivals.unserved(start + Duration::from_micros(5_500)).map(|intended| intended - start).collect();
        assert_eq!(unserved, [3, 4, 5].map(Duration::from_millis));
    }

    #[test]
    fn released_pages_are_numbered_and_end() {
        let start = now();
        let arrivals = Arrivals::new(start, 10_000.0);
        arrivals.release(start + Duration::from_millis(1));
        assert_eq!(arrivals.due.available_permits(), 10);
        assert!(arrivals.due.is_closed());
    }
}
