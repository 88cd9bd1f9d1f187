//! Opening, closing and opening again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use baton_core::attempts::{AttemptName, AttemptRule, Counted};
use baton_core::clock::{Clock, Timestamp};
use baton_core::error::{RedeemError, StoreError};
use baton_core::event::{Event, EventKind, Outcome, Trace};
use baton_core::one_time::{OneTimeId, Purpose};
use baton_core::ports::{KeyBinding, NewOneTime, Store};
use baton_core::session::{AccountUpdate, Device, Permit, Swapped};
use baton_store::clock::ManualClock;
use baton_store::sqlite::{SqliteOptions, SqliteStore};
use parking_lot::Mutex;

use crate::fixture::{
    DAY, START, client, file, mails, must_open, new_account, new_session, open, rotation, with_suffix,
};

fn failure(path: &Path) -> StoreError {
    let options = SqliteOptions { busy_timeout: Duration::from_millis(30), ..SqliteOptions::default() };
    match SqliteStore::open(path, options, Arc::new(ManualClock::new(START))) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

fn assert_unusable(path: &Path, why: &str) {
    let error = failure(path);
    assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
    assert!(error.to_string().contains(why), "{error}");
}

fn assert_unavailable(path: &Path, why: &str) {
    let error = failure(path);
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains(why), "{error}");
}

#[tokio::test]
async fn opening_again_finds_everything() {
    let (_folder, path) = file();
    let clock = Arc::new(ManualClock::new(START));
    let (mut account, mut session) = (None, None);
    for round in 0..3 {
        let store = must_open(&path, clock.clone());
        if round == 0 {
            let (made, signed_in) =
                store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("make");
            (account, session) = (Some(made), signed_in);
            assert_eq!(store.bind_keys(&["k1".to_owned()]).await.expect("bind"), KeyBinding::Bound);
        }
        let found = store.find(client(1)).await.expect("find").expect("it exists");
        assert_eq!((Some(&*found.account), Some(&found.session)), (account.as_ref(), session.as_ref()));
        let login = store.find_login("user", "email", "ada").await.expect("find").expect("it exists");
        assert_eq!(login.password.expose(), new_account("ada").password.expose());
        assert_eq!(store.bind_keys(&["k2".to_owned()]).await.expect("bind"), KeyBinding::Foreign);

        clock.advance(Duration::from_secs(1));
        let swap = rotation(&found.session);
        let Swapped::Done(at) = store.swap(client(1), &swap, None).await.expect("swap") else { panic!("lost") };
        session = found.session.swapped(&swap, at);
        // Closed properly, and not.
        if round == 1 {
            store.close().await.expect("close");
        }
    }
}

#[tokio::test]
async fn a_copy_taken_while_it_runs_has_all_that_was_answered() {
    let (folder, path) = file();
    let clock = Arc::new(ManualClock::new(START));
    let store = must_open(&path, clock.clone());
    let (account, _) =
        store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("make");
    store.create_session(account.id, new_session(2), &Trace::NONE).await.expect("make");
    assert!(store.end_session(account.id, client(1), &Trace::NONE).await.expect("end"));

    // What a crash of the process would leave behind: nothing was closed.
    let copy = folder.path().join("copy.db");
    for suffix in ["", "-wal"] {
        std::fs::copy(with_suffix(&path, suffix), with_suffix(&copy, suffix)).expect("copy");
    }
    let copied = must_open(&copy, clock);
    assert_eq!(copied.find(client(1)).await.expect("find"), None);
    assert!(copied.find(client(2)).await.expect("find").is_some());
}

