//! Everything that is checked of the stores from outside.

mod clock;
mod faulty;
mod fixture;
mod losing;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod processes;
#[cfg(feature = "postgres")]
mod proxy;
#[cfg(all(feature = "redis", feature = "postgres"))]
mod redis;
mod sqlite_migrate;
mod sqlite_open;
mod sqlite_purge;
mod sqlite_recent;
mod sqlite_writer;
mod suite;
