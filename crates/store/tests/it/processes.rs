//! Several processes on one store.

use std::process::{Command, Stdio};

use baton_core::Store;
use baton_core::event::Trace;
use baton_core::session::Swapped;

use crate::fixture::{client, new_account, new_session, rotation};

const ROUNDS: usize = 60;

/// Has `count` processes rotate one session at the same time, and checks that each rotation was made by one of them. `test`
/// is what each of them does: an ignored test that finds the store in this variable and calls [`take_part`].
pub(crate) async fn agree(store: &dyn Store, count: usize, test: &str, variable: &str, value: &str) {
    let answer = store.create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("create");
    let opened = answer.1.expect("a session was asked for");
    let others: Vec<_> = (0..count)
        .map(|_| {
            Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", test, "--ignored", "--nocapture"])
                .env(variable, value)
                .stdout(Stdio::piped())
                .stderr(Stdio::inherit())
                .spawn()
                .expect("start a process")
        })
        .collect();
    let mut won = 0;
    for other in others {
        let output = tokio::task::block_in_place(|| other.wait_with_output()).expect("wait");
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout);
        let told = text.split("rotations made: ").nth(1).and_then(|rest| rest.split(';').next());
        won += told.and_then(|number| number.parse::<u32>().ok()).unwrap_or_else(|| panic!("{text}"));
    }
    let session = store.find(client(1)).await.expect("find").expect("there").session;
    assert_eq!(session.generation.get() - opened.generation.get(), won, "with {count} processes");
    assert!(won >= u32::try_from(ROUNDS).expect("small"));
}

/// What each of them does.
#[expect(clippy::print_stdout, reason = "this is how it answers")]
pub(crate) async fn take_part(store: &dyn Store) {
    let mut won = 0;
    let mut session = store.find(client(1)).await.expect("find").expect("there").session;
    for _ in 0..ROUNDS {
        let swap = rotation(&session);
        match store.swap(client(1), &swap, None).await.expect("swap") {
            Swapped::Done(at) => {
                won += 1;
                session = session.swapped(&swap, at).expect("made");
            }
            Swapped::Moved(now) => {
                assert!(now.generation > session.generation && now.last_seen_at >= session.last_seen_at);
                session = now;
            }
            Swapped::Gone => panic!("the session is gone"),
        }
    }
    println!("rotations made: {won};");
}
