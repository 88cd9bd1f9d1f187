//! A simulated cluster: the real layer, routes and engine on three nodes over one store, with clients that speak the protocol,
//! while everything fails that can. What has to hold then is written in DESIGN §2.5, no more and no less.
//!
//! It runs on turmoil, which works with our stack as it is: the hosts, their clocks and the TCP between them are simulated, and
//! hyper and all that is above it is real. A run of a second takes some 15 ms. The store is in this process, at the other end
//! of a wire that takes time and gets cut ([`world::NodeWire`]). All chance comes from the seed, and all time from the
//! simulation. What could bring in others is kept out: threads (so sessions are opened at the store, and not with a password,
//! which is hashed on a thread), and `tokio::spawn` on nodes that die (see `node`).
//!
//! A run is a family, which says what may happen, and a seed, which says what does. The same ones give the same history:
//!
//! ```text
//! BATON_SIM_SEED=17 cargo test -p baton-axum --test sim l1_a_naive -- --nocapture    that seed, with its history
//! BATON_SIM_SEEDS=5000 cargo test -p baton-axum --test sim                           so many seeds of each family
//! ```

mod checks;
mod client;
mod dice;
mod history;
mod node;
mod run;
mod setting;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use baton_core::{BatchResponse, OnReuse};

use history::{Counts, History, requests};
use run::run;
use setting::{Family, Keeps, POLITE, Setting, WILD};

/// How many seeds of each family are run.
const SEEDS: u64 = 400;

/// Never goes back to an older token, which it takes if the store loses rotations or fails, and with repetitions.
const STEADY: Family = Family { keeps: Keeps::NewestGeneration, ..POLITE };

// --- whatever clients do --------------------------------------------------------------------------------------------

#[test]
fn s_in_default_mode() {
    explore("s_in_default_mode", WILD).must_have(&[
        "rotations",
        "batches",
        "lost compare-and-sets",
        "superseded",
        "revoked",
        "forged",
        "503",
        "uncertain and done",
        "uncertain and not done",
        "lost responses",
        "crashes",
        "died between swap and response",
        "sign-outs",
        "ended from elsewhere",
        "without auth headers",
    ]);
}

#[test]
fn s_when_the_store_loses_writes_and_reuse_revokes() {
    let family = Family { loses_writes: true, on_reuse: OnReuse::Revoke, ..WILD };
    explore("s_when_the_store_loses_writes_and_reuse_revokes", family).must_have(&[
        "heals",
        "lost writes",
        "lost compare-and-sets",
        "superseded",
        "revoked",
        "uncertain and not done",
    ]);
}

#[test]
fn s_with_repetitions() {
    let family = Family { batch_response: BatchResponse::Repeat, unbatch: true, ..WILD };
    explore("s_with_repetitions", family).must_have(&["repetitions", "lost compare-and-sets", "superseded", "503"]);
}

#[test]
fn s_in_forgiving_mode() {
    let omitting = Family { batch_response: BatchResponse::Omit, on_reuse: OnReuse::Revoke, unbatch: true, ..WILD };
    explore("s_in_forgiving_mode", Family { forgiving: true, ..omitting }).must_have(&[
        "resends",
        "without auth headers",
        "died between swap and response",
        "superseded",
        "revoked",
    ]);
}

#[test]
fn s_in_forgiving_mode_when_the_store_loses_writes() {
    let family = Family { forgiving: true, loses_writes: true, batch_response: BatchResponse::Repeat, ..WILD };
    explore("s_in_forgiving_mode_when_the_store_loses_writes", family).must_have(&[
        "resends",
        "heals",
        "lost writes",
        "repetitions",
    ]);
}

// --- clients that follow the protocol -------------------------------------------------------------------------------

#[test]
fn l1_a_naive_client_is_never_refused() {
    let n = explore("l1_a_naive_client_is_never_refused", Family { outages: false, ..POLITE });
    n.must_have(&["rotations", "batches", "lost compare-and-sets"]);
    n.must_not_have(&["superseded", "revoked", "503", "heals", "lost responses"]);
}

#[test]
fn l1_a_store_that_fails_refuses_nobody() {
    let n = explore("l1_a_store_that_fails_refuses_nobody", STEADY);
    n.must_have(&["rotations", "batches", "lost compare-and-sets", "503", "uncertain and done"]);
    n.must_not_have(&["superseded", "revoked", "lost responses"]);
}

#[test]
fn l1_a_store_that_loses_writes_refuses_nobody() {
    let n = explore("l1_a_store_that_loses_writes_refuses_nobody", Family { loses_writes: true, ..STEADY });
    n.must_have(&["heals", "lost writes", "503", "uncertain and done", "uncertain and not done"]);
    n.must_not_have(&["superseded", "revoked", "lost responses"]);
}

#[test]
fn l1_with_repetitions_nobody_is_refused() {
    let family = Family { batch_response: BatchResponse::Repeat, unbatch: true, ..STEADY };
    let n = explore("l1_with_repetitions_nobody_is_refused", family);
    n.must_have(&["repetitions", "503"]);
    n.must_not_have(&["superseded", "revoked", "lost responses"]);
}

