//! What becomes of operations while the server, or the way to it, fails.

use std::time::Duration;

use baton_core::Store;
use baton_core::error::{CreateSessionError, StoreError};
use baton_core::event::Trace;
use baton_core::session::{Session, Swap, Swapped};
use baton_store::postgres::PostgresStore;
use baton_testkit::postgres::Server;
use tokio::time::{Instant, sleep, timeout};

use super::Schema;
use crate::fixture::{RENEWAL, client, new_account, new_session, rotation};
use crate::proxy::{Mode, Proxy};

const PATIENCE: Duration = Duration::from_secs(20);

async fn signed_in(store: &PostgresStore) -> Session {
    let answer = store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("create");
    answer.1.expect("a session was asked for")
}

async fn rotate(store: &PostgresStore, session: &Session) -> Session {
    let swap = rotation(session);
    match store.swap(session.client, &swap, None).await.expect("swap") {
        Swapped::Done(at) => session.swapped(&swap, at).expect("made"),
        other => panic!("{other:?}"),
    }
}

/// Asks until it is answered.
async fn when_back(store: &PostgresStore, number: u8) -> Option<Session> {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_durable_survives_a_crash_and_the_store_goes_on_by_itself() {
    let server = std::sync::Arc::new(Server::own(&[]));
    let schema = Schema::on(server.clone());
    let store = schema.must_open().await;
    let mut session = signed_in(&store).await;
    let owner = session.account;
    for number in 2..=4 {
        store.create_session(owner, new_session(number), &Trace::NONE).await.expect("create");
    }
    for _ in 0..5 {
        session = rotate(&store, &session).await;
    }
    // Waits for the disk, and takes the rotations before it along.
    assert!(store.end_session(owner, client(2), &Trace::NONE).await.expect("end"));

    server.kill();
    // Quickly, and never as if the session were gone.
    for _ in 0..3 {
        let asked = Instant::now();
        let error = store.find(client(1)).await.expect_err("there is nobody to answer");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        let error = store.swap(client(1), &rotation(&session), None).await.expect_err("nobody to answer");
        assert!(!matches!(error, StoreError::Unusable { .. }), "{error}");
        store.check().await.expect_err("nobody to answer");
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }

    server.restart(&[]);
    assert_eq!(when_back(&store, 1).await, Some(session.clone()));
    assert_eq!(when_back(&store, 2).await, None, "an ended session is back");
    for number in 3..=4 {
        assert!(when_back(&store, number).await.is_some());
    }
    let after = rotate(&store, &session).await;
    assert!(after.last_seen_at >= session.last_seen_at);
    store.check().await.expect("it works again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_lost_is_uncertain() {
    let schema = Schema::fresh();
    let proxy = Proxy::before(schema.server.port).await;
    let store = PostgresStore::open(schema.options_through(proxy.port)).await.expect("open");
    let witness = schema.must_open().await;
    let session = signed_in(&store).await;
    // Prepared, so that it is the execution that goes unanswered.
    store.create_session(session.account, new_session(7), &Trace::NONE).await.expect("create");
    store.create_session(session.account, new_session(8), &Trace::NONE).await.expect("create");
    let session = rotate(&store, &rotate(&store, &session).await).await;

    proxy.set(Mode::Deaf);
    let cut = async {
        while witness.find(client(9)).await.expect("find").is_none()
            || witness.find(client(1)).await.expect("find").expect("there").session == session
        {
            sleep(Duration::from_millis(5)).await;
        }
        proxy.set(Mode::Cut);
    };
    let (swap, trace) = (rotation(&session), Trace::NONE);
    let (created, swapped, found, ()) = tokio::join!(
        store.create_session(session.account, new_session(9), &trace),
        store.swap(client(1), &swap, None),
        store.find(client(1)),
        cut,
    );
    assert!(matches!(created, Err(CreateSessionError::Store(StoreError::Uncertain { .. }))), "{created:?}");
    assert!(matches!(swapped, Err(StoreError::Uncertain { .. })), "{swapped:?}");
    assert!(matches!(found, Err(StoreError::Unavailable { .. })), "{found:?}");

    // As soon as it is noticed on every connection that nobody is there, nothing is sent, and that is known.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let asked = Instant::now();
        let error = store.end_session(session.account, client(7), &Trace::NONE).await.expect_err("cut");
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        if error.to_string().starts_with("postgres: end a session: no connection: connect: ") {
            assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
            break;
        }
        assert!(Instant::now() < deadline, "{error}");
    }

    proxy.set(Mode::Pass);
    assert!(when_back(&store, 9).await.is_some());
    // A lost answer is overtaken by its own rotation.
    let answer = store.swap(client(1), &swap, None).await.expect("swap");
    assert!(matches!(answer, Swapped::Moved(now) if now.generation == swap.generation));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_given_up() {
    let schema = Schema::fresh();
    let mut options = schema.options();
    options.statement_timeout = Duration::from_millis(300);
    let store = PostgresStore::open(options).await.expect("open");
    let session = rotate(&store, &signed_in(&store).await).await;

    let mut other = schema.server.client().await;
    let holding = other.transaction().await.expect("begin");
    holding.batch_execute(&schema.text("SELECT FROM baton.sessions FOR UPDATE")).await.expect("lock");
    let error = store.swap(client(1), &rotation(&session), None).await.expect_err("it is locked");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("57014"), "{error}");
    assert!(store.find(client(1)).await.expect("find").is_some(), "readers do not wait");
    holding.rollback().await.expect("rollback");
    rotate(&store, &session).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_is_given_up() {
    let schema = Schema::fresh();
    let proxy = Proxy::before(schema.server.port).await;
    let mut options = schema.options_through(proxy.port);
    (options.statement_timeout, options.connections) = (Duration::from_millis(100), 1);
    let store = PostgresStore::open(options).await.expect("open");
    let session = rotate(&store, &signed_in(&store).await).await;
    proxy.set(Mode::Deaf);
    let error = store.swap(client(1), &rotation(&session), None).await.expect_err("nobody answers");
    assert!(matches!(error, StoreError::Uncertain { .. }), "{error}");
    proxy.set(Mode::Pass);
    assert!(when_back(&store, 1).await.is_some());
}

/// `synchronous_commit`, seen from what has reached the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_do_not_wait_for_the_disk_and_all_else_does() {
    for default in ["on", "off"] {
        let setting = format!("synchronous_commit={default}");
        let server = std::sync::Arc::new(Server::own(&["-c", "wal_writer_delay=10s", "-c", &setting]));
        let schema = Schema::on(server.clone());
        let store = schema.must_open().await;
        let probe = server.client().await;
        let position = async |function: &str| -> i64 {
            let sql = format!("SELECT ({function}() - '0/0'::pg_lsn)::bigint");
            probe.query_one(&sql, &[]).await.expect("ask").get(0)
        };
        let session = signed_in(&store).await;
        for _ in 0..3 {
            // Everything before it is on the disk, so what is missing afterwards is the rotation.
            let session = store.create_session(session.account, new_session(5), &Trace::NONE).await.expect("create");
            let session = rotate(&store, &session).await;
            let (written, flushed) =
                (position("pg_current_wal_insert_lsn").await, position("pg_current_wal_flush_lsn").await);
            assert!(flushed < written, "default {default}: a rotation has waited for the disk");

            let resend = Swap { generation: session.generation, ..rotation(&session) };
            assert!(resend.resends() && resend.hand_out == Some(RENEWAL));
            let answer = store.swap(client(5), &resend, None).await.expect("swap");
            assert!(matches!(answer, Swapped::Done(_)));
            // Its own record begins where the log ended before.
            let flushed = position("pg_current_wal_flush_lsn").await;
            assert!(flushed > written, "default {default}: a resend has not waited for the disk");
            let written = position("pg_current_wal_insert_lsn").await;
            assert!(store.end_session(session.account, client(5), &Trace::NONE).await.expect("end"));
            let flushed = position("pg_current_wal_flush_lsn").await;
            assert!(flushed > written, "default {default}: a sign-out has not waited for the disk");
        }
    }
}

/// A rotation that had to move an index entry would cost several times as much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_touches_no_index() {
    let schema = Schema::fresh();
    let store = schema.must_open().await;
    let session = signed_in(&store).await;
    let mut probe = schema.server.client().await;
    let tx = probe.transaction().await.expect("begin");
    let sql = schema.text(
        "SELECT baton.swap(client, generation, handed_out_at, confirmed, generation + 1, generation, 1000, 2000, NULL, \
         true) FROM baton.sessions",
    );
    for _ in 0..10 {
        tx.batch_execute(&sql).await.expect("swap");
    }
    let count = schema.text("SELECT pg_stat_get_xact_tuples_hot_updated('baton.sessions'::regclass)");
    assert_eq!(tx.query_one(&count, &[]).await.expect("count").get::<_, i64>(0), 10);
    tx.commit().await.expect("commit");
    assert_eq!(store.find(session.client).await.expect("find").expect("there").session.generation.get(), 11);
}

/// A session that was renewed is put off, whatever was known when it was opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_session_is_not_purged() {
    let schema = Schema::fresh();
    let store = schema.must_open().await;
    signed_in(&store).await;
    schema.execute("UPDATE baton.sessions SET purge_at = 0").await;
    assert_eq!(store.purge(10).await.expect("purge"), 0);
    assert!(store.find(client(1)).await.expect("find").is_some());
    schema.execute("UPDATE baton.sessions SET purge_at = 0, expires_at = 1").await;
    assert_eq!(store.purge(10).await.expect("purge"), 1);
}
