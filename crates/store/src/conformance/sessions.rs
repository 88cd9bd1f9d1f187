//! Sessions: made, listed, limited, ended, purged.

use std::net::IpAddr;
use std::time::Duration;

use baton_core::Store;
use baton_core::clock::millis;
use baton_core::error::CreateSessionError;
use baton_core::event::Trace;
use baton_core::session::{AccountId, Device, NewSession, Renewal, Session};
use baton_core::token::ClientId;

use super::{Harness, RENEWAL, account, client, fresh, must_swap, new_session, rotation, signed_in, stored};

const SHORT: Renewal = Renewal { lifespan: Duration::from_secs(2), max_lifetime: Duration::from_secs(60) };

/// Field by field [`Session::new`], from both of the ways to get one.
pub async fn a_new_session_is_as_the_core_makes_it(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (account, first) = signed_in(&*store, "ada", 1).await;
    let second = store.create_session(account.id, new_session(2), &Trace::NONE).await.expect("create");
    let capped = Renewal { lifespan: RENEWAL.lifespan, max_lifetime: Duration::from_millis(1_500) };
    let third = NewSession { renewal: capped, ..new_session(3) };
    let third = store.create_session(account.id, third, &Trace::NONE).await.expect("create");
    for (session, renewal) in [(first, RENEWAL), (second, RENEWAL), (third, capped)] {
        assert_eq!(session, Session::new(session.client, account.id, session.created_at, renewal));
        let found = store.find(session.client).await.expect("find").expect("it exists");
        assert_eq!((&found.session, &*found.account), (&session, &account));
        assert!(found.now >= session.created_at);
    }
}

/// Also next to one that exists.
pub async fn an_unknown_client_is_not_found(harness: &dyn Harness) {
    let store = fresh(harness).await;
    assert_eq!(store.find(client(1)).await.expect("find"), None);
    signed_in(&*store, "ada", 1).await;
    for unknown in [client(2), ClientId::from_bytes([0; 16]), ClientId::from_bytes([0xff; 16])] {
        assert_eq!(store.find(unknown).await.expect("find"), None);
    }
}

/// An account that was deleted since the password was checked cannot be signed in to.
pub async fn an_account_is_needed(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let account = account(&*store, "ada").await;
    assert!(store.delete_account(account.id, &Trace::NONE).await.expect("delete"));
    for id in [account.id, AccountId(account.id.0 + 1), AccountId(0), AccountId(-1)] {
        let answer = store.create_session(id, new_session(1), &Trace::NONE).await;
        assert!(matches!(answer, Err(CreateSessionError::NoAccount)), "{answer:?}");
    }
    assert_eq!(stored(&*store, client(1)).await, None);
}

/// 128 random bits do not repeat; should they, their owner keeps the session.
pub async fn a_client_id_is_not_taken_over(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (ada, theirs) = signed_in(&*store, "ada", 1).await;
    let bob = account(&*store, "bob").await;
    for id in [bob.id, ada.id] {
        let answer = store.create_session(id, new_session(1), &Trace::NONE).await;
        assert!(matches!(answer, Err(CreateSessionError::Store(_))), "{answer:?}");
    }
    assert_eq!(stored(&*store, client(1)).await, Some(theirs));
    assert_eq!(store.sessions(bob.id).await.expect("list").1, []);
    assert_eq!(store.sessions(ada.id).await.expect("list").1.len(), 1);
}

/// With and without each part, in every form of an address.
pub async fn devices_survive(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let account = account(&*store, "ada").await;
    let addresses = ["192.0.2.7", "0.0.0.0", "::", "2001:db8::1", "::ffff:192.0.2.7", "fe80::1"];
    let addresses = addresses.map(|text| Some(text.parse::<IpAddr>().expect("an address")));
    let agents = [None, Some(""), Some("Mozilla/5.0 (X11; Linux) 👻"), Some(" ")];
    let mut number = 0;
    for ip in addresses.into_iter().chain([None]) {
        for agent in agents {
            number += 1;
            let device = Device { user_agent: agent.map(str::to_owned), ip };
            let new = NewSession { device: device.clone(), max_devices: 1, ..new_session(number) };
            store.create_session(account.id, new, &Trace::NONE).await.expect("create");
            let (_, entries) = store.sessions(account.id).await.expect("list");
            assert_eq!(entries.len(), 1);
            assert_eq!(entries[0].device, device);
        }
    }
}

/// Used, not made: a rotation keeps an old session alive.
pub async fn the_least_recently_used_one_makes_room(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let account = account(&*store, "ada").await;
    let mut made = Vec::new();
    for number in 1..=3 {
        harness.advance(Duration::from_millis(10)).await;
        made.push(store.create_session(account.id, limited(number, 3), &Trace::NONE).await.expect("create"));
    }
    harness.advance(Duration::from_millis(10)).await;
    must_swap(&*store, &made[0], &rotation(&made[0])).await;
    harness.advance(Duration::from_millis(10)).await;

    store.create_session(account.id, limited(4, 3), &Trace::NONE).await.expect("create");
    assert_eq!(clients(&*store, account.id).await, [client(4), client(1), client(3)]);
    // A lower limit ends several at once.
    harness.advance(Duration::from_millis(10)).await;
    store.create_session(account.id, limited(5, 2), &Trace::NONE).await.expect("create");
    assert_eq!(clients(&*store, account.id).await, [client(5), client(4)]);
    harness.advance(Duration::from_millis(10)).await;
    store.create_session(account.id, limited(6, 1), &Trace::NONE).await.expect("create");
    assert_eq!(clients(&*store, account.id).await, [client(6)]);
    for number in 1..=5 {
        assert_eq!(stored(&*store, client(number)).await, None);
    }
}

