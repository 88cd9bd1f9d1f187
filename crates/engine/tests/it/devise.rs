//! Accounts that were taken over from Devise, with their bcrypt hashes.

use std::sync::Arc;

use baton_core::event::Trace;
use baton_core::session::{NewAccount, PasswordHash, Profile};
use baton_core::{Key, KeyRing, Store, Timestamp};
use baton_engine::{Engine, OsRandom, PasswordError, Settings, SignInError, SignedIn, Visitor};
use baton_store::clock::ManualClock;
use baton_store::memory::MemoryStore;

const EMAIL: &str = "ann@example.com";
const PASSWORD: &str = "correct horse battery";
const PEPPER: &str = "pepper of the old application";
// Made with the Python package `bcrypt` 5.0.0.
const PLAIN: &str = "$2a$04$abcdefghijklmnopqrstuuqREtd3VJD2QVZbuFskFSLk6eRIrQoOS";
const PEPPERED: &str = "$2a$04$0123456789ABCDEFGHIJKeQCfH9g6BtJBK6rz5gbVTP0g3KtvoPa6";
const OF_72: &str = "$2a$04$abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe";

/// An engine with a pepper over one account with this hash.
async fn taken_over(hash: &str, pepper: &str) -> (Engine, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new(Arc::new(ManualClock::new(Timestamp::from_millis(1_790_000_000_000)))));
    let account = NewAccount {
        realm: "user".into(),
        provider: "email".into(),
        uid: EMAIL.into(),
        email: EMAIL.into(),
        profile: Profile::default(),
        password: PasswordHash::new(hash.to_owned()),
    };
    store.create_account(account, None, &Trace::NONE).await.expect("an account");
    let keys = KeyRing::new(vec![Key::new(0, *b"0123456789abcdef0123456789abcdef").expect("an id in range")]);
    let settings = Settings { bcrypt_pepper: pepper.into(), ..Settings::default() };
    let engine = Engine::open(store.clone(), keys.expect("a ring"), Arc::new(OsRandom), settings).await;
    (engine.expect("an engine"), store)
}

async fn sign_in(engine: &Engine, password: &str) -> Result<SignedIn, SignInError> {
    engine.sign_in(EMAIL, password.into(), &Visitor::default()).await
}

async fn stored_hash(store: &MemoryStore) -> String {
    let login = store.find_login("user", "email", EMAIL).await.expect("a store").expect("an account");
    login.password.expose().to_owned()
}

#[tokio::test]
async fn a_hash_of_devise_is_replaced_at_the_first_sign_in_that_succeeds() {
    for (hash, pepper) in [(PLAIN, ""), (PEPPERED, PEPPER)] {
        let (engine, store) = taken_over(hash, pepper).await;
        for wrong in ["wrong one", "", "correct horse battery\0", &format!("{PASSWORD}{PEPPER}")] {
            assert!(matches!(sign_in(&engine, wrong).await, Err(SignInError::BadCredentials)), "{wrong:?}");
        }
        assert_eq!(stored_hash(&store).await, hash, "only the right password can be hashed anew");
        sign_in(&engine, PASSWORD).await.expect("a session");
        let new = stored_hash(&store).await;
        assert!(new.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{new}");
        sign_in(&engine, PASSWORD).await.expect("a session");
        assert_eq!(stored_hash(&store).await, new, "once");
        // The pepper was Devise's alone.
        assert!(matches!(sign_in(&engine, &format!("{PASSWORD}{PEPPER}")).await, Err(SignInError::BadCredentials)));
    }
}

#[tokio::test]
async fn without_its_pepper_no_password_fits() {
    for pepper in ["", "another pepper"] {
        let (engine, store) = taken_over(PEPPERED, pepper).await;
        assert!(matches!(sign_in(&engine, PASSWORD).await, Err(SignInError::BadCredentials)));
        assert_eq!(stored_hash(&store).await, PEPPERED);
    }
    let (engine, _) = taken_over(PLAIN, PEPPER).await;
    assert!(matches!(sign_in(&engine, PASSWORD).await, Err(SignInError::BadCredentials)));
}

/// Devise never looked at the rest, so nobody can tell whether it is right: what was typed is the password from then on.
#[tokio::test]
async fn of_a_long_password_every_byte_counts_once_it_is_hashed_anew() {
    let (engine, _) = taken_over(OF_72, PEPPER).await;
    let long = "a".repeat(100);
    sign_in(&engine, &long).await.expect("a session");
    sign_in(&engine, &long).await.expect("a session");
    assert!(matches!(sign_in(&engine, &"a".repeat(72)).await, Err(SignInError::BadCredentials)));
}

#[tokio::test]
async fn a_hash_that_cannot_be_read_is_not_taken_for_a_wrong_password() {
    let rest = "abcdefghijklmnopqrstuuqREtd3VJD2QVZbuFskFSLk6eRIrQoOS";
    for hash in [format!("$2a$15${rest}"), format!("$2a$31${rest}"), format!("$2x$04${rest}"), "$2a$04$".to_owned()] {
        let (engine, store) = taken_over(&hash, PEPPER).await;
        let refused = sign_in(&engine, PASSWORD).await;
        let Err(SignInError::Password(PasswordError::Failed(why))) = &refused else { panic!("{hash}: {refused:?}") };
        assert!(!why.contains(PASSWORD) && !why.contains("pepper") && !why.contains("abcdef"), "{why}");
        assert_eq!(stored_hash(&store).await, hash);
    }
}

#[tokio::test]
async fn the_pepper_is_not_shown() {
    let (engine, _) = taken_over(PLAIN, PEPPER).await;
    assert!(!format!("{engine:?} {:?}", engine.settings()).contains(PEPPER));
}
