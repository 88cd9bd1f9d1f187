//! The binary as a process of its own, and a client that speaks the protocol.

mod backend;
mod client;
mod process;
mod program;
mod site;
mod smtp;
mod tls;

pub use backend::{Backend, nobody, raw_backend, read_head, read_to_the_end};
pub use client::{Answer, Call, Held, PASSWORD, agent, raw, raw_and_hang_up};
pub use process::{Baton, Ended, command, eventually, run};
pub use program::Program;
pub use site::{Http, Site};
pub use smtp::{Mode, PUBLIC_URL, Received, SMTP_PASSWORD, Smtp, parameters};
pub use tls::{Identity, Tls};
