//! What is printed: `docs/faults.md` says what the figures mean.

use std::fmt::Write as _;
use std::ops::AddAssign;

use crate::check::{Counts, Findings, Rule};

/// Violations that are shown; the others are counted.
const SHOWN: usize = 20;

/// A figure by its name.
type Column = (&'static str, fn(&Counts) -> u64);

const COLUMNS: [Column; 15] = [
    ("requests", |counts| counts.requests),
    ("rotations", |counts| counts.rotations),
    ("batches", |counts| counts.batches),
    ("heals", |counts| counts.heals),
    ("lost CAS", |counts| counts.lost_swaps),
    ("503", |counts| counts.unavailable),
    ("superseded", |counts| counts.superseded),
    ("lost", |counts| counts.lost),
    ("sign-ins", |counts| counts.sign_ins),
    ("ends", |counts| counts.sign_outs),
    ("ghosts", |counts| counts.ghosts),
    ("in doubt", |counts| counts.doubts),
    ("again", |counts| counts.again),
    ("late", |counts| counts.late),
    ("locked out", |counts| counts.locked_out),
];

/// Rules whose count is printed even if it is 0.
const ZEROES: [(Rule, &str); 11] = [
    (Rule::Superseded, "superseded tokens accepted beyond their bound"),
    (Rule::ThirdToken, "tokens accepted beside two newer ones"),
    (Rule::Twice, "generations delivered twice"),
    (Rule::Resurrected, "resurrected sessions"),
    (Rule::Backwards, "generations that went backwards"),
    (Rule::LockedOut, "lock-outs without a lost response"),
    (Rule::Stuck, "clients stuck at the end"),
    (Rule::SessionLost, "sessions lost"),
    (Rule::LostTooMuch, "rotations lost beyond the bound"),
    (Rule::RefusedWhileAway, "401 while the store was away"),
    (Rule::Status, "answers that no client expects (5xx other than 503)"),
];

/// A run, phase by phase.
pub(crate) fn run(name: &str, findings: &Findings) -> String {
    let mut text = format!("\n{name}\n");
    let width = findings.counts.iter().map(|(phase, _)| phase.len()).max().unwrap_or(0).max(5);
    let _ = write!(text, "{:width$}", "");
    for (column, _) in COLUMNS {
        let _ = write!(text, "  {column:>10}");
    }
    text.push('\n');
    let total = findings.total();
    for (phase, counts) in findings.counts.iter().map(|(phase, counts)| (&**phase, counts)).chain([("total", &total)]) {
        let _ = write!(text, "{phase:width$}");
        for (_, figure) in COLUMNS {
            let _ = write!(text, "  {:>10}", figure(counts));
        }
        text.push('\n');
    }
    let longest = findings.longest_acceptance.as_secs_f64();
    let _ = writeln!(text, "accepted after it was superseded, at the longest: {longest:.3} s");
    for (fault, (age, bound)) in &findings.oldest_loss {
        let (age, bound) = (age.as_secs_f64(), bound.as_secs_f64());
        let _ = writeln!(text, "oldest rotation lost when {fault}: {age:.3} s before it, of {bound:.3} s allowed");
    }
    for (rule, what) in ZEROES {
        let count = findings.violations.iter().filter(|violation| violation.rule == rule).count();
        let _ = writeln!(text, "{count:>6}  {what}");
    }
    for violation in findings.violations.iter().take(SHOWN) {
        let _ = writeln!(text, "BROKEN  {}\n        {}", violation.rule, violation.what);
    }
    text
}

/// What has to occur in a whole run, and did not.
pub(crate) fn missing(total: &Counts) -> Vec<&'static str> {
    let needed = [
        (total.heals, "a lost rotation that healed"),
        (total.lost_swaps, "a lost compare-and-set"),
        (total.superseded, "a superseded token that was refused"),
        (total.batches, "a batch"),
        (total.unavailable, "a 503"),
        (total.lost, "a lost response"),
        (total.ghosts, "a token presented after its session had ended"),
    ];
    needed.into_iter().filter(|(count, _)| *count == 0).map(|(_, what)| what).collect()
}

/// The end.
pub(crate) fn summary(total: &Counts, missing: &[&str], good: bool) -> String {
    let mut text = format!(
        "\n{} requests, {} rotations, {} heals, {} lost compare-and-sets, {} superseded tokens refused\n",
        total.requests, total.rotations, total.heals, total.lost_swaps, total.superseded
    );
    for what in missing {
        let _ = writeln!(text, "BROKEN  never occurred: {what}");
    }
    text.push_str(if good && missing.is_empty() { "ok\n" } else { "FAILED\n" });
    text
}

impl Findings {
    pub(crate) fn total(&self) -> Counts {
        let mut total = Counts::default();
        for (_, counts) in &self.counts {
            total += *counts;
        }
        total
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.rotations += other.rotations;
        self.batches += other.batches;
        self.heals += other.heals;
        self.lost_swaps += other.lost_swaps;
        self.unavailable += other.unavailable;
        self.superseded += other.superseded;
        self.lost += other.lost;
        self.sign_ins += other.sign_ins;
        self.sign_outs += other.sign_outs;
        self.ghosts += other.ghosts;
        self.locked_out += other.locked_out;
        self.doubts += other.doubts;
        self.again += other.again;
        self.late += other.late;
    }
}
