//! What a change leaves behind: events, and messages in the outbox.

use std::collections::BTreeSet;
use std::time::Duration;

use baton_core::Store;
use baton_core::clock::Timestamp;
use baton_core::error::{CreateAccountError, CreateSessionError, RedeemError, UpdateAccountError};
use baton_core::event::{Event, EventKind, Message, MessageBody, Outcome, Recorded, Trace};
use baton_core::letter::{MailOrder, Occasion};
use baton_core::one_time::{OneTimeId, Purpose};
use baton_core::ports::NewOneTime;
use baton_core::session::{AccountId, AccountUpdate, Device, EndSessions, NewSession};

use super::races::{NODES, RIVALS, race};
use super::{DAY, Harness, account, client, fresh, hash, new_account, new_session, signed_in};

/// All that can be refused, in every way.
pub async fn what_is_refused_leaves_no_trace(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let (ada, _) = signed_in(&*store, "ada", 1).await;
    let (bob, _) = signed_in(&*store, "bob", 2).await;
    let gone = account(&*store, "eve").await.id;
    assert!(store.delete_account(gone, &Trace::NONE).await.expect("delete"));
    assert!(store.create_one_time(token(ada.id, 1)).await.expect("keep"));
    let left = full_trace();

    let answer = store.create_account(new_account("ada"), Some(new_session(3)), &left).await;
    assert!(matches!(answer, Err(CreateAccountError::Taken)), "{answer:?}");
    let answer = store.create_account(new_account("eve"), Some(new_session(1)), &left).await;
    assert!(matches!(answer, Err(CreateAccountError::Store(_))), "{answer:?}");

    let taken = AccountUpdate { uid: Some("bob".to_owned()), ..AccountUpdate::default() };
    let overtaken = AccountUpdate { if_password: Some(hash("old")), ..AccountUpdate::default() };
    let answer = store.update_account(ada.id, taken.clone(), &left).await;
    assert!(matches!(answer, Err(UpdateAccountError::Taken)), "{answer:?}");
    let answer = store.update_account(ada.id, overtaken.clone(), &left).await;
    assert!(matches!(answer, Err(UpdateAccountError::Overtaken)), "{answer:?}");
    let answer = store.update_account(gone, AccountUpdate::default(), &left).await;
    assert!(matches!(answer, Err(UpdateAccountError::Gone)), "{answer:?}");
    assert!(!store.delete_account(gone, &left).await.expect("delete"));

    let with_old = NewSession { if_password: Some(hash("old")), ..new_session(3) };
    for (owner, session) in [(gone, new_session(3)), (ada.id, with_old)] {
        let answer = store.create_session(owner, session, &left).await;
        assert!(matches!(answer, Err(CreateSessionError::NoAccount)), "{answer:?}");
    }
    let answer = store.create_session(ada.id, new_session(2), &left).await;
    assert!(matches!(answer, Err(CreateSessionError::Store(_))), "{answer:?}");
    assert!(!store.end_session(bob.id, client(1), &left).await.expect("end"));
    assert!(!store.end_session(ada.id, client(404), &left).await.expect("end"));

    let answer = store.redeem(one_time(404), AccountUpdate::default(), None, &left).await;
    assert!(matches!(answer, Err(RedeemError::Gone)), "{answer:?}");
    let answer = store.redeem(one_time(1), overtaken, None, &left).await;
    assert!(matches!(answer, Err(RedeemError::Gone)), "{answer:?}");
    let answer = store.redeem(one_time(1), taken, None, &left).await;
    assert!(matches!(answer, Err(RedeemError::Taken)), "{answer:?}");
    let answer = store.redeem(one_time(1), AccountUpdate::default(), Some(new_session(2)), &left).await;
    assert!(matches!(answer, Err(RedeemError::Store(_))), "{answer:?}");

    assert_eq!(store.events(i64::MIN, 100).await.expect("list"), []);
    assert_eq!(store.claim(100, DAY).await.expect("claim"), []);
}

