//! The table of the rule (DESIGN §2.3), row by row, and what `complete` makes of each plan (§2.4).
//!
//! Times are milliseconds after the sign-in; the buffer is 10 unless a test says otherwise.

use baton_core::session::Version;
use baton_core::{
    BatchResponse, Generation, OnReuse, Plan, Rejection, Reply, Rules, Session, Swap, Swapped, Verdict, complete,
    decide,
};

use crate::common::{at, finish, forgiving, genuine, ms, ring, rules, session, signed_in};

const SUPERSEDED: Verdict = Verdict::Reject(Rejection::Superseded { revoke: false });
const EXPIRED: Verdict = Verdict::Reject(Rejection::Expired);
const BATCH: Verdict = Verdict::Accept(Plan::Blank);

/// What a request that presents `p` at `now` may do.
fn ask(session: &Session, p: u32, now: i64, rules: &Rules) -> Verdict {
    decide(session, genuine(p), false, at(now), rules)
}

/// The swap that moves `session` to generation `to` for a request that presented `p`, and opens the window.
fn hand_out(session: &Session, to: u32, p: u32, rules: &Rules) -> Swap {
    Swap {
        expect: session.version(),
        generation: Generation::new(to),
        confirmed: Generation::new(p),
        hand_out: Some(rules.renewal()),
    }
}

/// The swap that only writes down that `p` was seen.
fn note(session: &Session, p: u32) -> Swap {
    Swap { generation: session.generation, hand_out: None, ..hand_out(session, 0, p, &rules(0)) }
}

fn accept_hand_out(swap: Swap) -> Verdict {
    Verdict::Accept(Plan::HandOut { swap, repeat: false })
}

fn token(generation: u32, expires_at: i64) -> Reply {
    Reply::Token { generation: Generation::new(generation), expires_at: at(expires_at) }
}

// --- expired -----------------------------------------------------------------------------------------------------

#[test]
fn a_session_is_refused_from_the_end_of_its_idle_lifetime_on() {
    let rules = Rules { token_lifespan: ms(100), ..rules(10) };
    let s = session(1, None, 0, &rules);
    assert_eq!(s.expires_at, at(100));
    assert!(matches!(ask(&s, 1, 99, &rules), Verdict::Accept(_)));
    assert_eq!(ask(&s, 1, 100, &rules), EXPIRED);
    assert_eq!(ask(&s, 1, i64::MAX, &rules), EXPIRED);
}

#[test]
fn expiry_comes_before_every_other_row() {
    let rules = Rules { token_lifespan: ms(100), ..forgiving(1000) };
    let s = session(4, Some(99), 2, &rules);
    for p in [1, 2, 3, 4, 5, 9] {
        assert_eq!(ask(&s, p, 100, &rules), EXPIRED, "generation {p}");
    }
}

#[test]
fn a_session_is_refused_from_its_absolute_cap_on() {
    let rules = Rules { token_lifespan: ms(100), session_max_lifetime: ms(150), ..rules(10) };
    let mut s = session(1, None, 0, &rules);
    for now in [50, 90, 140] {
        let Verdict::Accept(Plan::HandOut { swap, .. }) = ask(&s, s.generation.get(), now, &rules) else {
            panic!("does not rotate at {now}")
        };
        s = s.swapped(&swap, at(now)).unwrap();
        assert_eq!(s.created_at, at(0), "rotation leaves the time of the sign-in alone");
    }
    assert_eq!(s.expires_at, at(150), "rotation never extends the absolute lifetime");
    assert!(matches!(ask(&s, 4, 149, &rules), Verdict::Accept(_)));
    assert_eq!(ask(&s, 4, 150, &rules), EXPIRED);
}

#[test]
fn a_shorter_cap_takes_effect_for_sessions_that_exist() {
    let before = Rules { token_lifespan: ms(100), ..rules(10) };
    let s = session(1, None, 0, &before);
    let after = Rules { session_max_lifetime: ms(40), ..before };
    assert!(matches!(ask(&s, 1, 39, &after), Verdict::Accept(_)));
    assert_eq!(ask(&s, 1, 40, &after), EXPIRED);
}

