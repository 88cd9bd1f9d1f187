//! The store that fails on demand.

use std::sync::Arc;

use baton_core::attempts::{AttemptName, AttemptRule};
use baton_core::error::{CreateAccountError, RedeemError, StoreError};
use baton_core::event::{Outcome, Trace};
use baton_core::one_time::{OneTimeId, Purpose};
use baton_core::ports::{NewOneTime, Store};
use baton_core::session::{AccountId, AccountUpdate, Swapped};
use baton_store::clock::ManualClock;
use baton_store::faulty::{Fault, FaultyStore, Operation, Wire};
use baton_store::memory::MemoryStore;

use crate::fixture::{DAY, START, client, mails, new_account, new_session, rotation};

async fn faulty() -> Arc<FaultyStore> {
    let store = FaultyStore::new(Arc::new(MemoryStore::new(Arc::new(ManualClock::new(START)))));
    store.inner().create_account(new_account("ada"), Some(new_session(1)), &Trace::NONE).await.expect("make");
    Arc::new(store)
}

async fn generation(store: &FaultyStore) -> u32 {
    store.inner().find(client(1)).await.expect("find").expect("it exists").session.generation.get()
}

async fn swap(store: &FaultyStore) -> Result<Swapped, StoreError> {
    let found = store.inner().find(client(1)).await.expect("find").expect("it exists");
    store.swap(client(1), &rotation(&found.session), None).await
}

#[tokio::test]
async fn faults_are_what_they_say() {
    let store = faulty().await;
    let faults = [Fault::Unavailable, Fault::UncertainNotApplied, Fault::UncertainApplied, Fault::Unusable];
    for fault in faults {
        store.fail_next(Operation::Swap, fault);
    }
    assert!(matches!(swap(&store).await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(swap(&store).await, Err(StoreError::Uncertain { .. })));
    assert_eq!(generation(&store).await, 1);
    assert!(matches!(swap(&store).await, Err(StoreError::Uncertain { .. })));
    assert_eq!(generation(&store).await, 2);
    assert!(matches!(swap(&store).await, Err(StoreError::Unusable { .. })));
    assert!(matches!(swap(&store).await, Ok(Swapped::Done(_))));
    assert_eq!((store.calls(Operation::Swap), store.calls(Operation::Find), store.all_calls()), (5, 0, 5));
    store.reset_calls();
    assert_eq!(store.all_calls(), 0);
}

#[tokio::test]
async fn a_fault_lasts_until_it_is_healed() {
    let store = faulty().await;
    store.fail(Operation::Find, Fault::Unavailable);
    for _ in 0..2 {
        assert!(store.find(client(1)).await.is_err());
    }
    store.check().await.expect("another operation");
    store.fail_everything(Fault::Unavailable);
    assert!(store.check().await.is_err());
    store.heal();
    assert!(store.find(client(1)).await.expect("find").is_some());
    // Where the store's own answer is a refusal, there is nothing to be uncertain about.
    store.fail_next(Operation::CreateAccount, Fault::UncertainApplied);
    assert!(matches!(
        store.create_account(new_account("ada"), None, &Trace::NONE).await,
        Err(CreateAccountError::Taken)
    ));
}

#[tokio::test]
async fn a_call_can_be_stopped_before_and_after() {
    let store = faulty().await;
    for (after, then) in [(false, 1), (true, 3)] {
        let mut held = if after { store.hold_after(Operation::Swap) } else { store.hold_before(Operation::Swap) };
        let calling = tokio::spawn({
            let store = store.clone();
            async move { swap(&store).await }
        });
        held.reached().await;
        assert_eq!(generation(&store).await, then);
        assert!(!calling.is_finished());
        held.release();
        assert!(matches!(calling.await.expect("joined"), Ok(Swapped::Done(_))));
    }
}

/// Loses what goes there, or what comes back.
struct Cut {
    there: bool,
}

#[async_trait::async_trait]
impl Wire for Cut {
    async fn go(&self, operation: Operation) -> Result<(), StoreError> {
        self.cut(operation, self.there)
    }

    async fn back(&self, operation: Operation) -> Result<(), StoreError> {
        self.cut(operation, !self.there)
    }
}

impl Cut {
    fn cut(&self, operation: Operation, lost: bool) -> Result<(), StoreError> {
        let told = StoreError::Uncertain { store: "cut", cause: format!("{operation:?}").into() };
        if lost { Err(told) } else { Ok(()) }
    }
}

#[tokio::test]
async fn what_is_lost_on_the_way_back_was_done() {
    for (there, then) in [(true, 1), (false, 2)] {
        let store = FaultyStore::behind(Arc::new(Cut { there }), faulty().await.inner().clone());
        let told = swap(&store).await.expect_err("the wire is cut").to_string();
        assert!(told.contains("Swap"), "{told}");
        assert_eq!(generation(&store).await, then);
    }
}

#[tokio::test]
async fn each_of_the_later_operations_is_told_apart_and_passed_on() {
    let store = faulty().await;
    let account = store.inner().find_login("user", "email", "ada").await.expect("find").expect("it exists").account.id;
    let id = OneTimeId::from_bytes([1; 16]);
    let new = NewOneTime { id, account, purpose: Purpose::Reset, email: String::new(), lifetime: DAY };
    let (name, rule) = (AttemptName([1; 16]), AttemptRule { max_attempts: 1, lock_for: DAY, forget_after: DAY });
    let mut told = Vec::new();
    let mut only = |operation| {
        told.push(operation);
        assert!(told.iter().all(|told| store.calls(*told) == 1), "{operation:?}");
        assert_eq!(store.all_calls(), told.len() as u64, "{operation:?}");
    };
    assert!(store.create_one_time(new).await.expect("keep"));
    only(Operation::CreateOneTime);
    assert!(store.find_one_time(id).await.expect("find").is_some());
    only(Operation::FindOneTime);
    store.void_one_time(id).await.expect("void");
    only(Operation::VoidOneTime);
    let gone = store.redeem(id, AccountUpdate::default(), None, &Trace::NONE).await;
    assert!(matches!(gone, Err(RedeemError::Gone)), "{gone:?}");
    only(Operation::Redeem);
    store.count_attempt(name, rule).await.expect("count");
    only(Operation::CountAttempt);
    store.forget_attempts(name).await.expect("forget");
    only(Operation::ForgetAttempts);
    store.record(&mails(["ada"])).await.expect("record");
    only(Operation::Record);
    assert_eq!(store.events(0, 10).await.expect("list"), []);
    only(Operation::Events);
    let message = store.claim(10, DAY).await.expect("claim").remove(0);
    only(Operation::Claim);
    store.settle(message.id, message.attempt, Outcome::Done).await.expect("settle");
    only(Operation::Settle);
    assert_eq!(store.purge(10).await.expect("purge"), 0);
    only(Operation::Purge);
    assert_eq!(store.purge_events(DAY, 10).await.expect("purge"), 0);
    only(Operation::PurgeEvents);
    assert_eq!(store.sessions(AccountId(0)).await.expect("list").1, []);
    only(Operation::Sessions);
}