/// All of it, in order, with the account that was made or changed, and at the time of the change.
pub async fn what_is_made_leaves_its_trace(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let mut last = (i64::MIN, Timestamp::from_millis(i64::MIN));
    let mut number = 0;
    // What has been left since it was last asked, with the account that it is about.
    let mut check = async |what: &str, about: Option<AccountId>| {
        let recorded = store.events(last.0, 100).await.expect("list");
        let now = store.sessions(AccountId(0)).await.expect("list").0;
        assert_eq!(recorded.len(), 2, "{what}");
        for (Recorded { id, at, event }, expected) in recorded.iter().zip(full_trace().events) {
            assert!(*id > last.0 && *at >= last.1 && *at <= now, "{what}: {id} {at:?} after {last:?}");
            assert_eq!(*event, Event { account: about, ..expected }, "{what}");
            last = (*id, *at);
        }
        let messages = store.claim(100, DAY).await.expect("claim");
        let bodies: Vec<_> = messages.iter().map(|message| message.body.clone()).collect();
        let [first, second] = &recorded[..] else { panic!("there are two") };
        let mut expected = Vec::new();
        for recorded in [first, second] {
            for url in full_trace().webhooks {
                expected.push(MessageBody::Webhook(url, recorded.clone()));
            }
        }
        expected.extend(full_trace().mails.into_iter().map(MessageBody::Mail));
        assert_eq!(bodies, expected, "{what}");
        for message in messages {
            assert!(message.id > number, "{what}");
            number = message.id;
            assert_eq!(message.attempt, 1, "{what}");
            assert!((recorded[0].at..=now).contains(&message.created_at), "{what}: {message:?}");
        }
    };
    let left = full_trace();
    let (ada, _) = store.create_account(new_account("ada"), None, &left).await.expect("create");
    check("an account", Some(ada.id)).await;
    let (bob, _) = store.create_account(new_account("bob"), Some(new_session(9)), &left).await.expect("create");
    check("an account with a session", Some(bob.id)).await;
    harness.advance(Duration::from_secs(1)).await;
    store.create_session(ada.id, new_session(1), &left).await.expect("create");
    check("a session", Some(ada.id)).await;
    let update = AccountUpdate { end: EndSessions::All, ..AccountUpdate::default() };
    store.update_account(bob.id, update, &left).await.expect("update");
    check("a change", Some(bob.id)).await;
    assert!(store.end_session(ada.id, client(1), &left).await.expect("end"));
    check("an ended session", Some(ada.id)).await;
    harness.advance(Duration::from_secs(1)).await;
    assert!(store.create_one_time(token(bob.id, 1)).await.expect("keep"));
    store.redeem(one_time(1), AccountUpdate::default(), Some(new_session(2)), &left).await.expect("redeem");
    check("a redeemed token", Some(bob.id)).await;
    assert!(store.delete_account(ada.id, &left).await.expect("delete"));
    check("a deletion", Some(ada.id)).await;
    store.record(&left).await.expect("record");
    check("nothing else", None).await;
    // Those of the deleted account included.
    assert_eq!(store.events(i64::MIN, 100).await.expect("list").len(), 16);
}

/// Of any kind, from anywhere, with and without each part; and what names its account keeps it.
pub async fn an_event_comes_back_as_it_was(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let owner = account(&*store, "ada").await;
    let mut expected: Vec<Event> = EventKind::ALL.into_iter().map(event).collect();
    for ip in ["192.0.2.7", "::", "2001:db8::1", "::ffff:192.0.2.7"] {
        let device = Device { ip: Some(ip.parse().expect("an address")), user_agent: None };
        expected.push(Event { device, ..event(EventKind::SignedIn) });
    }
    for text in odd() {
        expected.push(Event {
            realm: text.clone(),
            account: Some(AccountId(i64::MAX)),
            uid: Some(text.clone()),
            client: Some(client(7)),
            device: Device { ip: None, user_agent: Some(text) },
            ..event(EventKind::SignInFailed)
        });
    }
    let left = Trace { events: expected.clone(), webhooks: odd(), mails: Vec::new() };
    store.record(&left).await.expect("record");
    assert_eq!(all_events(&*store).await, expected);
    // The webhooks are told the same.
    let messages = store.claim(1_000, DAY).await.expect("claim");
    let mut told = Vec::new();
    for event in &expected {
        told.extend(odd().into_iter().map(|url| (url, event.clone())));
    }
    let claimed = messages.into_iter().map(|message| match message.body {
        MessageBody::Webhook(url, recorded) => (url, recorded.event),
        MessageBody::Mail(mail) => panic!("{mail:?}"),
    });
    assert_eq!(claimed.collect::<Vec<_>>(), told);

    store.update_account(owner.id, AccountUpdate::default(), &left).await.expect("update");
    for (event, expected) in all_events(&*store).await[expected.len()..].iter().zip(&expected) {
        assert_eq!(event.account, expected.account.or(Some(owner.id)));
    }
}

