//! What the hosts of a run share: the store with its clock, the way to it, and the record of everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use baton_core::event::Trace;
use baton_core::ports::{SessionEntry, Store};
use baton_core::session::{AccountUpdate, Device, EndSessions, NewAccount, NewSession, PasswordHash, Profile};
use baton_core::{
    AccountId, ClientId, Generation, Genuine, Key, KeyRing, Rejection, Session, StoreError, Timestamp, Verdict, decide,
};
use baton_store::clock::ManualClock;
use baton_store::faulty::{Operation, Wire};
use baton_store::memory::MemoryStore;
use futures_util::FutureExt;
use parking_lot::Mutex;

use crate::dice::Dice;
use crate::history::{Carries, Event, Finds, History, Told};
use crate::setting::{CLIENTS, NODES, Setting};

/// Some day in 2026.
const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
pub(crate) const UID: &str = "ann@example.com";

tokio::task_local! {
    /// The request that a node is at.
    pub(crate) static REQUEST: usize;
}

pub(crate) struct World {
    pub(crate) setting: Setting,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) keys: KeyRing,
    /// The clients' sessions.
    pub(crate) sessions: Vec<ClientId>,
    clock: Arc<ManualClock>,
    account: AccountId,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    history: History,
    now: i64,
    requests: Vec<Asked>,
    store_away: bool,
    store_cut: [bool; NODES],
    records: Vec<Option<Session>>,
    /// Per session: proofs of its generations, and the newest one that a response was made with.
    genuine: Vec<Vec<Genuine>>,
    issued: Vec<u32>,
    signed_in: u8,
}

/// What a request presents.
#[derive(Clone, Copy)]
struct Asked {
    session: usize,
    presented: u32,
    unbatch: bool,
}

