//! What becomes of sessions in the long run.

use std::sync::Arc;
use std::time::Duration;

use baton_core::error::StoreError;
use baton_core::event::Trace;
use baton_core::session::{Account, AccountUpdate, NewSession, Renewal, Swapped};
use baton_core::{Store, Timestamp};
use baton_store::clock::ManualClock;
use baton_store::redis::{RedisOptions, RedisStore};
use baton_store::sqlite::SqliteStore;
use baton_testkit::redis::Server;
use tempfile::TempDir;

use super::{Seeded, Sessions, fresh_url, must_open};
use crate::fixture::{START, client, file, new_account, new_session, rotation};

/// Ahead of the clock of Redis: what was over by that would be gone at once.
const LATER: Timestamp = Timestamp::from_millis(1 << 45);

/// Redis forgets a session by itself, a while after it is over: later with each rotation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_expires_in_redis_too() {
    let server = Server::own(&[]);
    let (_folder, path) = file();
    let accounts = Arc::new(crate::fixture::must_open(&path, Arc::new(baton_store::clock::SystemClock::new())));
    let store = must_open(&format!("redis://127.0.0.1:{}", server.port), accounts, |_| {}).await;
    let lives = |number: u8| {
        let left = server.says(&["PTTL", &format!("baton:s:{}", client(number))]);
        left.trim().parse::<u64>().map(Duration::from_millis).unwrap_or_else(|_| panic!("{left}"))
    };
    let minutes = |count: u64| Duration::from_secs(60 * count);
    // An hour after its end, and at most ten minutes more.
    let goes_after = |end: u64| {
        let left = lives(1);
        assert!(left > minutes(end + 59) && left <= minutes(end + 70), "{left:?}");
        left
    };
    let renewal = Renewal { lifespan: minutes(10), max_lifetime: minutes(60) };
    let new = NewSession { renewal, ..new_session(1) };
    let (_, session) = store.create_account(new_account("ada"), Some(new), &Trace::NONE).await.expect("create");
    let session = session.expect("a session was asked for");
    goes_after(10);

    // A moment later most often does not need another expiry. It does not lose the one that there is either.
    let swap = baton_core::session::Swap { hand_out: Some(renewal), ..rotation(&session) };
    assert!(matches!(store.swap(client(1), &swap, None).await.expect("swap"), Swapped::Done(_)));
    goes_after(10);

    let session = store.find(client(1)).await.expect("find").expect("there").session;
    let longer = Renewal { lifespan: minutes(30), ..renewal };
    let swap = baton_core::session::Swap { hand_out: Some(longer), ..rotation(&session) };
    assert!(matches!(store.swap(client(1), &swap, None).await.expect("swap"), Swapped::Done(_)));
    goes_after(30);
    // One that is for ever stays for ever.
    let for_ever = Renewal { lifespan: Duration::MAX, max_lifetime: Duration::MAX };
    let session = store.find(client(1)).await.expect("find").expect("there").session;
    let swap = baton_core::session::Swap { hand_out: Some(for_ever), ..rotation(&session) };
    assert!(matches!(store.swap(client(1), &swap, None).await.expect("swap"), Swapped::Done(_)));
    assert_eq!(server.says(&["PTTL", &format!("baton:s:{}", client(1))]).trim(), "-1");
}

/// Two nodes over the same accounts, of which there is one, with one session.
struct Nodes {
    url: String,
    clock: Arc<ManualClock>,
    accounts: Arc<SqliteStore>,
    here: Sessions,
    there: Sessions,
    owner: Account,
    _folder: TempDir,
}

async fn nodes() -> Nodes {
    let url = fresh_url(&format!("redis://127.0.0.1:{}", baton_testkit::redis::shared()));
    let (folder, path) = file();
    let clock = Arc::new(ManualClock::new(LATER));
    let accounts = Arc::new(crate::fixture::must_open(&path, clock.clone()));
    let (here, there) =
        (must_open(&url, accounts.clone(), |_| {}).await, must_open(&url, accounts.clone(), |_| {}).await);
    let (owner, _) = here.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("create");
    Nodes { url, clock, accounts, here, there, owner, _folder: folder }
}

/// Between a request's read and its swap the session is written by another node, which changes nothing that the swap was decided
/// on: both are made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_and_a_change_of_the_account_do_not_undo_each_other() {
    let Nodes { clock, here, there, owner, _folder, .. } = nodes().await;
    clock.advance(Duration::from_secs(1));
    let email = |text: &str| AccountUpdate { email: Some(text.to_owned()), ..AccountUpdate::default() };
    for (seen_from, new) in [([192, 0, 2, 1], "new@example.test"), ([192, 0, 2, 2], "newer@example.test")] {
        let session = here.find(client(1)).await.expect("find").expect("there").session;
        let changed = there.update_account(owner.id, email(new), &Trace::NONE).await.expect("update");
        let swap = rotation(&session);
        let swapped = here.swap(client(1), &swap, Some(seen_from.into())).await.expect("swap");
        let Swapped::Done(at) = swapped else { panic!("{swapped:?}") };
        let found = there.find(client(1)).await.expect("find").expect("there");
        assert_eq!((Some(found.session), &*found.account), (session.swapped(&swap, at), &changed));
        let (_, listed) = there.sessions(owner.id).await.expect("list");
        assert_eq!(listed[0].device.ip, Some(seen_from.into()));
        clock.advance(Duration::from_secs(1));
    }
}

