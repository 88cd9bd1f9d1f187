//! The promises of the rule (DESIGN §2.5) over random schedules of a simulated cluster, each with exactly the
//! conditions under which it is made.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use baton_core::{BatchResponse, OnReuse, Plan, Rejection, Reply, Rules};
use proptest::prelude::*;
use proptest::strategy::{Union, ValueTree};
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::common::{cases, ms, rules};
use crate::sim::{Counts, Keeps, Schedule, Seen, Shot, Step, What, Which, Why, run};

/// What may happen in a family of schedules.
#[derive(Debug, Clone)]
struct Family {
    keeps: Keeps,
    forgiving: bool,
    on_reuse: OnReuse,
    batch_response: BatchResponse,
    lost_writes: bool,
    lost_responses: bool,
    crashes: bool,
    sign_outs: bool,
    /// Requests that present an old token or a forged one.
    thieves: bool,
    unbatch: bool,
    /// By how much the buffer is longer than the longest round trip; `None`: the two have nothing to do with each other.
    slack: Option<std::ops::Range<i64>>,
    short_lived: bool,
    /// `change_headers_on_each_request`.
    rotating: bool,
}

/// Everything goes: for the promises that hold whatever clients do.
const WILD: Family = Family {
    keeps: Keeps::Anything,
    forgiving: false,
    on_reuse: OnReuse::Reject,
    batch_response: BatchResponse::Blank,
    lost_writes: false,
    lost_responses: true,
    crashes: true,
    sign_outs: true,
    thieves: true,
    unbatch: true,
    slack: None,
    short_lived: false,
    rotating: true,
};

/// A client that follows the protocol, with round trips below the buffer, whose responses arrive.
const POLITE: Family = Family {
    lost_responses: false,
    crashes: false,
    sign_outs: false,
    thieves: false,
    unbatch: false,
    slack: Some(1..4),
    ..WILD
};

impl Family {
    fn schedules(self) -> impl Strategy<Value = Schedule> {
        let buffer = match self.slack.clone() {
            Some(slack) => {
                (1i64..6, 0i64..6, slack).prop_map(|(go, back, slack)| (go + back + slack, go, back)).boxed()
            }
            None => (0i64..16, 0i64..8, 0i64..8).boxed(),
        };
        let lifespan = if self.short_lived { 30u64..150 } else { 1_000_000..1_000_001 };
        let steps = prop::collection::vec(self.step(), 1..40);
        (buffer, lifespan, steps).prop_map(move |((buffer, longest_go, longest_back), lifespan, mut steps)| {
            // When all is quiet, the client comes back twice: with a token that is not good any more it is found out.
            for gap in [120, 120] {
                steps.push(Step { gap, what: What::Request(Shot::default()) });
            }
            Schedule {
                rules: Rules {
                    change_headers_on_each_request: self.rotating,
                    forgive_lost_responses: self.forgiving,
                    on_reuse: self.on_reuse,
                    batch_response: self.batch_response,
                    token_lifespan: ms(lifespan),
                    session_max_lifetime: ms(lifespan * 2),
                    ..rules(u64::try_from(buffer).unwrap())
                },
                keeps: self.keeps,
                horizon: if self.lost_writes { 8 } else { 0 },
                durable_resend: true,
                longest_go,
                longest_back,
                steps,
            }
        })
    }

    fn step(&self) -> impl Strategy<Value = Step> + use<> {
        let mut kinds = vec![(120, self.shot().prop_map(What::Request).boxed())];
        if self.sign_outs {
            kinds.push((1, Just(What::SignOut).boxed()));
        }
        if self.lost_writes {
            kinds.push((18, (1u8..5).prop_map(What::Forget).boxed()));
        }
        if self.crashes {
            kinds.push((24, (0u8..3).prop_map(What::Crash).boxed()));
        }
        let gap = prop_oneof![4 => Just(0u8), 6 => 1u8..5, 3 => 5u8..20, 1 => 20u8..60];
        (gap, Union::new_weighted(kinds)).prop_map(|(gap, what)| Step { gap, what })
    }