impl World {
    pub(crate) fn new(setting: Setting) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let store = Arc::new(MemoryStore::losing(clock.clone(), setting.horizon));
        let account = NewAccount {
            realm: "user".into(),
            provider: "email".into(),
            uid: UID.into(),
            email: UID.into(),
            profile: Profile::default(),
            password: PasswordHash::new("no password fits this".into()),
        };
        let (account, _) = at_once(store.create_account(account, None, &Trace::NONE)).expect("a new account");
        let world = Self {
            keys: ring(0x61),
            sessions: (0..CLIENTS).map(|number| client(number as u8)).collect(),
            clock,
            account: account.id,
            state: Mutex::new(State {
                dice: Dice::new(setting.seed, 2),
                history: Vec::new(),
                now: 0,
                requests: Vec::new(),
                store_away: false,
                store_cut: [false; NODES],
                records: vec![None; CLIENTS],
                genuine: vec![Vec::new(); CLIENTS],
                issued: vec![1; CLIENTS],
                signed_in: 0,
            }),
            store,
            setting,
        };
        for number in 0..CLIENTS {
            world.sign_in(number as u8);
        }
        world
    }

    /// The time goes on to so many milliseconds after the start: for the store, and for the record.
    pub(crate) fn set_time(&self, now: i64) {
        self.clock.set(START.plus(Duration::from_millis(now as u64)));
        self.state.lock().now = now;
    }

    pub(crate) fn record(&self, event: Event) {
        self.state.lock().record(event);
    }

    pub(crate) fn history(&self) -> History {
        self.state.lock().history.clone()
    }

    /// A number for a request that presents this generation.
    pub(crate) fn ask(&self, session: usize, presented: u32, unbatch: bool) -> usize {
        let requests = &mut self.state.lock().requests;
        requests.push(Asked { session, presented, unbatch });
        requests.len() - 1
    }

    /// The newest generation of this session that a response was made with.
    pub(crate) fn issued(&self, session: usize) -> u32 {
        self.state.lock().issued[session]
    }

    /// A response is made with these headers.
    pub(crate) fn replied(&self, event: Event) {
        let mut state = self.state.lock();
        if let Event::Replied { request, carries: Carries::Token(generation), .. } = &event {
            let session = state.requests[*request].session;
            state.issued[session] = state.issued[session].max(*generation);
        }
        state.record(event);
    }

    /// The generation of a token of this session.
    pub(crate) fn generation(&self, session: usize, token: &str) -> Option<u32> {
        self.keys.verify(self.sessions[session], token).ok().map(|genuine| genuine.generation().get())
    }

    pub(crate) fn token(&self, session: usize, generation: u32) -> String {
        self.keys.derive(self.sessions[session], Generation::new(generation)).expose().to_owned()
    }

    // --- what happens to the store ---

    pub(crate) fn store_away(&self, away: bool) {
        self.state.lock().store_away = away;
    }

    pub(crate) fn store_cut(&self, node: usize, cut: bool) {
        self.state.lock().store_cut[node] = cut;
    }

    pub(crate) fn lose(&self, writes: usize) {
        let writes = self.store.lose(writes);
        if writes > 0 {
            self.record(Event::Lose { writes });
        }
        self.observe(None);
    }

    /// Another device signs in. The account may have as many as there are clients, so one has to go.
    pub(crate) fn another_signs_in(&self) {
        let number = {
            let mut state = self.state.lock();
            state.signed_in += 1;
            CLIENTS as u8 + state.signed_in
        };
        self.sign_in(number);
    }

    pub(crate) fn new_password(&self, from: usize) {
        let update = AccountUpdate {
            password: Some(PasswordHash::new("nor does one fit this".into())),
            end: EndSessions::AllBut(self.sessions[from]),
            ..AccountUpdate::default()
        };
        at_once(self.store.update_account(self.account, update, &Trace::NONE)).expect("the account is there");
        self.observe(None);
    }

    fn sign_in(&self, number: u8) {
        let session = NewSession {
            client: client(number),
            renewal: self.setting.rules.renewal(),
            device: Device::default(),
            max_devices: CLIENTS as u32,
            if_password: None,
        };
        at_once(self.store.create_session(self.account, session, &Trace::NONE)).expect("the account is there");
        self.observe(None);
    }

    /// Looks at the store: what has changed? `request`: who may have done it.
    fn observe(&self, request: Option<usize>) {
        let (_, entries) = at_once(self.store.sessions(self.account)).expect("the memory does not fail");
        let mut found: BTreeMap<ClientId, Session> =
            entries.into_iter().map(|SessionEntry { session, .. }| (session.client, session)).collect();
        let mut state = self.state.lock();
        for (number, client) in self.sessions.iter().enumerate() {
            let now = found.remove(client);
            let before = std::mem::replace(&mut state.records[number], now.clone());
            if let Some(event) = change(number, before.as_ref(), now.as_ref(), request, &state.history) {
                state.record(event);
                self.probe(&mut state, number);
            }
        }
    }

    /// Which tokens of a session would be let in now?
    fn probe(&self, state: &mut State, session: usize) {
        let Some(record) = state.records[session].clone() else { return };
        let current = record.generation.get();
        let newest = current.max(state.issued[session]);
        let acceptable = (1..=newest).filter(|p| self.verdict(state, session, &record, *p, false) == Finds::Good);
        let acceptable = acceptable.collect();
        state.record(Event::Probed { session, current, acceptable });
    }

    fn verdict(&self, state: &mut State, session: usize, record: &Session, presented: u32, unbatch: bool) -> Finds {
        let known = &mut state.genuine[session];
        while known.len() < presented as usize {
            let token = self.token(session, known.len() as u32 + 1);
            known.push(self.keys.verify(self.sessions[session], &token).expect("a token of this ring"));
        }
        let now = START.plus(Duration::from_millis(state.now as u64));
        match decide(record, known[presented as usize - 1], unbatch, now, &self.setting.rules) {
            Verdict::Reject(Rejection::Superseded { .. }) => Finds::Superseded,
            Verdict::Reject(Rejection::Expired) => Finds::Gone,
            Verdict::Accept(_) | Verdict::First(_) => Finds::Good,
        }
    }

    /// The store has done something for a request.
    fn did(&self, request: Option<usize>, operation: Operation) {
        {
            let mut state = self.state.lock();
            let asked = request.map(|request| state.requests[request]);
            let finds = match asked {
                // What the rule says about the record that was found, before anything about it changes.
                Some(Asked { session, presented, unbatch }) => match state.records[session].clone() {
                    Some(record) => self.verdict(&mut state, session, &record, presented, unbatch),
                    None => Finds::Gone,
                },
                None => Finds::Other,
            };
            state.record(Event::Did { request, operation, finds });
        }
        self.observe(request);
    }
}

