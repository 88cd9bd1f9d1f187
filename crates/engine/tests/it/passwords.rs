//! Password hashes: bounded in number, upgraded when the costs are raised, never cheap.

use std::pin::{Pin, pin};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};

use baton_core::event::Trace;
use baton_core::{Key, KeyRing, Store, Timestamp};
use baton_engine::{
    Engine, EngineError, Hashing, HashingError, OsRandom, PasswordError, Registration, Settings, SignInError, SignedIn,
    Visitor,
};
use baton_store::clock::ManualClock;
use baton_store::memory::MemoryStore;
use tokio::runtime::{Builder, Runtime};

const EMAIL: &str = "ann@example.com";
const PASSWORD: &str = "correct horse battery";

fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Arc::new(ManualClock::new(Timestamp::from_millis(1_790_000_000_000)))))
}

async fn open(store: Arc<MemoryStore>, hashing: Hashing) -> Result<Engine, EngineError> {
    let keys = KeyRing::new(vec![Key::new(0, *b"0123456789abcdef0123456789abcdef").expect("an id in range")]);
    let settings = Settings { hashing, ..Settings::default() };
    Engine::open(store, keys.expect("a ring"), Arc::new(OsRandom), settings).await
}

async fn register(engine: &Engine) {
    let form = Registration { email: Some(EMAIL.into()), password: Some(PASSWORD.into()), ..Registration::default() };
    engine.register(form, &Visitor::default()).await.expect("an account");
}

async fn sign_in(engine: &Engine, password: &str) -> Result<SignedIn, SignInError> {
    engine.sign_in(EMAIL, password.into(), &Visitor::default()).await
}

async fn stored_hash(store: &MemoryStore) -> String {
    let login = store.find_login("user", "email", EMAIL).await.expect("a store").expect("an account");
    login.password.expose().to_owned()
}

/// An engine over one account, on a runtime with a single thread for blocking work.
fn on_one_thread(concurrent: usize, waiting: usize) -> (Runtime, Engine) {
    let runtime = Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime");
    let engine = runtime.block_on(async {
        let engine = open(memory(), Hashing { concurrent, waiting, ..Hashing::default() }).await.expect("an engine");
        register(&engine).await;
        engine
    });
    (runtime, engine)
}

/// Keeps that thread until the sender is dropped: whatever asks for a hash stays in line for as long.
fn hold_up(runtime: &Runtime) -> mpsc::Sender<()> {
    let (sender, receiver) = mpsc::channel();
    runtime.spawn_blocking(move || receiver.recv());
    sender
}

/// Polls once.
fn begin<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn is_overloaded(result: &Result<SignedIn, SignInError>) -> bool {
    matches!(result, Err(SignInError::Password(PasswordError::Overloaded)))
}

#[test]
fn whoever_finds_the_line_full_is_turned_away_at_once() {
    let (runtime, engine) = on_one_thread(1, 1);
    let release = hold_up(&runtime);
    runtime.block_on(async {
        let mut running = pin!(sign_in(&engine, PASSWORD));
        assert!(begin(running.as_mut()).is_pending());
        let mut waiting = pin!(sign_in(&engine, PASSWORD));
        assert!(begin(waiting.as_mut()).is_pending());
        assert_eq!(engine.hashing_load().in_line, 2);
        for _ in 0..3 {
            assert!(is_overloaded(&sign_in(&engine, PASSWORD).await), "one runs, one waits");
        }
        assert_eq!(engine.hashing_load().in_line, 2, "they took no place");
        drop(release);
        assert!(running.await.is_ok() && waiting.await.is_ok());
        assert_eq!(engine.hashing_load().in_line, 0);
        assert!(sign_in(&engine, PASSWORD).await.is_ok());
    });
}

/// Otherwise connecting and hanging up would be a way around the bound.
#[test]
fn a_client_that_hangs_up_keeps_its_place_while_its_hash_runs() {
    let (runtime, engine) = on_one_thread(1, 0);
    let release = hold_up(&runtime);
    runtime.block_on(async {
        let mut gone = Box::pin(sign_in(&engine, PASSWORD));
        assert!(begin(gone.as_mut()).is_pending());
        drop(gone);
        assert_eq!(engine.hashing_load().in_line, 1);
        assert!(is_overloaded(&sign_in(&engine, PASSWORD).await));
        drop(release);
        while engine.hashing_load().in_line > 0 {
            tokio::task::yield_now().await;
        }
        assert!(sign_in(&engine, PASSWORD).await.is_ok());
    });
}

