//! Stores for baton: where accounts and sessions live.
//!
//! | module | feature | for |
//! | --- | --- | --- |
//! | [`sqlite`] | `sqlite` | one machine: one file, nothing to set up |
//! | `postgres` | `postgres` | any number of nodes, on a PostgreSQL that is there already |
//! | `redis` | `redis` | the sessions alone, beside one of the others, on a Redis or Valkey that is there already |
//! | [`memory`] | `memory` | tests and examples |
//! | `conformance` | `conformance` | checking a [`Store`](baton_core::Store), one of these or one of your own |
//! | `faulty` | `conformance` | a store that fails when a test says so |
//!
//! What a store promises is written at [`baton_core::Store`].

pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "conformance")]
pub mod faulty;
pub mod inspection;
#[cfg(feature = "memory")]
pub mod memory;
pub mod migrations;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
pub mod registry;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "memory", feature = "sqlite"))]
mod time;
