//! Whether the time that answers take tells which e-mail addresses have an account.
//!
//! Four kinds of request take turns in random order on one connection: for the known address, for unknown ones, and two
//! positive controls that have to be told apart from the unknown ones, or the measurement was too coarse to say anything.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tempfile::TempDir;

use crate::clock::now;
use crate::http::{Answer, BlockingConnection, Target};
use crate::random::SplitMix;
use crate::server::Server;
use crate::stats::{Difference, RankTest, SIGNIFICANCE, difference, quantile, rank_test};
use crate::{Failure, Outcome, note, print};

/// What the smaller control is delayed by.
const DELAY: Duration = Duration::from_micros(200);
/// How far from ½ the effect may be.
const EFFECT: f64 = 0.07;
/// Besides the median: what else a machine does only ever delays an answer, so the quick ones are the least disturbed
/// (Crosby, Wallach, Riedi: Opportunities and limits of remote timing attacks, TISSEC 2009).
const QUICK: f64 = 0.1;
const PASSWORD: &str = "correct horse battery";
const WRONG: &str = "incorrect horse batter";

/// The command line of `timing`.
#[derive(Debug, Args)]
pub(crate) struct Timing {
    /// A server that runs, with its rate limits off. Default: `baton dev` is started, and ended afterwards
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// The program to start [default: `baton` beside this one]
    #[arg(long, value_name = "PATH", conflicts_with = "base_url")]
    baton: Option<PathBuf>,
    /// Measurements of each kind
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(20..))]
    samples: u32,
    /// Requests of each kind that are sent first and not counted
    #[arg(long, value_name = "N", default_value_t = 50)]
    warm_up: u32,
    /// For the order of the requests, the addresses and the bootstrap
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Timing {
    pub(crate) fn run(&self) -> Result<Outcome, Failure> {
        // Before the server, so that it is removed after that has ended.
        let folder = TempDir::new().map_err(|error| Failure::Io("a temporary folder".into(), error))?;
        let started = match &self.base_url {
            Some(_) => None,
            None => Some(Server::baton(self.baton.as_deref(), folder.path(), &["log.level=warn".to_owned()])?),
        };
        let target = match (&started, &self.base_url) {
            (Some(server), _) => server.target.clone(),
            (None, url) => Target::parse(url.as_deref().unwrap_or_default())?,
        };
        let mut session = Session::open(target, SplitMix::new(self.seed))?;
        let mut outcome = Outcome::Good;
        for probe in [Probe::SignIn, Probe::Reset] {
            note(&format!("{}: {} requests of each kind", probe.title(), self.samples));
            let measured = session.measure(probe, self.samples as usize, self.warm_up as usize)?;
            let (text, found) = match measured {
                Measured::NotAvailable => ("  not available on this server; skipped\n".to_owned(), Outcome::Good),
                Measured::Differ(answers) => (format!("  => THE ANSWERS THEMSELVES DIFFER\n{answers}\n"), Outcome::Bad),
                Measured::Times(times) => {
                    let findings = Findings::of(&times, &mut session.random);
                    (findings.text(&times), findings.outcome())
                }
            };
            print(&format!("{}\n{text}\n", probe.title()))?;
            outcome = match (outcome, found) {
                (Outcome::Bad, _) | (_, Outcome::Bad) => Outcome::Bad,
                (Outcome::Inconclusive, _) | (_, Outcome::Inconclusive) => Outcome::Inconclusive,
                (Outcome::Good, Outcome::Good) => Outcome::Good,
            };
        }
        Ok(outcome)
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
enum Probe {
    SignIn,
    Reset,
}

impl Probe {
    fn title(self) -> &'static str {
        match self {
            Self::SignIn => "sign-in with a wrong password (POST /auth/sign_in)",
            Self::Reset => "forgotten password (POST /auth/password)",
        }
    }

    fn request(self, target: &Target, kind: Kind, email: &str) -> Vec<u8> {
        let (path, body) = match self {
            Self::SignIn => ("/auth/sign_in", json!({ "email": email, "password": WRONG })),
            Self::Reset => ("/auth/password", json!({ "email": email, "redirect_url": "http://localhost/reset" })),
        };
        let mut body = body.to_string();
        if kind == Kind::Malformed {
            // Without its last brace it is no JSON.
            body.pop();
        }
        target.post(path, &body)
    }
}

/// Who is asked for, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The address that has an account.
    Known,
    /// An address of the same length that was never used before.
    Unknown,
    /// Control: a request that is refused before anything is looked up.
    Malformed,
    /// Control: an unknown address, and the client dawdles for [`DELAY`] before it looks at the clock.
    Delayed,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Known, Self::Unknown, Self::Malformed, Self::Delayed];

    fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Unknown => "unknown",
            Self::Malformed => "malformed",
            Self::Delayed => "unknown, delayed",
        }
    }
}

/// Microseconds, by kind.
#[derive(Debug, Default)]
struct Times([Vec<f64>; Kind::ALL.len()]);

impl Times {
    fn of(&self, kind: Kind) -> &[f64] {
        &self.0[kind as usize]
    }
}

