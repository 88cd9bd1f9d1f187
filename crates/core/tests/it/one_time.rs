//! One-time tokens and pseudonyms.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use baton_core::one_time::{ONE_TIME_CHARS, OneTime, OneTimeId, Purpose};
use baton_core::token::{TOKEN_CHARS, TokenError};
use baton_core::{AccountId, ClientId, Generation, KeyRing};
use proptest::prelude::*;
use serde_json::Value;

use crate::common::{CLIENT, at, cases, key, ring, ring_of};

const ID: OneTimeId = OneTimeId::from_bytes(*b"a test's letter.");

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/one_time.json")).unwrap()
}

/// Key ring, purpose and token of a vector.
fn read(vector: &Value) -> (KeyRing, Purpose, &str) {
    let ring = KeyRing::parse(&format!("{} {}", vector["key_id"], vector["key"].as_str().unwrap())).unwrap();
    (ring, Purpose::parse(vector["purpose"].as_str().unwrap()).unwrap(), vector["token"].as_str().unwrap())
}

#[test]
fn every_vector_is_derived_and_verified() {
    let vectors = vectors();
    let valid = vectors["valid"].as_array().unwrap();
    assert!(valid.len() > 20);
    for vector in valid {
        let (ring, purpose, token) = read(vector);
        let bytes = URL_SAFE_NO_PAD.decode(vector["id"].as_str().unwrap()).unwrap();
        let id = OneTimeId::from_bytes(bytes.try_into().unwrap());
        assert_eq!(ring.derive_one_time(purpose, id).expose(), token, "{vector}");
        assert_eq!(ring.verify_one_time(purpose, token), Ok(id), "{vector}");
    }
}