#[test]
fn l2_lost_responses_and_dead_nodes_are_forgiven() {
    let family = Family { forgiving: true, lost_responses: true, outages: false, ..POLITE };
    explore("l2_lost_responses_and_dead_nodes_are_forgiven", family).must_have(&[
        "resends",
        "lost responses",
        "crashes",
        "died between swap and response",
    ]);
}

#[test]
fn l2_a_store_that_fails_besides_refuses_nobody() {
    let family = Family { forgiving: true, lost_responses: true, unbatch: true, ..STEADY };
    explore("l2_a_store_that_fails_besides_refuses_nobody", family).must_have(&[
        "resends",
        "lost responses",
        "503",
        "uncertain and done",
    ]);
}

#[test]
fn l2_a_store_that_loses_writes_besides_refuses_nobody() {
    let family = Family { forgiving: true, lost_responses: true, loses_writes: true, ..STEADY };
    explore("l2_a_store_that_loses_writes_besides_refuses_nobody", family).must_have(&[
        "resends",
        "heals",
        "lost writes",
        "uncertain and not done",
    ]);
}

// --- can it fail? ---------------------------------------------------------------------------------------------------

#[test]
fn the_same_seed_gives_the_same_history() {
    let busy = Family { forgiving: true, loses_writes: true, ..WILD };
    let mut before = None;
    for family in [WILD, busy, STEADY] {
        for seed in 0..40 {
            let (_, once) = run(family, seed);
            let (_, again) = run(family, seed);
            if let Some(place) = (0..once.len().max(again.len())).find(|place| once.get(*place) != again.get(*place)) {
                panic!("seed {seed}: {:?} and then {:?} in {family:?}", once.get(place), again.get(place));
            }
            assert!(before.replace(once.clone()) != Some(once), "seed {seed}: another seed, the same history");
        }
    }
}

/// A condition of L1 or L2 that is left out must show: otherwise the runs do not reach what it is there for.
fn somebody_is_refused(family: Family) {
    let refused = (0..4000).any(|seed| {
        let (setting, history) = run(family, seed);
        checks::check(&setting, &history, &requests(&history)).is_err_and(|broken| broken.starts_with("L:"))
    });
    assert!(refused, "nobody is refused in {family:?}");
}

#[test]
fn lost_responses_need_the_forgiving_mode() {
    somebody_is_refused(Family { lost_responses: true, ..STEADY });
}

#[test]
fn the_forgiving_mode_needs_answers_without_repetitions() {
    let repeating = Family { batch_response: BatchResponse::Repeat, ..STEADY };
    somebody_is_refused(Family { forgiving: true, lost_responses: true, ..repeating });
}

#[test]
fn lost_writes_need_a_client_that_never_goes_back() {
    somebody_is_refused(Family { loses_writes: true, ..POLITE });
}

#[test]
fn a_store_that_fails_needs_a_client_that_never_goes_back() {
    somebody_is_refused(POLITE);
}

// --- seeds ----------------------------------------------------------------------------------------------------------

/// Runs the seeds of a family and checks what was seen; how often what happened.
fn explore(test: &str, family: Family) -> Explored {
    let (first, count) = match (number("BATON_SIM_SEED"), number("BATON_SIM_SEEDS")) {
        (Some(seed), _) => (seed, 1),
        (None, count) => (0, count.unwrap_or(SEEDS)),
    };
    let mut counts = Counts::default();
    for seed in first..first + count {
        let replay = format!("BATON_SIM_SEED={seed} cargo test -p baton-axum --test sim {test} -- --exact --nocapture");
        let (setting, history) = catch_unwind(AssertUnwindSafe(|| run(family, seed)))
            .unwrap_or_else(|_| panic!("seed {seed} panics, see above. Again:\n    {replay}"));
        if count == 1 {
            print(&setting, &history);
        }
        let requests = requests(&history);
        if let Err(broken) = checks::check(&setting, &history, &requests) {
            panic!("seed {seed}: {broken}\nAgain, with all that happens:\n    {replay}");
        }
        counts.add(&history, &requests);
    }
    Explored { counts, enough: count >= SEEDS }
}

struct Explored {
    counts: Counts,
    /// A few seeds need not show everything.
    enough: bool,
}

impl Explored {
    /// Each of these has to have happened, and not just by a fluke.
    fn must_have(&self, what: &[&str]) {
        let missing: Vec<_> = what.iter().filter(|what| self.counts.get(what) < 5).collect();
        assert!(missing.is_empty() || !self.enough, "hardly any {missing:?} in {:#?}", self.counts);
    }

    fn must_not_have(&self, what: &[&str]) {
        let had: Vec<_> = what.iter().filter(|what| self.counts.get(what) > 0).collect();
        assert!(had.is_empty(), "{had:?} in {:#?}", self.counts);
    }
}

#[expect(clippy::print_stdout, reason = "asked for")]
fn print(setting: &Setting, history: &History) {
    println!("{setting:#?}");
    for (now, event) in history {
        println!("{now:>5} ms  {event:?}");
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is not a number")))
}
