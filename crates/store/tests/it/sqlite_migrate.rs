//! Files of older versions.

use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use baton_core::clock::Timestamp;
use baton_core::error::StoreError;
use baton_core::event::{Event, EventKind, Trace};
use baton_core::one_time::{OneTimeId, Purpose};
use baton_core::ports::{KeyBinding, Login, NewOneTime, SessionEntry, Store};
use baton_core::session::{Account, AccountId, AccountUpdate, Device, PasswordHash, Permit, Profile, Session, Swapped};
use baton_core::token::Generation;
use baton_store::clock::ManualClock;
use baton_store::migrations::Migrations;
use baton_store::sqlite::{SqliteOptions, SqliteStore};
use rusqlite::Connection;

use crate::fixture::{
    DAY, START, client, file, mails, must_open, new_account, new_session, open, rotation, with_suffix,
};

/// As the first version made it, with data. Not taken from the sources: those of a released version never change.
const SCHEMA_1: &str = r#"
    CREATE TABLE meta (
        name  TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO meta (name, value) VALUES ('time', 1750000000500);
    CREATE TABLE known_keys (
        fingerprint TEXT PRIMARY KEY
    ) STRICT, WITHOUT ROWID;
    INSERT INTO known_keys VALUES ('first'), ('second');
    CREATE TABLE accounts (
        id                    INTEGER PRIMARY KEY AUTOINCREMENT,
        realm                 TEXT NOT NULL,
        provider              TEXT NOT NULL,
        uid                   TEXT NOT NULL,
        email                 TEXT NOT NULL,
        profile               TEXT NOT NULL,
        password              TEXT NOT NULL,
        allow_password_change INTEGER NOT NULL DEFAULT 0 CHECK (allow_password_change IN (0, 1)),
        created_at            INTEGER NOT NULL,
        updated_at            INTEGER NOT NULL,
        UNIQUE (realm, provider, uid)
    ) STRICT;
    INSERT INTO accounts VALUES
        (3, 'user', 'email', 'ada', 'ada@example.test', '{"name":"Ada"}', '$argon2id$ada', 1, 1749999999000, 1749999999500),
        (5, 'admin', 'email', 'bob', 'bob@example.test', '{}', '$2a$bob', 0, 1749999999100, 1749999999100),
        (9, 'user', 'email', 'gone', '', '{}', '', 0, 0, 0);
    DELETE FROM accounts WHERE id = 9;
    CREATE TABLE sessions (
        client        BLOB PRIMARY KEY CHECK (length(client) = 16),
        account       INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
        generation    INTEGER NOT NULL,
        handed_out_at INTEGER,
        confirmed     INTEGER NOT NULL,
        created_at    INTEGER NOT NULL,
        expires_at    INTEGER NOT NULL,
        last_seen_at  INTEGER NOT NULL,
        user_agent    TEXT,
        ip            TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX sessions_by_account ON sessions (account);
    CREATE INDEX sessions_by_expiry ON sessions (expires_at);
    INSERT INTO sessions VALUES
        (x'01010101010101010101010101010101', 3, 7, 1749999999700, 6, 1749999999200, 1751000000000, 1749999999700,
         'Lynx', '192.0.2.1'),
        (x'02020202020202020202020202020202', 3, 1, NULL, 0, 1749999999300, 1751000000001, 1749999999300, NULL, NULL),
        (x'03030303030303030303030303030303', 5, 4294967295, NULL, 0, 1749999999400, 1751000000002, 1749999999400,
         NULL, '::1');
    PRAGMA application_id = 1111577678;
    PRAGMA user_version = 1;
"#;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A connection to a new file of the first version, as its server had it open.
fn first_version(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("open");
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).expect("set");
    assert_eq!(mode, "wal");
    connection.execute_batch(SCHEMA_1).expect("set up");
    connection
}

fn ada() -> Account {
    Account {
        id: AccountId(3),
        realm: "user".to_owned(),
        provider: "email".to_owned(),
        uid: "ada".to_owned(),
        email: "ada@example.test".to_owned(),
        profile: Profile::from_stored(r#"{"name":"Ada"}"#.to_owned()),
        // Leave that was given to a whole account is taken back: nobody knows for which session it was.
        permit: None,
        created_at: at(1_749_999_999_000),
        updated_at: at(1_749_999_999_500),
    }
}

fn their_sessions() -> Vec<SessionEntry> {
    let used = Session {
        client: client(1),
        account: AccountId(3),
        generation: Generation::new(7),
        handed_out_at: Some(at(1_749_999_999_700)),
        confirmed: Generation::new(6),
        created_at: at(1_749_999_999_200),
        expires_at: at(1_751_000_000_000),
        last_seen_at: at(1_749_999_999_700),
    };
    let unused = Session {
        client: client(2),
        generation: Generation::FIRST,
        handed_out_at: None,
        confirmed: Generation::ZERO,
        created_at: at(1_749_999_999_300),
        expires_at: at(1_751_000_000_001),
        last_seen_at: at(1_749_999_999_300),
        ..used
    };
    let device = Device { user_agent: Some("Lynx".to_owned()), ip: Some([192, 0, 2, 1].into()) };
    vec![SessionEntry { session: used, device }, SessionEntry { session: unused, device: Device::default() }]
}

async fn assert_all_is_there(store: &SqliteStore) {
    let login = store.find_login("user", "email", "ada").await.expect("find").expect("it exists");
    let password = PasswordHash::new("$argon2id$ada".to_owned());
    assert_eq!(login, Login { account: ada(), password, confirmed_at: None, unconfirmed_email: None });
    let login = store.find_login("admin", "email", "bob").await.expect("find").expect("it exists");
    assert_eq!((login.account.id, login.password.expose()), (AccountId(5), "$2a$bob"));
    assert_eq!(store.sessions(AccountId(3)).await.expect("list").1, their_sessions());
    for entry in their_sessions() {
        let found = store.find(entry.session.client).await.expect("find").expect("it exists");
        assert_eq!((found.session, &*found.account), (entry.session, &ada()));
    }
    let found = store.find(client(3)).await.expect("find").expect("it exists");
    assert_eq!((found.session.generation.get(), found.account.id), (u32::MAX, AccountId(5)));
    assert_eq!(store.bind_keys(&["other".to_owned()]).await.expect("bind"), KeyBinding::Foreign);
    assert_eq!(store.bind_keys(&["second".to_owned()]).await.expect("bind"), KeyBinding::Bound);
    assert_eq!(store.high_water_mark(), at(1_750_000_000_500), "time goes on from where it was");
}

#[tokio::test]
async fn a_file_of_the_first_version_keeps_everything() {
    for crashed in [false, true] {
        let (folder, path) = file();
        let connection = first_version(&path);
        let path = if crashed {
            // Everything is still in the log.
            let copy = folder.path().join("copy.db");
            for suffix in ["", "-wal"] {
                std::fs::copy(with_suffix(&path, suffix), with_suffix(&copy, suffix)).expect("copy");
            }
            copy
        } else {
            path
        };
        drop(connection);
        for _ in 0..2 {
            let store = must_open(&path, Arc::new(ManualClock::new(START)));
            assert_all_is_there(&store).await;
            store.close().await.expect("close");
        }
        let connection = Connection::open(&path).expect("open");
        let number = |sql| connection.query_row::<i64, _, _>(sql, [], |row| row.get(0)).expect(sql);
        assert_eq!(number("PRAGMA user_version"), 4);
        assert_eq!(number("SELECT count(*) FROM sessions WHERE purge_at <> expires_at"), 0);
        assert_eq!(
            number("SELECT count(*) FROM pragma_table_info('accounts') WHERE name = 'allow_password_change'"),
            0
        );
        let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("check");
        assert_eq!(sound, "ok");
        assert_eq!(number("SELECT count(*) FROM pragma_foreign_key_check"), 0);
    }
}

#[tokio::test]
async fn a_file_of_the_first_version_can_all_that_a_new_one_can() {
    let (_folder, path) = file();
    drop(first_version(&path));
    let store = must_open(&path, Arc::new(ManualClock::new(START)));
    let session = their_sessions().remove(0).session;
    let swapped = store.swap(client(1), &rotation(&session), None).await.expect("swap");
    assert!(matches!(swapped, Swapped::Done(_)), "{swapped:?}");

    let permit = Some(Permit { client: client(1), until: START.plus(DAY) });
    let update = AccountUpdate {
        permit,
        confirm: true,
        unconfirmed_email: Some(Some("new@example.test".to_owned())),
        ..AccountUpdate::default()
    };
    let event = Event {
        kind: EventKind::Confirmed,
        realm: "user".to_owned(),
        account: None,
        uid: None,
        client: None,
        device: Device::default(),
    };
    let trace = Trace { events: vec![event], webhooks: vec!["https://hook.test".to_owned()], ..mails(["ada"]) };
    let id = OneTimeId::from_bytes([1; 16]);
    let new = NewOneTime { id, account: AccountId(3), purpose: Purpose::Confirm, email: String::new(), lifetime: DAY };
    assert!(store.create_one_time(new.clone()).await.expect("keep"));
    let (account, _) = store.redeem(id, update, Some(new_session(4)), &trace).await.expect("redeem");
    assert_eq!(account.permit, permit);
    assert_eq!(*store.find(client(1)).await.expect("find").expect("it exists").account, account);
    assert_eq!(store.events(0, 10).await.expect("list")[0].event.account, Some(AccountId(3)));
    assert_eq!(store.claim(10, DAY).await.expect("claim").len(), 2);

    // The number of an account that the first version deleted is not given to another one.
    let (made, _) = store.create_account(new_account("gone"), None, &Trace::NONE).await.expect("make");
    assert!(made.id > AccountId(9), "{:?}", made.id);
    assert!(store.create_one_time(new).await.expect("keep"));
    assert!(store.delete_account(AccountId(3), &Trace::NONE).await.expect("delete"));
    assert_eq!(store.find_one_time(id).await.expect("find"), None);
    assert_eq!(store.find(client(1)).await.expect("find"), None);
}

#[tokio::test]
async fn several_can_bring_it_up_to_date_at_once() {
    for _ in 0..5 {
        let (_folder, path) = file();
        // A server of the first version that has not been stopped.
        let _old = first_version(&path);
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
        for thread in threads {
            assert_all_is_there(&thread.join().expect("no panic").expect("open")).await;
        }
    }
}

#[test]
fn a_migration_is_made_as_a_whole_or_not_at_all() {
    let (_folder, path) = file();
    let connection = first_version(&path);
    // Its last statements meet a table that is in the way.
    connection.execute_batch("CREATE TABLE outbox (x)").expect("set up");
    let accounts = || -> String {
        let sql = "SELECT sql || (SELECT sum(allow_password_change) FROM accounts) FROM sqlite_schema WHERE name = 'accounts'";
        connection.query_row(sql, [], |row| row.get(0)).expect("read")
    };
    let before = accounts();
    match open(&path, Arc::new(ManualClock::new(START))) {
        Ok(_) => panic!("it was opened"),
        Err(error) => assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}"),
    }
    assert_eq!(accounts(), before);
    assert_eq!(connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).expect("read"), 1);
    connection.execute_batch("DROP TABLE outbox").expect("clear");
    must_open(&path, Arc::new(ManualClock::new(START)));
}

