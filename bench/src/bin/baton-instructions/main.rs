//! How many instructions the hot path takes, as a gate: the one figure that a shared machine repeats.
//!
//! Valgrind runs this program once with a few rounds of a case and once with many, on a processor that it emulates; the
//! difference by the number of rounds is what a round takes, without start-up and without warming up. How to use it, and what it
//! does not see: `docs/performance.md`.

mod cases;
mod counts;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// As the server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Counts the instructions of the hot path, and compares them with those on file.
#[derive(Debug, Parser)]
#[command(name = "baton-instructions", version, about)]
struct Cli {
    /// The file with the counts
    file: PathBuf,
    /// Write it instead of comparing
    #[arg(long)]
    bless: bool,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "", conflicts_with = "bless")]
    only: String,
    /// Run rounds of a case and count nothing: what valgrind, or `perf record`, is given
    #[arg(long, value_name = "ROUNDS", requires = "only", conflicts_with = "bless")]
    rounds: Option<u32>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.rounds {
        Some(rounds) => cases::run(&cli.only, rounds).map(|()| true),
        None if cli.bless => counts::bless(&cli.file).map(|()| true),
        None => counts::compare(&cli.file, &cli.only),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            counts::say(&format!("baton-instructions: {error}"));
            ExitCode::from(2)
        }
    }
}
