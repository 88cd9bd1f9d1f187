//! The one place where time comes from.

use std::time::Instant;

/// Now. Measuring is what this program is for; its tests are about arithmetic and need no clock.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