#[test]
fn a_longer_cap_takes_effect_at_the_next_rotation() {
    let before = Rules { token_lifespan: ms(100), session_max_lifetime: ms(100), ..rules(10) };
    let s = session(1, None, 0, &before);
    let after = Rules { session_max_lifetime: ms(300), ..before };
    let s = s.swapped(&hand_out(&s, 2, 1, &after), at(80)).unwrap();
    assert_eq!(s.expires_at, at(180));
}

#[test]
fn a_shorter_lifespan_does_not_take_back_a_promised_expiry() {
    let before = Rules { token_lifespan: ms(100), ..rules(10) };
    let s = session(1, None, 0, &before);
    let after = Rules { token_lifespan: ms(20), ..before };
    let s = s.swapped(&hand_out(&s, 2, 1, &after), at(50)).unwrap();
    assert_eq!(s.expires_at, at(100), "not 70");
    let s = s.swapped(&hand_out(&s, 3, 2, &after), at(95)).unwrap();
    assert_eq!(s.expires_at, at(115));
}

// --- p = g -------------------------------------------------------------------------------------------------------

#[test]
fn the_first_request_after_the_sign_in_rotates() {
    let rules = rules(10);
    let s = session(1, None, 0, &rules);
    assert_eq!(ask(&s, 1, 0, &rules), accept_hand_out(hand_out(&s, 2, 1, &rules)));
}

#[test]
fn the_current_token_rotates_from_the_end_of_the_window_on() {
    let rules = rules(10);
    let s = session(2, Some(100), 1, &rules);
    assert_eq!(ask(&s, 2, 109, &rules), BATCH);
    assert_eq!(ask(&s, 2, 110, &rules), accept_hand_out(hand_out(&s, 3, 2, &rules)));
    assert_eq!(ask(&s, 2, 9_999, &rules), accept_hand_out(hand_out(&s, 3, 2, &rules)));
}

#[test]
fn a_rotation_moves_one_up_opens_the_window_and_notes_what_was_seen() {
    let rules = rules(10);
    let s = session(2, Some(100), 1, &rules);
    let Verdict::Accept(Plan::HandOut { swap, .. }) = ask(&s, 2, 150, &rules) else { panic!() };
    let next = s.swapped(&swap, at(170)).unwrap();
    assert_eq!(next.generation.get(), 3);
    assert_eq!(next.handed_out_at, Some(at(170)), "the time of the response, not of the request");
    assert_eq!(next.confirmed.get(), 2);
    assert_eq!(next.expires_at, at(1_000_000), "under the cap");
    assert_eq!(next.last_seen_at, at(170));
}

#[test]
fn the_window_is_counted_from_the_hand_out_and_batch_requests_do_not_extend_it() {
    let rules = rules(10);
    let s = session(2, Some(100), 1, &rules);
    for now in 100..110 {
        // Nothing to write: the record of the next request is this one.
        assert_eq!(ask(&s, 2, now, &rules), BATCH);
        assert_eq!(ask(&s, 1, now, &rules), BATCH);
    }
    assert!(matches!(ask(&s, 2, 110, &rules), Verdict::Accept(Plan::HandOut { .. })));
}

#[test]
fn a_batch_costs_no_write_in_default_mode() {
    let rules = rules(10);
    let s = session(7, Some(100), 3, &rules);
    assert_eq!(ask(&s, 7, 105, &rules), BATCH);
    assert_eq!(ask(&s, 6, 105, &rules), BATCH);
}

#[test]
fn without_a_buffer_every_request_rotates() {
    let rules = rules(0);
    let s = session(2, Some(100), 1, &rules);
    assert_eq!(ask(&s, 2, 100, &rules), accept_hand_out(hand_out(&s, 3, 2, &rules)));
    assert_eq!(ask(&s, 1, 100, &rules), SUPERSEDED);
}

#[test]
fn a_record_handed_out_in_the_future_is_in_its_window() {
    // The store's time never goes backwards; a restored copy of another machine may still do this.
    let rules = rules(10);
    let s = session(2, Some(100), 1, &rules);
    assert_eq!(ask(&s, 2, 50, &rules), BATCH);
}

