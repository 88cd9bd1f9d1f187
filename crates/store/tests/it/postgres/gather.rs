//! Operations that are wanted at once, and go to PostgreSQL with one statement.
//!
//! With a single thread all that are spawned have asked before anything is sent.

use std::sync::Arc;
use std::time::Duration;

use baton_core::Store;
use baton_core::error::StoreError;
use baton_core::event::Trace;
use baton_core::ports::Found;
use baton_core::session::{Session, Swap, Swapped, Version};
use baton_core::token::{ClientId, Generation};
use baton_store::postgres::PostgresStore;
use baton_testkit::postgres::Server;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::{Instant, sleep};

use super::Schema;
use crate::fixture::{client, new_account, new_session, rotation};
use crate::proxy::{Mode, Proxy};

/// With sessions of so many accounts, the first of which is number 1.
async fn opened(schema: &Schema, sessions: u8) -> (Arc<PostgresStore>, Vec<Session>) {
    let store = Arc::new(schema.must_open().await);
    let mut made = Vec::new();
    for number in 1..=sessions {
        let account = new_account(&format!("user-{number}"));
        let answer = store.create_account(account, Some(new_session(number)), &Trace::NONE).await.expect("create");
        made.push(answer.1.expect("a session was asked for"));
    }
    (store, made)
}

fn find(store: &Arc<PostgresStore>, client: ClientId) -> JoinHandle<Result<Option<Found>, StoreError>> {
    let store = store.clone();
    tokio::spawn(async move { store.find(client).await })
}

fn swap(store: &Arc<PostgresStore>, client: ClientId, swap: Swap) -> JoinHandle<Result<Swapped, StoreError>> {
    let store = store.clone();
    tokio::spawn(async move { store.swap(client, &swap, None).await })
}

async fn all<T>(asked: Vec<JoinHandle<Result<T, StoreError>>>) -> Vec<T> {
    let mut answers = Vec::new();
    for asked in asked {
        answers.push(asked.await.expect("no panic").expect("answered"));
    }
    answers
}

fn made(answer: &Swapped, session: &Session, swap: &Swap) -> Session {
    let Swapped::Done(at) = answer else { panic!("{answer:?}") };
    session.swapped(swap, *at).expect("it was at that")
}

#[tokio::test]
async fn everybody_gets_what_he_asked_for() {
    let schema = Schema::fresh();
    let (store, sessions) = opened(&schema, 20).await;
    // More than one statement is for; each several times, and some that there are not.
    let numbers: Vec<u8> = (0..200).map(|index| 1 + index % 25).collect();
    let asked = numbers.iter().map(|number| find(&store, client(*number))).collect();
    for (number, found) in numbers.iter().zip(all(asked).await) {
        let expected = sessions.get(usize::from(number - 1));
        assert_eq!(found.as_ref().map(|found| &found.session), expected);
        let uid = found.map(|found| found.account.uid.clone());
        assert_eq!(uid, expected.map(|_| format!("user-{number}")));
    }
}

#[tokio::test]
async fn of_swaps_made_together_each_is_made_as_if_it_were_alone() {
    let schema = Schema::fresh();
    let (store, sessions) = opened(&schema, 6).await;
    let mut swaps: Vec<Swap> = sessions.iter().map(rotation).collect();
    let next = Generation::new(2);
    for (swap, expect) in swaps.iter_mut().skip(1).zip([
        Version { generation: next, ..sessions[1].version() },
        Version { confirmed: next, ..sessions[2].version() },
        Version { handed_out_at: Some(sessions[3].created_at), ..sessions[3].version() },
    ]) {
        swap.expect = expect;
        swap.generation = swap.generation.next().expect("one");
    }
    // One without a token, which only notes that the session was seen.
    swaps[5].hand_out = None;

    let mut asked: Vec<_> = (0..6).map(|index| swap(&store, sessions[index].client, swaps[index])).collect();
    asked.push(swap(&store, sessions[0].client, swaps[0]));
    asked.push(swap(&store, client(99), swaps[0]));
    let answers = all(asked).await;
    let twice = [&answers[0], &answers[6]];
    let done = twice.into_iter().find(|answer| matches!(answer, Swapped::Done(_))).expect("one of the two is made");
    let first = made(done, &sessions[0], &swaps[0]);
    assert!(twice.contains(&&Swapped::Moved(first.clone())), "{twice:?}");
    for index in 1..=3 {
        assert_eq!(answers[index], Swapped::Moved(sessions[index].clone()), "{index}");
    }
    assert_eq!(answers[7], Swapped::Gone);
    let mut expected = sessions.clone();
    expected[0] = first;
    expected[4] = made(&answers[4], &sessions[4], &swaps[4]);
    expected[5] = made(&answers[5], &sessions[5], &swaps[5]);
    for session in expected {
        assert_eq!(store.find(session.client).await.expect("find").expect("there").session, session);
    }
}

#[tokio::test]
async fn nobody_waits_for_a_session_that_somebody_holds_but_those_who_want_it() {
    let schema = Schema::fresh();
    let (store, sessions) = opened(&schema, 8).await;
    let mut other = schema.server.client().await;
    let holding = other.transaction().await.expect("begin");
    let held = schema.text("SELECT FROM baton.sessions WHERE client = $1::text::uuid FOR UPDATE");
    assert_eq!(holding.execute(&held, &[&"01".repeat(16)]).await.expect("lock"), 1);

    let mut asked: Vec<_> = sessions.iter().map(|session| swap(&store, session.client, rotation(session))).collect();
    let first = asked.remove(0);
    for (session, answer) in sessions.iter().skip(1).zip(all(asked).await) {
        made(&answer, session, &rotation(session));
    }
    assert!(!first.is_finished());
    holding.rollback().await.expect("rollback");
    made(&first.await.expect("no panic").expect("swap"), &sessions[0], &rotation(&sessions[0]));
}

