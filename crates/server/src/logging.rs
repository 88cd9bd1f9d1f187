//! The log: on stderr, for people or for machines, without secrets.

use std::io;
use std::panic::{self, PanicHookInfo};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Format, LogConfig};

/// The crates whose level `log.level` sets.
const OURS: [&str; 5] = ["baton", "baton_server", "baton_axum", "baton_engine", "baton_store"];

/// Sends what this process logs to stderr. A second call does nothing.
pub fn init(config: LogConfig) {
    // Libraries below stay at `warn`: hyper and h2 write whole requests to the log at lower levels, tokens and all.
    let level = LevelFilter::from_level(config.level);
    let below = level.min(LevelFilter::WARN);
    let filter = Targets::new().with_default(below).with_targets(OURS.map(|target| (target, level)));
    let registry = tracing_subscriber::registry().with(filter);
    let done = match config.format {
        Format::Human => registry.with(fmt::layer().with_writer(io::stderr).with_ansi(false)).try_init(),
        Format::Json => registry.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init(),
    };
    if done.is_ok() {
        panic::set_hook(Box::new(log_panic));
    }
}

/// Where it happened, and what was said only if that is a literal of the program: a formatted message may quote input.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let said = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not shown: it may quote input)");
    tracing::error!(at, said, "panicked");
}