#[test]
fn a_buffer_without_end_cannot_overflow() {
    let rules = Rules { batch_request_buffer_throttle: std::time::Duration::MAX, ..rules(0) };
    let s = session(2, Some(100), 1, &rules);
    assert_eq!(ask(&s, 2, 999, &rules), BATCH);
    assert_eq!(ask(&s, 1, 999, &rules), BATCH);
}

#[test]
fn the_last_generation_of_all_cannot_rotate_and_ends_the_session() {
    let rules = rules(10);
    let s = session(u32::MAX, Some(100), u32::MAX - 1, &rules);
    assert_eq!(ask(&s, u32::MAX, 105, &rules), BATCH);
    assert_eq!(ask(&s, u32::MAX - 1, 105, &rules), BATCH);
    assert_eq!(ask(&s, u32::MAX, 110, &rules), EXPIRED);
    let before = session(u32::MAX - 1, Some(100), u32::MAX - 2, &rules);
    assert_eq!(
        ask(&before, u32::MAX - 1, 110, &rules),
        accept_hand_out(hand_out(&before, u32::MAX, u32::MAX - 1, &rules))
    );
}

// --- p = g−1 -----------------------------------------------------------------------------------------------------

#[test]
fn the_predecessor_is_a_batch_request_inside_the_window_only() {
    let rules = rules(10);
    let s = session(5, Some(100), 4, &rules);
    assert_eq!(ask(&s, 4, 100, &rules), BATCH);
    assert_eq!(ask(&s, 4, 109, &rules), BATCH);
    assert_eq!(ask(&s, 4, 110, &rules), SUPERSEDED);
}

#[test]
fn nothing_older_than_the_predecessor_is_accepted_even_inside_the_window() {
    for rules in [rules(10), forgiving(10)] {
        let s = session(5, Some(100), 0, &rules);
        for p in 1..=3 {
            assert_eq!(ask(&s, p, 100, &rules), SUPERSEDED, "generation {p}");
            assert_eq!(ask(&s, p, 200, &rules), SUPERSEDED, "generation {p}");
        }
    }
}

#[test]
fn a_reused_token_ends_the_session_where_that_is_asked_for() {
    let rules = Rules { on_reuse: OnReuse::Revoke, ..rules(10) };
    let s = session(5, Some(100), 4, &rules);
    let revoke = Verdict::Reject(Rejection::Superseded { revoke: true });
    assert_eq!(ask(&s, 4, 109, &rules), BATCH, "inside the window it is no reuse");
    assert_eq!(ask(&s, 4, 110, &rules), revoke);
    assert_eq!(ask(&s, 1, 105, &rules), revoke);
}

// --- p > g -------------------------------------------------------------------------------------------------------

#[test]
fn a_genuine_token_from_ahead_heals_and_then_is_a_batch_request() {
    let rules = rules(10);
    for ahead in [3, 4, 60] {
        let s = session(2, Some(100), 1, &rules);
        let Verdict::First(swap) = ask(&s, ahead, 500, &rules) else { panic!() };
        assert_eq!(swap, hand_out(&s, ahead, ahead, &rules));
        assert!(swap.heals());
        let healed = s.swapped(&swap, at(501)).unwrap();
        assert_eq!(healed.generation.get(), ahead);
        assert_eq!(healed.handed_out_at, Some(at(501)), "the window opens for siblings that are on their way");
        assert_eq!(ask(&healed, ahead, 501, &rules), BATCH);
        assert_eq!(ask(&healed, ahead - 1, 510, &rules), BATCH);
        assert_eq!(ask(&healed, ahead - 1, 511, &rules), SUPERSEDED);
        assert!(matches!(ask(&healed, ahead, 511, &rules), Verdict::Accept(Plan::HandOut { .. })));
    }
}

#[test]
fn without_a_buffer_a_healed_token_rotates_at_once() {
    let rules = rules(0);
    let s = session(2, Some(100), 1, &rules);
    let Verdict::First(swap) = ask(&s, 3, 500, &rules) else { panic!() };
    let healed = s.swapped(&swap, at(500)).unwrap();
    assert_eq!(ask(&healed, 3, 500, &rules), accept_hand_out(hand_out(&healed, 4, 3, &rules)));
}

