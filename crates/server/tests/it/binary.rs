//! Starting and stopping.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::cli::write_private;
use crate::support::{Backend, Baton, Ended, PASSWORD, Site, command, eventually};

fn key_file(folder: &Path) -> std::path::PathBuf {
    folder.join("secret.key")
}

fn refuses(folder: &Path, args: &[&str]) -> Ended {
    let ended = match Baton::dev_in(folder, args) {
        Ok(baton) => panic!("it starts: {}", baton.log()),
        Err(ended) => ended,
    };
    assert_eq!(ended.stdout, "", "{ended:?}");
    ended
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn the_first_line_says_where_it_listens_and_is_the_only_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(&["dev", "--listen", "127.0.0.1:0", "--data-dir", folder.path().to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let address = line.strip_prefix("listening on http://127.0.0.1:").and_then(|rest| rest.strip_suffix('\n'));
    let port: u16 = address.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
    assert_ne!(port, 0);
    // It accepts connections by the time the line is there.
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn it_needs_nothing_and_makes_a_private_folder_with_a_private_key() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a/b");
    let baton = Baton::dev_in(&folder, &[]).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&key_file(&folder)), 0o600);
    assert_eq!(mode(&folder.join("baton.db")), 0o600);
    let key = std::fs::read(key_file(&folder)).unwrap();
    let mut held = baton.register("ann@example.com");
    baton.stop();

    let baton = Baton::dev_in(&folder, &[]).unwrap();
    assert_eq!(std::fs::read(key_file(&folder)).unwrap(), key);
    let answer = baton.members_only(&held);
    assert_eq!((answer.status, &answer.json()["data"]["uid"]), (200, &"ann@example.com".into()));
    assert!(held.adopt(&answer));
}

#[test]
fn a_new_key_in_front_signs_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let baton = Baton::dev_in(folder.path(), &[]).unwrap();
    let mut held = baton.register("ann@example.com");
    baton.stop();
    assert!(
        crate::support::run(&["keys", "new", "--file", key_file(folder.path()).to_str().unwrap()]).status.success()
    );
    let baton = Baton::dev_in(folder.path(), &[]).unwrap();
    assert!(held.adopt(&baton.members_only(&held)));
    // Signed with the new one from here on.
    baton.stop();
    let keys = std::fs::read_to_string(key_file(folder.path())).unwrap();
    let newest = keys.lines().find(|line| line.starts_with("1 ")).unwrap();
    write_private(&key_file(folder.path()), newest);
    let baton = Baton::dev_in(folder.path(), &[]).unwrap();
    assert_eq!(baton.members_only(&held).status, 200);
}

#[test]
fn keys_of_another_database_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let baton = Baton::dev_in(folder.path(), &[]).unwrap();
    let held = baton.register("ann@example.com");
    baton.stop();
    let file = key_file(folder.path());
    let right = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(crate::support::run(&["keys", "new", "--file", file.to_str().unwrap()]).status.success());
    let ended = refuses(folder.path(), &[]);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains("the keys do not belong to the database"), "{ended:?}");
    assert!(ended.stderr.contains("everybody would be signed out"), "{ended:?}");
    // Nothing was lost by the attempt.
    let wrong = std::fs::read_to_string(&file).unwrap();
    write_private(&file, &right);
    let baton = Baton::dev_in(folder.path(), &[]).unwrap();
    assert_eq!(baton.members_only(&held).status, 200);
    baton.stop();

    // With the right ones lost, there is a way on.
    write_private(&file, &wrong);
    let database = rusqlite::Connection::open(folder.path().join("baton.db")).unwrap();
    assert!(ended.stderr.contains("'DELETE FROM known_keys'"), "{ended:?}");
    database.execute_batch("DELETE FROM known_keys").unwrap();
    drop(database);
    let baton = Baton::dev_in(folder.path(), &[]).unwrap();
    assert_eq!(baton.members_only(&held).code(), "token_invalid");
    let held = baton.sign_in("ann@example.com");
    assert_eq!(baton.members_only(&held).status, 200);
}

