//! `baton migrate` and `baton store check`, and a server that may not migrate.

use std::path::Path;
use std::process::Stdio;

use baton_testkit::postgres::{Server, shared, unique_name};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::{Baton, Ended, command, run};

const DOCUMENTED: &str = include_str!("../../../../docs/stores.md");

/// `baton ARGS --set store.url=URL`, with nothing else: no keys, no mail.
fn with_store(url: &str, args: &[&str]) -> Ended {
    let url = format!("store.url={url}");
    run(&[args, &["--set", &url]].concat())
}

/// What every store does alike.
fn migrates_when_told_to(url: &str) {
    let check = with_store(url, &["migrate", "--check"]);
    assert_eq!(check.code(), Some(1), "{check:?}");
    assert!(check.stdout.starts_with("the schema is not up to date: from none to version "), "{check:?}");
    let unusable = with_store(url, &["store", "check"]);
    assert_eq!(unusable.code(), Some(1), "{unusable:?}");
    assert!(unusable.stdout.contains("run `baton migrate`"), "{unusable:?}");
    assert!(unusable.stdout.ends_with("not usable\n"), "{unusable:?}");

    let refused = serve(url);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("the database cannot be used: "), "{refused:?}");
    assert!(refused.stderr.contains("has schema version 0"), "{refused:?}");
    assert!(refused.stderr.contains("run `baton migrate`"), "{refused:?}");
    let check = with_store(url, &["migrate", "--check"]);
    assert_eq!(check.code(), Some(1), "it was looked at and not changed: {check:?}");

    let made = with_store(url, &["migrate"]);
    assert_eq!((made.code(), &*made.stderr), (Some(0), ""), "{made:?}");
    assert!(made.stdout.starts_with("the schema is brought up to date: from none to version "), "{made:?}");
    for args in [&["migrate"][..], &["migrate", "--check"]] {
        let nothing = with_store(url, args);
        assert_eq!((nothing.code(), &*nothing.stderr), (Some(0), ""), "{nothing:?}");
        assert!(nothing.stdout.starts_with("nothing to do: the schema is at version "), "{nothing:?}");
    }

    let text = with_store(url, &["store", "check"]);
    assert_eq!((text.code(), &*text.stderr), (Some(0), ""), "{text:?}");
    assert!(text.stdout.starts_with("store\n  kind ") && text.stdout.ends_with("\nok\n"), "{text:?}");
    assert!(text.stdout.contains("  reads and writes           work\n"), "{text:?}");
}

/// `baton serve`, which may not migrate, to its end.
fn serve(url: &str) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    match serve_in(folder.path(), url) {
        Err(ended) => ended,
        Ok(baton) => panic!("it starts: {}", baton.log()),
    }
}

fn serve_in(folder: &Path, url: &str) -> Result<Baton, Ended> {
    let key = folder.join("secret.key");
    baton_server::keys::ensure(&key).unwrap();
    let keys = format!("keys.file={}", key.display());
    let url = format!("store.url={url}");
    let settings = [&*url, &*keys, "store.migrate=false", "server.listen=127.0.0.1:0"];
    let args: Vec<&str> = ["serve"].into_iter().chain(settings.into_iter().flat_map(|set| ["--set", set])).collect();
    Baton::of_command(command(&args), folder)
}

fn json(url: &str) -> Value {
    let ended = with_store(url, &["store", "check", "--json"]);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

#[test]
fn an_sqlite_file_is_migrated_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("baton.db");
    let url = format!("sqlite:{}", path.display());
    assert_eq!(with_store(&url, &["migrate", "--check"]).code(), Some(1));
    assert!(!path.exists(), "to look is not to make");
    migrates_when_told_to(&url);
    let found = json(&url);
    assert_eq!(found["ok"], true, "{found}");
    let store = &found["store"];
    assert_eq!((&store["kind"], &store["journal_mode"]), (&"sqlite".into(), &"wal".into()), "{found}");
    assert_eq!((&store["where"], &store["permissions"]), (&path.display().to_string().into(), &"0600".into()));
    assert_eq!((&store["sessions"]["counted"], &store["warnings"]), (&0.into(), &Value::Array(vec![])), "{found}");

    let server = serve_in(folder.path(), &url).unwrap();
    server.register("ann@example.com");
    // Beside a server that runs, too.
    assert_eq!(json(&url)["store"]["sessions"]["counted"], 1);
    server.stop();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert!(json(&url)["store"]["warnings"].to_string().contains("chmod 600"));
    std::fs::write(&path, "not a database at all, but a text that is long enough to be looked at").unwrap();
    let broken = json(&url);
    assert_eq!(broken["ok"], false);
    assert!(broken["store"]["errors"].to_string().contains("is not an SQLite database"), "{broken}");
    for args in [&["migrate"][..], &["migrate", "--check"]] {
        let ended = with_store(&url, args);
        assert_eq!((ended.code(), &*ended.stdout), (Some(1), ""), "{ended:?}");
        assert!(ended.stderr.contains("is not an SQLite database"), "{ended:?}");
    }
}