#[tokio::test]
async fn a_copy_taken_while_it_runs_has_tokens_attempts_events_and_the_outbox() {
    let (folder, path) = file();
    let clock = Arc::new(ManualClock::new(START));
    let store = must_open(&path, clock.clone());
    let event = Event {
        kind: EventKind::Registered,
        realm: "user".to_owned(),
        account: None,
        uid: None,
        client: None,
        device: Device::default(),
    };
    let trace = Trace { events: vec![event], webhooks: vec!["https://hook.test".to_owned()], ..mails(["ada", "ada"]) };
    let (account, _) = store.create_account(new_account("ada"), None, &trace).await.expect("make");
    let ids = [1, 2, 3].map(|number| OneTimeId::from_bytes([number; 16]));
    for (id, purpose) in ids.into_iter().zip(Purpose::ALL) {
        let new = NewOneTime { id, account: account.id, purpose, email: "a@b.test".to_owned(), lifetime: DAY };
        assert!(store.create_one_time(new).await.expect("keep"));
    }
    let permit = Permit { client: client(1), until: START };
    let update = AccountUpdate {
        permit: Some(permit),
        confirm: true,
        unconfirmed_email: Some(Some("c@d.test".to_owned())),
        ..AccountUpdate::default()
    };
    store.redeem(ids[0], update, Some(new_session(1)), &Trace::NONE).await.expect("redeem");
    let rule = AttemptRule { max_attempts: 2, lock_for: DAY, forget_after: DAY };
    for number in [1, 2, 2] {
        store.count_attempt(AttemptName([number; 16]), rule).await.expect("count");
    }
    let claimed = store.claim(2, Duration::from_secs(60)).await.expect("claim");
    store.settle(claimed[0].id, 1, Outcome::Done).await.expect("settle");
    let [events, good, login] = [
        format!("{:?}", store.events(0, 10).await.expect("list")),
        format!("{:?}", store.find_one_time(ids[1]).await.expect("find").expect("it is good")),
        format!("{:?}", store.find_login("user", "email", "ada").await.expect("find")),
    ];
    assert!(login.contains("c@d.test") && login.contains(&format!("{permit:?}")), "{login}");

    let copy = folder.path().join("copy.db");
    for suffix in ["", "-wal"] {
        std::fs::copy(with_suffix(&path, suffix), with_suffix(&copy, suffix)).expect("copy");
    }
    let copied = must_open(&copy, clock.clone());
    assert_eq!(format!("{:?}", copied.events(0, 10).await.expect("list")), events);
    assert_eq!(format!("{:?}", copied.find_one_time(ids[1]).await.expect("find").expect("it is good")), good);
    assert_eq!(format!("{:?}", copied.find_login("user", "email", "ada").await.expect("find")), login);
    let again = copied.redeem(ids[0], AccountUpdate::default(), None, &Trace::NONE).await;
    assert!(matches!(again, Err(RedeemError::Gone)), "{again:?}");
    assert!(copied.find(client(1)).await.expect("find").is_some());
    let locked = START.plus(DAY);
    for (number, expected) in [(1, Counted::Allowed { last: true }), (2, Counted::Locked(locked))] {
        assert_eq!(copied.count_attempt(AttemptName([number; 16]), rule).await.expect("count"), expected);
    }
    // The third was never claimed, the second is in other hands for a while, and the first is out.
    let free = copied.claim(10, Duration::from_secs(60)).await.expect("claim");
    assert_eq!(free.iter().map(|message| message.attempt).collect::<Vec<_>>(), [1]);
    clock.advance(Duration::from_secs(60));
    let mut back = copied.claim(10, DAY).await.expect("claim");
    back.sort_by_key(|message| message.id);
    let back: Vec<_> = back.iter().map(|message| (message.id, message.attempt)).collect();
    assert_eq!(back, [(claimed[1].id, 2), (free[0].id, 2)]);
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = file();
    let store = must_open(&path, Arc::new(ManualClock::new(START)));
    store.create_account(new_account("ada"), None, &Trace::NONE).await.expect("make");
    for suffix in ["", "-wal", "-shm"] {
        let metadata = std::fs::metadata(with_suffix(&path, suffix)).expect("it exists");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{suffix}");
    }
}

