//! One-time tokens: kept, found, redeemed once, void.

use std::time::Duration;

use baton_core::Store;
use baton_core::clock::{Timestamp, millis};
use baton_core::error::RedeemError;
use baton_core::event::{EventKind, Trace};
use baton_core::one_time::{OneTime, OneTimeId, Purpose};
use baton_core::ports::{Login, NewOneTime};
use baton_core::session::{Account, AccountId, AccountUpdate, EndSessions, NewSession, Permit, Session};

use super::races::{NODES, RIVALS, race};
use super::traces::{kinds, trace};
use super::{DAY, Harness, RENEWAL, account, client, fresh, hash, new_account, new_session, signed_in, stored};

/// With its account as it is at the time, and all that is needed to write to its owner.
pub async fn a_token_is_found_with_its_account(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let owner = account(&*store, "ada").await;
    account(&*store, "bob").await;
    for (number, purpose) in (1..).zip(Purpose::ALL) {
        let new = token(owner.id, number, purpose);
        let before = now(&*store).await;
        assert!(store.create_one_time(new.clone()).await.expect("keep"));
        let found = store.find_one_time(id(number)).await.expect("find").expect("it is good");
        let OneTime { expires_at, .. } = found.one_time;
        let NewOneTime { id, account, purpose, email, lifetime } = new;
        assert_eq!(found.one_time, OneTime { id, account, purpose, email, expires_at });
        assert!((before.plus(lifetime)..=found.now.plus(lifetime)).contains(&expires_at), "{expires_at:?}");
        assert_eq!(found.login, login(&*store, "ada").await);
    }
    let update = AccountUpdate {
        confirm: true,
        email: Some("new@example.test".to_owned()),
        unconfirmed_email: Some(Some("next@example.test".to_owned())),
        password: Some(hash("new")),
        permit: Some(Permit { client: client(7), until: Timestamp::from_millis(7) }),
        ..AccountUpdate::default()
    };
    let updated = store.update_account(owner.id, update, &Trace::NONE).await.expect("update");
    let found = store.find_one_time(id(1)).await.expect("find").expect("it is good");
    assert_eq!(found.login, login(&*store, "ada").await);
    assert_eq!(found.login.account, updated);
    assert_eq!(found.login.unconfirmed_email.as_deref(), Some("next@example.test"));
    assert!(found.login.confirmed_at.is_some() && found.now >= updated.updated_at);
    // It names the address that it went to, whatever the account's is now.
    assert_eq!(found.one_time.email, token(owner.id, 1, Purpose::Confirm).email);

    for unknown in [id(404), OneTimeId::from_bytes([0; 16]), OneTimeId::from_bytes([0xff; 16])] {
        assert_eq!(store.find_one_time(unknown).await.expect("find"), None);
    }
}

/// Whatever the address that it went to looks like.
pub async fn the_address_of_a_token_survives(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let owner = account(&*store, "ada").await;
    let long = "ß".repeat(5_000);
    for (number, email) in (1..).zip(["", "a\0b@example.test", "\"a'b\"@example.test", "👩‍👩‍👧@example.test", &long])
    {
        let new = NewOneTime { email: email.to_owned(), ..token(owner.id, number, Purpose::Confirm) };
        assert!(store.create_one_time(new).await.expect("keep"));
        let found = store.find_one_time(id(number)).await.expect("find").expect("it is good");
        assert_eq!(found.one_time.email, email);
    }
}

/// For an account that is gone or never was, nothing is kept.
pub async fn a_token_needs_its_account(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let gone = account(&*store, "ada").await.id;
    assert!(store.delete_account(gone, &Trace::NONE).await.expect("delete"));
    for nobody in [gone, AccountId(gone.0 + 1), AccountId(0), AccountId(-1)] {
        assert!(!store.create_one_time(token(nobody, 1, Purpose::Reset)).await.expect("refuse"));
        assert_eq!(store.find_one_time(id(1)).await.expect("find"), None);
    }
}

/// 128 random bits do not repeat; should they, the letter that is on its way does not open another account.
pub async fn a_token_is_not_taken_over(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (ada, bob) = (account(&*store, "ada").await, account(&*store, "bob").await);
    make(&*store, ada.id, 1, Purpose::Reset).await;
    let before = store.find_one_time(id(1)).await.expect("find").expect("it is good").one_time;
    for (owner, purpose) in [(bob.id, Purpose::Reset), (ada.id, Purpose::Confirm)] {
        let answer = store.create_one_time(token(owner, 1, purpose)).await;
        assert!(answer.is_err(), "{answer:?}");
        assert_eq!(store.find_one_time(id(1)).await.expect("find").expect("it is good").one_time, before);
    }
}

