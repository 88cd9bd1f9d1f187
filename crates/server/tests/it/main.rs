//! The server as its users meet it: the binary `baton`, run as a process of its own.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

mod bad_input;
mod binary;
mod cli;
mod config;
mod crash;
mod gateways;
mod journey;
mod jwt;
mod mail;
mod openapi;
mod passwords;
mod postgres;
mod proxy;
mod proxy_h2;
mod proxy_hostile;
mod proxy_load;
mod rate_limits;
mod readme;
mod realms;
mod redis;
mod secrets;
mod store_commands;
mod support;
mod traces;
mod trouble;
mod webhooks;