#[test]
fn every_vector_that_is_to_be_refused_is() {
    let vectors = vectors();
    let refused = vectors["refused"].as_array().unwrap();
    assert!(refused.len() > 10);
    for vector in refused {
        let (ring, purpose, token) = read(vector);
        assert!(ring.verify_one_time(purpose, token).is_err(), "{vector}");
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let token = ring().derive_one_time(Purpose::Reset, ID);
    let bytes = URL_SAFE_NO_PAD.decode(token.expose()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let answer = ring().verify_one_time(Purpose::Reset, &URL_SAFE_NO_PAD.encode(flipped));
        assert!(answer.is_err(), "bit {bit}");
    }
    for (index, bit) in (0..token.expose().len()).flat_map(|i| (0..7).map(move |bit| (i, bit))) {
        let mut flipped = token.expose().as_bytes().to_vec();
        flipped[index] ^= 1 << bit;
        let flipped = String::from_utf8(flipped).unwrap();
        assert!(ring().verify_one_time(Purpose::Reset, &flipped).is_err(), "bit {bit} of character {index}");
    }
}

#[test]
fn what_is_wrong_with_a_token_is_told_apart() {
    let verify = |ring: &KeyRing, token: &str| ring.verify_one_time(Purpose::Reset, token);
    let token = ring().derive_one_time(Purpose::Reset, ID);
    let token = token.expose();
    assert_eq!(token.len(), ONE_TIME_CHARS);
    for (cut, _) in token.char_indices() {
        assert_eq!(verify(ring(), &token[..cut]), Err(TokenError::Malformed), "{cut} characters");
    }
    for malformed in
        [&format!("{token}A"), &format!("{token}="), &format!(" {token}"), &"é".repeat(22), &" ".repeat(44)]
    {
        assert_eq!(verify(ring(), malformed), Err(TokenError::Malformed), "{malformed:?}");
    }
    let plain = STANDARD_NO_PAD.encode(URL_SAFE_NO_PAD.decode(token).unwrap());
    assert_ne!(plain, token, "this token shows no difference between the two alphabets");
    assert_eq!(verify(ring(), &plain), Err(TokenError::Malformed));
    assert_eq!(verify(&ring_of(4, 1), token), Err(TokenError::UnknownKey(3)));
    assert_eq!(verify(&ring_of(3, 2), token), Err(TokenError::Forged));
}

#[test]
fn another_version_is_not_ours_to_judge() {
    let mut bytes = URL_SAFE_NO_PAD.decode(ring().derive_one_time(Purpose::Unlock, ID).expose()).unwrap();
    for version in (0..16).filter(|version| *version != 2) {
        bytes[0] = version << 4 | 3;
        let answer = ring().verify_one_time(Purpose::Unlock, &URL_SAFE_NO_PAD.encode(&bytes));
        assert_eq!(answer, Err(TokenError::Malformed), "version {version}");
    }
}

#[test]
fn a_token_is_good_for_one_purpose() {
    let mut seen = BTreeSet::new();
    for purpose in Purpose::ALL {
        let token = ring().derive_one_time(purpose, ID);
        assert!(seen.insert(token.expose().to_owned()), "{purpose:?}");
        for other in Purpose::ALL {
            let expected = if other == purpose { Ok(ID) } else { Err(TokenError::Forged) };
            assert_eq!(ring().verify_one_time(other, token.expose()), expected, "{purpose:?} for {other:?}");
        }
    }
}

#[test]
fn the_key_id_is_signed_along() {
    let mut bytes = URL_SAFE_NO_PAD.decode(ring_of(1, 9).derive_one_time(Purpose::Reset, ID).expose()).unwrap();
    bytes[0] = 0x22;
    let answer = ring_of(2, 9).verify_one_time(Purpose::Reset, &URL_SAFE_NO_PAD.encode(bytes));
    assert_eq!(answer, Err(TokenError::Forged));
}

#[test]
fn a_retired_key_still_verifies_and_the_first_one_signs() {
    let (old, new) = (ring_of(1, 1), ring_of(2, 2));
    let both = KeyRing::new(vec![key(2, 2), key(1, 1)]).unwrap();
    let of = |ring: &KeyRing| ring.derive_one_time(Purpose::Confirm, ID);
    assert_eq!(both.verify_one_time(Purpose::Confirm, of(&old).expose()), Ok(ID));
    assert_eq!(of(&both), of(&new));
    assert_eq!(new.verify_one_time(Purpose::Confirm, of(&old).expose()), Err(TokenError::UnknownKey(1)));
}

#[test]
fn an_access_token_is_no_one_time_token_and_the_other_way_round() {
    // With the same name in both, and the rest of each cut or filled up to the other's length.
    let (client, id) = (ClientId::from_bytes([7; 16]), OneTimeId::from_bytes([7; 16]));
    let access = ring().derive(client, Generation::FIRST);
    let access = URL_SAFE_NO_PAD.decode(access.expose()).unwrap();
    for purpose in Purpose::ALL {
        let once = URL_SAFE_NO_PAD.decode(ring().derive_one_time(purpose, id).expose()).unwrap();
        assert!(ring().verify(client, &URL_SAFE_NO_PAD.encode(&once)).is_err());
        for head in [access[0], once[0]] {
            let mut short = [&once[..5], &once[17..]].concat();
            short[0] = head;
            let text = URL_SAFE_NO_PAD.encode(short);
            assert!(text.len() == TOKEN_CHARS && ring().verify(client, &text).is_err());
            let mut long = [&access[..1], id.as_bytes().as_slice(), &access[5..]].concat();
            long[0] = head;
            let text = URL_SAFE_NO_PAD.encode(long);
            assert!(text.len() == ONE_TIME_CHARS && ring().verify_one_time(purpose, &text).is_err());
        }
        assert!(ring().verify_one_time(purpose, &URL_SAFE_NO_PAD.encode(&access)).is_err());
    }
}

#[test]
fn the_debug_form_shows_nothing_that_can_be_presented() {
    let token = ring().derive_one_time(Purpose::Reset, ID);
    let (account, purpose, email) = (AccountId(1), Purpose::Reset, "ada@example.test".to_owned());
    let kept = OneTime { id: ID, account, purpose, email, expires_at: at(1) };
    assert_eq!(format!("{token:?}"), "Token(..)");
    // The id is not a secret, and an operator has to tell one token from another; the MAC is, from character 22 on.
    let shown = format!("{kept:?} {:?} {token:#?}", ring().verify_one_time(purpose, token.expose()));
    assert!(shown.contains(&URL_SAFE_NO_PAD.encode(ID.as_bytes())), "{shown}");
    assert!(!shown.contains(&token.expose()[23..35]) && !shown.contains(&token.expose()[..12]), "{shown}");
}

#[test]
fn a_pseudonym_is_the_mac_of_its_framed_parts() {
    let vectors: [(&[&str], &str); 3] = [
        (&["user", "ada@example.test"], "a3b2eb282d90580ab4dc2f31f70c6e2d"),
        (&[], "fc5465d2997b89db7c26ed42d89b4f87"),
        (&["ß", ""], "5aed1ddc3fc1024a9a738300997f0b4f"),
    ];
    for (parts, expected) in vectors {
        let hex: String = ring().pseudonym(parts).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected, "{parts:?}");
    }
}

