//! What becomes of sessions while Redis, the way to it, or the registry fails.

use std::sync::Arc;
use std::time::Duration;

use baton_core::Store;
use baton_core::error::StoreError;
use baton_core::event::Trace;
use baton_core::session::{AccountUpdate, EndSessions, Session, Swap, Swapped};
use baton_store::clock::SystemClock;
use baton_store::redis::RedisOptions;
use baton_store::sqlite::SqliteStore;
use baton_testkit::redis::Server;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::{Sessions, fresh_url, must_open};
use crate::fixture::{RENEWAL, client, file, new_account, new_session, rotation};
use crate::proxy::{Mode, Proxy};

const PATIENCE: Duration = Duration::from_secs(20);

fn accounts() -> (TempDir, Arc<SqliteStore>) {
    let (folder, path) = file();
    (folder, Arc::new(crate::fixture::must_open(&path, Arc::new(SystemClock::new()))))
}

async fn signed_in(store: &dyn Store) -> Session {
    let answer = store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("create");
    answer.1.expect("a session was asked for")
}

async fn rotate(store: &dyn Store, session: &Session) -> Session {
    let swap = rotation(session);
    match store.swap(session.client, &swap, None).await.expect("swap") {
        Swapped::Done(at) => session.swapped(&swap, at).expect("made"),
        other => panic!("{other:?}"),
    }
}