#[test]
fn a_key_file_that_cannot_be_used_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = key_file(folder.path());
    for (text, expected) in [
        ("", "no key given"),
        ("# only a comment\n", "no key given"),
        ("0 tooshort\n", "line 1: expected a key id"),
        ("0 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n", "is not random"),
        ("99 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE\n", "is not a number from 0 to 15"),
    ] {
        write_private(&file, text);
        let ended = refuses(folder.path(), &[]);
        assert_eq!(ended.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains(expected) && ended.stderr.contains("secret.key"), "{text:?}: {ended:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
    std::fs::write(&file, [0xff, 0x00, 0xfe]).unwrap();
    assert!(refuses(folder.path(), &[]).stderr.contains("it is not text"));
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(refuses(folder.path(), &[]).stderr.contains("is not a file"));
    std::fs::remove_dir(&file).unwrap();
    std::os::unix::fs::symlink("/nowhere/secret.key", &file).unwrap();
    assert!(refuses(folder.path(), &[]).stderr.contains("there is no key file"));
    assert!(std::fs::symlink_metadata(&file).unwrap().is_symlink());
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = key_file(folder.path());
    Baton::dev_in(folder.path(), &[]).unwrap().stop();
    for mode in [0o640, 0o604, 0o660, 0o602, 0o644] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let ended = refuses(folder.path(), &[]);
        assert!(ended.stderr.contains(&format!("mode {mode:04o}")) && ended.stderr.contains("chmod 600"), "{ended:?}");
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o200)).unwrap();
    if is_root() {
        eprintln!("not shown: root reads files whatever their mode");
    } else {
        assert!(refuses(folder.path(), &[]).stderr.contains("cannot be read"));
    }
}

#[test]
fn a_data_folder_that_cannot_be_used_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(refuses(&file, &[]).stderr.contains("is a file; name a folder with --data-dir"));
    assert!(refuses(&file.join("below"), &[]).stderr.contains("cannot be made"));
    // Not even root can make a folder there.
    assert!(refuses(Path::new("/proc/baton"), &[]).stderr.contains("cannot be made"));
    let unwritable = folder.path().join("unwritable");
    std::fs::create_dir(&unwritable).unwrap();
    std::fs::set_permissions(&unwritable, std::fs::Permissions::from_mode(0o500)).unwrap();
    if is_root() {
        // A folder that takes no files from anybody.
        assert!(refuses(Path::new("/proc"), &[]).stderr.contains("cannot be written"));
    } else {
        assert!(refuses(&unwritable, &[]).stderr.contains("cannot be written"));
    }
}

#[test]
fn a_database_that_is_none_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("baton.db");
    std::fs::write(&database, "these are my notes, not a database ".repeat(100)).unwrap();
    let ended = refuses(folder.path(), &[]);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains("is not an SQLite database"), "{ended:?}");
    assert!(std::fs::read_to_string(&database).unwrap().starts_with("these are my notes"));

    std::fs::remove_file(&database).unwrap();
    let other = rusqlite::Connection::open(&database).unwrap();
    other.execute_batch("CREATE TABLE recipes (name TEXT); INSERT INTO recipes VALUES ('soup')").unwrap();
    let ended = refuses(folder.path(), &[]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert_eq!(other.query_row("SELECT name FROM recipes", [], |row| row.get::<_, String>(0)).unwrap(), "soup");

    drop(other);
    std::fs::remove_file(&database).unwrap();
    std::fs::create_dir(&database).unwrap();
    assert!(refuses(folder.path(), &[]).stderr.contains("is a folder; the database has to be a file"));
}

