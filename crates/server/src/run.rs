//! `baton dev` and `baton serve`: start, say where, run until told to stop.

use std::fs::DirBuilder;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use baton_store::clock::SystemClock;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::Failure;
use crate::config::{Config, KeySource, Problems, Sources, StoreConfig};
use crate::keys::Keys;
use crate::start::{Routes, start_on};
use crate::workers::Threads;
use crate::{keys, logging};

/// Exit code of a program that a signal ended before it was done.
const INTERRUPTED: i32 = 130;

/// `baton dev`.
pub(crate) fn dev(sources: &Sources, data_dir: &Path) -> Result<(), Failure> {
    let config = Config::load(sources)?;
    config.check_dev()?;
    logging::init(config.log);
    make_folder(data_dir)?;
    if let KeySource::File(path) = &config.keys
        && keys::ensure(path)?
    {
        tracing::info!(file = %path.display(), "made a key");
    }
    if let KeySource::File(path) = &config.jwt.keys
        && config.sends_jwts()
        && keys::jwt::ensure(path)?
    {
        tracing::info!(file = %path.display(), "made a key for JWTs");
    }
    let keys = Keys::load(&config)?;
    run(&config, keys, Routes::WithDemo)
}

/// `baton serve`.
pub(crate) fn serve(sources: &Sources) -> Result<(), Failure> {
    let (config, keys) = ready_for_production(sources)?;
    logging::init(config.log);
    run(&config, keys, Routes::Plain)
}

/// The configuration and the keys, if `baton serve` may start with them.
pub(crate) fn ready_for_production(sources: &Sources) -> Result<(Config, Keys), Problems> {
    let config = Config::load(sources)?;
    let mut problems = config.check_production().err().unwrap_or_default();
    let tokens = keys::load(&config.keys).map_err(|error| problems.add(config.about_keys(&error)));
    let jwt = config.sends_jwts().then(|| keys::jwt::load(&config.jwt.keys)).transpose();
    let jwt = jwt.map_err(|error| problems.add(config.about_jwt_keys(&error)));
    match (tokens, jwt) {
        (Ok(tokens), Ok(jwt)) if problems.is_empty() => Ok((config, Keys { tokens, jwt })),
        _ => Err(problems),
    }
}

fn run(config: &Config, keys: Keys, routes: Routes) -> Result<(), Failure> {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let threads = if shares_statements(config) { Threads::together() } else { Threads::apart() };
    let threads = threads.map_err(|error| Failure::Io("threads", error))?;
    let clock = Arc::new(SystemClock::new());
    threads.block_on(async {
        let mut signals = Signals::new().map_err(|error| Failure::Io("signals", error))?;
        let running = tokio::select! {
            running = start_on(threads.workers(), config, keys, clock, routes) => running?,
            // Nothing has been accepted yet.
            _ = signals.next() => return Ok(()),
        };
        tracing::info!(version = env!("CARGO_PKG_VERSION"), address = %running.address(), "started");
        announce(&format!("listening on http://{}\n", running.address()));
        let name = signals.next().await;
        tracing::info!(signal = name, "stopping; a second signal ends the program at once");
        tokio::select! {
            stopped = running.stop() => stopped.map_err(Failure::Close)?,
            _ = signals.next() => {
                tracing::warn!("ended at once");
                std::process::exit(INTERRUPTED);
            }
        }
        tracing::info!("stopped");
        Ok(())
    })
}

/// Whether requests of all threads share statements, so that threads do better to help each other.
const fn shares_statements(config: &Config) -> bool {
    matches!((&config.store, &config.sessions), (StoreConfig::Postgres(_), None))
}

/// The first line on stdout, for whoever waits for it. A closed stdout is no reason to stop.
fn announce(line: &str) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()) {
        tracing::debug!(%error, "stdout");
    }
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        let shown = path.display();
        Failure::DataDir(if path.exists() {
            format!("the data folder {shown} is a file; name a folder with --data-dir")
        } else {
            format!("the data folder {shown} cannot be made: {error}")
        })
    })
}

/// The signals that end the program.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}
