//! Accounts: names, passwords, deletion.

use std::time::Duration;

use baton_core::clock::Timestamp;
use baton_core::error::{CreateAccountError, CreateSessionError, UpdateAccountError};
use baton_core::event::Trace;
use baton_core::session::{Account, AccountId, AccountUpdate, EndSessions, NewAccount, NewSession, Permit, Profile};

use super::{Harness, account, client, fresh, hash, new_account, new_session, signed_in, stored};

/// What went in comes out, by uid and with a session.
pub async fn a_new_account_is_found_by_its_uid(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let mut fields = serde_json::Map::new();
    fields.insert("name".to_owned(), "Ada \"the\" Countess".into());
    fields.insert("image".to_owned(), serde_json::Value::Null);
    let new = NewAccount {
        realm: "admin".to_owned(),
        provider: "email".to_owned(),
        uid: "ada".to_owned(),
        email: "ada@example.test".to_owned(),
        profile: Profile::from_fields(&fields),
        password: hash("ada"),
    };
    let (account, session) =
        store.create_account(new.clone(), Some(new_session(1)), &Trace::NONE).await.expect("create");

    assert_eq!(
        (&account.realm, &account.provider, &account.uid, &account.email, &account.profile),
        (&new.realm, &new.provider, &new.uid, &new.email, &new.profile)
    );
    assert_eq!(account.permit, None);
    assert_eq!(account.created_at, account.updated_at);
    assert_eq!(account.profile.fields(), fields);

    let login = store.find_login("admin", "email", "ada").await.expect("find").expect("it exists");
    assert_eq!(login.account, account);
    assert_eq!(login.password.expose(), new.password.expose());
    assert_eq!((login.confirmed_at, login.unconfirmed_email), (None, None));

    let found = store.find(client(1)).await.expect("find").expect("it exists");
    assert_eq!(Some(found.session), session);
    assert_eq!(*found.account, account);
    assert!(found.now >= account.created_at);

    let (alone, none) = store.create_account(new_account("bob"), None, &Trace::NONE).await.expect("create");
    assert_eq!(none, None);
    assert_eq!(store.sessions(alone.id).await.expect("list").1, []);
}

/// No folding of case, no trimming, no normalisation: that is for the layer above to decide.
pub async fn uids_match_exactly(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let made = ["ada", "Ada", "ADA", "ada ", " ada", "", "a\u{308}", "\u{e4}", "%", "_da", "a\0", "a\0b"];
    let mut ids = Vec::new();
    for uid in made {
        ids.push(account(&*store, uid).await.id);
    }
    for (uid, id) in made.iter().zip(ids) {
        let login = store.find_login("user", "email", uid).await.expect("find").expect("it exists");
        assert_eq!((login.account.id, login.account.uid.as_str()), (id, *uid));
    }
    for unknown in ["aDa", "adaa", "ad", "*", "\0"] {
        assert_eq!(store.find_login("user", "email", unknown).await.expect("find"), None, "{unknown:?}");
    }
    assert_eq!(store.find_login("User", "email", "ada").await.expect("find"), None);
    assert_eq!(store.find_login("user", "Email", "ada").await.expect("find"), None);
}

/// The same uid may exist in another realm, or with another provider.
pub async fn a_uid_is_unique_within_realm_and_provider(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let with = |realm: &str, provider: &str| NewAccount {
        realm: realm.to_owned(),
        provider: provider.to_owned(),
        ..new_account("ada")
    };
    let mut ids = std::collections::BTreeSet::new();
    for (realm, provider) in [("user", "email"), ("admin", "email"), ("user", "github")] {
        let (account, _) = store.create_account(with(realm, provider), None, &Trace::NONE).await.expect("create");
        assert!(ids.insert(account.id));
        let again = store.create_account(with(realm, provider), None, &Trace::NONE).await;
        assert!(matches!(again, Err(CreateAccountError::Taken)), "{again:?}");
    }
}

/// Neither the account nor the session nor a change of the one that exists.
pub async fn taken_leaves_nothing_behind(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (first, session) = signed_in(&*store, "ada", 1).await;
    let second = NewAccount { email: "other@example.test".to_owned(), password: hash("other"), ..new_account("ada") };
    let answer = store.create_account(second, Some(new_session(2)), &Trace::NONE).await;
    assert!(matches!(answer, Err(CreateAccountError::Taken)), "{answer:?}");

    assert_eq!(stored(&*store, client(2)).await, None);
    let login = store.find_login("user", "email", "ada").await.expect("find").expect("it exists");
    assert_eq!(login.account, first);
    assert_eq!(login.password.expose(), hash("ada").expose());
    assert_eq!(stored(&*store, client(1)).await, Some(session));
    assert_eq!(store.sessions(first.id).await.expect("list").1.len(), 1);
}