/// The account that a request sees is the one that was changed, on whichever node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_account_reaches_the_sessions() {
    let Nodes { url, clock, accounts, here, there, owner, _folder } = nodes().await;
    let email = |text: &str| AccountUpdate { email: Some(text.to_owned()), ..AccountUpdate::default() };
    clock.advance(Duration::from_secs(1));
    let changed = here.update_account(owner.id, email("new@example.test"), &Trace::NONE).await.expect("update");
    assert_eq!(*there.find(client(1)).await.expect("find").expect("there").account, changed);

    // One that was made past Redis shows when the session is looked for in the registry.
    clock.advance(Duration::from_secs(1));
    let past = accounts.update_account(owner.id, email("past@example.test"), &Trace::NONE).await.expect("update");
    assert_eq!(*there.find(client(1)).await.expect("find").expect("there").account, changed);
    let checking = must_open(&url, accounts, |options| options.recheck = Duration::ZERO).await;
    assert_eq!(*checking.find(client(1)).await.expect("find").expect("there").account, past);
    assert_eq!(*there.find(client(1)).await.expect("find").expect("there").account, past);
}

/// So that little is lost if Redis forgets everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_a_session_is_gets_noted_now_and_then() {
    let server = Server::own(&[]);
    let (_folder, path) = file();
    let clock = Arc::new(ManualClock::new(LATER));
    let accounts = Arc::new(crate::fixture::must_open(&path, clock.clone()));
    let url = format!("redis://127.0.0.1:{}", server.port);
    let store = must_open(&url, accounts.clone(), |options| options.recheck = Duration::ZERO).await;
    let (_, session) =
        store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("create");
    let mut session = session.expect("a session was asked for");
    let registered = async || accounts.find(client(1)).await.expect("find").expect("there").session;
    for (minutes, noted) in [(30, 1), (29, 1), (2, 4)] {
        clock.advance(Duration::from_secs(60 * minutes));
        store.observe(baton_core::clock::Clock::now(&*clock));
        let swap = rotation(&session);
        let Swapped::Done(at) = store.swap(client(1), &swap, None).await.expect("swap") else { panic!("lost") };
        session = session.swapped(&swap, at).expect("made");
        store.find(client(1)).await.expect("find").expect("there");
        assert_eq!(registered().await.generation.get(), noted, "after {minutes} minutes");
    }
    assert_eq!(server.says(&["FLUSHALL"]).trim(), "OK");
    assert_eq!(store.find(client(1)).await.expect("find").expect("restored").session, session);
}

/// It may have gone on, or not: nobody can say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_over_is_not_restored() {
    let server = Server::own(&[]);
    let (_folder, path) = file();
    let clock = Arc::new(ManualClock::new(LATER));
    let accounts = Arc::new(crate::fixture::must_open(&path, clock.clone()));
    let store = must_open(&format!("redis://127.0.0.1:{}", server.port), accounts, |_| {}).await;
    store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("create");
    for (passed, there) in
        [(crate::fixture::RENEWAL.lifespan - Duration::from_millis(1), true), (Duration::from_millis(1), false)]
    {
        clock.advance(passed);
        assert_eq!(server.says(&["FLUSHALL"]).trim(), "OK");
        assert_eq!(store.find(client(1)).await.expect("find").is_some(), there);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_is_told_why_and_not_the_password() {
    let server = Server::own(&["--requirepass", "sesame"]);
    let (_folder, path) = file();
    let accounts = Arc::new(crate::fixture::must_open(&path, Arc::new(ManualClock::new(START))));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("an address").port();
    for (url, expected) in [
        (format!("redis://:hush@127.0.0.1:{}", server.port), "authentication failed"),
        (format!("redis://:hush@127.0.0.1:{closed}"), "refused"),
        (format!("redis+cluster://:hush@127.0.0.1:{closed}"), "connect"),
        (format!("redis+sentinel://:hush@127.0.0.1:{closed}/main"), "connect"),
    ] {
        let options = RedisOptions::from_url(&url).expect("a good URL");
        let error = RedisStore::open(&options, accounts.clone(), &Seeded::new()).await.expect_err("nobody");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        let told = format!("{error} {error:?}");
        assert!(told.contains(expected) && !told.contains("hush"), "{told}");
    }
    let url = format!("redis://:sesame@127.0.0.1:{}", server.port);
    let store = must_open(&url, accounts, |_| {}).await;
    store.check().await.expect("it works");
    store.close();
    let error = store.check().await.expect_err("closed");
    assert!(error.to_string().contains("the store was closed"), "{error}");
}
