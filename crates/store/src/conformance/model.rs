//! Random operations, on the store and on a few lines that say what should come of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use baton_core::Store;
use baton_core::attempts::{AttemptName, AttemptRule, Counted};
use baton_core::clock::Timestamp;
use baton_core::error::{CreateAccountError, CreateSessionError, RedeemError, UpdateAccountError};
use baton_core::event::EventKind;
use baton_core::one_time::{OneTimeId, Purpose};
use baton_core::ports::{FoundOneTime, Login, NewOneTime, SessionEntry};
use baton_core::session::{
    Account, AccountId, AccountUpdate, Device, EndSessions, NewSession, Permit, Renewal, Session, Swap, Swapped,
    Version,
};
use baton_core::token::ClientId;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use super::traces::trace;
use super::{DAY, Harness, client, generation, hash, new_account};

/// Sequences per run, unless `CONFORMANCE_CASES` says otherwise. Not `PROPTEST_CASES`: what is right for pure functions is too
/// much where every sequence makes a store.
const CASES: u32 = 40;
/// Names to choose from: few, so that operations meet.
const CLIENTS: u64 = 6;
const UIDS: [&str; 3] = ["ada", "bob", "eve"];
/// With spans that no sequence gets to the end of.
const RULE: AttemptRule = AttemptRule { max_attempts: 3, lock_for: DAY, forget_after: DAY };

/// Compares each answer, and at the end everything there is.
pub async fn answers_are_those_of_the_model(harness: &dyn Harness) {
    let asked = std::env::var("CONFORMANCE_CASES").ok().and_then(|text| text.parse().ok());
    let cases = asked.unwrap_or(CASES);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        let sequences = proptest::collection::vec(step(), 1..80);
        let outcome = TestRunner::new(config).run(&sequences, |steps| {
            runtime.block_on(play(harness, steps));
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{}: {failure}", harness.name());
        }
    });
}

#[derive(Debug, Clone)]
enum Step {
    Advance(Duration),
    CreateAccount {
        uid: &'static str,
        session: Option<Fresh>,
    },
    CreateSession {
        uid: &'static str,
        session: Fresh,
    },
    Swap {
        client: ClientId,
        wrong: Option<Wrong>,
        ahead: u32,
        confirmed: u32,
        hand_out: Option<Renewal>,
        ip: Option<IpAddr>,
    },
    End {
        uid: &'static str,
        client: ClientId,
    },
    Delete {
        uid: &'static str,
    },
    Update {
        uid: &'static str,
        change: Change,
        checked: bool,
    },
    KeepToken {
        uid: &'static str,
        purpose: Purpose,
    },
    VoidToken {
        token: Index,
    },
    Redeem {
        token: Index,
        change: Change,
        session: Option<Fresh>,
    },
    Attempt {
        name: u8,
    },
    Forget {
        name: u8,
    },
    Purge {
        limit: u32,
    },
}

#[derive(Debug, Clone)]
struct Fresh {
    client: ClientId,
    renewal: Renewal,
    max_devices: u32,
}

/// What an update changes.
#[derive(Debug, Clone)]
struct Change {
    uid: Option<&'static str>,
    hash: Option<u8>,
    end: EndSessions,
    permit: Option<Permit>,
    unconfirmed: Option<Option<u8>>,
    confirm: bool,
    void: bool,
}

/// How a swap's expectation misses the record.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    Generation,
    HandedOutAt,
    NeverHandedOut,
    Confirmed,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => advance().prop_map(Step::Advance),
        2 => (uid(), proptest::option::of(fresh())).prop_map(|(uid, session)| Step::CreateAccount { uid, session }),
        4 => (uid(), fresh()).prop_map(|(uid, session)| Step::CreateSession { uid, session }),
        14 => swap(),
        1 => (uid(), name()).prop_map(|(uid, client)| Step::End { uid, client }),
        1 => uid().prop_map(|uid| Step::Delete { uid }),
        2 => (uid(), change(), any::<bool>())
            .prop_map(|(uid, change, checked)| Step::Update { uid, change, checked }),
        4 => (uid(), proptest::sample::select(&Purpose::ALL[..]))
            .prop_map(|(uid, purpose)| Step::KeepToken { uid, purpose }),
        1 => any::<Index>().prop_map(|token| Step::VoidToken { token }),
        2 => (any::<Index>(), change(), proptest::option::of(fresh()))
            .prop_map(|(token, change, session)| Step::Redeem { token, change, session }),
        3 => (0..2_u8).prop_map(|name| Step::Attempt { name }),
        1 => (0..2_u8).prop_map(|name| Step::Forget { name }),
        1 => (0..4_u32).prop_map(|limit| Step::Purge { limit }),
    ]
}

