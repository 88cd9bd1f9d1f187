//! The protocol over real HTTP.

mod bursts;
mod cookies;
mod credentials;
mod diagrams;
mod limits;
#[cfg(feature = "openapi")]
mod openapi;
mod realms;
mod responses;
mod routes;
mod support;
mod tower;
mod updates;