/// What a process of the second version, which is still running, writes to a file of the third.
#[tokio::test]
async fn a_session_that_the_second_version_adds_is_put_off_and_then_purged() {
    let (_folder, path) = file();
    drop(first_version(&path));
    let clock = Arc::new(ManualClock::new(START));
    let store = must_open(&path, clock.clone());
    let second_version = Connection::open(&path).expect("open");
    second_version
        .execute_batch(
            "INSERT INTO sessions (client, account, generation, handed_out_at, confirmed, created_at, expires_at,
                                   last_seen_at, user_agent, ip)
             VALUES (x'04040404040404040404040404040404', 3, 1, NULL, 0, 1750000000000, 1750000100000, 1750000000000, NULL, NULL)",
        )
        .expect("insert");
    assert_eq!(store.purge(10).await.expect("purge"), 0);
    assert!(store.find(client(4)).await.expect("find").is_some());
    clock.advance(Duration::from_secs(100));
    assert_eq!(store.purge(10).await.expect("purge"), 1);
    assert!(store.find(client(4)).await.expect("find").is_none());
}

#[test]
fn migrating_says_how_far_it_was_and_looking_changes_nothing() {
    let (_folder, path) = file();
    let options = SqliteOptions::default();
    let known = SqliteStore::migrations(&path, &options).expect("look").known;
    let told = |made| Migrations { made, known };
    assert_eq!(SqliteStore::migrations(&path, &options).expect("look"), told(0));
    assert!(!path.exists(), "it was made");
    drop(first_version(&path));
    for _ in 0..2 {
        assert_eq!(SqliteStore::migrations(&path, &options).expect("look"), told(1));
    }
    assert_eq!(SqliteStore::migrate(&path, &options).expect("migrate"), told(1));
    assert_eq!(SqliteStore::migrate(&path, &options).expect("migrate"), told(known));
    assert_eq!(SqliteStore::migrations(&path, &options).expect("look"), told(known));
}

#[test]
fn a_store_that_may_not_migrate_refuses_what_is_not_up_to_date() {
    let (_folder, path) = file();
    let options = SqliteOptions { migrate: false, ..SqliteOptions::default() };
    let open = || SqliteStore::open(&path, options.clone(), Arc::new(ManualClock::new(START)));
    let refusal = || match open() {
        Err(error @ StoreError::Unusable { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refusal().contains("has schema version 0") && refusal().contains("run `baton migrate`"), "{}", refusal());
    assert!(!path.exists(), "it was made");
    drop(first_version(&path));
    assert!(refusal().contains("has schema version 1"), "{}", refusal());
    SqliteStore::migrate(&path, &options).expect("migrate");
    open().expect("it is up to date");
}