/// Asks until it is answered.
async fn when_back(store: &dyn Store, number: u8) -> Option<Session> {
    let asking = async {
        loop {
            match store.find(client(number)).await {
                Ok(found) => return found.map(|found| found.session),
                Err(StoreError::Unavailable { .. }) => sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("the store does not go on by itself")
}

/// A swap that a token from ahead of the record leads to.
fn healing(session: &Session, presented: &Session) -> Swap {
    Swap { generation: presented.generation, confirmed: presented.generation, ..rotation(session) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_ends_no_session_and_brings_none_back() {
    let server = Server::own(&[]);
    let (_folder, accounts) = accounts();
    let store = must_open(&format!("redis://127.0.0.1:{}", server.port), accounts, |_| {}).await;
    let opened = signed_in(&store).await;
    let owner = opened.account;
    store.create_session(owner, new_session(2), &Trace::NONE).await.expect("create");
    let mut session = opened.clone();
    for _ in 0..5 {
        session = rotate(&store, &session).await;
    }
    assert!(store.end_session(owner, client(2), &Trace::NONE).await.expect("end"));

    server.kill();
    // Quickly, and never as if the session were gone.
    for _ in 0..3 {
        let asked = Instant::now();
        let error = store.find(client(1)).await.expect_err("there is nobody to answer");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        let error = store.swap(client(1), &rotation(&session), None).await.expect_err("nobody to answer");
        assert!(!matches!(error, StoreError::Unusable { .. }), "{error}");
        store.create_session(owner, new_session(3), &Trace::NONE).await.expect_err("nobody to answer");
        store.check().await.expect_err("nobody to answer");
        assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    }

    server.restart();
    let restored = when_back(&store, 1).await.expect("a session was lost");
    assert_eq!(restored.generation, opened.generation);
    assert_eq!(when_back(&store, 2).await, None, "an ended session is back");
    assert_eq!(when_back(&store, 3).await, None, "nobody was told of it");
    // What the client holds says how far it was.
    let swap = healing(&restored, &session);
    let Swapped::Done(at) = store.swap(client(1), &swap, None).await.expect("swap") else { panic!("not healed") };
    let healed = restored.swapped(&swap, at).expect("made");
    assert_eq!(healed.generation, session.generation);
    rotate(&store, &healed).await;
    store.check().await.expect("it works again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_whose_answer_is_lost_is_known_to_be_made() {
    let (_folder, accounts) = accounts();
    let proxy = Proxy::before(baton_testkit::redis::shared()).await;
    let url = fresh_url(&format!("redis://127.0.0.1:{}", proxy.port));
    let store = must_open(&url, accounts.clone(), |options| options.timeout = PATIENCE).await;
    let witness_url = url.replace(&proxy.port.to_string(), &baton_testkit::redis::shared().to_string());
    let witness = must_open(&witness_url, accounts, |_| {}).await;
    let session = rotate(&store, &signed_in(&store).await).await;

    store.find(client(1)).await.expect("find").expect("there");
    proxy.set(Mode::Deaf);
    let cut = async {
        // The server has made it, and the node does not know.
        while witness.find(client(1)).await.expect("find").expect("there").session == session {
            sleep(Duration::from_millis(5)).await;
        }
        proxy.cut_and_pass();
    };
    let swap = rotation(&session);
    let (swapped, ()) = tokio::join!(store.swap(client(1), &swap, None), cut);
    let Ok(Swapped::Done(at)) = swapped else { panic!("{swapped:?}") };
    let made = witness.find(client(1)).await.expect("find").expect("there").session;
    assert_eq!(session.swapped(&swap, at), Some(made.clone()));
    // Made once, and only its own.
    let late = store.swap(client(1), &swap, None).await.expect("swap");
    assert_eq!(late, Swapped::Moved(made));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_goes_unanswered_is_uncertain() {
    let (_folder, accounts) = accounts();
    let proxy = Proxy::before(baton_testkit::redis::shared()).await;
    let url = fresh_url(&format!("redis://127.0.0.1:{}", proxy.port));
    let store = must_open(&url, accounts, |options| options.timeout = Duration::from_millis(300)).await;
    let session = signed_in(&store).await;
    store.find(client(1)).await.expect("find").expect("there");
    proxy.set(Mode::Deaf);
    let error = store.swap(client(1), &rotation(&session), None).await.expect_err("no answer");
    assert!(matches!(error, StoreError::Uncertain { .. }), "{error}");
    assert!(error.to_string().starts_with("redis: "), "{error}");
    let error = store.find(client(1)).await.expect_err("no answer");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    proxy.cut_and_pass();
    assert!(when_back(&store, 1).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_undone_waits_for_a_replica() {
    let primary = Server::own(&[]);
    let replica = Server::replica_of(primary.port);
    let proxy = Proxy::before(primary.port).await;
    let (_folder, accounts) = accounts();
    let store = must_open(&format!("redis://127.0.0.1:{}", proxy.port), accounts, |options| {
        (options.wait_replicas, options.wait_timeout) = (1, Duration::from_millis(500));
    })
    .await;
    let session = signed_in(&store).await;
    let owner = session.account;
    for number in 2..=3 {
        store.create_session(owner, new_session(number), &Trace::NONE).await.expect("create");
    }
    assert!(store.end_session(owner, client(2), &Trace::NONE).await.expect("the replica has it"));

    // From here on the replica learns nothing: rotations are made all the same, and the end of a session is in doubt.
    assert_eq!(replica.says(&["REPLICAOF", "NO", "ONE"]).trim(), "OK");
    let session = rotate(&store, &session).await;
    let error = store.end_session(owner, client(3), &Trace::NONE).await.expect_err("no replica has it");
    assert!(matches!(error, StoreError::Uncertain { .. }), "{error}");
    assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
    let resend = Swap { hand_out: Some(RENEWAL), generation: session.generation, ..rotation(&session) };
    assert!(resend.resends());
    let error = store.swap(client(1), &resend, None).await.expect_err("no replica has it");
    assert!(matches!(error, StoreError::Uncertain { .. }), "{error}");

    primary.kill();
    proxy.lead_to(replica.port);
    let behind = when_back(&store, 1).await.expect("a session was lost");
    assert!(behind.generation < session.generation, "the rotation was lost, or this shows nothing");
    assert_eq!(when_back(&store, 2).await, None, "an ended session is back");
}

/// Who is told that a change was not made makes it again, and is then told that it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_made_again_ends_what_the_first_could_not() {
    let (_folder, accounts) = accounts();
    let proxy = Proxy::before(baton_testkit::redis::shared()).await;
    let url = fresh_url(&format!("redis://127.0.0.1:{}", proxy.port));
    let store = must_open(&url, accounts, |_| {}).await;
    let session = signed_in(&store).await;
    let owner = session.account;
    store.create_session(owner, new_session(2), &Trace::NONE).await.expect("create");
    let change = AccountUpdate { end: EndSessions::AllBut(client(1)), ..AccountUpdate::default() };

    proxy.set(Mode::Cut);
    store.update_account(owner, change.clone(), &Trace::NONE).await.expect_err("Redis is away");
    proxy.set(Mode::Pass);
    assert!(when_back(&store, 1).await.is_some());
    store.update_account(owner, change, &Trace::NONE).await.expect("it is back");
    assert_eq!(when_back(&store, 2).await, None, "a session that was ended goes on");
}

/// Between its being opened and the answer to that, all sessions of the account end; then it is opened once more, because the
/// answer was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_that_is_overtaken_leaves_nothing() {
    let (_folder, accounts) = accounts();
    let server = Server::own(&[]);
    let proxy = Proxy::before(server.port).await;
    let patient = |options: &mut RedisOptions| options.timeout = PATIENCE;
    let store = must_open(&format!("redis://127.0.0.1:{}", proxy.port), accounts.clone(), patient).await;
    let witness = must_open(&format!("redis://127.0.0.1:{}", server.port), accounts.clone(), |_| {}).await;
    let owner = signed_in(&store).await.account;

    // The way becomes deaf when the sign-in has got as far as the registry.
    let (held, hold) = std::sync::mpsc::channel::<()>();
    let reads = || accounts.stats().reads_in_place + accounts.stats().reads_aside;
    let (registry, before) = (accounts.clone(), reads());
    let holding = tokio::spawn(async move { registry.aside(move |_| hold.recv()).await });
    let overtaking = async {
        while reads() == before {
            sleep(Duration::from_millis(5)).await;
        }
        proxy.set(Mode::Deaf);
        drop(held);
        while server.says(&["EXISTS", &format!("baton:s:{}", client(2))]).trim() != "1" {
            sleep(Duration::from_millis(5)).await;
        }
        let end = AccountUpdate { end: EndSessions::All, ..AccountUpdate::default() };
        witness.update_account(owner, end, &Trace::NONE).await.expect("update");
        proxy.cut_and_pass();
    };
    let trace = Trace::NONE;
    let (made, ()) = tokio::join!(store.create_session(owner, new_session(2), &trace), overtaking);
    made.expect("it was made, and has ended");
    assert!(holding.await.expect("no panic").is_ok());
    assert_eq!(server.says(&["EXISTS", &format!("baton:s:{}", client(2))]).trim(), "0", "it lives");
    assert_eq!(witness.find(client(2)).await.expect("find"), None);
}

/// Without waiting for replicas, and with the node that was to end it gone: only the registry knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ended_in_the_registry_alone_is_found_out() {
    let (_folder, accounts) = accounts();
    let url = fresh_url(&format!("redis://127.0.0.1:{}", baton_testkit::redis::shared()));
    let store = must_open(&url, accounts.clone(), |_| {}).await;
    let checking = must_open(&url, accounts.clone(), |options| options.recheck = Duration::ZERO).await;
    let session = signed_in(&store).await;
    assert!(accounts.end_session(session.account, client(1), &Trace::NONE).await.expect("end"));
    assert!(store.find(client(1)).await.expect("find").is_some(), "it is not time to look");
    assert_eq!(checking.find(client(1)).await.expect("find"), None);
    assert_eq!(store.find(client(1)).await.expect("find"), None, "from then on it is gone for everybody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_on_while_the_registry_is_away() {
    let (_folder, accounts) = accounts();
    let url = fresh_url(&format!("redis://127.0.0.1:{}", baton_testkit::redis::shared()));
    let store = must_open(&url, accounts.clone(), |options| options.recheck = Duration::ZERO).await;
    let session = signed_in(&store).await;
    accounts.close().await.expect("close");
    for _ in 0..2 {
        assert_eq!(store.find(client(1)).await.expect("find").map(|found| found.session), Some(session.clone()));
    }
    rotate(&store, &session).await;
    // What is not in Redis may be in the registry: nobody can say.
    let error = store.find(client(9)).await.expect_err("nobody knows");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let error = store.end_session(session.account, client(1), &Trace::NONE).await.expect_err("it cannot be kept");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    store.check().await.expect_err("half of it is away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_name_the_new_primary() {
    let primary = Server::own(&[]);
    let replica = Server::replica_of(primary.port);
    let sentinel = Server::sentinel_of(primary.port);
    let (_folder, accounts) = accounts();
    let store = must_open(&format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port), accounts, |options| {
        (options.wait_replicas, options.wait_timeout) = (1, Duration::from_secs(5));
    })
    .await;
    let session = rotate(&store, &signed_in(&store).await).await;
    let owner = session.account;
    store.create_session(owner, new_session(2), &Trace::NONE).await.expect("create");
    // The replica has what went before, too.
    store.end_session(owner, client(2), &Trace::NONE).await.expect("end");

    primary.kill();
    assert_eq!(when_back(&store, 1).await, Some(session.clone()));
    rotate_when_back(&store, &session).await;
    assert_eq!(when_back(&store, 2).await, None, "an ended session is back");
    assert!(replica.says(&["ROLE"]).starts_with("master"));
}

/// One of six nodes dies, and its replica takes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_loses_a_primary_goes_on() {
    let cluster = baton_testkit::redis::Cluster::own();
    let (_folder, accounts) = accounts();
    let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", cluster.ports()[0], cluster.ports()[5]);
    let store = must_open(&url, accounts, |options| {
        (options.wait_replicas, options.wait_timeout) = (1, Duration::from_secs(5));
    })
    .await;
    let owner = signed_in(&store).await.account;
    for number in 2..=24 {
        store.create_session(owner, new_session(number), &Trace::NONE).await.expect("create");
    }
    let mut sessions = Vec::new();
    for number in 1..=24 {
        let session = store.find(client(number)).await.expect("find").expect("there").session;
        sessions.push(rotate(&store, &session).await);
    }
    for number in 13..=24 {
        assert!(store.end_session(owner, client(number), &Trace::NONE).await.expect("end"));
    }

    cluster.kill_a_primary();
    for session in &sessions[..12] {
        let found = timeout(PATIENCE, when_back(&store, session.client.as_bytes()[0])).await.expect("in time");
        let found = found.expect("a session was lost");
        assert!(found.generation <= session.generation);
        rotate_when_back(&store, &found).await;
    }
    for session in &sessions[12..] {
        assert_eq!(when_back(&store, session.client.as_bytes()[0]).await, None, "an ended session is back");
    }
}

async fn rotate_when_back(store: &Sessions, session: &Session) {
    let swap = rotation(session);
    let swapping = async {
        loop {
            match store.swap(session.client, &swap, None).await {
                Ok(Swapped::Done(_)) => return,
                Ok(other) => panic!("{other:?}"),
                Err(StoreError::Unavailable { .. }) => sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(PATIENCE, swapping).await.expect("the store does not go on by itself");
}