/// What came of a probe.
#[derive(Debug)]
enum Measured {
    /// There is no such route.
    NotAvailable,
    /// No clock is needed to tell known from unknown addresses.
    Differ(String),
    Times(Times),
}

/// One connection, and an account.
#[derive(Debug)]
struct Session {
    target: Target,
    connection: BlockingConnection,
    random: SplitMix,
    known: String,
}

impl Session {
    fn open(target: Target, random: SplitMix) -> Result<Self, Failure> {
        let connection = BlockingConnection::open(target.address);
        let connection = connection.map_err(|error| Failure::Io(target.authority.clone(), error))?;
        let mut session = Self { target, connection, random, known: String::new() };
        session.known = session.address();
        let account = json!({ "email": session.known, "password": PASSWORD }).to_string();
        let (_, registered) = session.send(&session.target.post("/auth", &account), Duration::ZERO)?;
        // An earlier run with this seed may have registered it.
        let (_, signed_in) = session.send(&session.target.post("/auth/sign_in", &account), Duration::ZERO)?;
        if signed_in.status == 200 {
            return Ok(session);
        }
        let (first, second) = (registered.summary, signed_in.summary);
        Err(Failure::Server(format!("the account could not be made: {first}; nor signed in to: {second}")))
    }

    /// All of the same length.
    fn address(&mut self) -> String {
        format!("{:016x}@example.com", self.random.next())
    }

    fn measure(&mut self, probe: Probe, samples: usize, warm_up: usize) -> Result<Measured, Failure> {
        // With the known address: for an unknown one, 404 may be what the route answers.
        let first = probe.request(&self.target, Kind::Known, &self.known);
        let (_, first) = self.send(&first, Duration::ZERO)?;
        if matches!(first.status, 404 | 405) {
            return Ok(Measured::NotAvailable);
        }
        let mut answers: [Option<Seen>; Kind::ALL.len()] = Default::default();
        let mut times = Times::default();
        for (count, measured) in [(warm_up.max(1), false), (samples, true)] {
            // Shuffled as a whole: whatever drifts while this runs, it drifts for all kinds.
            let mut order: Vec<Kind> = Kind::ALL.iter().flat_map(|kind| vec![*kind; count]).collect();
            self.random.shuffle(&mut order);
            for kind in order {
                let email = if kind == Kind::Known { self.known.clone() } else { self.address() };
                let request = probe.request(&self.target, kind, &email);
                let delay = if kind == Kind::Delayed { DELAY } else { Duration::ZERO };
                let (took, seen) = self.send(&request, delay)?;
                let first = answers[kind as usize].get_or_insert_with(|| seen.clone());
                if *first != seen {
                    let (first, seen) = (&first.summary, &seen.summary);
                    return Err(Failure::Server(format!("{}: first {first}, then {seen}", kind.name())));
                }
                if measured {
                    times.0[kind as usize].push(took.as_secs_f64() * 1e6);
                }
            }
        }
        let [known, unknown, malformed, _] = &answers;
        if known != unknown {
            let shown = |seen: &Option<Seen>| {
                seen.as_ref().map_or_else(String::new, |seen| format!("{} {:?}", seen.summary, seen.headers))
            };
            return Ok(Measured::Differ(format!("  known: {}\n  unknown: {}", shown(known), shown(unknown))));
        }
        if malformed == unknown {
            return Err(Failure::Server("a malformed request is answered like the others, which is no control".into()));
        }
        Ok(Measured::Times(times))
    }

    /// From just before the request is written until the whole answer was read and understood.
    fn send(&mut self, request: &[u8], delay: Duration) -> Result<(Duration, Seen), Failure> {
        let start = now();
        let seen = self.connection.exchange(request, Seen::of);
        dawdle(delay);
        let took = now().duration_since(start);
        seen.map(|seen| (took, seen)).map_err(|error| Failure::Io(self.target.authority.clone(), error))
    }
}

/// Busily: a thread that sleeps comes back when the kernel pleases.
fn dawdle(delay: Duration) {
    let until: Instant = now() + delay;
    while now() < until {
        std::hint::spin_loop();
    }
}

/// What a client sees of an answer, as far as it is the same for the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    status: u16,
    headers: Vec<String>,
    summary: String,
    body: Vec<u8>,
}

impl Seen {
    fn of(answer: &Answer<'_>) -> Self {
        Self {
            status: answer.status,
            headers: answer.headers.iter().map(|header| header.name.to_ascii_lowercase()).collect(),
            summary: answer.summary(),
            body: answer.body.to_vec(),
        }
    }
}

/// Two kinds compared.
#[derive(Debug, Clone, Copy)]
struct Comparison {
    kinds: (Kind, Kind),
    ranks: RankTest,
    medians: Difference,
    quick: Difference,
}

impl Comparison {
    fn of(times: &Times, first: Kind, second: Kind, random: &mut SplitMix) -> Self {
        let (left, right) = (times.of(first), times.of(second));
        Self {
            kinds: (first, second),
            ranks: rank_test(left, right),
            medians: difference(left, right, 0.5, random),
            quick: difference(left, right, QUICK, random),
        }
    }

