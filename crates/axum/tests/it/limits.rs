//! Rate limits, with a clock that stands still until it is moved.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use baton_axum::{ClientAddr, HttpSettings, Origins, Quota, Quotas, RateLimits, Scopes, auth_routes};
use baton_engine::Settings;
use baton_store::clock::ManualClock;
use baton_store::memory::MemoryStore;
use http::Method;
use serde_json::json;

use crate::support::{Answer, PASSWORD, START, TestApp};

const MINUTE: Duration = Duration::from_secs(60);
const HERE: &str = "192.0.2.1";
const ELSEWHERE: &str = "192.0.2.2";

fn quota(burst: u32, period: Duration) -> Option<Quota> {
    Some(Quota { burst: NonZeroU32::new(burst).expect("not zero"), period })
}

/// No limits but these.
fn sign_in(per_address: Option<Quota>, per_account: Option<Quota>) -> Quotas {
    Quotas { sign_in: Scopes { per_address, per_account }, ..Quotas::NONE }
}

/// A server that takes the client's address from `x-from`.
fn app(quotas: Quotas) -> TestApp {
    let clock = Arc::new(ManualClock::new(START));
    let http = HttpSettings {
        origins: Origins { exact: vec!["https://app.example.com".into()], localhost: false },
        rate_limits: Some(RateLimits { quotas, clock: clock.clone() }),
        ..HttpSettings::default()
    };
    let store = Arc::new(MemoryStore::new(clock.clone()));
    TestApp::serving(store, clock, Settings::default(), http, |_, auth| {
        auth_routes("/auth", auth).layer(auth.cors()).layer(from_fn(from_header))
    })
}

async fn from_header(mut request: Request, next: Next) -> Response {
    let from = request.headers().get("x-from").and_then(|value| value.to_str().ok()?.parse::<IpAddr>().ok());
    if let Some(from) = from {
        request.extensions_mut().insert(ClientAddr(from));
    }
    next.run(request).await
}

impl TestApp {
    fn tries(&self, from: &str, email: &str, password: &str) -> Answer {
        self.post("/auth/sign_in", &json!({ "email": email, "password": password })).header("x-from", from).send()
    }

    fn registers(&self, from: &str, email: &str) -> Answer {
        let body = json!({ "email": email, "password": PASSWORD });
        self.post("/auth", &body).header("x-from", from).send()
    }

    fn hashed(&self) -> u64 {
        self.auth.engine().hashing_load().computed
    }
}

/// It is refused, for so many seconds, by this policy.
#[track_caller]
fn assert_limited(answer: &Answer, seconds: u64, policy: &str, quota: &str) {
    assert_eq!(answer.refusal(), (429, "rate_limited".into()), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some(&*seconds.to_string()), "{answer:?}");
    assert_eq!(answer.header("ratelimit-policy"), Some(&*format!("\"{policy}\";{quota}")), "{answer:?}");
    assert_eq!(answer.header("ratelimit"), Some(&*format!("\"{policy}\";r=0;t={seconds}")), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.has_no_auth_headers(), "{answer:?}");
}

#[test]
fn an_address_is_limited_and_recovers_one_by_one() {
    let app = app(sign_in(quota(3, MINUTE), None));
    app.register("ann@example.com");
    let limited = |answer: &Answer, seconds| assert_limited(answer, seconds, "sign_in_per_address", "q=3;w=60");
    for email in ["a@example.com", "b@example.com", "c@example.com"] {
        assert_eq!(app.tries(HERE, email, "wrong").status, 401);
    }
    // Whoever it tries next, and with the right password too.
    limited(&app.tries(HERE, "ann@example.com", PASSWORD), 20);
    assert_eq!(app.tries(ELSEWHERE, "ann@example.com", PASSWORD).status, 200);
    // Rounded up: what is told is always enough.
    app.advance(Duration::from_millis(1_001));
    limited(&app.tries(HERE, "ann@example.com", PASSWORD), 19);
    app.advance(Duration::from_millis(18_998));
    limited(&app.tries(HERE, "ann@example.com", PASSWORD), 1);
    app.advance(Duration::from_millis(1));
    assert_eq!(app.tries(HERE, "ann@example.com", PASSWORD).status, 200);
    limited(&app.tries(HERE, "ann@example.com", PASSWORD), 20);
    // After a period without an attempt it is as on the first day, and not better.
    app.advance(100 * MINUTE);
    for _ in 0..3 {
        assert_eq!(app.tries(HERE, "ann@example.com", PASSWORD).status, 200);
    }
    limited(&app.tries(HERE, "ann@example.com", PASSWORD), 20);
}