/// At the moment of `expires_at`, and not a moment sooner.
pub async fn a_token_is_good_until_its_lifetime_ends(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (owner, _) = signed_in(&*store, "ada", 1).await;
    for (number, seconds) in [(1, 2), (2, 2), (3, 0)] {
        let new = NewOneTime { lifetime: Duration::from_secs(seconds), ..token(owner.id, number, Purpose::Confirm) };
        assert!(store.create_one_time(new).await.expect("keep"));
    }
    let forever = NewOneTime { lifetime: Duration::MAX, ..token(owner.id, 4, Purpose::Reset) };
    assert!(store.create_one_time(forever).await.expect("keep"));
    assert!(!is_good(&*store, 3).await, "one without a lifetime was never good");

    let expires_at = store.find_one_time(id(2)).await.expect("find").expect("it is good").one_time.expires_at;
    harness.advance(Duration::from_millis(1_500)).await;
    if let Some(found) = store.find_one_time(id(2)).await.expect("find") {
        assert!(found.now < expires_at);
    } else {
        // Only a clock that runs by itself may have got there meanwhile.
        assert!(now(&*store).await >= expires_at);
    }
    let rest = u64::try_from(millis(expires_at.since(now(&*store).await))).expect("not negative");
    harness.advance(Duration::from_millis(rest)).await;
    assert!(!is_good(&*store, 1).await && !is_good(&*store, 2).await);
    assert!(is_good(&*store, 4).await);
    let before = everything(&*store).await;
    for number in [1, 2, 3] {
        assert_gone(&*store, number).await;
    }
    assert_eq!(everything(&*store).await, before);
    store.redeem(id(4), change(), None, &Trace::NONE).await.expect("redeem");
}

/// The second time it is as good as one that never was, and nothing happens.
pub async fn a_token_is_redeemed_once(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (owner, _) = signed_in(&*store, "ada", 1).await;
    make(&*store, owner.id, 1, Purpose::Reset).await;
    store.redeem(id(1), AccountUpdate::default(), None, &trace(EventKind::PasswordChanged)).await.expect("redeem");
    assert!(!is_good(&*store, 1).await);
    let before = everything(&*store).await;
    for number in [1, 404] {
        assert_gone(&*store, number).await;
    }
    assert_eq!(everything(&*store).await, before);
}

/// The others of the same account and purpose go along, those for something else and for somebody else stay.
pub async fn redeeming_voids_one_purpose_of_one_account(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (ada, bob) = (account(&*store, "ada").await, account(&*store, "bob").await);
    for (number, purpose) in (0..).zip(Purpose::ALL) {
        make(&*store, ada.id, 10 + number, purpose).await;
        make(&*store, ada.id, 20 + number, purpose).await;
        make(&*store, bob.id, 30 + number, purpose).await;
    }
    let all = async || {
        let mut good = Vec::new();
        for number in (10..13).chain(20..23).chain(30..33) {
            if is_good(&*store, number).await {
                good.push(number);
            }
        }
        good
    };
    assert_eq!(all().await, [10, 11, 12, 20, 21, 22, 30, 31, 32]);
    for (redeemed, left) in
        [(11, &[10, 12, 20, 22, 30, 31, 32][..]), (20, &[12, 22, 30, 31, 32]), (32, &[12, 22, 30, 31])]
    {
        store.redeem(id(redeemed), AccountUpdate::default(), None, &Trace::NONE).await.expect("redeem");
        assert_eq!(all().await, left, "after {redeemed}");
    }
}