/// Each of its fields may hold anything.
pub async fn a_mail_comes_back_as_it_was(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let mut mails: Vec<MailOrder> = Occasion::ALL.into_iter().map(mail).collect();
    for text in odd() {
        mails.push(MailOrder {
            occasion: Occasion::EmailChanged,
            realm: text.clone(),
            provider: text.clone(),
            uid: text.clone(),
            to: Some(text.clone()),
            name: Some(text.clone()),
            languages: text.clone(),
            new_email: Some(text.clone()),
            redirect_url: Some(text.clone()),
            config_name: Some(text),
        });
    }
    // Without an event there is nothing to tell a webhook.
    let left = Trace { events: Vec::new(), webhooks: odd(), mails: mails.clone() };
    store.record(&left).await.expect("record");
    let claimed = store.claim(1_000, DAY).await.expect("claim");
    assert_eq!(
        claimed.into_iter().map(|message| message.body).collect::<Vec<_>>(),
        mails.into_iter().map(MessageBody::Mail).collect::<Vec<_>>()
    );
    assert_eq!(store.events(i64::MIN, 10).await.expect("list"), []);
    store.record(&Trace::NONE).await.expect("record");
    assert_eq!(store.claim(1_000, DAY).await.expect("claim"), []);
}

/// From any number on, and no more than asked for.
pub async fn events_are_read_in_parts(harness: &dyn Harness) {
    let nodes = harness.nodes(NODES).await;
    for (number, kind) in EventKind::ALL.into_iter().enumerate() {
        nodes[number % NODES].record(&trace(kind)).await.expect("record");
    }
    for node in &nodes {
        let mut read = Vec::new();
        let mut after = i64::MIN;
        for limit in (0..).take_while(|limit| *limit < 7) {
            let part = node.events(after, limit).await.expect("list");
            assert_eq!(part.len(), (limit as usize).min(EventKind::ALL.len() - read.len()));
            after = part.last().map_or(after, |recorded| recorded.id);
            read.extend(part.into_iter().map(|recorded| recorded.event.kind));
        }
        assert_eq!(read, EventKind::ALL);
        assert_eq!(node.events(after, 10).await.expect("list"), []);
        assert_eq!(node.events(i64::MAX, u32::MAX).await.expect("list"), []);
    }
}

/// Nobody else gets it for that long; then it is due again, and says how often it was.
pub async fn a_claimed_message_comes_back_after_its_lease(harness: &dyn Harness) {
    let nodes = harness.nodes(NODES).await;
    post(&*nodes[0], 1).await;
    let lease = Duration::from_secs(3);
    let first = claim_one(&*nodes[1], lease).await;
    assert_eq!((uid(&first), first.attempt), ("1", 1));
    for node in &nodes {
        assert_eq!(node.claim(10, lease).await.expect("claim"), []);
    }
    harness.advance(lease - Duration::from_secs(1)).await;
    for node in &nodes {
        assert_eq!(node.claim(10, lease).await.expect("claim"), []);
    }
    for attempt in 2..5 {
        harness.advance(lease).await;
        let again = claim_one(&*nodes[attempt % NODES], lease).await;
        assert_eq!(again, Message { attempt: u32::try_from(attempt).expect("small"), ..first.clone() });
    }
    // With no lease it is due again at once.
    harness.advance(lease).await;
    for attempt in 5..8 {
        assert_eq!(claim_one(&*nodes[0], Duration::ZERO).await.attempt, attempt);
    }
    assert_eq!(nodes[0].claim(0, DAY).await.expect("claim"), []);
    assert_eq!(claim_one(&*nodes[0], Duration::MAX).await.attempt, 8);
    assert_eq!(nodes[0].claim(10, DAY).await.expect("claim"), []);
}

