//! The report of a suite: every figure in it was measured by the run that wrote it.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use crate::Failure;
use crate::load::Report;
use crate::plot::{Bar, bars};
use crate::proc::Machine;
use crate::stats::median;
use crate::suite::{Measured, Results};

/// Above it, the generator may be what limits the figure.
const BUSY: f64 = 0.9;

/// A figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Self { min, median: median(&mut values), max }
    }
}

/// `min / median / max`, with the precision that is asked for.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        let Self { min, median, max } = self;
        write!(f, "{min:.digits$} / **{median:.digits$}** / {max:.digits$}")
    }
}

/// Writes the report, its plot and its figures.
pub(crate) fn write(file: &Path, revision: &str, machine: &Machine, results: &Results) -> Result<(), Failure> {
    let (plot, figures) = (file.with_extension("svg"), file.with_extension("json"));
    let name = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let title = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let json = serde_json::to_string_pretty(results);
    let json = json.map_err(|error| Failure::Io(figures.display().to_string(), error.into()))?;
    let text = markdown(&title, (&name(&plot), &name(&figures)), revision, machine, results);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(|error| Failure::Io(folder.display().to_string(), error))?;
    }
    for (file, text) in [(file, text), (&plot, svg(results)), (&figures, json + "\n")] {
        fs::write(file, text).map_err(|error| Failure::Io(file.display().to_string(), error))?;
    }
    Ok(())
}

fn svg(results: &Results) -> String {
    let rows: Vec<Bar<'_>> = results
        .throughput
        .iter()
        .map(|measured| Bar { name: measured.name, spread: measured.ratio(|report| report.per_second) })
        .collect();
    bars("Requests a second, as a share of the floor's (bar: median, line: all rounds)", &rows)
}

fn markdown(title: &str, files: (&str, &str), revision: &str, machine: &Machine, results: &Results) -> String {
    let (plot, figures) = files;
    let mut text = String::new();
    let Machine { cpu, cores, memory_gib, kernel, load } = machine;
    let rounds = results.half_load.rounds.len();
    let seconds = results.half_load.rounds.first().map_or(0.0, |round| round.floor.seconds);
    let _ = writeln!(
        text,
        "# Measured {title}\n\n\
         Written by `scripts/bench`; [what the figures mean](../../docs/performance.md). All of them: [{figures}]({figures}).\n\n\
         | | |\n| --- | --- |\n\
         | revision | {revision} |\n\
         | processor | {cpu}, {cores} cores, shared by server and generator |\n\
         | memory | {memory_gib:.1} GiB |\n\
         | kernel | Linux {kernel} |\n\
         | load average before | {load} |\n\
         | rounds | {rounds} of {seconds:.0} s each, floor and baton taking turns |\n\n\
         Three figures are the smallest, the **median** and the largest of the rounds.\n"
    );
    if results.quick {
        text.push_str(
            "**A quick run: it shows that the measurement works, and its figures are not to be quoted.**\n\n",
        );
    }
    let _ = writeln!(text, "## Throughput\n\n![Throughput by case]({plot})\n");
    let header = ["case", "baton by floor", "floor, requests/s", "baton, requests/s", "CPU by floor's", "new tokens"];
    table(&mut text, &header, results.throughput.iter().map(throughput));
    text.push_str("\nCPU: the server's, user and system, for a request. New tokens: of 100 answers.\n\n");

    let half = &results.half_load;
    let rate = half.rounds.first().and_then(|round| round.baton.rate).unwrap_or(0.0);
    let _ = writeln!(
        text,
        "## Latency at half load\n\n{}: {rate:.0} requests a second arrive, half of what baton served in the closed loop. µs from \
         the intended start.\n",
        half.name
    );
    let header = ["", "floor", "baton", "baton by floor"];
    table(
        &mut text,
        &header,
        LATENCIES.iter().map(|(name, figure)| {
            let (floor, baton, ratio) = (half.floor(figure), half.baton(figure), half.ratio(figure));
            vec![(*name).to_owned(), format!("{floor:.0}"), format!("{baton:.0}"), format!("{ratio:.2}")]
        }),
    );

    text.push_str(
        "\n## The generator\n\nAgainst a responder that does not read what it answers. Its CPU would allow: with all its threads \
         working and a core for each.\n\n",
    );
    table(
        &mut text,
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
    text.push('\n');
    caveats(&mut text, results);
    text
}

type Figure = fn(&Report) -> f64;

const LATENCIES: [(&str, Figure); 4] = [
    ("p50", |report| report.latency_us.p50),
    ("p99", |report| report.latency_us.p99),
    ("p99.9", |report| report.latency_us.p999),
    ("p99 until sent", |report| report.lag_us.map_or(0.0, |lag| lag.p99)),
];

fn throughput(measured: &Measured) -> Vec<String> {
    let cpu = |report: &Report| report.server.map_or(f64::NAN, |server| server.cpu_us_per_request);
    let tokens = measured.baton(|report| 100.0 * report.rotations as f64 / report.answers as f64).median;
    let per_second = |report: &Report| report.per_second;
    vec![
        measured.name.to_owned(),
        format!("{:.2}", measured.ratio(per_second)),
        format!("{:.0}", measured.floor(per_second)),
        format!("{:.0}", measured.baton(per_second)),
        format!("{:.2}", measured.ratio(cpu)),
        format!("{tokens:.1}"),
    ]
}

fn table(text: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    text.push_str(&line(&header.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>()));
    text.push_str(&line(&vec!["---".to_owned(); header.len()]));
    rows.for_each(|row| text.push_str(&line(&row)));
}

/// What a reader has to know before believing any of it.
fn caveats(text: &mut String, results: &Results) {
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
    for measured in results.throughput.iter().chain([&results.half_load]) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_smallest_median_largest() {
        let spread = Spread::of([0.5, 0.7, 0.6].into_iter());
        assert_eq!(spread, Spread { min: 0.5, median: 0.6, max: 0.7 });
        assert_eq!(format!("{spread:.1}"), "0.5 / **0.6** / 0.7");
    }

    #[test]
    fn tables_are_markdown() {
        let mut text = String::new();
        table(&mut text, &["a", "b"], std::iter::once(vec!["1".to_owned(), "2".to_owned()]));
        assert_eq!(text, "| a | b |\n| --- | --- |\n| 1 | 2 |\n");
    }
}
