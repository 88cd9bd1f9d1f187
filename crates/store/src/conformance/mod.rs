//! What every store has to do, as tests that any store can run.
//!
//! Say how to make your store, and let the macro write one test per check:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use baton_core::{Store, Timestamp};
//! use baton_store::{clock::ManualClock, conformance::Harness, memory::MemoryStore};
//!
//! #[derive(Default)]
//! struct InMemory(Arc<ManualClock>);
//!
//! #[async_trait::async_trait]
//! impl Harness for InMemory {
//!     fn name(&self) -> &'static str {
//!         "memory"
//!     }
//!     async fn nodes(&self, count: usize) -> Vec<Arc<dyn Store>> {
//!         let store: Arc<dyn Store> = Arc::new(MemoryStore::new(self.0.clone()));
//!         vec![store; count]
//!     }
//!     async fn advance(&self, by: Duration) {
//!         self.0.advance(by);
//!     }
//! }
//!
//! mod memory {
//!     baton_store::conformance!(super::InMemory::default());
//! }
//! # fn main() {}
//! ```
//!
//! The tests need tokio with `macros` and `rt-multi-thread`. A store whose time cannot be set may sleep in
//! [`Harness::advance`]; no check asks for more than [`LONGEST_STEP`] at once, and none needs the time to stand still.

pub mod accounts;
pub mod attempts;
pub mod keys;
pub mod model;
pub mod one_time;
pub mod races;
pub mod sessions;
pub mod swaps;
pub mod time;
pub mod traces;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use baton_core::Store;
use baton_core::event::Trace;
use baton_core::session::{
    Account, Device, NewAccount, NewSession, PasswordHash, Profile, Renewal, Session, Swap, Swapped,
};
use baton_core::token::{ClientId, Generation};

/// The longest time that a check moves the clock by in one step.
pub const LONGEST_STEP: Duration = Duration::from_secs(3);

/// A kind of store under test.
#[async_trait]
pub trait Harness: Send + Sync {
    /// What it is called, for messages.
    fn name(&self) -> &'static str;

    /// `count` handles on **one** fresh, empty store: connections of several processes where it can be shared, and clones
    /// otherwise.
    async fn nodes(&self, count: usize) -> Vec<Arc<dyn Store>>;

    /// Moves the time of every store of this harness on by at least this much.
    async fn advance(&self, by: Duration);
}

