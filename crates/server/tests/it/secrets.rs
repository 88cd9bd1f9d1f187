//! Nothing that is secret is ever logged.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{Answer, Baton, PASSWORD};

const WRONG_PASSWORD: &str = "wrong horse battery";

/// Every secret that went over the wire or is kept in a file.
#[derive(Default)]
struct Secrets(BTreeSet<String>);

impl Secrets {
    fn seen_in(&mut self, answer: &Answer) {
        self.add(answer.header("access-token"));
        self.add(answer.header("authorization").trim_start_matches("Bearer "));
        for cookie in answer.headers.get_all("set-cookie") {
            let value = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap().1;
            self.add(value);
        }
    }

    fn add(&mut self, secret: &str) {
        if !secret.is_empty() {
            self.0.insert(secret.to_owned());
        }
    }
}

fn a_whole_session(format: &str) {
    let baton = Baton::dev(&[
        "--set",
        "log.level=trace",
        "--set",
        &format!("log.format={format}"),
        "--set",
        "batch_request_buffer_throttle=0",
        "--set",
        "forgive_lost_responses=true",
        "--set",
        "cookie_enabled=true",
        "--set",
        "cookie_only=false",
        "--set",
        "credentials_in_params=true",
    ]);
    let mut secrets = Secrets::default();
    secrets.add(PASSWORD);
    secrets.add(WRONG_PASSWORD);
    let key_file = std::fs::read_to_string(baton.folder().join("secret.key")).unwrap();
    for line in key_file.lines().filter(|line| !line.starts_with('#')) {
        secrets.add(line.split(' ').nth(1).unwrap());
    }

    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "password_confirmation": PASSWORD });
    let registered = baton.post("/auth", &body).send();
    secrets.seen_in(&registered);
    secrets.seen_in(&baton.post("/auth", &body).send());
    let signed_in = baton.post("/auth/sign_in", &body).send();
    secrets.seen_in(&signed_in);
    let mut held = signed_in.held().unwrap();
    let first = held.clone();
    for path in
        ["/demo/members_only", "/demo/slow?ms=1", "/demo/status?code=500", "/auth/validate_token", "/auth/sessions"]
    {
        let answer = baton.get(path).held(&held).send();
        secrets.seen_in(&answer);
        assert!(held.adopt(&answer), "{path}: {answer:?}");
    }
    // By every other way in.
    let query = format!("/demo/members_only?access-token={}&client={}&uid=ann%40example.com", held.token, held.client);
    let by_query = baton.get(&query).send();
    assert_eq!(by_query.status, 200);
    secrets.seen_in(&by_query);
    let bearer = by_query.header("authorization").to_owned();
    let by_bearer = baton.get("/demo/members_only").header("authorization", &bearer).send();
    assert_eq!(by_bearer.status, 200);
    secrets.seen_in(&by_bearer);
    let cookie = by_bearer.headers.get("set-cookie").unwrap().to_str().unwrap().split(';').next().unwrap().to_owned();
    let by_cookie = baton.get("/demo/members_only").header("cookie", &cookie).send();
    assert_eq!(by_cookie.status, 200);
    secrets.seen_in(&by_cookie);
    held.adopt(&by_cookie);

    // And where it goes wrong.
    assert_eq!(baton.members_only(&first).status, 401);
    let forged = format!("E{}", &first.token[1..].chars().rev().collect::<String>());
    secrets.add(&forged);
    assert_eq!(baton.members_only(&crate::support::Held { token: forged, ..first }).status, 401);
    baton.post("/auth/sign_in", &json!({ "email": "ann@example.com", "password": WRONG_PASSWORD })).send();
    baton.post("/auth/sign_in", &json!({ "email": "nobody@example.com", "password": WRONG_PASSWORD })).send();
    let broken = format!("{{\"email\":\"ann@example.com\",\"password\":\"{PASSWORD}\"");
    baton.request("POST", "/auth/sign_in").body("application/json", broken).send();
    baton.request("GET", &format!("/nowhere?password={}", WRONG_PASSWORD.replace(' ', "+"))).send();
    secrets.add(&WRONG_PASSWORD.replace(' ', "+"));
    secrets.seen_in(&baton.request("DELETE", "/auth/sign_out").held(&held).send());
    baton.members_only(&held);
    baton.stop();

    let log = baton.log();
    assert!(log.contains("/demo/members_only") && log.contains("superseded"), "{log}");
    assert!(secrets.0.len() > 25, "{}", secrets.0.len());
    for secret in &secrets.0 {
        assert!(!log.contains(secret.as_str()), "{secret:?} is in the log:\n{log}");
    }
}

#[test]
fn the_log_for_people_holds_no_secret() {
    a_whole_session("human");
}

#[test]
fn the_log_for_machines_holds_no_secret() {
    a_whole_session("json");
}