fn advance() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(1), Just(999), Just(1_000), Just(1_001), 0..3_000_u64].prop_map(Duration::from_millis)
}

fn uid() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&UIDS[..])
}

fn name() -> impl Strategy<Value = ClientId> {
    (0..CLIENTS).prop_map(client)
}

fn renewal() -> impl Strategy<Value = Renewal> {
    let spans =
        || proptest::sample::select(vec![Duration::from_secs(1), Duration::from_secs(2), 14 * DAY, Duration::MAX]);
    (spans(), spans()).prop_map(|(lifespan, max_lifetime)| Renewal { lifespan, max_lifetime })
}

fn fresh() -> impl Strategy<Value = Fresh> {
    (name(), renewal(), 1..4_u32).prop_map(|(client, renewal, max_devices)| Fresh { client, renewal, max_devices })
}

fn end() -> impl Strategy<Value = EndSessions> {
    prop_oneof![Just(EndSessions::None), Just(EndSessions::All), name().prop_map(EndSessions::AllBut)]
}

fn change() -> impl Strategy<Value = Change> {
    let permit =
        (name(), any::<i64>()).prop_map(|(client, until)| Permit { client, until: Timestamp::from_millis(until) });
    (
        proptest::option::weighted(0.3, uid()),
        proptest::option::of(any::<u8>()),
        end(),
        proptest::option::of(permit),
        proptest::option::of(proptest::option::of(any::<u8>())),
        any::<bool>(),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(uid, hash, end, permit, unconfirmed, confirm, void)| Change {
            uid,
            hash,
            end,
            permit,
            unconfirmed,
            confirm,
            void,
        })
}

fn swap() -> impl Strategy<Value = Step> {
    let wrong =
        proptest::sample::select(vec![Wrong::Generation, Wrong::HandedOutAt, Wrong::NeverHandedOut, Wrong::Confirmed]);
    let ip = proptest::option::of(any::<bool>().prop_map(|six| -> IpAddr {
        if six { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() } else { [192, 0, 2, 1].into() }
    }));
    let hand_out = proptest::option::of(renewal());
    (name(), proptest::option::weighted(0.3, wrong), 0..3_u32, 0..6_u32, hand_out, ip).prop_map(
        |(client, wrong, ahead, confirmed, hand_out, ip)| Step::Swap { client, wrong, ahead, confirmed, hand_out, ip },
    )
}

async fn play(harness: &dyn Harness, steps: Vec<Step>) {
    let store = super::fresh(harness).await;
    let mut model = Model {
        store,
        accounts: BTreeMap::new(),
        sessions: BTreeMap::new(),
        tokens: Vec::new(),
        attempts: BTreeMap::new(),
        events: Vec::new(),
        now: Timestamp::from_millis(i64::MIN),
        last_id: i64::MIN,
    };
    for step in steps {
        if let Step::Advance(by) = step {
            harness.advance(by).await;
        } else {
            model.make(step).await;
        }
    }
    model.compare().await;
}

/// What the store should hold. Times are taken over from its answers; whether they make sense is checked then.
struct Model {
    store: Arc<dyn Store>,
    accounts: BTreeMap<&'static str, Login>,
    sessions: BTreeMap<ClientId, SessionEntry>,
    /// All that were ever kept, by number, and whose they are while they are good.
    tokens: Vec<Option<(AccountId, Purpose)>>,
    attempts: BTreeMap<u8, u32>,
    events: Vec<(EventKind, AccountId)>,
    now: Timestamp,
    last_id: i64,
}

