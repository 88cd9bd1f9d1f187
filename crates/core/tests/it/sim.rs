//! A simulated cluster: several nodes over one store, a client whose tabs share one stored token, and faults.
//!
//! Discrete events over integer time; the store's clock is the simulation's. The nodes hold nothing but their requests. A
//! run is a pure function of its [`Schedule`] and yields what was [`Seen`]; the promises are checked on that, in
//! `schedule`.

use std::collections::BTreeMap;

use baton_core::{
    Generation, Genuine, OnReuse, Plan, Rejection, Reply, Rules, Session, Swap, Swapped, Timestamp, Verdict, decide,
};

use crate::common::{CLIENT, TestStore, at, finish, genuine, ring, ring_of, signed_in};

/// Everything that happens in one run.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub(crate) rules: Rules,
    pub(crate) keeps: Keeps,
    /// How many writes a fault may take back, and whether those of a resend are among them.
    pub(crate) horizon: usize,
    pub(crate) durable_resend: bool,
    /// Longest way of a request, up to its last read of the store before the handler.
    pub(crate) longest_go: i64,
    /// Longest way of a response, counted from the swap.
    pub(crate) longest_back: i64,
    pub(crate) steps: Vec<Step>,
}

/// What a client does with a token that it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Stores it, whatever it is.
    Anything,
    /// Stores it if its generation is higher than the stored one's.
    NewestGeneration,
    /// Stores it unless its `expiry` is before the stored one's, as ng-token-auth and angular-token do.
    LatestExpiry,
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// Time since the step before.
    pub(crate) gap: u8,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Request(Shot),
    /// The session is ended, and that is acknowledged.
    SignOut,
    /// The store loses up to this many of its newest relaxed writes.
    Forget(u8),
    /// A node dies with all that it was working on, and is back at once.
    Crash(u8),
}

/// One request. Delays are taken modulo the longest one that the schedule allows, so that any number is valid.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shot {
    pub(crate) token: Which,
    pub(crate) node: u8,
    /// Among events of the same instant, lower ones come first.
    pub(crate) order: u8,
    pub(crate) go: u8,
    /// Between a decision to change the record first and that change.
    pub(crate) store: u8,
    pub(crate) handler: u8,
    /// Between the swap and the response's leaving the node: it may die in between.
    pub(crate) hold: u8,
    pub(crate) back: u8,
    /// The response does not arrive.
    pub(crate) lost: bool,
    pub(crate) unbatch: bool,
}

/// Which token a request presents.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Which {
    /// The stored one, as the protocol wants it.
    #[default]
    Held,
    /// One that was issued at some time: a thief, or a client that went wrong.
    Issued(u8),
    /// One that nobody issued, this far ahead of the newest.
    Forged(u8),
}

/// What was observed, in order of time.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    /// `decided_at` is the store's time that the decision went by: of its last read.
    Accepted {
        presented: u32,
        current: u32,
        plan: Plan,
        decided_at: i64,
        now: i64,
    },
    Refused {
        why: Why,
        expected: Timestamp,
        now: i64,
    },
    /// A response head is ready.
    Answered {
        presented: u32,
        reply: Reply,
        won: bool,
        now: i64,
    },
    /// A response with a token has left its node.
    Sent {
        generation: u32,
    },
    /// A node died between the swap and the response.
    Died {
        generation: u32,
    },
    /// The record's generation changed.
    Moved {
        from: u32,
        to: u32,
        now: i64,
    },
    /// Which generations would be accepted now.
    Probed {
        current: u32,
        acceptable: Vec<u32>,
        now: i64,
    },
    /// The record rose to a generation that was never issued.
    Invented {
        generation: u32,
    },
    Ended,
    Forgot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Forged,
    Gone,
    Rule(Rejection),
}

