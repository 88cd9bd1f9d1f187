//! What an operator is told, and roles that may not change the schema.

use std::sync::Arc;
use std::time::Duration;

use baton_core::error::StoreError;
use baton_core::event::Trace;
use baton_core::session::Swapped;
use baton_core::{Clock as _, Store};
use baton_store::clock::{ManualClock, SystemClock};
use baton_store::inspection::Inspection;
use baton_store::migrations::Migrations;
use baton_store::postgres::{PostgresOptions, PostgresStore};
use baton_testkit::postgres::{PgBouncer, Server};

use super::Schema;
use crate::fixture::{client, new_account, new_session, rotation};

async fn inspect(options: PostgresOptions) -> Inspection {
    PostgresStore::inspect(options, &SystemClock::new()).await
}

fn fact<'a>(found: &'a Inspection, name: &str) -> &'a serde_json::Value {
    let fact = found.facts.iter().find(|fact| fact.name == name);
    &fact.unwrap_or_else(|| panic!("no {name}: {found:?}")).value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_works_is_told_from_one_that_is_not_set_up() {
    let schema = Schema::fresh();
    let found = inspect(schema.options()).await;
    assert_eq!(found.failures.len(), 1, "{found:?}");
    assert!(found.failures[0].contains("run `baton migrate`"), "{found:?}");
    assert_eq!(fact(&found, "schema version"), 0);
    assert_eq!(PostgresStore::migrations(schema.options()).await.expect("look").made, 0, "looking changed something");

    let store = schema.must_open().await;
    store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("create");
    schema.execute("ANALYZE baton.accounts, baton.sessions").await;
    let found = inspect(schema.options()).await;
    assert_eq!(found.failures, [""; 0]);
    assert_eq!(fact(&found, "where"), &format!("127.0.0.1:{}", schema.server.port));
    assert_eq!(fact(&found, "schema"), &*schema.name);
    assert_eq!((fact(&found, "pooler"), fact(&found, "role")), (&"none".into(), &"baton".into()));
    assert_eq!(fact(&found, "encryption"), "none (sslmode=disable)");
    assert_eq!(fact(&found, "reads and writes"), "work");
    assert_eq!(fact(&found, "sessions")["estimate"], 1);
    assert_eq!(fact(&found, "fsync"), "off");
    assert!(found.warnings.iter().any(|warning| warning.contains("fsync")), "{found:?}");
    assert!(fact(&found, "round trip ms").as_f64().is_some_and(|took| took > 0.0), "{found:?}");

    // A clock that is wrong, be it which it may.
    let wrong = ManualClock::new(SystemClock::new().now().plus(Duration::from_secs(3_600)));
    let found = PostgresStore::inspect(schema.options(), &wrong).await;
    let behind = fact(&found, "clock ahead ms").as_i64().expect("a number");
    assert!((-3_600_000..-3_500_000).contains(&behind), "{behind}");
    assert!(found.warnings.iter().any(|warning| warning.contains("the clocks disagree")), "{found:?}");
    schema.execute("UPDATE baton.clock SET ahead = 5000").await;
    let found = inspect(schema.options()).await;
    assert!(found.warnings.iter().any(|warning| warning.contains("5000 ms ahead")), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_server_from_working_is_said() {
    let schema = Schema::fresh();
    schema.must_open().await.close().await;
    let failure = async |options| {
        let found = inspect(options).await;
        assert!(!found.is_usable() && found.failures.len() == 1, "{found:?}");
        found.failures.into_iter().next().expect("one")
    };
    let url = format!("postgres://baton:hush@127.0.0.1:{}/nowhere?sslmode=disable", schema.server.port);
    let said = failure(PostgresOptions::from_url(&url).expect("a good URL")).await;
    assert!(said.contains("3D000") && !said.contains("hush"), "{said}");

    schema.execute("INSERT INTO baton.baton_schema (version) VALUES (99)").await;
    assert!(failure(schema.options()).await.contains("use a newer one"));
    schema.execute("DELETE FROM baton.baton_schema WHERE version = 99; DROP FUNCTION baton.touch").await;
    assert!(failure(schema.options()).await.contains("touch"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_is_seen() {
    let schema = Schema::fresh();
    schema.must_open().await.close().await;
    let pooler = PgBouncer::before(schema.server.port);
    let found = inspect(schema.options_through(pooler.port)).await;
    assert_eq!(found.failures, [""; 0]);
    assert_eq!(fact(&found, "pooler"), "yes, by the transaction");
    assert!(found.warnings.iter().any(|warning| warning.contains("statement_timeout")), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrating_says_how_far_it_was() {
    let schema = Schema::fresh();
    let known = PostgresStore::migrations(schema.options()).await.expect("look").known;
    let starting: Vec<_> = (0..6).map(|_| tokio::spawn(PostgresStore::migrate(schema.options()))).collect();
    for migrating in starting {
        let before = migrating.await.expect("no panic").expect("migrate");
        assert!(before.made == 0 || before.made == known, "{before:?}");
    }
    let now = Migrations { made: known, known };
    assert_eq!(PostgresStore::migrate(schema.options()).await.expect("migrate"), now);
    assert_eq!(PostgresStore::migrations(schema.options()).await.expect("look"), now);
}

/// The grants of docs/stores.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_change_the_schema_is_enough_for_a_server() {
    let schema = Schema::on(Arc::new(Server::own(&["-c", "fsync=off"])));
    schema.execute("CREATE ROLE server LOGIN").await;
    let url =
        format!("postgres://server@127.0.0.1:{}/postgres?sslmode=disable&schema={}", schema.server.port, schema.name);
    let mut options = PostgresOptions::from_url(&url).expect("a good URL");
    // By default it tries, and may not.
    let error = PostgresStore::open(options.clone()).await.expect_err("it may not");
    assert!(error.to_string().contains("42501"), "{error}");
    options.migrate = false;
    match PostgresStore::open(options.clone()).await {
        Err(error @ StoreError::Unusable { .. }) => {
            assert!(error.to_string().contains("run `baton migrate`"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    PostgresStore::migrate(schema.options()).await.expect("migrate");
    let name = &schema.name;
    schema.execute(&format!("GRANT USAGE ON SCHEMA \"{name}\" TO server")).await;
    schema.execute("GRANT SELECT ON baton.baton_schema TO server").await;
    let found = inspect(options.clone()).await;
    assert!(found.failures.len() == 1 && found.failures[0].contains("accounts"), "{found:?}");

    let rights = "SELECT, INSERT, UPDATE, DELETE";
    schema.execute(&format!("GRANT {rights} ON ALL TABLES IN SCHEMA \"{name}\" TO server")).await;
    let found = inspect(options.clone()).await;
    assert_eq!(found.failures, [""; 0]);
    // The default will do as well, now that there is nothing to do.
    for migrate in [false, true] {
        options.migrate = migrate;
        let store = PostgresStore::open(options.clone()).await.expect("open");
        everything_works(&store, migrate).await;
    }
}

async fn everything_works(store: &PostgresStore, again: bool) {
    let (uid, number) = if again { ("bob", 2) } else { ("ada", 1) };
    let trace = crate::fixture::mails([uid]);
    let made = store.create_account(new_account(uid), Some(new_session(number)), &trace).await.expect("create");
    let session = made.1.expect("a session was asked for");
    let swapped = store.swap(client(number), &rotation(&session), None).await.expect("swap");
    assert!(matches!(swapped, Swapped::Done(_)), "{swapped:?}");
    assert_eq!(store.bind_keys(&["k".to_owned()]).await.expect("bind"), baton_core::ports::KeyBinding::Bound);
    assert_eq!(store.claim(10, Duration::from_secs(60)).await.expect("claim").len(), 1);
    store.purge(10).await.expect("purge");
    store.purge_events(Duration::ZERO, 10).await.expect("purge");
    assert!(store.end_session(made.0.id, client(number), &Trace::NONE).await.expect("end"));
    store.check().await.expect("check");
}
