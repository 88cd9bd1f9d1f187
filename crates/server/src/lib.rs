//! The baton server as a library: what the binary `baton` is made of, for tests that want it in their own process.
//!
//! [`Config`] is read from files, environment and flags; [`start()`] turns it into a running server, with the clock and the
//! keys as arguments. The command line around it is [`cli`].

mod access_log;
mod app;
mod body_limits;
pub mod cli;
mod client_addr;
pub mod config;
mod courier;
mod demo;
mod edge;
mod first_bytes;
mod forward_auth;
mod head_timer;
mod health;
mod jwt;
pub mod keys;
mod lengths;
mod listen;
pub mod logging;
mod mailbox;
mod migrate;
mod openapi;
mod playground;
mod proxy;
mod purge;
mod run;
mod start;
mod store;
mod store_check;
mod tls;
mod webhooks;
mod workers;

pub use config::{Config, Problems, Sources};
pub use start::{Routes, Running, StartError, start};

/// An error and what lies below it: the log shows only the uppermost.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
