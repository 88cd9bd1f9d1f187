//! Clocks. [`SystemClock`] is the one place of this crate where the time of day is read.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use baton_core::clock::{Clock, Timestamp, millis};
use parking_lot::Mutex;

/// How far the wall clock has to be behind before a line in the log says so.
const NOTICEABLE: Duration = Duration::from_secs(5);

/// The time of day, made fit for a rule that cannot bear time going backwards.
///
/// It starts at the wall clock and never runs slower than the monotonic clock. When the wall clock is ahead (it was
/// corrected, or the machine slept) it jumps there; when the wall clock was set back it stays ahead and goes on at the pace
/// of the monotonic clock until the wall clock has caught up. So it neither goes back nor stalls: a stalled clock would
/// hold every batch window open.
///
/// A wall clock that was wrong by years and is put right leaves this clock ahead by years until the process restarts.
#[derive(Debug)]
pub struct SystemClock<S = Ambient> {
    source: S,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// The time since the epoch that this clock showed …
    time: Duration,
    /// … when the monotonic clock showed this.
    at: Duration,
    /// Whether the log has been told that the wall clock is behind.
    told: bool,
}

/// The two raw clocks below a [`SystemClock`].
pub trait TimeSource: Send + Sync {
    /// Time since the Unix epoch, as far as the machine knows; zero for a time before it. May jump either way.
    fn wall(&self) -> Duration;
    /// Time since some fixed point. Does not go backwards.
    fn monotonic(&self) -> Duration;
}

impl SystemClock {
    /// The clock of this machine.
    #[must_use]
    pub fn new() -> Self {
        Self::over(Ambient::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: TimeSource> SystemClock<S> {
    /// A clock over other raw clocks, which a test can set.
    #[must_use]
    pub fn over(source: S) -> Self {
        let state = State { time: source.wall(), at: source.monotonic(), told: false };
        Self { source, state: Mutex::new(state) }
    }

    /// Moves the clock up to `floor` if it is behind it. It goes on from there, and the wall clock catches up in time.
    ///
    /// Meant for a time that was handed out before a restart, such as `SqliteStore::high_water_mark`.
    pub fn raise_to(&self, floor: Timestamp) {
        let floor = Duration::from_millis(u64::try_from(floor.as_millis()).unwrap_or(0));
        let mut state = self.state.lock();
        let monotonic = self.source.monotonic();
        if floor > state.steady(monotonic) {
            *state = State { time: floor, at: monotonic.max(state.at), ..*state };
        }
    }
}

impl<S: TimeSource> Clock for SystemClock<S> {
    fn now(&self) -> Timestamp {
        // Both clocks are read under the lock, so that the answers of concurrent callers are in order.
        let mut state = self.state.lock();
        let (wall, monotonic) = (self.source.wall(), self.source.monotonic());
        let steady = state.steady(monotonic);
        if wall >= steady {
            *state = State { time: wall, at: monotonic.max(state.at), told: false };
            return timestamp(wall);
        }
        let behind = steady - wall;
        if behind >= NOTICEABLE && !state.told {
            state.told = true;
            tracing::warn!(
                behind_seconds = behind.as_secs(),
                "the wall clock was set back; time goes on from where it was until the wall clock has caught up"
            );
        }
        timestamp(steady)
    }
}

impl State {
    fn steady(&self, monotonic: Duration) -> Duration {
        self.time.saturating_add(monotonic.saturating_sub(self.at))
    }
}

fn timestamp(since_epoch: Duration) -> Timestamp {
    Timestamp::from_millis(millis(since_epoch))
}

/// The clocks of this machine.
#[derive(Debug)]
pub struct Ambient {
    start: std::time::Instant,
}

impl Ambient {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
    fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl TimeSource for Ambient {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
    fn wall(&self) -> Duration {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands still until it is moved: for tests and examples.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `at`.
    #[must_use]
    pub const fn new(at: Timestamp) -> Self {
        Self(AtomicI64::new(at.as_millis()))
    }

    /// Moves it to `at`. A time before the one shown is passed over: a [`Clock`] never goes backwards.
    pub fn set(&self, at: Timestamp) {
        self.0.fetch_max(at.as_millis(), Ordering::SeqCst);
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        let step = millis(by);
        // The closure always answers, so this cannot fail.
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |shown| Some(shown.saturating_add(step)));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}
