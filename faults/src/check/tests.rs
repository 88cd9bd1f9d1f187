//! Histories made by hand: good ones that must pass, and for each rule one that breaks it, which must be caught.

use super::*;
use crate::history::{Doubt, Phase, Session, SignIn};

const BUFFER: Duration = Duration::from_secs(2);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A session with its requests, in default mode.
fn history(exchanges: Vec<Exchange>) -> History {
    History {
        buffer: BUFFER,
        sessions: vec![Session { client: "c".into() }],
        exchanges,
        phases: vec![Phase { name: "all".into(), from: Duration::ZERO, until: Duration::MAX }],
        ..History::default()
    }
}

fn forgiving(exchanges: Vec<Exchange>) -> History {
    History { forgiving: true, ..history(exchanges) }
}

/// A request of the owner's that was on the way for 10 ms at most, with the answer of its last argument.
fn request(sent: u64, presented: u32, answer: Answer) -> Exchange {
    let (actor, deed) = (Actor::Owner, Deed::Get(Duration::ZERO));
    Exchange { session: 0, actor, node: 0, sent: ms(sent), answered: ms(sent + 10), presented, deed, answer }
}

fn said(status: u16, code: &str, handed: Handed) -> Answer {
    Answer::Said { status, code: code.into(), handed }
}

fn rotated(sent: u64, presented: u32) -> Exchange {
    handed(sent, presented, presented + 1)
}

fn handed(sent: u64, presented: u32, generation: u32) -> Exchange {
    request(sent, presented, said(200, "", Handed::Token(generation)))
}

fn blank(sent: u64, presented: u32) -> Exchange {
    request(sent, presented, said(200, "", Handed::Blank))
}

fn refused(sent: u64, presented: u32, code: &str) -> Exchange {
    request(sent, presented, said(401, code, Handed::Nothing))
}

fn superseded(sent: u64, presented: u32) -> Exchange {
    refused(sent, presented, "token_superseded")
}

/// With a request to end the session, sent at 0 and acknowledged 10 ms later, or perhaps never made.
fn ended(acknowledged: bool, history: History) -> History {
    let ending = Ending { session: 0, asked: ms(0), acknowledged: acknowledged.then_some(ms(10)) };
    History { endings: vec![ending], ..history }
}

fn by_thief(exchange: Exchange) -> Exchange {
    Exchange { actor: Actor::Thief, ..exchange }
}

/// The store was killed at `from`, and rotations of the 500 ms before it may be lost.
fn crash(from: u64, until: u64) -> Fault {
    Fault {
        name: "crash".into(),
        from: ms(from),
        until: ms(until),
        loses: Some(ms(500)),
        away: Some((ms(from + 50), ms(until - 50))),
    }
}

fn with(mut history: History, fault: Fault) -> History {
    history.faults.push(fault);
    history
}

/// A node did not hear whether something was stored.
fn doubted(about: About, generation: u32, history: History) -> History {
    History { doubts: vec![Doubt { at: ms(0), client: "c".into(), generation, about }], ..history }
}

fn rules(history: &History) -> Vec<Rule> {
    check(history).violations.iter().map(|violation| violation.rule).collect()
}

#[track_caller]
fn assert_good(history: &History) {
    let violations = check(history).violations;
    assert!(violations.is_empty(), "{violations:?}");
}

#[track_caller]
fn assert_broken(rule: Rule, history: &History) {
    assert_eq!(rules(history), [rule]);
}

#[test]
fn an_ordinary_session_is_good() {
    let ordinary = || {
        vec![
            rotated(0, 1),
            blank(100, 1),
            blank(200, 2),
            rotated(3_000, 2),
            by_thief(superseded(3_100, 1)),
            // At most a buffer after the answer that superseded it.
            blank(4_900, 2),
        ]
    };
    assert_good(&history(ordinary()));
    assert_good(&forgiving(ordinary()));
    let counts = check(&history(ordinary())).total();
    assert_eq!((counts.requests, counts.rotations, counts.batches, counts.superseded), (6, 2, 3, 1));
    assert_eq!((counts.ghosts, counts.locked_out), (0, 0));
}

#[test]
fn a_superseded_token_that_is_accepted_too_late_is_caught() {
    assert_broken(Rule::Superseded, &history(vec![rotated(0, 1), by_thief(blank(2_011, 1))]));
    // That its successor was used proves it as well.
    assert_broken(Rule::Superseded, &history(vec![blank(0, 2), by_thief(blank(2_011, 1))]));
    // The rotation may have been as late as its answer.
    assert_good(&history(vec![rotated(0, 1), blank(2_010, 1)]));
}

#[test]
fn a_forgiven_token_is_good_until_its_successor_was_used() {
    assert_good(&forgiving(vec![rotated(0, 1), handed(9_000, 1, 2)]));
    assert_broken(Rule::Superseded, &forgiving(vec![rotated(0, 1), blank(100, 2), blank(9_000, 1)]));
}

