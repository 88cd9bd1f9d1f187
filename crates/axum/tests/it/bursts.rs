//! Many requests at once with one token.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use http::Method;

use crate::support::{TestApp, agent};

const THREADS: usize = 64;
const BURSTS: usize = 200;

/// 64 threads are released together with one token, 200 times: nobody fails, and exactly one response of each burst carries
/// the new token.
#[test]
fn each_burst_hands_out_one_token() {
    let app = Arc::new(TestApp::start());
    let mut held = app.register("ann@example.com");
    let barrier = Arc::new(Barrier::new(THREADS));
    let agents: Vec<_> = (0..THREADS).map(|_| agent()).collect();
    for burst in 0..BURSTS {
        let answers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = agents
                .iter()
                .map(|agent| {
                    let (barrier, call) = (barrier.clone(), app.get_as(&held, "/me"));
                    scope.spawn(move || {
                        barrier.wait();
                        call.send_on(agent)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
        });
        assert!(answers.iter().all(|answer| answer.status == 200), "burst {burst}: {answers:?}");
        let rotated: Vec<_> = answers.iter().filter_map(crate::support::Answer::held).collect();
        assert_eq!(rotated.len(), 1, "burst {burst}: {answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer.is_blank()).count(), THREADS - 1, "burst {burst}");
        assert_eq!(rotated[0].generation(), held.generation() + 1);
        held = rotated[0].clone();
        app.advance(Duration::from_secs(5));
    }
}

/// A request that takes 8 s, with quick ones beside it that rotate twice meanwhile: everybody is let in, the slow one
/// finishes without a token, and the newest token goes on.
#[test]
fn a_slow_request_loses_nobody() {
    let app = TestApp::start();
    let first = app.register("ann@example.com");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| app.get_as(&first, "/gate").send());
        app.await_at_gate(1);

        let mut held = first.clone();
        for _ in 0..8 {
            for _ in 0..3 {
                let answer = app.get_as(&held, "/me").send();
                assert_eq!(answer.status, 200, "{answer:?}");
                held.adopt(&answer);
            }
            app.advance(Duration::from_secs(1));
        }
        assert_eq!(held.generation(), 3, "at 0 s and at 5 s");

        app.gate.let_go(1);
        let answer = slow.join().expect("an answer");
        assert_eq!(answer.status, 200);
        assert!(answer.is_blank(), "a late answer must not bring back an old token: {answer:?}");

        app.advance(Duration::from_secs(5));
        let answer = app.get_as(&held, "/me").send();
        assert_eq!((answer.status, answer.held().map(|next| next.generation())), (200, Some(4)));
    });
}

/// The slow request is the only one: its token stays good all the while, and it hands out the next one at its end.
#[test]
fn a_slow_request_rotates_at_its_end() {
    let app = TestApp::start();
    let first = app.register("ann@example.com");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| app.get_as(&first, "/gate").send());
        app.await_at_gate(1);
        app.advance(Duration::from_secs(8));
        app.gate.let_go(1);
        let next = slow.join().expect("an answer").held().expect("the next token");
        assert_eq!(next.generation(), 2);
        // The window opened when the response was ready, so a sibling that was on its way is still let in.
        app.advance(Duration::from_secs(4));
        assert!(app.get_as(&first, "/me").send().is_blank());
    });
}

/// A sign-out races nine requests: once it has been answered, no token of the session works, neither the one presented nor one
/// that a racing request was handed.
#[test]
fn a_sign_out_leaves_no_token_behind() {
    let app = Arc::new(TestApp::start());
    app.register("ann@example.com");
    let barrier = Arc::new(Barrier::new(10));
    let mut overtaken = 0;
    for round in 0..50 {
        let held = app.sign_in("ann@example.com");
        let answers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..10)
                .map(|index| {
                    let signs_out = index == round % 10;
                    let (method, path) =
                        if signs_out { (Method::DELETE, "/auth/sign_out") } else { (Method::GET, "/me") };
                    let (barrier, call) = (barrier.clone(), app.request(method, path).held(&held));
                    scope.spawn(move || {
                        barrier.wait();
                        (signs_out, call.send())
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
        });
        for (signs_out, answer) in &answers {
            if *signs_out {
                assert_eq!(answer.status, 200, "round {round}: {answer:?}");
                assert_eq!(answer.header("access-token"), None);
            } else {
                let let_in = answer.status == 200;
                let revoked = answer.status == 401 && answer.code() == "session_revoked";
                assert!(let_in || revoked, "round {round}: {answer:?}");
                overtaken += u32::from(revoked);
            }
        }
        let handed_out = answers.iter().filter_map(|(_, answer)| answer.held());
        for token in handed_out.chain([held]) {
            let answer = app.get_as(&token, "/me").send();
            assert_eq!((answer.status, answer.code().as_str()), (401, "session_revoked"), "round {round}");
        }
    }
    assert!(overtaken > 0, "the sign-out never was first: this raced nothing");
}
