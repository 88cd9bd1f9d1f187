//! Letters as people and mail servers get them.

mod letters;
mod mailbox;
mod overrides;
mod server;
mod smtp;
mod support;
mod tls;