/// Account, sessions and the new session, which stays although all others end.
pub async fn redeeming_changes_the_account_and_signs_in(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (owner, _) = signed_in(&*store, "ada", 1).await;
    store.create_session(owner.id, new_session(2), &Trace::NONE).await.expect("create");
    let (_, others) = signed_in(&*store, "bob", 9).await;
    harness.advance(Duration::from_secs(1)).await;
    for (number, end, left) in [
        (10, EndSessions::None, &[1, 2, 10][..]),
        (11, EndSessions::AllBut(client(2)), &[2, 11]),
        (12, EndSessions::All, &[12]),
    ] {
        make(&*store, owner.id, number, Purpose::Reset).await;
        let permit = Permit { client: client(number), until: Timestamp::from_millis(1 << 40) };
        let update = AccountUpdate {
            uid: Some(format!("ada {number}")),
            email: Some(format!("ada{number}@example.test")),
            password: Some(hash(&number.to_string())),
            permit: Some(permit),
            confirm: true,
            end,
            ..AccountUpdate::default()
        };
        let (changed, made) =
            store.redeem(id(number), update, Some(new_session(number)), &Trace::NONE).await.expect("redeem");
        let made = made.expect("a session was asked for");
        assert_eq!(made, Session::new(client(number), owner.id, made.created_at, RENEWAL));
        let expected = Account {
            uid: format!("ada {number}"),
            email: format!("ada{number}@example.test"),
            permit: Some(permit),
            updated_at: changed.updated_at,
            ..owner.clone()
        };
        assert_eq!(changed, expected);
        assert!(changed.updated_at > owner.updated_at);
        let found = store.find(client(number)).await.expect("find").expect("it exists");
        assert_eq!((&found.session, &*found.account), (&made, &changed));
        let login = login(&*store, &changed.uid).await;
        assert_eq!((&login.account, &login.password), (&changed, &hash(&number.to_string())));
        assert!(login.confirmed_at.is_some());

        let (_, entries) = store.sessions(owner.id).await.expect("list");
        let mut clients: Vec<_> = entries.into_iter().map(|entry| entry.session.client).collect();
        clients.sort();
        assert_eq!(clients, left.iter().map(|number| client(*number)).collect::<Vec<_>>(), "{end:?}");
    }
    assert_eq!(stored(&*store, client(9)).await, Some(others));

    // Without a session, none is made.
    make(&*store, owner.id, 13, Purpose::Confirm).await;
    let (_, made) = store.redeem(id(13), AccountUpdate::default(), None, &Trace::NONE).await.expect("redeem");
    assert_eq!(made, None);
    assert_eq!(store.sessions(owner.id).await.expect("list").1.len(), 1);
}

/// The session of a redeemed token takes the place of the least recently used one, like any other.
pub async fn redeeming_keeps_to_the_device_limit(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (owner, _) = signed_in(&*store, "ada", 1).await;
    for number in 2..=4 {
        harness.advance(Duration::from_millis(10)).await;
        make(&*store, owner.id, number, Purpose::Confirm).await;
        let session = NewSession { max_devices: 2, ..new_session(number) };
        store.redeem(id(number), AccountUpdate::default(), Some(session), &Trace::NONE).await.expect("redeem");
        let (_, entries) = store.sessions(owner.id).await.expect("list");
        let clients: Vec<_> = entries.into_iter().map(|entry| entry.session.client).collect();
        assert_eq!(clients, [client(number), client(number - 1)]);
    }
}

/// Name taken, password changed, client id in use: the token stays good, and account, sessions and traces as they were.
pub async fn a_refused_redemption_leaves_everything(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (owner, _) = signed_in(&*store, "ada", 1).await;
    signed_in(&*store, "bob", 9).await;
    for (number, purpose) in [(1, Purpose::Confirm), (2, Purpose::Confirm), (3, Purpose::Reset)] {
        make(&*store, owner.id, number, purpose).await;
    }
    let before = everything(&*store).await;
    let left = trace(EventKind::EmailChanged);

    let taken = AccountUpdate { uid: Some("bob".to_owned()), ..change() };
    let answer = store.redeem(id(1), taken, Some(new_session(5)), &left).await;
    assert!(matches!(answer, Err(RedeemError::Taken)), "{answer:?}");
    let overtaken = AccountUpdate { if_password: Some(hash("old")), ..change() };
    let answer = store.redeem(id(1), overtaken, Some(new_session(5)), &left).await;
    assert!(matches!(answer, Err(RedeemError::Gone)), "{answer:?}");
    // Of another account: what this change ends does not make room for it.
    let answer = store.redeem(id(1), change(), Some(new_session(9)), &left).await;
    assert!(matches!(answer, Err(RedeemError::Store(_))), "{answer:?}");

    assert_eq!(everything(&*store).await, before);
    assert_eq!(stored(&*store, client(5)).await, None);
    for number in 1..=3 {
        assert!(is_good(&*store, number).await, "{number}");
    }
    store.redeem(id(1), change(), Some(new_session(5)), &left).await.expect("redeem");
}