impl Model {
    async fn make(&mut self, step: Step) {
        match step {
            Step::Advance(_) => {}
            Step::CreateAccount { uid, session } => self.create_account(uid, session).await,
            Step::CreateSession { uid, session } => self.create_session(uid, session).await,
            Step::Swap { client, wrong, ahead, confirmed, hand_out, ip } => {
                let base = self.sessions.get(&client).map(|entry| entry.session.version());
                let expect = expectation(base, wrong);
                let swap = Swap {
                    expect,
                    generation: generation(expect.generation.get() + ahead),
                    confirmed: generation(confirmed),
                    hand_out,
                };
                self.swap(client, &swap, ip).await;
            }
            Step::End { uid, client } => {
                let account = self.id_of(uid);
                let theirs = self.sessions.get(&client).is_some_and(|entry| entry.session.account == account);
                let left = trace(EventKind::SignedOut);
                assert_eq!(self.store.end_session(account, client, &left).await.expect("end"), theirs);
                if theirs {
                    self.sessions.remove(&client);
                    self.events.push((EventKind::SignedOut, account));
                }
            }
            Step::Delete { uid } => {
                let account = self.id_of(uid);
                let existed = self.accounts.remove(uid).is_some();
                let left = trace(EventKind::AccountDeleted);
                assert_eq!(self.store.delete_account(account, &left).await.expect("delete"), existed);
                self.sessions.retain(|_, entry| entry.session.account != account);
                self.void(|owner, _| owner == account);
                if existed {
                    self.events.push((EventKind::AccountDeleted, account));
                }
            }
            Step::Update { uid, change, checked } => self.update(uid, change, checked).await,
            Step::KeepToken { uid, purpose } => self.keep_token(uid, purpose).await,
            Step::VoidToken { token } => {
                let number = self.one_of_the_tokens(token);
                self.store.void_one_time(one_time(number)).await.expect("void");
                if let Some(token) = self.tokens.get_mut(number) {
                    *token = None;
                }
            }
            Step::Redeem { token, change, session } => self.redeem(token, change, session).await,
            Step::Attempt { name } => {
                let counted = self.store.count_attempt(AttemptName([name; 16]), RULE).await.expect("count");
                let count = self.attempts.entry(name).or_default();
                if *count < RULE.max_attempts {
                    *count += 1;
                    assert_eq!(counted, Counted::Allowed { last: *count == RULE.max_attempts });
                } else {
                    assert!(matches!(counted, Counted::Locked(until) if until > self.now), "{counted:?}");
                }
            }
            Step::Forget { name } => {
                self.attempts.remove(&name);
                self.store.forget_attempts(AttemptName([name; 16])).await.expect("forget");
            }
            Step::Purge { limit } => self.purge(limit).await,
        }
    }

    async fn create_account(&mut self, uid: &'static str, session: Option<Fresh>) {
        let new = new_account(uid);
        let asked = session.clone().map(Fresh::into_new);
        let answer = self.store.create_account(new.clone(), asked, &trace(EventKind::Registered)).await;
        if self.accounts.contains_key(uid) {
            assert!(matches!(answer, Err(CreateAccountError::Taken)), "{answer:?}");
            return;
        }
        if session.as_ref().is_some_and(|session| self.sessions.contains_key(&session.client)) {
            assert!(matches!(answer, Err(CreateAccountError::Store(_))), "{answer:?}");
            return;
        }
        let (account, made) = answer.expect("create an account");
        assert!(account.id.0 > self.last_id, "a number was used again");
        self.last_id = account.id.0;
        self.events.push((EventKind::Registered, account.id));
        self.pass(account.created_at);
        assert_eq!(account.updated_at, account.created_at);
        if let Some(asked) = &session {
            let expected = Session::new(asked.client, account.id, account.created_at, asked.renewal);
            assert_eq!(made.as_ref(), Some(&expected));
            self.sessions.insert(asked.client, SessionEntry { session: expected, device: Device::default() });
        }
        self.accounts
            .insert(uid, Login { account, password: new.password, confirmed_at: None, unconfirmed_email: None });
    }