    fn shot(&self) -> impl Strategy<Value = Shot> + use<> {
        let mut tokens = vec![(8, Just(Which::Held).boxed())];
        if self.thieves {
            tokens.push((3, any::<u8>().prop_map(Which::Issued).boxed()));
            tokens.push((1, (0u8..4).prop_map(Which::Forged).boxed()));
        }
        let odds = |on: bool, one_in: u8| (0..one_in).prop_map(move |n| on && n == one_in - 1);
        let handler = prop_oneof![3 => 0u8..3, 3 => 3u8..15, 1 => 15u8..70];
        let places = (0u8..3, 0u8..4);
        let delays = (any::<u8>(), any::<u8>(), handler, any::<u8>(), any::<u8>());
        let luck = (odds(self.lost_responses, 3), odds(self.unbatch, 4));
        (Union::new_weighted(tokens), places, delays, luck).prop_map(
            |(token, (node, order), (go, store, handler, hold, back), (lost, unbatch))| Shot {
                token,
                node,
                order,
                go,
                store,
                handler,
                hold,
                back,
                lost,
                unbatch,
            },
        )
    }
}

// --- what is checked on what was seen ------------------------------------------------------------------------------

type Checked = Result<(), String>;

/// S1: a token superseded for as long as the buffer or longer is not accepted.
fn superseded_tokens_are_dead(schedule: &Schedule, seen: &[Seen]) -> Checked {
    let buffer = i64::try_from(schedule.rules.batch_request_buffer_throttle.as_millis()).unwrap();
    let mut superseded_at = BTreeMap::new();
    for event in seen {
        match event {
            Seen::Moved { from, to, now } => {
                for generation in *from..*to {
                    superseded_at.entry(generation).or_insert(*now);
                }
            }
            Seen::Accepted { presented, now, .. } => dead(&superseded_at, buffer, *presented, *now)?,
            Seen::Probed { acceptable, now, .. } => {
                acceptable.iter().try_for_each(|p| dead(&superseded_at, buffer, *p, *now))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn dead(superseded_at: &BTreeMap<u32, i64>, buffer: i64, presented: u32, now: i64) -> Checked {
    match superseded_at.get(&presented) {
        Some(then) if now - then >= buffer => {
            Err(format!("S1: generation {presented}, superseded at {then}, is accepted at {now}"))
        }
        _ => Ok(()),
    }
}

/// What S1 becomes in forgiving mode: once a token was used, its predecessor is accepted only inside a window.
fn a_used_token_ends_its_predecessor(schedule: &Schedule, seen: &[Seen]) -> Checked {
    let buffer = i64::try_from(schedule.rules.batch_request_buffer_throttle.as_millis()).unwrap();
    let (mut newest_used, mut opened_at) = (0, i64::MIN / 2);
    for event in seen {
        match event {
            Seen::Accepted { presented, decided_at, .. } => {
                if *presented < newest_used && *decided_at >= opened_at + buffer {
                    return Err(format!("generation {newest_used} was used, and then {event:?}"));
                }
                newest_used = newest_used.max(*presented);
            }
            Seen::Answered { won: true, now, .. } => opened_at = *now,
            _ => {}
        }
    }
    Ok(())
}

/// S2: at most two generations are acceptable at any instant. When the store has lost writes those that it has yet to hear
/// of again come on top.
fn at_most_two_are_acceptable(_: &Schedule, seen: &[Seen]) -> Checked {
    for event in seen {
        let Seen::Probed { current, acceptable, now } = event else { continue };
        let known: Vec<_> = acceptable.iter().filter(|p| *p <= current).collect();
        if known.len() > 2 || !acceptable.contains(current) {
            return Err(format!("S2: {acceptable:?} are acceptable at {now}, the record being at {current}"));
        }
    }
    Ok(())
}

/// S2 without lost writes: nothing comes on top.
fn at_most_two_are_acceptable_at_all(schedule: &Schedule, seen: &[Seen]) -> Checked {
    at_most_two_are_acceptable(schedule, seen)?;
    match seen.iter().find(|event| matches!(event, Seen::Probed { acceptable, .. } if acceptable.len() > 2)) {
        Some(event) => Err(format!("S2: {event:?}")),
        None => Ok(()),
    }
}

/// S3: each generation is delivered by one response, or its node died with it in hand.
fn each_generation_is_delivered_once(_: &Schedule, seen: &[Seen]) -> Checked {
    let mut delivered = BTreeMap::new();
    let mut newest = 1;
    for event in seen {
        match event {
            Seen::Sent { generation } | Seen::Died { generation } => *delivered.entry(*generation).or_insert(0) += 1,
            Seen::Moved { to, .. } => newest = newest.max(*to),
            _ => {}
        }
    }
    for generation in 2..=newest {
        let times = delivered.get(&generation).copied().unwrap_or(0);
        if times != 1 {
            return Err(format!("S3: generation {generation} was delivered {times} times"));
        }
    }
    Ok(())
}

/// S4: once the session has ended, nothing is accepted and no token is handed out.
fn an_ended_session_stays_ended(_: &Schedule, seen: &[Seen]) -> Checked {
    let ended = seen.iter().position(|event| matches!(event, Seen::Ended)).unwrap_or(seen.len());
    for event in &seen[ended..] {
        match event {
            Seen::Accepted { .. } | Seen::Probed { .. } | Seen::Answered { reply: Reply::Token { .. }, .. } => {
                return Err(format!("S4: {event:?} after the end"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// S5, whatever the store loses: an accepted request finds or leaves the record no lower than the token it presents, its
/// response carries none older than that, and the record never rises to a generation that nobody issued.
fn nobody_is_set_back(_: &Schedule, seen: &[Seen]) -> Checked {
    for event in seen {
        match event {
            Seen::Invented { generation } => return Err(format!("S5: generation {generation} was never issued")),
            Seen::Accepted { presented, current, .. } if presented > current => {
                return Err(format!("S5: {event:?} leaves the record behind"));
            }
            Seen::Answered { presented, reply: Reply::Token { generation, .. }, .. }
                if generation.get() < *presented =>
            {
                return Err(format!("S5: {event:?} sets the client back"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// S5 without lost writes: neither the record nor the tokens handed out ever go down, and nothing needs healing.
fn generations_never_decrease(schedule: &Schedule, seen: &[Seen]) -> Checked {
    nobody_is_set_back(schedule, seen)?;
    let mut newest = 0;
    for event in seen {
        match event {
            Seen::Moved { from, to, .. } if *to != from + 1 => return Err(format!("S5: {event:?}")),
            Seen::Answered { reply: Reply::Token { generation, .. }, .. } => {
                if generation.get() < newest {
                    return Err(format!("S5: generation {generation} is handed out after {newest}"));
                }
                newest = generation.get();
            }
            _ => {}
        }
    }
    Ok(())
}

/// L1 and L2: nobody is refused, except for the end of the session that was announced.
fn nobody_is_refused(_: &Schedule, seen: &[Seen]) -> Checked {
    for event in seen {
        match event {
            Seen::Refused { why: Why::Rule(Rejection::Expired), expected, now } if *now >= expected.as_millis() => {
                return Ok(());
            }
            Seen::Refused { .. } => return Err(format!("L: {event:?}")),
            _ => {}
        }
    }
    Ok(())
}

/// Whoever wins a hand-out delivers its token; whoever loses delivers none (unless it asks for a repetition).
fn winners_deliver_and_losers_do_not(_: &Schedule, seen: &[Seen]) -> Checked {
    let mut plans = Vec::new();
    for event in seen {
        match event {
            Seen::Accepted { plan, .. } => plans.push(*plan),
            Seen::Answered { reply, won, .. } => {
                let token = matches!(reply, Reply::Token { .. });
                let may_repeat = plans.iter().any(|p| matches!(p, Plan::Repeat | Plan::HandOut { repeat: true, .. }));
                if (*won && !token) || (token && !won && !may_repeat) {
                    return Err(format!("{event:?}"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check(schedule: &Schedule, checks: &[fn(&Schedule, &[Seen]) -> Checked]) -> Result<(), TestCaseError> {
    let (seen, _) = run(schedule);
    for check in checks {
        check(schedule, &seen).map_err(TestCaseError::fail)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn s1_a_superseded_token_is_dead_after_the_buffer(schedule in WILD.schedules()) {
        check(&schedule, &[superseded_tokens_are_dead])?;
    }

    #[test]
    fn s1_in_forgiving_mode_a_used_token_ends_its_predecessor(schedule in Family { forgiving: true, ..WILD }.schedules()) {
        check(&schedule, &[a_used_token_ends_its_predecessor])?;
    }

    #[test]
    fn s2_at_most_two_tokens_are_acceptable(schedule in WILD.schedules()) {
        check(&schedule, &[at_most_two_are_acceptable_at_all])?;
    }

    #[test]
    fn s2_at_most_two_tokens_are_acceptable_in_forgiving_mode(
        schedule in Family { forgiving: true, ..WILD }.schedules()
    ) {
        check(&schedule, &[at_most_two_are_acceptable_at_all])?;
    }

    #[test]
    fn s2_lost_writes_add_only_tokens_that_heal(schedule in Family { lost_writes: true, ..WILD }.schedules()) {
        check(&schedule, &[at_most_two_are_acceptable])?;
    }

    #[test]
    fn s3_each_generation_is_delivered_by_one_response(schedule in Family { unbatch: false, ..WILD }.schedules()) {
        check(&schedule, &[each_generation_is_delivered_once, winners_deliver_and_losers_do_not])?;
    }

    #[test]
    fn s4_a_session_that_ended_stays_ended(
        schedule in Family { lost_writes: true, on_reuse: OnReuse::Revoke, forgiving: true, ..WILD }.schedules()
    ) {
        check(&schedule, &[an_ended_session_stays_ended])?;
    }

    #[test]
    fn s4_signing_out_stays_done_in_default_mode(schedule in Family { lost_writes: true, ..WILD }.schedules()) {
        check(&schedule, &[an_ended_session_stays_ended])?;
    }

    #[test]
    fn s5_generations_never_decrease(schedule in WILD.schedules()) {
        check(&schedule, &[generations_never_decrease])?;
    }

    #[test]
    fn s5_generations_never_decrease_in_forgiving_mode(schedule in Family { forgiving: true, ..WILD }.schedules()) {
        check(&schedule, &[generations_never_decrease])?;
    }

    #[test]
    fn s5_nobody_is_set_back_when_the_store_loses_writes(
        schedule in Family { lost_writes: true, forgiving: true, ..WILD }.schedules(),
        // Repetitions read the record a second time, which is when a store that has forgotten can do harm.
        repeating in Family { lost_writes: true, batch_response: BatchResponse::Repeat, ..WILD }.schedules(),
    ) {
        check(&schedule, &[nobody_is_set_back])?;
        check(&repeating, &[nobody_is_set_back])?;
    }

    #[test]
    fn l1_a_naive_client_is_never_refused(schedule in POLITE.schedules()) {
        check(&schedule, &[nobody_is_refused])?;
    }

    #[test]
    fn l1_a_naive_client_is_never_refused_in_forgiving_mode(
        schedule in Family { forgiving: true, ..POLITE }.schedules()
    ) {
        check(&schedule, &[nobody_is_refused])?;
    }

    #[test]
    fn l1_nobody_is_refused_before_the_announced_end(schedule in Family { short_lived: true, ..POLITE }.schedules()) {
        check(&schedule, &[nobody_is_refused])?;
    }

    #[test]
    fn l1_with_lost_writes_a_client_that_never_goes_back_is_never_refused(
        schedule in Family { lost_writes: true, keeps: Keeps::NewestGeneration, ..POLITE }.schedules()
    ) {
        check(&schedule, &[nobody_is_refused])?;
    }

    #[test]
    fn l1_with_repetitions_a_client_that_never_goes_back_is_never_refused(
        schedule in Family { unbatch: true, keeps: Keeps::NewestGeneration, ..POLITE }.schedules()
    ) {
        check(&schedule, &[nobody_is_refused])?;
    }

    #[test]
    fn l1_with_repetitions_a_client_that_compares_expiry_is_never_refused(
        schedule in Family {
            batch_response: BatchResponse::Repeat, keeps: Keeps::LatestExpiry, ..POLITE
        }.schedules()
    ) {
        check(&schedule, &[nobody_is_refused])?;
    }

    #[test]
    fn l1_a_token_that_does_not_rotate_is_never_refused(
        schedule in Family {
            rotating: false, forgiving: true, lost_responses: true, crashes: true, lost_writes: true, slack: None,
            ..POLITE
        }.schedules()
    ) {
        check(&schedule, &[nobody_is_refused, nobody_is_set_back])?;
    }

    #[test]
    fn l2_lost_responses_and_dead_nodes_are_forgiven(
        schedule in Family { forgiving: true, lost_responses: true, crashes: true, ..POLITE }.schedules()
    ) {
        check(&schedule, &[nobody_is_refused])?;
    }

    #[test]
    fn l2_holds_for_clients_that_retry_inside_the_window(
        schedule in Family {
            forgiving: true, lost_responses: true, crashes: true, unbatch: true, ..POLITE
        }.schedules()
    ) {
        check(&schedule, &[nobody_is_refused])?;
    }

    #[test]
    fn l2_with_lost_writes_too_for_a_client_that_never_goes_back(
        schedule in Family {
            forgiving: true, lost_responses: true, crashes: true, lost_writes: true,
            keeps: Keeps::NewestGeneration, ..POLITE
        }.schedules()
    ) {
        check(&schedule, &[nobody_is_refused])?;
    }
}

// --- can it fail? ------------------------------------------------------------------------------------------------

/// The same schedules every time.
fn samples(family: Family, count: usize) -> impl Iterator<Item = Schedule> {
    let mut runner = TestRunner::new_with_rng(cases(1), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let strategy = family.schedules();
    (0..count).map(move |_| strategy.new_tree(&mut runner).unwrap().current())
}

fn counted(family: Family) -> Counts {
    let mut total = Counts::default();
    for schedule in samples(family, 600) {
        total += run(&schedule).1;
    }
    total
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.rotations += other.rotations;
        self.batches += other.batches;
        self.heals += other.heals;
        self.resends += other.resends;
        self.notes += other.notes;
        self.repeats += other.repeats;
        self.lost_swaps += other.lost_swaps;
        self.superseded += other.superseded;
        self.expired += other.expired;
        self.gone += other.gone;
        self.forged += other.forged;
        self.died += other.died;
        self.forgot += other.forgot;
        self.predecessors += other.predecessors;
        self.gone_at_the_end += other.gone_at_the_end;
    }
}

#[test]
fn the_wild_schedules_are_not_vacuous() {
    let n = counted(WILD);
    for (what, times) in [
        ("rotations", n.rotations),
        ("batches", n.batches),
        ("repetitions", n.repeats),
        ("predecessors in the window", n.predecessors),
        ("lost swaps", n.lost_swaps),
        ("superseded", n.superseded),
        ("forged", n.forged),
        ("gone", n.gone),
        ("gone at the end", n.gone_at_the_end),
        ("nodes that died with a token in hand", n.died),
    ] {
        assert!(times >= 5, "{what}: {times} times in {n:?}");
    }
    assert_eq!((n.heals, n.resends, n.notes, n.forgot), (0, 0, 0, 0), "nothing of these without cause");
}

#[test]
fn the_forgetful_and_forgiving_schedules_are_not_vacuous() {
    let n = counted(Family { lost_writes: true, forgiving: true, ..WILD });
    for (what, times) in [
        ("heals", n.heals),
        ("resends", n.resends),
        ("notes", n.notes),
        ("lost writes", n.forgot),
        ("lost swaps", n.lost_swaps),
        ("superseded", n.superseded),
    ] {
        assert!(times >= 20, "{what}: {times} times in {n:?}");
    }
}

#[test]
fn the_polite_schedules_are_not_vacuous() {
    let n = counted(POLITE);
    for (what, times) in [
        ("rotations", n.rotations),
        ("batches", n.batches),
        ("predecessors in the window", n.predecessors),
        ("lost swaps", n.lost_swaps),
    ] {
        assert!(times >= 200, "{what}: {times} times in {n:?}");
    }
    assert_eq!((n.superseded, n.forged, n.gone, n.expired), (0, 0, 0, 0), "{n:?}");
    let n = counted(Family { lost_writes: true, keeps: Keeps::NewestGeneration, ..POLITE });
    assert!(n.heals >= 100 && n.forgot >= 100, "{n:?}");
    let n = counted(Family { forgiving: true, lost_responses: true, crashes: true, ..POLITE });
    assert!(n.resends >= 100 && n.died >= 20 && n.notes >= 100, "{n:?}");
    let n = counted(Family { short_lived: true, ..POLITE });
    assert!(n.expired >= 100, "{n:?}");
}

/// A condition of L1 or L2 that is left out must show: otherwise the schedules do not reach what it is there for.
fn somebody_is_refused(family: Family) {
    let refused = samples(family.clone(), 20_000).any(|schedule| {
        let (seen, _) = run(&schedule);
        nobody_is_refused(&schedule, &seen).is_err()
    });
    assert!(refused, "nobody is refused in {family:?}");
}

#[test]
fn a_round_trip_as_long_as_the_buffer_is_too_long() {
    somebody_is_refused(Family { slack: Some(0..1), ..POLITE });
}

#[test]
fn lost_responses_need_the_forgiving_mode() {
    somebody_is_refused(Family { lost_responses: true, ..POLITE });
}

#[test]
fn lost_writes_need_a_client_that_never_goes_back() {
    somebody_is_refused(Family { lost_writes: true, ..POLITE });
}

#[test]
fn repetitions_need_a_client_that_never_goes_back() {
    somebody_is_refused(Family { unbatch: true, ..POLITE });
}

#[test]
fn the_forgiving_mode_needs_answers_without_repetitions() {
    somebody_is_refused(Family {
        forgiving: true,
        lost_responses: true,
        batch_response: BatchResponse::Repeat,
        keeps: Keeps::NewestGeneration,
        ..POLITE
    });
}