#[test]
fn a_token_from_ahead_heals_inside_the_window_too() {
    let rules = rules(10);
    let s = session(2, Some(100), 1, &rules);
    assert_eq!(ask(&s, 3, 101, &rules), Verdict::First(hand_out(&s, 3, 3, &rules)));
}

#[test]
fn healing_takes_a_genuine_token() {
    // Ahead of the record, but made with another key or for another client: there is no way to ask the rule about it.
    let forger = crate::common::ring_of(3, 99);
    let forged = forger.derive(crate::common::CLIENT, Generation::new(9));
    assert!(ring().verify(crate::common::CLIENT, forged.expose()).is_err());
}

#[test]
fn only_a_heal_says_that_it_heals() {
    let rules = forgiving(10);
    let s = session(2, Some(100), 1, &rules);
    assert!(hand_out(&s, 5, 5, &rules).heals());
    assert!(!hand_out(&s, 3, 2, &rules).heals(), "a rotation");
    assert!(!hand_out(&s, 2, 1, &rules).heals(), "a resend");
    assert!(!note(&s, 2).heals(), "a note");
}

// --- forgiving mode ----------------------------------------------------------------------------------------------

#[test]
fn forgiving_an_unseen_successor_is_sent_again_after_the_window() {
    let rules = forgiving(10);
    let s = session(5, Some(100), 4, &rules);
    assert_eq!(ask(&s, 4, 109, &rules), BATCH);
    let resend = hand_out(&s, 5, 4, &rules);
    assert_eq!(ask(&s, 4, 110, &rules), accept_hand_out(resend));
    let next = s.swapped(&resend, at(130)).unwrap();
    assert_eq!((next.generation.get(), next.confirmed.get()), (5, 4), "the same token again");
    assert_eq!(next.handed_out_at, Some(at(130)), "in a new window");
}

#[test]
fn forgiving_a_seen_successor_ends_its_predecessor_with_the_window() {
    let rules = forgiving(10);
    let s = session(5, Some(100), 5, &rules);
    assert_eq!(ask(&s, 4, 109, &rules), BATCH);
    assert_eq!(ask(&s, 4, 110, &rules), SUPERSEDED);
}

#[test]
fn forgiving_the_first_use_of_a_token_is_written_down_first() {
    let rules = forgiving(10);
    for now in [105, 200] {
        let s = session(5, Some(100), 4, &rules);
        assert_eq!(ask(&s, 5, now, &rules), Verdict::First(note(&s, 5)));
        let seen = s.swapped(&note(&s, 5), at(now)).unwrap();
        assert_eq!(
            (seen.generation, seen.handed_out_at, seen.expires_at),
            (s.generation, s.handed_out_at, s.expires_at)
        );
        assert_eq!(seen.confirmed.get(), 5);
        assert!(matches!(ask(&seen, 5, now, &rules), Verdict::Accept(_)));
    }
}

#[test]
fn forgiving_a_predecessor_that_the_record_never_saw_is_written_down_first_too() {
    // Such as after a change from default mode, or after a heal: `confirmed` lags behind.
    let rules = forgiving(10);
    let s = session(5, Some(100), 2, &rules);
    assert_eq!(ask(&s, 4, 105, &rules), Verdict::First(note(&s, 4)));
    assert_eq!(ask(&s, 4, 200, &rules), Verdict::First(note(&s, 4)));
}

#[test]
fn forgiving_a_refused_token_writes_nothing_down() {
    let rules = forgiving(10);
    let s = session(5, Some(100), 1, &rules);
    assert_eq!(ask(&s, 3, 105, &rules), SUPERSEDED);
}

#[test]
fn default_mode_does_not_look_at_confirmed() {
    let rules = rules(10);
    for confirmed in 0..=5 {
        let s = session(5, Some(100), confirmed, &rules);
        assert_eq!(ask(&s, 4, 110, &rules), SUPERSEDED);
        assert_eq!(ask(&s, 4, 109, &rules), BATCH);
        assert_eq!(ask(&s, 5, 109, &rules), BATCH);
    }
}