    async fn create_session(&mut self, uid: &'static str, fresh: Fresh) {
        let account = self.id_of(uid);
        let left = trace(EventKind::SignedIn);
        let answer = self.store.create_session(account, fresh.clone().into_new(), &left).await;
        if !self.accounts.contains_key(uid) {
            assert!(matches!(answer, Err(CreateSessionError::NoAccount)), "{answer:?}");
            return;
        }
        if self.sessions.contains_key(&fresh.client) {
            assert!(matches!(answer, Err(CreateSessionError::Store(_))), "{answer:?}");
            return;
        }
        let session = answer.expect("create a session");
        self.events.push((EventKind::SignedIn, account));
        self.admit(account, fresh, session).await;
    }

    /// A session that the store has made, and those that had to make room for it.
    async fn admit(&mut self, account: AccountId, fresh: Fresh, session: Session) {
        self.pass(session.created_at);
        assert_eq!(session, Session::new(fresh.client, account, session.created_at, fresh.renewal));

        // Which of several that were last seen at the same moment end is the store's choice.
        let mut left = self.listed(account).await;
        let position = left.iter().position(|entry| entry.session == session).expect("the new one is there");
        left.remove(position);
        let mut ended: Vec<_> = self.of(account);
        ended.retain(|entry| !left.contains(entry));
        let room = fresh.max_devices as usize - 1;
        assert_eq!(left.len(), room.min(left.len() + ended.len()));
        let oldest = left.iter().map(|entry| entry.session.last_seen_at).min();
        for entry in ended {
            assert!(oldest.is_none_or(|oldest| entry.session.last_seen_at <= oldest), "a recent one ended");
            self.sessions.remove(&entry.session.client);
        }
        self.sessions.insert(fresh.client, SessionEntry { session, device: Device::default() });
        assert_eq!(
            left,
            self.of(account).into_iter().filter(|entry| entry.session.client != fresh.client).collect::<Vec<_>>()
        );
    }

    async fn swap(&mut self, client: ClientId, swap: &Swap, ip: Option<IpAddr>) {
        let answer = self.store.swap(client, swap, ip).await.expect("swap");
        let before = self.sessions.get(&client).map(|entry| entry.session.clone());
        match (before, answer) {
            (None, answer) => assert_eq!(answer, Swapped::Gone),
            (Some(session), Swapped::Done(at)) => {
                self.pass(at);
                let next = session.swapped(swap, at).expect("the core refuses what the store has made");
                let entry = self.sessions.get_mut(&client).expect("it was just there");
                entry.session = next;
                entry.device.ip = ip.or(entry.device.ip);
            }
            (Some(session), answer) => {
                assert_eq!(session.swapped(swap, self.now), None, "the store refuses what the core makes");
                assert_eq!(answer, Swapped::Moved(session));
            }
        }
        let found = self.store.find(client).await.expect("find");
        assert_eq!(found.as_ref().map(|found| &found.session), self.sessions.get(&client).map(|entry| &entry.session));
        if let Some(found) = found {
            self.pass(found.now);
        }
    }

    async fn update(&mut self, uid: &'static str, change: Change, checked: bool) {
        let account = self.id_of(uid);
        // The one that it was made with, which it may have any more or not.
        let if_password = checked.then(|| hash(uid));
        let update = AccountUpdate { if_password: if_password.clone(), ..change.to_update() };
        let answer = self.store.update_account(account, update, &trace(EventKind::AccountChanged)).await;
        let Some(known) = self.accounts.get(uid) else {
            assert!(matches!(answer, Err(UpdateAccountError::Gone)), "{answer:?}");
            return;
        };
        if if_password.is_some_and(|checked| checked != known.password) {
            assert!(matches!(answer, Err(UpdateAccountError::Overtaken)), "{answer:?}");
            return;
        }
        if self.takes_a_name(uid, &change) {
            assert!(matches!(answer, Err(UpdateAccountError::Taken)), "{answer:?}");
            return;
        }
        self.events.push((EventKind::AccountChanged, account));
        self.change(uid, &change, answer.expect("update")).await;
    }

    async fn keep_token(&mut self, uid: &'static str, purpose: Purpose) {
        let account = self.id_of(uid);
        let id = one_time(self.tokens.len());
        let new = NewOneTime { id, account, purpose, email: uid.to_owned(), lifetime: DAY };
        let kept = self.accounts.contains_key(uid);
        assert_eq!(self.store.create_one_time(new).await.expect("keep"), kept);
        self.tokens.push(kept.then_some((account, purpose)));
    }

