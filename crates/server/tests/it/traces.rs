//! Replays what the gem was seen to do (`tests/data/dta-traces.json`) and holds the answers against the recorded ones.
//! Whatever differs has to be listed in `docs/compatibility.md`, with a reason, and whatever is listed there has to differ.
//!
//! `cargo nextest run -p baton-server traces::` runs it. `BATON_TRACES=print` prints every difference, listed or not.

mod compare;
mod fill;
mod mailbox;
mod recording;
mod replay;
mod scenarios;
mod server;
mod table;

use std::collections::BTreeSet;

use replay::{Outcome, replay};
use table::{Row, is_like};

/// One scenario: fails with everything that is not as listed.
fn check(scenario: &str) {
    let rows = table::rows();
    let outcomes = replay(scenario);
    print(&outcomes);
    let mut wrong: Vec<String> = outcomes.iter().filter_map(|outcome| undocumented(outcome, &rows)).collect();
    for row in rows.iter().filter(|row| row.names(scenario)) {
        wrong.extend(stale(row, &outcomes));
    }
    assert!(wrong.is_empty(), "{} of {scenario:?}:\n{}", wrong.len(), wrong.join("\n"));
}

fn undocumented(outcome: &Outcome, rows: &[Row]) -> Option<String> {
    let Outcome { exchange, request, differences } = outcome;
    let unlisted = differences.iter().filter(|found| !rows.iter().any(|row| row.covers(exchange, found)));
    let unlisted: Vec<&str> = unlisted.map(String::as_str).collect();
    let index = exchange.index;
    (!unlisted.is_empty()).then(|| format!("{index} {:?}\n    {request}\n    {}", exchange.note, unlisted.join("; ")))
}

/// What a row lists for a scenario and does not happen.
fn stale(row: &Row, outcomes: &[Outcome]) -> Vec<String> {
    let mut stale = Vec::new();
    for which in &row.exchanges {
        let chosen: Vec<&Outcome> = outcomes.iter().filter(|outcome| which.matches(&outcome.exchange)).collect();
        for difference in &row.differences {
            let occurs = |outcome: &&Outcome| outcome.differences.iter().any(|found| is_like(found, difference));
            if !chosen.iter().any(occurs) {
                stale.push(format!("listed as `{}`, and not so: {which:?} {difference}", row.id));
            }
        }
    }
    stale
}

#[allow(clippy::print_stdout, reason = "on demand")]
fn print(outcomes: &[Outcome]) {
    if std::env::var_os("BATON_TRACES").is_none() {
        return;
    }
    for Outcome { exchange, differences, .. } in outcomes {
        let result = if differences.is_empty() { "the same".to_owned() } else { differences.join("; ") };
        println!("TRACE {}#{} [{}] {result}", exchange.scenario, exchange.index, exchange.note);
    }
}

/// A test for each scenario.
macro_rules! scenarios {
    ($($test:ident $name:literal)*) => {
        const TESTED: &[&str] = &[$($name),*];
        $(#[test]
        fn $test() {
            check($name);
        })*
    };
}

#[test]
fn every_recorded_scenario_has_a_test() {
    let tested: BTreeSet<String> = TESTED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(tested, recording::names().into_iter().collect());
}

#[test]
fn the_list_is_about_what_was_recorded_and_is_explained() {
    let (rows, explained, recorded) = (table::rows(), table::explained(), recording::names());
    let used: BTreeSet<String> = rows.iter().map(|row| row.id.clone()).collect();
    assert_eq!(used, explained, "left: listed, right: explained");
    for pattern in rows.iter().flat_map(|row| &row.scenarios) {
        assert!(recorded.iter().any(|name| is_like(name, pattern)), "no scenario is like {pattern:?}");
    }
}

/// Rows about many scenarios at once have to hold in one of them at least; those about one are checked with that one.
#[test]
fn rows_about_many_scenarios_are_not_stale() {
    let rows = table::rows();
    let mut open: BTreeSet<_> = BTreeSet::new();
    for (at, row) in rows.iter().enumerate() {
        for pattern in row.scenarios.iter().filter(|pattern| pattern.contains('*')) {
            for which in &row.exchanges {
                open.extend(row.differences.iter().map(|difference| (at, pattern, which, difference)));
            }
        }
    }
    for scenario in recording::names() {
        if !open.iter().any(|(_, pattern, ..)| is_like(&scenario, pattern)) {
            continue;
        }
        for Outcome { exchange, differences, .. } in replay(&scenario) {
            open.retain(|(_, pattern, which, difference)| {
                let occurs = differences.iter().any(|found| is_like(found, difference));
                !(occurs && is_like(&scenario, pattern) && which.matches(&exchange))
            });
        }
    }
    let open: Vec<String> = open
        .iter()
        .map(|(at, pattern, which, difference)| format!("`{}`: {pattern} {which:?} {difference}", rows[*at].id))
        .collect();
    assert!(open.is_empty(), "listed, and nowhere so:\n{}", open.join("\n"));
}

