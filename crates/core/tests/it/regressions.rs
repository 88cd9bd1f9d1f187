//! Named schedules: those that shaped the rule (DESIGN §2.4), and those that show why a promise has the conditions it has.

use baton_core::{
    BatchResponse, Genuine, OnReuse, Plan, Rejection, Reply, Rules, Session, Swapped, Timestamp, Verdict, decide,
};

use crate::common::{TestStore, at, finish, forgiving, genuine, ms, rules, signed_in};

/// A store with one session, driven by hand. The buffer is 10.
struct Bench {
    store: TestStore,
    rules: Rules,
}

/// An accepted request whose handler is running.
struct Running(Session, Plan);

/// A request between its decision to change the record first and that change.
struct Changing(Session, Genuine, baton_core::Swap);

impl Bench {
    fn new(rules: Rules) -> Self {
        Self { store: TestStore::forgetful(signed_in(0, rules.renewal()), 9, false), rules }
    }

    /// A request that presents generation `p` arrives at `now`.
    fn authenticate(&mut self, p: u32, now: i64) -> Result<Running, Rejection> {
        self.authenticate_as(p, now, false)
    }

    fn authenticate_as(&mut self, p: u32, now: i64, unbatch: bool) -> Result<Running, Rejection> {
        loop {
            let session = self.store.record.clone().expect("a session");
            match decide(&session, genuine(p), unbatch, at(now), &self.rules) {
                Verdict::Accept(plan) => return Ok(Running(session, plan)),
                Verdict::Reject(why) => return Err(why),
                Verdict::First(swap) => assert_eq!(self.store.swap(&swap, now), Swapped::Done(at(now))),
            }
        }
    }

    /// Reads and decides, but is held up before the change that it wants to make.
    fn begin(&self, p: u32, now: i64) -> Changing {
        let session = self.store.record.clone().expect("a session");
        let Verdict::First(swap) = decide(&session, genuine(p), false, at(now), &self.rules) else {
            panic!("nothing to change first")
        };
        Changing(session, genuine(p), swap)
    }

    /// Its response head is ready at `now`: the generation that it carries, if any.
    fn complete(&mut self, Running(session, plan): &Running, now: i64) -> Option<u32> {
        self.complete_with_expiry(&Running(session.clone(), *plan), now).map(|(generation, _)| generation)
    }

    fn complete_with_expiry(&mut self, Running(session, plan): &Running, now: i64) -> Option<(u32, Timestamp)> {
        match finish(&mut self.store, session, plan, now) {
            Reply::Token { generation, expires_at } => Some((generation.get(), expires_at)),
            Reply::Blank | Reply::Nothing => None,
        }
    }

    /// A request whose handler takes no time.
    fn request(&mut self, p: u32, now: i64) -> Result<Option<u32>, Rejection> {
        self.authenticate(p, now).map(|running| self.complete(&running, now))
    }
}

const SUPERSEDED: Rejection = Rejection::Superseded { revoke: false };

#[test]
fn first_regression_a_resend_opens_the_window_for_its_siblings() {
    let mut bench = Bench::new(forgiving(10));
    assert_eq!(bench.request(1, 0), Ok(Some(2)), "and this response is lost");
    // Two requests with T1 are sent together, long after the window; the second one takes longer to arrive.
    assert_eq!(bench.request(1, 50), Ok(Some(2)), "sent again");
    assert_eq!(bench.request(2, 52), Ok(None), "and used");
    assert_eq!(bench.request(1, 54), Ok(None), "the second one");
}

#[test]
fn second_regression_the_window_opens_when_the_slow_answer_is_handed_out() {
    let mut bench = Bench::new(forgiving(10));
    assert_eq!(bench.request(1, 0), Ok(Some(2)), "and this response is lost");
    let slow = bench.authenticate(1, 50).unwrap();
    assert_eq!(bench.complete(&slow, 100), Some(2));
    assert_eq!(bench.request(2, 102), Ok(None));
    assert_eq!(bench.request(1, 104), Ok(None), "sent before T2 arrived, at 102");
}

