//! The store's time.

use std::time::Duration;

use baton_core::clock::Timestamp;
use baton_core::event::Trace;
use baton_core::session::Swapped;

use super::{Harness, fresh, must_swap, rotation, signed_in};

/// Over every kind of answer that carries a time.
pub async fn time_never_goes_back(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (account, mut session) = signed_in(&*store, "ada", 1).await;
    let mut last = session.created_at;
    let mut follows = |now: Timestamp| {
        assert!(now >= last, "{now:?} after {last:?}");
        last = now;
    };
    for round in 0..20 {
        if round % 4 == 0 {
            harness.advance(Duration::from_millis(5)).await;
        }
        let swap = rotation(&session);
        session = must_swap(&*store, &session, &swap).await;
        follows(session.last_seen_at);
        follows(store.find(session.client).await.expect("find").expect("it exists").now);
        follows(store.sessions(account.id).await.expect("list").0);
        let renewed =
            store.create_session(account.id, super::new_session(100 + round), &Trace::NONE).await.expect("create");
        follows(renewed.created_at);
    }
    harness.advance(Duration::from_secs(1)).await;
    let before = last;
    let now = store.sessions(account.id).await.expect("list").0;
    assert!(now.since(before) >= Duration::from_secs(1), "the harness moved the time, and the store did not notice");
}

/// What one node has written is not in another node's future.
pub async fn time_is_one_for_all_nodes(harness: &dyn Harness) {
    let nodes = harness.nodes(3).await;
    let (_, mut session) = signed_in(&*nodes[0], "ada", 1).await;
    let mut last = session.created_at;
    for round in 0..30 {
        if round % 5 == 0 {
            harness.advance(Duration::from_millis(3)).await;
        }
        let node = &nodes[round % nodes.len()];
        let found = node.find(session.client).await.expect("find").expect("it exists");
        assert!(found.now >= last, "{:?} after {last:?}", found.now);
        let swap = rotation(&session);
        let Swapped::Done(at) = node.swap(session.client, &swap, None).await.expect("swap") else {
            panic!("lost a swap without a rival");
        };
        assert!(at >= found.now);
        last = at;
        session = session.swapped(&swap, at).expect("it was made");
    }
}

/// A store that works says so.
pub async fn it_can_be_checked(harness: &dyn Harness) {
    let store = fresh(harness).await;
    store.check().await.expect("a fresh store");
    signed_in(&*store, "ada", 1).await;
    store.check().await.expect("a used store");
}
