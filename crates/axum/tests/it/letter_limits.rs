//! How often letters may be asked for.

use std::time::Duration;

use serde_json::json;

use crate::letterbox::{ANN, APP, HOUR, Link, Mailed, NEW, Parts, everything};
use crate::support::Answer;

const PATHS: [(&str, &str); 3] =
    [("/auth/password", "reset"), ("/auth/confirmation", "confirm"), ("/auth/unlock", "unlock")];

fn app() -> Mailed {
    let mut settings = everything();
    settings.reset.require_client_token = true;
    Parts { settings: Some(settings), limited: true, ..Parts::default() }.start()
}

fn asks(app: &Mailed, path: &str, email: &str, from: &str) -> Answer {
    let body = json!({ "email": email, "redirect_url": APP });
    app.post_to(path, &body).header("x-from", from).send()
}

#[track_caller]
fn assert_limited(answer: &Answer, policy: &str, seconds: u64) {
    assert_eq!(answer.refusal(), (429, "rate_limited".into()), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some(&*seconds.to_string()), "{answer:?}");
    assert!(answer.header("ratelimit-policy").is_some_and(|named| named.contains(policy)), "{answer:?}");
    assert_eq!(answer.json()["success"], false);
}

#[test]
fn an_account_is_written_to_five_times_an_hour_however_it_is_spelt() {
    const SPELLINGS: [&str; 5] =
        ["ann@example.com", "ANN@example.com", " ann@example.com", "ann@Example.Com\t", "\u{a0}aNN@EXAMPLE.COM\n"];
    for known in [true, false] {
        let app = app();
        if known {
            app.enrol(ANN);
            app.letters();
        }
        for (path, name) in PATHS {
            for (number, email) in SPELLINGS.into_iter().enumerate() {
                assert_eq!(asks(&app, path, email, &format!("192.0.2.{number}")).status, 200, "{path} {email:?}");
            }
            for email in SPELLINGS {
                let answer = asks(&app, path, email, "198.51.100.7");
                assert_limited(&answer, &format!("{name}_per_account"), 12 * 60);
            }
            assert_eq!(asks(&app, path, "bob@example.com", "198.51.100.7").status, 200, "nobody else");
        }
        assert_eq!(app.letters().len(), if known { 15 } else { 0 });
        app.advance(Duration::from_secs(12 * 60));
        for (path, name) in PATHS {
            assert_eq!(asks(&app, path, ANN, "203.0.113.1").status, 200, "{path}");
            assert_limited(&asks(&app, path, ANN, "203.0.113.1"), &format!("{name}_per_account"), 12 * 60);
        }
    }
}

#[test]
fn an_address_asks_ten_times_an_hour_for_whom_it_likes() {
    let app = app();
    for (path, name) in PATHS {
        for number in 0..10 {
            assert_eq!(asks(&app, path, &format!("{number}@example.com"), "192.0.2.1").status, 200, "{path}");
        }
        let limited = asks(&app, path, "10@example.com", "192.0.2.1");
        assert_limited(&limited, &format!("{name}_per_address"), 6 * 60);
        assert_eq!(asks(&app, path, "10@example.com", "192.0.2.2").status, 200);
        // One customer has 2^64 of these.
        for number in 0..10 {
            assert_eq!(
                asks(&app, path, "x@example.org", &format!("2001:db8::{number}")).status,
                if number < 5 { 200 } else { 429 }
            );
        }
        assert_eq!(asks(&app, path, "y@example.org", "2001:db8::ffff:1").status, 429, "{path}");
    }
    app.advance(HOUR);
    assert_eq!(asks(&app, "/auth/password", "11@example.com", "192.0.2.1").status, 200);
}

#[test]
fn requests_that_are_refused_count_for_the_address() {
    let app = app();
    for number in 0..10 {
        let body = match number % 3 {
            0 => json!({}),
            1 => json!({ "email": ANN }),
            _ => json!({ "email": "b@example.com", "redirect_url": "https://evil.example" }),
        };
        let answer = app.post_to("/auth/password", &body).header("x-from", "192.0.2.1").send();
        assert!(matches!(answer.status, 401 | 422), "{answer:?}");
    }
    assert_limited(&asks(&app, "/auth/password", "c@example.com", "192.0.2.1"), "reset_per_address", 6 * 60);
}

#[test]
fn guessing_at_tokens_of_links_is_limited_where_it_costs_something() {
    let app = app();
    app.enrol(ANN);
    app.letters();
    let link: Link = app.asked("/auth/password", ANN);
    let body = |token: &str| json!({ "password": NEW, "password_confirmation": NEW, "reset_password_token": token });
    let sets = |token: &str, from: &str| app.put("/auth/password", &body(token)).header("x-from", from).send();
    for _ in 0..10 {
        assert_eq!(sets("x", "192.0.2.1").status, 401);
    }
    assert_limited(&sets(link.token().1, "192.0.2.1"), "reset_per_address", 6 * 60);
    assert_eq!(sets(link.token().1, "192.0.2.2").status, 200);
}
