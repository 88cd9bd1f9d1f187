//! The binary as a process of its own, and a client that speaks the protocol.

mod client;
mod process;
mod site;
mod smtp;

pub use client::{Answer, Call, Held, PASSWORD, agent, raw, raw_and_hang_up};
pub use process::{Baton, Ended, command, eventually, run};
pub use site::{Http, Site};
pub use smtp::{Mode, PUBLIC_URL, Received, SMTP_PASSWORD, Smtp, parameters};