/// A session that cannot be made takes the account down with it.
pub async fn an_account_is_made_with_its_session_or_not_at_all(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (_, session) = signed_in(&*store, "ada", 1).await;
    // The client id is in use.
    let answer = store.create_account(new_account("bob"), Some(new_session(1)), &Trace::NONE).await;
    assert!(matches!(answer, Err(CreateAccountError::Store(_))), "{answer:?}");
    assert_eq!(store.find_login("user", "email", "bob").await.expect("find"), None);
    assert_eq!(stored(&*store, client(1)).await, Some(session));
    store.create_account(new_account("bob"), Some(new_session(2)), &Trace::NONE).await.expect("the name is still free");
}

/// Whatever a client may send comes back as it was.
pub async fn odd_strings_survive(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let long = "ß".repeat(5_000);
    let odd = ["a\0b", "👩‍👩‍👧", "'; DROP TABLE sessions; --", "\"\\\u{7f}\r\n\t", "\u{202e}txt", "\u{10ffff}", &long];
    for (number, text) in (1..).zip(odd) {
        let mut fields = serde_json::Map::new();
        fields.insert(text.to_owned(), text.into());
        let new = NewAccount {
            realm: text.to_owned(),
            provider: text.to_owned(),
            uid: text.to_owned(),
            email: text.to_owned(),
            profile: Profile::from_fields(&fields),
            password: hash(text),
        };
        let mut session = new_session(number);
        session.device.user_agent = Some(text.to_owned());
        let (account, _) =
            store.create_account(new.clone(), Some(session.clone()), &Trace::NONE).await.expect("create");

        let login = store.find_login(text, text, text).await.expect("find").expect("it exists");
        assert_eq!(login.account, account);
        assert_eq!((&login.account.email, &login.account.profile), (&new.email, &new.profile));
        assert_eq!(login.password.expose(), new.password.expose());
        let found = store.find(client(number)).await.expect("find").expect("it exists");
        assert_eq!(*found.account, account);
        let (_, entries) = store.sessions(account.id).await.expect("list");
        assert_eq!(entries[0].device, session.device);
    }
}

