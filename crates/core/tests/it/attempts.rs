//! Counting attempts: as a table, and over any series of them.

use std::time::Duration;

use baton_core::attempts::{AttemptName, AttemptRule, Attempts, Counted};
use proptest::prelude::*;

use crate::common::{at, cases, ms};

const RULE: AttemptRule =
    AttemptRule { max_attempts: 3, lock_for: Duration::from_millis(100), forget_after: Duration::from_millis(1_000) };
const MORE: Counted = Counted::Allowed { last: false };
const LAST: Counted = Counted::Allowed { last: true };

fn locked(until: i64) -> Counted {
    Counted::Locked(at(until))
}

fn attempts(count: u32, locked_until: Option<i64>, expires_at: i64) -> Attempts {
    Attempts { count, locked_until: locked_until.map(at), expires_at: at(expires_at) }
}

#[test]
fn every_row_of_the_rule() {
    let none = Attempts::default();
    let locked_at_50 = attempts(3, Some(150), 150);
    let rows = [
        // The first, at any time.
        (none, 0, attempts(1, None, 1_000), MORE),
        (none, 50, attempts(1, None, 1_050), MORE),
        (none, -50, attempts(1, None, 950), MORE),
        // One more, until the last moment at which the others are remembered.
        (attempts(1, None, 1_000), 0, attempts(2, None, 1_000), MORE),
        (attempts(1, None, 1_000), 999, attempts(2, None, 1_999), MORE),
        (attempts(1, None, 1_000), 1_000, attempts(1, None, 2_000), MORE),
        (attempts(2, None, 1_000), 5_000, attempts(1, None, 6_000), MORE),
        // The last.
        (attempts(2, None, 1_000), 50, locked_at_50, LAST),
        (attempts(2, None, 1_000), 999, attempts(3, Some(1_099), 1_099), LAST),
        // Under an older rule there could be more.
        (attempts(7, None, 1_000), 50, attempts(8, Some(150), 150), LAST),
        (attempts(u32::MAX, None, 1_000), 50, attempts(u32::MAX, Some(150), 150), LAST),
        // The lock, to its last moment; then it begins anew.
        (locked_at_50, 50, locked_at_50, locked(150)),
        (locked_at_50, 149, locked_at_50, locked(150)),
        (locked_at_50, 150, attempts(1, None, 1_150), MORE),
        (locked_at_50, 9_999, attempts(1, None, 10_999), MORE),
    ];
    for (row, (before, now, after, answer)) in rows.into_iter().enumerate() {
        assert_eq!(before.counted(RULE, at(now)), (after, answer), "row {row}");
    }
}

#[test]
fn extreme_rules() {
    let one = AttemptRule { max_attempts: 1, ..RULE };
    for max_attempts in [0, 1] {
        let answer = Attempts::default().counted(AttemptRule { max_attempts, ..one }, at(0));
        assert_eq!(answer, (attempts(1, Some(100), 100), LAST));
    }
    let ever = AttemptRule { lock_for: Duration::MAX, ..one };
    let (after, _) = Attempts::default().counted(ever, at(0));
    assert_eq!(after, attempts(1, Some(i64::MAX), i64::MAX));
    assert_eq!(after.counted(ever, at(i64::MAX - 1)), (after, locked(i64::MAX)));
    let never = AttemptRule { lock_for: ms(0), ..one };
    assert_eq!(attempts(1, Some(0), 0).counted(never, at(0)), (attempts(1, Some(0), 0), LAST));
}

#[test]
fn the_debug_form_of_a_name_hides_it() {
    assert_eq!(format!("{:?}", AttemptName([0xab; 16])), "AttemptName(..)");
}

/// Attempts under one name: the time of each, its answer and what is known after it.
fn series(rule: AttemptRule, waits: &[u64]) -> Vec<(i64, Counted, Attempts)> {
    let (mut now, mut known) = (0, Attempts::default());
    let attempt = |wait: &u64| {
        now += i64::try_from(*wait).unwrap();
        let (next, answer) = known.counted(rule, at(now));
        known = next;
        (now, answer, next)
    };
    waits.iter().map(attempt).collect()
}

prop_compose! {
    fn rule()(max_attempts in 1..6_u32, lock_for in 1..60_u64, forget_after in 1..120_u64) -> AttemptRule {
        AttemptRule { max_attempts, lock_for: ms(lock_for), forget_after: ms(forget_after) }
    }
}

fn waits() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(prop_oneof![4 => 0..3_u64, 1 => 0..130_u64], 1..80)
}

proptest! {
    #![proptest_config(cases(1024))]

    /// Where what is remembered outlives the lock; otherwise who waits that long between two is not counted at all.
    #[test]
    fn no_more_pass_in_the_span_of_a_lock_than_the_rule_says(rule in rule(), waits in waits()) {
        let rule = AttemptRule { forget_after: rule.forget_after.max(rule.lock_for), ..rule };
        let allowed: Vec<i64> = series(rule, &waits).iter().filter(|(_, a, _)| !matches!(a, Counted::Locked(_))).map(|(now, ..)| *now).collect();
        let max = rule.max_attempts as usize;
        for (first, after) in allowed.iter().zip(allowed.iter().skip(max)) {
            prop_assert!(at(*after) >= at(*first).plus(rule.lock_for), "{} pass in {first}..={after}", max + 1);
        }
    }

    #[test]
    fn refused_ones_change_nothing(rule in rule(), waits in waits()) {
        let mut before = Attempts::default();
        for (now, answer, after) in series(rule, &waits) {
            if let Counted::Locked(until) = answer {
                prop_assert_eq!(after, before);
                prop_assert!(at(now) < until && before.locked_until == Some(until));
            }
            before = after;
        }
    }

    #[test]
    fn each_lock_has_one_last_attempt_and_follows_it(rule in rule(), waits in waits()) {
        let (mut lock, mut since) = (None, 0);
        for (now, answer, after) in series(rule, &waits) {
            match answer {
                Counted::Allowed { last } => {
                    prop_assert!(lock.is_none_or(|until| at(now) >= until), "it passes a lock");
                    since = if lock.take().is_some() { 1 } else { since + 1 };
                    prop_assert!(!last || after.count == rule.max_attempts && since >= rule.max_attempts);
                    prop_assert!(last || after.count < rule.max_attempts);
                    lock = last.then(|| at(now).plus(rule.lock_for));
                    prop_assert_eq!(after.locked_until, lock);
                }
                Counted::Locked(until) => prop_assert_eq!(Some(until), lock, "refused without a last one"),
            }
            // A store may forget it then, and nothing changes.
            let at_the_end = after.expires_at;
            prop_assert_eq!(after.counted(rule, at_the_end), Attempts::default().counted(rule, at_the_end));
        }
    }
}
