//! What the answers were, and how long they took.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::pace::Arrivals;
use super::users::Issued;
use super::{Plan, Window};
use crate::Failure;
use crate::proc::Usage;

/// Three significant digits, from a nanosecond to as long as it takes.
const DIGITS: u8 = 3;

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Reply {
    Answer(Issued),
    /// Another status than expected.
    Rejection(String),
    /// No answer.
    Failure(String),
}

/// Counts. Those of the tokens and the latencies are of the measured time, the bad news are of all the time.
#[derive(Debug)]
pub(crate) struct Tally {
    latencies: Histogram<u64>,
    /// From when a page should have begun until it was sent.
    lags: Histogram<u64>,
    answers: u64,
    rotations: u64,
    blanks: u64,
    without_headers: u64,
    rejections: u64,
    failures: u64,
    unserved: u64,
    /// The first rejection or failure.
    trouble: Option<String>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let histogram = || {
            let histogram = Histogram::new(DIGITS);
            histogram.unwrap_or_else(|error| unreachable!("{DIGITS} digits are among those supported: {error}"))
        };
        Self {
            latencies: histogram(),
            lags: histogram(),
            answers: 0,
            rotations: 0,
            blanks: 0,
            without_headers: 0,
            rejections: 0,
            failures: 0,
            unserved: 0,
            trouble: None,
        }
    }

    pub(crate) fn note_page(&mut self, lag: Duration, counts: bool) {
        if counts {
            record(&mut self.lags, lag, 1);
        }
    }

    /// `counts`: whether it came within the measured time. `latency`: if that belongs to the measured time.
    pub(crate) fn note(&mut self, reply: &Reply, counts: bool, latency: Option<Duration>) {
        match reply {
            Reply::Answer(issued) => {
                if let Some(latency) = latency {
                    record(&mut self.latencies, latency, 1);
                }
                if counts {
                    self.answers += 1;
                    *match issued {
                        Issued::Nothing => &mut self.without_headers,
                        Issued::Blank => &mut self.blanks,
                        Issued::New { .. } => &mut self.rotations,
                    } += 1;
                }
            }
            Reply::Rejection(what) => {
                self.rejections += 1;
                self.trouble.get_or_insert_with(|| what.clone());
            }
            Reply::Failure(what) => {
                self.failures += 1;
                self.trouble.get_or_insert_with(|| what.clone());
            }
        }
    }

    /// Pages that were due and never sent had waited until the end at least; without them an overload would look fast.
    pub(crate) fn note_unserved(&mut self, arrivals: &Arrivals, window: Window, batch: usize) {
        for intended in arrivals.unserved(window.end).filter(|intended| *intended >= window.measured) {
            self.unserved += batch as u64;
            record(&mut self.latencies, window.end - intended, batch as u64);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // Both grow as they need to, so this cannot fail.
        let _ = self.latencies.add(&other.latencies);
        let _ = self.lags.add(&other.lags);
        self.answers += other.answers;
        self.rotations += other.rotations;
        self.blanks += other.blanks;
        self.without_headers += other.without_headers;
        self.rejections += other.rejections;
        self.failures += other.failures;
        self.unserved += other.unserved;
        if self.trouble.is_none() {
            self.trouble.clone_from(&other.trouble);
        }
    }
}

/// In nanoseconds.
fn record(histogram: &mut Histogram<u64>, value: Duration, times: u64) {
    // It resizes itself, so this cannot fail.
    let _ = histogram.record_n(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX), times);
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: histogram.max() as f64 / 1e3 }
    }
}

/// What the server used.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct ServerCost {
    pub(crate) cpu_us_per_request: f64,
    pub(crate) resident_kib: u64,
    pub(crate) peak_kib: u64,
}

