//! The server is killed with `kill -9` at random moments while clients use it, and started again.
//!
//! The batch window is closed (`batch_request_buffer_throttle=0`), so every request rotates and a kill has the best chance of
//! falling between a rotation and its response.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::{Answer, Baton, Held, agent, eventually};

const KILLS: u32 = 50;
const CLIENTS: usize = 12;

/// What the clients lived through.
#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    rotations: AtomicU64,
    /// Requests that ended without a whole response, after a connection had been made.
    cut_off: AtomicU64,
    /// Clients that were given a token after their last response had been cut off.
    recovered: AtomicU64,
    /// Clients that were refused after their last response had been cut off.
    locked_out: AtomicU64,
}

/// A client that follows the protocol: one request at a time, keeps its token until it is given another one, tries again when
/// the connection breaks.
struct Client<'a> {
    baton: &'a Baton,
    email: String,
    /// `None` while it is locked out.
    held: Option<Held>,
    /// The response to a request with the token held was cut off.
    in_doubt: bool,
}

impl Client<'_> {
    fn run(&mut self, agent: &ureq::Agent, counts: &Counts, forgiving: bool) {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let Some(held) = &mut self.held else {
            self.held = sign_in(self.baton, &self.email, agent).ok();
            return;
        };
        let answer = match self.baton.get("/demo/members_only").held(held).try_send_on(agent) {
            Ok(answer) => answer,
            Err(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                // The server is not up (again) yet: nothing was sent, so nothing is in doubt.
                std::thread::sleep(Duration::from_millis(2));
                return;
            }
            Err(_) => {
                count(&counts.cut_off);
                self.in_doubt = true;
                return;
            }
        };
        count(&counts.requests);
        match answer.status {
            200 => {
                let before = held.token.clone();
                if held.adopt(&answer) {
                    count(&counts.rotations);
                    assert_ne!(before, held.token);
                    if std::mem::take(&mut self.in_doubt) {
                        count(&counts.recovered);
                    }
                }
            }
            401 => {
                assert!(!forgiving, "a client was refused in forgiving mode: {answer:?}");
                assert!(self.in_doubt, "a client none of whose responses was cut off was refused: {answer:?}");
                assert_eq!(answer.code(), "token_superseded", "{answer:?}");
                count(&counts.locked_out);
                self.held = None;
                self.in_doubt = false;
            }
            _ => panic!("neither let in nor refused: {answer:?}"),
        }
    }
}

fn sign_in(baton: &Baton, email: &str, agent: &ureq::Agent) -> Result<Held, ureq::Error> {
    let answer = baton.sign_in_call(email).try_send_on(agent)?;
    Ok(answer.held().unwrap_or_else(|| panic!("a sign-in hands out a token: {answer:?}")))
}

/// Signs in and out again and again; remembers the tokens whose end was acknowledged.
fn open_and_end(baton: &Baton, email: &str, agent: &ureq::Agent, ended: &Mutex<BTreeMap<String, Held>>) {
    let Ok(held) = sign_in(baton, email, agent) else { return };
    let Ok(answer) = baton.request("DELETE", "/auth/sign_out").held(&held).try_send_on(agent) else { return };
    assert_eq!(answer.status, 200, "{answer:?}");
    ended.lock().expect("not poisoned").insert(held.client.clone(), held);
}

fn killed_at_random(forgiving: bool) -> Counts {
    let mode = format!("forgive_lost_responses={forgiving}");
    let baton = Baton::dev(&[
        "--set",
        "batch_request_buffer_throttle=0",
        "--set",
        &mode,
        "--set",
        "max_number_of_devices=1000",
    ]);
    let counts = Counts::default();
    let ended = Mutex::new(BTreeMap::new());
    let stop = AtomicBool::new(false);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|index| {
            let email = format!("client{index}@example.com");
            Client { baton: &baton, held: Some(baton.register(&email)), email, in_doubt: false }
        })
        .collect();
    baton.register("guest@example.com");

    std::thread::scope(|scope| {
        for mut client in clients {
            let (counts, stop) = (&counts, &stop);
            scope.spawn(move || {
                let agent = agent();
                while !stop.load(Ordering::Relaxed) {
                    client.run(&agent, counts, forgiving);
                }
                // Whatever the last kill did to it, it goes on (or signs in and goes on).
                for _ in 0..3 {
                    client.run(&agent, counts, forgiving);
                }
            });
        }
        let (baton, ended_by_guest, guest_stop) = (&baton, &ended, &stop);
        scope.spawn(move || {
            let agent = agent();
            while !guest_stop.load(Ordering::Relaxed) {
                open_and_end(baton, "guest@example.com", &agent, ended_by_guest);
            }
        });

        // After a random number of requests, and at least one session ended: a slow machine gets as much done as a fast one.
        let progress = || (counts.requests.load(Ordering::Relaxed), ended.lock().expect("not poisoned").len());
        let mut seed = 0x9e37_79b9_u32;
        for kill in 0..KILLS {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (requests, endings) = progress();
            let enough = (requests + u64::from(seed >> 16) % 100 + 20, endings + 1);
            eventually("the clients to get something done", || {
                let now = progress();
                (now.0 >= enough.0 && now.1 >= enough.1).then_some(())
            });
            baton.kill_and_restart();
            let ended = ended.lock().expect("not poisoned").clone();
            for held in ended.values().rev().take(5) {
                let answer: Answer = baton.get("/demo/members_only").held(held).send();
                let refused = (answer.status, answer.code());
                assert_eq!(refused, (401, "session_revoked".to_owned()), "kill {kill}: an ended session came back");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });

    let ended = ended.into_inner().expect("not poisoned");
    for held in ended.values() {
        let answer = baton.get("/demo/members_only").held(held).send();
        assert_eq!((answer.status, answer.code()), (401, "session_revoked".to_owned()), "an ended session came back");
    }
    counts
}

fn report(mode: &str, counts: &Counts) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    eprintln!(
        "{mode}: {KILLS} kills, {} requests, {} rotations, {} cut off, {} recovered, {} locked out",
        read(&counts.requests),
        read(&counts.rotations),
        read(&counts.cut_off),
        read(&counts.recovered),
        read(&counts.locked_out),
    );
    assert!(read(&counts.rotations) > 100, "hardly anything rotated");
    assert!(read(&counts.cut_off) > 10, "hardly any kill hit a request");
}

/// With `forgive_lost_responses` every client goes on with the token that it holds.
#[test]
fn forgiving_clients_survive_every_kill() {
    let counts = killed_at_random(true);
    report("forgiving", &counts);
    assert_eq!(counts.locked_out.load(Ordering::Relaxed), 0);
    assert!(counts.recovered.load(Ordering::Relaxed) > 0, "no client ever had anything to recover from");
}

/// Without it, the only clients that are refused are those whose response the kill cut off.
#[test]
fn only_clients_whose_response_was_cut_off_are_refused() {
    let counts = killed_at_random(false);
    report("default", &counts);
    assert!(counts.locked_out.load(Ordering::Relaxed) > 0, "no kill ever fell between a rotation and its response");
    assert!(counts.locked_out.load(Ordering::Relaxed) <= counts.cut_off.load(Ordering::Relaxed));
}
