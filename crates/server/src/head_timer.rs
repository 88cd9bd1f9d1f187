//! The deadline for a request's head, kept from one request to the next.
//!
//! hyper makes a deadline for every head and drops it when the head has come. Most come long before, so a timer is left as it
//! was set for an earlier head, and is set anew only when it has run out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use tokio::time::{self, Instant};

/// The timer of one connection, whose deadlines only grow.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeadTimer {
    /// Between two heads.
    spare: Arc<Mutex<Option<Pin<Box<time::Sleep>>>>>,
}

impl HeadTimer {
    fn until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let sleep = self.spare.lock().take().unwrap_or_else(|| Box::pin(time::sleep_until(deadline)));
        Box::pin(Deadline { at: deadline, sleep: Some(sleep), timer: self.clone() })
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        self.until(deadline.into())
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

struct Deadline {
    at: Instant,
    /// Runs out then, or earlier. Taken only when this is dropped.
    sleep: Option<Pin<Box<time::Sleep>>>,
    timer: HeadTimer,
}

impl Sleep for Deadline {}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        let Some(sleep) = &mut self.sleep else { return Poll::Ready(()) };
        ready!(sleep.as_mut().poll(cx));
        if sleep.deadline() < at {
            sleep.as_mut().reset(at);
            ready!(sleep.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        *self.timer.spare.lock() = self.sleep.take();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// How long the deadline takes that is made now.
    async fn taken(timer: &HeadTimer) -> Duration {
        let start = Instant::now();
        timer.sleep(LIMIT).await;
        start.elapsed()
    }

    /// A head that comes after this time.
    async fn head(timer: &HeadTimer, after: Duration) {
        let mut deadline = timer.sleep_until(timer.now() + LIMIT);
        tokio::select! {
            () = time::sleep(after) => {}
            () = poll_fn(|cx| deadline.as_mut().poll(cx)) => panic!("it ran out early"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_the_last_heads_whatever_the_timer_was_set_for() {
        let timer = HeadTimer::default();
        for seconds in [0, 1, 29, 29, 0, 17] {
            head(&timer, Duration::from_secs(seconds)).await;
        }
        let taken = taken(&timer).await;
        assert!(taken >= LIMIT && taken < LIMIT + Duration::from_millis(2), "{taken:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_ran_out_between_two_heads_is_set_anew() {
        let timer = HeadTimer::default();
        head(&timer, Duration::from_secs(1)).await;
        time::sleep(10 * LIMIT).await;
        head(&timer, Duration::from_secs(29)).await;
        let first = taken(&timer).await;
        let second = taken(&timer).await;
        for taken in [first, second] {
            assert!(taken >= LIMIT && taken < LIMIT + Duration::from_millis(2), "{taken:?}");
        }
    }
}