    async fn redeem(&mut self, token: Index, change: Change, session: Option<Fresh>) {
        let number = self.one_of_the_tokens(token);
        // What if its name is that of a session that ends is not said.
        let session = session.filter(|session| !self.sessions.contains_key(&session.client));
        let (update, asked) = (change.to_update(), session.clone().map(Fresh::into_new));
        let answer = self.store.redeem(one_time(number), update, asked, &trace(EventKind::Confirmed)).await;
        let Some((account, purpose)) = self.tokens.get(number).copied().flatten() else {
            assert!(matches!(answer, Err(RedeemError::Gone)), "{answer:?}");
            return;
        };
        let owner = UIDS.into_iter().find(|uid| self.accounts.contains_key(uid) && self.id_of(uid) == account);
        let uid = owner.expect("a good token has an owner");
        if self.takes_a_name(uid, &change) {
            assert!(matches!(answer, Err(RedeemError::Taken)), "{answer:?}");
            return;
        }
        let (changed, made) = answer.expect("redeem");
        self.events.push((EventKind::Confirmed, account));
        self.change(uid, &change, changed).await;
        self.void(|owner, good_for| owner == account && good_for == purpose);
        assert_eq!(made.is_some(), session.is_some());
        if let (Some(fresh), Some(made)) = (session, made) {
            self.admit(account, fresh, made).await;
        }
    }

    /// Makes a change that the store has made.
    async fn change(&mut self, uid: &'static str, change: &Change, updated: Account) {
        let mut known = self.accounts.remove(uid).expect("it exists");
        let account = known.account.id;
        let uid = change.uid.unwrap_or(uid);
        assert!(updated.updated_at >= known.account.updated_at);
        self.pass(updated.updated_at);
        known.account.updated_at = updated.updated_at;
        known.account.uid = uid.to_owned();
        if let Some(number) = change.hash {
            known.password = hash(&number.to_string());
            known.account.permit = None;
        }
        known.account.permit = change.permit.or(known.account.permit);
        if change.confirm && known.confirmed_at.is_none() {
            let login = self.store.find_login("user", "email", uid).await.expect("find").expect("it exists");
            assert!(login.confirmed_at.is_some_and(|at| at == updated.updated_at), "{login:?}");
            known.confirmed_at = login.confirmed_at;
        }
        if let Some(unconfirmed) = change.unconfirmed {
            known.unconfirmed_email = unconfirmed.map(|number| number.to_string());
        }
        assert_eq!(updated, known.account);
        self.accounts.insert(uid, known);
        self.sessions.retain(|client, entry| entry.session.account != account || change.end.keeps(*client));
        if change.void {
            self.void(|owner, _| owner == account);
        }
    }

    fn takes_a_name(&self, uid: &str, change: &Change) -> bool {
        change.uid.is_some_and(|new| new != uid && self.accounts.contains_key(new))
    }

    fn void(&mut self, which: impl Fn(AccountId, Purpose) -> bool) {
        for token in &mut self.tokens {
            *token = token.filter(|(owner, purpose)| !which(*owner, *purpose));
        }
    }

    /// Of those that were ever kept, or one that never was.
    fn one_of_the_tokens(&self, index: Index) -> usize {
        index.index(self.tokens.len() + 1)
    }

    async fn purge(&mut self, limit: u32) {
        let before = self.store.sessions(AccountId(0)).await.expect("list").0;
        let purged = self.store.purge(limit).await.expect("purge");
        let after = self.store.sessions(AccountId(0)).await.expect("list").0;
        self.pass(before);
        self.pass(after);
        let expired_at = |now| self.sessions.values().filter(|entry| entry.session.expires_at <= now).count() as u64;
        assert!(purged >= expired_at(before).min(limit.into()) && purged <= expired_at(after).min(limit.into()));
        let mut gone = Vec::new();
        for (client, entry) in &self.sessions {
            if self.store.find(*client).await.expect("find").is_none() {
                assert!(entry.session.expires_at <= after, "purged too early");
                gone.push(*client);
            }
        }
        assert_eq!(gone.len() as u64, purged);
        self.sessions.retain(|client, _| !gone.contains(client));
    }