#[tokio::test]
async fn closing_finishes_what_is_waiting_and_leaves_one_file() {
    let (_folder, path) = file();
    let store = Arc::new(must_open(&path, Arc::new(ManualClock::new(START))));
    let (release, released) = std::sync::mpsc::channel::<()>();
    let holding = spawn(&store, async move |store| store.aside(move |_| released.recv()).await.map(drop));
    let making =
        spawn(&store, async |store| store.create_account(new_account("ada"), None, &Trace::NONE).await.map(drop));
    tokio::task::yield_now().await;
    let closing = spawn(&store, async |store| store.close().await);
    tokio::task::yield_now().await;
    release.send(()).expect("the writer waits");
    holding.await.expect("joined").expect("held");
    making.await.expect("joined").expect("made before it was closed");
    closing.await.expect("joined").expect("closed");

    for suffix in ["-wal", "-shm"] {
        assert!(!with_suffix(&path, suffix).exists(), "{suffix} is left");
    }
    let late = store.create_account(new_account("bob"), None, &Trace::NONE).await;
    assert!(late.is_err_and(|error| error.to_string().contains("closed")));
    assert!(matches!(store.find(client(1)).await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(store.check().await, Err(StoreError::Unavailable { .. })));
    store.close().await.expect("closing twice is harmless");

    let again = must_open(&path, Arc::new(ManualClock::new(START)));
    assert!(again.find_login("user", "email", "ada").await.expect("find").is_some());
    assert!(again.find_login("user", "email", "bob").await.expect("find").is_none());
}

fn spawn<T: Send + 'static, F>(
    store: &Arc<SqliteStore>,
    work: impl FnOnce(Arc<SqliteStore>) -> F,
) -> tokio::task::JoinHandle<T>
where
    F: Future<Output = T> + Send + 'static,
{
    tokio::spawn(work(store.clone()))
}

#[tokio::test]
async fn dropping_it_leaves_one_file_too() {
    let (_folder, path) = file();
    let store = must_open(&path, Arc::new(ManualClock::new(START)));
    store.create_account(new_account("ada"), None, &Trace::NONE).await.expect("make");
    drop(store);
    assert!(path.exists() && !with_suffix(&path, "-wal").exists());
}

#[test]
fn dropping_it_does_not_wait_for_ever() {
    let (_folder, path) = file();
    let options = SqliteOptions { busy_timeout: Duration::ZERO, ..SqliteOptions::default() };
    let store = SqliteStore::open(&path, options, Arc::new(ManualClock::new(START))).expect("open");
    let (release, released) = std::sync::mpsc::channel::<()>();
    {
        let mut holding = std::pin::pin!(store.aside(move |_| released.recv()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(holding.as_mut().poll(&mut context).is_pending());
    }
    drop(store);
    release.send(()).expect("the writer is still held up, and its owner is not");
}

#[tokio::test]
async fn several_can_make_it_at_once() {
    for _ in 0..5 {
        let (_folder, path) = file();
        let barrier = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (path, barrier) = (path.clone(), barrier.clone());
                std::thread::spawn(move || {
                    barrier.wait();
                    let options = SqliteOptions { busy_timeout: Duration::from_secs(30), ..SqliteOptions::default() };
                    SqliteStore::open(&path, options, Arc::new(ManualClock::new(START)))
                })
            })
            .collect();
        let stores: Vec<_> =
            threads.into_iter().map(|thread| thread.join().expect("no panic").expect("open")).collect();
        for (index, store) in stores.iter().enumerate() {
            store.create_account(new_account(&index.to_string()), None, &Trace::NONE).await.expect("make");
        }
        for index in 0..4_u32 {
            assert!(stores[0].find_login("user", "email", &index.to_string()).await.expect("find").is_some());
        }
    }
}

#[test]
fn a_folder_is_needed() {
    let (folder, path) = file();
    assert_unavailable(&folder.path().join("missing").join("baton.db"), "does not exist");
    assert_unavailable(folder.path(), "is a folder");
    std::fs::write(&path, "").expect("write");
    assert_unavailable(&path.join("baton.db"), "does not exist");
    assert!(!folder.path().join("missing").exists(), "folders are not made by accident");
}

