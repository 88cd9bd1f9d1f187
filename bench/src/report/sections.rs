//! The parts of a report, each of what was measured for it; nothing where nothing was.

use std::fmt::Write as _;

use super::{Spread, table};
use crate::load::Report;
use crate::suite::{Measured, Results};

/// Above it, the generator may be what limits the figure.
const BUSY: f64 = 0.9;

type Figure = fn(&Report) -> f64;

const LATENCIES: [(&str, Figure); 4] = [
    ("p50", |report| report.latency_us.p50),
    ("p99", |report| report.latency_us.p99),
    ("p99.9", |report| report.latency_us.p999),
    ("p99 until sent", |report| report.lag_us.map_or(0.0, |lag| lag.p99)),
];

pub(super) fn throughput(text: &mut String, plot: &str, results: &Results) {
    let Some(first) = results.throughput.first() else { return };
    let seconds = first.rounds.first().map_or(0.0, |round| round.floor.seconds);
    let _ = writeln!(
        text,
        "## Throughput\n\n![Throughput by case]({plot})\n\n{} rounds of {seconds:.0} s each, floor and baton taking turns.\n",
        first.rounds.len()
    );
    let header = ["case", "baton by floor", "floor, requests/s", "baton, requests/s", "CPU by floor's", "new tokens"];
    table(text, &header, results.throughput.iter().map(row));
    text.push_str("\nCPU: the server's, user and system, for a request; not that of PostgreSQL or Redis. New tokens: of 100 answers.\n\n");
    caveats(text, results);
}

fn row(measured: &Measured) -> Vec<String> {
    let tokens = measured.baton(|report| 100.0 * report.rotations as f64 / report.answers as f64).median;
    let per_second = |report: &Report| report.per_second;
    vec![
        measured.name.clone(),
        format!("{:.2}", measured.ratio(per_second)),
        format!("{:.0}", measured.floor(per_second)),
        format!("{:.0}", measured.baton(per_second)),
        format!("{:.2}", measured.ratio(cpu)),
        format!("{tokens:.1}"),
    ]
}

fn cpu(report: &Report) -> f64 {
    report.server.map_or(f64::NAN, |server| server.cpu_us_per_request)
}

fn peak_mib(report: &Report) -> f64 {
    report.server.map_or(f64::NAN, |server| server.peak_kib as f64 / 1024.0)
}

pub(super) fn half_load(text: &mut String, results: &Results) {
    let Some(half) = &results.half_load else { return };
    let rate = half.rounds.first().and_then(|round| round.baton.rate).unwrap_or(0.0);
    let _ = writeln!(
        text,
        "## Latency at half load\n\n{}: {rate:.0} requests a second arrive, half of what baton served in the closed loop. µs from \
         the intended start.\n",
        half.name
    );
    let rows = LATENCIES.iter().map(|(name, figure)| {
        let (floor, baton, ratio) = (half.floor(figure), half.baton(figure), half.ratio(figure));
        vec![(*name).to_owned(), format!("{floor:.0}"), format!("{baton:.0}"), format!("{ratio:.2}")]
    });
    table(text, &["", "floor", "baton", "baton by floor"], rows);
    text.push('\n');
}

pub(super) fn proxy(text: &mut String, results: &Results) {
    if results.proxy.is_empty() {
        return;
    }
    text.push_str(
        "## As a proxy\n\nBy nginx, which passes on to the same backend without asking who it is. The backend takes its share of the \
         cores from both.\n\n",
    );
    let header = ["case", "baton by nginx", "nginx, requests/s", "baton, requests/s", "CPU by nginx's", "new tokens"];
    table(text, &header, results.proxy.iter().map(row));
    text.push('\n');
}

pub(super) fn forged(text: &mut String, results: &Results) {
    let Some(asked) = &results.asked else { return };
    let _ = writeln!(
        text,
        "## Forged tokens and the store\n\nWhile {} requests with forged tokens were refused, Redis, which kept the sessions, ran {} \
         commands; while {} with good ones were served, {}.\n",
        asked.refused, asked.while_refusing, asked.served, asked.while_serving
    );
}

