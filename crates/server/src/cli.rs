//! The command line.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use baton_store::clock::SystemClock;
use baton_store::redis::RedisOptions;
use clap::{Args, Parser, Subcommand};
use tokio::runtime::Runtime;
use tracing::Level;

use crate::config::{Config, DEFAULT_FILE, LogConfig, Problems, Sources, StoreConfig};
use crate::store_check::Report;
use crate::{StartError, keys, logging, migrate, openapi, run};

/// Authentication with access tokens that change on every request.
#[derive(Debug, Parser)]
#[command(name = "baton", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server to try things out with: loopback only, an SQLite file, a key of its own, protected resources below /demo
    Dev(Dev),
    /// Run the server
    Serve(Files),
    /// Bring the schema of the store up to date, say what was done, and end. Needs neither keys nor mail; several at once are safe
    Migrate {
        /// Change nothing; exit code 0 if nothing is to be done, 1 otherwise
        #[arg(long)]
        check: bool,
        #[command(flatten)]
        files: Files,
    },
    /// Look at the store
    #[command(subcommand)]
    Store(StoreCommand),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the HTTP interface as OpenAPI, as it is with this configuration
    Openapi(Files),
    /// Make keys
    #[command(subcommand)]
    Keys(KeysCommand),
}

#[derive(Debug, Args)]
struct Dev {
    /// Address and port; loopback only. Port 0 takes a free one [default: 127.0.0.1:3000]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Folder of the database and the key; made at the first run
    #[arg(long, value_name = "DIR", default_value = "./baton-data")]
    data_dir: String,
    /// Change a setting (`baton config print` lists them); may be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
struct Files {
    /// The configuration file; without one the defaults hold, and what the environment says
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change a setting (`baton config print` lists them); may be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Say what the store is, how far away, how it keeps what it is given, and whether a server could work with it (exit code 0)
    /// or not (1). Changes nothing
    Check {
        /// As one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        files: Files,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether `baton serve` would start with this configuration: `ok`, or everything that is wrong (exit code 2)
    Check(Files),
    /// Print the documented default file
    Print,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Put a fresh key in front of a key file, or print one
    New {
        /// A key for the JWTs that backends are sent, and not for tokens
        #[arg(long)]
        jwt: bool,
        /// The key file; made if there is none. The keys in it stay and go on verifying
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// Why the program ends without having done what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the configuration is not usable:\n{0}")]
    Config(#[from] Problems),
    #[error(transparent)]
    Keys(#[from] keys::KeysError),
    #[error("{0}")]
    DataDir(String),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0}: {1}")]
    Io(&'static str, #[source] io::Error),
    #[error("the database was not closed properly ({0}); nothing is lost, the next start reads its log")]
    Close(#[source] baton_core::StoreError),
}

impl Failure {
    /// 2 for a configuration or command line that cannot be used, 1 for everything else.
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(if matches!(self, Self::Config(_)) { 2 } else { 1 })
    }
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    match perform(Cli::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            // Nothing is left to be done if stderr is closed.
            let _ = writeln!(io::stderr(), "baton: {failure}");
            failure.exit_code()
        }
    }
}

fn perform(command: Command) -> Result<ExitCode, Failure> {
    let done = match command {
        Command::Migrate { check, files } => return bring_up_to_date(&sources_of(files), check),
        Command::Store(StoreCommand::Check { json, files }) => return check_store(&sources_of(files), json),
        Command::Dev(dev) => run::dev(&sources_of_dev(&dev), Path::new(&dev.data_dir)),
        Command::Serve(files) => run::serve(&sources_of(files)),
        Command::Config(ConfigCommand::Check(files)) => check(&sources_of(files)),
        Command::Config(ConfigCommand::Print) => print(DEFAULT_FILE),
        Command::Openapi(files) => describe(&sources_of(files)),
        Command::Keys(KeysCommand::New { jwt: false, file: None }) => print(&keys::fresh_line()?),
        Command::Keys(KeysCommand::New { jwt: true, file: None }) => print(&keys::jwt::fresh()?),
        Command::Keys(KeysCommand::New { jwt, file: Some(file) }) => {
            let added = if jwt { keys::jwt::add(&file)? } else { keys::add(&file)? };
            print(&format!("{added}\n"))
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn bring_up_to_date(sources: &Sources, only_look: bool) -> Result<ExitCode, Failure> {
    let (store, _, runtime) = stores_without_server(sources)?;
    let was = runtime
        .block_on(async { if only_look { migrate::look(&store).await } else { migrate::migrate(&store).await } });
    let was = was.map_err(StartError::Store)?;
    print(&migrate::told(was, !only_look))?;
    Ok(exit_code(!only_look || was.are_complete()))
}

fn check_store(sources: &Sources, json: bool) -> Result<ExitCode, Failure> {
    let (store, sessions, runtime) = stores_without_server(sources)?;
    let report = runtime.block_on(Report::of(&store, sessions.as_deref(), Arc::new(SystemClock::new())));
    print(&if json { format!("{:#}\n", report.json()) } else { report.text() })?;
    Ok(exit_code(report.is_usable()))
}

fn stores_without_server(sources: &Sources) -> Result<(StoreConfig, Option<Box<RedisOptions>>, Runtime), Failure> {
    let (store, sessions, log) = Config::load_stores(sources)?;
    // What the report says need not be said twice.
    logging::init(LogConfig { level: Level::ERROR, ..log });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok((store, sessions, runtime.map_err(|error| Failure::Io("threads", error))?))
}

fn exit_code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check(sources: &Sources) -> Result<(), Failure> {
    let (config, _) = run::ready_for_production(sources)?;
    for warning in config.warnings() {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    print("ok\n")
}

fn describe(sources: &Sources) -> Result<(), Failure> {
    let document = openapi::document(&Config::load(sources)?);
    let json = document.to_pretty_json().map_err(|error| Failure::Io("JSON", error.into()))?;
    print(&format!("{json}\n"))
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // `baton config print | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::Io("stdout", error)),
    }
}

fn sources_of(files: Files) -> Sources {
    Sources { file: files.config, set: files.set, env: environment(), ..Sources::default() }
}

fn sources_of_dev(dev: &Dev) -> Sources {
    let dir = &dev.data_dir;
    Sources {
        presets: vec![
            ("store.url", format!("sqlite:{dir}/baton.db")),
            ("keys.file", format!("{dir}/secret.key")),
            ("jwt.keys_file", format!("{dir}/jwt.key")),
            ("server.allowed_localhost_origins", "true".into()),
            ("rate_limits.enabled", "false".into()),
            ("password.min_score", "0".into()),
            ("confirmable", "false".into()),
            ("redirect_allow_localhost", "true".into()),
        ],
        flags: dev.listen.iter().map(|listen| ("--listen", "server.listen", listen.clone())).collect(),
        set: dev.set.clone(),
        env: environment(),
        ..Sources::default()
    }
}

/// The environment, as far as it is text.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into())))
        .collect()
}