/// Many at the same moment, with client ids that sort before and after.
pub async fn the_new_one_stays_whatever_the_time(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let account = account(&*store, "ada").await;
    for number in [500, 900, 100, 700, 300, 800, 1, 999] {
        store.create_session(account.id, limited(number, 2), &Trace::NONE).await.expect("create");
        let left = clients(&*store, account.id).await;
        assert!(left.contains(&client(number)), "{number}");
        assert!(left.len() <= 2);
    }
    for number in [400, 2, 998] {
        store.create_session(account.id, limited(number, 1), &Trace::NONE).await.expect("create");
        assert_eq!(clients(&*store, account.id).await, [client(number)]);
    }
}

/// Another account's sessions do not count, and do not end.
pub async fn the_limit_counts_one_account_only(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (ada, _) = signed_in(&*store, "ada", 1).await;
    let (bob, _) = signed_in(&*store, "bob", 2).await;
    harness.advance(Duration::from_millis(10)).await;
    store.create_session(ada.id, limited(3, 2), &Trace::NONE).await.expect("create");
    assert_eq!(clients(&*store, ada.id).await, [client(3), client(1)]);
    store.create_session(ada.id, limited(4, 1), &Trace::NONE).await.expect("create");
    assert_eq!(clients(&*store, ada.id).await, [client(4)]);
    assert_eq!(clients(&*store, bob.id).await, [client(2)]);
}

/// And once: the second time there is nothing to end.
pub async fn only_their_account_ends_them(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (ada, session) = signed_in(&*store, "ada", 1).await;
    let (bob, _) = signed_in(&*store, "bob", 2).await;
    assert!(!store.end_session(bob.id, client(1), &Trace::NONE).await.expect("end"));
    assert!(!store.end_session(ada.id, client(404), &Trace::NONE).await.expect("end"));
    assert_eq!(stored(&*store, client(1)).await, Some(session));
    assert!(store.end_session(ada.id, client(1), &Trace::NONE).await.expect("end"));
    assert_eq!(stored(&*store, client(1)).await, None);
    assert!(!store.end_session(ada.id, client(1), &Trace::NONE).await.expect("end"));
    assert!(stored(&*store, client(2)).await.is_some());
}

/// Expired ones included, with their full record.
pub async fn they_are_listed_by_last_use(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let account = account(&*store, "ada").await;
    let mut made = Vec::new();
    for number in [3, 1, 4, 2] {
        let new = NewSession { renewal: SHORT, ..new_session(number) };
        made.push(store.create_session(account.id, new, &Trace::NONE).await.expect("create"));
        harness.advance(Duration::from_millis(10)).await;
    }
    let used = must_swap(&*store, &made[1], &rotation(&made[1])).await;
    let (now, entries) = store.sessions(account.id).await.expect("list");
    assert!(now >= used.last_seen_at);
    let listed: Vec<_> = entries.into_iter().map(|entry| entry.session).collect();
    assert_eq!(listed, [used, made[3].clone(), made[2].clone(), made[0].clone()]);

    harness.advance(Duration::from_secs(3)).await;
    let (now, entries) = store.sessions(account.id).await.expect("list");
    assert_eq!(entries.len(), 4);
    assert!(entries.iter().filter(|entry| entry.session.expires_at <= now).count() == 3);
}

/// At the moment of `expires_at`, and not a moment sooner.
pub async fn purge_takes_only_expired_ones(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let account = account(&*store, "ada").await;
    let short = store
        .create_session(account.id, NewSession { renewal: SHORT, ..new_session(1) }, &Trace::NONE)
        .await
        .expect("short");
    let long = store.create_session(account.id, new_session(2), &Trace::NONE).await.expect("long");
    assert_eq!(store.purge(10).await.expect("purge"), 0);

    harness.advance(SHORT.lifespan - Duration::from_millis(500)).await;
    let early = store.purge(10).await.expect("purge");
    let now = store.sessions(account.id).await.expect("list").0;
    // Only a clock that runs by itself may have got there meanwhile.
    assert!(early == 0 || now >= short.expires_at);
    let rest = u64::try_from(millis(short.expires_at.since(now))).expect("not negative");
    harness.advance(Duration::from_millis(rest)).await;
    assert_eq!(early + store.purge(10).await.expect("purge"), 1);
    assert_eq!(stored(&*store, client(1)).await, None);
    assert_eq!(stored(&*store, client(2)).await, Some(long));
    assert_eq!(store.purge(10).await.expect("purge"), 0);
}

/// The rest is for the next time; a rotated session has a new end.
pub async fn purge_stops_at_its_limit(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let account = account(&*store, "ada").await;
    let mut kept = None;
    for number in 1..=6 {
        let new = NewSession { renewal: SHORT, ..new_session(number) };
        kept = Some(store.create_session(account.id, new, &Trace::NONE).await.expect("create"));
    }
    let kept = kept.expect("there are six");
    must_swap(&*store, &kept, &rotation(&kept)).await;
    harness.advance(Duration::from_millis(2_500)).await;
    for (limit, purged) in [(0, 0), (2, 2), (2, 2), (2, 1), (2, 0)] {
        assert_eq!(store.purge(limit).await.expect("purge"), purged);
    }
    assert_eq!(clients(&*store, account.id).await, [kept.client]);
    assert_eq!(store.purge(u32::MAX).await.expect("purge"), 0);
}

fn limited(number: u64, max_devices: u32) -> NewSession {
    NewSession { max_devices, ..new_session(number) }
}

/// As listed.
async fn clients(store: &dyn Store, account: AccountId) -> Vec<ClientId> {
    let (_, entries) = store.sessions(account).await.expect("list");
    entries.into_iter().map(|entry| entry.session.client).collect()
}