#[test]
fn a_pseudonym_depends_on_every_part_and_on_the_key() {
    let lists: [&[&str]; 10] = [
        &[],
        &[""],
        &["", ""],
        &["abc"],
        &["ab", "c"],
        &["a", "bc"],
        &["abc", ""],
        &["", "abc"],
        &["c", "ab"],
        &["Abc"],
    ];
    let names: BTreeSet<_> = lists.iter().map(|parts| ring().pseudonym(parts)).collect();
    assert_eq!(names.len(), lists.len());
    // A part that looks like what stands between two.
    assert_ne!(ring().pseudonym(&["a", "b"]), ring().pseudonym(&["a\0\0\0\0\0\0\0\u{1}b"]));
    let parts = ["user", "ada"];
    assert_ne!(ring_of(3, 2).pseudonym(&parts), ring().pseudonym(&parts));
    let changed = KeyRing::new(vec![key(5, 2), key(3, 1)]).unwrap();
    assert_ne!(changed.pseudonym(&parts), ring().pseudonym(&parts), "the first key makes them");
    let named = |bytes: [u8; 16]| URL_SAFE_NO_PAD.encode(bytes);
    assert_ne!(named(ring().pseudonym(&[])), ring().fingerprints()[0]);
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn a_token_is_what_it_was_derived_from(id: [u8; 16], purpose in 0..3_usize, key_id in 0u8..16, seed: u8) {
        let (ring, purpose, id) = (ring_of(key_id, seed), Purpose::ALL[purpose], OneTimeId::from_bytes(id));
        let token = ring.derive_one_time(purpose, id);
        prop_assert_eq!(token.expose().len(), ONE_TIME_CHARS);
        prop_assert_eq!(&token, &ring.derive_one_time(purpose, id));
        prop_assert_eq!(ring.verify_one_time(purpose, token.expose()), Ok(id));
        prop_assert!(ring.verify(CLIENT, token.expose()).is_err());
    }

    #[test]
    fn nothing_made_up_is_genuine_and_nothing_panics(text in ".{0,60}", mut bytes: [u8; 32], key_id in 0u8..16) {
        prop_assert!(ring().verify_one_time(Purpose::Reset, &text).is_err());
        let made_up = [&[2 << 4 | key_id][..], &bytes].concat();
        prop_assert!(ring().verify_one_time(Purpose::Reset, &URL_SAFE_NO_PAD.encode(made_up)).is_err());
        // One with somebody's id and the MAC of another.
        let token = URL_SAFE_NO_PAD.decode(ring().derive_one_time(Purpose::Reset, ID).expose()).unwrap();
        bytes[16..].copy_from_slice(&token[17..]);
        let spliced = [&token[..1], &bytes].concat();
        prop_assert!(ring().verify_one_time(Purpose::Reset, &URL_SAFE_NO_PAD.encode(spliced)).is_err());
    }

    #[test]
    fn two_lists_of_parts_have_two_pseudonyms(
        a in proptest::collection::vec("[ab\0]{0,3}", 0..4),
        b in proptest::collection::vec("[ab\0]{0,3}", 0..4),
    ) {
        let name = |parts: &[String]| ring().pseudonym(&parts.iter().map(String::as_str).collect::<Vec<_>>());
        prop_assert_eq!(name(&a) == name(&b), a == b);
    }
}
