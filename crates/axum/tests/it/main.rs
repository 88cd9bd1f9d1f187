//! The protocol over real HTTP.

mod bursts;
mod cookies;
mod confirmations;
mod credentials;
mod diagrams;
mod hostile;
mod letterbox;
mod limits;
mod lockouts;
mod one_answer;
mod one_time;
mod outbox;
mod realms;
mod resets;
mod responses;
mod routes;
mod support;
mod tower;
mod updates;
