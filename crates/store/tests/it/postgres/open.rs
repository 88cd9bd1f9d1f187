//! Opening: schemas, TLS, and what is refused.

use std::path::Path;
use std::time::Duration;

use baton_core::Store;
use baton_core::error::StoreError;
use baton_core::event::Trace;
use baton_store::postgres::{PostgresOptions, PostgresStore};
use baton_testkit::postgres::{Server, give};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Schema;
use crate::fixture::{client, new_account, new_session};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_once_make_one_schema() {
    let schema = Schema::fresh();
    let mut starting = JoinSet::new();
    for _ in 0..6 {
        starting.spawn(PostgresStore::open(schema.options()));
    }
    let stores: Vec<_> = starting.join_all().await.into_iter().map(|store| store.expect("open")).collect();
    stores[0].create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("create");
    for store in &stores {
        assert!(store.find(client(1)).await.expect("find").is_some());
    }
    let row = schema.server.client().await;
    let versions = row.query_one(&schema.text("SELECT count(*) FROM baton.baton_schema"), &[]).await.expect("count");
    assert_eq!(versions.get::<_, i64>(0), 1);
}

async fn refusal(schema: &Schema) -> String {
    match schema.open().await {
        Err(error @ StoreError::Unusable { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_refused_and_left_alone() {
    let schema = Schema::fresh();
    schema.must_open().await.close().await;
    schema.execute("INSERT INTO baton.baton_schema (version) VALUES (99)").await;
    let error = refusal(&schema).await;
    assert!(error.contains("has version 99, and this version of baton knows up to 1"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schema_of_another_application_is_refused_and_left_alone() {
    let schema = Schema::fresh();
    schema.execute("CREATE SCHEMA IF NOT EXISTS \"public\"").await;
    let own = format!("CREATE SCHEMA \"{}\"", schema.name);
    schema.execute(&own).await;
    // An empty one will do: somebody has made it for us.
    schema.execute("CREATE TABLE baton.theirs ()").await;
    let error = refusal(&schema).await;
    assert!(error.contains("is used by another application"), "{error}");
    schema.execute("DROP TABLE baton.theirs").await;
    schema.must_open().await.check().await.expect("it works");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reserved_word_will_do_as_the_name_of_a_schema() {
    let mut schema = Schema::on(std::sync::Arc::new(Server::own(&["-c", "fsync=off"])));
    for name in ["user", "baton", "select"] {
        schema.name = name.to_owned();
        let store = schema.must_open().await;
        store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("create");
        assert!(store.find(client(1)).await.expect("find").is_some());
    }
    schema.name = "no\"t".to_owned();
    let url = format!("postgres://baton@127.0.0.1:{}/postgres?schema=a%22b", schema.server.port);
    PostgresOptions::from_url(&url).expect_err("it goes into statements as it is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_in_another_encoding_is_refused() {
    let schema = Schema::fresh();
    let name = &schema.name;
    schema.execute(&format!("CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0")).await;
    let url = format!("postgres://baton@127.0.0.1:{}/{name}?sslmode=disable", schema.server.port);
    let error = PostgresStore::open(PostgresOptions::from_url(&url).expect("a good URL")).await.expect_err("refused");
    assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
    assert!(error.to_string().contains("SQL_ASCII"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_answers_nothing_and_a_dropped_one_lets_go() {
    let schema = Schema::fresh();
    let store = schema.must_open().await;
    store.check().await.expect("it works");
    store.close().await;
    store.close().await;
    let error = store.check().await.expect_err("closed");
    assert!(error.to_string().contains("the store was closed"), "{error}");
    drop(store);
    schema.must_open().await.check().await.expect("it works");

    // In either way nobody is left on the server.
    let probe = schema.server.client().await;
    probe.batch_execute(&format!("CREATE ROLE {} LOGIN SUPERUSER", schema.name)).await.expect("a role");
    let url =
        format!("postgres://{0}@127.0.0.1:{1}/postgres?sslmode=disable&schema={0}", schema.name, schema.server.port);
    let open = || PostgresStore::open(PostgresOptions::from_url(&url).expect("a good URL"));
    let (closed, dropped) = (open().await.expect("open"), open().await.expect("open"));
    for store in [&closed, &dropped] {
        store.check().await.expect("it works");
    }
    closed.close().await;
    drop(dropped);
    let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
    let deadline = Instant::now() + Duration::from_secs(20);
    while probe.query_one(left, &[&schema.name]).await.expect("count").get::<_, i64>(0) > 0 {
        assert!(Instant::now() < deadline, "connections are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_is_told_why_and_not_the_password() {
    let schema = Schema::fresh();
    let url = format!("postgres://nobody:hush@127.0.0.1:{}/postgres?sslmode=disable", schema.server.port);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("an address").port();
    let nowhere = format!("postgres://nobody:hush@127.0.0.1:{closed}/postgres");
    for (url, expected) in [(url, "role \"nobody\" does not exist"), (nowhere, "connect")] {
        let error =
            PostgresStore::open(PostgresOptions::from_url(&url).expect("a good URL")).await.expect_err("nobody");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        let told = format!("{error} {error:?}");
        assert!(told.contains(expected) && !told.contains("hush"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_protected_as_the_url_says() {
    let server = std::sync::Arc::new(Server::own(&["-c", "fsync=off"]));
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let (certificate, key) = (server.folder().join("server.crt"), server.folder().join("server.key"));
    std::fs::write(&certificate, made.cert.pem()).expect("write");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("write");
    give(&key);
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");

    let open = async |mode: &str, roots: Option<&Path>| {
        let roots = roots.map(|path| format!("&sslrootcert={}", path.display())).unwrap_or_default();
        let url = format!("postgres://baton@127.0.0.1:{}/postgres?sslmode={mode}{roots}", server.port);
        let store = PostgresStore::open(PostgresOptions::from_url(&url).expect("a good URL")).await?;
        store.check().await?;
        let probe = server.client().await;
        let sql =
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'baton'";
        let encrypted: bool = probe.query_one(sql, &[]).await.expect("ask").get(0);
        store.close().await;
        // Gone, before the next one counts.
        while probe.query_one(sql, &[]).await.expect("ask").get::<_, Option<bool>>(0).is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok::<bool, StoreError>(encrypted)
    };
    assert!(!open("disable", None).await.expect("open"));
    assert!(!open("prefer", None).await.expect("open"), "the server cannot");
    for mode in ["require", "verify-full"] {
        let error = open(mode, Some(&certificate)).await.expect_err("the server cannot, and it was asked for");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }

    server.kill();
    let folder = server.folder().display();
    let (certificate_file, key_file) =
        (format!("ssl_cert_file={folder}/server.crt"), format!("ssl_key_file={folder}/server.key"));
    server.restart(&["-c", "fsync=off", "-c", "ssl=on", "-c", &certificate_file, "-c", &key_file]);
    assert!(!open("disable", None).await.expect("open"));
    assert!(open("prefer", None).await.expect("open"));
    assert!(open("require", None).await.expect("open"));
    assert!(open("verify-full", Some(&certificate)).await.expect("open"));
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let stranger = server.folder().join("other.crt");
    std::fs::write(&stranger, other.cert.pem()).expect("write");
    for roots in [None, Some(stranger.as_path())] {
        let error = open("verify-full", roots).await.expect_err("nobody vouches for it");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}