/// How often the interesting things happened: a run in which they did not proves nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) rotations: u32,
    pub(crate) batches: u32,
    pub(crate) heals: u32,
    pub(crate) resends: u32,
    pub(crate) notes: u32,
    pub(crate) repeats: u32,
    pub(crate) lost_swaps: u32,
    pub(crate) superseded: u32,
    pub(crate) expired: u32,
    pub(crate) gone: u32,
    pub(crate) forged: u32,
    pub(crate) died: u32,
    pub(crate) forgot: u32,
    pub(crate) predecessors: u32,
    pub(crate) gone_at_the_end: u32,
}

pub(crate) fn run(schedule: &Schedule) -> (Vec<Seen>, Counts) {
    let mut world = World::new(schedule);
    while let Some(((now, ..), event)) = world.queue.pop_first() {
        world.now = now;
        let before = world.current();
        world.handle(event);
        world.observe(before);
    }
    (world.seen, world.counts)
}

struct World<'a> {
    schedule: &'a Schedule,
    store: TestStore,
    held: Held,
    /// The newest generation that a response was made with.
    issued: u32,
    flights: Vec<Flight<'a>>,
    queue: BTreeMap<(i64, u8, usize), Event>,
    scheduled: usize,
    now: i64,
    seen: Vec<Seen>,
    counts: Counts,
}

/// What the client has stored.
#[derive(Clone)]
struct Held {
    token: String,
    generation: u32,
    expires_at: Timestamp,
}

struct Flight<'a> {
    shot: &'a Shot,
    token: String,
    /// The latest end of the session that the client had been told when it sent this.
    promised: Timestamp,
    sent_at: i64,
    phase: Phase,
}

enum Phase {
    Travelling,
    Changing { session: Session, token: Genuine, swap: Swap, read_at: i64 },
    Handling { session: Session, token: Genuine, plan: Plan },
    Holding(Reply),
    Returning(Held),
    Over,
}

#[derive(Clone, Copy)]
enum Event {
    Step(usize),
    Read(usize),
    Change(usize),
    Ready(usize),
    Leave(usize),
    Arrive(usize),
}

impl<'a> World<'a> {
    fn new(schedule: &'a Schedule) -> Self {
        let record = signed_in(0, schedule.rules.renewal());
        let held = Held {
            token: ring().derive(CLIENT, Generation::FIRST).expose().to_owned(),
            generation: 1,
            expires_at: record.expires_at,
        };
        let store = TestStore::forgetful(record, schedule.horizon, schedule.durable_resend);
        let mut world = Self {
            schedule,
            store,
            held,
            issued: 1,
            flights: Vec::new(),
            queue: BTreeMap::new(),
            scheduled: 0,
            now: 0,
            seen: Vec::new(),
            counts: Counts::default(),
        };
        let mut time = 0;
        for (index, step) in schedule.steps.iter().enumerate() {
            time += i64::from(step.gap);
            world.push(time, 0, Event::Step(index));
        }
        world
    }

    fn push(&mut self, time: i64, order: u8, event: Event) {
        self.scheduled += 1;
        self.queue.insert((time, order, self.scheduled), event);
    }

    fn after(&mut self, delay: i64, flight: usize, event: Event) {
        let order = self.flights[flight].shot.order;
        self.push(self.now + delay, order, event);
    }