#[test]
fn waiting_for_retry_after_is_always_enough() {
    let app = app(sign_in(quota(7, Duration::from_secs(10)), None));
    for _ in 0..7 {
        app.tries(HERE, "ann@example.com", "wrong");
    }
    for _ in 0..10 {
        let answer = app.tries(HERE, "ann@example.com", "wrong");
        if answer.status == 429 {
            app.advance(Duration::from_secs(answer.header("retry-after").unwrap().parse().unwrap()));
            assert_eq!(app.tries(HERE, "ann@example.com", "wrong").status, 401);
        }
        app.advance(Duration::from_millis(137));
    }
}

#[test]
fn an_account_is_limited_from_wherever_it_is_tried_and_no_other_is() {
    let app = app(sign_in(None, quota(2, MINUTE)));
    app.register("ann@example.com");
    app.register("bob@example.com");
    // Another spelling of the address is the same account.
    assert_eq!(app.tries(HERE, "ann@example.com", "wrong").status, 401);
    assert_eq!(app.tries(ELSEWHERE, " ANN@Example.COM ", "wrong").status, 401);
    let answer = app.tries("2001:db8::1", "ann@example.com", PASSWORD);
    assert_limited(&answer, 30, "sign_in_per_account", "q=2;w=60");
    assert_eq!(app.tries(HERE, "bob@example.com", PASSWORD).status, 200);
    // Nobody stays locked out: it recovers by itself while the attempts go on.
    for _ in 0..20 {
        app.advance(Duration::from_secs(29));
        assert_eq!(app.tries(HERE, "ann@example.com", "wrong").status, 429);
        app.advance(Duration::from_secs(1));
        assert_eq!(app.tries(ELSEWHERE, "ann@example.com", PASSWORD).status, 200);
        assert_eq!(app.tries(HERE, "ann@example.com", "wrong").status, 401);
    }
}

#[test]
fn sign_ins_that_succeed_do_not_count_for_the_account() {
    let app = app(sign_in(None, quota(2, MINUTE)));
    app.register("ann@example.com");
    assert_eq!(app.tries(HERE, "ann@example.com", "wrong").status, 401);
    for _ in 0..5 {
        assert_eq!(app.tries(HERE, "ann@example.com", PASSWORD).status, 200);
    }
    assert_eq!(app.tries(HERE, "ann@example.com", "wrong").status, 401);
    assert_eq!(app.tries(HERE, "ann@example.com", "wrong").status, 429);
}

#[test]
fn known_and_unknown_accounts_are_answered_alike() {
    let app = app(sign_in(None, quota(3, MINUTE)));
    app.register("known@example.com");
    for status in [401, 401, 401, 429, 429] {
        let [known, unknown] = ["known@example.com", "unknown@example.com"].map(|email| {
            let mut answer = app.tries(HERE, email, "wrong");
            answer.headers.remove("date");
            answer
        });
        assert_eq!((known.status, unknown.status), (status, status));
        assert_eq!((known.text, known.headers), (unknown.text, unknown.headers));
    }
}

#[test]
fn a_limited_request_costs_no_hash() {
    let app = app(Quotas {
        sign_in: Scopes { per_address: quota(4, MINUTE), per_account: quota(2, MINUTE) },
        register: Scopes { per_address: quota(2, MINUTE), per_account: quota(1, MINUTE) },
        ..Quotas::NONE
    });
    assert_eq!(app.registers(HERE, "ann@example.com").status, 200);
    assert_eq!(app.hashed(), 1);
    for _ in 0..3 {
        app.tries(HERE, "ann@example.com", "wrong");
    }
    assert_eq!(app.hashed(), 3, "two of the three were let through");
    app.tries(HERE, "bob@example.com", "wrong");
    assert_eq!(app.hashed(), 4);
    assert_eq!(app.tries(HERE, "cid@example.com", "wrong").status, 429);
    assert_eq!(app.registers(ELSEWHERE, "ann@example.com").status, 429);
    assert_eq!(app.registers(HERE, "bob@example.com").status, 200);
    assert_eq!(app.registers(HERE, "cid@example.com").status, 429);
    assert_eq!(app.hashed(), 5);
}

