//! The token codec and the key ring.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use baton_core::token::{CLIENT_CHARS, KEY_LEN, KeyRingError, TOKEN_CHARS, TokenError, parse_keys};
use baton_core::{ClientId, Generation, Key, KeyRing};
use proptest::prelude::*;
use serde_json::Value;

use crate::common::{CLIENT, cases, key, ring, ring_of};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/tokens.json")).unwrap()
}

fn text<'a>(vector: &'a Value, field: &str) -> &'a str {
    vector[field].as_str().unwrap()
}

fn ring_for(vector: &Value) -> KeyRing {
    KeyRing::parse(&format!("{} {}", vector["key_id"], text(vector, "key"))).unwrap()
}

#[test]
fn every_vector_is_derived_and_verified() {
    let vectors = vectors();
    let valid = vectors["valid"].as_array().unwrap();
    assert!(valid.len() > 20);
    for vector in valid {
        let ring = ring_for(vector);
        let client = ClientId::parse(text(vector, "client")).unwrap();
        let generation = Generation::new(u32::try_from(vector["generation"].as_u64().unwrap()).unwrap());
        assert_eq!(ring.derive(client, generation).expose(), text(vector, "token"), "{vector}");
        let genuine = ring.verify(client, text(vector, "token")).unwrap();
        assert_eq!((genuine.client(), genuine.generation()), (client, generation));
    }
}

#[test]
fn every_vector_that_is_to_be_refused_is() {
    let vectors = vectors();
    let refused = vectors["refused"].as_array().unwrap();
    assert!(refused.len() > 5);
    for vector in refused {
        let client = ClientId::parse(text(vector, "client")).unwrap();
        assert!(ring_for(vector).verify(client, text(vector, "token")).is_err(), "{vector}");
    }
}

#[test]
fn every_flipped_bit_of_a_token_is_refused() {
    let token = ring().derive(CLIENT, Generation::new(7));
    let bytes = URL_SAFE_NO_PAD.decode(token.expose()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(ring().verify(CLIENT, &URL_SAFE_NO_PAD.encode(flipped)).is_err(), "bit {bit}");
    }
    for (index, bit) in (0..token.expose().len()).flat_map(|i| (0..7).map(move |bit| (i, bit))) {
        let mut flipped = token.expose().as_bytes().to_vec();
        flipped[index] ^= 1 << bit;
        let flipped = String::from_utf8(flipped).unwrap();
        assert!(ring().verify(CLIENT, &flipped).is_err(), "bit {bit} of character {index}");
    }
}