/// While it only waits, nothing is being done for it.
#[test]
fn a_client_that_hangs_up_while_it_waits_makes_room() {
    let (runtime, engine) = on_one_thread(1, 1);
    let release = hold_up(&runtime);
    runtime.block_on(async {
        let mut running = pin!(sign_in(&engine, PASSWORD));
        assert!(begin(running.as_mut()).is_pending());
        let mut gone = Box::pin(sign_in(&engine, PASSWORD));
        assert!(begin(gone.as_mut()).is_pending());
        drop(gone);
        assert_eq!(engine.hashing_load().in_line, 1);
        let mut waiting = pin!(sign_in(&engine, PASSWORD));
        assert!(begin(waiting.as_mut()).is_pending(), "there is room for it");
        let before = engine.hashing_load().computed;
        drop(release);
        assert!(running.await.is_ok() && waiting.await.is_ok());
        assert_eq!(engine.hashing_load().computed - before, 2, "none for the one that went away");
    });
}

#[tokio::test]
async fn a_hash_is_made_anew_when_the_costs_are_raised() {
    let store = memory();
    let engine = open(store.clone(), Hashing::default()).await.expect("an engine");
    register(&engine).await;
    let old = stored_hash(&store).await;
    assert!(old.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{old}");
    let session = sign_in(&engine, PASSWORD).await.expect("a session");
    assert_eq!(stored_hash(&store).await, old, "nothing to do at equal costs");

    let raised = open(store.clone(), Hashing { iterations: 3, ..Hashing::default() }).await.expect("an engine");
    assert!(matches!(sign_in(&raised, "wrong one").await, Err(SignInError::BadCredentials)));
    assert_eq!(stored_hash(&store).await, old, "only the right password can be hashed anew");
    sign_in(&raised, PASSWORD).await.expect("a session");
    let new = stored_hash(&store).await;
    assert!(new.starts_with("$argon2id$v=19$m=19456,t=3,p=1$"), "{new}");
    sign_in(&raised, PASSWORD).await.expect("a session");
    assert_eq!(stored_hash(&store).await, new);
    assert!(store.find(session.credentials.client).await.expect("a store").is_some(), "no session ends for it");
}

#[tokio::test]
async fn costs_below_the_minimum_are_refused() {
    for hashing in [
        Hashing { memory_kib: 19 * 1024 - 1, ..Hashing::default() },
        Hashing { iterations: 1, ..Hashing::default() },
        Hashing { iterations: 0, ..Hashing::default() },
        Hashing { parallelism: 0, ..Hashing::default() },
        Hashing { concurrent: 0, ..Hashing::default() },
    ] {
        let refused = open(memory(), hashing.clone()).await;
        assert!(matches!(refused, Err(EngineError::Hashing(HashingError::TooWeak))), "{hashing:?}");
    }
    for hashing in [
        Hashing { parallelism: 1 << 24, memory_kib: u32::MAX, ..Hashing::default() },
        Hashing { parallelism: 4096, ..Hashing::default() },
    ] {
        let refused = open(memory(), hashing.clone()).await;
        assert!(matches!(refused, Err(EngineError::Hashing(HashingError::OutOfRange(_)))), "{hashing:?}");
    }
    let endless = Hashing { concurrent: usize::MAX, waiting: usize::MAX, ..Hashing::default() };
    assert!(open(memory(), endless).await.is_ok());
}

#[tokio::test]
async fn every_hash_has_a_salt_of_its_own() {
    let store = memory();
    let engine = open(store.clone(), Hashing::default()).await.expect("an engine");
    register(&engine).await;
    let first = stored_hash(&store).await;
    let login = store.find_login("user", "email", EMAIL).await.expect("a store").expect("an account");
    store.delete_account(login.account.id, &Trace::NONE).await.expect("a store");
    register(&engine).await;
    assert_ne!(stored_hash(&store).await, first);
}