#[test]
fn second_regression_for_a_rotation() {
    let mut bench = Bench::new(rules(10));
    let slow = bench.authenticate(1, 0).unwrap();
    assert_eq!(bench.complete(&slow, 100), Some(2));
    assert_eq!(bench.request(2, 102), Ok(None));
    assert_eq!(bench.request(1, 109), Ok(None));
    assert_eq!(bench.request(1, 110), Err(SUPERSEDED));
}

/// What the slow request of the third regression hands out, and when the session then ends for each token: T2 and T3 were
/// delivered, the store loses both rotations, and a T1 request that began before is only now ready.
fn rolled_back_under_a_slow_request() -> (Bench, [(u32, Timestamp); 2]) {
    let mut bench = Bench::new(Rules { token_lifespan: ms(1000), ..rules(10) });
    let slow = bench.authenticate(1, 0).unwrap();
    assert_eq!(bench.request(1, 1), Ok(Some(2)));
    let t3 = bench.authenticate(2, 20).unwrap();
    let t3 = bench.complete_with_expiry(&t3, 20).unwrap();
    assert_eq!(t3.0, 3);
    bench.store.forget(2);
    let t2 = bench.complete_with_expiry(&slow, 30).unwrap();
    (bench, [t3, t2])
}

#[test]
fn third_regression_after_lost_writes_a_token_may_be_delivered_a_second_time() {
    let (mut bench, [_, t2]) = rolled_back_under_a_slow_request();
    assert_eq!(t2.0, 2, "delivered a second time, after T3");
    // Somebody's request with T3 is still on its way, and heals the record.
    assert_eq!(bench.request(3, 31), Ok(None));
    assert_eq!(bench.request(2, 40), Ok(None), "in its window");
    assert_eq!(bench.request(2, 100), Err(SUPERSEDED), "a client that took T2 for T3 is signed out in the end");
}

#[test]
fn third_regression_a_client_that_never_goes_back_is_safe() {
    let (mut bench, [t3, t2]) = rolled_back_under_a_slow_request();
    let mut kept = t3.0.max(t2.0);
    for now in [31, 41, 100] {
        kept = bench.request(kept, now).unwrap().unwrap_or(kept);
    }
    assert_eq!(kept, 5, "a batch request that heals, then two rotations");
}

#[test]
fn third_regression_comparing_expiry_does_not_keep_a_client_from_going_back() {
    // The second delivery of T2 is the later hand-out, so its `expiry` is the later one too: after lost writes only the
    // generation (bytes 1 to 4 of a token) tells which token is newer.
    let (_, [t3, t2]) = rolled_back_under_a_slow_request();
    assert!(t2.0 < t3.0 && t2.1 > t3.1, "{t2:?} {t3:?}");
}

#[test]
fn a_lost_resend_does_not_heal_so_it_has_to_be_durable() {
    // A rotation that is lost shows when its token comes; a resend that is lost leaves no trace, and the window that it
    // had opened is closed again while its siblings are on their way.
    for lost in [false, true] {
        let mut bench = Bench::new(forgiving(10));
        assert_eq!(bench.request(1, 0), Ok(Some(2)), "and this response is lost");
        assert_eq!(bench.request(1, 50), Ok(Some(2)), "sent again");
        bench.store.forget(usize::from(lost));
        assert!(bench.request(2, 52).is_ok());
        let sibling = bench.request(1, 54);
        assert_eq!(sibling, if lost { Err(SUPERSEDED) } else { Ok(None) });
    }
}

#[test]
fn a_retry_inside_the_window_opens_it_again_where_responses_get_lost() {
    // T2 reaches the client late in its window, and a T1 request that was sent before that arrives after it.
    let mut bench = Bench::new(forgiving(10));
    assert_eq!(bench.request(1, 0), Ok(Some(2)), "and this response is lost");
    let retry = bench.authenticate_as(1, 9, true).unwrap();
    assert_eq!(bench.complete(&retry, 9), Some(2));
    assert_eq!(bench.request(2, 11), Ok(None), "a batch request of the new window");
    assert_eq!(bench.request(1, 11), Ok(None));
    assert_eq!(bench.request(2, 19), Ok(Some(3)));
}

