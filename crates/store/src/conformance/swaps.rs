//! Swaps, one at a time: they mean [`Session::swapped`].

use std::net::IpAddr;
use std::time::Duration;

use baton_core::clock::{Timestamp, millis};
use baton_core::event::Trace;
use baton_core::session::{Renewal, Session, Swap, Swapped, Version};

use super::{DAY, Harness, RENEWAL, client, fresh, generation, must_swap, new_session, rotation, signed_in, stored};

/// Several in a row, at different times; the whole record is compared.
pub async fn a_rotation_is_as_the_core_makes_it(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (_, mut session) = signed_in(&*store, "ada", 1).await;
    for round in 1..=5 {
        harness.advance(Duration::from_secs(1)).await;
        let before = session.clone();
        session = must_swap(&*store, &session, &rotation(&session)).await;
        let found = store.find(client(1)).await.expect("find").expect("it exists");
        assert_eq!(found.session, session);
        assert!(found.now >= session.last_seen_at);
        assert_eq!(session.generation, generation(round + 1));
        assert_eq!(session.handed_out_at, Some(session.last_seen_at));
        assert!(session.last_seen_at > before.last_seen_at);
    }
}

/// Without a hand-out, the window and the expiry stay as they are.
pub async fn a_note_hands_nothing_out(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (_, fresh) = signed_in(&*store, "ada", 1).await;
    let rotated = must_swap(&*store, &fresh, &rotation(&fresh)).await;
    harness.advance(Duration::from_secs(2)).await;
    let note = Swap {
        expect: rotated.version(),
        generation: rotated.generation,
        confirmed: rotated.generation,
        hand_out: None,
    };
    let noted = must_swap(&*store, &rotated, &note).await;
    assert_eq!(stored(&*store, client(1)).await, Some(noted.clone()));
    assert_eq!((noted.handed_out_at, noted.expires_at), (rotated.handed_out_at, rotated.expires_at));
    assert!(noted.last_seen_at > rotated.last_seen_at);
    assert_eq!(noted.confirmed, rotated.generation);

    // Also where nothing has been handed out yet.
    store.create_session(fresh.account, new_session(2), &Trace::NONE).await.expect("create");
    let second = stored(&*store, client(2)).await.expect("it exists");
    let note = Swap { expect: second.version(), confirmed: second.generation, hand_out: None, ..rotation(&second) };
    let noted = must_swap(&*store, &second, &note).await;
    assert_eq!(stored(&*store, client(2)).await, Some(noted.clone()));
    assert_eq!(noted.handed_out_at, None);
}

/// A token from ahead of the record moves it up.
pub async fn a_healing_swap_jumps_ahead(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (_, session) = signed_in(&*store, "ada", 1).await;
    let heal = Swap { generation: generation(77), confirmed: generation(77), ..rotation(&session) };
    assert!(heal.heals());
    let healed = must_swap(&*store, &session, &heal).await;
    assert_eq!(stored(&*store, client(1)).await, Some(healed.clone()));
    assert_eq!((healed.generation, healed.confirmed), (generation(77), generation(77)));
}

/// Whatever part of the expectation differs, nothing is changed and the record comes back as it is.
pub async fn each_part_of_the_version_counts(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (_, session) = signed_in(&*store, "ada", 1).await;
    let untouched = session.clone();
    let session = must_swap(&*store, &session, &rotation(&session)).await;
    harness.advance(Duration::from_secs(1)).await;

    let current = session.version();
    let handed_out_at = current.handed_out_at.expect("it was rotated");
    let later = handed_out_at.plus(Duration::from_millis(1));
    let earlier = Timestamp::from_millis(handed_out_at.as_millis() - 1);
    let wrong = [
        Version { generation: generation(1), ..current },
        Version { generation: generation(3), ..current },
        Version { handed_out_at: None, ..current },
        Version { handed_out_at: Some(later), ..current },
        Version { handed_out_at: Some(earlier), ..current },
        Version { confirmed: generation(0), ..current },
        Version { confirmed: generation(2), ..current },
        untouched.version(),
    ];
    for expect in wrong {
        for hand_out in [Some(RENEWAL), None] {
            let swap = Swap { expect, generation: generation(5), confirmed: generation(5), hand_out };
            let from = Some(IpAddr::from([192, 0, 2, 1]));
            let answer = store.swap(client(1), &swap, from).await.expect("swap");
            assert_eq!(answer, Swapped::Moved(session.clone()), "{expect:?}");
            assert_eq!(stored(&*store, client(1)).await, Some(session.clone()));
        }
    }
    let (_, entries) = store.sessions(session.account).await.expect("list");
    assert_eq!(entries[0].device.ip, None, "a swap that was not made notes no address");

    // `None` is expected before the first hand-out, and only then.
    store.create_session(session.account, new_session(2), &Trace::NONE).await.expect("create");
    let second = stored(&*store, client(2)).await.expect("it exists");
    let mut swap = rotation(&second);
    swap.expect.handed_out_at = Some(second.created_at);
    assert_eq!(store.swap(client(2), &swap, None).await.expect("swap"), Swapped::Moved(second.clone()));
    must_swap(&*store, &second, &rotation(&second)).await;
}