/// Writes one `#[tokio::test]` per check into the module where it is called. The expression makes a
/// [`Harness`](crate::conformance::Harness) and is evaluated once per test.
#[macro_export]
macro_rules! conformance {
    ($harness:expr) => {
        $crate::conformance! { @ $harness;
            accounts: a_new_account_is_found_by_its_uid
            accounts: uids_match_exactly
            accounts: a_uid_is_unique_within_realm_and_provider
            accounts: taken_leaves_nothing_behind
            accounts: an_account_is_made_with_its_session_or_not_at_all
            accounts: odd_strings_survive
            accounts: an_update_changes_what_it_names
            accounts: an_update_that_is_refused_leaves_everything
            accounts: a_session_needs_the_password_that_was_checked
            accounts: a_new_password_ends_the_sessions_it_is_told_to
            accounts: a_deleted_account_takes_its_sessions_along
            accounts: the_number_of_an_account_is_not_used_again
            accounts: a_permit_lasts_until_a_new_password
            accounts: the_first_confirmation_counts
            accounts: an_unconfirmed_address_waits_until_it_is_forgotten
            attempts: attempts_are_counted_as_the_core_counts_them
            attempts: refused_attempts_do_not_lengthen_the_lock
            attempts: forgotten_attempts_count_no_more
            attempts: extreme_rules_work
            attempts: of_many_attempts_no_more_pass_than_the_rule_says
            attempts: purge_takes_only_expired_counts
            keys: keys_are_remembered_and_may_be_changed_one_by_one
            keys: foreign_keys_are_refused_and_not_remembered
            keys: nodes_agree_on_the_keys
            model: answers_are_those_of_the_model
            one_time: a_token_is_found_with_its_account
            one_time: the_address_of_a_token_survives
            one_time: a_token_needs_its_account
            one_time: a_token_is_not_taken_over
            one_time: a_token_is_good_until_its_lifetime_ends
            one_time: a_token_is_redeemed_once
            one_time: redeeming_voids_one_purpose_of_one_account
            one_time: redeeming_changes_the_account_and_signs_in
            one_time: redeeming_keeps_to_the_device_limit
            one_time: a_refused_redemption_leaves_everything
            one_time: a_token_whose_letter_did_not_go_out_becomes_void
            one_time: a_change_voids_the_tokens_of_its_account
            one_time: a_deleted_account_takes_its_tokens_along
            one_time: one_of_many_redemptions_is_made
            one_time: no_token_is_left_of_an_account_deleted_meanwhile
            one_time: purge_takes_only_expired_tokens
            races: one_of_many_swaps_wins
            races: one_of_many_accounts_with_a_uid_is_made
            races: nothing_brings_an_ended_session_back
            races: nothing_is_left_of_an_account_deleted_meanwhile
            races: the_device_limit_holds
            races: a_read_sees_every_answered_swap
            races: a_read_is_not_before_what_it_shows
            sessions: a_new_session_is_as_the_core_makes_it
            sessions: an_unknown_client_is_not_found
            sessions: an_account_is_needed
            sessions: a_client_id_is_not_taken_over
            sessions: devices_survive
            sessions: the_least_recently_used_one_makes_room
            sessions: the_new_one_stays_whatever_the_time
            sessions: the_limit_counts_one_account_only
            sessions: only_their_account_ends_them
            sessions: they_are_listed_by_last_use
            sessions: purge_takes_only_expired_ones
            sessions: purge_stops_at_its_limit
            swaps: a_rotation_is_as_the_core_makes_it
            swaps: a_note_hands_nothing_out
            swaps: a_healing_swap_jumps_ahead
            swaps: each_part_of_the_version_counts
            swaps: the_expiry_never_moves_back
            swaps: the_absolute_lifetime_is_a_cap
            swaps: extreme_numbers_survive
            swaps: confirmed_never_falls
            swaps: the_address_is_noted
            swaps: an_ended_session_is_gone
            time: time_never_goes_back
            time: time_is_one_for_all_nodes
            time: it_can_be_checked
            traces: what_is_refused_leaves_no_trace
            traces: what_is_made_leaves_its_trace
            traces: an_event_comes_back_as_it_was
            traces: a_mail_comes_back_as_it_was
            traces: events_are_read_in_parts
            traces: a_claimed_message_comes_back_after_its_lease
            traces: a_settled_message_is_gone_or_due_later
            traces: a_message_that_was_claimed_again_is_left_alone
            traces: messages_come_in_the_order_in_which_they_are_due
            traces: a_message_is_claimed_by_one_of_many
            traces: many_traces_at_once_are_all_left
            traces: old_events_are_purged
        }
    };
    (@ $harness:expr; $($module:ident: $check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $check() {
                $crate::conformance::$module::$check(&$harness).await;
            }
        )*
    };
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const RENEWAL: Renewal = Renewal { lifespan: Duration::from_secs(14 * 24 * 60 * 60), max_lifetime: RENEWAL_CAP };
const RENEWAL_CAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

async fn fresh(harness: &dyn Harness) -> Arc<dyn Store> {
    harness.nodes(1).await.pop().expect("the harness was asked for one store")
}

fn client(number: u64) -> ClientId {
    let mut bytes = [0xa5; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    ClientId::from_bytes(bytes)
}

fn hash(text: &str) -> PasswordHash {
    PasswordHash::new(format!("$argon2id${text}"))
}

fn new_account(uid: &str) -> NewAccount {
    NewAccount {
        realm: "user".to_owned(),
        provider: "email".to_owned(),
        uid: uid.to_owned(),
        email: format!("{uid}@example.test"),
        profile: Profile::default(),
        password: hash(uid),
    }
}

fn new_session(number: u64) -> NewSession {
    NewSession {
        client: client(number),
        renewal: RENEWAL,
        device: Device::default(),
        max_devices: 10,
        if_password: None,
    }
}

async fn account(store: &dyn Store, uid: &str) -> Account {
    store.create_account(new_account(uid), None, &Trace::NONE).await.expect("create an account").0
}

/// An account with one session.
async fn signed_in(store: &dyn Store, uid: &str, number: u64) -> (Account, Session) {
    let (account, session) = store
        .create_account(new_account(uid), Some(new_session(number)), &Trace::NONE)
        .await
        .expect("create an account");
    (account, session.expect("a session was asked for"))
}

/// The swap that a request with the current token leads to.
fn rotation(session: &Session) -> Swap {
    Swap {
        expect: session.version(),
        generation: session.generation.next().expect("a next generation"),
        confirmed: session.generation,
        hand_out: Some(RENEWAL),
    }
}

/// Makes a swap that has to succeed, and answers the record after it, by the meaning of the core.
async fn must_swap(store: &dyn Store, session: &Session, swap: &Swap) -> Session {
    match store.swap(session.client, swap, None).await.expect("swap") {
        Swapped::Done(at) => session.swapped(swap, at).expect("the core refuses a swap that the store has made"),
        other => panic!("{other:?} instead of Done for {swap:?} on {session:?}"),
    }
}

/// The record as the store has it.
async fn stored(store: &dyn Store, client: ClientId) -> Option<Session> {
    store.find(client).await.expect("find").map(|found| found.session)
}

fn generation(number: u32) -> Generation {
    Generation::new(number)
}
