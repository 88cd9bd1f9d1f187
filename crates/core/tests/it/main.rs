//! Proof of the rotation core, in one binary so that it is linked once.
//!
//! - `table`, `session`: every row of the rule and its edges, by example.
//! - `token`, `one_time`, `wire`, `password`: the codecs.
//! - `attempts`, `event`: counted attempts; names and orders that others keep.
//! - `schedule`: random schedules of a simulated cluster, over the promises S1–S5, L1 and L2 (DESIGN §2.5).
//! - `regressions`: schedules that once broke, or would break, a promise.
//! - `model`: the same promises over every interleaving of a small cluster.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod attempts;
mod common;
mod event;
mod model;
mod one_time;
mod password;
mod regressions;
mod schedule;
mod session;
mod sim;
mod table;
mod token;
mod wire;
