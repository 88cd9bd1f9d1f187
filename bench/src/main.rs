//! `baton-bench`: what baton serves, and whether the time it takes to answer tells which accounts exist.
//!
//! How to measure, and what the figures mean: `docs/performance.md`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod clock;
mod fill;
mod floor;
mod http;
mod load;
mod plot;
mod proc;
mod random;
mod report;
mod server;
mod stats;
mod suite;
mod timing;

/// As the server's: a floor with another one would be a floor of something else.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures baton, or anything else that speaks its protocol.
#[derive(Debug, Parser)]
#[command(name = "baton-bench", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Test whether the timing of answers tells which accounts exist; exit code 1 if it does, 2 if nothing can be said
    Timing(timing::Timing),
    /// Load a server with users whose tokens rotate; exit code 1 if a request was not answered as expected
    Load(load::Load),
    /// Serve what any server would have to do: the bare framework, answering the same body without looking at the request
    Floor(floor::Floor),
    /// Measure baton against the floor in alternating rounds, and write the report
    Suite(suite::Suite),
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// A file, a process or a connection, and what became of it.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// The command line asks for what cannot be done.
    #[error("{0}")]
    Usage(String),
    /// The server did not answer as one that can be measured.
    #[error("{0}")]
    Server(String),
}

/// What a measurement says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    /// What must not be was found.
    Bad,
    /// The measurement could not have found it.
    Inconclusive,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Timing(timing) => timing.run(),
        Command::Load(load) => load.run(),
        Command::Floor(floor) => floor.run().map(|()| Outcome::Good),
        Command::Suite(suite) => suite.run(),
    };
    match outcome {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::from(1),
        Ok(Outcome::Inconclusive) => ExitCode::from(2),
        Err(failure) => {
            note(&format!("baton-bench: {failure}"));
            ExitCode::from(2)
        }
    }
}

/// A result.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| Failure::Io("stdout".into(), error))
}

/// What is going on, for whoever is waiting. If nobody is, nothing is lost.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
