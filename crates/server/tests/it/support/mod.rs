//! The binary as a process of its own, and a client that speaks the protocol.

mod client;
mod process;

pub use client::{Answer, Call, Held, PASSWORD, agent, raw, raw_and_hang_up};
pub use process::{Baton, Ended, command, eventually, run};
