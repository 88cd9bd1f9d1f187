//! Counted attempts: they mean [`Attempts::counted`].

use std::time::Duration;

use baton_core::Store;
use baton_core::attempts::{AttemptName, AttemptRule, Attempts, Counted};
use baton_core::clock::{Timestamp, millis};
use baton_core::session::AccountId;

use super::races::{NODES, RIVALS, race};
use super::{DAY, Harness, fresh};

/// Step by step, through a lock, its end, and the end of what is remembered.
pub async fn attempts_are_counted_as_the_core_counts_them(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let rule = AttemptRule { lock_for: seconds(2), forget_after: seconds(3), ..rule(3) };
    // Milliseconds before each attempt.
    let waits = [
        0, 0, 1_000, 0, 500, 0, 1_600, 0, 0, 0, 2_500, 0, 2_900, 0, 2_900, 100, 3_000, 0, 3_000, 0, 0, 0, 1_000, 1_100,
        0,
    ];
    // What the core makes of them if each was counted at the earliest and at the latest moment that it can have been.
    let mut expected = [Attempts::default(); 2];
    let mut seen = [0; 3];
    for (step, wait) in waits.into_iter().enumerate() {
        harness.advance(Duration::from_millis(wait)).await;
        let before = now(&*store).await;
        let answer = store.count_attempt(name(1), rule).await.expect("count");
        let after = now(&*store).await;
        let [early, late] = [(expected[0], before), (expected[1], after)].map(|(known, at)| known.counted(rule, at));
        expected = [early.0, late.0];
        match (early.1, late.1, answer) {
            (Counted::Locked(from), Counted::Locked(to), Counted::Locked(until)) => {
                assert!((from..=to).contains(&until), "step {step}: {until:?} is not in {from:?}..={to:?}");
                seen[2] += 1;
            }
            (expected, same, answer) => {
                assert_eq!((answer, answer), (expected, same), "step {step}");
                seen[usize::from(answer == Counted::Allowed { last: true })] += 1;
            }
        }
    }
    assert!(seen.iter().all(|times| *times > 2), "{seen:?}");
}

/// Who knocks at a locked door does not keep it locked.
pub async fn refused_attempts_do_not_lengthen_the_lock(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let rule = AttemptRule { lock_for: seconds(3), ..rule(2) };
    assert_eq!(count(&*store, 1, rule).await, Counted::Allowed { last: false });
    let before = now(&*store).await;
    assert_eq!(count(&*store, 1, rule).await, Counted::Allowed { last: true });
    let after = now(&*store).await;
    let Counted::Locked(until) = count(&*store, 1, rule).await else { panic!("not locked") };
    assert!((before.plus(rule.lock_for)..=after.plus(rule.lock_for)).contains(&until));
    while now(&*store).await.plus(Duration::from_millis(400)) < until {
        harness.advance(Duration::from_millis(300)).await;
        let answer = count(&*store, 1, rule).await;
        assert!(answer == Counted::Locked(until) || now(&*store).await >= until, "{answer:?}");
    }
    let rest = u64::try_from(millis(until.since(now(&*store).await))).expect("not negative");
    harness.advance(Duration::from_millis(rest)).await;
    // The count begins anew.
    assert_eq!(count(&*store, 1, rule).await, Counted::Allowed { last: false });
    assert_eq!(count(&*store, 1, rule).await, Counted::Allowed { last: true });
}

/// Whether it was a count or a lock; of this name alone.
pub async fn forgotten_attempts_count_no_more(harness: &dyn Harness) {
    let store = fresh(harness).await;
    store.forget_attempts(name(44)).await.expect("nothing to forget");
    for number in 1..=2 {
        assert_eq!(count(&*store, number, rule(2)).await, Counted::Allowed { last: false });
    }
    store.forget_attempts(name(1)).await.expect("forget");
    for number in 1..=2 {
        assert_eq!(count(&*store, number, rule(2)).await, Counted::Allowed { last: number == 2 });
    }
    assert_eq!(count(&*store, 1, rule(2)).await, Counted::Allowed { last: true });
    for number in 1..=2 {
        assert!(matches!(count(&*store, number, rule(2)).await, Counted::Locked(_)));
    }
    store.forget_attempts(name(1)).await.expect("forget");
    assert_eq!(count(&*store, 1, rule(2)).await, Counted::Allowed { last: false });
    assert!(matches!(count(&*store, 2, rule(2)).await, Counted::Locked(_)));
}