scenarios! {
    default "default"
    check_current_password_attributes "check_current_password=attributes"
    redirect_whitelist "redirect_whitelist"
    confirmable "confirmable"
    confirmable_default_url_send_email_reconfirmable "confirmable+default_url+send_email+reconfirmable"
    lockable "lockable"
    cookie "cookie"
    custom_headers "custom headers"
    change_headers_false "change_headers=false"
    lifespan_8s "lifespan 8s"
    remove_tokens_after_password_reset_0 "remove_tokens_after_password_reset=0"
    require_client_password_reset_token "require_client_password_reset_token"
    paranoid "paranoid"
    default_password_reset_url "default_password_reset_url"
    fullstack "fullstack (ActionController::Base + sessions)"
    trackable "trackable"
    a_diagram "a-diagram"
    a_t3_after_0_5s "a-T3-after-0.5s"
    a_t3_after_4s "a-T3-after-4s"
    a_t3_after_6s "a-T3-after-6s"
    a_t3_after_15s "a-T3-after-15s"
    a_t3_after_60s "a-T3-after-60s"
    a_t3_after_120s "a-T3-after-120s"
    c_one_old_1s "c-one-old-1s"
    c_one_old_4s "c-one-old-4s"
    c_one_old_6s "c-one-old-6s"
    c_one_old_20s "c-one-old-20s"
    c_two_old_1s "c-two-old-1s"
    c_two_old_3_5s "c-two-old-3.5s"
    c_two_old_6s "c-two-old-6s"
    c_two_old_15s "c-two-old-15s"
    c_three_old_0_5s "c-three-old-0.5s"
    c_three_old_6s "c-three-old-6s"
    b_every_2s "b-every-2s"
    b_every_3_5s "b-every-3.5s"
    b_every_4_5s "b-every-4.5s"
    b_every_5_2s "b-every-5.2s"
    b_every_6s "b-every-6s"
    h_lost_2s "h-lost-2s"
    h_lost_6_6 "h-lost-6-6"
    h_lost_12 "h-lost-12"
    h_lost_6_2_2_2 "h-lost-6-2-2-2"
    h_lost_30 "h-lost-30"
    w_phase_0_0_gap_4_0 "w-phase-0.0-gap-4.0"
    w_phase_0_0_gap_4_2 "w-phase-0.0-gap-4.2"
    w_phase_0_0_gap_4_5 "w-phase-0.0-gap-4.5"
    w_phase_0_0_gap_4_8 "w-phase-0.0-gap-4.8"
    w_phase_0_0_gap_5_05 "w-phase-0.0-gap-5.05"
    w_phase_0_7_gap_4_0 "w-phase-0.7-gap-4.0"
    w_phase_0_7_gap_4_2 "w-phase-0.7-gap-4.2"
    w_phase_0_7_gap_4_5 "w-phase-0.7-gap-4.5"
    w_phase_0_7_gap_4_8 "w-phase-0.7-gap-4.8"
    w_phase_0_7_gap_5_05 "w-phase-0.7-gap-5.05"
    e_slow_fresh "e-slow-fresh"
    e_slow_aged "e-slow-aged"
    e_slow_rot2 "e-slow-rot2"
    e_slow_rotnatural "e-slow-rotnatural"
    e_slow_signout "e-slow-signout"
    f_unbatch "f-unbatch"
    g_misc "g-misc"
    g_validate_token "g-validate_token"
    b_batch_extends "b-batch-extends"
    c_two_old_extends "c-two-old-extends"
    c_signout_with_previous "c-signout-with-previous"
    s_first_request_0_5s_after_sign_in "s-first-request-0.5s-after-sign_in"
    s_first_request_3s_after_sign_in "s-first-request-3s-after-sign_in"
    s_first_request_6s_after_sign_in "s-first-request-6s-after-sign_in"
}
