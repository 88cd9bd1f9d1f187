//! Rate limits and the client's address, with the real program. Periods are so long that no bucket fills up meanwhile.

use serde_json::json;

use crate::support::{Answer, Baton, PASSWORD};

const LIMITED: [&str; 2] = ["--set=rate_limits.enabled=true", "--set=rate_limits.sign_in_per_address=2/7days"];

/// A sign-in that fails, with this header.
fn tries(baton: &Baton, name: &str, value: &str) -> Answer {
    baton.post("/auth/sign_in", &json!({ "email": "ann@example.com", "password": "wrong" })).header(name, value).send()
}

#[test]
fn a_trusted_proxy_says_who_calls() {
    let baton = Baton::dev(&[LIMITED[0], LIMITED[1], "--set=server.trusted_proxies=127.0.0.1,10.0.0.0/8"]);
    let from = |value: &str| tries(&baton, "x-forwarded-for", value).status;
    // What the client claims stands further left, and changes from request to request.
    assert_eq!(from("6.6.6.1, 192.0.2.1"), 401);
    assert_eq!(from("6.6.6.2, 192.0.2.1, 10.0.0.2"), 401);
    assert_eq!(from("6.6.6.3, 192.0.2.1"), 429);
    assert_eq!(tries(&baton, "forwarded", "for=6.6.6.4, for=\"192.0.2.1:4711\"").status, 429);
    assert_eq!(from("192.0.2.2"), 401);

    // The list of devices shows the same address.
    let call = baton.sign_in_call("ann@example.com");
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(baton.post("/auth", &body).header("x-forwarded-for", "192.0.2.3").send().status, 200);
    let held = call.header("forwarded", "for=\"[2001:db8::7]\"").send().held().unwrap();
    let sessions = baton.get("/auth/sessions").held(&held).header("x-forwarded-for", "192.0.2.4").send().json();
    let mut addresses: Vec<_> = sessions["data"].as_array().unwrap().iter().map(|session| &session["ip"]).collect();
    addresses.sort_by_key(ToString::to_string);
    assert!(!baton.log().contains("not in server.trusted_proxies"), "{}", baton.log());
    assert_eq!(addresses[0], "192.0.2.3");
    assert!(["2001:db8::7", "192.0.2.4"].iter().any(|address| addresses[1] == address), "{sessions}");
}

#[test]
fn nobody_else_does() {
    let baton = Baton::dev(&LIMITED);
    assert_eq!(tries(&baton, "x-forwarded-for", "192.0.2.1").status, 401);
    assert_eq!(tries(&baton, "forwarded", "for=192.0.2.2").status, 401);
    let answer = tries(&baton, "x-forwarded-for", "192.0.2.3");
    assert_eq!((answer.status, &*answer.code()), (429, "rate_limited"));
    assert_eq!(answer.header("ratelimit-policy"), "\"sign_in_per_address\";q=2;w=604800");
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=302_400).contains(&seconds), "{seconds}");
    assert_eq!(answer.header("ratelimit"), format!("\"sign_in_per_address\";r=0;t={seconds}"));
    // Once, for whoever forgot to name the proxy.
    baton.wait_for_log("not in server.trusted_proxies");
    baton.stop();
    assert_eq!(baton.log().matches("not in server.trusted_proxies").count(), 1, "{}", baton.log());
}

#[test]
fn while_developing_they_do_not_bite() {
    let baton = Baton::dev(&["--set=rate_limits.sign_in_per_address=1/7days"]);
    for _ in 0..3 {
        assert_eq!(tries(&baton, "x-any", "thing").status, 401);
    }
}