    /// Any of the tests is enough: they see shifts of the whole, of the middle and of the quick ones.
    fn told_apart(&self) -> bool {
        self.ranks.p < SIGNIFICANCE || self.medians.excludes_zero() || self.quick.excludes_zero()
    }
}

/// Everything that is to be said about a probe.
#[derive(Debug)]
struct Findings {
    accounts: Comparison,
    controls: [Comparison; 2],
}

impl Findings {
    fn of(times: &Times, random: &mut SplitMix) -> Self {
        let mut against_unknown = |kind| Comparison::of(times, kind, Kind::Unknown, random);
        Self {
            accounts: against_unknown(Kind::Known),
            controls: [against_unknown(Kind::Malformed), against_unknown(Kind::Delayed)],
        }
    }

    fn outcome(&self) -> Outcome {
        if self.accounts.told_apart() {
            Outcome::Bad
        } else if self.controls.iter().all(Comparison::told_apart) {
            Outcome::Good
        } else {
            Outcome::Inconclusive
        }
    }

    fn text(&self, times: &Times) -> String {
        let mut text =
            format!("  {:<18}{:>7}{:>12}{:>12}{:>12}{:>12}\n", "µs", "n", "10 %", "quartile 1", "median", "quartile 3");
        for kind in Kind::ALL {
            let mut sorted = times.of(kind).to_vec();
            sorted.sort_unstable_by(f64::total_cmp);
            let [quick, low, middle, high] = [QUICK, 0.25, 0.5, 0.75].map(|share| quantile(&sorted, share));
            let (name, n) = (kind.name(), sorted.len());
            let _ = writeln!(text, "  {name:<18}{n:>7}{quick:>12.1}{low:>12.1}{middle:>12.1}{high:>12.1}");
        }
        for comparison in std::iter::once(&self.accounts).chain(&self.controls) {
            let Comparison { kinds: (first, second), ranks, medians, quick } = comparison;
            let verdict = if comparison.told_apart() { "told apart" } else { "cannot be told apart" };
            let RankTest { z, p, effect } = ranks;
            let _ = writeln!(
                text,
                "  {} / {}: {verdict}\n    Mann-Whitney U: z = {z:.2}, p = {p:.1e}; effect {effect:.3} (0.5 if alike)",
                first.name(),
                second.name(),
            );
            for (name, Difference { estimate, low, high }) in [("medians", medians), ("10 % quantiles", quick)] {
                let _ = writeln!(
                    text,
                    "    difference of the {name}: {estimate:.1} µs, 99.9 % confidence {low:.1} to {high:.1}"
                );
            }
        }
        let effect = self.accounts.ranks.effect;
        let inside = if (effect - 0.5).abs() <= EFFECT { "within" } else { "outside" };
        let _ = writeln!(text, "  effect of an account: {effect:.3}, {inside} 0.5 ± {EFFECT}");
        let [medians, quick] = [self.accounts.medians, self.accounts.quick].map(|of| (of.high - of.low) / 2.0);
        let _ = writeln!(
            text,
            "  resolution: medians that are about {medians:.0} µs apart, or 10 % quantiles that are {quick:.0} µs apart"
        );
        text.push_str(match self.outcome() {
            Outcome::Good => "  => known and unknown addresses cannot be told apart, and both controls were\n",
            Outcome::Bad => "  => KNOWN AND UNKNOWN ADDRESSES CAN BE TOLD APART\n",
            Outcome::Inconclusive => {
                "  => inconclusive: a control was not told apart; take more samples or a quieter machine\n"
            }
        });
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sign-ins of about 20 ms with noise; `known` and `delayed` are what these kinds take longer.
    fn findings(known: f64, delayed: f64) -> Findings {
        let mut random = SplitMix::new(9);
        let mut draw = |mean: f64| (0..200).map(|_| mean + random.below(400) as f64).collect::<Vec<f64>>();
        let times = Times([draw(20_000.0 + known), draw(20_000.0), draw(300.0), draw(20_000.0 + delayed)]);
        Findings::of(&times, &mut SplitMix::new(1))
    }

    #[test]
    fn what_is_found_decides() {
        assert_eq!(findings(0.0, 200.0).outcome(), Outcome::Good);
        assert_eq!(findings(100.0, 200.0).outcome(), Outcome::Bad);
        // A control that is not noticed: neither would an account be.
        assert_eq!(findings(0.0, 0.0).outcome(), Outcome::Inconclusive);
    }

    #[test]
    fn requests_of_a_probe_are_of_one_length() {
        let target = Target::parse("http://127.0.0.1:1").unwrap();
        for probe in [Probe::SignIn, Probe::Reset] {
            let length = |kind| probe.request(&target, kind, "0123456789abcdef@example.com").len();
            assert_eq!(length(Kind::Known), length(Kind::Unknown));
            assert_ne!(length(Kind::Malformed), length(Kind::Unknown));
        }
    }
}
