//! Tokens, client ids and key files: only what the ring derived is accepted, and nothing that is read comes out different.
//!
//! The first byte says what the rest is.

#![no_main]

use std::sync::LazyLock;

use baton_core::token::parse_keys;
use baton_core::{ClientId, Generation, Key, KeyRing};
use libfuzzer_sys::fuzz_target;

const SECRETS: [(u8, [u8; 32]); 2] =
    [(1, *b"the newest key, which signs now."), (0, *b"the old key, which still counts.")];

fn ring(order: [usize; 2]) -> KeyRing {
    let key = |index: usize| Key::new(SECRETS[index].0, SECRETS[index].1).expect("an id in range");
    KeyRing::new(order.map(key).into()).expect("two keys")
}

/// The server's ring, and one in which the old key signs: between them they derive all there is.
static RINGS: LazyLock<[KeyRing; 2]> = LazyLock::new(|| [ring([0, 1]), ring([1, 0])]);

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => client_id(&String::from_utf8_lossy(rest)),
        1 => any_token(rest),
        2 => altered_token(rest),
        _ => key_file(&String::from_utf8_lossy(rest)),
    }
});

fn client_id(text: &str) {
    if let Some(client) = ClientId::parse(text) {
        assert_eq!(client.to_string(), text, "one spelling only");
        assert_eq!(ClientId::from_bytes(*client.as_bytes()), client);
    }
}

/// 16 bytes of client id, then what is presented.
fn any_token(data: &[u8]) {
    let Some((client, token)) = data.split_first_chunk() else { return };
    is_derived_or_refused(ClientId::from_bytes(*client), &String::from_utf8_lossy(token));
}

/// Client id, generation, which key; then pairs of place and what to put there.
fn altered_token(data: &[u8]) {
    let Some((client, data)) = data.split_first_chunk() else { return };
    let Some((generation, data)) = data.split_first_chunk() else { return };
    let Some((key, changes)) = data.split_first() else { return };
    let (client, generation) = (ClientId::from_bytes(*client), Generation::new(u32::from_be_bytes(*generation)));
    let token = RINGS[usize::from(key % 2)].derive(client, generation);
    let verified = RINGS[0].verify(client, token.expose());
    assert_eq!(
        verified.map(|genuine| genuine.generation()).ok(),
        (generation > Generation::ZERO).then_some(generation)
    );

    let mut bytes = token.expose().as_bytes().to_vec();
    for change in changes.chunks_exact(2) {
        let at = usize::from(change[0]) % bytes.len();
        bytes[at] = change[1];
    }
    is_derived_or_refused(client, &String::from_utf8_lossy(&bytes));
}

fn is_derived_or_refused(client: ClientId, text: &str) {
    if let Ok(genuine) = RINGS[0].verify(client, text) {
        assert_eq!(genuine.client(), client);
        assert!(genuine.generation() > Generation::ZERO);
        let derived = RINGS.each_ref().map(|ring| ring.derive(client, genuine.generation()));
        assert!(derived.iter().any(|token| token.expose() == text), "accepted, but never derived");
    }
}

fn key_file(text: &str) {
    match parse_keys(text) {
        Ok(keys) => {
            let lines: Vec<_> = keys.iter().map(|key| key.to_line().to_string()).collect();
            let again = parse_keys(&lines.join("\n")).expect("what was written can be read");
            assert!(again.iter().map(|key| key.to_line().to_string()).eq(lines));
            if let Ok(ring) = KeyRing::new(keys) {
                assert!(!ring.fingerprints().is_empty());
            }
        }
        Err(error) => {
            let error = error.to_string();
            let secrets = text.split_whitespace().filter(|word| word.len() >= 43);
            assert!(secrets.into_iter().all(|secret| !error.contains(secret)), "a key in a message: {error}");
        }
    }
}
