//! Throw-away servers for tests: in folders of their own, on free ports, from the system's packages. They are ended with
//! whoever started them, also if that was killed. A program that is missing is a panic with the command that installs it.

pub mod postgres;
pub mod redis;