#[test]
fn every_flipped_bit_of_the_client_is_refused() {
    let token = ring().derive(CLIENT, Generation::new(7));
    for bit in 0..128 {
        let mut other = *CLIENT.as_bytes();
        other[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(ring().verify(ClientId::from_bytes(other), token.expose()), Err(TokenError::Forged), "bit {bit}");
    }
}

#[test]
fn what_is_wrong_with_a_token_is_told_apart() {
    let token = ring().derive(CLIENT, Generation::FIRST);
    let token = token.expose();
    assert_eq!(token.len(), TOKEN_CHARS);
    for malformed in
        ["", "x", &token[1..], &format!("{token}A"), &format!("{token}===="), &"é".repeat(14), &" ".repeat(28)]
    {
        assert_eq!(ring().verify(CLIENT, malformed), Err(TokenError::Malformed), "{malformed:?}");
    }
    // The version is the high half of the first byte: another one is not ours to judge.
    assert_eq!(ring().verify(CLIENT, &format!("I{}", &token[1..])), Err(TokenError::Malformed));
    assert_eq!(ring_of(4, 1).verify(CLIENT, token), Err(TokenError::UnknownKey(3)));
    assert_eq!(ring_of(3, 2).verify(CLIENT, token), Err(TokenError::Forged));
}

#[test]
fn generation_zero_is_never_genuine() {
    let token = ring().derive(CLIENT, Generation::ZERO);
    assert_eq!(ring().verify(CLIENT, token.expose()), Err(TokenError::Forged));
}

#[test]
fn the_key_id_is_signed_along() {
    // The same secret under two ids: a token of one does not pass as one of the other.
    let token = ring_of(1, 9).derive(CLIENT, Generation::new(5));
    let mut bytes = URL_SAFE_NO_PAD.decode(token.expose()).unwrap();
    bytes[0] = 0x12;
    assert_eq!(ring_of(2, 9).verify(CLIENT, &URL_SAFE_NO_PAD.encode(bytes)), Err(TokenError::Forged));
}

#[test]
fn a_retired_key_still_verifies_and_the_first_one_signs() {
    let old = ring_of(1, 1);
    let both = KeyRing::new(vec![key(2, 2), key(1, 1)]).unwrap();
    let before = old.derive(CLIENT, Generation::new(4));
    assert_eq!(both.verify(CLIENT, before.expose()).unwrap().generation().get(), 4);
    let after = both.derive(CLIENT, Generation::new(5));
    assert!(both.verify(CLIENT, after.expose()).is_ok());
    assert_eq!(old.verify(CLIENT, after.expose()), Err(TokenError::UnknownKey(2)));
    assert_eq!(after, ring_of(2, 2).derive(CLIENT, Generation::new(5)));
    assert_eq!(ring_of(2, 2).verify(CLIENT, before.expose()), Err(TokenError::UnknownKey(1)), "once it is taken out");
}

#[test]
fn a_key_file_is_read_and_written() {
    let (a, b) = (key(0, 1), key(15, 2));
    let file = format!("# signs\n{}\n\n  {}  \r\n# end", *a.to_line(), *b.to_line());
    let ring = KeyRing::parse(&file).unwrap();
    assert_eq!(ring.derive(CLIENT, Generation::FIRST), ring_of(0, 1).derive(CLIENT, Generation::FIRST));
    assert!(ring.verify(CLIENT, ring_of(15, 2).derive(CLIENT, Generation::FIRST).expose()).is_ok());
    let ids: Vec<u8> = parse_keys(&file).unwrap().iter().map(Key::id).collect();
    assert_eq!(ids, [0, 15]);
}

#[test]
fn a_key_file_that_cannot_be_used_says_why_and_shows_no_key() {
    let line = key(0, 1).to_line();
    let secret = line.split_once(' ').unwrap().1.to_owned();
    let weak = URL_SAFE_NO_PAD.encode([7u8; KEY_LEN]);
    let cases = [
        (String::new(), KeyRingError::Empty),
        ("# nothing\n\n".to_owned(), KeyRingError::Empty),
        (format!("16 {secret}"), KeyRingError::IdOutOfRange("16".to_owned())),
        (format!("256 {secret}"), KeyRingError::Malformed(1)),
        (format!("-1 {secret}"), KeyRingError::Malformed(1)),
        (format!("# one\n{secret} 0"), KeyRingError::Malformed(2)),
        (format!("0 {secret}\n1\n"), KeyRingError::Malformed(2)),
        (secret.clone(), KeyRingError::Malformed(1)),
        (format!("0 {secret}="), KeyRingError::Malformed(1)),
        (format!("0 {}", &secret[1..]), KeyRingError::Malformed(1)),
        (format!("0 {secret} {secret}"), KeyRingError::Malformed(1)),
        (format!("0 {secret}\n1 {secret}\n0 {secret}"), KeyRingError::DuplicateId(0)),
        (format!("5 {weak}"), KeyRingError::Weak(5)),
    ];
    for (file, expected) in cases {
        let error = KeyRing::parse(&file).unwrap_err();
        assert_eq!(error, expected, "{file:?}");
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(!shown.contains(&secret[2..20]) && !shown.contains(&weak[2..20]), "{shown}");
        }
    }
    assert_eq!(Key::new(16, [1; KEY_LEN]).unwrap_err(), KeyRingError::IdOutOfRange("16".to_owned()));
    assert_eq!(KeyRing::new(Vec::new()).unwrap_err(), KeyRingError::Empty);
}

