//! The protocol over real HTTP.

mod bursts;
mod diagrams;
mod support;
