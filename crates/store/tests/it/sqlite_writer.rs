//! The writer: groups, what they cost, and how it fails and goes on.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use baton_core::attempts::{AttemptName, AttemptRule};
use baton_core::error::{CreateAccountError, StoreError};
use baton_core::event::{MessageBody, Outcome, Trace};
use baton_core::one_time::{OneTimeId, Purpose};
use baton_core::ports::{NewOneTime, Store};
use baton_core::session::AccountUpdate;
use baton_core::session::{AccountId, NewSession, Session, Swap, Swapped};
use baton_store::clock::ManualClock;
use baton_store::sqlite::{SqliteOptions, SqliteStats, SqliteStore};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::fixture::{DAY, START, client, file, mails, must_open, new_account, new_session, rotation, with_suffix};

struct Bench {
    _folder: TempDir,
    path: std::path::PathBuf,
    clock: Arc<ManualClock>,
    store: Arc<SqliteStore>,
    account: AccountId,
}

/// A store with one account and `sessions` sessions, the first of which is `client(0)`.
async fn bench(sessions: u8) -> Bench {
    let (folder, path) = file();
    let clock = Arc::new(ManualClock::new(START));
    let options = SqliteOptions { busy_timeout: Duration::from_millis(30), ..SqliteOptions::default() };
    let store = Arc::new(SqliteStore::open(&path, options, clock.clone()).expect("open"));
    let (account, _) = store.create_account(new_account("ada"), None, &Trace::NONE).await.expect("make");
    for number in 0..sessions {
        store.create_session(account.id, new_session(number), &Trace::NONE).await.expect("make");
    }
    Bench { _folder: folder, path, clock, store, account: account.id }
}

impl Bench {
    /// Stops the writer until the answer is used. Whatever is spawned meanwhile waits in the queue, because this runtime has
    /// one thread and runs the new tasks before the test goes on.
    async fn hold(&self) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel();
        let (holding, held) = tokio::sync::oneshot::channel();
        let store = self.store.clone();
        tokio::spawn(async move {
            let wait = move |_: &rusqlite::Connection| {
                let _ = holding.send(());
                let _ = released.recv();
            };
            store.aside(wait).await
        });
        held.await.expect("the writer got there");
        release
    }

    fn spawn<T: Send + 'static, F>(&self, work: impl FnOnce(Arc<SqliteStore>) -> F) -> JoinHandle<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        tokio::spawn(work(self.store.clone()))
    }

    fn spawn_swap(&self, number: u8) -> JoinHandle<Result<Swapped, StoreError>> {
        self.spawn(async move |store| {
            let found = store.find(client(number)).await?.expect("it exists");
            store.swap(client(number), &rotation(&found.session), None).await
        })
    }

    async fn swap(&self, number: u8) -> Result<Swapped, StoreError> {
        let session = self.session(number).await;
        self.store.swap(client(number), &rotation(&session), None).await
    }

    /// Rotates until the thread has noticed that nothing durable is left to do: what is quick is run in place from then on.
    async fn settle(&self) {
        settle(&self.store).await;
    }

    async fn session(&self, number: u8) -> Session {
        self.store.find(client(number)).await.expect("find").expect("it exists").session
    }

    /// What has been counted since `before`: operations, groups, synced groups, failed groups.
    fn since(&self, before: SqliteStats) -> [u64; 4] {
        let now = self.store.stats();
        [
            now.operations - before.operations,
            now.groups - before.groups,
            now.synced_groups - before.synced_groups,
            now.failed_groups - before.failed_groups,
        ]
    }

    async fn pragma(&self, name: &'static str) -> i64 {
        let read = move |connection: &rusqlite::Connection| connection.pragma_query_value(None, name, |row| row.get(0));
        self.store.aside(read).await.expect("the writer runs").expect("read")
    }

    async fn sql(&self, sql: &'static str) {
        self.store.aside(move |connection| connection.execute_batch(sql)).await.expect("it runs").expect(sql);
    }
}