#[cfg(unix)]
#[test]
fn the_folder_has_to_be_writable() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, _) = file();
    let locked = folder.path().join("locked");
    std::fs::create_dir(&locked).expect("make");
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o500)).expect("chmod");
    let locked = if std::fs::write(locked.join("probe"), "").is_ok() {
        // A superuser may write anywhere but here.
        PathBuf::from("/sys")
    } else {
        locked
    };
    if locked.is_dir() {
        assert_unavailable(&locked.join("baton.db"), "cannot be made");
    }
}

#[test]
fn what_is_no_database_is_left_alone() {
    let (_folder, path) = file();
    for content in [&b"hello"[..], &[0x5a; 5_000], b"SQLite format 3"] {
        std::fs::write(&path, content).expect("write");
        assert_unusable(&path, "is not an SQLite database");
        assert_eq!(std::fs::read(&path).expect("read"), content);
    }
}

#[test]
fn another_applications_database_is_left_alone() {
    for setup in ["PRAGMA application_id = 77; CREATE TABLE t (x)", "PRAGMA application_id = 77", "CREATE TABLE t (x)"]
    {
        let (_folder, path) = file();
        rusqlite::Connection::open(&path).expect("open").execute_batch(setup).expect("set up");
        let before = std::fs::read(&path).expect("read");
        assert_unusable(&path, "another application");
        assert_eq!(std::fs::read(&path).expect("read"), before, "{setup}");
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let (_folder, path) = file();
    drop(must_open(&path, Arc::new(ManualClock::new(START))));
    let other = rusqlite::Connection::open(&path).expect("open");
    other.pragma_update(None, "user_version", 999).expect("set");
    drop(other);
    assert_unusable(&path, "schema 999");
    let other = rusqlite::Connection::open(&path).expect("open");
    other.pragma_update(None, "user_version", -1).expect("set");
    drop(other);
    assert_unusable(&path, "another application");
}

#[test]
fn a_locked_file_is_said_to_be_locked() {
    let (_folder, path) = file();
    drop(must_open(&path, Arc::new(ManualClock::new(START))));
    let other = rusqlite::Connection::open(&path).expect("open");
    // In this mode it keeps even readers out.
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT").expect("lock");
    assert_unavailable(&path, "locked by another process");
    drop(other);
    must_open(&path, Arc::new(ManualClock::new(START)));
}

#[tokio::test]
async fn a_relative_path_is_never_a_database_in_memory() {
    // SQLite takes this name for one. Here it is a file in the working directory, like any other.
    let error = failure(Path::new(":memory:/baton.db"));
    assert!(error.to_string().contains("does not exist"), "{error}");
}

#[tokio::test]
async fn time_does_not_go_back_across_a_restart() {
    let (_folder, path) = file();
    let late = START.plus(Duration::from_secs(3_600));
    let store = must_open(&path, Arc::new(ManualClock::new(late)));
    let (account, _) =
        store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("make");
    store.close().await.expect("close");

    let clock = Arc::new(ManualClock::new(START));
    let store = must_open(&path, clock.clone());
    assert_eq!(store.high_water_mark(), late);
    assert_eq!(store.sessions(account.id).await.expect("list").0, late);
    let found = store.find(client(1)).await.expect("find").expect("it exists");
    assert_eq!(found.now, late);
    let swap = rotation(&found.session);
    assert_eq!(store.swap(client(1), &swap, None).await.expect("swap"), Swapped::Done(late));
    // It does not stand still either.
    clock.advance(Duration::from_secs(20));
    let half = late.plus(Duration::from_secs(10));
    assert_eq!(store.sessions(account.id).await.expect("list").0, half);
    let made = store.create_session(account.id, new_session(2), &Trace::NONE).await.expect("make");
    assert_eq!(made.created_at, half);
}

#[tokio::test]
async fn the_mark_is_kept_also_when_no_record_shows_the_time() {
    let (_folder, path) = file();
    let late = START.plus(Duration::from_secs(3_600));
    let clock = Arc::new(ManualClock::new(START));
    let store = must_open(&path, clock.clone());
    let (account, _) =
        store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("make");
    clock.set(late);
    assert!(store.delete_account(account.id, &Trace::NONE).await.expect("delete"));
    store.close().await.expect("close");
    let store = must_open(&path, Arc::new(ManualClock::new(START)));
    assert_eq!(store.high_water_mark(), late);
}

#[tokio::test]
async fn time_does_not_go_back_when_the_clock_does() {
    struct Unsteady(Mutex<Timestamp>);
    impl Clock for Unsteady {
        fn now(&self) -> Timestamp {
            *self.0.lock()
        }
    }
    let (_folder, path) = file();
    let clock = Arc::new(Unsteady(Mutex::new(START)));
    let store = open(&path, clock.clone()).expect("open");
    let (account, session) =
        store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("make");
    *clock.0.lock() = Timestamp::from_millis(0);
    let mut session = session.expect("asked for");
    for _ in 0..3 {
        let swap = rotation(&session);
        assert_eq!(store.swap(client(1), &swap, None).await.expect("swap"), Swapped::Done(START));
        session = session.swapped(&swap, START).expect("made");
    }
    assert_eq!(store.sessions(account.id).await.expect("list").0, START);
}

#[tokio::test]
async fn a_process_behind_another_one_follows_it() {
    let (_folder, path) = file();
    let late = START.plus(Duration::from_secs(3_600));
    let behind = must_open(&path, Arc::new(ManualClock::new(START)));
    let (account, _) =
        behind.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("make");
    let ahead = must_open(&path, Arc::new(ManualClock::new(late)));
    assert!(ahead.end_session(account.id, client(1), &Trace::NONE).await.expect("end"));
    // No record shows the time of that, and still what comes after it is not before it.
    let made = behind.create_session(account.id, new_session(2), &Trace::NONE).await.expect("make");
    assert_eq!(made.created_at, late);

    // And in a read, by the record.
    let third = must_open(&path, Arc::new(ManualClock::new(late.plus(Duration::from_secs(60)))));
    let found = third.find(client(2)).await.expect("find").expect("it exists");
    let swap = rotation(&found.session);
    let Swapped::Done(at) = third.swap(client(2), &swap, None).await.expect("swap") else { panic!("lost") };
    let found = behind.find(client(2)).await.expect("find").expect("it exists");
    assert_eq!((found.session.handed_out_at, found.now), (Some(at), at));
}

#[tokio::test]
async fn a_process_behind_another_one_goes_by_its_time_for_tokens_and_messages_too() {
    let (_folder, path) = file();
    let late = START.plus(Duration::from_secs(3_600));
    let behind = must_open(&path, Arc::new(ManualClock::new(START)));
    let (account, _) = behind.create_account(new_account("ada"), None, &Trace::NONE).await.expect("make");
    let ids = [1, 2].map(|number| OneTimeId::from_bytes([number; 16]));
    for (id, minutes) in ids.into_iter().zip([59, 61]) {
        let (purpose, email, lifetime) = (Purpose::Reset, String::new(), Duration::from_secs(minutes * 60));
        let new = NewOneTime { id, account: account.id, purpose, email, lifetime };
        assert!(behind.create_one_time(new).await.expect("keep"));
    }
    assert!(behind.find_one_time(ids[0]).await.expect("find").is_some());
    let ahead = must_open(&path, Arc::new(ManualClock::new(late)));
    ahead.record(&mails(["ada"])).await.expect("record");
    assert_eq!(behind.find_one_time(ids[0]).await.expect("find"), None);
    assert_eq!(behind.find_one_time(ids[1]).await.expect("find").expect("it is good").now, late);

    assert_eq!(behind.claim(10, 2 * DAY).await.expect("claim").len(), 1);
    let third = must_open(&path, Arc::new(ManualClock::new(late.plus(DAY))));
    third.record(&mails(["bob"])).await.expect("record");
    assert_eq!(behind.claim(10, DAY).await.expect("claim").len(), 1, "it is due, by the store's time");
}
