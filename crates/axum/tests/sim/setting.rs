//! What may happen in a family of runs, and what does happen in the run of a seed.

use std::time::Duration;

use baton_core::{BatchResponse, OnReuse, Rules};

use crate::dice::Dice;
use crate::history::Act;

pub(crate) const NODES: usize = 3;
/// Clients, each with a session of its own of the one account.
pub(crate) const CLIENTS: usize = 2;

/// How long a client waits for its last responses; longer than any of them takes.
pub(crate) const PATIENCE_AT_THE_END: i64 = 100;

/// A family of runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Family {
    pub(crate) keeps: Keeps,
    pub(crate) forgiving: bool,
    pub(crate) on_reuse: OnReuse,
    pub(crate) batch_response: BatchResponse,
    /// Whether requests ask for the current token inside the window (`unbatch`).
    pub(crate) unbatch: bool,
    /// Whether the store may lose rotations.
    pub(crate) loses_writes: bool,
    /// Whether the store is away at times.
    pub(crate) outages: bool,
    /// Whether messages are lost between clients and nodes, and nodes die.
    pub(crate) lost_responses: bool,
    /// Whether round trips are shorter than the buffer. If not, all delays have nothing to do with it.
    pub(crate) prompt: bool,
    /// Old and forged tokens, sign-outs, sessions that are ended from elsewhere.
    pub(crate) trouble: bool,
}

/// Everything goes: for the promises that hold whatever clients do.
pub(crate) const WILD: Family = Family {
    keeps: Keeps::Anything,
    forgiving: false,
    on_reuse: OnReuse::Reject,
    batch_response: BatchResponse::Blank,
    unbatch: false,
    loses_writes: false,
    outages: true,
    lost_responses: true,
    prompt: false,
    trouble: true,
};

/// Clients that follow the protocol, with round trips below the buffer, whose responses arrive.
pub(crate) const POLITE: Family = Family { lost_responses: false, prompt: true, trouble: false, ..WILD };

/// What a client does with a token that it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Stores it, whatever it is.
    Anything,
    /// Stores it unless its generation is lower than the stored one's.
    NewestGeneration,
}

/// One run. Times are milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) family: Family,
    pub(crate) seed: u64,
    pub(crate) rules: Rules,
    pub(crate) buffer: i64,
    /// Longest way of a message between a client and a node.
    pub(crate) longest_link: i64,
    /// How uneven that way is: the rate of an exponential distribution over it.
    pub(crate) curve: f64,
    /// Longest way of a message between a node and the store, but for the late ones.
    pub(crate) longest_wire: i64,
    /// One message in so many between a node and the store is late, by up to a few buffers.
    pub(crate) late_one_in: Option<usize>,
    /// One message in so many between a node and the store is lost.
    pub(crate) lost_one_in: Option<usize>,
    /// How long a client waits for a response, the handler's time not counted.
    pub(crate) patience: i64,
    /// How many relaxed writes the store can lose at most.
    pub(crate) horizon: usize,
    pub(crate) volleys: Vec<Volley>,
    pub(crate) faults: Vec<(i64, Fault)>,
    /// When everything is mended.
    pub(crate) mended_at: i64,
    /// When the clients come back for the last times.
    pub(crate) last_at: [i64; 2],
    pub(crate) end_at: i64,
}