/// A run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Requests a second that were asked for; without it, a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) users: usize,
    pub(crate) connections: usize,
    pub(crate) batch: usize,
    pub(crate) seconds: f64,
    pub(crate) answers: u64,
    pub(crate) per_second: f64,
    pub(crate) latency_us: Latency,
    /// Open loop: from when a page should have begun until it was sent. Part of the latency.
    pub(crate) lag_us: Option<Latency>,
    pub(crate) rotations: u64,
    pub(crate) blanks: u64,
    pub(crate) without_headers: u64,
    pub(crate) rejections: u64,
    pub(crate) failures: u64,
    pub(crate) unserved: u64,
    pub(crate) trouble: Option<String>,
    pub(crate) server: Option<ServerCost>,
    pub(crate) generator_threads: usize,
    pub(crate) generator_cpu_us_per_request: f64,
    /// How much of its threads' time the generator was working: near 1 it is the generator that is measured.
    pub(crate) generator_busy: f64,
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        threads: usize,
        tally: &Tally,
        before: (Usage, Option<Usage>),
        after: (Usage, Option<Usage>),
    ) -> Self {
        let seconds = plan.duration.as_secs_f64();
        let spent = |before: Usage, after: Usage| after.cpu.saturating_sub(before.cpu).as_secs_f64();
        let each = |spent: f64| if tally.answers == 0 { 0.0 } else { spent * 1e6 / tally.answers as f64 };
        let generator = spent(before.0, after.0);
        Self {
            rate: plan.rate,
            users: plan.users,
            connections: plan.connections,
            batch: plan.batch,
            seconds,
            answers: tally.answers,
            per_second: tally.answers as f64 / seconds,
            latency_us: Latency::of(&tally.latencies),
            lag_us: plan.rate.map(|_| Latency::of(&tally.lags)),
            rotations: tally.rotations,
            blanks: tally.blanks,
            without_headers: tally.without_headers,
            rejections: tally.rejections,
            failures: tally.failures,
            unserved: tally.unserved,
            trouble: tally.trouble.clone(),
            server: before.1.zip(after.1).map(|(before, after)| ServerCost {
                cpu_us_per_request: each(spent(before, after)),
                resident_kib: after.resident_kib,
                peak_kib: after.peak_kib,
            }),
            generator_threads: threads,
            generator_cpu_us_per_request: each(generator),
            generator_busy: generator / (seconds * threads as f64),
        }
    }

    /// Whether every request was answered as expected.
    pub(crate) fn is_clean(&self) -> bool {
        self.rejections == 0 && self.failures == 0 && self.answers > 0
    }

    pub(crate) fn json(&self) -> Result<String, Failure> {
        let text =
            serde_json::to_string_pretty(self).map_err(|error| Failure::Io("the report".into(), error.into()))?;
        Ok(text + "\n")
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let Self { answers, seconds, per_second, users, connections, batch, .. } = self;
        let _ = match self.rate {
            Some(rate) => write!(text, "open loop, {rate:.0} requests/s wanted"),
            None => write!(text, "closed loop"),
        };
        let _ = writeln!(text, "; {users} users, {connections} connections, pages of {batch}");
        let _ = writeln!(text, "  {per_second:.0} requests/s: {answers} in {seconds:.1} s");
        let percentiles = |latency: &Latency| {
            let Latency { p50, p99, p999, max } = latency;
            format!("p50 {p50:.0} µs, p99 {p99:.0} µs, p99.9 {p999:.0} µs, longest {max:.0} µs")
        };
        let from = if self.rate.is_some() { "from the intended start" } else { "from sending" };
        let _ = writeln!(text, "  latency, {from}: {}", percentiles(&self.latency_us));
        if let Some(lag) = &self.lag_us {
            let _ = writeln!(text, "  of that, until sent: {}", percentiles(lag));
        }
        let (rotations, blanks, bare) = (self.rotations, self.blanks, self.without_headers);
        let _ = writeln!(text, "  {rotations} new tokens, {blanks} blank answers, {bare} without auth headers");
        if let Some(ServerCost { cpu_us_per_request, resident_kib, peak_kib }) = self.server {
            let (resident, peak) = (resident_kib as f64 / 1024.0, peak_kib as f64 / 1024.0);
            let _ = writeln!(
                text,
                "  server: {cpu_us_per_request:.1} µs of CPU a request, {resident:.1} MiB resident, {peak:.1} MiB at most"
            );
        }
        let (each, busy) = (self.generator_cpu_us_per_request, self.generator_busy * 100.0);
        let _ = writeln!(text, "  generator: {each:.1} µs of CPU a request, busy {busy:.0} % of the time");
        let (rejections, failures, unserved) = (self.rejections, self.failures, self.unserved);
        let _ = writeln!(text, "  {rejections} rejections, {failures} without an answer, {unserved} never sent");
        if let Some(trouble) = &self.trouble {
            let _ = writeln!(text, "  the first of them: {trouble}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    #[test]
    fn only_the_measured_time_counts_but_bad_news_always() {
        let mut tally = Tally::new();
        let answer = Reply::Answer(Issued::Blank);
        tally.note(&answer, true, Some(Duration::from_millis(1)));
        tally.note(&answer, false, None);
        tally.note(&Reply::Rejection("401".into()), false, None);
        tally.note(&Reply::Failure("reset".into()), false, None);
        assert_eq!((tally.answers, tally.blanks, tally.rejections, tally.failures), (1, 1, 1, 1));
        assert_eq!(tally.latencies.len(), 1);
        assert_eq!(tally.trouble.as_deref(), Some("401"));
    }

    #[test]
    fn what_was_never_sent_counts_as_slow() {
        let start = now();
        let window = Window { start, measured: start, end: start + Duration::from_secs(10) };
        let mut tally = Tally::new();
        tally.note(&Reply::Answer(Issued::Nothing), true, Some(Duration::from_millis(1)));
        // One page a second, of two requests; nobody begins any.
        tally.note_unserved(&Arrivals::new(start, 1.0), window, 2);
        assert_eq!(tally.unserved, 20);
        assert_eq!(tally.latencies.len(), 21);
        let latency = Latency::of(&tally.latencies);
        assert!(latency.max > 9.9e6 && latency.p50 > 4e6, "{latency:?}");
    }

    #[test]
    fn tallies_add_up() {
        let mut one = Tally::new();
        let new = Reply::Answer(Issued::New { token: "t".into(), expiry: 1 });
        one.note(&new, true, Some(Duration::from_millis(1)));
        let mut both = Tally::new();
        both.note(&new, true, Some(Duration::from_secs(100)));
        both.add(&one);
        assert_eq!((both.answers, both.rotations, both.latencies.len()), (2, 2, 2));
        assert!(both.latencies.max() > 99_000_000_000);
    }
}