#[test]
fn what_a_node_does_not_know_proves_nothing() {
    let late = || vec![rotated(0, 1), by_thief(blank(2_011, 1))];
    assert_good(&doubted(About::Rotation, 2, history(late())));
    assert_broken(Rule::Superseded, &doubted(About::Rotation, 1, history(late())));
    assert_broken(Rule::Superseded, &doubted(About::Use, 2, history(late())));
    let unseen = || vec![rotated(0, 1), blank(100, 2), blank(9_000, 1)];
    assert_good(&doubted(About::Use, 2, forgiving(unseen())));
    assert_broken(Rule::Superseded, &doubted(About::Rotation, 2, forgiving(unseen())));
    let heal = Heal { at: ms(3_100), client: "c".into(), from: 1, to: 2 };
    let healed = History { heals: vec![heal], ..history(vec![rotated(700, 1), blank(3_000, 2)]) };
    assert_good(&doubted(About::Rotation, 2, healed));
}

#[test]
fn a_third_token_is_caught() {
    // Well within the windows of both.
    let third = || vec![rotated(0, 1), rotated(1_000, 2), by_thief(blank(1_100, 1))];
    assert_broken(Rule::ThirdToken, &history(third()));
    assert_broken(Rule::ThirdToken, &forgiving(third()));
}

#[test]
fn a_rotation_that_the_store_lost_excuses_its_predecessor_until_it_heals() {
    // Rotated 300 ms before the crash.
    let lost = || vec![rotated(700, 1), by_thief(handed(5_000, 1, 2))];
    let findings = check(&with(history(lost()), crash(1_000, 2_000)));
    assert!(findings.violations.is_empty(), "{:?}", findings.violations);
    assert_eq!((findings.total().late, findings.total().again), (1, 1));
    assert_eq!(findings.oldest_loss["crash"], (ms(290), ms(500)));
    // A crash that is not there, and one that came too late for that.
    assert_eq!(rules(&history(lost())), [Rule::Superseded, Rule::Twice]);
    assert_eq!(rules(&with(history(lost()), crash(1_300, 2_000))), [Rule::Superseded, Rule::Twice]);
    // One that came later still.
    assert_eq!(rules(&with(history(lost()), crash(5_100, 6_000))), [Rule::Superseded, Rule::Twice]);
    // Once the newer token was accepted again, the older one is not.
    let healed = vec![rotated(700, 1), blank(3_000, 2), by_thief(blank(5_100, 1))];
    assert_broken(Rule::Superseded, &with(history(healed), crash(1_000, 2_000)));
}

#[test]
fn a_rotation_that_was_lost_beyond_the_bound_is_caught() {
    let heal = Heal { at: ms(3_100), client: "c".into(), from: 1, to: 2 };
    let healed =
        |rotated_at| History { heals: vec![heal.clone()], ..history(vec![rotated(rotated_at, 1), blank(3_000, 2)]) };
    let findings = check(&with(healed(700), crash(1_000, 2_000)));
    assert!(findings.violations.is_empty(), "{:?}", findings.violations);
    assert_eq!((findings.total().heals, findings.oldest_loss["crash"]), (1, (ms(290), ms(500))));
    assert_broken(Rule::LostTooMuch, &with(healed(400), crash(1_000, 2_000)));
    assert_broken(Rule::LostTooMuch, &healed(700));
}

#[test]
fn a_generation_that_is_delivered_twice_is_caught() {
    let twice = || vec![rotated(0, 1), rotated(5, 1)];
    assert_broken(Rule::Twice, &history(twice()));
    // A resend.
    assert_good(&forgiving(twice()));
    // The store had lost it.
    assert_good(&with(history(vec![rotated(700, 1), rotated(2_500, 1)]), crash(1_000, 2_000)));
    // The slower one has never heard that it lost the race, and says so.
    assert_good(&doubted(About::Rotation, 2, history(twice())));
    assert_broken(Rule::Twice, &doubted(About::Rotation, 3, history(twice())));
}

#[test]
fn a_session_that_comes_back_is_caught() {
    let back = |sent| history(vec![blank(sent, 1)]);
    assert_broken(Rule::Resurrected, &ended(true, back(11)));
    // Also after a crash: the end of a session is not among what may be lost.
    assert_broken(Rule::Resurrected, &with(ended(true, back(3_000)), crash(100, 2_000)));
    // It was not acknowledged, or has overtaken this one.
    assert_good(&ended(false, back(11)));
    assert_good(&ended(true, back(9)));
    let gone = ended(true, history(vec![refused(11, 1, "session_revoked")]));
    assert_good(&gone);
    assert_eq!(check(&gone).total().ghosts, 1);
}

#[test]
fn generations_that_go_backwards_are_caught() {
    assert_broken(Rule::Backwards, &history(vec![handed(0, 2, 2)]));
    // Presented was what is too old by then as well.
    assert_eq!(rules(&forgiving(vec![rotated(0, 2), handed(100, 1, 2)])), [Rule::ThirdToken, Rule::Backwards]);
    // They overlap, so either may have been first.
    assert_good(&forgiving(vec![rotated(0, 2), handed(5, 1, 2)]));
    assert_good(&with(forgiving(vec![rotated(700, 2), handed(2_500, 1, 2)]), crash(1_000, 2_000)));
}