/// Requests that a client makes at once.
#[derive(Debug, Clone)]
pub(crate) struct Volley {
    pub(crate) at: i64,
    pub(crate) client: usize,
    pub(crate) shots: Vec<Shot>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Shot {
    pub(crate) node: usize,
    pub(crate) token: Which,
    pub(crate) act: Act,
    pub(crate) unbatch: bool,
    /// How many more requests follow, each as soon as the one before it is answered.
    pub(crate) more: usize,
}

/// Which token a request presents.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    /// The stored one, as the protocol wants it.
    Held,
    /// One that was issued at some time, so many before the newest.
    Issued(u32),
    /// One that nobody issued, so many ahead of the newest.
    Forged(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node dies, with all that it was working on.
    Crash(usize),
    /// It starts again.
    Restart(usize),
    /// Nothing gets through between a client and a node.
    Cut { client: usize, node: usize },
    /// Requests get through and responses do not.
    CutBack { client: usize, node: usize },
    /// What is sent between them waits.
    Hold { client: usize, node: usize },
    /// All of that is over, and what waited comes.
    Mend { client: usize, node: usize },
    /// The store does not answer anybody, or answers again.
    StoreAway(bool),
    /// The store does not answer this node, or answers it again.
    StoreCut(usize, bool),
    /// The store loses up to this many of its newest relaxed writes.
    Lose(usize),
    /// Another device signs in, and a session too many ends for it.
    SignIn,
    /// The password is changed from this client: the account's other sessions end.
    NewPassword(usize),
}

impl Setting {
    pub(crate) fn of(family: Family, seed: u64) -> Self {
        let mut dice = Dice::new(seed, 1);
        let longest_link = if dice.one_in(2) { dice.between(1, 6) } else { dice.between(10, 25) };
        let longest_wire = dice.between(0, 2);
        // There: the link, and up to five messages to the store and back. Back: the store's answer, and the link. Timers add
        // up to a millisecond each.
        let round_trip = 2 * (longest_link + 1) + 7 * (longest_wire + 1);
        let buffer = match (family.prompt, dice.below(4)) {
            (true, _) => round_trip + dice.between(1, 10),
            (false, 0) => 0,
            (false, _) => dice.between(1, 40),
        };
        let millis = |n: i64| Duration::from_millis(u64::try_from(n).unwrap_or(0));
        let rules = Rules {
            forgive_lost_responses: family.forgiving,
            on_reuse: family.on_reuse,
            batch_response: family.batch_response,
            batch_request_buffer_throttle: millis(buffer),
            ..Rules::default()
        };
        let mut volleys = Vec::new();
        let mut time = 0;
        while volleys.len() < 26 {
            time += if dice.one_in(4) { dice.between(buffer / 2, 2 * buffer + 8) } else { dice.between(0, 12) };
            volleys.push(family.volley(&mut dice, time));
        }
        let faults = family.faults(&mut dice, time);
        let patience = if family.prompt { round_trip } else { dice.between(10, 90) };
        // Longer than anything that is still under way.
        let mended_at = time + 20;
        let first = mended_at + 3 * buffer + 2 * patience + 100;
        let last_at = [first, first + buffer + PATIENCE_AT_THE_END];
        Self {
            family,
            seed,
            rules,
            buffer,
            longest_link,
            curve: dice.pick(&[1.0, 2.0, 5.0]),
            longest_wire,
            lost_one_in: family.outages.then(|| dice.pick(&[20, 40, 160])),
            late_one_in: (!family.prompt && family.outages).then_some(24),
            patience,
            horizon: if family.loses_writes { 6 } else { 0 },
            volleys,
            faults,
            mended_at,
            last_at,
            end_at: last_at[1] + PATIENCE_AT_THE_END + 100,
        }
    }
}

impl Family {
    fn volley(self, dice: &mut Dice, at: i64) -> Volley {
        let client = dice.below(CLIENTS);
        let count = if dice.one_in(3) { dice.below(4) + 2 } else { 1 };
        Volley { at, client, shots: (0..count).map(|_| self.shot(dice, client)).collect() }
    }

    fn shot(self, dice: &mut Dice, client: usize) -> Shot {
        let token = match dice.below(12) {
            0..=2 if self.trouble => Which::Issued(dice.below(5) as u32),
            3 if self.trouble => Which::Forged(dice.below(3) as u32),
            _ => Which::Held,
        };
        let act = match dice.below(40) {
            0 if self.trouble => Act::SignOut,
            1 if self.trouble => Act::EndSession((client + 1) % CLIENTS),
            2..=5 => Act::Validate,
            6..=7 => Act::ListSessions,
            8..=13 => Act::Work(dice.below(60) as u64),
            _ => Act::Work(0),
        };
        let more = if dice.one_in(3) { dice.between(1, 2) as usize } else { 0 };
        Shot { node: dice.below(NODES), token, act, unbatch: self.unbatch && dice.one_in(3), more }
    }

    /// Faults, each with its end, up to this time.
    fn faults(self, dice: &mut Dice, until: i64) -> Vec<(i64, Fault)> {
        let mut faults = Vec::new();
        let mut add =
            |dice: &mut Dice, often: usize, longest: i64, fault: &dyn Fn(&mut Dice) -> (Fault, Option<Fault>)| {
                for _ in 0..dice.below(often + 1) {
                    let at = dice.between(1, until);
                    let (begins, ends) = fault(dice);
                    faults.push((at, begins));
                    faults.extend(ends.map(|ends| (at + dice.between(1, longest), ends)));
                }
            };
        if self.outages {
            add(dice, 2, 25, &|_| (Fault::StoreAway(true), Some(Fault::StoreAway(false))));
            add(dice, 3, 40, &|dice| {
                let node = dice.below(NODES);
                (Fault::StoreCut(node, true), Some(Fault::StoreCut(node, false)))
            });
        }
        if self.loses_writes {
            add(dice, 6, 1, &|dice| (Fault::Lose(dice.below(5) + 1), None));
        }
        if self.lost_responses {
            add(dice, 12, 30, &|dice| {
                let node = dice.below(NODES);
                (Fault::Crash(node), Some(Fault::Restart(node)))
            });
            add(dice, 16, 60, &|dice| {
                let (client, node) = (dice.below(CLIENTS), dice.below(NODES));
                // A message that waits is late, and prompt ones are not.
                let kinds: &[_] = if self.prompt { &[0, 1] } else { &[0, 1, 2] };
                let begins = match dice.pick(kinds) {
                    0 => Fault::Cut { client, node },
                    1 => Fault::CutBack { client, node },
                    _ => Fault::Hold { client, node },
                };
                (begins, Some(Fault::Mend { client, node }))
            });
        }
        if self.trouble && dice.one_in(3) {
            add(dice, 1, 1, &|_| (Fault::SignIn, None));
            add(dice, 1, 1, &|dice| (Fault::NewPassword(dice.below(CLIENTS)), None));
        }
        // A stable sort: of two at the same time the one that was drawn first comes first.
        faults.sort_by_key(|(at, _)| *at);
        faults
    }
}
