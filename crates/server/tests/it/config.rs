//! Settings: where they come from, which one wins, and what is said about those that cannot be.

use std::time::Duration;

use baton_core::token::Key;
use baton_core::{BatchResponse, OnReuse};
use baton_engine::CurrentPassword;
use baton_server::config::{DEFAULT_FILE, StoreConfig};
use baton_server::{Config, Sources};
use proptest::prelude::*;
use secrecy::ExposeSecret as _;

fn set(assignments: &[&str]) -> Sources {
    Sources { set: assignments.iter().map(|text| (*text).to_owned()).collect(), ..Sources::default() }
}

fn env(variables: &[(&str, &str)]) -> Sources {
    let env = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sources { env, ..Sources::default() }
}

/// A file with this text, for as long as the folder lives.
fn file(text: &str) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("baton.toml");
    std::fs::write(&path, text).unwrap();
    (folder, Sources { file: Some(path), ..Sources::default() })
}

fn complaints(sources: &Sources) -> String {
    match Config::load(sources) {
        Ok(config) => panic!("this is accepted: {config:?}"),
        Err(problems) => problems.to_string(),
    }
}

fn unsafe_in_production(assignments: &[&str]) -> String {
    let config = Config::load(&set(assignments)).unwrap();
    config.check_production().map_or_else(|problems| problems.to_string(), |()| String::new())
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn later_sources_win() {
    let buffer =
        |sources: &Sources| Config::load(sources).unwrap().realms[0].engine.rules.batch_request_buffer_throttle;
    let (_folder, mut sources) = file("batch_request_buffer_throttle = 1");
    assert_eq!(buffer(&Sources::default()), 5 * SECOND);
    assert_eq!(buffer(&sources), SECOND);
    sources.env = env(&[("BATON_BATCH_REQUEST_BUFFER_THROTTLE", "2")]).env;
    assert_eq!(buffer(&sources), 2 * SECOND);
    sources.set = set(&["batch_request_buffer_throttle=3"]).set;
    assert_eq!(buffer(&sources), 3 * SECOND);
    sources.set.push("batch_request_buffer_throttle=0".into());
    assert_eq!(buffer(&sources), Duration::ZERO);
}

#[test]
fn every_source_reaches_tables() {
    let (_folder, mut sources) = file(
        r#"
        on_reuse = "revoke"
        headers_names = { access-token = "x-token" }
        [server]
        allowed_origins = ["https://app.example.com"]
        [cookie_attributes]
        same_site = "strict"
        "#,
    );
    sources.env = env(&[
        ("BATON_HEADERS_NAMES__TOKEN_TYPE", "x-type"),
        ("BATON_BATCH_RESPONSE", "repeat"),
        ("BATON_SERVER__LISTEN", "[::1]:80"),
        ("BATON_COOKIE_ENABLED", "true"),
        ("UNRELATED", "1"),
    ])
    .env;
    sources.set = set(&[
        "headers_names.client=x-client",
        "cookie_attributes={ path = \"/app\", domain = \"example.com\" }",
        "cookie_name=session",
        "realm=7",
        "profile_fields=name,age:integer(0..150)",
        "token_lifespan=1 week",
        "store.url=sqlite:some.db",
        "check_current_password_before_update=false",
        "remove_tokens_after_password_reset=false",
    ])
    .set;
    let config = Config::load(&sources).unwrap();
    let baton_server::config::RealmConfig { engine, http, .. } = &config.realms[0];
    let names = &http.headers_names;
    assert_eq!(
        [&*names.access_token, &*names.token_type, &*names.client, &*names.uid],
        ["x-token", "x-type", "x-client", "uid"]
    );
    assert_eq!(engine.rules.on_reuse, OnReuse::Revoke);
    assert_eq!(engine.rules.batch_response, BatchResponse::Repeat);
    assert_eq!(engine.rules.token_lifespan, 7 * 24 * 60 * 60 * SECOND);
    assert_eq!(engine.realm, "7");
    assert_eq!(engine.check_current_password_before_update, CurrentPassword::Never);
    assert!(!engine.remove_tokens_after_password_reset);
    let fields: Vec<String> = engine.profile_fields.iter().map(ToString::to_string).collect();
    assert_eq!(fields, ["name", "age:integer(0..150)"]);
    assert_eq!(config.server.listen.to_string(), "[::1]:80");
    assert_eq!(http.origins.exact, ["https://app.example.com"]);
    assert!(matches!(&config.store, StoreConfig::Sqlite { path, .. } if path.as_os_str() == "some.db"));
    let cookie = http.cookie.as_ref().unwrap();
    assert_eq!((&*cookie.name, &*cookie.path, cookie.domain.as_deref()), ("session", "/app", Some("example.com")));
    assert_eq!(cookie.same_site, baton_axum::SameSite::Strict);
    assert_eq!(cookie.max_age, 7 * 24 * 60 * 60 * SECOND);
}

#[test]
fn unknown_names_are_refused_wherever_they_are() {
    let (_folder, mut sources) =
        file("token_lifespn = \"1 week\"\n\n[server]\nlisen = \"127.0.0.1:1\"\n[sever]\nlisten = 1\n");
    sources.env = env(&[("BATON_SERVER__PORT", "1"), ("BATON_ON_REUSE", "revoke")]).env;
    sources.set = set(&["cookie_atributes.secure=true", "listen=127.0.0.1:2", "headers_names.acess-token=x"]).set;
    let said = complaints(&sources);
    let path = sources.file.unwrap().display().to_string();
    for expected in [
        format!("token_lifespn ({path}:1): there is no such setting; did you mean token_lifespan?"),
        format!("server.lisen ({path}:4): there is no such setting; did you mean server.listen?"),
        format!("sever ({path}:5): there is no such setting; did you mean server?"),
        "server.port (BATON_SERVER__PORT): there is no such setting".into(),
        "cookie_atributes.secure (--set): there is no such setting; did you mean cookie_attributes.secure?".into(),
        "listen (--set): there is no such setting; did you mean server.listen?".into(),
        "headers_names.acess-token (--set): there is no such setting; did you mean headers_names.access-token?".into(),
    ] {
        assert!(said.contains(&expected), "missing: {expected}\nin:\n{said}");
    }
    assert_eq!(said.lines().count(), 7, "{said}");
    // What is in the wrong place may be a secret.
    assert!(!complaints(&set(&["keys.secret=hunter2"])).contains("hunter2"));
}

#[test]
fn variables_that_an_orchestrator_adds_are_passed_over() {
    let variables =
        [("BATON_SERVICE_HOST", "10.0.0.1"), ("BATON_PORT", "tcp://10.0.0.1:3000"), ("BATON_PORT_3000_TCP", "x")];
    assert!(Config::load(&env(&variables)).is_ok());
    assert!(complaints(&env(&[("BATON_PORTS", "1")])).contains("ports (BATON_PORTS)"));
}

#[test]
fn tables_and_values_are_not_confused() {
    let said = complaints(&set(&["server=3", "realm.name=x", "cookie_attributes.secure=1"]));
    assert!(
        said.contains("server (--set): is a table, not a value; it holds server.allowed_localhost_origins"),
        "{said}"
    );
    assert!(said.contains("realm.name (--set): there is no such setting; realm is a value, not a table"), "{said}");
    assert!(said.contains("cookie_attributes.secure = \"1\" (--set): has to be true or false"), "{said}");
    let (_folder, sources) = file("server = 3\nrealm = { name = \"x\" }\n[token_lifespan]\n");
    let said = complaints(&sources);
    assert!(said.contains("baton.toml:1): is a table, not a value"), "{said}");
    assert!(said.contains("realm = {") && said.contains("baton.toml:2): has to be a text"), "{said}");
    assert!(said.contains("baton.toml:3): has to be a duration"), "{said}");
}

#[test]
fn what_cannot_be_is_refused_with_name_value_and_origin() {
    let cases = [
        ("token_lifespan=-1", "token_lifespan = \"-1\" (--set): must not be negative"),
        ("token_lifespan=0", "has to be from 1s to"),
        ("token_lifespan=", "must not be empty"),
        ("token_lifespan=nan", "is not a number"),
        ("token_lifespan=inf", "is too long"),
        ("token_lifespan=99999999999999999999", "is too long"),
        ("token_lifespan=99999999999999999999s", "is too long"),
        ("token_lifespan=100 years", "has to be from"),
        ("batch_request_buffer_throttle=-0.5", "must not be negative"),
        ("batch_request_buffer_throttle=soon", "is not a duration"),
        ("batch_request_buffer_throttle=2h", "has to be from 0 to 1h"),
        ("session_max_lifetime=true", "has to be a duration"),
        ("max_number_of_devices=0", "has to be a whole number from 1 to 100000"),
        ("max_number_of_devices=1.5", "has to be a whole number"),
        ("max_number_of_devices=4294967297", "has to be a whole number"),
        ("on_reuse=ban", "has to be one of \"reject\", \"revoke\""),
        ("batch_response=Blank", "has to be one of"),
        ("change_headers_on_each_request=yes", "has to be true or false"),
        ("headers_names.uid=client", "another of the six has this name already"),
        ("headers_names.uid=CLIENT", "another of the six has this name already"),
        ("headers_names.uid=a b", "is not the name of a header"),
        ("headers_names.uid=", "is not the name of a header"),
        ("headers_names.expiry=Content-Length", "has a meaning for HTTP itself"),
        ("headers_names.access-token=authorization", "Authorization is where the bearer value goes"),
        ("cookie_name=a b", "is not the name of a cookie"),
        ("cookie_attributes.path=app", "has to begin with a slash"),
        ("cookie_attributes.path=/app", "has to be \"/\" where cookie_name begins with __Host-"),
        ("cookie_attributes.domain=example.com", "has to be empty where cookie_name begins with __Host-"),
        ("cookie_attributes.secure=false", "has to be true where cookie_name begins with __Host-"),
        ("cookie_attributes.same_site=Lax", "has to be one of"),
        ("mount=auth", "has to be a path"),
        ("mount=/", "has to be a path"),
        ("mount=", "has to be a path"),
        ("mount=/auth/", "has to be a path"),
        ("mount=/{id}", "has to be a path"),
        ("mount=/a/../b", "has to be a path"),
        ("mount=/readyz", "are taken"),
        ("realm=", "has to be 1 to 64"),
        ("realm=a b", "has to be 1 to 64"),
        ("profile_fields=[\"uid\"]", "\"uid\" has a meaning of its own"),
        ("profile_fields=tokens:date", "\"tokens\" has a meaning of its own"),
        ("profile_fields=[\"a b\"]", "\"a b\" does not begin with a name"),
        ("profile_fields=[\"age:number\"]", "\"age:number\" has a type that is none of"),
        ("profile_fields=[\"age:integer(9..1)\"]", "needs the least and the greatest number"),
        ("profile_fields=[\"name\", \"name:text(9)\"]", "\"name\" is there twice"),
        ("profile_fields=[1]", "has to be a list of texts"),
        ("server.listen=3000", "has to be an address and a port"),
        ("server.listen=example.com:80", "has to be an address and a port"),
        ("server.listen=127.0.0.1:99999", "has to be an address and a port"),
        ("server.allowed_origins=*", "holds a wildcard"),
        ("server.allowed_origins=[\"https://*.example.com\"]", "holds a wildcard"),
        ("server.allowed_origins=https://example.com/", "ends with a slash"),
        ("server.allowed_origins=null", "is what sandboxed"),
        ("server.max_header_bytes=100", "has to be a whole number from 8192"),
        ("server.max_connections=0", "has to be a whole number"),
        ("server.header_read_timeout=0", "has to be from 100ms"),
        ("server.trusted_proxies=proxy.example.com", "\"proxy.example.com\" is neither an address nor a network"),
        ("server.trusted_proxies=10.0.0.0/33", "is neither an address nor a network"),
        ("server.trusted_proxies=10.0.0.1:80", "is neither an address nor a network"),
        ("server.trusted_proxies=*", "is neither an address nor a network"),
        ("server.trusted_proxies=::ffff:10.0.0.1", "is an IPv4 address in the form of an IPv6 one"),
        ("server.trusted_proxies=[1]", "has to be a list of texts"),
        ("rate_limits.enabled=yes", "has to be true or false"),
        ("rate_limits.sign_in_per_address=30", "has to be a number and a period"),
        ("rate_limits.sign_in_per_address=", "has to be a number and a period"),
        ("rate_limits.sign_in_per_address=0/1m", "has to be a number and a period"),
        ("rate_limits.sign_in_per_address=-1/1m", "has to be a number and a period"),
        ("rate_limits.sign_in_per_account=1/0s", "the period has to be from 1s to 7 days"),
        ("rate_limits.register_per_address=1/8days", "the period has to be from 1s to 7 days"),
        ("rate_limits.register_per_account=1000001/1m", "the number has to be from 1 to 1000000"),
        ("rate_limits.register_per_account=1/soon", "has to be a number and a period"),
        ("store.url=baton.db", "has to be \"sqlite:PATH\""),
        ("store.url=sqlite:", "names no file"),
        ("store.url=sqlite::memory:", "would forget"),
        ("store.url=sqlite:a?mode=ro", "takes no parameters"),
        ("store.readers=0", "has to be a whole number"),
        ("sessions.url=postgres://localhost/x", "has to begin with redis://"),
        ("sessions.url=redis://a:1,b:2", "names several servers"),
        ("sessions.url=redis+cluster://a:1/2", "a cluster has none"),
        ("sessions.url=redis+sentinel://a:1", "does not name the service"),
        ("sessions.url=redis://:hush@localhost", "holds a password"),
        ("sessions.wait_replicas=17", "has to be a whole number from 0 to 16"),
        ("sessions.wait_timeout=0", "has to be from 1ms to 1m"),
        ("sessions.recheck=0", "has to be from 1s to 1h"),
        ("sessions.writers=0", "has to be a whole number from 1 to 64"),
        ("keys.file=", "must not be empty"),
        ("password.memory_kib=1024", "has to be a whole number from 19456"),
        ("password.iterations=1", "has to be a whole number from 2"),
        ("password.min_length=0", "has to be a whole number from 1"),
        ("password.max_length=7", "is below password.min_length"),
        ("password.min_score=5", "has to be a whole number from 0 to 4"),
        ("password.min_score=-1", "has to be a whole number from 0 to 4"),
        ("password.blocklist_file=/", "it cannot be read"),
        ("confirmable=maybe", "has to be true, false or"),
        ("confirm_within=0", "has to be from 1s to"),
        ("reset_password_within=8 days", "has to be from 1s to 7 days"),
        ("reset_password_session=2 days", "has to be from 1s to 1 day"),
        ("redirect_allowlist=https://*.com", "\"https://*.com\""),
        ("redirect_allowlist=https://app.example.com/a/../b", "\"https://app.example.com/a/../b\""),
        ("redirect_allowlist=javascript://x", "\"javascript://x\""),
        ("redirect_allowlist=*", "\"*\""),
        ("default_confirm_success_url=/welcome", "is not an absolute URL"),
        ("default_password_reset_url=HTTPS://app.example.com", "has an origin in an unusual form"),
        ("default_unlock_success_url=https://app.example.com/a b", "holds white space"),
        ("lockable.max_attempts=0", "has to be a whole number from 1"),
        ("lockable.unlock_after=31 days", "has to be from 1s to"),
        ("lockable.unlock_after=sometimes", "is not a duration"),
        ("lockable.forget_after=0", "has to be from 1s to"),
        ("mail.timeout=5m", "has to be from 100ms to 4m"),
        ("mail.url=smtp://postman:pigeon@mail.example.com", "mail.url (--set): holds a name or a password"),
        ("mail.password=pigeon", "mail.password (--set): is a secret"),
        ("mail.product=", "has to be one line of text"),
        ("mail.language=tlh", "there are no sentences in the default language, `tlh`"),
        ("mail.templates=/nowhere", "/nowhere"),
        ("mail.public_url=auth.example.com", "is not an absolute URL"),
        ("mail.public_url=ftp://auth.example.com", "has to begin with https:// or http://"),
        ("mail.public_url=https://auth.example.com/?a=1", "has to end with its path"),
        ("mail.public_url=https://auth.example.com/#/", "has to end with its path"),
        ("audit.keep=11 years", "has to be from 0 to 3650 days"),
        ("webhooks.events=logged_in", "\"logged_in\" is no event; there are registered, signed_in"),
        ("webhooks.timeout=2m", "has to be from 100ms to 1m"),
        ("webhooks.secret=whsec_x", "webhooks.secret (--set): is a secret"),
        ("log.format=xml", "has to be one of"),
        ("log.level=verbose", "has to be one of"),
    ];
    for (assignment, expected) in cases {
        let said = complaints(&set(&[assignment]));
        let key = assignment.split('=').next().unwrap();
        assert!(said.contains(key) && said.contains("(--set)") && said.contains(expected), "{assignment}: {said}");
        assert_eq!(said.lines().count(), 1, "{assignment}: {said}");
    }
    // All of them at once: as many complaints as mistakes, no panic.
    let all: Vec<&str> = cases.iter().map(|(assignment, _)| *assignment).collect();
    assert!(complaints(&set(&all)).lines().count() > 20);
}

#[test]
fn rate_limits_are_a_number_and_a_period_or_off() {
    let limits = |assignments: &[&str]| Config::load(&set(assignments)).unwrap().realms[0].rate_limits;
    let read = limits(&[
        "rate_limits.sign_in_per_address = 5 / 1h 30m",
        "rate_limits.sign_in_per_account=off",
        "rate_limits.register_per_address=1/1s",
    ])
    .unwrap();
    let of = |quota: Option<baton_axum::Quota>| quota.map(|quota| (quota.burst.get(), quota.period));
    assert_eq!(of(read.sign_in.per_address), Some((5, 5_400 * SECOND)));
    assert_eq!(of(read.sign_in.per_account), None);
    assert_eq!(of(read.register.per_address), Some((1, SECOND)));
    assert_eq!(of(read.register.per_account), Some((10, 3_600 * SECOND)));
    assert_eq!(limits(&["rate_limits.enabled=false"]), None);
    // What is switched off is checked all the same.
    assert!(complaints(&set(&["rate_limits.enabled=false", "rate_limits.sign_in_per_address=x"])).contains("period"));
}

#[test]
fn trusted_proxies_are_addresses_and_networks() {
    let config = Config::load(&set(&["server.trusted_proxies=127.0.0.1, 10.1.2.3/8, ::1, fd00::/8"])).unwrap();
    let trusts = |address: &str| config.server.trusted_proxies.contains(address.parse().unwrap());
    for proxy in ["127.0.0.1", "10.0.0.0", "10.255.255.255", "::ffff:10.0.0.1", "::1", "fdff::1"] {
        assert!(trusts(proxy), "{proxy}");
    }
    for other in ["127.0.0.2", "11.0.0.0", "::2", "fe00::1", "0.0.0.0"] {
        assert!(!trusts(other), "{other}");
    }
}

#[test]
fn what_is_accepted_can_be_served() {
    // The library checks names, cookie and origins again; nothing that passes here may fail there.
    for assignments in [
        &["cookie_enabled=true"][..],
        &["cookie_enabled=true", "cookie_name=__Secure-x", "cookie_attributes.path=/app"],
        &[
            "cookie_enabled=true",
            "cookie_name=x",
            "cookie_attributes.secure=false",
            "cookie_attributes.domain=example.com",
        ],
        &["cookie_enabled=true", "cookie_attributes.same_site=none"],
        &["headers_names.access-token=X-Token", "headers_names.authorization=x-authorization"],
        &["server.allowed_origins=https://a.example,http://localhost:5173,http://[::1]:1", "mount=/api/v1/auth"],
        &["rate_limits.sign_in_per_address=1000000/1s", "rate_limits.register_per_account=1/7days"],
        &["server.trusted_proxies=127.0.0.1,10.0.0.0/8,fd00::/8", "rate_limits.sign_in_per_account=off"],
        &["password.parallelism=64", "password.iterations=100"],
        &["mount=/a/user", "realms.admin.mount=/a/admin", "realms.Admin.mount=/A/admin", "realms.x.mount=/a.b"],
        &["cookie_enabled=true", "realms.admin.mount=/admin", "realms.admin.cookie_name=__Secure-admin"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut sources = set(assignments);
        sources.set.push(format!("store.url=sqlite:{}/baton.db", folder.path().display()));
        sources.set.push("server.listen=127.0.0.1:0".into());
        let config = Config::load(&sources).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let keys = baton_core::KeyRing::new(vec![key()]).unwrap();
            let clock = std::sync::Arc::new(baton_store::clock::ManualClock::default());
            let routes = baton_server::Routes::WithDemo;
            let running = baton_server::start(&config, keys, clock, routes).await;
            running.unwrap_or_else(|error| panic!("{assignments:?}: {error}")).stop().await.unwrap();
        });
    }
}