#[test]
fn the_debug_form_of_keys_and_tokens_hides_them() {
    let key = key(6, 200);
    let line = key.to_line();
    let secret = line.split_once(' ').unwrap().1;
    let ring = KeyRing::new(vec![key.clone()]).unwrap();
    let token = ring.derive(CLIENT, Generation::FIRST);
    assert_eq!(format!("{key:?}"), "Key(6, ..)");
    assert_eq!(format!("{ring:?}"), "[6]");
    assert_eq!(format!("{token:?}"), "Token(..)");
    for shown in [format!("{key:#?}"), format!("{ring:#?}"), format!("{token:#?}")] {
        assert!(!shown.contains(&secret[..8]) && !shown.contains(&token.expose()[..8]), "{shown}");
    }
}

#[test]
fn fingerprints_name_keys_and_tell_nothing_of_them() {
    let ring = KeyRing::new(vec![key(2, 2), key(1, 1)]).unwrap();
    let names = ring.fingerprints();
    assert_eq!(names, [ring_of(2, 2).fingerprints(), ring_of(1, 1).fingerprints()].concat());
    assert_ne!(names[0], names[1]);
    assert_ne!(ring_of(1, 2).fingerprints(), ring_of(2, 2).fingerprints(), "the id is part of it");
    for (name, key) in names.iter().zip([key(2, 2), key(1, 1)]) {
        assert!(!key.to_line().contains(name.as_str()) && name.len() == 16, "{name}");
    }
}

#[test]
fn a_client_id_is_exactly_22_canonical_characters() {
    let name = CLIENT.to_string();
    assert_eq!(name.len(), CLIENT_CHARS);
    assert_eq!(ClientId::parse(&name), Some(CLIENT));
    assert_eq!(format!("{CLIENT:?}"), format!("ClientId({name})"));
    for bad in ["", &name[1..], &format!("{name}A"), &format!("{name}=="), &"é".repeat(11), &"+".repeat(22)] {
        assert_eq!(ClientId::parse(bad), None, "{bad:?}");
    }
    // 22 characters are 132 bits: with any of the last four set it would be a second name for the same client.
    let canonical = "AAAAAAAAAAAAAAAAAAAAAA";
    assert!(ClientId::parse(canonical).is_some());
    assert_eq!(ClientId::parse("AAAAAAAAAAAAAAAAAAAAAB"), None);
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn a_token_is_what_it_was_derived_from(client: [u8; 16], generation in 1u32.., id in 0u8..16, seed: u8) {
        let ring = ring_of(id, seed);
        let client = ClientId::from_bytes(client);
        let token = ring.derive(client, Generation::new(generation));
        prop_assert_eq!(token.expose().len(), TOKEN_CHARS);
        prop_assert_eq!(&token, &ring.derive(client, Generation::new(generation)));
        let genuine = ring.verify(client, token.expose()).unwrap();
        prop_assert_eq!((genuine.client(), genuine.generation().get()), (client, generation));
        prop_assert_eq!(ClientId::parse(&client.to_string()), Some(client));
    }

    #[test]
    fn the_tokens_of_two_generations_have_no_mac_in_common(a in 1u32.., b in 1u32..) {
        prop_assume!(a != b);
        let tokens = [a, b].map(|g| ring().derive(CLIENT, Generation::new(g)).expose()[7..].to_owned());
        prop_assert_ne!(&tokens[0], &tokens[1]);
    }

    #[test]
    fn nothing_made_up_is_genuine_and_nothing_panics(text in ".{0,40}", bytes: [u8; 21]) {
        prop_assert!(ring().verify(CLIENT, &text).is_err());
        prop_assert!(ring().verify(CLIENT, &URL_SAFE_NO_PAD.encode(bytes)).is_err());
        let _ = ClientId::parse(&text);
        let _ = parse_keys(&text);
    }

    #[test]
    fn generations_are_counted_without_overflow(n: u32, m: u32) {
        let (a, b) = (Generation::new(n), Generation::new(m));
        prop_assert_eq!(a.precedes(b), u64::from(n) + 1 == u64::from(m));
        prop_assert_eq!(a.next().map(Generation::get), n.checked_add(1));
        prop_assert!(!Generation::new(u32::MAX).precedes(Generation::ZERO));
        prop_assert_eq!(a.to_string(), n.to_string());
    }
}
