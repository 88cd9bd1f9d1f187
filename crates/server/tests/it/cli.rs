//! The command line.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use baton_core::token::parse_keys;

use crate::support::{Baton, command, run};

/// A folder with a key file that may be used.
fn with_key() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret.key").display().to_string();
    assert!(run(&["keys", "new", "--file", &file]).status.success());
    (folder, format!("keys.file={file}"))
}

#[test]
fn the_printed_default_file_is_a_configuration() {
    let printed = run(&["config", "print"]);
    assert!(printed.status.success());
    let (folder, keys) = with_key();
    let path = folder.path().join("baton.toml").display().to_string();
    std::fs::write(&path, &printed.stdout).unwrap();
    let checked = run(&["config", "check", "--config", &path, "--set", &keys]);
    assert_eq!((checked.code(), &*checked.stdout, &*checked.stderr), (Some(0), "ok\n", ""));
}

#[test]
fn check_lists_everything_that_is_wrong() {
    let (folder, keys) = with_key();
    let path = folder.path().join("baton.toml").display().to_string();
    std::fs::write(&path, "token_lifespan = -1\n[server]\nlisten = \"here\"\nport = 3\n").unwrap();
    let checked = run(&["config", "check", "--config", &path, "--set", &keys, "--set", "on_reuse=ban"]);
    assert_eq!((checked.code(), &*checked.stdout), (Some(2), ""));
    for expected in [
        format!("token_lifespan = -1 ({path}:1): must not be negative"),
        format!("server.listen = \"here\" ({path}:3): has to be an address"),
        format!("server.port ({path}:4): there is no such setting"),
        "on_reuse = \"ban\" (--set): has to be one of".into(),
    ] {
        assert!(checked.stderr.contains(&expected), "missing: {expected}\nin:\n{}", checked.stderr);
    }
    // The same, with what works and is not safe, and with the keys.
    let checked = run(&["config", "check", "--set", "password.min_length=4", "--set", "keys.file=/nowhere/secret.key"]);
    assert_eq!(checked.code(), Some(2));
    assert!(checked.stderr.contains("password.min_length = \"4\" (--set): has to be at least 8"), "{}", checked.stderr);
    assert!(checked.stderr.contains("there is no key file /nowhere/secret.key: make one with"), "{}", checked.stderr);
}

#[test]
fn check_warns_and_still_says_ok() {
    let (_folder, keys) = with_key();
    let checked = run(&["config", "check", "--set", &keys, "--set", "change_headers_on_each_request=false"]);
    assert_eq!((checked.code(), &*checked.stdout), (Some(0), "ok\n"));
    assert!(checked.stderr.contains("warning: change_headers_on_each_request"), "{}", checked.stderr);
}

#[test]
fn serve_refuses_what_check_refuses() {
    let (folder, keys) = with_key();
    let store = format!("store.url=sqlite:{}/baton.db", folder.path().display());
    let serve = |more: &[&str]| {
        let mut args = vec!["serve", "--set", &keys, "--set", &store, "--set", "server.listen=127.0.0.1:0"];
        args.extend(more.iter().flat_map(|assignment| ["--set", assignment]));
        run(&args)
    };
    for (assignment, expected) in [
        ("token_lifespn=1", "did you mean token_lifespan?"),
        ("batch_request_buffer_throttle=1h", "a stolen token would stay good for as long"),
        ("server.allowed_origins=*", "holds a wildcard"),
        ("server.allowed_localhost_origins=true", "it is for `baton dev`"),
        ("password.min_length=1", "has to be at least 8"),
        ("keys.file=/nowhere/secret.key", "there is no key file"),
    ] {
        let ended = serve(&[assignment]);
        assert_eq!(ended.code(), Some(2), "{assignment}: {ended:?}");
        assert!(ended.stderr.contains(expected), "{assignment}: {ended:?}");
        assert_eq!(ended.stdout, "");
    }
    let insecure = ["cookie_enabled=true", "cookie_name=baton", "cookie_attributes.secure=false"];
    assert!(serve(&insecure).stderr.contains("anybody can read"));
    // Nothing was touched.
    assert!(!folder.path().join("baton.db").exists());
}

#[test]
fn serve_serves_without_the_demo_and_with_exact_origins() {
    let (folder, keys) = with_key();
    let config = folder.path().join("baton.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nallowed_origins = [\"https://app.example.com\"]\n[store]\nurl = \"sqlite:{}/baton.db\"\n",
        folder.path().display()
    );
    std::fs::write(&config, text).unwrap();
    let mut serve = command(&["serve", "--config", config.to_str().unwrap(), "--set", &keys]);
    serve.env("BATON_LOG__FORMAT", "json");
    let baton = Baton::of_command(serve, folder.path()).unwrap();

    let held = baton.register("ann@example.com");
    let validated = baton.get("/auth/validate_token").held(&held).header("origin", "https://app.example.com").send();
    assert_eq!(validated.status, 200);
    assert_eq!(validated.header("access-control-allow-origin"), "https://app.example.com");
    let stranger = baton.get("/auth/validate_token").header("origin", "http://localhost:5173").send();
    assert_eq!(stranger.header("access-control-allow-origin"), "");
    for path in ["/demo/members_only", "/demo/slow", "/demo/status", "/"] {
        let answer = baton.get(path).held(&held).send();
        assert_eq!((answer.status, answer.code()), (404, "not_found".to_owned()), "{path}");
    }
    baton.stop();
    for line in baton.log().lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "not JSON: {line}");
    }
}

#[test]
fn new_keys_go_in_front() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret.key");
    let path = file.display().to_string();
    let made = run(&["keys", "new", "--file", &path]);
    assert!(made.status.success() && made.stdout.contains("made "), "{made:?}");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    let first = std::fs::read_to_string(&file).unwrap();
    let added = run(&["keys", "new", "--file", &path]);
    assert!(added.status.success() && added.stdout.contains("put key 1 in front"), "{added:?}");
    let both = std::fs::read_to_string(&file).unwrap();
    let ids: Vec<u8> = parse_keys(&both).unwrap().iter().map(baton_core::Key::id).collect();
    assert_eq!(ids, [1, 0]);
    assert!(both.ends_with(first.lines().last().unwrap().trim_end()) || both.contains(first.lines().last().unwrap()));
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    // No key on the terminal unless it was asked for.
    for line in both.lines().filter(|line| !line.starts_with('#')) {
        assert!(!added.stdout.contains(line) && !added.stderr.contains(line));
    }
    let printed = run(&["keys", "new"]);
    assert_eq!(parse_keys(&printed.stdout).unwrap().len(), 1);
    assert_eq!(printed.stderr, "");
}

#[test]
fn a_broken_key_file_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret.key");
    write_private(&file, "this is no key\n");
    let ended = run(&["keys", "new", "--file", file.to_str().unwrap()]);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains("line 1: expected a key id"), "{ended:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "this is no key\n");
}

pub fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_command_line_that_means_nothing_is_explained() {
    for args in [&["deploy"][..], &["serve", "--port", "1"], &["config"], &[]] {
        let ended = run(args);
        assert_eq!(ended.code(), Some(2), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains("Usage"), "{args:?}: {ended:?}");
    }
    assert!(run(&["--version"]).stdout.starts_with("baton "));
    assert!(run(&["--help"]).stdout.contains("serve"));
}
