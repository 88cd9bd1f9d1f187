//! The promises of the rule (DESIGN §2.5) over *every* interleaving of a small cluster.
//!
//! Two requests are in flight at a time (three in some), each on a node of its own; nodes hold nothing else, so that is
//! two nodes. Their steps, the ticks of the store's clock and the faults come in any order. What is checked is the real
//! `decide`, `complete` and `swapped`; the model only carries their inputs and outputs.
//!
//! A tick is a millisecond. Ways are bounded by holding the clock back while a message is due. The clock stops after
//! [`Cluster::ticks`], which is long enough for two windows and whatever is left over from them.

use std::hash::{DefaultHasher, Hash, Hasher};

use baton_core::{Generation, Plan, Rejection, Reply, Rules, Session, Swap, Swapped, Timestamp, Verdict, decide};
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::common::{TestStore, at, finish, forgiving, genuine, rules, signed_in};

/// A configuration.
#[derive(Clone)]
struct Cluster {
    rules: Rules,
    /// How many requests may be under way at a time.
    in_flight: usize,
    /// Longest way of a request and of a response.
    go: i64,
    back: i64,
    ticks: i64,
    /// Whether the client keeps the newest generation; else it stores whatever it is given.
    never_goes_back: bool,
    /// Old tokens are presented, too. Such a request's response goes to nobody.
    replays: bool,
    unbatch: bool,
    sign_out: bool,
    /// Responses are lost, and nodes die between any two steps.
    losses: bool,
    /// Once, the store loses up to this many of its newest writes.
    forgets: usize,
    durable_resend: bool,
    /// Which promises are checked.
    safety: bool,
    liveness: bool,
}