fn key() -> Key {
    Key::new(0, *b"an example key of 32 bytes only!").unwrap()
}

#[test]
fn keys_come_from_the_environment_or_a_file_and_are_never_shown() {
    let line = key().to_line();
    let config = Config::load(&env(&[("BATON_KEYS", &line)])).unwrap();
    assert!(!format!("{config:?}").contains(line.split(' ').nth(1).unwrap()));

    let both = Sources { set: vec!["keys.file=/etc/other.key".into()], ..env(&[("BATON_KEYS", &line)]) };
    assert!(complaints(&both).contains("BATON_KEYS is set as well"));

    let swapped: String = line.split(' ').rev().collect::<Vec<_>>().join(" ");
    for bad in [&*swapped, "", "0", "0 short", &format!("{}\n{}", *line, *line)] {
        let said = complaints(&env(&[("BATON_KEYS", bad)]));
        assert!(said.contains("BATON_KEYS: "), "{said}");
        assert!(!said.contains(line.split(' ').nth(1).unwrap()), "{said}");
    }
    let said = complaints(&set(&[&format!("keys.file={}", *line)]));
    assert!(said.contains("is a key") && !said.contains(line.split(' ').nth(1).unwrap()), "{said}");
}

#[test]
fn the_pepper_is_taken_from_the_environment_or_a_file_and_never_shown() {
    let pepper = |sources: &Sources| {
        let config = Config::load(sources).unwrap();
        let shown = format!("{sources:?} {config:?}");
        assert!(!shown.contains("Sichuan") && !shown.contains("0123456789"), "{shown}");
        config.realms[0].engine.bcrypt_pepper.expose_secret().to_owned()
    };
    assert_eq!(pepper(&Sources::default()), "");
    let variable = "BATON_PASSWORD__BCRYPT_PEPPER";
    // What looks like a number, a list or nothing is a text too.
    for (value, taken) in
        [("Sichuan # 7", "Sichuan # 7"), ("0123456789e5", "0123456789e5"), ("[1]", "[1]"), ("", ""), (" \n", "")]
    {
        assert_eq!(pepper(&env(&[(variable, value)])), taken);
    }
    assert_eq!(pepper(&file("[password]\nbcrypt_pepper = \"Sichuan\"").1), "Sichuan");

    let on_the_line = set(&["password.bcrypt_pepper=Sichuan"]);
    assert!(!format!("{on_the_line:?}").contains("Sichuan"));
    for (sources, why) in [
        (on_the_line, "password.bcrypt_pepper (--set): is a secret"),
        (set(&["password={ bcrypt_pepper = \"Sichuan\" }"]), "is a secret"),
        (set(&["password.bcrypt_peper=Sichuan"]), "did you mean password.bcrypt_pepper?"),
        (env(&[("BATON_BCRYPT_PEPPER", "Sichuan")]), "did you mean password.bcrypt_pepper?"),
    ] {
        let said = complaints(&sources);
        assert!(said.contains(why) && !said.contains("Sichuan"), "{said}");
    }
    for (text, why) in [
        ("[password]\nbcrypt_pepper = [\"Sichuan\"]", ":2): has to be a text"),
        ("[password]\nbcrypt_pepper = \"Sichuan", "is not TOML: line 2: "),
        ("[password]\nbcrypt_pepper = Sichuan", "is not TOML: line 2: "),
        ("[password]\nbcrypt_pepper = 01234567890123456789", "is not TOML: line 2: "),
        ("[password]\nbcrypt_pepper = 90123456789012345678", ":2): is too large for a number"),
        ("[password]\nbcrypt_pepper = 9", ":2): has to be a text"),
    ] {
        let (_folder, sources) = file(text);
        let said = complaints(&sources);
        assert!(said.contains(why), "{said}");
        assert!(!said.contains("Sichuan") && !said.contains("012345") && !said.contains("= 9"), "{said}");
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let missing = Sources { file: Some("/nowhere/baton.toml".into()), ..Sources::default() };
    assert!(complaints(&missing).contains("/nowhere/baton.toml: the file cannot be read"));
    let (_folder, sources) = file("realm = \"a\"\nrealm = \"b\"\n");
    assert!(complaints(&sources).contains("line 2"), "{}", complaints(&sources));
    let (_folder, sources) = file("realm = ");
    assert!(complaints(&sources).contains("is not TOML"));
    let (folder, _) = file("");
    std::fs::write(folder.path().join("binary"), [0xff, 0xfe, 0x00]).unwrap();
    let binary = Sources { file: Some(folder.path().join("binary")), ..Sources::default() };
    assert!(complaints(&binary).contains("cannot be read"));
    assert!(complaints(&set(&["realm"])).contains("has to be key=value"));
}

/// A server that sends letters.
const MAIL: [&str; 3] =
    ["mail.url=smtp://mail.example.com", "mail.from=a@example.com", "mail.public_url=https://auth.example.com"];

#[test]
fn letters_need_settings_that_fit_together() {
    let said = complaints(&set(&["mail.url=smtp://mail.example.com"]));
    assert!(said.contains("mail.from = \"\" (default): is needed") && said.lines().count() == 1, "{said}");
    // What the mail library would refuse at the start is said by `baton config check` already.
    for (assignment, expected) in [
        ("mail.url=smtp:/", "mail.url = \"smtp:/\" (--set): has to be smtp://HOST, smtps://HOST or"),
        ("mail.url=http://mail.example.com", "has to be smtp://HOST"),
        ("mail.url=smtp://mail.example.com/queue", "has to be smtp://HOST"),
        ("mail.url=mail.example.com:25", "has to be smtp://HOST"),
        ("mail.from=Ann", "mail.from = \"Ann\" (--set): `from` has to be an address"),
        ("mail.reply_to=ann at home", "mail.reply_to = \"ann at home\" (--set): `reply_to` has to be an address"),
        ("mail.hello_name=a b", "mail.hello_name = \"a b\" (--set): `hello_name` has to be the name of a host"),
        ("mail.ca_file=/nowhere.pem", "mail.ca_file = \"/nowhere.pem\" (--set): /nowhere.pem: No such file"),
        ("mail.ca_file=/dev/null", "/dev/null: holds no certificates in PEM form"),
        ("mail.username=postman", "mail.username = \"postman\" (--set): has to be set together with mail.password"),
    ] {
        let said = complaints(&set(&[&MAIL[..], &[assignment]].concat()));
        assert!(said.contains(expected) && said.lines().count() == 1, "{assignment}: {said}");
    }
    let password = |value: &str| Sources { env: env(&[("BATON_MAIL__PASSWORD", value)]).env, ..set(&MAIL) };
    let said = complaints(&password("pigeon"));
    assert!(said.contains("mail.username") && said.lines().count() == 1 && !said.contains("pigeon"), "{said}");
    let mut both = password("pigeon");
    both.set.push("mail.username=postman".into());
    let config = Config::load(&both).unwrap();
    assert_eq!(config.mail.smtp.as_ref().unwrap().login.as_ref().unwrap().password.expose_secret(), "pigeon");
    assert!(!format!("{both:?} {config:?}").contains("pigeon"));

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("en.toml"), "greeting = \"Hi,\"\nfooter = \"{{ emial }}\"\n").unwrap();
    let said = complaints(&set(&[&format!("mail.templates={}", folder.path().display())]));
    assert!(said.contains("mail.templates = ") && said.contains("en.toml:2: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn accounts_are_confirmed_where_letters_are_sent() {
    let required =
        |assignments: &[&str]| Config::load(&set(assignments)).unwrap().realms[0].engine.confirmation.required;
    assert!(!required(&[]) && required(&MAIL));
    assert!(required(&["confirmable=true"]) && !required(&[&MAIL[..], &["confirmable=false"]].concat()));
    assert_eq!(unsafe_in_production(&MAIL), "");
    assert_eq!(unsafe_in_production(&[&MAIL[..], &["mail.public_url=https://example.com/api/"]].concat()), "");
    for url in ["smtp+plain://localhost", "smtp+plain://127.0.0.1:25", "smtp+plain://[::1]", "smtps://mail.example.com"]
    {
        let url = format!("mail.url={url}");
        assert_eq!(unsafe_in_production(&[&MAIL[..], &[&url]].concat()), "");
    }
}

#[test]
fn events_are_posted_signed_or_not_at_all() {
    let said = complaints(&set(&["webhooks.urls=https://hooks.example.com/baton"]));
    assert!(said.contains("webhooks.secret (default): webhooks need a secret") && said.lines().count() == 1, "{said}");
    for (secret, why) in [("whsec_c2hvcnQ=", "24 to 64"), ("none", "whsec_"), ("whsec_!!!", "base64")] {
        let env = vec![("BATON_WEBHOOKS__SECRET".to_owned(), secret.to_owned())];
        let said = complaints(&Sources { env, ..set(&["webhooks.urls=https://hooks.example.com"]) });
        assert!(said.contains("webhooks.secret (BATON_WEBHOOKS__SECRET)") && said.contains(why), "{said}");
        assert!(!said.contains("c2hvcnQ") && !said.contains("!!!"), "{said}");
    }
    for url in ["http://hooks.example.com", "ftp://hooks.example.com", "https://a@hooks.example.com", "hooks"] {
        let said = complaints(&set(&[&format!("webhooks.urls={url}")]));
        assert!(said.contains("webhooks.urls ="), "{url}: {said}");
    }
}

#[test]
fn every_unsafe_setting_is_refused_in_production() {
    assert_eq!(unsafe_in_production(&[]), "");
    let cases: [(&[&str], &str); 16] = [
        (&["batch_request_buffer_throttle=61"], "batch_request_buffer_throttle = \"61\" (--set): is longer than 1m"),
        (&["batch_request_buffer_throttle=5", "token_lifespan=5"], "is not shorter than token_lifespan"),
        (
            &["token_lifespan=31 days"],
            "session_max_lifetime = \"30 days\" (default): is shorter than token_lifespan (31 days)",
        ),
        (
            &["cookie_enabled=true", "cookie_name=c", "cookie_attributes.secure=false"],
            "cookie_attributes.secure = \"false\" (--set): sends tokens over connections that anybody can read",
        ),
        (&["cookie_enabled=true", "cookie_attributes.http_only=false"], "lets every script of the page read the token"),
        (&["server.allowed_localhost_origins=true"], "it is for `baton dev`"),
        (&["confirmable=true"], "confirmable = \"true\" (--set): needs somebody who sends the letters: set mail.url"),
        (&["redirect_allow_localhost=true"], "it is for `baton dev`"),
        (
            &["lockable.enabled=true", "lockable.unlock_after=never"],
            "lockable.unlock_after = \"never\" (--set): leaves no way to lift a lock",
        ),
        (
            &["mail.url=smtps://mail.example.com", "mail.from=a@example.com"],
            "mail.public_url = \"\" (default): is needed with mail.url",
        ),
        (
            &[&MAIL[..], &["mail.public_url=http://auth.example.com"]].concat(),
            "mail.public_url = \"http://auth.example.com\" (--set): has to begin with https://",
        ),
        (
            &[&MAIL[..], &["mail.url=smtp+plain://mail.example.com"]].concat(),
            "mail.url = \"smtp+plain://mail.example.com\" (--set): sends letters, and the links in them, over connections",
        ),
        (
            &[&MAIL[..], &["lockable={ enabled = true, unlock_after = \"never\", by_mail = false }"]].concat(),
            "leaves no way to lift a lock",
        ),
        (&["password.min_length=7"], "has to be at least 8"),
        (&["password.max_length=63"], "has to be at least 64"),
        (
            &["password.min_length=1", "password.max_length=10", "server.allowed_localhost_origins=true"],
            "password.max_length",
        ),
    ];
    for (assignments, expected) in cases {
        let said = unsafe_in_production(assignments);
        assert!(said.contains(expected), "{assignments:?}: {said:?}");
    }
    let all = unsafe_in_production(&[
        "password.min_length=1",
        "password.max_length=10",
        "server.allowed_localhost_origins=true",
    ]);
    assert_eq!(all.lines().count(), 3, "{all}");
}

#[test]
fn what_is_allowed_and_doubtful_is_warned_about() {
    let warnings = |assignments: &[&str]| {
        let config = Config::load(&set(assignments)).unwrap();
        assert!(config.check_production().is_ok());
        config.warnings().iter().map(|warning| warning.key.clone()).collect::<Vec<_>>()
    };
    assert!(warnings(&[]).is_empty());
    assert_eq!(warnings(&["change_headers_on_each_request=false"]), ["change_headers_on_each_request"]);
    assert_eq!(warnings(&["batch_request_buffer_throttle=0"]), ["batch_request_buffer_throttle"]);
    assert_eq!(warnings(&["password.min_score=0"]), ["password.min_score"]);
    assert_eq!(warnings(&["password.min_score=1"]), [] as [&str; 0]);
    assert_eq!(warnings(&["server.trusted_proxies=10.0.0.0/8"]), [] as [&str; 0]);
    for everybody in ["0.0.0.0/0", "::/0", "10.0.0.1,0.0.0.0/0"] {
        assert_eq!(warnings(&[&format!("server.trusted_proxies={everybody}")]), ["server.trusted_proxies"]);
    }
    assert_eq!(warnings(&["credentials_in_params=true"]), ["credentials_in_params"]);
    assert_eq!(warnings(&["redirect_allowlist=https://a.example,http://b.example"]), ["redirect_allowlist"]);
    assert_eq!(warnings(&["default_unlock_success_url=http://a.example/"]), ["default_unlock_success_url"]);
    let safe = ["redirect_allowlist=https://a.example,myapp://back", "default_confirm_success_url=https://a.example/"];
    assert_eq!(warnings(&safe), [] as [&str; 0]);
}

#[test]
fn development_is_for_this_machine_alone() {
    let dev = |listen: &str| Config::load(&set(&[&format!("server.listen={listen}")])).unwrap().check_dev();
    for here in ["127.0.0.1:0", "127.9.9.9:80", "[::1]:3000", "localhost:3000"] {
        assert!(dev(here).is_ok(), "{here}");
    }
    for there in ["0.0.0.0:3000", "[::]:3000", "192.168.1.2:80", "8.8.8.8:80"] {
        let said = dev(there).unwrap_err().to_string();
        assert!(said.contains("server.listen") && said.contains("loopback addresses only"), "{said}");
    }
}

/// Names of all settings, as they stand in the documented file.
fn names() -> Vec<String> {
    let mut table = String::new();
    let mut names = Vec::new();
    for line in DEFAULT_FILE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            names.push(format!("{table}{name}"));
        }
    }
    names
}