/// A client that was told an `expiry` keeps it, also when the lifetimes have been shortened meanwhile.
pub async fn the_expiry_never_moves_back(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (_, session) = signed_in(&*store, "ada", 1).await;
    let short = Renewal { lifespan: Duration::from_secs(1), max_lifetime: Duration::from_secs(2) };
    let rotated = must_swap(&*store, &session, &Swap { hand_out: Some(short), ..rotation(&session) }).await;
    assert_eq!(stored(&*store, client(1)).await, Some(rotated.clone()));
    assert_eq!(rotated.expires_at, session.expires_at);
}

/// Rotation moves the end on, up to the cap counted from the sign-in.
pub async fn the_absolute_lifetime_is_a_cap(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (_, session) = signed_in(&*store, "ada", 1).await;
    harness.advance(Duration::from_secs(1)).await;
    let within = must_swap(&*store, &session, &rotation(&session)).await;
    assert_eq!(within.expires_at, within.last_seen_at.plus(RENEWAL.lifespan));
    assert_eq!(stored(&*store, client(1)).await, Some(within.clone()));

    let long = Renewal { lifespan: 365 * DAY, max_lifetime: 20 * DAY };
    let capped = must_swap(&*store, &within, &Swap { hand_out: Some(long), ..rotation(&within) }).await;
    assert_eq!(capped.expires_at, session.created_at.plus(20 * DAY));
    assert_eq!(stored(&*store, client(1)).await, Some(capped));
}

/// The last generation, and lifetimes beyond the end of time.
pub async fn extreme_numbers_survive(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (_, session) = signed_in(&*store, "ada", 1).await;
    let last = generation(u32::MAX);
    let forever = Renewal { lifespan: Duration::MAX, max_lifetime: Duration::MAX };
    let swap = Swap { generation: last, confirmed: last, hand_out: Some(forever), ..rotation(&session) };
    let session = must_swap(&*store, &session, &swap).await;
    assert_eq!(stored(&*store, client(1)).await, Some(session.clone()));
    assert_eq!(session.expires_at.as_millis(), millis(Duration::MAX));
    // And it can be compared with.
    let swap = Swap { expect: session.version(), ..swap };
    let session = must_swap(&*store, &session, &swap).await;
    assert_eq!(stored(&*store, client(1)).await, Some(session));
    assert_eq!(store.purge(10).await.expect("purge"), 0);
}

/// A swap may bring a lower `confirmed` along; the higher one stays.
pub async fn confirmed_never_falls(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (_, mut session) = signed_in(&*store, "ada", 1).await;
    for (brought, kept) in [(4, 4), (2, 4), (5, 5), (0, 5)] {
        for hand_out in [Some(RENEWAL), None] {
            let swap = Swap { confirmed: generation(brought), hand_out, ..rotation(&session) };
            session = must_swap(&*store, &session, &swap).await;
            assert_eq!(stored(&*store, client(1)).await, Some(session.clone()));
            assert_eq!(session.confirmed, generation(kept));
        }
    }
}

/// With the swap, not without one; and an unknown address does not wipe a known one out.
pub async fn the_address_is_noted(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (account, mut session) = signed_in(&*store, "ada", 1).await;
    let first: IpAddr = [192, 0, 2, 1].into();
    let second: IpAddr = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into();
    for (from, noted) in [(None, None), (Some(first), Some(first)), (None, Some(first)), (Some(second), Some(second))] {
        for hand_out in [Some(RENEWAL), None] {
            let swap = Swap { hand_out, ..rotation(&session) };
            let Swapped::Done(at) = store.swap(client(1), &swap, from).await.expect("swap") else {
                panic!("lost a swap without a rival");
            };
            session = session.swapped(&swap, at).expect("it was made");
            let (_, entries) = store.sessions(account.id).await.expect("list");
            assert_eq!((entries[0].device.ip, &entries[0].session), (noted, &session));
        }
    }
}

/// Also for a swap that was decided while the session was there (S4).
pub async fn an_ended_session_is_gone(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (account, session) = signed_in(&*store, "ada", 1).await;
    let gone = async |session: &Session| {
        for hand_out in [Some(RENEWAL), None] {
            let swap = Swap { hand_out, ..rotation(session) };
            assert_eq!(store.swap(session.client, &swap, None).await.expect("swap"), Swapped::Gone);
            assert_eq!(stored(&*store, session.client).await, None);
        }
    };
    assert!(store.end_session(account.id, client(1), &Trace::NONE).await.expect("end"));
    gone(&session).await;
    gone(&Session { client: client(404), ..session }).await;
}