/// See [`Bench::settle`].
async fn settle(store: &SqliteStore) {
    let before = store.stats().groups_in_place;
    for _ in 0..10_000 {
        let found = store.find(client(0)).await.expect("find").expect("it exists");
        store.swap(client(0), &rotation(&found.session), None).await.expect("swap");
        if store.stats().groups_in_place > before {
            return;
        }
    }
    panic!("nothing is run in place");
}

fn lock(path: &Path) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(path).expect("open");
    other.execute_batch("BEGIN EXCLUSIVE").expect("lock");
    other
}

fn is_unavailable<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Unavailable { .. }))
}

#[tokio::test]
async fn what_waits_together_is_written_together() {
    let bench = bench(40).await;
    let (held, before) = (bench.hold().await, bench.store.stats());
    let swaps: Vec<_> = (0..40).map(|number| bench.spawn_swap(number)).collect();
    tokio::task::yield_now().await;
    held.send(()).expect("the writer waits");
    for swap in swaps {
        assert!(matches!(swap.await.expect("joined").expect("swap"), Swapped::Done(_)));
    }
    assert_eq!(bench.since(before), [40, 1, 0, 0]);
    assert_eq!(bench.pragma("synchronous").await, 1, "a group of rotations does not wait for the disk");
}

#[tokio::test]
async fn rotations_are_run_in_place_and_what_waits_for_the_disk_is_not() {
    let bench = bench(2).await;
    assert_eq!(bench.store.stats().groups_in_place, 0);
    bench.settle().await;
    assert_eq!(bench.pragma("busy_timeout").await, 0, "in place nobody waits");
    assert!(bench.store.end_session(bench.account, client(1), &Trace::NONE).await.expect("end"));
    assert_eq!(bench.pragma("busy_timeout").await, 30);
    assert_eq!(bench.store.stats().groups_in_place, 1);
}

/// With one thread, which would run what a task has started before all else.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_ready_at_the_same_time_is_written_together() {
    let bench = bench(40).await;
    bench.settle().await;
    let (before, store) = (bench.store.stats(), bench.store.clone());
    let swap = async |store: Arc<SqliteStore>, number: u8| {
        let session = store.find(client(number)).await.expect("find").expect("it exists").session;
        store.swap(client(number), &rotation(&session), None).await
    };
    let on_the_thread = tokio::spawn(async move {
        let swaps: Vec<_> = (1..40).map(|number| tokio::spawn(swap(store.clone(), number))).collect();
        for swap in swaps {
            assert!(matches!(swap.await.expect("joined").expect("swap"), Swapped::Done(_)));
        }
    });
    on_the_thread.await.expect("joined");
    assert_eq!(bench.since(before), [39, 1, 0, 0]);
    assert_eq!(bench.store.stats().groups_in_place, before.groups_in_place + 1);
}

/// A future that was polled once, and so has asked for what it asks for.
fn begun<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
    let mut future = Box::pin(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    future
}

/// What it was answered; that it is not would be the failure.
async fn answered(swap: impl Future<Output = Result<Swapped, StoreError>>) -> Swapped {
    tokio::time::timeout(Duration::from_secs(30), swap).await.expect("it is answered").expect("swap")
}

#[tokio::test]
async fn who_has_asked_may_go() {
    let bench = bench(1).await;
    bench.settle().await;
    let first = rotation(&bench.session(0).await);
    drop(begun(bench.store.swap(client(0), &first, None)));
    // It lets others run twice before it runs.
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.session(0).await.generation, first.generation);
    assert_eq!(bench.store.stats().groups_in_place, 2);
}

#[tokio::test]
async fn a_group_gathers_while_more_come_but_not_for_ever() {
    let bench = bench(31).await;
    bench.settle().await;
    let bench = &bench;
    let one_after_the_other = async |numbers: std::ops::Range<u8>| {
        let mut swaps = Vec::new();
        for number in numbers {
            let rotation = rotation(&bench.session(number).await);
            swaps.push(begun(async move { bench.store.swap(client(number), &rotation, None).await }));
            tokio::task::yield_now().await;
        }
        for swap in swaps {
            assert!(matches!(answered(swap).await, Swapped::Done(_)));
        }
    };
    let before = bench.store.stats();
    one_after_the_other(1..5).await;
    assert_eq!(bench.since(before), [4, 1, 0, 0]);
    one_after_the_other(5..31).await;
    assert!(bench.store.stats().groups > before.groups + 2, "{:?}", bench.store.stats());
}