/// One, and as often as one likes.
pub async fn a_token_whose_letter_did_not_go_out_becomes_void(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let owner = account(&*store, "ada").await;
    for number in 1..=2 {
        make(&*store, owner.id, number, Purpose::Unlock).await;
    }
    for number in [1, 1, 404] {
        store.void_one_time(id(number)).await.expect("void");
        assert!(!is_good(&*store, 1).await && is_good(&*store, 2).await);
    }
    assert_gone(&*store, 1).await;
    // The name is free again: the letter is written anew.
    make(&*store, owner.id, 1, Purpose::Unlock).await;
}

/// For any purpose, and of this account alone; not if the change is refused or does not ask for it.
pub async fn a_change_voids_the_tokens_of_its_account(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (ada, bob) = (account(&*store, "ada").await, account(&*store, "bob").await);
    for (number, purpose) in (1..).zip(Purpose::ALL) {
        make(&*store, ada.id, number, purpose).await;
        make(&*store, bob.id, 10 + number, purpose).await;
    }
    let void = AccountUpdate { void_one_time: true, ..change() };
    for refused in [
        AccountUpdate { uid: Some("bob".to_owned()), ..void.clone() },
        AccountUpdate { if_password: Some(hash("old")), ..void.clone() },
    ] {
        assert!(store.update_account(ada.id, refused, &Trace::NONE).await.is_err());
    }
    store.update_account(ada.id, change(), &Trace::NONE).await.expect("update");
    for number in 1..=3 {
        assert!(is_good(&*store, number).await, "{number}");
    }
    store.update_account(ada.id, void.clone(), &Trace::NONE).await.expect("update");
    for number in 1..=3 {
        assert!(!is_good(&*store, number).await, "{number}");
        assert!(is_good(&*store, 10 + number).await, "{number}");
    }
    // So does a redemption that asks for it.
    store.redeem(id(11), void, None, &Trace::NONE).await.expect("redeem");
    for number in 11..=13 {
        assert!(!is_good(&*store, number).await, "{number}");
    }
}

/// A later account of that name has nothing of them.
pub async fn a_deleted_account_takes_its_tokens_along(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (ada, bob) = (account(&*store, "ada").await, account(&*store, "bob").await);
    make(&*store, ada.id, 1, Purpose::Reset).await;
    make(&*store, bob.id, 2, Purpose::Reset).await;
    assert!(store.delete_account(ada.id, &Trace::NONE).await.expect("delete"));
    account(&*store, "ada").await;
    assert!(!is_good(&*store, 1).await && is_good(&*store, 2).await);
    assert_gone(&*store, 1).await;
}

/// On any node, and with either of two tokens for the same: one session is opened and one trace left.
pub async fn one_of_many_redemptions_is_made(harness: &dyn Harness) {
    let nodes = harness.nodes(NODES).await;
    let owner = account(&*nodes[0], "ada").await;
    for round in 0..5 {
        let (first, seen) = (round * 100, kinds(&*nodes[0]).await.len());
        for number in 0..2 {
            make(&*nodes[0], owner.id, first + number, Purpose::Confirm).await;
        }
        let answers = race(&nodes, move |node, rival| async move {
            let rival = rival as u64;
            let update = AccountUpdate { email: Some(rival.to_string()), end: EndSessions::All, ..Default::default() };
            let session = Some(new_session(first + rival));
            node.redeem(id(first + rival / 2 % 2), update, session, &trace(EventKind::Confirmed)).await
        })
        .await;
        let gone = answers.iter().filter(|answer| matches!(answer, Err(RedeemError::Gone))).count();
        assert_eq!(gone, RIVALS - 1, "{answers:?}");
        let (changed, session) = answers.into_iter().find_map(Result::ok).expect("one was made");
        let session = session.expect("a session was asked for");
        for node in &nodes {
            assert_eq!(login(&**node, "ada").await.account, changed);
            let (_, entries) = node.sessions(owner.id).await.expect("list");
            let sessions: Vec<_> = entries.into_iter().map(|entry| entry.session).collect();
            assert_eq!(sessions, std::slice::from_ref(&session));
            assert_eq!(kinds(&**node).await[seen..], [EventKind::Confirmed]);
            assert!(!is_good(&**node, first).await && !is_good(&**node, first + 1).await);
        }
        assert_eq!(changed.email, (number_of(&session) - first).to_string());
    }
}

