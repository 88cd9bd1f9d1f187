//! `baton-faults`: lets everything around baton fail while clients use it, and proves on their histories what must hold.
//!
//! What is done, what is checked and what the output means: `docs/faults.md`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

mod check;
mod clients;
mod cluster;
mod history;
mod http;
mod node;
mod proxy;
mod report;
mod run;
mod scenarios;
mod world;

/// Lets everything around baton fail while clients use it, and checks what they saw. Exit code 1 if a rule was broken, 2 if
/// nothing can be said
#[derive(Debug, Parser)]
#[command(name = "baton-faults", version, about)]
struct Cli {
    /// The program
    #[arg(long, value_name = "FILE")]
    baton: PathBuf,
    /// A folder in which 0, 1, … are small file systems to be filled, one for each run
    #[arg(long, value_name = "DIR")]
    small_disks: PathBuf,
    /// Each scenario once, with fewer clients
    #[arg(long)]
    short: bool,
    /// For what is drawn: the faults' order and lengths, and what clients do
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Only runs and scenarios whose name (store/mode/scenario) holds this
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How often each scenario is run, in the long form
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// How many runs there are at once
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// How many clients each run has [default: 150 in the short form, else 300]
    #[arg(long, value_name = "N")]
    clients: Option<usize>,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// A file, a process or a connection, and what became of it.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// A server did not do what it does when all is well.
    #[error("{0}")]
    Server(String),
    /// The command line asks for what cannot be done.
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    /// For `map_err`.
    fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Io(what.to_owned(), error)
    }
}

fn main() -> ExitCode {
    match run::all(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            note(&format!("baton-faults: {failure}"));
            ExitCode::from(2)
        }
    }
}

/// A result.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::io("stdout"))
}

/// What is going on, for whoever is waiting. If nobody is, nothing is lost.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