    /// Everything, by every way of reading.
    async fn compare(&mut self) {
        for (number, token) in self.tokens.iter().enumerate() {
            let found = self.store.find_one_time(one_time(number)).await.expect("find");
            let of = |found: &FoundOneTime| (found.one_time.account, found.one_time.purpose);
            assert_eq!(found.as_ref().map(of), *token);
            if let Some(FoundOneTime { login, .. }) = found {
                assert_eq!(self.accounts.get(login.account.uid.as_str()), Some(&login));
            }
        }
        let recorded = self.store.events(i64::MIN, u32::MAX).await.expect("list");
        let recorded: Vec<_> = recorded.into_iter().map(|one| (one.event.kind, one.event.account)).collect();
        let expected: Vec<_> = self.events.iter().map(|(kind, account)| (*kind, Some(*account))).collect();
        assert_eq!(recorded, expected);
        for uid in UIDS {
            let login = self.store.find_login("user", "email", uid).await.expect("find");
            assert_eq!(login.as_ref(), self.accounts.get(uid));
            let account = self.id_of(uid);
            assert_eq!(self.listed(account).await, self.of(account));
        }
        for number in 0..CLIENTS {
            let found = self.store.find(client(number)).await.expect("find");
            let entry = self.sessions.get(&client(number));
            assert_eq!(found.as_ref().map(|found| &found.session), entry.map(|entry| &entry.session));
            if let Some(found) = found {
                self.pass(found.now);
                assert_eq!(
                    self.accounts.get(found.account.uid.as_str()).map(|login| &login.account),
                    Some(&*found.account)
                );
            }
        }
    }

    /// As the store lists them, once their order has been checked; by client.
    async fn listed(&mut self, account: AccountId) -> Vec<SessionEntry> {
        let (now, mut entries) = self.store.sessions(account).await.expect("list");
        self.pass(now);
        assert!(entries.is_sorted_by(|a, b| a.session.last_seen_at >= b.session.last_seen_at), "{entries:?}");
        entries.sort_by_key(|entry| entry.session.client);
        entries
    }

    /// As the model has them, by client.
    fn of(&self, account: AccountId) -> Vec<SessionEntry> {
        self.sessions.values().filter(|entry| entry.session.account == account).cloned().collect()
    }

    fn id_of(&self, uid: &str) -> AccountId {
        self.accounts.get(uid).map_or(AccountId(i64::MAX), |login| login.account.id)
    }

    fn pass(&mut self, now: Timestamp) {
        assert!(now >= self.now, "time went back from {:?} to {now:?}", self.now);
        self.now = now;
    }
}

impl Change {
    fn to_update(&self) -> AccountUpdate {
        AccountUpdate {
            uid: self.uid.map(str::to_owned),
            password: self.hash.map(|number| hash(&number.to_string())),
            permit: self.permit,
            unconfirmed_email: self.unconfirmed.map(|address| address.map(|number| number.to_string())),
            confirm: self.confirm,
            void_one_time: self.void,
            end: self.end,
            ..AccountUpdate::default()
        }
    }
}

fn one_time(number: usize) -> OneTimeId {
    OneTimeId::from_bytes(*client(number as u64).as_bytes())
}

impl Fresh {
    fn into_new(self) -> NewSession {
        NewSession {
            client: self.client,
            renewal: self.renewal,
            device: Device::default(),
            max_devices: self.max_devices,
            if_password: None,
        }
    }
}

fn expectation(current: Option<Version>, wrong: Option<Wrong>) -> Version {
    let nothing = Version { generation: generation(1), handed_out_at: None, confirmed: generation(0) };
    let current = current.unwrap_or(nothing);
    match wrong {
        None => current,
        Some(Wrong::Generation) => Version { generation: generation(current.generation.get() + 1), ..current },
        Some(Wrong::HandedOutAt) => {
            let other = current.handed_out_at.map_or(1, |at| at.as_millis() + 1);
            Version { handed_out_at: Some(Timestamp::from_millis(other)), ..current }
        }
        // No miss if that is how it is.
        Some(Wrong::NeverHandedOut) => Version { handed_out_at: None, ..current },
        Some(Wrong::Confirmed) => Version { confirmed: generation(current.confirmed.get() + 1), ..current },
    }
}
