//! The rotation core of baton.
//!
//! An access token that changes on every request: a client presents token *n*, the response carries token *n+1*, and
//! *n* is dead. Everything that decides about a token is here, as pure functions over a small record:
//!
//! - [`token`] derives and verifies tokens ([`KeyRing`]); a token that did not come from it cannot reach the rule,
//!   because only [`KeyRing::verify`] makes a [`Genuine`].
//! - [`decide()`](decide::decide) says what a request may do, [`complete()`](decide::complete) what its response carries.
//! - [`session`] is the record and its one conditional change, the [`Swap`].
//! - [`ports`] is what a store, a clock and a random source have to provide.
//! - [`wire`] is the protocol over plain strings: names, shapes, codes.
//!
//! This crate knows no runtime, no HTTP, no SQL, no time of day and no randomness: all of those come in as arguments.

pub mod attempts;
pub mod clock;
pub mod decide;
pub mod error;
pub mod event;
pub mod letter;
pub mod one_time;
pub mod password;
pub mod ports;
pub mod session;
pub mod token;
pub mod wire;

pub use clock::{Clock, Timestamp};
pub use decide::{BatchResponse, OnReuse, Plan, Rejection, Reply, Rules, Verdict, complete, decide};
pub use error::{CreateAccountError, CreateSessionError, RedeemError, StoreError, UpdateAccountError};
pub use ports::{Random, Store};
pub use session::{Account, AccountId, Session, Swap, Swapped};
pub use token::{ClientId, Generation, Genuine, Key, KeyRing, Token};