impl State {
    fn record(&mut self, event: Event) {
        self.history.push((self.now, event));
    }
}

fn change(
    session: usize,
    before: Option<&Session>,
    after: Option<&Session>,
    request: Option<usize>,
    history: &History,
) -> Option<Event> {
    match (before, after) {
        (None, Some(_))
            if history.iter().any(|(_, event)| matches!(event, Event::Ended { session: s, .. } if *s == session)) =>
        {
            Some(Event::Revived { session })
        }
        (None, Some(_)) => Some(Event::Opened { session }),
        (Some(_), None) => Some(Event::Ended { session, request }),
        (Some(before), Some(after)) if before.generation != after.generation => {
            let (from, to) = (before.generation.get(), after.generation.get());
            Some(Event::Moved { session, from, to, request })
        }
        (Some(before), Some(after)) if before != after => {
            Some(Event::Noted { session, resent: before.handed_out_at != after.handed_out_at })
        }
        _ => None,
    }
}

/// A node's way to the store.
pub(crate) struct NodeWire {
    pub(crate) world: Arc<World>,
    pub(crate) node: usize,
}

#[async_trait]
impl Wire for NodeWire {
    async fn go(&self, operation: Operation) -> Result<(), StoreError> {
        let request = current();
        self.delay().await;
        // Whether the request got lost or the answer, only the store knows. Of a rotation it is told where the store may
        // forget one anyway: to the client it is the same.
        let loses = self.world.setting.family.loses_writes || operation != Operation::Swap;
        self.pass(|dice| {
            let told = if writes(operation) && loses && dice.one_in(2) { Told::Uncertain } else { Told::Unavailable };
            Event::Failed { request, operation, done: false, told }
        })
    }

    async fn back(&self, operation: Operation) -> Result<(), StoreError> {
        let request = current();
        self.world.did(request, operation);
        self.delay().await;
        let told = if writes(operation) { Told::Uncertain } else { Told::Unavailable };
        self.pass(|_| Event::Failed { request, operation, done: true, told })
    }
}

impl NodeWire {
    async fn delay(&self) {
        let setting = &self.world.setting;
        let delay = {
            let State { dice, now, .. } = &mut *self.world.state.lock();
            let late = *now < setting.mended_at && setting.late_one_in.is_some_and(|n| dice.one_in(n));
            dice.between(0, if late { 3 * setting.buffer + 10 } else { setting.longest_wire })
        };
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay as u64)).await;
        }
    }

    fn pass(&self, failed: impl FnOnce(&mut Dice) -> Event) -> Result<(), StoreError> {
        let setting = &self.world.setting;
        let mut state = self.world.state.lock();
        let lost = state.now < setting.mended_at && setting.lost_one_in.is_some_and(|n| state.dice.one_in(n));
        if !lost && !state.store_away && !state.store_cut[self.node] {
            return Ok(());
        }
        let event = failed(&mut state.dice);
        let uncertain = matches!(event, Event::Failed { told: Told::Uncertain, .. });
        state.record(event);
        let (store, cause) = ("simulated", "the wire is cut".into());
        Err(if uncertain { StoreError::Uncertain { store, cause } } else { StoreError::Unavailable { store, cause } })
    }
}

fn current() -> Option<usize> {
    REQUEST.try_with(|request| *request).ok()
}

fn writes(operation: Operation) -> bool {
    use Operation::{Check, Events, Find, FindLogin, FindOneTime, Sessions};
    !matches!(operation, Find | FindLogin | FindOneTime | Sessions | Events | Check)
}

fn client(number: u8) -> ClientId {
    ClientId::from_bytes([number + 1; 16])
}

/// A ring that depends on `seed`: the nodes', or a forger's.
pub(crate) fn ring(seed: u8) -> KeyRing {
    let secret = std::array::from_fn(|i| seed.wrapping_add(i as u8 * 7));
    KeyRing::new(vec![Key::new(0, secret).expect("an id in range")]).expect("a ring")
}

/// What the store in memory answers, which it does without waiting.
fn at_once<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().expect("a store in memory does not wait")
}
