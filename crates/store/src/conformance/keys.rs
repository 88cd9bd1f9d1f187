//! The keys that a store was used with.

use baton_core::ports::KeyBinding;

use super::{Harness, fresh};

fn ring(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A ring with one known key in it is the same ring, a step further.
pub async fn keys_are_remembered_and_may_be_changed_one_by_one(harness: &dyn Harness) {
    let store = fresh(harness).await;
    for names in [&["a"][..], &["a"], &["b", "a"], &["b"], &["c", "b"], &["d", "c"], &["d", "e"], &["e"]] {
        assert_eq!(store.bind_keys(&ring(names)).await.expect("bind"), KeyBinding::Bound, "{names:?}");
    }
}

/// Asking again does not make them known.
pub async fn foreign_keys_are_refused_and_not_remembered(harness: &dyn Harness) {
    let store = fresh(harness).await;
    assert_eq!(store.bind_keys(&ring(&["a", "b"])).await.expect("bind"), KeyBinding::Bound);
    for names in [&["x", "y"][..], &["x"], &["y"], &["A"]] {
        assert_eq!(store.bind_keys(&ring(names)).await.expect("bind"), KeyBinding::Foreign, "{names:?}");
    }
    assert_eq!(store.bind_keys(&ring(&["b"])).await.expect("bind"), KeyBinding::Bound);
}

/// Two nodes that start at once with different keys: one of them has to notice.
pub async fn nodes_agree_on_the_keys(harness: &dyn Harness) {
    let nodes = harness.nodes(2).await;
    let (mine, theirs) = (ring(&["a"]), ring(&["b"]));
    let (first, second) = tokio::join!(nodes[0].bind_keys(&mine), nodes[1].bind_keys(&theirs));
    let answers = [first.expect("bind"), second.expect("bind")];
    assert_eq!(answers.iter().filter(|answer| **answer == KeyBinding::Bound).count(), 1, "{answers:?}");
}