    fn current(&self) -> Option<u32> {
        self.store.record.as_ref().map(|record| record.generation.get())
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Step(index) => self.step(index),
            Event::Read(i) => self.read(i),
            Event::Change(i) => self.change(i),
            Event::Ready(i) => self.ready(i),
            Event::Leave(i) => self.leave(i),
            Event::Arrive(i) => self.arrive(i),
        }
    }

    fn step(&mut self, index: usize) {
        match &self.schedule.steps[index].what {
            What::Request(shot) => self.send(shot),
            What::SignOut => self.end(),
            What::Forget(writes) => {
                let writes = usize::from(*writes).min(self.store.at_risk());
                self.store.forget(writes);
                if writes > 0 {
                    self.counts.forgot += 1;
                    self.seen.push(Seen::Forgot);
                }
            }
            What::Crash(node) => self.crash(*node),
        }
    }

    fn end(&mut self) {
        self.store.end();
        self.seen.push(Seen::Ended);
    }

    fn crash(&mut self, node: u8) {
        for flight in self.flights.iter_mut().filter(|flight| flight.shot.node == node) {
            match &flight.phase {
                Phase::Travelling | Phase::Returning(_) | Phase::Over => continue,
                Phase::Holding(Reply::Token { generation, .. }) => {
                    self.counts.died += 1;
                    self.seen.push(Seen::Died { generation: generation.get() });
                }
                Phase::Holding(_) | Phase::Changing { .. } | Phase::Handling { .. } => {}
            }
            flight.phase = Phase::Over;
        }
    }

    fn send(&mut self, shot: &'a Shot) {
        let token = match shot.token {
            Which::Held => self.held.token.clone(),
            Which::Issued(n) => {
                let generation = Generation::new(1 + u32::from(n) % self.issued);
                ring().derive(CLIENT, generation).expose().to_owned()
            }
            Which::Forged(n) => {
                let generation = Generation::new(self.issued + 1 + u32::from(n));
                ring_of(3, 99).derive(CLIENT, generation).expose().to_owned()
            }
        };
        let promised = self.held.expires_at;
        self.flights.push(Flight { shot, token, promised, sent_at: self.now, phase: Phase::Travelling });
        let delay = i64::from(shot.go) % (self.schedule.longest_go + 1);
        self.after(delay, self.flights.len() - 1, Event::Read(self.flights.len() - 1));
    }

    fn read(&mut self, i: usize) {
        let Ok(token) = ring().verify(CLIENT, &self.flights[i].token) else { return self.refuse(i, Why::Forged) };
        match self.store.record.clone() {
            None => self.refuse(i, Why::Gone),
            Some(session) => self.consider(i, session, token, self.now),
        }
    }

    fn consider(&mut self, i: usize, session: Session, token: Genuine, read_at: i64) {
        let shot = self.flights[i].shot;
        let presented = token.generation().get();
        match decide(&session, token, shot.unbatch, at(read_at), &self.schedule.rules) {
            Verdict::Reject(why) => {
                self.refuse(i, Why::Rule(why));
                if matches!(why, Rejection::Expired | Rejection::Superseded { revoke: true }) {
                    self.end();
                }
            }
            Verdict::First(swap) => {
                self.flights[i].phase = Phase::Changing { session, token, swap, read_at };
                // The way of a request ends with its last look at the store.
                let left = self.flights[i].sent_at + self.schedule.longest_go - self.now;
                self.after(i64::from(shot.store % 4).min(left).max(0), i, Event::Change(i));
            }
            Verdict::Accept(plan) => {
                match plan {
                    Plan::Blank => self.counts.batches += 1,
                    Plan::Repeat => self.counts.repeats += 1,
                    Plan::HandOut { .. } | Plan::Keep => {}
                }
                if presented < session.generation.get() {
                    self.counts.predecessors += 1;
                }
                let current = self.current().unwrap_or(session.generation.get());
                self.seen.push(Seen::Accepted { presented, current, plan, decided_at: read_at, now: self.now });
                self.flights[i].phase = Phase::Handling { session, token, plan };
                self.after(i64::from(shot.handler), i, Event::Ready(i));
            }
        }
    }

    fn change(&mut self, i: usize) {
        let Phase::Changing { session, token, swap, read_at } = self.take(i) else { return };
        match self.store.swap(&swap, self.now) {
            Swapped::Done(done_at) => {
                if swap.heals() {
                    self.counts.heals += 1
                } else {
                    self.counts.notes += 1
                }
                if swap.generation.get() > self.issued {
                    self.seen.push(Seen::Invented { generation: swap.generation.get() });
                }
                let session = session.swapped(&swap, done_at).unwrap();
                self.consider(i, session, token, done_at.as_millis());
            }
            Swapped::Moved(found) => {
                self.counts.lost_swaps += 1;
                self.consider(i, found, token, read_at);
            }
            Swapped::Gone => self.refuse(i, Why::Gone),
        }
    }

    fn ready(&mut self, i: usize) {
        let Phase::Handling { session, token, plan } = self.take(i) else { return };
        let before = self.store.record.clone();
        let reply = finish(&mut self.store, &session, &plan, self.now);
        let won = self.store.record != before;
        match plan {
            Plan::HandOut { .. } if !won => self.counts.lost_swaps += 1,
            Plan::HandOut { swap, .. } if swap.generation > swap.expect.generation => self.counts.rotations += 1,
            Plan::HandOut { .. } => self.counts.resends += 1,
            _ => {}
        }
        if reply == Reply::Nothing {
            self.counts.gone_at_the_end += 1;
        }
        if let Reply::Token { generation, .. } = reply {
            self.issued = self.issued.max(generation.get());
        }
        self.seen.push(Seen::Answered { presented: token.generation().get(), reply, won, now: self.now });
        self.flights[i].phase = Phase::Holding(reply);
        let hold = i64::from(self.flights[i].shot.hold) % (self.schedule.longest_back + 1);
        self.after(hold, i, Event::Leave(i));
    }

    fn leave(&mut self, i: usize) {
        let Phase::Holding(Reply::Token { generation, expires_at }) = self.take(i) else { return };
        self.seen.push(Seen::Sent { generation: generation.get() });
        let shot = self.flights[i].shot;
        if !shot.lost {
            let token = ring().derive(CLIENT, generation).expose().to_owned();
            self.flights[i].phase = Phase::Returning(Held { token, generation: generation.get(), expires_at });
            let longest = self.schedule.longest_back;
            let left = longest - i64::from(shot.hold) % (longest + 1);
            self.after(i64::from(shot.back) % (left + 1), i, Event::Arrive(i));
        }
    }

    fn arrive(&mut self, i: usize) {
        let Phase::Returning(given) = self.take(i) else { return };
        // A thief keeps what it gets to itself.
        if !matches!(self.flights[i].shot.token, Which::Held) {
            return;
        }
        let stores = match self.schedule.keeps {
            Keeps::Anything => true,
            Keeps::NewestGeneration => given.generation > self.held.generation,
            Keeps::LatestExpiry => given.expires_at >= self.held.expires_at,
        };
        if stores {
            self.held = given;
        }
    }

    fn take(&mut self, i: usize) -> Phase {
        std::mem::replace(&mut self.flights[i].phase, Phase::Over)
    }

    fn refuse(&mut self, i: usize, why: Why) {
        match why {
            Why::Forged => self.counts.forged += 1,
            Why::Gone => self.counts.gone += 1,
            Why::Rule(Rejection::Expired) => self.counts.expired += 1,
            Why::Rule(Rejection::Superseded { revoke }) => {
                assert_eq!(revoke, self.schedule.rules.on_reuse == OnReuse::Revoke);
                self.counts.superseded += 1;
            }
        }
        self.flights[i].phase = Phase::Over;
        self.seen.push(Seen::Refused { why, expected: self.flights[i].promised, now: self.now });
    }

    /// Looks at the record after an event: did it move, and which tokens would be accepted?
    fn observe(&mut self, before: Option<u32>) {
        let Some(record) = &self.store.record else { return };
        let current = record.generation.get();
        if let Some(from) = before.filter(|from| *from != current) {
            self.seen.push(Seen::Moved { from, to: current, now: self.now });
        }
        let accepted = |p: &u32| {
            let verdict = decide(record, genuine(*p), false, at(self.now), &self.schedule.rules);
            !matches!(verdict, Verdict::Reject(_))
        };
        let acceptable = (1..=self.issued).filter(accepted).collect();
        self.seen.push(Seen::Probed { current, acceptable, now: self.now });
    }
}
