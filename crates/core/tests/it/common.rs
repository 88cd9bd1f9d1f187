//! What the other modules share: fixed keys, short constructors, and a store that does what [`Session::swapped`] says.

use std::sync::LazyLock;
use std::time::Duration;

use baton_core::session::Renewal;
use baton_core::{
    AccountId, ClientId, Generation, Genuine, Key, KeyRing, Plan, Reply, Rules, Session, Swap, Swapped, Timestamp,
    complete,
};
use proptest::test_runner::Config;

/// The client of all sessions made here.
pub(crate) const CLIENT: ClientId = ClientId::from_bytes(*b"a test's client.");

static RING: LazyLock<KeyRing> = LazyLock::new(|| ring_of(3, 1));
/// Proofs of the first generations: the model asks for them a million times.
static GENUINE: LazyLock<Vec<Genuine>> = LazyLock::new(|| (1..64).map(prove).collect());

/// The servers' ring.
pub(crate) fn ring() -> &'static KeyRing {
    &RING
}

/// A ring of one key, whose bytes depend on `seed`.
pub(crate) fn ring_of(id: u8, seed: u8) -> KeyRing {
    KeyRing::new(vec![key(id, seed)]).unwrap()
}

/// A key whose bytes depend on `seed`.
pub(crate) fn key(id: u8, seed: u8) -> Key {
    Key::new(id, std::array::from_fn(|i| (i as u8).wrapping_mul(7).wrapping_add(seed))).unwrap()
}

/// Proof of a generation of [`CLIENT`], got in the only way there is.
pub(crate) fn genuine(generation: u32) -> Genuine {
    let cached = usize::try_from(generation).ok().and_then(|n| n.checked_sub(1)).and_then(|n| GENUINE.get(n));
    cached.copied().unwrap_or_else(|| prove(generation))
}

fn prove(generation: u32) -> Genuine {
    let token = RING.derive(CLIENT, Generation::new(generation));
    RING.verify(CLIENT, token.expose()).unwrap()
}

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Rules with this buffer and lifetimes that no test reaches by accident.
pub(crate) fn rules(buffer: u64) -> Rules {
    Rules {
        batch_request_buffer_throttle: ms(buffer),
        token_lifespan: ms(1_000_000),
        session_max_lifetime: ms(1_000_000),
        ..Rules::default()
    }
}

/// The same in forgiving mode.
pub(crate) fn forgiving(buffer: u64) -> Rules {
    Rules { forgive_lost_responses: true, ..rules(buffer) }
}

/// A sign-in at `now`.
pub(crate) fn signed_in(now: i64, renewal: Renewal) -> Session {
    Session::new(CLIENT, AccountId(1), at(now), renewal)
}

/// A record that somebody signed in at time 0.
pub(crate) fn session(generation: u32, handed_out_at: Option<i64>, confirmed: u32, rules: &Rules) -> Session {
    Session {
        generation: Generation::new(generation),
        handed_out_at: handed_out_at.map(at),
        confirmed: Generation::new(confirmed),
        ..signed_in(0, rules.renewal())
    }
}

/// How many cases a property runs, unless `PROPTEST_CASES` says otherwise.
pub(crate) fn cases(default: u32) -> Config {
    let config = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { default };
    // A failing schedule is printed in full and becomes a named regression; files of seeds are not kept.
    Config { cases, failure_persistence: None, ..config }
}

/// One session in a store: swaps are made as [`Session::swapped`] says, one at a time, and are relaxed (a fault may take
/// the newest ones back); the end of the session is durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TestStore {
    pub(crate) record: Option<Session>,
    /// The records before each write that is not yet safe, oldest first.
    unsafe_writes: Vec<Session>,
    /// How many of them are kept: what a fault can take back at most.
    horizon: usize,
    /// Whether handing out the same token again waits for the disk, as the end of a session does.
    durable_resend: bool,
}

impl TestStore {
    pub(crate) fn new(record: Session) -> Self {
        Self { record: Some(record), unsafe_writes: Vec::new(), horizon: 0, durable_resend: true }
    }

    /// A store that may forget up to `horizon` of its newest writes.
    pub(crate) fn forgetful(record: Session, horizon: usize, durable_resend: bool) -> Self {
        Self { horizon, durable_resend, ..Self::new(record) }
    }

    pub(crate) fn swap(&mut self, swap: &Swap, now: i64) -> Swapped {
        let Some(found) = self.record.clone() else { return Swapped::Gone };
        let Some(next) = found.swapped(swap, at(now)) else { return Swapped::Moved(found) };
        let resend = swap.hand_out.is_some() && swap.generation == swap.expect.generation;
        if resend && self.durable_resend {
            self.unsafe_writes.clear();
        } else {
            self.unsafe_writes.push(found);
            if self.unsafe_writes.len() > self.horizon {
                self.unsafe_writes.remove(0);
            }
        }
        self.record = Some(next);
        Swapped::Done(at(now))
    }

    pub(crate) fn end(&mut self) {
        self.record = None;
        self.unsafe_writes.clear();
    }

    /// How many writes a fault can take back.
    pub(crate) fn at_risk(&self) -> usize {
        self.unsafe_writes.len()
    }

    /// A power cut, or a failover to a replica that lags: the newest `writes` are taken back.
    pub(crate) fn forget(&mut self, writes: usize) {
        let Some(kept) = self.unsafe_writes.len().checked_sub(writes) else { return };
        if writes > 0 {
            self.record = Some(self.unsafe_writes[kept].clone());
            self.unsafe_writes.truncate(kept);
        }
    }
}

/// The end of a request: what its response carries, with the store's part in it.
pub(crate) fn finish(store: &mut TestStore, session: &Session, plan: &Plan, now: i64) -> Reply {
    let answer = match plan {
        Plan::HandOut { swap, .. } => store.swap(swap, now),
        Plan::Repeat => store.record.clone().map_or(Swapped::Gone, Swapped::Moved),
        Plan::Keep | Plan::Blank => Swapped::Moved(session.clone()),
    };
    complete(session, plan, &answer)
}