/// The longest spans and the largest numbers that a rule can hold, and the smallest.
pub async fn extreme_rules_work(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let longest = AttemptRule { max_attempts: u32::MAX, lock_for: Duration::MAX, forget_after: Duration::MAX };
    for _ in 0..3 {
        assert_eq!(count(&*store, 1, longest).await, Counted::Allowed { last: false });
    }
    // The rule may have been changed since: what counts is the one that is asked with.
    assert_eq!(count(&*store, 1, AttemptRule { max_attempts: 4, ..longest }).await, Counted::Allowed { last: true });
    assert_eq!(count(&*store, 1, longest).await, Counted::Locked(Timestamp::from_millis(i64::MAX)));
    let shortest = AttemptRule { max_attempts: 1, lock_for: Duration::ZERO, forget_after: Duration::ZERO };
    for _ in 0..3 {
        assert_eq!(count(&*store, 2, shortest).await, Counted::Allowed { last: true });
    }
    assert_eq!(count(&*store, 3, AttemptRule { lock_for: DAY, ..shortest }).await, Counted::Allowed { last: true });
    assert!(matches!(count(&*store, 3, shortest).await, Counted::Locked(_)));
}

/// A thousand at once are not a thousand guesses.
pub async fn of_many_attempts_no_more_pass_than_the_rule_says(harness: &dyn Harness) {
    let nodes = harness.nodes(NODES).await;
    for (round, max_attempts) in [(1, 5), (2, 1), (3, RIVALS as u32)] {
        let answers = race(&nodes, move |node, _| async move { count(&*node, round, rule(max_attempts)).await }).await;
        let times = |wanted: Counted| answers.iter().filter(|answer| **answer == wanted).count();
        assert_eq!(times(Counted::Allowed { last: true }), 1, "{answers:?}");
        assert_eq!(times(Counted::Allowed { last: false }), max_attempts as usize - 1, "{answers:?}");
        for node in &nodes {
            let Counted::Locked(until) = count(&**node, round, rule(max_attempts)).await else {
                panic!("it is not locked on every node")
            };
            assert_eq!(times(Counted::Locked(until)), RIVALS - max_attempts as usize, "{answers:?}");
        }
    }
}

/// Up to the limit, and neither what still counts nor a lock.
pub async fn purge_takes_only_expired_counts(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let short = AttemptRule { lock_for: seconds(1), forget_after: seconds(1), ..rule(2) };
    // Two of them are locked.
    for number in [1, 2, 3, 4, 5, 1, 2] {
        count(&*store, number, short).await;
    }
    for number in [8, 9, 9] {
        count(&*store, number, rule(2)).await;
    }
    harness.advance(seconds(1)).await;
    for (limit, purged) in [(0, 0), (2, 2), (2, 2), (2, 1), (2, 0)] {
        assert_eq!(store.purge(limit).await.expect("purge"), purged);
    }
    assert_eq!(count(&*store, 8, rule(2)).await, Counted::Allowed { last: true });
    assert!(matches!(count(&*store, 9, rule(2)).await, Counted::Locked(_)));
    assert_eq!(count(&*store, 1, rule(2)).await, Counted::Allowed { last: false });
}

/// With spans that no check gets to the end of.
fn rule(max_attempts: u32) -> AttemptRule {
    AttemptRule { max_attempts, lock_for: DAY, forget_after: DAY }
}

fn name(number: u8) -> AttemptName {
    AttemptName([number; 16])
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

async fn count(store: &dyn Store, number: u8, rule: AttemptRule) -> Counted {
    store.count_attempt(name(number), rule).await.expect("count")
}

async fn now(store: &dyn Store) -> Timestamp {
    store.sessions(AccountId(0)).await.expect("list").0
}
