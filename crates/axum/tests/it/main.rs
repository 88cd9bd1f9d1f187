//! The protocol over real HTTP.

mod bursts;
mod confirmations;
mod cookies;
mod credentials;
mod diagrams;
mod happenings;
mod hostile;
mod letter_limits;
mod letterbox;
mod limits;
mod lockouts;
mod one_answer;
mod one_time;
#[cfg(feature = "openapi")]
mod openapi;
mod outbox;
mod realms;
mod resets;
mod responses;
mod routes;
mod support;
mod tower;
mod updates;