pub(super) fn growth(text: &mut String, results: &Results) {
    if results.growth.is_empty() {
        return;
    }
    text.push_str(
        "## More and more sessions\n\nEvery request rotates; the users that take turns are drawn out of all. Cost: the time of a \
         request, by that with the fewest sessions.\n\n",
    );
    let header =
        ["store", "sessions", "users", "requests/s", "cost", "server's CPU, µs a request", "server's peak memory, MiB"];
    let rows = results.growth.iter().flat_map(|growth| {
        growth.sizes.iter().zip(growth.sizes.first().into_iter().cycle()).map(|(size, smallest)| {
            vec![
                growth.store.to_owned(),
                size.sessions.to_string(),
                size.users.to_string(),
                format!("{:.0}", size.figure(|report| report.per_second)),
                format!("{:.2}", size.cost(smallest)),
                format!("{:.1}", size.figure(cpu)),
                format!("{:.0}", size.figure(peak_mib).max),
            ]
        })
    });
    table(text, &header, rows);
    text.push('\n');
}

pub(super) fn start(text: &mut String, results: &Results) {
    let Some(starts) = &results.starts else { return };
    let milliseconds = Spread::of(starts.milliseconds.iter().copied());
    let resident = Spread::of(starts.resident_kib.iter().map(|kib| kib / 1024.0));
    let _ = writeln!(
        text,
        "## Start and memory\n\nFrom the start of the process on a file with {} sessions to the first answer to a token: \
         {milliseconds:.1} ms, in {} starts. Resident after it: {resident:.1} MiB.",
        starts.sessions,
        starts.milliseconds.len()
    );
    if let Some(idle) = &results.idle_kib {
        let (started, hashed) = (idle.started / 1024.0, idle.hashed / 1024.0);
        let _ = writeln!(
            text,
            "Resident with an empty file: {started:.1} MiB, and {hashed:.1} MiB right after a password was hashed."
        );
    }
    text.push('\n');
}

pub(super) fn sign_ins(text: &mut String, results: &Results) {
    let Some(sign_ins) = &results.sign_ins else { return };
    let spread = |values: &[f64]| Spread::of(values.iter().copied());
    let of = |reports: &[Report], figure: Figure| Spread::of(reports.iter().map(figure));
    let rate = sign_ins.undisturbed.first().and_then(|report| report.rate).unwrap_or(0.0);
    let _ = writeln!(
        text,
        "## Sign-ins\n\n{:.1} a second, where argon2id alone does {:.1} on as many threads ({}). Requests with tokens that arrive \
         meanwhile, {rate:.0} a second, µs from the intended start:\n",
        spread(&sign_ins.sign_ins),
        spread(&sign_ins.hashes),
        sign_ins.threads
    );
    let rows = LATENCIES.iter().map(|(name, figure)| {
        let (alone, beside) = (of(&sign_ins.undisturbed, *figure), of(&sign_ins.disturbed, *figure));
        vec![(*name).to_owned(), format!("{alone:.0}"), format!("{beside:.0}")]
    });
    table(text, &["", "nobody signs in", "as many as can"], rows);
    text.push('\n');
}

pub(super) fn generator(text: &mut String, results: &Results) {
    text.push_str(
        "## The generator\n\nAgainst a responder that does not read what it answers. Its CPU would allow: with all its threads \
         working and a core for each.\n\n",
    );
    table(
        text,
        &["pages of", "requests/s", "its CPU, µs a request", "busy", "its CPU would allow, requests/s"],
        results.ceiling.iter().map(|report| {
            let (each, busy) = (report.generator_cpu_us_per_request, report.generator_busy * 100.0);
            vec![
                report.batch.to_string(),
                format!("{:.0}", report.per_second),
                format!("{each:.1}"),
                format!("{busy:.0} %"),
                format!("{:.0}", report.generator_threads as f64 * 1e6 / each),
            ]
        }),
    );
}

/// What a reader has to know before believing any of it.
fn caveats(text: &mut String, results: &Results) {
    let before = text.len();
    for measured in &results.throughput {
        let busy = measured.floor(|report| report.generator_busy).max;
        if busy > BUSY {
            let _ = writeln!(
                text,
                "- {}: the generator was busy {:.0} % of the time against the floor, which may serve more than it could ask; \
                 the ratio is then too favourable. The CPU ratio is not concerned.",
                measured.name,
                busy * 100.0
            );
        }
    }
    for measured in results.throughput.iter().chain(&results.half_load) {
        let sides = measured.rounds.iter().flat_map(|round| [&round.floor, &round.baton]);
        let (bad, unserved) = sides.fold((0, 0), |(bad, unserved), report| {
            (bad + report.rejections + report.failures, unserved + report.unserved)
        });
        if bad > 0 {
            let _ = writeln!(text, "- {}: **{bad} requests were not answered as expected.**", measured.name);
        }
        if unserved > 0 {
            let _ = writeln!(text, "- {}: {unserved} requests were due and never sent: an overload.", measured.name);
        }
    }
    if text.len() > before {
        text.push('\n');
    }
}