#[test]
fn registrations_have_limits_of_their_own_and_their_own_shape() {
    let hour = 60 * MINUTE;
    let app = app(Quotas {
        sign_in: Scopes { per_address: quota(1, MINUTE), per_account: None },
        register: Scopes { per_address: quota(2, hour), per_account: None },
        ..Quotas::NONE
    });
    assert_eq!(app.tries(HERE, "ann@example.com", "wrong").status, 401);
    assert_eq!(app.tries(HERE, "ann@example.com", "wrong").json()["success"], false);
    assert_eq!(app.registers(HERE, "ann@example.com").status, 200);
    // One that fails counts too.
    assert_eq!(app.registers(HERE, "no address").status, 422);
    let answer = app.registers(HERE, "bob@example.com");
    assert_limited(&answer, 1_800, "register_per_address", "q=2;w=3600");
    let body = answer.json();
    assert_eq!((&body["success"], &body["status"]), (&false.into(), &"error".into()));
    assert_eq!(body["errors"], json!(["Too many attempts. Try again in 1800 s."]));
    // Signed-in requests are not limited.
    let held = app.registers(ELSEWHERE, "bob@example.com").held().unwrap();
    for _ in 0..5 {
        assert_eq!(app.get("/auth/validate_token").held(&held).header("x-from", HERE).send().status, 200);
    }
}

#[test]
fn an_ipv6_network_is_one_client() {
    let app = app(sign_in(quota(2, MINUTE), None));
    assert_eq!(app.tries("2001:db8:0:1::1", "a@example.com", "wrong").status, 401);
    assert_eq!(app.tries("2001:db8:0:1:dead:beef::1", "a@example.com", "wrong").status, 401);
    assert_eq!(app.tries("2001:db8:0:1::3", "a@example.com", "wrong").status, 429);
    assert_eq!(app.tries("2001:db8:0:2::3", "a@example.com", "wrong").status, 401);
}

#[test]
fn attempts_without_credentials_count_for_the_address() {
    let app = app(sign_in(quota(2, MINUTE), quota(1, MINUTE)));
    for status in [401, 401, 429] {
        assert_eq!(app.post("/auth/sign_in", &json!({})).header("x-from", HERE).send().status, status);
    }
}

#[test]
fn a_page_of_another_origin_can_see_how_long_to_wait() {
    let app = app(sign_in(quota(1, MINUTE), None));
    let call = || {
        app.post("/auth/sign_in", &json!({ "email": "a@example.com", "password": "wrong" }))
            .header("origin", "https://app.example.com")
            .send()
    };
    assert_eq!(call().status, 401);
    let answer = call();
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
    let exposed = answer.all("access-control-expose-headers").join(",").to_lowercase();
    for name in ["retry-after", "ratelimit", "ratelimit-policy", "access-token"] {
        assert!(exposed.split(',').any(|exposed| exposed.trim() == name), "{name} in {exposed}");
    }
}

#[test]
fn there_are_no_limits_unless_asked_for() {
    let app = TestApp::start();
    for _ in 0..40 {
        assert_eq!(app.tries(HERE, "ann@example.com", "wrong").status, 401);
    }
}

#[test]
fn the_defaults_bear_a_person_and_not_a_program() {
    let app = app(Quotas::default());
    app.register("ann@example.com");
    for _ in 0..10 {
        assert_eq!(app.tries(HERE, "ann@example.com", "wrong").status, 401);
    }
    assert_limited(&app.tries(HERE, "ann@example.com", "wrong"), 6, "sign_in_per_account", "q=10;w=60");
    for n in 0..19 {
        assert_eq!(app.tries(HERE, &format!("{n}@example.com"), "wrong").status, 401, "{n}");
    }
    assert_limited(&app.tries(HERE, "bob@example.com", "wrong"), 2, "sign_in_per_address", "q=30;w=60");
}

/// Guessing the current password from a session counts like guessing it at sign-in; the right one does not.
#[test]
fn the_current_password_cannot_be_guessed_from_a_session() {
    let app = app(sign_in(None, quota(2, MINUTE)));
    let first = app.register("ann@example.com");
    let held = app.get_as(&first, "/auth/validate_token").send().held().expect("the token after it");
    let change = |current: &str| {
        let body = json!({ "name": "Ann", "current_password": current });
        app.request(Method::PUT, "/auth").held(&held).json(&body).send()
    };
    for _ in 0..3 {
        assert_eq!(change(PASSWORD).status, 200);
    }
    for guess in ["wrong", "wrong too"] {
        assert_eq!(change(guess).status, 422);
    }
    let hashed = app.hashed();
    let answer = change(PASSWORD);
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("30"));
    assert_eq!(app.tries(HERE, "ann@example.com", PASSWORD).status, 429, "it is one limit");
    assert_eq!(app.hashed(), hashed);
    app.advance(Duration::from_secs(30));
    assert_eq!(change(PASSWORD).status, 200);
}