#[test]
fn forgiving_a_resend_loses_to_the_successors_first_use() {
    let rules = forgiving(10);
    let s = session(5, Some(100), 4, &rules);
    let Verdict::Accept(plan @ Plan::HandOut { swap, .. }) = ask(&s, 4, 110, &rules) else { panic!() };
    let seen = s.swapped(&note(&s, 5), at(111)).unwrap();
    assert_eq!(seen.swapped(&swap, at(112)), None);
    assert_eq!(complete(&s, &plan, &Swapped::Moved(seen)), Reply::Blank);
}

#[test]
fn forgiving_a_resend_loses_to_another_resend() {
    let rules = forgiving(10);
    let s = session(5, Some(100), 4, &rules);
    let resend = hand_out(&s, 5, 4, &rules);
    let once = s.swapped(&resend, at(120)).unwrap();
    assert_eq!(once.swapped(&resend, at(121)), None);
}

// --- unbatch and batch_response ----------------------------------------------------------------------------------

#[test]
fn unbatch_repeats_the_current_token_inside_the_window_and_changes_nothing() {
    let rules = rules(10);
    let s = session(5, Some(100), 4, &rules);
    for p in [4, 5] {
        let verdict = decide(&s, genuine(p), true, at(105), &rules);
        assert_eq!(verdict, Verdict::Accept(Plan::Repeat), "generation {p}");
    }
    let mut store = crate::common::TestStore::new(s.clone());
    assert_eq!(finish(&mut store, &s, &Plan::Repeat, 105), token(5, 1_000_000));
    assert_eq!(store.record, Some(s), "the window stays as it is");
}

#[test]
fn unbatch_does_not_make_a_superseded_token_acceptable() {
    let rules = rules(10);
    let s = session(5, Some(100), 4, &rules);
    assert_eq!(decide(&s, genuine(4), true, at(110), &rules), SUPERSEDED);
    assert_eq!(decide(&s, genuine(3), true, at(105), &rules), SUPERSEDED);
}

#[test]
fn unbatch_outside_the_window_rotates_like_any_other_request() {
    let rules = rules(10);
    let s = session(5, Some(100), 4, &rules);
    let swap = hand_out(&s, 6, 5, &rules);
    assert_eq!(decide(&s, genuine(5), true, at(110), &rules), Verdict::Accept(Plan::HandOut { swap, repeat: true }));
}

#[test]
fn batch_response_repeat_is_unbatch_for_everyone() {
    let rules = Rules { batch_response: BatchResponse::Repeat, ..rules(10) };
    let s = session(5, Some(100), 4, &rules);
    assert_eq!(ask(&s, 4, 105, &rules), Verdict::Accept(Plan::Repeat));
    assert_eq!(ask(&s, 5, 105, &rules), Verdict::Accept(Plan::Repeat));
    let swap = hand_out(&s, 6, 5, &rules);
    assert_eq!(ask(&s, 5, 110, &rules), Verdict::Accept(Plan::HandOut { swap, repeat: true }));
}

#[test]
fn batch_response_omit_decides_as_blank_does() {
    let rules = Rules { batch_response: BatchResponse::Omit, ..rules(10) };
    let s = session(5, Some(100), 4, &rules);
    assert_eq!(ask(&s, 4, 105, &rules), BATCH);
}

// --- tokens that do not change -----------------------------------------------------------------------------------

#[test]
fn without_rotation_the_token_of_the_sign_in_comes_back() {
    let rules = Rules { change_headers_on_each_request: false, ..rules(10) };
    let s = session(1, None, 0, &rules);
    for now in [0, 500, 59_999] {
        assert_eq!(ask(&s, 1, now, &rules), Verdict::Accept(Plan::Keep));
        assert_eq!(decide(&s, genuine(1), true, at(now), &rules), Verdict::Accept(Plan::Keep));
    }
    assert_eq!(complete(&s, &Plan::Keep, &Swapped::Moved(s.clone())), token(1, 1_000_000));
}

#[test]
fn without_rotation_a_session_is_seen_once_a_minute() {
    let rules = Rules { change_headers_on_each_request: false, ..rules(10) };
    let s = session(1, None, 0, &rules);
    let Verdict::First(swap) = ask(&s, 1, 60_000, &rules) else { panic!() };
    let seen = s.swapped(&swap, at(60_000)).unwrap();
    assert_eq!(seen.last_seen_at, at(60_000));
    assert_eq!((seen.generation.get(), seen.handed_out_at, seen.expires_at), (1, None, at(1_000_000)));
    assert_eq!(ask(&seen, 1, 60_000, &rules), Verdict::Accept(Plan::Keep));
}