/// What is done is gone; what is to be tried again is due after that time, and not before.
pub async fn a_settled_message_is_gone_or_due_later(harness: &dyn Harness) {
    let store = fresh(harness).await;
    for number in 1..=3 {
        post(&*store, number).await;
    }
    let claimed = store.claim(10, DAY).await.expect("claim");
    let [done, later, held] = &claimed[..] else { panic!("{claimed:?}") };
    store.settle(done.id, done.attempt, Outcome::Done).await.expect("settle");
    store.settle(later.id, later.attempt, Outcome::Retry(Duration::from_secs(3))).await.expect("settle");
    // Twice, and of none: harmless.
    store.settle(done.id, done.attempt, Outcome::Done).await.expect("settle");
    store.settle(done.id, done.attempt, Outcome::Retry(Duration::ZERO)).await.expect("settle");
    store.settle(i64::MAX, 1, Outcome::Done).await.expect("settle");
    assert_eq!(store.claim(10, DAY).await.expect("claim"), []);
    harness.advance(Duration::from_secs(2)).await;
    assert_eq!(store.claim(10, DAY).await.expect("claim"), []);
    harness.advance(Duration::from_secs(1)).await;
    let again = claim_one(&*store, DAY).await;
    assert_eq!(again, Message { attempt: 2, ..later.clone() });
    store.settle(held.id, held.attempt, Outcome::Retry(Duration::ZERO)).await.expect("settle");
    let again = claim_one(&*store, DAY).await;
    assert_eq!(again, Message { attempt: 2, ..held.clone() });
}

/// Who was slow does not undo what another one does with it.
pub async fn a_message_that_was_claimed_again_is_left_alone(harness: &dyn Harness) {
    let store = fresh(harness).await;
    post(&*store, 1).await;
    let slow = claim_one(&*store, Duration::ZERO).await;
    let quick = claim_one(&*store, Duration::from_secs(3)).await;
    assert_eq!((slow.attempt, quick.attempt), (1, 2));
    store.settle(slow.id, slow.attempt, Outcome::Retry(Duration::ZERO)).await.expect("settle");
    assert_eq!(store.claim(10, DAY).await.expect("claim"), [], "it is in other hands");
    store.settle(slow.id, slow.attempt, Outcome::Retry(DAY)).await.expect("settle");
    store.settle(slow.id, slow.attempt, Outcome::Done).await.expect("settle");
    harness.advance(Duration::from_secs(3)).await;
    let third = claim_one(&*store, Duration::ZERO).await;
    assert_eq!(third, Message { attempt: 3, ..slow });
    store.settle(quick.id, quick.attempt, Outcome::Done).await.expect("settle");
    store.settle(third.id, third.attempt + 1, Outcome::Done).await.expect("settle");
    assert_eq!(claim_one(&*store, DAY).await.attempt, 4);
}

/// By the time at which they became due, then by number; no more than asked for.
pub async fn messages_come_in_the_order_in_which_they_are_due(harness: &dyn Harness) {
    let store = fresh(harness).await;
    for number in 1..=6 {
        post(&*store, number).await;
    }
    let numbers = |messages: Vec<Message>| messages.iter().map(|message| uid(message).to_owned()).collect::<Vec<_>>();
    let claimed = store.claim(4, DAY).await.expect("claim");
    assert_eq!(numbers(claimed.clone()), ["1", "2", "3", "4"]);
    for (message, after) in claimed.iter().zip([2_000, 1_000, 1_500, 2_500]) {
        let later = Outcome::Retry(Duration::from_millis(after));
        store.settle(message.id, message.attempt, later).await.expect("settle");
    }
    harness.advance(Duration::from_secs(3)).await;
    post(&*store, 7).await;
    assert_eq!(numbers(store.claim(2, DAY).await.expect("claim")), ["5", "6"]);
    assert_eq!(numbers(store.claim(3, DAY).await.expect("claim")), ["2", "3", "1"]);
    assert_eq!(numbers(store.claim(u32::MAX, DAY).await.expect("claim")), ["4", "7"]);
}

