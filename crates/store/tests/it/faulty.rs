//! The store that fails on demand.

use std::sync::Arc;

use baton_core::error::{CreateAccountError, StoreError};
use baton_core::event::Trace;
use baton_core::ports::Store;
use baton_core::session::Swapped;
use baton_store::clock::ManualClock;
use baton_store::faulty::{Fault, FaultyStore, Operation};
use baton_store::memory::MemoryStore;

use crate::fixture::{START, client, new_account, new_session, rotation};

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
