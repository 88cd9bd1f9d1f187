//! The protocol over real HTTP.

mod bursts;
mod cookies;
mod credentials;
mod diagrams;
mod limits;
mod realms;
mod responses;
mod routes;
mod support;
mod tower;
mod updates;
