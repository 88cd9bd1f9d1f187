//! Everything that is checked of the stores from outside.

mod clock;
mod faulty;
mod fixture;
mod losing;
#[cfg(feature = "postgres")]
mod postgres;
mod sqlite_migrate;
mod sqlite_open;
mod sqlite_writer;
mod suite;
