//! The report of a suite: every figure in it was measured by the run that wrote it.

mod sections;
mod targets;

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use crate::Failure;
use crate::plot::{Bar, bars};
use crate::proc::Machine;
use crate::stats::median;
use crate::suite::Results;

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
        .map(|measured| Bar { name: &measured.name, spread: measured.ratio(|report| report.per_second) })
        .collect();
    bars("Requests a second, as a share of the floor's (bar: median, line: all rounds)", &rows)
}

fn markdown(title: &str, files: (&str, &str), revision: &str, machine: &Machine, results: &Results) -> String {
    let (plot, figures) = files;
    let mut text = String::new();
    let Machine { cpu, cores, memory_gib, kernel, load } = machine;
    let _ = writeln!(
        text,
        "# Measured {title}\n\n\
         Written by `scripts/bench`; [what the figures mean](../../docs/performance.md). All of them: [{figures}]({figures}).\n\n\
         | | |\n| --- | --- |\n\
         | revision | {revision} |\n\
         | processor | {cpu}, {cores} cores, shared by the servers and the generator |\n\
         | memory | {memory_gib:.1} GiB |\n\
         | kernel | Linux {kernel} |\n\
         | load average before | {load} |\n\n\
         Three figures are the smallest, the **median** and the largest of the rounds.\n"
    );
    if results.quick {
        text.push_str(
            "**A quick run: it shows that the measurement works, and its figures are not to be quoted.**\n\n",
        );
    }
    targets::write(&mut text, results);
    sections::throughput(&mut text, plot, results);
    sections::half_load(&mut text, results);
    sections::proxy(&mut text, results);
    sections::forged(&mut text, results);
    sections::growth(&mut text, results);
    sections::start(&mut text, results);
    sections::sign_ins(&mut text, results);
    sections::generator(&mut text, results);
    text
}

fn table(text: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    text.push_str(&line(&header.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>()));
    text.push_str(&line(&vec!["---".to_owned(); header.len()]));
    rows.for_each(|row| text.push_str(&line(&row)));
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