/// Each message goes to one of them, however many ask at once and on whichever node.
pub async fn a_message_is_claimed_by_one_of_many(harness: &dyn Harness) {
    const MESSAGES: usize = 40;
    let nodes = harness.nodes(NODES).await;
    for number in 0..MESSAGES {
        post(&*nodes[number % NODES], number).await;
    }
    let answers = race(&nodes, |node, _| async move {
        let mut mine = Vec::new();
        for limit in [1, 2, 1, 3] {
            mine.extend(node.claim(limit, DAY).await.expect("claim"));
        }
        mine
    })
    .await;
    let claimed: Vec<_> = answers.into_iter().flatten().collect();
    assert!(claimed.iter().all(|message| message.attempt == 1), "{claimed:?}");
    let distinct: BTreeSet<_> = claimed.iter().map(|message| message.id).collect();
    assert_eq!((claimed.len(), distinct.len()), (MESSAGES, MESSAGES), "7 each for {RIVALS} are enough for all");
    // And settled by one: the others find it gone.
    race(&nodes, move |node, rival| {
        let messages = claimed.clone();
        async move {
            for message in messages.iter().skip(rival % 2) {
                node.settle(message.id, message.attempt, Outcome::Done).await.expect("settle");
            }
        }
    })
    .await;
    harness.advance(Duration::from_secs(1)).await;
    assert_eq!(nodes[0].claim(100, DAY).await.expect("claim"), []);
}

/// However many write at once, on whichever node, no event is lost and no number given twice.
pub async fn many_traces_at_once_are_all_left(harness: &dyn Harness) {
    let nodes = harness.nodes(NODES).await;
    race(&nodes, |node, rival| async move {
        for kind in [EventKind::SignedIn, EventKind::SignedOut] {
            let event = Event { uid: Some(rival.to_string()), ..event(kind) };
            node.record(&Trace { events: vec![event], ..full_trace() }).await.expect("record");
        }
    })
    .await;
    let recorded = nodes[1].events(i64::MIN, 1_000).await.expect("list");
    assert_eq!(recorded.len(), 2 * RIVALS);
    assert!(recorded.is_sorted_by(|a, b| a.id < b.id && a.at <= b.at), "{recorded:?}");
    for rival in 0..RIVALS {
        let of = recorded.iter().filter(|recorded| recorded.event.uid == Some(rival.to_string()));
        let kinds: Vec<_> = of.map(|recorded| recorded.event.kind).collect();
        assert_eq!(kinds, [EventKind::SignedIn, EventKind::SignedOut]);
    }
    // Two webhooks for each, and two mails.
    assert_eq!(nodes[0].claim(1_000, DAY).await.expect("claim").len(), 2 * RIVALS * 4);
}

