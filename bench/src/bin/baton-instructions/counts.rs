//! Counting, and the file that the counts are compared with.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use crate::cases;

/// A count may be off by this share of the one on file, up or down: a standard library or a C compiler that is a little newer
/// does not matter, an allocation too many does.
const TOLERANCE: f64 = 0.03;
/// What caches, tables and allocators need to settle.
const WARM_UP: u32 = 200;
/// Two writes of a store fill a page of its log now and then; over so many rounds that evens out.
const ROUNDS: u32 = 2_000;

/// Writes a new file.
pub(crate) fn bless(file: &Path) -> Result<(), String> {
    let mut text = String::from(
        "# Instructions a round, counted by scripts/instructions; docs/performance.md says of what. Written with --bless.\n",
    );
    for name in cases::names() {
        let count = count(name)?;
        say(&format!("{count:>9}  {name}"));
        text.push_str(&format!("{count:>9}  {name}\n"));
    }
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Whether all counts are as on file.
pub(crate) fn compare(file: &Path, only: &str) -> Result<bool, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let expected = parse(&text).ok_or_else(|| format!("{}: not a file of counts", file.display()))?;
    if !expected.iter().map(|(name, _)| *name).eq(cases::names()) {
        return Err(format!("{} is about other cases; write it anew with --bless", file.display()));
    }
    let mut good = true;
    say("   on file      now          ");
    for (name, before) in expected.into_iter().filter(|(name, _)| name.contains(only)) {
        let now = count(name)?;
        let change = now as f64 / before as f64 - 1.0;
        let off = change.abs() > TOLERANCE;
        good &= !off;
        let verdict = if off { "  <- beyond the tolerance" } else { "" };
        say(&format!("{before:>10} {now:>8} {:>+6.1} %  {name}{verdict}", change * 100.0));
    }
    if !good {
        say(&format!(
            "A count is off by more than {:.0} %. If that is meant, also if it got better: ./scripts/instructions --bless, and say \
             why in the commit.",
            TOLERANCE * 100.0
        ));
    }
    Ok(good)
}

/// `COUNT  NAME` on each line; comments begin with `#`.
fn parse(text: &str) -> Option<Vec<(&str, u64)>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (count, name) = line.trim_start().split_once(' ')?;
            let count = count.parse().ok().filter(|count| *count > 0)?;
            Some((name.trim_start(), count))
        })
        .collect()
}

/// What a round of a case takes.
fn count(name: &str) -> Result<u64, String> {
    let (few, many) = (under_valgrind(name, WARM_UP)?, under_valgrind(name, WARM_UP + ROUNDS)?);
    let more = many.checked_sub(few).ok_or("more rounds took fewer instructions")?;
    Ok((more + u64::from(ROUNDS) / 2) / u64::from(ROUNDS))
}

/// All instructions of a process that runs so many rounds.
fn under_valgrind(name: &str, rounds: u32) -> Result<u64, String> {
    let this = std::env::current_exe().map_err(|error| format!("the path of this program: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--fair-sched=yes"])
        .arg(this)
        .args(["-", "--only", name, "--rounds", &rounds.to_string()])
        // What happens to be set where this runs is on the stack of the process, too.
        .env_clear()
        .output()
        .map_err(|error| format!("valgrind: {error}. Install it: apt-get install -y valgrind"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    collected.filter(|_| output.status.success()).ok_or_else(|| format!("{name}: {text}"))
}

/// On stderr. If nobody listens, the exit code still tells.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_is_written() {
        let text = "# comment\n      123  token: verify\n  1000000  a: b\n";
        assert_eq!(parse(text), Some(vec![("token: verify", 123), ("a: b", 1_000_000)]));
        for text in ["x  token", "0  token", "12"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