/// `synchronous_commit`, seen from what has reached the disk.
#[tokio::test]
async fn rotations_made_together_do_not_wait_for_the_disk_and_resends_do() {
    let server = Arc::new(Server::own(&["-c", "wal_writer_delay=10s"]));
    let schema = Schema::on(server.clone());
    let (store, sessions) = opened(&schema, 4).await;
    let probe = server.client().await;
    let position = async |function: &str| -> i64 {
        let sql = format!("SELECT ({function}() - '0/0'::pg_lsn)::bigint");
        probe.query_one(&sql, &[]).await.expect("ask").get(0)
    };
    let ours = |swaps: &[(ClientId, Swap)]| swaps.iter().map(|(client, swaps)| swap(&store, *client, *swaps)).collect();
    let rotations: Vec<_> = sessions.iter().map(|session| (session.client, rotation(session))).collect();
    let mut resends = Vec::new();
    for (answer, (session, (_, swap))) in all(ours(&rotations)).await.iter().zip(sessions.iter().zip(&rotations)) {
        let now = made(answer, session, swap);
        resends.push((now.client, Swap { generation: now.generation, ..rotation(&now) }));
    }
    let (written, flushed) = (position("pg_current_wal_insert_lsn").await, position("pg_current_wal_flush_lsn").await);
    assert!(flushed < written, "a rotation has waited for the disk");
    assert!(resends.iter().all(|(_, swap)| swap.resends()));
    for answer in all(ours(&resends)).await {
        assert!(matches!(answer, Swapped::Done(_)), "{answer:?}");
    }
    let flushed = position("pg_current_wal_flush_lsn").await;
    assert!(flushed > written, "a resend has not waited for the disk");
}

#[tokio::test]
async fn damage_is_the_trouble_of_those_whose_it_is() {
    let schema = Schema::fresh();
    let (store, sessions) = opened(&schema, 4).await;
    let numbers = [1, 2, 3, 4].map(client);
    let ask = async || {
        let asked = numbers.map(|client| find(&store, client));
        let mut answers = Vec::new();
        for asked in asked {
            answers.push(asked.await.expect("no panic"));
        }
        answers
    };
    let check = |answers: Vec<Result<Option<Found>, StoreError>>| {
        for (answer, session) in answers.into_iter().zip(&sessions) {
            if session.client == client(3) {
                assert!(matches!(answer, Err(StoreError::Unusable { .. })), "{answer:?}");
            } else {
                assert_eq!(answer.expect("find").map(|found| found.session).as_ref(), Some(session));
            }
        }
    };
    // A value that no version has written.
    schema.execute(&format!("UPDATE baton.sessions SET generation = -1 WHERE client = '{}'", "03".repeat(16))).await;
    check(ask().await);
    // A page that PostgreSQL cannot read.
    schema
        .execute(&format!(
            "ALTER TABLE baton.sessions RENAME TO readable;
             CREATE FUNCTION baton.damaged(bigint) RETURNS bigint LANGUAGE plpgsql AS
                 'BEGIN RAISE ''invalid page'' USING ERRCODE = ''XX001''; END';
             CREATE VIEW baton.sessions AS SELECT r.client, r.account, CASE WHEN r.client = '{}'
                 THEN baton.damaged(r.generation) ELSE r.generation END AS generation,
                 r.handed_out_at, r.confirmed, r.created_at, r.expires_at, r.last_seen_at FROM baton.readable r",
            "03".repeat(16)
        ))
        .await;
    check(ask().await);
}

#[tokio::test]
async fn nobody_is_left_alone_by_one_who_goes_away() {
    let schema = Schema::fresh();
    let (store, _) = opened(&schema, 2).await;
    let first = find(&store, client(1));
    let others = [1, 2, 1].map(|number| find(&store, client(number)));
    yield_now().await;
    first.abort();
    for other in others {
        assert!(other.await.expect("no panic").expect("find").is_some());
    }
    assert!(store.find(client(2)).await.expect("find").is_some());
}

#[tokio::test]
async fn who_waits_too_long_is_told_so_before_those_who_are_ahead_are_given_up() {
    let schema = Schema::fresh();
    opened(&schema, 1).await;
    let proxy = Proxy::before(schema.server.port).await;
    let mut options = schema.options_through(proxy.port);
    (options.statement_timeout, options.acquire_timeout) = (Duration::from_millis(500), Duration::from_millis(100));
    let store = Arc::new(PostgresStore::open(options).await.expect("open"));
    assert!(store.find(client(1)).await.expect("find").is_some());
    proxy.set(Mode::Deaf);
    let (mut asked, began) = (JoinSet::new(), Instant::now());
    let first = loop {
        let store = store.clone();
        asked.spawn(async move { store.find(client(1)).await });
        tokio::select! {
            Some(first) = asked.join_next() => break first,
            // Until no more can be sent.
            () = sleep(Duration::from_millis(5)) => {}
        }
        assert!(began.elapsed() < Duration::from_secs(20), "nobody is told anything");
    };
    let error = first.expect("no panic").expect_err("nobody answers");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("too much is waiting"), "{error}");
    while let Some(other) = asked.join_next().await {
        let error = other.expect("no panic").expect_err("nobody answers");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }
}