/// Old enough and not waiting for a webhook; and their numbers are not used again.
pub async fn old_events_are_purged(harness: &dyn Harness) {
    let store = fresh(harness).await;
    let hooked = Trace { webhooks: vec!["https://hook.test".to_owned()], ..trace(EventKind::Locked) };
    store.record(&trace(EventKind::SignedIn)).await.expect("record");
    store.record(&hooked).await.expect("record");
    store
        .record(&Trace { mails: vec![mail(Occasion::AlreadyRegistered)], ..trace(EventKind::SignedIn) })
        .await
        .expect("record");
    harness.advance(Duration::from_secs(3)).await;
    for _ in 0..3 {
        store.record(&trace(EventKind::SignedOut)).await.expect("record");
    }
    let age = Duration::from_secs(2);
    for (age, limit, purged) in
        [(Duration::MAX, 10, 0), (DAY, 10, 0), (age, 0, 0), (age, 1, 1), (age, 10, 1), (age, 10, 0)]
    {
        assert_eq!(store.purge_events(age, limit).await.expect("purge"), purged);
    }
    assert_eq!(
        kinds(&*store).await,
        [EventKind::Locked, EventKind::SignedOut, EventKind::SignedOut, EventKind::SignedOut]
    );
    let last = store.events(i64::MIN, 10).await.expect("list").last().expect("there are four").id;
    assert_eq!(store.purge_events(Duration::ZERO, 2).await.expect("purge"), 2);
    assert_eq!(store.purge_events(Duration::ZERO, u32::MAX).await.expect("purge"), 1);
    assert_eq!(kinds(&*store).await, [EventKind::Locked]);

    // What was told is not waiting any more.
    let claimed = store.claim(10, DAY).await.expect("claim");
    assert_eq!(store.purge_events(Duration::ZERO, 10).await.expect("purge"), 0, "claimed is not out");
    for message in claimed {
        store.settle(message.id, message.attempt, Outcome::Done).await.expect("settle");
    }
    assert_eq!(store.purge_events(Duration::ZERO, 10).await.expect("purge"), 1);
    store.record(&trace(EventKind::SignedIn)).await.expect("record");
    assert!(store.events(i64::MIN, 10).await.expect("list")[0].id > last);
    // Whoever has read up to the last one gets the new one.
    assert_eq!(store.events(last, 10).await.expect("list").len(), 1);
}

/// One event of this kind.
pub(super) fn trace(kind: EventKind) -> Trace {
    Trace { events: vec![event(kind)], ..Trace::NONE }
}

/// The kinds of all that was recorded.
pub(super) async fn kinds(store: &dyn Store) -> Vec<EventKind> {
    all_events(store).await.into_iter().map(|event| event.kind).collect()
}

async fn all_events(store: &dyn Store) -> Vec<Event> {
    store.events(i64::MIN, 1_000).await.expect("list").into_iter().map(|recorded| recorded.event).collect()
}

fn event(kind: EventKind) -> Event {
    Event { kind, realm: "user".to_owned(), account: None, uid: None, client: None, device: Device::default() }
}

fn mail(occasion: Occasion) -> MailOrder {
    MailOrder::new(occasion, "user", "email", "ada")
}

/// Two events for two webhooks, and two mails.
fn full_trace() -> Trace {
    let device = Device { ip: Some([192, 0, 2, 1].into()), user_agent: Some("Lynx".to_owned()) };
    let first = Event { uid: Some("ada".to_owned()), client: Some(client(1)), device, ..event(EventKind::Registered) };
    Trace {
        events: vec![first, event(EventKind::SignedIn)],
        webhooks: vec!["https://one.test/hook".to_owned(), "https://two.test/hook".to_owned()],
        mails: vec![mail(Occasion::ConfirmEmail), mail(Occasion::ResetPassword)],
    }
}

fn odd() -> Vec<String> {
    let odd = ["", "a\0b", "\"\\'\r\n\t\u{7f}", "👩‍👩‍👧", "'; DROP TABLE outbox; --", "\u{202e}\u{10ffff}"];
    odd.into_iter().map(str::to_owned).chain(["ß".repeat(5_000)]).collect()
}

fn one_time(number: u64) -> OneTimeId {
    OneTimeId::from_bytes(*client(number).as_bytes())
}

fn token(account: AccountId, number: u64) -> NewOneTime {
    let (purpose, email) = (Purpose::Reset, "ada@example.test".to_owned());
    NewOneTime { id: one_time(number), account, purpose, email, lifetime: DAY }
}

/// Puts a mail into the outbox that can be told by its number.
async fn post(store: &dyn Store, number: usize) {
    let mail = MailOrder { uid: number.to_string(), ..mail(Occasion::AlreadyRegistered) };
    store.record(&Trace { mails: vec![mail], ..Trace::NONE }).await.expect("record");
}

fn uid(message: &Message) -> &str {
    match &message.body {
        MessageBody::Mail(mail) => &mail.uid,
        MessageBody::Webhook(..) => panic!("{message:?}"),
    }
}

async fn claim_one(store: &dyn Store, lease: Duration) -> Message {
    let mut claimed = store.claim(10, lease).await.expect("claim");
    assert_eq!(claimed.len(), 1, "{claimed:?}");
    claimed.remove(0)
}