#[test]
fn a_client_that_is_locked_out_is_caught() {
    let before = |answer| vec![request(0, 1, answer), superseded(3_000, 1)];
    assert_broken(Rule::LockedOut, &history(before(said(200, "", Handed::Blank))));
    assert_broken(Rule::LockedOut, &history(before(said(503, "unavailable", Handed::Nothing))));
    assert_broken(Rule::LockedOut, &history(before(Answer::Unsent)));
    // Its response was lost: that costs it the session by default, and nothing if that is forgiven.
    assert_good(&history(before(Answer::Lost)));
    assert_eq!(check(&history(before(Answer::Lost))).total().locked_out, 1);
    assert_broken(Rule::LockedOut, &forgiving(before(Answer::Lost)));
    // A response of another token says nothing about this one.
    assert_broken(Rule::LockedOut, &history(vec![request(0, 2, Answer::Lost), superseded(3_000, 1)]));
    // A store that lost something is no excuse.
    assert_broken(Rule::LockedOut, &with(history(vec![blank(700, 1), superseded(3_000, 1)]), crash(1_000, 2_000)));
}

#[test]
fn a_round_trip_as_long_as_the_window_explains_a_refusal() {
    let late = |sleep, answered| {
        let rotation = Exchange { answered: ms(answered), deed: Deed::Get(ms(sleep)), ..rotated(0, 1) };
        vec![rotation, superseded(answered - 1, 1)]
    };
    assert_good(&history(late(0, 2_000)));
    assert_good(&forgiving(late(0, 2_000)));
    // What the handler took does not count.
    assert_broken(Rule::LockedOut, &history(late(500, 2_000)));
    assert_broken(Rule::LockedOut, &history(late(0, 1_900)));
}

#[test]
fn a_client_that_is_stuck_is_caught() {
    assert_broken(Rule::Stuck, &History { stuck: vec![0], ..history(vec![]) });
}

#[test]
fn a_session_that_is_lost_is_caught() {
    assert_broken(Rule::SessionLost, &history(vec![refused(0, 1, "session_revoked")]));
    assert_broken(Rule::SessionLost, &forgiving(vec![refused(0, 1, "token_invalid")]));
    assert_broken(Rule::SessionLost, &history(vec![request(0, 1, said(200, "", Handed::Nothing))]));
    let lost = history(vec![refused(3_000, 1, "session_revoked")]);
    assert_broken(Rule::SessionLost, &with(lost, crash(1_000, 2_000)));
    // A sign-out that was answered 503 may have been made.
    assert_good(&ended(false, history(vec![refused(100, 1, "session_revoked")])));
}

#[test]
fn a_refusal_while_the_store_is_away_is_caught() {
    let refusal = |sent| with(history(vec![rotated(0, 1), by_thief(superseded(sent, 1))]), crash(1_000, 3_500));
    assert_broken(Rule::RefusedWhileAway, &refusal(1_200));
    // The store may have been asked before it went, or after it came back.
    assert_good(&refusal(1_049));
    assert_good(&refusal(3_449));
}

#[test]
fn an_answer_that_no_client_expects_is_caught() {
    for (status, code) in [(500, ""), (502, ""), (503, ""), (503, "unavailable, without Retry-After"), (422, "invalid")]
    {
        assert_broken(Rule::Status, &history(vec![request(0, 1, said(status, code, Handed::Nothing))]));
    }
    let sign_in = |status, code| SignIn { sent: ms(0), answer: said(status, code, Handed::Nothing) };
    let signing_in = |status, code| History { sign_ins: vec![sign_in(status, code)], ..history(vec![]) };
    assert_broken(Rule::Status, &signing_in(500, ""));
    assert_broken(Rule::Status, &signing_in(401, "bad_credentials"));
    assert_good(&signing_in(503, "unavailable"));
    assert_good(&signing_in(200, ""));
}

#[test]
fn a_compare_and_set_counts_as_lost_only_if_it_was() {
    let slow = |sent: u64, sleep: u64, answered: u64, exchange: Exchange| Exchange {
        sent: ms(sent),
        answered: ms(answered),
        deed: Deed::Get(ms(sleep)),
        ..exchange
    };
    let lost = |exchanges| check(&history(exchanges)).total().lost_swaps;
    // Looked at before the other was ready, and ready after it had rotated.
    assert_eq!(lost(vec![slow(0, 100, 110, rotated(0, 1)), slow(5, 200, 220, blank(0, 1))]), 1);
    // It may have come after the rotation …
    assert_eq!(lost(vec![slow(0, 100, 110, rotated(0, 1)), slow(5, 200, 300, blank(0, 1))]), 0);
    // … or been ready before it, and have failed for another reason …
    assert_eq!(lost(vec![slow(0, 100, 110, rotated(0, 1)), slow(5, 100, 120, blank(0, 1))]), 0);
    // … or have come within the window that its own token had opened.
    let window = vec![rotated(0, 1), slow(1_000, 200, 1_210, blank(0, 2)), slow(1_000, 100, 1_110, rotated(0, 2))];
    assert_eq!(lost(window), 0);
}