/// Redeeming and keeping against the deletion of the account: nothing is left.
pub async fn no_token_is_left_of_an_account_deleted_meanwhile(harness: &dyn Harness) {
    let nodes = harness.nodes(NODES).await;
    let owner = account(&*nodes[0], "ada").await.id;
    make(&*nodes[0], owner, 1_000, Purpose::Reset).await;
    race(&nodes, move |node, rival| async move {
        let number = rival as u64;
        match rival % 4 {
            0 => drop(node.delete_account(owner, &Trace::NONE).await.expect("delete")),
            1 => match node.redeem(id(1_000), change(), Some(new_session(number)), &Trace::NONE).await {
                Ok(_) | Err(RedeemError::Gone) => {}
                Err(error) => panic!("{error}"),
            },
            _ => drop(node.create_one_time(token(owner, number, Purpose::Unlock)).await.expect("keep, or refuse")),
        }
    })
    .await;
    for node in &nodes {
        for number in (0..RIVALS as u64).chain([1_000]) {
            assert!(!is_good(&**node, number).await, "{number}");
            assert_eq!(stored(&**node, client(number)).await, None);
        }
    }
}

/// Up to the limit, and those that are good stay.
pub async fn purge_takes_only_expired_tokens(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let owner = account(&*store, "ada").await.id;
    for number in 1..=5 {
        let new = NewOneTime { lifetime: Duration::from_secs(1), ..token(owner, number, Purpose::Confirm) };
        assert!(store.create_one_time(new).await.expect("keep"));
    }
    make(&*store, owner, 9, Purpose::Confirm).await;
    assert_eq!(store.purge(0).await.expect("purge"), 0);
    harness.advance(Duration::from_secs(1)).await;
    for (limit, purged) in [(0, 0), (2, 2), (2, 2), (2, 1), (2, 0)] {
        assert_eq!(store.purge(limit).await.expect("purge"), purged);
    }
    assert!(is_good(&*store, 9).await);
    // What was purged is out of the way.
    make(&*store, owner, 1, Purpose::Confirm).await;
}

fn id(number: u64) -> OneTimeId {
    OneTimeId::from_bytes(*client(number).as_bytes())
}

/// The number that a session of [`client`] was made with.
fn number_of(session: &Session) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|index| session.client.as_bytes()[index]))
}

fn token(account: AccountId, number: u64, purpose: Purpose) -> NewOneTime {
    NewOneTime { id: id(number), account, purpose, email: format!("{number}@example.test"), lifetime: DAY }
}

async fn make(store: &dyn Store, account: AccountId, number: u64, purpose: Purpose) {
    assert!(store.create_one_time(token(account, number, purpose)).await.expect("keep a token"));
}

async fn is_good(store: &dyn Store, number: u64) -> bool {
    store.find_one_time(id(number)).await.expect("find").is_some()
}

async fn assert_gone(store: &dyn Store, number: u64) {
    let left = trace(EventKind::Confirmed);
    let answer = store.redeem(id(number), change(), Some(new_session(40_000 + number)), &left).await;
    assert!(matches!(answer, Err(RedeemError::Gone)), "{answer:?}");
    assert_eq!(stored(store, client(40_000 + number)).await, None);
}

/// A change that shows in the account and in its sessions.
fn change() -> AccountUpdate {
    AccountUpdate {
        email: Some("changed@example.test".to_owned()),
        password: Some(hash("ada")),
        confirm: true,
        end: EndSessions::All,
        ..AccountUpdate::default()
    }
}

async fn login(store: &dyn Store, uid: &str) -> Login {
    let new = new_account(uid);
    store.find_login(&new.realm, &new.provider, uid).await.expect("find").expect("it exists")
}

async fn now(store: &dyn Store) -> Timestamp {
    store.sessions(AccountId(0)).await.expect("list").0
}

/// What a refusal must not have changed, of the account of these checks.
async fn everything(store: &dyn Store) -> (Login, Vec<Session>, Vec<EventKind>) {
    let login = login(store, "ada").await;
    let (_, entries) = store.sessions(login.account.id).await.expect("list");
    (login, entries.into_iter().map(|entry| entry.session).collect(), kinds(store).await)
}
