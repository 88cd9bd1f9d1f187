//! The store in memory that loses its newest writes.

use std::sync::Arc;

use baton_core::event::Trace;
use baton_core::ports::Store;
use baton_core::session::{Session, Swap, Swapped};
use baton_store::clock::ManualClock;
use baton_store::memory::MemoryStore;

use crate::fixture::{RENEWAL, START, client, new_account, new_session, rotation};

async fn losing(horizon: usize) -> MemoryStore {
    let store = MemoryStore::losing(Arc::new(ManualClock::new(START)), horizon);
    let (account, _) =
        store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("make");
    store.create_session(account.id, new_session(2), &Trace::NONE).await.expect("make");
    store
}

async fn find(store: &MemoryStore, number: u8) -> Session {
    store.find(client(number)).await.expect("find").expect("it exists").session
}

async fn generations(store: &MemoryStore) -> (u32, u32) {
    (find(store, 1).await.generation.get(), find(store, 2).await.generation.get())
}

async fn rotate(store: &MemoryStore, number: u8) {
    let swap = rotation(&find(store, number).await);
    assert!(matches!(store.swap(client(number), &swap, None).await, Ok(Swapped::Done(_))));
}

/// Hands the current token out once more.
async fn resend(store: &MemoryStore, number: u8) {
    let Session { generation, confirmed, .. } = find(store, number).await;
    let swap = Swap { expect: find(store, number).await.version(), generation, confirmed, hand_out: Some(RENEWAL) };
    assert!(swap.resends());
    assert!(matches!(store.swap(client(number), &swap, None).await, Ok(Swapped::Done(_))));
}

#[tokio::test]
async fn the_newest_rotations_are_lost_first() {
    let store = losing(8).await;
    let fresh = find(&store, 1).await;
    for number in [1, 2, 1] {
        rotate(&store, number).await;
    }
    assert_eq!(generations(&store).await, (3, 2));
    assert_eq!(store.lose(1), 1);
    assert_eq!(generations(&store).await, (2, 2));
    assert_eq!(store.lose(9), 2);
    assert_eq!(generations(&store).await, (1, 1));
    assert_eq!(find(&store, 1).await, fresh, "all of the record is as it was");
    assert_eq!(store.lose(1), 0);
}

#[tokio::test]
async fn no_more_is_lost_than_the_horizon_says() {
    for horizon in [0, 2] {
        let store = losing(horizon).await;
        for _ in 0..5 {
            rotate(&store, 1).await;
        }
        assert_eq!(store.lose(9), horizon);
        assert_eq!(generations(&store).await.0, 6 - u32::try_from(horizon).expect("small"));
    }
}

#[tokio::test]
async fn a_durable_write_saves_what_was_written_before_to_its_session() {
    let store = losing(8).await;
    rotate(&store, 1).await;
    rotate(&store, 2).await;
    resend(&store, 1).await;
    rotate(&store, 1).await;
    let handed_out = find(&store, 1).await;
    assert_eq!(store.lose(9), 2);
    assert_eq!(generations(&store).await, (2, 1));
    assert_ne!(find(&store, 1).await, handed_out, "the rotation after it was at risk");
}

#[tokio::test]
async fn a_session_that_ended_stays_ended() {
    let store = losing(8).await;
    rotate(&store, 1).await;
    let account = find(&store, 1).await.account;
    assert!(store.end_session(account, client(1), &Trace::NONE).await.expect("end"));
    store.lose(9);
    assert_eq!(store.find(client(1)).await.expect("find"), None);
}