#[test]
fn a_runtime_that_ends_or_stands_still_holds_nobody_up() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (other, bench) = (runtime(), runtime().block_on(bench(4)));
    other.block_on(bench.settle());
    let swap = |number| {
        let session = other.block_on(bench.session(number));
        let (store, swap) = (bench.store.clone(), rotation(&session));
        async move { store.swap(client(number), &swap, None).await }
    };
    let (swaps, ending, standing) = ([swap(1), swap(2), swap(3)], runtime(), runtime());
    let [first, second, third] = swaps;
    let begun_in = |runtime: &tokio::runtime::Runtime, swap| {
        let _inside = runtime.enter();
        begun(swap)
    };
    let first = begun_in(&ending, first);
    drop(ending);
    assert_eq!(other.block_on(answered(first)), Swapped::Done(START), "the thread has done it");

    // This runtime goes on for none of its tasks; others are not concerned.
    let second = begun_in(&standing, second);
    assert_eq!(other.block_on(answered(third)), Swapped::Done(START));
    assert_eq!(other.block_on(answered(second)), Swapped::Done(START));
}

/// A clock that stops whoever asks it, if it is told to.
struct Gate {
    clock: ManualClock,
    next: std::sync::Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
}

impl baton_core::clock::Clock for Gate {
    fn now(&self) -> baton_core::Timestamp {
        let next = self.next.lock().expect("nobody panics with it").take();
        if let Some((here, go)) = next {
            here.send(()).expect("the test waits");
            go.recv().expect("the test opens it");
        }
        self.clock.now()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_while_another_task_writes_is_not_forgotten() {
    let (_folder, path) = file();
    let gate = Arc::new(Gate { clock: ManualClock::new(START), next: std::sync::Mutex::default() });
    let store = Arc::new(SqliteStore::open(&path, SqliteOptions::default(), gate.clone()).expect("open"));
    let (account, _) = store.create_account(new_account("ada"), None, &Trace::NONE).await.expect("make");
    store.create_session(account.id, new_session(0), &Trace::NONE).await.expect("make");
    let mut rotations = Vec::new();
    for number in 1..3 {
        let session = store.create_session(account.id, new_session(number), &Trace::NONE).await.expect("make");
        let store = store.clone();
        rotations.push(async move { store.swap(client(number), &rotation(&session), None).await });
    }
    settle(&store).await;
    let before = store.stats().groups_in_place;
    let (here, stopped) = mpsc::channel();
    let (open, go) = mpsc::channel();
    *gate.next.lock().expect("nobody panics with it") = Some((here, go));
    let second = rotations.pop().expect("two");
    let first = tokio::spawn(rotations.pop().expect("two"));
    // In the middle of a group, on one of the runtime's threads.
    stopped.recv().expect("it gets there");
    let second = tokio::spawn(second);
    let rival = store.clone();
    tokio::spawn(async move {
        // There is one other thread: with these, the task of the second one has had its turn.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(rival.stats().groups_in_place, before + 1);
        open.send(()).expect("somebody waits");
    });
    for swap in [first, second] {
        assert_eq!(answered(async { swap.await.expect("joined") }).await, Swapped::Done(START));
    }
}

#[tokio::test]
async fn a_long_log_is_written_back_on_the_thread() {
    let bench = bench(1).await;
    // How many pages of the log are in the main file (https://www.sqlite.org/walformat.html, 2.2). Closing the index again drops
    // this process' locks on it; there is no other process.
    let written_back = || {
        let index = std::fs::read(with_suffix(&bench.path, "-shm")).expect("read");
        index[96..100].try_into().map(u32::from_ne_bytes).expect("four bytes")
    };
    bench.settle().await;
    assert_eq!(written_back(), 0);
    for _ in 0..1_000 {
        bench.swap(0).await.expect("swap");
    }
    // The disk takes its time, and nobody waits for it; there is no end to wait for but this one.
    for _ in 0..1_000_000 {
        if written_back() > 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it is never written back");
}

#[tokio::test]
async fn one_durable_operation_makes_its_group_durable() {
    let bench = bench(10).await;
    assert_eq!(bench.pragma("synchronous").await, 2, "the sessions were made durably");
    let (held, before) = (bench.hold().await, bench.store.stats());
    let first: Vec<_> = (0..5).map(|number| bench.spawn_swap(number)).collect();
    let account = bench.account;
    let ending = bench.spawn(async move |store| store.end_session(account, client(9), &Trace::NONE).await);
    let second: Vec<_> = (5..9).map(|number| bench.spawn_swap(number)).collect();
    tokio::task::yield_now().await;
    held.send(()).expect("the writer waits");
    for swap in first.into_iter().chain(second) {
        assert!(matches!(swap.await.expect("joined").expect("swap"), Swapped::Done(_)));
    }
    assert!(ending.await.expect("joined").expect("end"));
    assert_eq!(bench.since(before), [10, 1, 1, 0]);
    assert_eq!(bench.pragma("synchronous").await, 2);

    let before = bench.store.stats();
    bench.swap(0).await.expect("swap");
    assert_eq!(bench.since(before), [1, 1, 0, 0]);
    assert_eq!(bench.pragma("synchronous").await, 1);
}

#[tokio::test]
async fn what_no_crash_may_undo_waits_for_the_disk() {
    let bench = bench(3).await;
    let store = &bench.store;
    let mut before = store.stats();
    let mut costs = |what: &str, synced: u64| {
        assert_eq!(bench.since(before), [1, 1, synced, 0], "{what}");
        before = store.stats();
    };
    store.create_account(new_account("bob"), None, &Trace::NONE).await.expect("make");
    costs("create_account", 1);
    store.create_session(bench.account, new_session(7), &Trace::NONE).await.expect("make");
    costs("create_session", 1);
    store.end_session(bench.account, client(7), &Trace::NONE).await.expect("end");
    costs("end_session", 1);
    let update = AccountUpdate { password: Some(new_account("x").password), ..AccountUpdate::default() };
    store.update_account(bench.account, update, &Trace::NONE).await.expect("update");
    costs("update_account", 1);
    store.purge(1).await.expect("purge");
    costs("purge", 1);
    store.bind_keys(&["k".to_owned()]).await.expect("bind");
    costs("bind_keys", 1);
    let (id, rule) =
        (OneTimeId::from_bytes([1; 16]), AttemptRule { max_attempts: 3, lock_for: DAY, forget_after: DAY });
    let token =
        |id| NewOneTime { id, account: bench.account, purpose: Purpose::Reset, email: String::new(), lifetime: DAY };
    store.create_one_time(token(id)).await.expect("keep");
    costs("create_one_time", 1);
    store.redeem(id, AccountUpdate::default(), None, &Trace::NONE).await.expect("redeem");
    costs("redeem", 1);
    store.void_one_time(id).await.expect("void");
    costs("void_one_time", 0);
    store.count_attempt(AttemptName([1; 16]), rule).await.expect("count");
    costs("count_attempt", 0);
    store.forget_attempts(AttemptName([1; 16])).await.expect("forget");
    costs("forget_attempts", 0);
    store.record(&mails(["one", "two"])).await.expect("record");
    costs("record", 1);
    let claimed = store.claim(10, DAY).await.expect("claim");
    costs("claim", 1);
    store.settle(claimed[0].id, 1, Outcome::Done).await.expect("settle");
    costs("settle as done", 1);
    store.settle(claimed[1].id, 1, Outcome::Retry(DAY)).await.expect("settle");
    costs("settle for later", 0);
    store.purge_events(DAY, 1).await.expect("purge");
    costs("purge_events", 0);
    store.delete_account(bench.account, &Trace::NONE).await.expect("delete");
    costs("delete_account", 1);
    store.check().await.expect("check");
    costs("check", 0);
    // Nothing is due: the writer is not asked.
    let before = store.stats();
    assert_eq!(store.claim(10, DAY).await.expect("claim"), []);
    assert_eq!(bench.since(before), [0, 0, 0, 0]);
}

#[tokio::test]
async fn a_message_that_cannot_be_read_does_not_hold_up_the_others() {
    let bench = bench(0).await;
    let store = &bench.store;
    store.record(&mails(["first"])).await.expect("record");
    bench
        .sql(
            r#"INSERT INTO outbox (mail, created_at, due_at) VALUES
                   ('no json', 0, 0), ('', 0, 0), ('{}', 0, 0), ('[1]', 0, 0),
                   ('{"occasion":"birthday","realm":"user","provider":"email","uid":"ada","languages":""}', 0, 0);
               INSERT INTO audit_events (id, at, kind, realm, ip) VALUES
                   (1000, 0, 'birthday', 'user', NULL), (1001, 0, 'locked', 'user', 'nowhere');
               INSERT INTO outbox (url, event, created_at, due_at) VALUES
                   ('https://hook.test', 1000, 0, 0), ('https://hook.test', 1001, 0, 0);"#,
        )
        .await;
    store.record(&mails(["last"])).await.expect("record");
    let lease = Duration::from_secs(60);
    for attempt in 1..3 {
        let claimed = store.claim(100, lease).await.expect("claim");
        let read: Vec<_> = claimed
            .iter()
            .map(|message| match &message.body {
                MessageBody::Mail(mail) => (mail.uid.as_str(), message.attempt),
                MessageBody::Webhook(..) => panic!("{message:?}"),
            })
            .collect();
        assert_eq!(read, [("first", attempt), ("last", attempt)]);
        assert_eq!(store.claim(100, lease).await.expect("claim"), [], "they have a lease like the others");
        bench.clock.advance(lease);
    }
    // One at a time, too: they come last now.
    store.claim(100, lease).await.expect("claim");
    store.record(&mails(["new"])).await.expect("record");
    bench.clock.advance(lease);
    assert_eq!(store.claim(1, lease).await.expect("claim").len(), 1);
}

#[tokio::test]
async fn a_resend_waits_for_the_disk_and_a_rotation_does_not() {
    let bench = bench(1).await;
    let mut before = bench.store.stats();
    let mut swap = async |change: fn(Swap) -> Swap, synced: u64| {
        let swap = change(rotation(&bench.session(0).await));
        let answer = bench.store.swap(client(0), &swap, None).await.expect("swap");
        assert!(matches!(answer, Swapped::Done(_)), "{answer:?}");
        assert_eq!(bench.since(before), [1, 1, synced, 0], "{swap:?}");
        before = bench.store.stats();
    };
    swap(|rotation| rotation, 0).await;
    swap(|rotation| Swap { generation: rotation.expect.generation, ..rotation }, 1).await;
    swap(|rotation| Swap { generation: rotation.expect.generation, hand_out: None, ..rotation }, 0).await;
}

#[tokio::test]
async fn a_failing_operation_leaves_its_neighbours_alone() {
    let bench = bench(3).await;
    let (held, before) = (bench.hold().await, bench.store.stats());
    let account = bench.account;
    let first = bench.spawn_swap(1);
    let taken =
        bench.spawn(async |store| store.create_account(new_account("ada"), Some(new_session(50)), &Trace::NONE).await);
    // Fails at its second statement: the client id is in use.
    let clash =
        bench.spawn(async |store| store.create_account(new_account("bob"), Some(new_session(0)), &Trace::NONE).await);
    let last = bench.spawn_swap(2);
    let ending = bench.spawn(async move |store| store.end_session(account, client(0), &Trace::NONE).await);
    tokio::task::yield_now().await;
    held.send(()).expect("the writer waits");

    assert!(matches!(first.await.expect("joined").expect("swap"), Swapped::Done(_)));
    assert!(matches!(taken.await.expect("joined"), Err(CreateAccountError::Taken)));
    assert!(matches!(clash.await.expect("joined"), Err(CreateAccountError::Store(StoreError::Unavailable { .. }))));
    assert!(matches!(last.await.expect("joined").expect("swap"), Swapped::Done(_)));
    assert!(ending.await.expect("joined").expect("end"));
    assert_eq!(bench.since(before), [5, 1, 1, 0]);
    assert_eq!(bench.store.find_login("user", "email", "bob").await.expect("find"), None);
    assert_eq!(bench.store.find(client(50)).await.expect("find"), None);
    assert_eq!(bench.session(1).await.generation.get(), 2);
}

#[tokio::test]
async fn operations_of_a_group_see_each_other() {
    let bench = bench(1).await;
    let held = bench.hold().await;
    let rivals: Vec<_> = (0..3).map(|_| bench.spawn_swap(0)).collect();
    let account = bench.account;
    let ending = bench.spawn(async move |store| store.end_session(account, client(0), &Trace::NONE).await);
    let late = bench.spawn_swap(0);
    tokio::task::yield_now().await;
    held.send(()).expect("the writer waits");
    let mut answers = Vec::new();
    for rival in rivals {
        answers.push(rival.await.expect("joined").expect("swap"));
    }
    assert_eq!(answers[0], Swapped::Done(START));
    for answer in &answers[1..] {
        assert!(matches!(answer, Swapped::Moved(session) if session.generation.get() == 2), "{answer:?}");
    }
    assert!(ending.await.expect("joined").expect("end"));
    assert_eq!(late.await.expect("joined").expect("swap"), Swapped::Gone);
}

#[tokio::test]
async fn reads_go_on_while_the_writer_is_held_up() {
    let bench = bench(1).await;
    let held = bench.hold().await;
    let swap = bench.spawn_swap(0);
    tokio::task::yield_now().await;
    assert_eq!(bench.session(0).await.generation.get(), 1);
    assert_eq!(bench.store.sessions(bench.account).await.expect("list").1.len(), 1);
    assert!(bench.store.find_login("user", "email", "ada").await.expect("find").is_some());
    assert!(!swap.is_finished());
    held.send(()).expect("the writer waits");
    swap.await.expect("joined").expect("swap");
    assert_eq!(bench.session(0).await.generation.get(), 2);
    assert_eq!(bench.store.stats().reads_aside, 0);
}

#[tokio::test]
async fn a_locked_file_is_unavailable_until_it_is_not() {
    let bench = bench(1).await;
    let other = lock(&bench.path);
    let before = bench.store.stats();
    assert!(is_unavailable(&bench.swap(0).await));
    assert!(is_unavailable(&bench.store.end_session(bench.account, client(0), &Trace::NONE).await));
    assert!(is_unavailable(&bench.store.check().await));
    let made = bench.store.create_account(new_account("bob"), None, &Trace::NONE).await;
    assert!(matches!(made, Err(CreateAccountError::Store(StoreError::Unavailable { .. }))), "{made:?}");
    assert_eq!(bench.since(before), [4, 4, 0, 4]);
    // Who only reads does not notice.
    assert_eq!(bench.session(0).await.generation.get(), 1);

    other.execute_batch("COMMIT").expect("unlock");
    bench.store.check().await.expect("check");
    assert_eq!(bench.swap(0).await.expect("swap"), Swapped::Done(START));
    bench.store.create_account(new_account("bob"), None, &Trace::NONE).await.expect("make");
}

#[tokio::test]
async fn a_short_lock_is_waited_for() {
    let (_folder, path) = file();
    let options = SqliteOptions { busy_timeout: Duration::from_secs(30), ..SqliteOptions::default() };
    let store = Arc::new(SqliteStore::open(&path, options, Arc::new(ManualClock::new(START))).expect("open"));
    let other = lock(&path);
    let making = tokio::spawn({
        let store = store.clone();
        async move { store.create_account(new_account("ada"), None, &Trace::NONE).await }
    });
    tokio::task::yield_now().await;
    other.execute_batch("COMMIT").expect("unlock");
    let (account, _) = making.await.expect("joined").expect("made");

    // In place nobody waits; the thread does.
    store.create_session(account.id, new_session(0), &Trace::NONE).await.expect("make");
    settle(&store).await;
    let session = store.find(client(0)).await.expect("find").expect("it exists").session;
    let (other, before) = (lock(&path), store.stats());
    let swap = tokio::spawn({
        let store = store.clone();
        async move { store.swap(client(0), &rotation(&session), None).await }
    });
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    assert!(!swap.is_finished());
    other.execute_batch("COMMIT").expect("unlock");
    assert_eq!(swap.await.expect("joined").expect("swap"), Swapped::Done(START));
    let now = store.stats();
    assert_eq!((now.groups - before.groups, now.groups_in_place - before.groups_in_place), (1, 0));
}

#[tokio::test]
async fn a_full_disk_is_unavailable_until_there_is_room() {
    let bench = bench(2).await;
    bench.clock.advance(Duration::from_secs(1));
    let room = bench.pragma("page_count").await;
    let limit = move |pages: i64| {
        move |connection: &rusqlite::Connection| connection.pragma_update(None, "max_page_count", pages)
    };
    bench.store.aside(limit(room)).await.expect("it runs").expect("limit");

    // As long as there is room in pages that exist, things may go well; the long profile needs new ones.
    let mut large = new_account("bob");
    large.email = "x".repeat(100_000);
    let (held, before) = (bench.hold().await, bench.store.stats());
    let swap = bench.spawn_swap(0);
    let making = bench.spawn({
        let large = large.clone();
        async move |store| store.create_account(large, Some(new_session(9)), &Trace::NONE).await
    });
    let late = bench.spawn_swap(1);
    tokio::task::yield_now().await;
    held.send(()).expect("the writer waits");
    let error = making.await.expect("joined").expect_err("there is no room");
    assert!(matches!(error, CreateAccountError::Store(StoreError::Unavailable { .. })), "{error:?}");
    let text = format!("{error} {error:?}");
    assert!(text.contains("full") && !text.contains("argon2"), "{text}");
    for (number, answer) in [(0, swap), (1, late)] {
        // SQLite may give up the transaction or the statement; the answers have to be true in either case.
        let made = match answer.await.expect("joined") {
            Ok(Swapped::Done(_)) => 2,
            answer => {
                assert!(is_unavailable(&answer), "{answer:?}");
                1
            }
        };
        assert_eq!(bench.session(number).await.generation.get(), made);
    }
    assert_eq!(bench.since(before)[1], 1);
    assert_eq!(bench.store.find_login("user", "email", "bob").await.expect("find"), None);
    assert_eq!(bench.store.find(client(9)).await.expect("find"), None);

    // What needs no room still works, and everything does when there is some.
    let before = bench.session(0).await.generation;
    bench.swap(0).await.expect("swap");
    assert!(bench.session(0).await.generation > before);
    bench.store.aside(limit(1_000_000)).await.expect("it runs").expect("limit");
    bench.store.create_account(large, Some(new_session(9)), &Trace::NONE).await.expect("made");
}

#[tokio::test]
async fn a_commit_that_fails_undoes_the_group() {
    let bench = bench(2).await;
    // A debt that only the commit finds unpaid.
    bench
        .sql(
            "CREATE TABLE probe (account INTEGER REFERENCES accounts (id) DEFERRABLE INITIALLY DEFERRED);
             CREATE TEMP TRIGGER unpaid AFTER INSERT ON accounts BEGIN INSERT INTO probe VALUES (-1); END;",
        )
        .await;
    let (held, before) = (bench.hold().await, bench.store.stats());
    let account = bench.account;
    let swap = bench.spawn_swap(0);
    let making = bench.spawn(async |store| store.create_account(new_account("bob"), None, &Trace::NONE).await);
    let taken = bench.spawn(async |store| store.create_account(new_account("bob"), None, &Trace::NONE).await);
    let ending = bench.spawn(async move |store| store.end_session(account, client(1), &Trace::NONE).await);
    tokio::task::yield_now().await;
    held.send(()).expect("the writer waits");

    assert!(is_unavailable(&swap.await.expect("joined")));
    for answer in [making, taken] {
        // Nor is it taken: whose account would that be?
        let answer = answer.await.expect("joined");
        assert!(matches!(answer, Err(CreateAccountError::Store(StoreError::Unavailable { .. }))), "{answer:?}");
    }
    assert!(is_unavailable(&ending.await.expect("joined")));
    assert_eq!(bench.since(before), [4, 1, 0, 1]);
    assert_eq!(bench.session(0).await.generation.get(), 1);
    assert_eq!(bench.session(1).await.generation.get(), 1);

    bench.sql("DROP TRIGGER unpaid").await;
    bench.swap(0).await.expect("it goes on");
    bench.store.create_account(new_account("bob"), None, &Trace::NONE).await.expect("made");
}

#[tokio::test]
async fn without_its_thread_the_store_is_unavailable() {
    let bench = bench(1).await;
    let held = bench.hold().await;
    let dying = bench.spawn(async |store| store.aside(|_| panic!("told to")).await);
    let waiting = bench.spawn_swap(0);
    tokio::task::yield_now().await;
    held.send(()).expect("the writer waits");
    assert!(dying.await.expect("joined").is_err());
    // It was in the queue: nobody can say.
    let answer = waiting.await.expect("joined");
    assert!(matches!(answer, Err(StoreError::Uncertain { .. } | StoreError::Unavailable { .. })), "{answer:?}");

    assert!(is_unavailable(&bench.swap(0).await));
    assert!(is_unavailable(&bench.store.check().await));
    assert!(is_unavailable(&bench.store.close().await));
    assert_eq!(bench.session(0).await.generation.get(), 1);
    // Another one on the same file is not concerned.
    let second = must_open(&bench.path, bench.clock.clone());
    assert!(second.end_session(bench.account, client(0), &Trace::NONE).await.expect("end"));
}

#[tokio::test]
async fn a_caller_who_gives_up_harms_nobody() {
    let bench = bench(2).await;
    let held = bench.hold().await;
    let impatient = bench.spawn_swap(0);
    let patient = bench.spawn_swap(1);
    tokio::task::yield_now().await;
    impatient.abort();
    assert!(impatient.await.is_err());
    held.send(()).expect("the writer waits");
    patient.await.expect("joined").expect("swap");
    // It had been asked for, and nobody took it back.
    assert_eq!(bench.session(0).await.generation.get(), 2);
}

#[tokio::test]
async fn callers_wait_for_room_in_the_queue() {
    let (_folder, path) = file();
    let options = SqliteOptions { queue: 1, readers: 0, ..SqliteOptions::default() };
    let store = Arc::new(SqliteStore::open(&path, options, Arc::new(ManualClock::new(START))).expect("open"));
    let (account, _) = store.create_account(new_account("ada"), None, &Trace::NONE).await.expect("make");
    let making: Vec<_> = (0..20)
        .map(|number| {
            let store = store.clone();
            let new = NewSession { max_devices: 1_000, ..new_session(number) };
            tokio::spawn(async move { store.create_session(account.id, new, &Trace::NONE).await })
        })
        .collect();
    for session in making {
        session.await.expect("joined").expect("made");
    }
    assert_eq!(store.sessions(account.id).await.expect("list").1.len(), 20);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_not_taken_for_a_missing_one() {
    let bench = bench(2).await;
    bench.sql("UPDATE sessions SET generation = -1 WHERE client = zeroblob(16)").await;
    let answer = bench.store.find(client(0)).await;
    assert!(matches!(answer, Err(StoreError::Unusable { .. })), "{answer:?}");
    let answer = bench.store.sessions(bench.account).await;
    assert!(matches!(answer, Err(StoreError::Unusable { .. })), "{answer:?}");
    assert!(bench.store.find(client(1)).await.expect("find").is_some());
    bench.sql("UPDATE sessions SET generation = 1, ip = 'nowhere' WHERE client = zeroblob(16)").await;
    let answer = bench.store.sessions(bench.account).await;
    assert!(matches!(answer, Err(StoreError::Unusable { .. })), "{answer:?}");
}

#[tokio::test]
async fn sessions_need_their_account_in_the_file_too() {
    let bench = bench(2).await;
    assert_eq!(bench.pragma("foreign_keys").await, 1);
    bench.sql("DELETE FROM accounts").await;
    assert_eq!(bench.store.find(client(0)).await.expect("find"), None);
    let left: i64 = bench
        .store
        .aside(|connection| connection.query_row("SELECT count(*) FROM sessions", [], |row| row.get(0)))
        .await
        .expect("it runs")
        .expect("count");
    assert_eq!(left, 0);
}