proptest! {
    /// Whatever is typed: it is taken, or refused under its name; never a panic, and never taken for another setting.
    #[test]
    fn any_value_is_taken_or_refused_by_name(
        name in proptest::sample::select(names()),
        value in prop_oneof![
            any::<i64>().prop_map(|number| number.to_string()),
            any::<f64>().prop_map(|number| number.to_string()),
            "[0-9]{1,25}(ns|us|ms|s|m|h|days|weeks|years)?",
            "\\PC{0,20}",
            "[\\[{\"'=,#\\n a-z]{0,12}",
        ],
    ) {
        match Config::load(&set(&[&format!("{name}={value}")])) {
            Ok(config) => {
                let _ = (config.check_production(), config.check_dev(), config.warnings());
            }
            Err(problems) => {
                // A cookie or a password bound may be refused for what the other settings are.
                let table = name.split('.').next().unwrap_or_default();
                let related = |key: &str| key.starts_with(table) || key.starts_with("cookie") && name.starts_with("cookie");
                prop_assert!(problems.iter().all(|problem| related(&problem.key)), "{name}={value}: {problems}");
            }
        }
    }
}

#[test]
fn backends_are_checked_as_well() {
    for (table, why) in [
        ("", "upstream[1].targets = [] (default): has to name at least one address"),
        ("targets = ['127.0.0.1:8000']", "\"127.0.0.1:8000\" is not an http or https address"),
        ("targets = ['http://a/b']", "\"http://a/b\" is not an http or https address"),
        ("path = 'things'", "upstream[1].path = \"things\" (--set): has to be a path such as"),
        ("path = '/a/../b'", "upstream[1].path"),
        ("path = '/auth/things'", "is below /auth, where the auth routes are"),
        ("host = 'a:80'", "has to be the name of a host, without a port"),
        ("require = 'admin'", "has to be \"any\", \"optional\", \"none\" or the name of a realm: \"user\""),
        ("response_timeout = 0", "upstream[1].response_timeout"),
        ("health_path = 'up'", "has to be a path such as"),
        ("jwt_audience = 7", "upstream[1].jwt_audience = 7 (--set): has to be a text"),
        ("jwt_header = 'cookie'", "has to be one of \"x-auth-jwt\", \"authorization\""),
        ("jwt_audience = 'things', require = 'none'", "with require = \"none\" nobody is looked at"),
        ("colour = 'red'", "upstream[1].colour (--set): there is no such setting"),
    ] {
        let said = complaints(&set(&[&format!("upstream=[{{ {table} }}]")]));
        assert!(said.contains(why), "{table}: {said}");
    }
    let twice = complaints(&set(&["upstream=[{ targets = ['http://a'] }, { targets = ['http://b'], path = '/' }]"]));
    assert!(twice.contains("upstream[2]: is for the same host and path as upstream[1]"), "{twice}");
    for (assignment, why) in [
        ("jwt.keys_file=", "jwt.keys_file = \"\" (--set): must not be empty"),
        ("jwt.lifetime=9s", "has to be from 10s to 1h"),
        ("jwt.lifetime=2h", "has to be from 10s to 1h"),
        ("realms.admin.jwt.lifetime=1m", "realms.admin.jwt.lifetime (--set): is the whole server's"),
    ] {
        let said = complaints(&set(&[assignment]));
        assert!(said.contains(why), "{assignment}: {said}");
    }
}
