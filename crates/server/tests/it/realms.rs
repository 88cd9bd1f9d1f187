//! Several kinds of account in one server: their settings, and the real program with two of them.

use std::time::Duration;

use baton_server::config::{DEFAULT_FILE, RealmConfig};
use baton_server::{Config, Sources};
use serde_json::{Value, json};

use crate::support::{Answer, Baton, Held, PASSWORD, run};

const MOUNT: &str = "realms.admin.mount=/admin_auth";
const HOUR: Duration = Duration::from_secs(60 * 60);

fn set(assignments: &[&str]) -> Sources {
    Sources { set: assignments.iter().map(|text| (*text).to_owned()).collect(), ..Sources::default() }
}

/// With the file's text, for as long as the folder lives.
fn file(text: &str) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("baton.toml");
    std::fs::write(&path, text).unwrap();
    (folder, Sources { file: Some(path), ..Sources::default() })
}

fn realms(sources: &Sources) -> Vec<RealmConfig> {
    Config::load(sources).unwrap_or_else(|problems| panic!("{problems}")).realms
}

fn complaints(sources: &Sources) -> String {
    match Config::load(sources) {
        Ok(config) => panic!("this is accepted: {config:?}"),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn a_realm_has_from_the_top_level_what_it_does_not_set() {
    let (_folder, mut sources) = file(
        r#"
        token_lifespan = "1 week"
        max_number_of_devices = 3
        headers_names.uid = "x-uid"
        server.allowed_origins = ["https://app.example.com"]
        [realms.my-admin]
        mount = "/admin_auth"
        token_lifespan = "1 hour"
        cookie_attributes = { same_site = "strict" }
        [realms.my-admin.password]
        min_length = 14
        [realms.guest]
        mount = "/guest"
        "#,
    );
    let variables = [
        ("BATON_REALMS__MY_ADMIN__HEADERS_NAMES__ACCESS_TOKEN", "x-token"),
        ("BATON_REALMS__MY_ADMIN__MAX_NUMBER_OF_DEVICES", "2"),
        ("BATON_REALMS__ROBOT__MOUNT", "/robots"),
    ];
    sources.env = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    sources.set = vec![
        "realms.my-admin.profile_fields=name,room".into(),
        "realms.my-admin={ rate_limits = { sign_in_per_account = \"off\" }, on_reuse = \"revoke\" }".into(),
        "password.max_length=200".into(),
    ];
    let [user, guest, admin, robot] = &realms(&sources)[..] else { panic!("four realms") };
    assert_eq!([user, guest, admin, robot].map(RealmConfig::name), ["user", "guest", "my-admin", "robot"]);
    assert_eq!([user, guest, admin, robot].map(|realm| &*realm.mount), ["/auth", "/guest", "/admin_auth", "/robots"]);

    assert_eq!((user.engine.rules.token_lifespan, admin.engine.rules.token_lifespan), (7 * 24 * HOUR, HOUR));
    assert_eq!((user.engine.max_number_of_devices, admin.engine.max_number_of_devices), (3, 2));
    let policy = &admin.engine.password_policy;
    assert_eq!((policy.min_length, policy.max_length, user.engine.password_policy.min_length), (14, 200, 8));
    assert_eq!((&*admin.http.headers_names.access_token, &*admin.http.headers_names.uid), ("x-token", "x-uid"));
    assert_eq!(user.http.headers_names.access_token, "access-token");
    let fields: Vec<String> = admin.engine.profile_fields.iter().map(ToString::to_string).collect();
    assert_eq!(fields, ["name", "room"]);
    assert!(admin.rate_limits.unwrap().sign_in.per_account.is_none());
    assert!(user.rate_limits.unwrap().sign_in.per_account.is_some());
    assert_ne!(user.engine.rules.on_reuse, admin.engine.rules.on_reuse);
    for other in [guest, robot] {
        assert_eq!(other.engine.rules, user.engine.rules);
        assert_eq!(other.http.headers_names, user.http.headers_names);
        assert_eq!(other.engine.profile_fields, user.engine.profile_fields);
    }
    for realm in [user, guest, admin, robot] {
        assert_eq!(realm.http.origins.exact, ["https://app.example.com"]);
        assert_eq!(realm.engine.hashing, user.engine.hashing);
    }
}

#[test]
fn the_example_of_the_default_file_works() {
    let (_, example) = DEFAULT_FILE.split_once("\n# [realms.admin]\n").unwrap();
    let lines = example.lines().map(|line| line.strip_prefix("# ").unwrap_or_default());
    let text = format!("cookie_enabled = true\n[realms.admin]\n{}", lines.collect::<Vec<_>>().join("\n"));
    let (_folder, sources) = file(&text);
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.realms[1].engine.password_policy.min_length, 14);
    assert_eq!(config.realms[1].engine.rules.token_lifespan, HOUR);
    assert_eq!((config.check_production(), config.warnings()), (Ok(()), Vec::new()));
}

#[test]
fn what_a_realm_cannot_have_is_refused_with_name_value_and_origin() {
    let cases: &[(&[&str], &str)] = &[
        (&["realms.admin.on_reuse=revoke"], "realms.admin.mount: is missing"),
        (&["realms.admin={}"], "realms.admin.mount: is missing"),
        (&["realms={ admin = {} }"], "realms.admin.mount: is missing"),
        (
            &["realms.admin=x"],
            "realms.admin (--set): is a table, not a value; a further realm is a table [realms.NAME]",
        ),
        (&["realms=x"], "realms (--set): is a table, not a value; a further realm is a table [realms.NAME]"),
        (&["realms.user.mount=/other"], "realms.user: is what the top level's realm is called already"),
        (
            &["realm=staff", "realms.staff.mount=/other"],
            "realms.staff: is what the top level's realm is called already",
        ),
        (&["realms.a b.mount=/other"], "realms.a b: the name has to be 1 to 64 letters"),
        (
            &[MOUNT, "realms.admin.realm=boss"],
            "realms.admin.realm (--set): the name of a further realm is that of its table",
        ),
        (
            &[MOUNT, "realms.admin.token_lifespn=1h"],
            "realms.admin.token_lifespn (--set): there is no such setting; did you mean realms.admin.token_lifespan?",
        ),
        (
            &[MOUNT, "realms.admin.password.min_lenth=9"],
            "realms.admin.password.min_lenth (--set): there is no such setting; did you mean realms.admin.password.min_length?",
        ),
        (&[MOUNT, "realms.admin.sever.listn=1"], "realms.admin.sever.listn (--set): there is no such setting"),
        (&[MOUNT, "realms.admin.mount.x=1"], "realms.admin.mount.x (--set): there is no such setting"),
        (
            &[MOUNT, "realms.admin.password=x"],
            "realms.admin.password (--set): is a table, not a value; it holds password.bl",
        ),
        (
            &[MOUNT, "realms.admin.server.listen=127.0.0.1:1"],
            "realms.admin.server.listen (--set): is the whole server's and the same for every realm; set server.listen itself",
        ),
        (&[MOUNT, "realms.admin.server=x"], "realms.admin.server (--set): is the whole server's"),
        (&[MOUNT, "realms.admin.store.url=sqlite:x"], "realms.admin.store.url (--set): is the whole server's"),
        (&[MOUNT, "realms.admin.keys.file=x"], "realms.admin.keys.file (--set): is the whole server's"),
        (&[MOUNT, "realms.admin.log.level=warn"], "realms.admin.log.level (--set): is the whole server's"),
        (
            &[MOUNT, "realms.admin.password.memory_kib=65536"],
            "realms.admin.password.memory_kib (--set): is the whole server's",
        ),
        (&[MOUNT, "realms.admin.password.concurrent=2"], "is the whole server's"),
        (
            &[MOUNT, "realms.admin.password.bcrypt_pepper=hunter2"],
            "realms.admin.password.bcrypt_pepper (--set): is the whole server's",
        ),
        (&["realms.admin.mount=/auth"], "realms.admin.mount = \"/auth\" (--set): shares paths with mount = \"/auth\""),
        (&["realms.admin.mount=/auth/admin"], "shares paths with mount = \"/auth\""),
        (&["mount=/auth/user", "realms.admin.mount=/auth"], "shares paths with mount = \"/auth/user\""),
        (&["realms.admin.mount=/auth.json"], "realms.admin.mount = \"/auth.json\" (--set): has to be a path"),
        (&["realms.admin.mount=//auth"], "has to be a path"),
        (&["realms.admin.mount=/demo"], "/demo, /dev, /healthz and /readyz are taken"),
        (
            &["realms.a.mount=/x", "realms.b.mount=/x/y"],
            "realms.b.mount = \"/x/y\" (--set): shares paths with realms.a.mount = \"/x\"",
        ),
        (&[MOUNT, "realms.admin.token_lifespan=0"], "realms.admin.token_lifespan = \"0\" (--set): has to be from 1s"),
        // Where the value comes from, though it fits another realm.
        (
            &[MOUNT, "realms.admin.password.min_length=129"],
            "password.max_length = 128 (default): is below realms.admin.password.min_length",
        ),
        (
            &[MOUNT, "realms.admin.password.max_length=7"],
            "realms.admin.password.max_length = \"7\" (--set): is below password.min_length",
        ),
        (
            &[MOUNT, "cookie_name=c", "cookie_attributes.secure=false", "realms.admin.cookie_name=__Host-c"],
            "cookie_attributes.secure = \"false\" (--set): has to be true where realms.admin.cookie_name begins with __Host-",
        ),
        (
            &[MOUNT, "cookie_enabled=true"],
            "cookie_name = \"__Host-baton\" (default): is the cookie of both user and admin, and a browser keeps one; \
             set realms.admin.cookie_name to another name than cookie_name",
        ),
        (
            &[MOUNT, "cookie_enabled=true", "cookie_name=__Host-c", "realms.admin.cookie_name=__Host-c"],
            "realms.admin.cookie_name = \"__Host-c\" (--set): is the cookie of both user and admin",
        ),
        // Once, though two realms have it.
        (&[MOUNT, "token_lifespan=0"], "token_lifespan = \"0\" (--set): has to be from 1s"),
    ];
    for (assignments, expected) in cases {
        let said = complaints(&set(assignments));
        assert!(said.contains(expected), "{assignments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{assignments:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    for fine in [
        &[MOUNT, "cookie_enabled=true", "realms.admin.cookie_name=__Host-admin"][..],
        &[MOUNT, "cookie_enabled=true", "realms.admin.cookie_enabled=false"],
        &["realms.admin.mount=/authority", "realms.Admin.mount=/Auth"],
        &["mount=/auth/user", "realms.admin.mount=/auth/admin"],
    ] {
        realms(&set(fine));
    }

    let (_folder, sources) =
        file("[realms.admin]\ntoken_lifespn = 1\n[realms.empty]\n[realms.\"a.b\"]\nmount = \"/x\"\n");
    let said = complaints(&sources);
    let path = sources.file.unwrap().display().to_string();
    for expected in [
        format!(
            "realms.admin.token_lifespn ({path}:2): there is no such setting; did you mean realms.admin.token_lifespan?"
        ),
        format!("realms.a.b ({path}:4): there is no such setting"),
        "realms.admin.mount: is missing".into(),
        "realms.empty.mount: is missing".into(),
    ] {
        assert!(said.contains(&expected), "missing: {expected}\nin:\n{said}");
    }
    let variable = |name: &str| Sources { env: vec![(name.to_owned(), "1".to_owned())], ..set(&[MOUNT]) };
    for (name, expected) in [
        ("BATON_REALMS__ADMIN__TPYO", "realms.admin.tpyo (BATON_REALMS__ADMIN__TPYO): there is no such setting"),
        (
            "BATON_REALMS__ADMIN__SERVER__LISTEN",
            "realms.admin.server.listen (BATON_REALMS__ADMIN__SERVER__LISTEN): is the w",
        ),
        ("BATON_REALMS", "realms (BATON_REALMS): is a table"),
    ] {
        let said = complaints(&variable(name));
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn production_looks_at_every_realm() {
    let judged = |assignments: &[&str]| {
        let config = Config::load(&set(assignments)).unwrap();
        let refused = config.check_production().map_or_else(|problems| problems.to_string(), |()| String::new());
        let warnings: Vec<String> = config.warnings().iter().map(|warning| warning.key.clone()).collect();
        (refused, warnings)
    };
    assert_eq!(judged(&[MOUNT]), (String::new(), Vec::new()));
    for (assignment, expected) in [
        (
            "realms.admin.password.min_length=7",
            "realms.admin.password.min_length = \"7\" (--set): has to be at least 8",
        ),
        (
            "realms.admin.batch_request_buffer_throttle=61",
            "realms.admin.batch_request_buffer_throttle = \"61\" (--set): is longer",
        ),
        (
            "realms.admin.token_lifespan=31 days",
            "session_max_lifetime = \"30 days\" (default): is shorter than realms.admin.token_lifespan (31 days)",
        ),
        (
            "realms.admin.token_lifespan=5",
            "batch_request_buffer_throttle = \"5s\" (default): is not shorter than realms.admin.token_lifespan",
        ),
    ] {
        let (refused, _) = judged(&[MOUNT, assignment]);
        assert!(refused.contains(expected), "{assignment}: {refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
    // What all have from the top level is said once.
    assert_eq!(judged(&[MOUNT, "server.allowed_localhost_origins=true", "password.min_length=7"]).0.lines().count(), 2);
    assert_eq!(judged(&[MOUNT, "password.min_score=0"]).1, ["password.min_score"]);
    assert_eq!(judged(&[MOUNT, "realms.admin.password.min_score=0"]).1, ["realms.admin.password.min_score"]);
    let said = run(&["config", "check", "--set=realms.admin.token_lifespan=1h"]).stderr;
    assert!(said.contains("realms.admin.mount: is missing"), "{said}");
}

fn open(baton: &Baton, path: &str, email: &str, more: &Value) -> (Held, Answer) {
    let mut body = json!({ "email": email, "password": PASSWORD, "name": "Ann", "nickname": "annie" });
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    let answer = baton.post(path, &body).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    (answer.held().unwrap_or_else(|| panic!("no token: {answer:?}")), answer)
}

#[test]
fn two_kinds_of_account_in_one_process() {
    let baton = Baton::dev(&[
        "--set=realms.admin.mount=/admin_auth",
        "--set=realms.admin.token_lifespan=1 hour",
        "--set=realms.admin.profile_fields=name,room",
        "--set=realms.admin.password.min_length=14",
    ]);
    // One address, an account in each.
    let room = json!({ "room": "7" });
    let (_, user) = open(&baton, "/auth", "ann@example.com", &room);
    let (_, admin) = open(&baton, "/admin_auth", "ann@example.com", &room);
    let (user, admin) = (&user.json()["data"], &admin.json()["data"]);
    assert_eq!((&user["nickname"], user.get("room")), (&json!("annie"), None));
    assert_eq!((&admin["room"], admin.get("nickname")), (&json!("7"), None));
    assert_ne!(user["id"], admin["id"]);
    let short = json!({ "email": "bob@example.com", "password": "thirteen char" });
    assert_eq!(baton.post("/admin_auth", &short).send().status, 422);
    assert_eq!(baton.post("/auth", &short).send().status, 200);
    assert_eq!(baton.post("/admin_auth/sign_in", &short).send().status, 401, "an account of the other realm");

    let (mut user, answer) = open(&baton, "/auth/sign_in", "ann@example.com", &json!({}));
    let expiry = |answer: &Answer| answer.header("expiry").parse::<u64>().unwrap();
    let later = expiry(&answer);
    let (mut admin, answer) = open(&baton, "/admin_auth/sign_in", "ann@example.com", &json!({}));
    let days = (later - expiry(&answer)) / (24 * 60 * 60);
    assert_eq!(days, 13, "two weeks and an hour");

    // A group: either is let in, and each token rotates.
    for held in [&mut user, &mut admin] {
        let answer = baton.members_only(held);
        let data = answer.json()["data"].clone();
        assert_eq!((answer.status, &data["uid"]), (200, &json!("ann@example.com")));
        assert_eq!(data.as_object().map(serde_json::Map::len), Some(2), "{data}");
        assert!(held.adopt(&answer), "{answer:?}");
    }
    // One realm alone: the other's accounts are nobody, and their sessions go on.
    for (held, own, other, mount) in [(&user, "user", "admin", "/admin_auth"), (&admin, "admin", "user", "/auth")] {
        let call = |path: &str| baton.get(path).held(held).send();
        let refused = call(&format!("/demo/realms/{other}/members_only"));
        assert_eq!((refused.status, &*refused.code()), (401, "token_invalid"));
        assert_eq!(call(&format!("{mount}/validate_token")).status, 401);
        assert_eq!(call(&format!("/demo/realms/{own}/members_only")).status, 200);
    }
    assert_eq!(baton.get("/demo/realms/other/members_only").held(&user).send().status, 404);
    for path in ["//admin_auth/sign_in", "/admin_auth/sign_in.json"] {
        open(&baton, path, "ann@example.com", &json!({}));
    }
    assert_eq!(baton.get("/dev/settings").send().json()["realms"][1]["realm"], "admin");
    assert_eq!(baton.get("/readyz").send().status, 200);
}
