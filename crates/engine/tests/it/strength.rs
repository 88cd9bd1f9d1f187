//! Which new passwords are refused, and why.

use std::sync::Arc;

use baton_core::{Key, KeyRing, Timestamp};
use baton_engine::{
    Blocklist, Engine, OsRandom, PasswordStrength, RegisterError, Registration, SecretString, Settings, Visitor,
};
use baton_store::clock::ManualClock;
use baton_store::memory::MemoryStore;

/// Longer than what is scored, and without a pattern.
const PORTRAIT: &str = "https://i.example.com/zq7kvxpwj2mdu8rt5bgynh3cfls9/annabel-hathersage-portrait.png";

const COMMON: &str = "is too common";
const PERSONAL: &str = "must not be taken from the e-mail address or the profile";
const GUESSABLE: &str = "is too easy to guess";

async fn engine(password_strength: PasswordStrength) -> Engine {
    let store = MemoryStore::new(Arc::new(ManualClock::new(Timestamp::from_millis(1_790_000_000_000))));
    let keys = KeyRing::new(vec![Key::new(0, *b"0123456789abcdef0123456789abcdef").expect("an id in range")]);
    let settings = Settings { password_strength, ..Settings::default() };
    Engine::open(Arc::new(store), keys.expect("a ring"), Arc::new(OsRandom), settings).await.expect("an engine")
}

/// What is said about a password that `annabel.hathersage@example.com` wants; nothing if she may have it.
async fn faults(engine: &Engine, password: &str) -> Vec<String> {
    let profile = serde_json::json!({
        "name": "Annabel Hathersage", "nickname": "Thunderclap", "shoe": "Wellington boots", "image": PORTRAIT,
    });
    let form = Registration {
        email: Some("Annabel.Hathersage@Example.com".into()),
        password: Some(SecretString::from(password)),
        password_confirmation: None,
        profile: profile.as_object().cloned().unwrap_or_default(),
        ..Registration::default()
    };
    match engine.register(form, &Visitor::default()).await {
        Ok(_) => Vec::new(),
        Err(RegisterError::Invalid(faults)) => faults
            .iter()
            // Somebody had a password accepted before: that is found last.
            .filter(|(field, _)| *field != "email")
            .map(|(field, fault)| {
                assert_eq!(field, "password");
                fault.to_owned()
            })
            .collect(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn common_personal_and_guessable_passwords_are_refused() {
    let engine = engine(PasswordStrength { min_score: 3, ..PasswordStrength::default() }).await;
    for (password, fault) in [
        ("password", COMMON),
        ("PassWord", COMMON),
        ("p4ssw0rd", COMMON),
        ("12345678", COMMON),
        ("secret123", COMMON),
        ("annabel.hathersage@example.com", PERSONAL),
        ("ANNABEL.HATHERSAGE@EXAMPLE.COM", PERSONAL),
        ("annabel.hathersage", PERSONAL),
        ("Annabel Hathersage", PERSONAL),
        ("hathersage", PERSONAL),
        ("h4thers4ge", PERSONAL),
        ("thunderclap", PERSONAL),
        (PORTRAIT, PERSONAL),
        ("xxxxxxxx", GUESSABLE),
        ("        ", GUESSABLE),
        ("qwertyuiop1", GUESSABLE),
        ("Summer2026!", GUESSABLE),
        ("thunderclap1", GUESSABLE),
        ("hathersage2026", GUESSABLE),
        ("1990-10-15", GUESSABLE),
        // Of 8 characters that have no pattern too, 9 are enough.
        ("zqvkwpjx", GUESSABLE),
    ] {
        assert_eq!(faults(&engine, password).await, [fault], "{password:?}");
    }
    assert_eq!(engine.hashing_load().computed, 0, "none of them was worth a hash");
    for password in
        ["correct horse battery", "gruene Wiese am See", "wellington boots 7", "zqvkwpjxm", "💩🐎🔋🔌☂️🪑🧶🧲"]
    {
        assert!(faults(&engine, password).await.is_empty(), "{password:?}");
    }
}

#[tokio::test]
async fn by_default_eight_characters_without_a_pattern_are_enough() {
    let engine = engine(PasswordStrength::default()).await;
    for (password, fault) in [
        ("p4ssw0rd", COMMON),
        ("secret123", COMMON),
        ("h4thers4ge", PERSONAL),
        ("xxxxxxxx", GUESSABLE),
        ("qwertyuiop1", GUESSABLE),
        ("1990-10-15", GUESSABLE),
    ] {
        assert_eq!(faults(&engine, password).await, [fault], "{password:?}");
    }
    assert!(faults(&engine, "zqvkwpjx").await.is_empty());
}

#[tokio::test]
async fn of_a_password_of_the_wrong_length_that_alone_is_said() {
    let engine = engine(PasswordStrength::default()).await;
    assert_eq!(faults(&engine, "pass").await, ["is too short (minimum is 8 characters)"]);
    assert_eq!(faults(&engine, &"x".repeat(129)).await, ["is too long (maximum is 128 characters)"]);
}

#[tokio::test]
async fn each_step_of_the_score_asks_for_more() {
    // Scores 0 to 4.
    let passwords = ["xxxxxxxx", "qwertyuiop1", "long enough", "another password", "correct horse battery"];
    for min_score in 0..=5 {
        let engine = engine(PasswordStrength { min_score, ..PasswordStrength::default() }).await;
        for (score, password) in passwords.iter().enumerate() {
            let refused = !faults(&engine, password).await.is_empty();
            assert_eq!(refused, score < usize::from(min_score.min(4)), "{password:?} at {min_score}");
        }
    }
}

#[tokio::test]
async fn at_0_only_the_operators_list_is_asked() {
    let engine = engine(PasswordStrength { min_score: 0, blocklist: Blocklist::new(["acme corp", "Grüße"]) }).await;
    for password in ["password", "secret123", "annabel.hathersage@example.com", "xxxxxxxx"] {
        assert!(faults(&engine, password).await.is_empty(), "{password:?}");
    }
    assert_eq!(faults(&engine, "ACME Corp").await, [COMMON]);
    assert!(faults(&engine, "acme corp ").await.is_empty(), "white space counts");
}

/// The estimate looks at the first 64 characters only; the hash at all of them.
#[tokio::test]
async fn a_long_password_is_scored_by_its_beginning() {
    let engine = engine(PasswordStrength { min_score: 4, ..PasswordStrength::default() }).await;
    assert_eq!(faults(&engine, &format!("{}correct horse battery", "x".repeat(64))).await, [GUESSABLE]);
    assert!(faults(&engine, &format!("correct horse battery{}", "x".repeat(64))).await.is_empty());
}