#[test]
fn a_repetition_opens_no_window_for_its_siblings() {
    // Why L2 has to do without `repeat`: the response with T2 is lost, T2 is repeated at the end of its window, and a T1
    // request that was sent before that arrives when T2 has been used.
    let mut bench = Bench::new(Rules { batch_response: BatchResponse::Repeat, ..forgiving(10) });
    assert_eq!(bench.request(1, 0), Ok(Some(2)), "and this response is lost");
    assert_eq!(bench.request(1, 9), Ok(Some(2)));
    assert_eq!(bench.request(2, 11), Ok(Some(3)));
    assert_eq!(bench.request(1, 12), Err(SUPERSEDED));
}

#[test]
fn a_repetition_can_be_overtaken_by_the_next_token() {
    // Why a client that is sent repetitions must not store whatever it is given: T2 is repeated at 9 and takes until 13.
    let mut bench = Bench::new(rules(10));
    assert_eq!(bench.request(1, 0), Ok(Some(2)));
    let repeated = bench.authenticate_as(2, 9, true).unwrap();
    let repeated = bench.complete_with_expiry(&repeated, 9).unwrap();
    let running = bench.authenticate(2, 10).unwrap();
    let rotated = bench.complete_with_expiry(&running, 10).unwrap();
    assert_eq!((repeated.0, rotated.0), (2, 3));
    assert_eq!(bench.request(2, 20), Err(SUPERSEDED), "had T2 taken the place of T3");
    assert!(repeated.1 <= rotated.1, "a client that compares `expiry` is safe from this");
}

#[test]
fn a_repetition_from_a_store_that_lost_writes_does_not_set_the_client_back() {
    let mut bench = Bench::new(rules(10));
    assert_eq!(bench.request(1, 0), Ok(Some(2)));
    let running = bench.authenticate_as(2, 3, true).unwrap();
    bench.store.forget(1);
    assert_eq!(bench.complete(&running, 4), Some(2), "not T1, which is what the store now knows of");
    assert_eq!(bench.request(2, 5), Ok(None), "T2 heals the record");
}

#[test]
fn a_retry_after_a_lost_swap_looks_at_what_was_found() {
    // Two first uses of T2 race to be written down; the loser goes on from the winner's record.
    let mut bench = Bench::new(forgiving(10));
    assert_eq!(bench.request(1, 0), Ok(Some(2)));
    let Changing(session, token, swap) = bench.begin(2, 20);
    assert_eq!(bench.request(2, 21), Ok(Some(3)));
    let Swapped::Moved(found) = bench.store.swap(&swap, 22) else { panic!("made on another record") };
    assert_ne!(found, session);
    assert_eq!(decide(&found, token, false, at(20), &bench.rules), Verdict::Accept(Plan::Blank));
}

#[test]
fn after_a_failover_the_newest_token_heals_and_its_predecessor_is_a_sibling() {
    let mut bench = Bench::new(rules(10));
    for (p, now) in [(1, 0), (2, 20), (3, 40)] {
        assert_eq!(bench.request(p, now), Ok(Some(p + 1)));
    }
    bench.store.forget(3);
    assert_eq!(bench.request(4, 60), Ok(None));
    assert_eq!(bench.request(3, 69), Ok(None));
    assert_eq!(bench.request(2, 60), Err(SUPERSEDED));
    assert_eq!(bench.request(4, 70), Ok(Some(5)));
}

#[test]
fn without_a_buffer_a_client_that_waits_for_its_answers_is_never_refused() {
    for rules in [rules(0), forgiving(0)] {
        let mut bench = Bench::new(rules);
        for p in 1..50 {
            assert_eq!(bench.request(p, i64::from(p / 3)), Ok(Some(p + 1)));
        }
    }
}

#[test]
fn a_client_that_talks_all_the_time_rotates_once_per_buffer() {
    let mut bench = Bench::new(rules(10));
    let mut held = 1;
    for now in 0..100 {
        held = bench.request(held, now).unwrap().unwrap_or(held);
    }
    assert_eq!(held, 11);
}

#[test]
fn a_thief_that_comes_second_is_found_out_and_the_session_can_be_ended() {
    let mut bench = Bench::new(Rules { on_reuse: OnReuse::Revoke, ..rules(10) });
    assert_eq!(bench.request(1, 0), Ok(Some(2)));
    assert_eq!(bench.request(1, 10), Err(Rejection::Superseded { revoke: true }));
}