impl Cluster {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            in_flight: 2,
            go: 1,
            back: 0,
            ticks: 7,
            never_goes_back: false,
            replays: false,
            unbatch: false,
            sign_out: false,
            losses: false,
            forgets: 0,
            durable_resend: true,
            safety: true,
            liveness: true,
        }
    }

    fn forgiving(&self) -> bool {
        self.rules.forgive_lost_responses
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: i64,
    store: TestStore,
    ended: bool,
    forgot: bool,
    /// The generation that the client holds.
    held: u32,
    /// The newest generation that was handed out.
    issued: u32,
    /// Which generations were delivered, a bit each.
    delivered: u32,
    /// When the record's present generation took the place of the one before.
    superseded_at: i64,
    flights: Vec<Flight>,
    /// The promise that the last step broke, if any.
    broken: Option<Promise>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Promise {
    S1,
    S3,
    S4,
    S5,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Flight {
    presented: u32,
    unbatch: bool,
    /// Whether it comes from the client, not from a thief.
    ours: bool,
    phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Travelling { sent_at: i64 },
    Changing { sent_at: i64, read_at: i64, session: Session, swap: Swap },
    Handling { session: Session, plan: Plan },
    Returning { sent_at: i64, token: Option<u32> },
    Refused(Option<Rejection>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Tick,
    Send {
        presented: u32,
        unbatch: bool,
        ours: bool,
    },
    /// The next step of a flight: it is read, makes its change, answers, or arrives.
    Step(usize),
    /// The node dies with this flight, or its response is lost.
    Lose(usize),
    SignOut,
    Forget(usize),
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let store = TestStore::forgetful(signed_in(0, self.rules.renewal()), self.forgets, self.durable_resend);
        vec![State {
            now: 0,
            store,
            ended: false,
            forgot: false,
            held: 1,
            issued: 1,
            delivered: 0,
            superseded_at: 0,
            flights: Vec::new(),
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let due = |flight: &Flight| match flight.phase {
            Phase::Travelling { sent_at } | Phase::Changing { sent_at, .. } => state.now >= sent_at + self.go,
            Phase::Returning { sent_at, .. } => state.now >= sent_at + self.back,
            Phase::Handling { .. } => false,
            Phase::Refused(_) => true,
        };
        if state.now < self.ticks && !state.flights.iter().any(due) {
            actions.push(Action::Tick);
        }
        if state.flights.len() < self.in_flight {
            let mut send = |presented, ours| {
                actions.push(Action::Send { presented, unbatch: false, ours });
                if self.unbatch {
                    actions.push(Action::Send { presented, unbatch: true, ours });
                }
            };
            send(state.held, true);
            if self.replays {
                (1..=state.issued).for_each(|presented| send(presented, false));
            }
        }
        for index in 0..state.flights.len() {
            actions.push(Action::Step(index));
            if self.losses && !matches!(state.flights[index].phase, Phase::Travelling { .. } | Phase::Refused(_)) {
                actions.push(Action::Lose(index));
            }
        }
        if self.sign_out && !state.ended {
            actions.push(Action::SignOut);
        }
        if !state.forgot {
            (1..=state.store.at_risk()).for_each(|writes| actions.push(Action::Forget(writes)));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = State { broken: None, ..last.clone() };
        match action {
            Action::Tick => next.now += 1,
            Action::Send { presented, unbatch, ours } => {
                next.flights.push(Flight { presented, unbatch, ours, phase: Phase::Travelling { sent_at: next.now } });
            }
            Action::Lose(index) => drop(next.flights.remove(index)),
            Action::SignOut => {
                next.store.end();
                next.ended = true;
            }
            Action::Forget(writes) => {
                next.store.forget(writes);
                next.store = TestStore::new(next.store.record?);
                next.forgot = true;
            }
            Action::Step(index) => {
                let flight = next.flights.remove(index);
                let before = next.current();
                self.step(&mut next, flight);
                self.watch(&mut next, before);
            }
        }
        next.normalise();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![Property::always("L: nobody is refused", |model: &Self, state: &State| {
            !model.liveness || !state.flights.iter().any(|flight| matches!(flight.phase, Phase::Refused(_)))
        })];
        if self.safety {
            properties.extend([
                Property::always("S1: a superseded token is dead after the buffer", |_, s: &State| {
                    s.broken != Some(Promise::S1)
                }),
                Property::always("S2: at most two tokens are acceptable", Self::at_most_two),
                Property::always("S3: each generation is delivered once", |_, s: &State| s.broken != Some(Promise::S3)),
                Property::always("S4: a session that ended stays ended", |_, s: &State| s.broken != Some(Promise::S4)),
                Property::always("S5: generations never decrease", |_, s: &State| s.broken != Some(Promise::S5)),
            ]);
        }
        properties.extend([
            Property::sometimes("a batch", |_, s: &State| s.plans().any(|plan| *plan == Plan::Blank)),
            Property::sometimes("two rotations", |_, s: &State| s.held >= 3),
        ]);
        if self.forgets > 0 {
            properties.push(Property::sometimes("a heal", |_, s: &State| s.changes().any(|swap| swap.heals())));
        }
        if self.forgiving() && (self.losses || self.replays) {
            properties.push(Property::sometimes("a resend", |_, s: &State| s.plans().any(is_resend)));
        }
        if self.replays {
            properties.push(Property::sometimes("a superseded token", |_, s: &State| {
                s.flights.iter().any(|f| matches!(f.phase, Phase::Refused(Some(Rejection::Superseded { .. }))))
            }));
        }
        if self.sign_out {
            properties.push(Property::sometimes("a session gone", |_, s: &State| {
                s.flights.iter().any(|f| f.phase == Phase::Refused(None))
            }));
        }
        properties
    }
}

fn is_resend(plan: &Plan) -> bool {
    matches!(plan, Plan::HandOut { swap, .. } if swap.generation == swap.expect.generation)
}

impl Cluster {
    fn step(&self, next: &mut State, mut flight: Flight) {
        match flight.phase.clone() {
            Phase::Travelling { sent_at } => match next.store.record.clone() {
                None => flight.phase = Phase::Refused(None),
                Some(session) => flight.phase = self.consider(next, &flight, session, sent_at, next.now),
            },
            Phase::Changing { sent_at, read_at, session, swap } => {
                flight.phase = match next.store.swap(&swap, next.now) {
                    Swapped::Done(done_at) => match session.swapped(&swap, done_at) {
                        Some(session) => self.consider(next, &flight, session, sent_at, next.now),
                        None => Phase::Refused(None),
                    },
                    Swapped::Moved(found) => self.consider(next, &flight, found, sent_at, read_at),
                    Swapped::Gone => Phase::Refused(None),
                };
            }
            Phase::Handling { session, plan } => {
                let token = self.answer(next, &flight, &session, &plan);
                flight.phase = Phase::Returning { sent_at: next.now, token };
            }
            Phase::Returning { token, .. } => {
                if let Some(token) = token.filter(|_| flight.ours) {
                    next.held = if self.never_goes_back { next.held.max(token) } else { token };
                }
                return;
            }
            Phase::Refused(_) => return,
        }
        next.flights.push(flight);
    }

    fn consider(&self, next: &mut State, flight: &Flight, session: Session, sent_at: i64, read_at: i64) -> Phase {
        match decide(&session, genuine(flight.presented), flight.unbatch, at(read_at), &self.rules) {
            Verdict::Reject(why) => {
                if matches!(why, Rejection::Superseded { revoke: true }) {
                    next.store.end();
                    next.ended = true;
                }
                Phase::Refused(Some(why))
            }
            Verdict::First(swap) => Phase::Changing { sent_at, read_at, session, swap },
            Verdict::Accept(plan) => {
                self.accepted(next, flight.presented);
                Phase::Handling { session, plan }
            }
        }
    }

    fn accepted(&self, next: &mut State, presented: u32) {
        let buffer = i64::try_from(self.rules.batch_request_buffer_throttle.as_millis()).unwrap();
        if next.ended {
            next.broken = Some(Promise::S4);
        }
        let current = next.current().unwrap_or(0);
        let dead = presented + 1 < current || presented + 1 == current && next.now >= next.superseded_at + buffer;
        if dead && !self.forgiving() && !next.forgot {
            next.broken = Some(Promise::S1);
        }
        if presented > current {
            next.broken = Some(Promise::S5);
        }
    }

    fn answer(&self, next: &mut State, flight: &Flight, session: &Session, plan: &Plan) -> Option<u32> {
        let before = next.current();
        let reply = finish(&mut next.store, session, plan, next.now);
        let rotated = next.current() > before;
        let token = match reply {
            Reply::Token { generation, .. } => Some(generation.get()),
            Reply::Blank | Reply::Nothing => None,
        };
        if token.is_some_and(|token| next.ended || token < flight.presented) {
            next.broken = Some(if next.ended { Promise::S4 } else { Promise::S5 });
        }
        let once = !self.forgiving() && !next.forgot && !self.unbatch;
        let again = token.is_some_and(|token| next.delivered & 1 << token != 0);
        if once && (again || token.is_some() != rotated) || rotated && token != next.current() {
            next.broken = Some(Promise::S3);
        }
        if let Some(token) = token {
            next.issued = next.issued.max(token);
            next.delivered |= 1 << token;
        }
        token
    }

    /// What a step did to the record.
    fn watch(&self, next: &mut State, before: Option<u32>) {
        let (Some(before), Some(current)) = (before, next.current()) else { return };
        if current < before || current > next.issued {
            next.broken = Some(Promise::S5);
        }
        if current > before {
            next.superseded_at = next.now;
        }
    }

    /// S2: after lost writes, tokens from ahead of the record come on top until one of them is presented.
    fn at_most_two(&self, state: &State) -> bool {
        let Some(record) = &state.store.record else { return true };
        let newest = if state.forgot { record.generation.get() } else { state.issued };
        let accepted =
            |p: &u32| !matches!(decide(record, genuine(*p), false, at(state.now), &self.rules), Verdict::Reject(_));
        (1..=newest).filter(accepted).count() <= 2
    }
}

impl State {
    fn current(&self) -> Option<u32> {
        self.store.record.as_ref().map(|record| record.generation.get())
    }

    fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.flights.iter().filter_map(|flight| match &flight.phase {
            Phase::Handling { plan, .. } => Some(plan),
            _ => None,
        })
    }

    fn changes(&self) -> impl Iterator<Item = &Swap> {
        self.flights.iter().filter_map(|flight| match &flight.phase {
            Phase::Changing { swap, .. } => Some(swap),
            _ => None,
        })
    }

    /// Makes equal what cannot make a difference any more.
    fn normalise(&mut self) {
        // Nodes are alike, so the order of the flights says nothing.
        self.flights.sort_by_key(|flight| {
            let mut hasher = DefaultHasher::new();
            flight.hash(&mut hasher);
            hasher.finish()
        });
        // Rotating tokens are not asked when they were last seen.
        let seen = Timestamp::default();
        if let Some(record) = &mut self.store.record {
            record.last_seen_at = seen;
        }
        for flight in &mut self.flights {
            if let Phase::Changing { session, .. } | Phase::Handling { session, .. } = &mut flight.phase {
                session.last_seen_at = seen;
            }
        }
    }
}

/// Explores all of it, and holds it against its promises.
fn explore(name: &str, cluster: Cluster) {
    let checker = cluster.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    report(name, &checker);
    checker.assert_properties();
}

#[expect(clippy::print_stdout, reason = "how much was explored, with --nocapture")]
fn report(name: &str, checker: &impl Checker<Cluster>) {
    println!("{name}: {} states, {} deep", checker.unique_state_count(), checker.max_depth());
}

/// For configurations that leave a condition out: somebody is refused, or the condition is not needed.
fn breaks(name: &str, cluster: Cluster) {
    let checker = Cluster { safety: false, ..cluster };
    let checker = checker.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    report(name, &checker);
    checker.assert_any_discovery("L: nobody is refused");
}

#[test]
fn s_default_mode_with_replays_and_a_sign_out() {
    let cluster = Cluster { replays: true, sign_out: true, losses: true, liveness: false, ..Cluster::new(rules(2)) };
    explore("default, replays, sign-out", cluster);
}

#[test]
fn s_forgiving_mode_with_replays_and_a_sign_out() {
    let cluster =
        Cluster { replays: true, sign_out: true, losses: true, liveness: false, ..Cluster::new(forgiving(2)) };
    explore("forgiving, replays, sign-out", Cluster { ticks: 5, ..cluster });
}

#[test]
fn s_lost_writes_with_replays() {
    for (name, rules, ticks) in [("default", rules(2), 5), ("forgiving", forgiving(2), 4)] {
        let cluster = Cluster { replays: true, forgets: 2, sign_out: true, liveness: false, ..Cluster::new(rules) };
        explore(&format!("{name}, replays, lost writes, sign-out"), Cluster { ticks, ..cluster });
    }
}

#[test]
fn s_with_repetitions() {
    let cluster = Cluster { replays: true, unbatch: true, liveness: false, ..Cluster::new(rules(2)) };
    explore("default, replays, unbatch", cluster);
}

#[test]
fn l1_a_naive_client() {
    for (name, rules) in [("default", rules(2)), ("forgiving", forgiving(2))] {
        explore(&format!("{name}, slow requests"), Cluster::new(rules.clone()));
        explore(&format!("{name}, slow responses"), Cluster { go: 0, back: 1, ..Cluster::new(rules) });
    }
    explore("default, three requests", Cluster { in_flight: 3, ..Cluster::new(rules(2)) });
    explore("default, slow both ways", Cluster { back: 1, ticks: 10, ..Cluster::new(rules(3)) });
}

#[test]
fn l1_lost_writes_and_a_client_that_never_goes_back() {
    for (name, rules) in [("default", rules(2)), ("forgiving", forgiving(2))] {
        let cluster = Cluster { forgets: 2, never_goes_back: true, ..Cluster::new(rules) };
        explore(&format!("{name}, lost writes, slow requests"), cluster.clone());
        explore(&format!("{name}, lost writes, slow responses"), Cluster { go: 0, back: 1, ..cluster });
    }
}

#[test]
fn l1_repetitions_and_a_client_that_never_goes_back() {
    explore("default, unbatch", Cluster { unbatch: true, never_goes_back: true, ..Cluster::new(rules(2)) });
}

#[test]
fn l2_lost_responses_and_dead_nodes() {
    let cluster = Cluster { losses: true, ..Cluster::new(forgiving(2)) };
    explore("forgiving, losses, slow requests", cluster.clone());
    explore("forgiving, losses, slow responses", Cluster { go: 0, back: 1, ..cluster.clone() });
    explore("forgiving, losses, three requests", Cluster { in_flight: 3, ticks: 5, ..cluster.clone() });
    explore("forgiving, losses, retries in the window", Cluster { unbatch: true, ..cluster });
}

#[test]
fn l2_lost_writes_too() {
    let cluster = Cluster { losses: true, forgets: 2, never_goes_back: true, ..Cluster::new(forgiving(2)) };
    explore("forgiving, losses, lost writes", cluster);
}

// Each condition of L1 and L2 is needed, and the model is large enough to show it.

#[test]
fn the_round_trip_has_to_be_shorter_than_the_buffer() {
    breaks("round trip of the buffer's length", Cluster { go: 1, back: 1, ..Cluster::new(rules(2)) });
}

#[test]
fn lost_responses_need_the_forgiving_mode() {
    breaks("losses in default mode", Cluster { losses: true, ..Cluster::new(rules(2)) });
}

#[test]
fn lost_writes_need_a_client_that_never_goes_back() {
    breaks("lost writes, a naive client", Cluster { forgets: 2, ticks: 9, ..Cluster::new(rules(2)) });
}

#[test]
fn a_lost_resend_needs_to_be_durable() {
    let cluster = Cluster { losses: true, forgets: 2, never_goes_back: true, ..Cluster::new(forgiving(2)) };
    breaks("a resend is lost", Cluster { durable_resend: false, ..cluster });
}

#[test]
fn a_generation_is_what_the_wire_says() {
    // The model counts generations in plain numbers; this ties them to what a token carries.
    assert_eq!(genuine(5).generation(), Generation::new(5));
}
