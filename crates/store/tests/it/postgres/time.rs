//! The store's time, when the server's clock is set.

use baton_core::Store;
use baton_core::event::Trace;

use super::Schema;
use crate::fixture::{client, new_account, new_session, rotation};

/// A clock that shows what it is told, and nobody who keeps the time but the test.
async fn with_a_clock(schema: &Schema, shows: i64) -> tokio_postgres::Client {
    schema.must_open().await.close().await;
    let probe = schema.server.client().await;
    let sql = "CREATE TABLE baton.shown (at bigint);
        INSERT INTO baton.shown VALUES (0);
        CREATE OR REPLACE FUNCTION baton.baton_clock() RETURNS bigint LANGUAGE sql VOLATILE AS
            'SELECT at FROM baton.shown';
        UPDATE baton.clock SET mark = 0, ahead = 0;";
    probe.batch_execute(&schema.text(sql)).await.expect("a clock");
    show(&probe, schema, shows).await;
    probe
}

async fn show(probe: &tokio_postgres::Client, schema: &Schema, at: i64) {
    probe.execute(&schema.text("UPDATE baton.shown SET at = $1"), &[&at]).await.expect("set the clock");
}

async fn now(probe: &tokio_postgres::Client, schema: &Schema) -> i64 {
    probe.query_one(&schema.text("SELECT baton.baton_now()"), &[]).await.expect("ask").get(0)
}

async fn tick(probe: &tokio_postgres::Client, schema: &Schema, seen: i64) {
    probe.execute(&schema.text("SELECT baton.tick($1)"), &[&seen]).await.expect("tick");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_more_slowly_until_the_clock_has_caught_up() {
    let schema = Schema::fresh();
    let probe = with_a_clock(&schema, 100_000).await;
    assert_eq!(now(&probe, &schema).await, 100_000);
    tick(&probe, &schema, 100_000).await;
    show(&probe, &schema, 100_700).await;
    assert_eq!(now(&probe, &schema).await, 100_700);
    tick(&probe, &schema, 100_700).await;
    let mark = probe.query_one(&schema.text("SELECT mark FROM baton.clock"), &[]).await.expect("ask");
    assert_eq!(mark.get::<_, i64>(0), 100_000, "not written each time");

    // Set back by 6 s. Somebody ticks twice a second, who has seen what was later than the mark.
    let mut shown = 94_700;
    let mut last = 100_700;
    let mut stood = 0;
    let mut joined = None;
    for step in 0..60 {
        show(&probe, &schema, shown).await;
        tick(&probe, &schema, last).await;
        for within in [0, 250, 490] {
            show(&probe, &schema, shown + within).await;
            let time = now(&probe, &schema).await;
            assert!(time >= last, "step {step}: {time} after {last}");
            stood = if time == last { stood + 1 } else { 0 };
            assert!(stood < 4, "step {step}: time stands still at {time}");
            last = time;
        }
        shown += 500;
        if joined.is_none() && last == shown - 10 {
            joined = Some(step);
        }
    }
    // Three times as long as it was set back by, give or take.
    assert!(joined.is_some_and(|step| (30..=42).contains(&step)), "{joined:?}");
    assert_eq!(last, shown - 10, "it shows the clock's time again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_before_what_a_record_holds() {
    let schema = Schema::fresh();
    let store = schema.must_open().await;
    let answer = store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("create");
    let session = answer.1.expect("a session was asked for");
    // A replica that has taken over, with a clock that is an hour behind, and without the mark.
    let sql = "CREATE OR REPLACE FUNCTION baton.baton_clock() RETURNS bigint LANGUAGE sql VOLATILE AS
            'SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint - 3600000';
        UPDATE baton.clock SET mark = 0, ahead = 0;";
    schema.execute(sql).await;
    let other = schema.must_open().await;
    for node in [&store, &other] {
        let found = node.find(client(1)).await.expect("find").expect("there");
        assert!(found.now >= found.session.last_seen_at);
        let (now, entries) = node.sessions(session.account).await.expect("list");
        assert!(now >= entries[0].session.last_seen_at);
    }
    let swap = rotation(&session);
    let answer = other.swap(client(1), &swap, None).await.expect("swap");
    let baton_core::session::Swapped::Done(at) = answer else { panic!("{answer:?}") };
    assert!(at >= session.last_seen_at);
    let found = store.find(client(1)).await.expect("find").expect("there");
    assert_eq!(Some(found.session), session.swapped(&swap, at));
}
