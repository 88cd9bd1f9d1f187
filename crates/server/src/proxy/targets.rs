//! The targets of one upstream: whose turn it is, and who is left out.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use tokio::time::Instant;

/// For how long a target that could not be reached is asked last.
const ASIDE: Duration = Duration::from_secs(10);

pub(super) struct Targets {
    all: Vec<Target>,
    next: AtomicUsize,
    start: Instant,
}

/// One address of a backend.
pub(super) struct Target {
    scheme: Scheme,
    pub(super) authority: Authority,
    /// Until when it is asked last, in milliseconds since the start; 0 if it is not.
    aside: AtomicU64,
    /// Whether its health check fails.
    unwell: AtomicBool,
}

impl Targets {
    pub(super) fn new(addresses: &[Uri]) -> Self {
        let target = |uri: &Uri| {
            let (scheme, authority) = (uri.scheme()?.clone(), uri.authority()?.clone());
            Some(Target { scheme, authority, aside: AtomicU64::new(0), unwell: AtomicBool::new(false) })
        };
        Self { all: addresses.iter().filter_map(target).collect(), next: AtomicUsize::new(0), start: Instant::now() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Target> {
        self.all.iter()
    }

    /// Those that may be asked, in the order in which to try: the one whose turn it is first, those that could not be reached
    /// lately last. They are not given up: if there is nobody else, an attempt costs nothing and finds out.
    pub(super) fn in_turn(&self) -> Vec<&Target> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.all.len().max(1);
        let (before, after) = self.all.split_at(first);
        let now = self.millis();
        let mut turn: Vec<&Target> =
            after.iter().chain(before).filter(|target| !target.unwell.load(Ordering::Relaxed)).collect();
        turn.sort_by_key(|target| target.aside.load(Ordering::Relaxed) > now);
        turn
    }

    /// It could not be reached.
    pub(super) fn failed(&self, target: &Target, why: &str) {
        let until = self.millis() + u64::try_from(ASIDE.as_millis()).unwrap_or(u64::MAX);
        if target.aside.swap(until, Ordering::Relaxed) <= self.millis() {
            tracing::warn!(target = %target.authority, why, "a backend cannot be reached");
        }
    }

    /// It answered.
    pub(super) fn succeeded(&self, target: &Target) {
        if target.aside.load(Ordering::Relaxed) != 0 && target.aside.swap(0, Ordering::Relaxed) != 0 {
            tracing::info!(target = %target.authority, "a backend can be reached again");
        }
    }

    fn millis(&self) -> u64 {
        // From 1, since 0 means never.
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

impl Target {
    /// The address of `path` there.
    pub(super) fn at(&self, path: PathAndQuery) -> Result<Uri, http::Error> {
        let builder = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        builder.path_and_query(path).build()
    }

    /// Notes what its health check said.
    pub(super) fn set_well(&self, well: Result<(), String>) {
        let was_unwell = self.unwell.swap(well.is_err(), Ordering::Relaxed);
        match well {
            Err(why) if !was_unwell => {
                tracing::warn!(target = %self.authority, why, "a backend is not well and gets no requests");
            }
            Ok(()) if was_unwell => tracing::info!(target = %self.authority, "a backend is well again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> Targets {
        Targets::new(&["http://a", "http://b", "http://c"].map(|text| text.parse().unwrap()))
    }

    fn turn(targets: &Targets) -> String {
        targets.in_turn().iter().map(|target| target.authority.as_str()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_has_a_turn_and_who_cannot_be_reached_is_asked_last() {
        let targets = targets();
        assert_eq!([turn(&targets), turn(&targets), turn(&targets), turn(&targets)], ["abc", "bca", "cab", "abc"]);
        targets.failed(&targets.all[1], "refused");
        assert_eq!([turn(&targets), turn(&targets)], ["cab", "cab"]);
        tokio::time::advance(ASIDE).await;
        assert_eq!(turn(&targets), "abc");
        targets.failed(&targets.all[0], "refused");
        targets.succeeded(&targets.all[0]);
        assert_eq!([turn(&targets), turn(&targets)], ["bca", "cab"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_well_is_not_asked() {
        let targets = targets();
        targets.all[0].set_well(Err("500".into()));
        targets.all[2].set_well(Err("500".into()));
        assert_eq!(turn(&targets), "b");
        targets.all[0].set_well(Ok(()));
        assert_eq!([turn(&targets), turn(&targets)], ["ba", "ab"]);
        for target in targets.iter() {
            target.set_well(Err("500".into()));
        }
        assert_eq!(turn(&targets), "");
    }
}
