//! The three diagrams of the protocol's documents, over real HTTP with a clock that the test drives.

use std::time::Duration;

use crate::support::{Held, TestApp};

const BUFFER: Duration = Duration::from_secs(5);

/// A request with this token that has to succeed with a new one.
fn rotates(app: &TestApp, held: &Held) -> Held {
    let answer = app.get_as(held, "/me").send();
    assert_eq!(answer.status, 200, "{answer:?}");
    let next = answer.held().expect("a new token");
    assert_eq!(next.generation(), held.generation() + 1);
    next
}

fn is_grouped(app: &TestApp, held: &Held) {
    let answer = app.get_as(held, "/me").send();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.is_blank(), "{answer:?}");
}

fn is_superseded(app: &TestApp, held: &Held) {
    let answer = app.get_as(held, "/me").send();
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(answer.code(), "token_superseded");
    assert_eq!(answer.held(), None);
}

/// Token handling: each request with the newest token invalidates it and hands out the next; the third one again fails.
#[test]
fn token_handling() {
    let app = TestApp::start();
    let first = app.register("ann@example.com");
    assert_eq!(first.generation(), 1);

    // The first request rotates at once, however soon after the sign-in it comes.
    let second = rotates(&app, &first);
    app.advance(BUFFER);
    let third = rotates(&app, &second);
    app.advance(BUFFER);
    let fourth = rotates(&app, &third);

    app.advance(BUFFER);
    is_superseded(&app, &third);
    is_superseded(&app, &second);
    is_superseded(&app, &first);
    // A refusal changes nothing for the one who holds the newest.
    rotates(&app, &fourth);
}

/// The same with no buffer at all: every request rotates, and the token before is dead at once.
#[test]
fn token_handling_without_a_buffer() {
    let mut settings = baton_engine::Settings::default();
    settings.rules.batch_request_buffer_throttle = Duration::ZERO;
    let app = TestApp::with(settings, baton_axum::HttpSettings::default());
    let first = app.register("ann@example.com");
    let second = rotates(&app, &first);
    let third = rotates(&app, &second);
    let fourth = rotates(&app, &third);
    is_superseded(&app, &third);
    rotates(&app, &fourth);
}

/// Batch overview: requests within the buffer form a batch and share one token; the first one after it starts another batch.
#[test]
fn batch_overview() {
    let app = TestApp::start();
    let mut held = app.register("ann@example.com");
    for batch in 1..=3 {
        let shared = held.clone();
        let next = rotates(&app, &shared);
        for _ in 0..4 {
            app.advance(Duration::from_secs(1));
            // Those that were sent before the new token arrived, and those that already have it.
            is_grouped(&app, &shared);
            is_grouped(&app, &next);
        }
        // 4 s are over; the requests in between have not made the batch any longer.
        app.advance(Duration::from_millis(999));
        is_grouped(&app, &shared);
        app.advance(Duration::from_millis(1));
        is_superseded(&app, &shared);
        assert_eq!(next.generation(), batch + 1);
        held = next;
    }
}

/// A client that talks all the time rotates once a buffer.
#[test]
fn a_busy_client_rotates() {
    let app = TestApp::start();
    let mut held = app.register("ann@example.com");
    let mut rotations = 0;
    for _ in 0..30 {
        let answer = app.get_as(&held, "/me").send();
        assert_eq!(answer.status, 200);
        rotations += u32::from(held.adopt(&answer));
        app.advance(Duration::from_secs(1));
    }
    assert_eq!(rotations, 6, "30 s with a buffer of 5 s");
}

/// Batch detail: three requests at once with one token. One of the responses carries the new one, the others none; the next
/// request uses the new one.
#[test]
fn batch_detail() {
    let app = TestApp::start();
    let held = app.register("ann@example.com");
    app.advance(BUFFER);

    // All three are in their handlers before any has been answered.
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| app.get_as(&held, "/gate").send())).collect();
        app.await_at_gate(3);
        app.gate.let_go(3);
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let tokens: Vec<_> = answers.iter().filter_map(super::support::Answer::held).collect();
    assert_eq!(tokens.len(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.is_blank()).count(), 2, "{answers:?}");

    let next = &tokens[0];
    is_grouped(&app, next);
    app.advance(BUFFER);
    let after = rotates(&app, next);
    assert_eq!(after.generation(), 3);
    is_superseded(&app, &held);
}