#[test]
fn when_rotation_is_switched_off_the_current_token_stays_and_older_ones_go() {
    let rules = Rules { change_headers_on_each_request: false, ..rules(10) };
    let s = session(5, Some(100), 4, &rules);
    assert_eq!(ask(&s, 5, 500, &rules), Verdict::Accept(Plan::Keep));
    assert_eq!(ask(&s, 4, 500, &rules), SUPERSEDED);
    assert!(matches!(ask(&s, 6, 500, &rules), Verdict::First(swap) if swap.heals()));
}

#[test]
fn forgiving_without_rotation_writes_the_first_use_down_once() {
    let rules = Rules { change_headers_on_each_request: false, ..forgiving(10) };
    let s = session(1, None, 0, &rules);
    assert_eq!(ask(&s, 1, 5, &rules), Verdict::First(note(&s, 1)));
    let seen = s.swapped(&note(&s, 1), at(5)).unwrap();
    assert_eq!(ask(&seen, 1, 6, &rules), Verdict::Accept(Plan::Keep));
}

// --- complete ----------------------------------------------------------------------------------------------------

#[test]
fn whoever_makes_the_swap_hands_out_its_token_with_the_new_expiry() {
    let rules = Rules { token_lifespan: ms(1000), ..rules(10) };
    let s = session(2, Some(100), 1, &rules);
    let Verdict::Accept(plan) = ask(&s, 2, 200, &rules) else { panic!() };
    assert_eq!(complete(&s, &plan, &Swapped::Done(at(230))), token(3, 1230));
}

#[test]
fn whoever_loses_the_swap_answers_as_a_batch_request() {
    let rules = rules(10);
    let s = session(2, Some(100), 1, &rules);
    let other = s.swapped(&hand_out(&s, 3, 2, &rules), at(201)).unwrap();
    let Verdict::Accept(plan) = ask(&s, 2, 200, &rules) else { panic!() };
    assert_eq!(complete(&s, &plan, &Swapped::Moved(other.clone())), Reply::Blank);
    let Verdict::Accept(plan) = decide(&s, genuine(2), true, at(200), &rules) else { panic!() };
    assert_eq!(complete(&s, &plan, &Swapped::Moved(other)), token(3, 1_000_000), "unbatch: the winner's token");
}

#[test]
fn a_session_that_is_gone_gets_no_headers_whatever_was_planned() {
    let rules = rules(10);
    let s = session(2, Some(100), 1, &rules);
    let swap = hand_out(&s, 3, 2, &rules);
    for plan in [
        Plan::HandOut { swap, repeat: false },
        Plan::HandOut { swap, repeat: true },
        Plan::Repeat,
        Plan::Keep,
        Plan::Blank,
    ] {
        assert_eq!(complete(&s, &plan, &Swapped::Gone), Reply::Nothing, "{plan:?}");
    }
}

#[test]
fn a_batch_request_gets_a_blank() {
    let s = signed_in(0, rules(10).renewal());
    assert_eq!(complete(&s, &Plan::Blank, &Swapped::Moved(s.clone())), Reply::Blank);
}

#[test]
fn a_repeat_is_of_the_token_that_is_current_when_the_response_is_ready() {
    let rules = rules(10);
    let s = session(2, Some(100), 1, &rules);
    let later = s.swapped(&hand_out(&s, 3, 2, &rules), at(120)).unwrap();
    assert_eq!(complete(&s, &Plan::Repeat, &Swapped::Moved(later)), token(3, 1_000_000));
}

#[test]
fn a_swap_expects_all_that_the_rule_looked_at() {
    let rules = rules(10);
    let s = session(2, Some(100), 1, &rules);
    let expect =
        Version { generation: Generation::new(2), handed_out_at: Some(at(100)), confirmed: Generation::new(1) };
    assert_eq!(hand_out(&s, 3, 2, &rules).expect, expect);
    let Verdict::Accept(Plan::HandOut { swap, .. }) = ask(&s, 2, 200, &rules) else { panic!() };
    assert_eq!(swap.expect, expect);
}