#[test]
fn a_locked_database_is_reported_after_the_busy_timeout() {
    let folder = tempfile::tempdir().unwrap();
    Baton::dev_in(folder.path(), &[]).unwrap().stop();
    let other = rusqlite::Connection::open(folder.path().join("baton.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let ended = refuses(folder.path(), &["--set", "store.busy_timeout=200ms"]);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains("locked"), "{ended:?}");
    other.execute_batch("ROLLBACK").unwrap();
    Baton::dev_in(folder.path(), &[]).unwrap().assert_works();
}

#[test]
fn a_taken_port_is_reported() {
    let first = Baton::dev(&[]);
    let folder = tempfile::tempdir().unwrap();
    let ended = refuses(folder.path(), &["--set", &format!("server.listen={}", first.address)]);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains(&format!("cannot listen on {}", first.address)), "{ended:?}");
    first.assert_works();
}

#[test]
fn dev_is_for_loopback_alone() {
    let folder = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let ended = refuses(folder.path(), &["--set", &format!("server.listen={address}")]);
        assert_eq!(ended.code(), Some(2));
        assert!(ended.stderr.contains("loopback addresses only"), "{ended:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made before the settings are right");
}

/// A request that is being handled.
fn slow_request(baton: &Baton, ms: u32) -> std::thread::JoinHandle<Option<(u16, bool)>> {
    let held = baton.register("slow@example.com");
    let call = baton.get(&format!("/demo/slow?ms={ms}")).held(&held);
    let thread = std::thread::spawn(move || {
        let answer = call.try_send().ok()?;
        Some((answer.status, answer.held().is_some()))
    });
    baton.wait_for_log("sleeping");
    thread
}

#[test]
fn sigterm_lets_a_slow_request_finish() {
    let baton = Baton::dev(&["--set", "log.level=debug"]);
    // An idle connection does not hold it up.
    let _idle = TcpStream::connect(baton.address).unwrap();
    let slow = slow_request(&baton, 1_000);
    baton.terminate();
    baton.wait_for_log("stopping");
    eventually("new connections are refused", || TcpStream::connect(baton.address).err());
    assert_eq!(slow.join().unwrap(), Some((200, true)));
    assert!(baton.wait().success());
    assert!(!baton.log().contains("cut off"), "{}", baton.log());
    // The last process to leave puts the write-ahead log away.
    assert!(!baton.folder().join("baton.db-wal").exists());
}

#[test]
fn a_request_beyond_the_grace_is_cut_off() {
    let baton = Baton::dev(&["--set", "log.level=debug", "--set", "server.shutdown_grace=100ms"]);
    let slow = slow_request(&baton, 60_000);
    baton.stop();
    assert!(baton.log().contains("cut off"), "{}", baton.log());
    assert_eq!(slow.join().unwrap(), None);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let baton = Baton::dev(&["--set", "log.level=debug", "--set", "server.shutdown_grace=1h"]);
    let slow = slow_request(&baton, 60_000);
    baton.send(Signal::INT);
    baton.wait_for_log("stopping");
    baton.terminate();
    assert_eq!(baton.wait().code(), Some(130));
    assert_eq!(slow.join().unwrap(), None);
}

#[test]
fn health_is_told_without_credentials() {
    let baton = Baton::dev(&[]);
    let alive = baton.get("/healthz").send();
    assert_eq!((alive.status, &*alive.body), (200, "ok\n"));
    let ready = baton.get("/readyz").send();
    assert_eq!((ready.status, &*ready.body), (200, r#"{"status":"ready"}"#));
    assert_eq!(baton.request("HEAD", "/healthz").send().status, 200);
    assert_eq!(baton.request("POST", "/healthz").send().code(), "method_not_allowed");
    // Not at info: a probe every second would be all there is in the log.
    baton.get("/nope").send();
    baton.wait_for_log("/nope");
    assert!(!baton.log().contains("healthz") && !baton.log().contains("readyz"), "{}", baton.log());
}

#[test]
fn unknown_paths_and_methods_answer_in_json() {
    let baton = Baton::dev(&[]);
    for path in ["/nope", "/auth/nope", "/demo/nope", "/favicon.ico", "/auth/../etc/passwd", "/%ff"] {
        let answer = baton.get(path).send();
        assert_eq!((answer.status, answer.code()), (404, "not_found".into()), "{path}: {answer:?}");
        assert!(answer.json()["errors"].is_array(), "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(!answer.header("x-request-id").is_empty());
    }
    let answer = baton.request("PUT", "/auth/sign_in").send();
    assert_eq!((answer.status, answer.code()), (405, "method_not_allowed".into()));
}

#[test]
fn the_demo_is_protected_and_answers_any_method() {
    let baton = Baton::dev(&["--set", "batch_request_buffer_throttle=0"]);
    for path in ["/demo/members_only", "/demo/slow", "/demo/status?code=204"] {
        let answer = baton.get(path).send();
        assert_eq!((answer.status, answer.code()), (401, "not_authenticated".into()), "{path}");
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{answer:?}");
    }
    let mut held = baton.register("ann@example.com");
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
        let answer = baton.request(method, "/demo/members_only").held(&held).send();
        assert_eq!(answer.status, 200, "{method}");
        assert!(held.adopt(&answer), "{method}: {answer:?}");
    }
    for code in [200, 201, 204, 205, 299, 302, 304, 400, 404, 418, 500, 503, 599] {
        let answer = baton.get(&format!("/demo/status?code={code}")).held(&held).send();
        assert_eq!(answer.status, code);
        assert_eq!(answer.body.is_empty(), matches!(code, 204 | 205 | 304), "{answer:?}");
        assert!(held.adopt(&answer), "{code} rotates too: {answer:?}");
    }
    for bad in [
        "status?code=199",
        "status?code=600",
        "status?code=x",
        "status?code=",
        "slow?ms=60001",
        "slow?ms=-1",
        "slow?ms=",
    ] {
        let answer = baton.get(&format!("/demo/{bad}")).held(&held).send();
        assert_eq!((answer.status, answer.code()), (400, "invalid".into()), "{bad}");
        assert!(held.adopt(&answer), "{bad}");
    }
}

#[test]
fn the_playground_is_there_in_dev_and_nowhere_else() {
    let baton = Baton::dev(&[]);
    let page = baton.get("/").send();
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{page:?}");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; script-src 'self'"), "{page:?}");
    assert_eq!(page.body, baton.get("/dev/playground").send().body);
    assert_eq!(baton.get("/dev/settings").send().json()["realms"][0]["batch_request_buffer_throttle"], 5.0);

    let backend = Backend::start();
    let before = Baton::before(&[format!("targets = [\"{}\"], require = 'none'", backend.url())], &[]);
    assert_eq!(before.get("/").send().header("x-backend"), "yes", "a backend has its own page");
    assert_eq!(before.get("/dev/playground").send().body, page.body);

    let serving = Site::new("", "").serve();
    for path in ["/", "/dev/playground", "/dev/playground/playground.mjs", "/dev/settings"] {
        let answer = serving.get(path).send();
        assert_eq!((answer.status, answer.code()), (404, "not_found".into()), "{path}");
    }
}

#[test]
fn pages_of_this_machine_may_call_dev_and_no_others() {
    let baton = Baton::dev(&[]);
    for (origin, allowed) in [
        ("http://localhost:5173", true),
        ("http://127.0.0.1:8080", true),
        ("https://localhost.example.com", false),
        ("https://example.com", false),
    ] {
        let answer = baton
            .request("OPTIONS", "/auth/sign_in")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type")
            .send();
        let expected = if allowed { origin } else { "" };
        assert_eq!(answer.header("access-control-allow-origin"), expected, "{origin}");
    }
}

#[test]
fn settings_reach_the_running_server() {
    let baton = Baton::dev(&[
        "--set",
        "mount=/api/users",
        "--set",
        "headers_names.access-token=x-token",
        "--set",
        "max_number_of_devices=1",
        "--set",
        "password.min_length=4",
    ]);
    let body = serde_json::json!({ "email": "ann@example.com", "password": PASSWORD });
    let answer = baton.post("/api/users", &body).send();
    assert_eq!(answer.status, 200);
    assert!(!answer.header("x-token").is_empty() && !answer.headers.contains_key("access-token"));
    assert_eq!(baton.post("/auth", &body).send().status, 404);
    let with = |answer: &crate::support::Answer| {
        let mut call = baton.get("/demo/members_only").header("x-token", answer.header("x-token"));
        for name in ["client", "uid"] {
            call = call.header(name, answer.header(name));
        }
        call.send()
    };
    assert_eq!(with(&answer).status, 200);
    let second = baton.post("/api/users/sign_in", &body).send();
    assert_eq!(with(&second).status, 200);
    assert_eq!(with(&answer).code(), "session_revoked");
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let baton = Baton::dev(&["--set", "server.header_read_timeout=100ms"]);
    for begun in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let mut stream = TcpStream::connect(baton.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(begun.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let closed = stream.read_to_end(&mut answer);
        assert!(closed.is_ok(), "{begun:?}: {closed:?}");
    }
    baton.assert_works();
}