#[test]
fn a_schema_in_postgres_is_migrated_when_told_to() {
    let (server, schema) = (shared(), unique_name());
    let url = server.url(&schema);
    migrates_when_told_to(&url);
    let found = json(&url);
    assert_eq!(found["ok"], true, "{found}");
    let store = &found["store"];
    assert_eq!((&store["kind"], &store["schema"]), (&"postgres".into(), &schema.into()), "{found}");
    assert_eq!(store["where"], format!("127.0.0.1:{}", server.port), "{found}");
    assert!(store["round_trip_ms"].is_number() && store["clock_ahead_ms"].is_number(), "{found}");
    let folder = tempfile::tempdir().unwrap();
    serve_in(folder.path(), &url).unwrap().register("ann@example.com");
}

#[test]
fn several_that_migrate_at_once_make_the_schema_once() {
    let url = format!("store.url={}", shared().url(&unique_name()));
    let mut migrate = command(&["migrate", "--set", &url]);
    migrate.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started: Vec<_> = (0..6).map(|_| migrate.spawn().unwrap()).collect();
    let outputs: Vec<_> = started.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    assert!(with_store(url.trim_start_matches("store.url="), &["migrate", "--check"]).stdout.starts_with("nothing"));
}

/// A role of its own for what changes the schema, with the commands of docs/stores.md.
#[test]
fn a_server_whose_role_may_not_change_the_schema_runs_beside_one_that_may() {
    let server = Server::own(&["-c", "fsync=off"]);
    let statements = DOCUMENTED.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    Runtime::new().unwrap().block_on(async { server.client().await.batch_execute(statements).await.unwrap() });
    let of = |role: &str| format!("postgres://{role}@127.0.0.1:{}/postgres?sslmode=disable", server.port);
    let refused = with_store(&of("baton_server"), &["migrate"]);
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("42501"), "{refused:?}");
    assert_eq!(with_store(&of("baton_owner"), &["migrate"]).code(), Some(0));
    let checked = with_store(&of("baton_server"), &["store", "check"]);
    assert_eq!(checked.code(), Some(0), "{checked:?}");
    let folder = tempfile::tempdir().unwrap();
    let baton = serve_in(folder.path(), &of("baton_server")).unwrap();
    let held = baton.register("ann@example.com");
    assert_eq!(baton.get("/auth/validate_token").held(&held).send().status, 200);
    assert_eq!(baton.request("DELETE", "/auth").held(&held).send().status, 200);
}

#[test]
fn what_is_wrong_is_told_without_the_password() {
    // Nobody listens there.
    let mut check = command(&["store", "check"]);
    check.env("BATON_STORE__URL", "postgres://ann:hush-hush@127.0.0.1:9/app?sslmode=disable");
    let output = check.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("  error: postgres: connect: ") && text.contains("127.0.0.1:9"), "{text}");
    assert!(!text.contains("hush"), "{text}");

    // Secrets of other parts are not looked for, a name that does not exist is refused all the same.
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/baton.db", folder.path().display());
    let mail = ["--set", "mail.url=smtp://mail.example.com", "--set", "mail.username=baton"];
    assert_eq!(with_store(&url, &[&["migrate"][..], &mail].concat()).code(), Some(0));
    assert_eq!(with_store(&url, &["migrate", "--set", "store.urll=x"]).code(), Some(2));
}