/// What is given changes, and with it `updated_at`; the rest stays.
pub async fn an_update_changes_what_it_names(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let before = account(&*store, "ada").await;
    let other = account(&*store, "bob").await;
    harness.advance(Duration::from_secs(1)).await;
    let update = AccountUpdate { password: Some(hash("new")), ..AccountUpdate::default() };
    let after = store.update_account(before.id, update, &Trace::NONE).await.expect("update");
    assert!(after.updated_at > before.updated_at);
    assert_eq!(after, Account { updated_at: after.updated_at, ..before.clone() });
    let login = store.find_login("user", "email", "ada").await.expect("find").expect("it exists");
    assert_eq!((login.account, login.password.expose()), (after.clone(), hash("new").expose()));

    let profile = Profile::from_stored(r#"{"name":"Ada"}"#.to_owned());
    let update = AccountUpdate {
        uid: Some("ada@new".to_owned()),
        email: Some("ada@new.test".to_owned()),
        profile: Some(profile.clone()),
        ..AccountUpdate::default()
    };
    let renamed = store.update_account(before.id, update, &Trace::NONE).await.expect("update");
    let expected = Account {
        uid: "ada@new".to_owned(),
        email: "ada@new.test".to_owned(),
        profile,
        updated_at: renamed.updated_at,
        ..after
    };
    assert_eq!(renamed, expected);
    assert_eq!(store.find_login("user", "email", "ada").await.expect("find"), None, "the old name is free");
    let login = store.find_login("user", "email", "ada@new").await.expect("find").expect("it exists");
    assert_eq!((login.account, login.password.expose()), (renamed, hash("new").expose()));
    let login = store.find_login("user", "email", "bob").await.expect("find").expect("it exists");
    assert_eq!((login.account, login.password.expose()), (other, hash("bob").expose()));

    let nobody = AccountId(before.id.0 + 1_000);
    let answer = store.update_account(nobody, AccountUpdate::default(), &Trace::NONE).await;
    assert!(matches!(answer, Err(UpdateAccountError::Gone)), "{answer:?}");
}

/// A name of another account, or a password that is not the one that was checked: nothing changes, no session ends.
pub async fn an_update_that_is_refused_leaves_everything(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (before, session) = signed_in(&*store, "ada", 1).await;
    account(&*store, "bob").await;
    let update = AccountUpdate {
        profile: Some(Profile::from_stored("{}".to_owned())),
        password: Some(hash("new")),
        permit: Some(Permit { client: client(1), until: Timestamp::from_millis(1 << 50) }),
        unconfirmed_email: Some(Some("new@example.test".to_owned())),
        confirm: true,
        end: EndSessions::All,
        ..AccountUpdate::default()
    };
    let taken = AccountUpdate { uid: Some("bob".to_owned()), ..update.clone() };
    let answer = store.update_account(before.id, taken, &Trace::NONE).await;
    assert!(matches!(answer, Err(UpdateAccountError::Taken)), "{answer:?}");
    let overtaken = AccountUpdate { if_password: Some(hash("old")), ..update.clone() };
    let answer = store.update_account(before.id, overtaken, &Trace::NONE).await;
    assert!(matches!(answer, Err(UpdateAccountError::Overtaken)), "{answer:?}");

    let login = store.find_login("user", "email", "ada").await.expect("find").expect("it exists");
    assert_eq!((&login.account, login.password.expose()), (&before, hash("ada").expose()));
    assert_eq!((login.confirmed_at, login.unconfirmed_email), (None, None));
    assert_eq!(stored(&*store, client(1)).await, Some(session));

    // Its own name is not taken, and the password is the one that was checked.
    let own = AccountUpdate { uid: Some("ada".to_owned()), if_password: Some(hash("ada")), ..update };
    store.update_account(before.id, own, &Trace::NONE).await.expect("update");
    assert_eq!(stored(&*store, client(1)).await, None);
}

/// A session that was asked for with the old password is not opened.
pub async fn a_session_needs_the_password_that_was_checked(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let account = account(&*store, "ada").await;
    let with = |number, text| NewSession { if_password: Some(hash(text)), ..new_session(number) };
    store.create_session(account.id, with(1, "ada"), &Trace::NONE).await.expect("create");
    store.update_account(account.id, new_password(EndSessions::All), &Trace::NONE).await.expect("update");
    let answer = store.create_session(account.id, with(2, "ada"), &Trace::NONE).await;
    assert!(matches!(answer, Err(CreateSessionError::NoAccount)), "{answer:?}");
    store.create_session(account.id, with(3, "new"), &Trace::NONE).await.expect("create");
    store.create_session(account.id, new_session(4), &Trace::NONE).await.expect("create");
    let (_, entries) = store.sessions(account.id).await.expect("list");
    assert_eq!(entries.len(), 2);
}

/// None, all but one, all; and never those of another account.
pub async fn a_new_password_ends_the_sessions_it_is_told_to(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (account, _) = signed_in(&*store, "ada", 1).await;
    for number in 2..=3 {
        store.create_session(account.id, new_session(number), &Trace::NONE).await.expect("create");
    }
    let (_, others) = signed_in(&*store, "bob", 9).await;
    let left = async || {
        let (_, entries) = store.sessions(account.id).await.expect("list");
        let mut clients: Vec<_> = entries.into_iter().map(|entry| entry.session.client).collect();
        clients.sort();
        clients
    };

    let cases = [
        (EndSessions::None, vec![client(1), client(2), client(3)]),
        (EndSessions::AllBut(client(2)), vec![client(2)]),
        // Of another account: nothing of this one is kept, and nothing of that one ends.
        (EndSessions::AllBut(client(9)), vec![]),
    ];
    for (end, expected) in cases {
        store.update_account(account.id, new_password(end), &Trace::NONE).await.expect("update");
        assert_eq!(left().await, expected, "{end:?}");
    }
    store.create_session(account.id, new_session(4), &Trace::NONE).await.expect("create");
    store.update_account(account.id, new_password(EndSessions::All), &Trace::NONE).await.expect("update");
    assert_eq!(left().await, []);
    assert_eq!(stored(&*store, client(4)).await, None);
    assert_eq!(stored(&*store, client(9)).await, Some(others));
}

/// All of it goes, and nothing else; the name is free again.
pub async fn a_deleted_account_takes_its_sessions_along(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (account, _) = signed_in(&*store, "ada", 1).await;
    store.create_session(account.id, new_session(2), &Trace::NONE).await.expect("create");
    let (_, others) = signed_in(&*store, "bob", 9).await;

    assert!(store.delete_account(account.id, &Trace::NONE).await.expect("delete"));
    assert!(!store.delete_account(account.id, &Trace::NONE).await.expect("delete"));
    for number in 1..=2 {
        assert_eq!(stored(&*store, client(number)).await, None);
    }
    assert_eq!(store.find_login("user", "email", "ada").await.expect("find"), None);
    assert_eq!(store.sessions(account.id).await.expect("list").1, []);
    assert_eq!(stored(&*store, client(9)).await, Some(others));
    signed_in(&*store, "ada", 1).await;
}

/// A slow request or an old backup must not meet another account under the same number.
pub async fn the_number_of_an_account_is_not_used_again(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let mut last = AccountId(i64::MIN);
    for _ in 0..3 {
        let account = account(&*store, "ada").await;
        assert!(account.id > last);
        last = account.id;
        assert!(store.delete_account(account.id, &Trace::NONE).await.expect("delete"));
    }
}

/// Seen with every request, kept by other changes, replaced by another one, and taken back by a new password.
pub async fn a_permit_lasts_until_a_new_password(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (owner, _) = signed_in(&*store, "ada", 1).await;
    signed_in(&*store, "bob", 2).await;
    let permit = |number, until| Permit { client: client(number), until: Timestamp::from_millis(until) };
    let rest = AccountUpdate { email: Some("new@example.test".to_owned()), confirm: true, ..AccountUpdate::default() };
    let password = new_password(EndSessions::None);
    let steps = [
        (rest.clone(), None),
        (AccountUpdate { permit: Some(permit(1, 5)), ..AccountUpdate::default() }, Some(permit(1, 5))),
        (rest, Some(permit(1, 5))),
        (AccountUpdate { permit: Some(permit(2, i64::MAX)), ..AccountUpdate::default() }, Some(permit(2, i64::MAX))),
        (password.clone(), None),
        (AccountUpdate::default(), None),
        (AccountUpdate { permit: Some(permit(3, i64::MIN)), ..password.clone() }, Some(permit(3, i64::MIN))),
        (AccountUpdate { permit: Some(permit(1, 0)), ..password.clone() }, Some(permit(1, 0))),
        (password, None),
    ];
    for (step, (update, expected)) in steps.into_iter().enumerate() {
        let updated = store.update_account(owner.id, update, &Trace::NONE).await.expect("update");
        assert_eq!(updated.permit, expected, "step {step}");
        let login = store.find_login("user", "email", "ada").await.expect("find").expect("it exists");
        let found = store.find(client(1)).await.expect("find").expect("it exists");
        assert_eq!((&login.account, &*found.account), (&updated, &updated), "step {step}");
        let other = store.find(client(2)).await.expect("find").expect("it exists");
        assert_eq!(other.account.permit, None);
    }
}

/// An address is confirmed once; the time of that stays.
pub async fn the_first_confirmation_counts(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let owner = account(&*store, "ada").await;
    account(&*store, "bob").await;
    let confirmed_at = async |uid| {
        let login = store.find_login("user", "email", uid).await.expect("find").expect("it exists");
        login.confirmed_at
    };
    assert_eq!(confirmed_at("ada").await, None);
    let update = async |confirm| {
        harness.advance(Duration::from_millis(10)).await;
        let update = AccountUpdate { confirm, email: Some("a@b.test".to_owned()), ..AccountUpdate::default() };
        store.update_account(owner.id, update, &Trace::NONE).await.expect("update").updated_at
    };
    update(false).await;
    assert_eq!(confirmed_at("ada").await, None);
    let first = update(true).await;
    assert_eq!(confirmed_at("ada").await, Some(first));
    for confirm in [true, false] {
        assert!(update(confirm).await > first);
        assert_eq!(confirmed_at("ada").await, Some(first));
    }
    assert_eq!(confirmed_at("bob").await, None);
}

/// Set, left as it is, replaced, and forgotten; the account's own address is another matter.
pub async fn an_unconfirmed_address_waits_until_it_is_forgotten(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let owner = account(&*store, "ada").await;
    let waits = |address: &str| Some(Some(address.to_owned()));
    let steps = [
        (None, None),
        (waits("first@example.test"), Some("first@example.test")),
        (None, Some("first@example.test")),
        (waits("a\0\"'👻@example.test"), Some("a\0\"'👻@example.test")),
        (waits(""), Some("")),
        (Some(None), None),
        (Some(None), None),
    ];
    for (step, (unconfirmed_email, expected)) in steps.into_iter().enumerate() {
        let update = AccountUpdate { unconfirmed_email, ..AccountUpdate::default() };
        store.update_account(owner.id, update, &Trace::NONE).await.expect("update");
        let login = store.find_login("user", "email", "ada").await.expect("find").expect("it exists");
        assert_eq!(login.unconfirmed_email.as_deref(), expected, "step {step}");
        assert_eq!((&login.account.email, login.confirmed_at), (&owner.email, None), "step {step}");
    }
}

fn new_password(end: EndSessions) -> AccountUpdate {
    AccountUpdate { password: Some(hash("new")), end, ..AccountUpdate::default() }
}
