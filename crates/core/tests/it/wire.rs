//! The forms in which credentials travel.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use baton_core::wire::{Code, Credentials, HeaderNames, Presented, meaningful};
use baton_core::{Generation, Token};
use proptest::prelude::*;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::common::{CLIENT, at, cases, ring};

fn token() -> Token {
    ring().derive(CLIENT, Generation::new(3))
}

fn credentials(uid: &str) -> Credentials {
    Credentials { token: token(), client: CLIENT, uid: uid.to_owned(), expires_at: at(1_700_000_000_999) }
}

fn presented(uid: &str) -> Presented {
    Presented {
        access_token: Some(Zeroizing::new(token().expose().to_owned())),
        client: Some(CLIENT.to_string()),
        uid: Some(uid.to_owned()),
    }
}

fn names() -> HeaderNames {
    HeaderNames::default()
}

#[test]
fn the_names_are_those_of_the_protocol() {
    assert_eq!(names().all(), ["access-token", "token-type", "client", "expiry", "uid", "authorization"]);
}

#[test]
fn credentials_have_five_fields() {
    let json: Value = serde_json::from_str(&credentials("ada@example.org").to_json(&names())).unwrap();
    let expected = json!({
        "access-token": token().expose(),
        "token-type": "Bearer",
        "client": CLIENT.to_string(),
        "expiry": "1700000000",
        "uid": "ada@example.org",
    });
    assert_eq!(json, expected);
}

#[test]
fn renamed_headers_are_renamed_everywhere() {
    let names = HeaderNames { access_token: "x-token".to_owned(), uid: "x-uid".to_owned(), ..names() };
    let value = credentials("ada").to_authorization(&names);
    assert_eq!(Presented::from_authorization(&names, &value), presented("ada"));
    let missing = Presented::from_authorization(&HeaderNames::default(), &value);
    assert_eq!(missing, Presented { client: Some(CLIENT.to_string()), ..Presented::default() });
}

#[test]
fn a_bearer_value_may_be_padded_or_not_in_either_alphabet() {
    // The `?` and `>` make the two alphabets differ.
    for uid in ["a", "ab", "abc", "abcd", "??>>??>>~~~"] {
        let json = credentials(uid).to_json(&names());
        for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
            let word = engine.encode(json.as_bytes());
            for value in [format!("Bearer {word}"), format!("bearer {word}"), format!("  Bearer   {word}  "), word] {
                assert_eq!(Presented::from_authorization(&names(), &value), presented(uid), "{value}");
            }
        }
    }
}

#[test]
fn an_authorization_of_another_kind_presents_nothing() {
    let values =
        ["", " ", "Bearer", "Bearer ", "Basic YWRhOnB3", "Bearer a.b.c", "Digest username=\"ada\"", "Bearer \u{e9}"];
    for value in values {
        assert!(Presented::from_authorization(&names(), value).is_empty(), "{value:?}");
    }
}

#[test]
fn json_that_is_no_object_presents_nothing() {
    for text in [
        "",
        "[]",
        "3",
        "null",
        "true",
        "\"uid\"",
        "{",
        "{\"uid\":}",
        "[{\"uid\":\"ada\"}]",
        "{\"uid\":\"ada\"} x",
        "\u{0}",
    ] {
        assert!(Presented::from_json(&names(), text.as_bytes()).is_empty(), "{text:?}");
    }
    assert!(Presented::from_json(&names(), b"{\"uid\":\"\xff\"}").is_empty());
    // Nested too deeply to be parsed, and not a reason to fall over.
    assert!(Presented::from_json(&names(), "[".repeat(100_000).as_bytes()).is_empty());
}

#[test]
fn values_that_are_not_strings_are_passed_over() {
    let json = json!({"access-token": 5, "client": ["x"], "uid": {"a": 1}});
    assert!(Presented::from_json(&names(), json.to_string().as_bytes()).is_empty());
    let json = json!({"access-token": null, "client": "c", "uid": true, "other": "o"});
    let found = Presented::from_json(&names(), json.to_string().as_bytes());
    assert_eq!(found, Presented { client: Some("c".to_owned()), ..Presented::default() });
}

#[test]
fn blanks_undefined_and_null_present_nothing() {
    for nothing in ["", " ", "\t\n", "undefined", "null", " null ", "undefined "] {
        assert_eq!(meaningful(nothing), None, "{nothing:?}");
        let mut found = Presented::default();
        for name in names().all() {
            found.set(&names(), name, nothing);
        }
        assert!(found.is_empty() && !found.is_complete());
        let json = json!({"access-token": nothing, "client": nothing, "uid": nothing});
        assert!(Presented::from_json(&names(), json.to_string().as_bytes()).is_empty());
    }
    assert_eq!(meaningful(" nullable "), Some("nullable"));
}

#[test]
fn the_first_value_of_a_field_stays_and_names_ignore_case() {
    let mut found = Presented::default();
    found.set(&names(), "UID", "undefined");
    found.set(&names(), "Uid", "first");
    found.set(&names(), "uid", "second");
    found.set(&names(), "Access-Token", "t");
    found.set(&names(), "expiry", "9");
    assert_eq!(found.uid.as_deref(), Some("first"));
    assert_eq!(found.access_token.as_ref().map(|t| t.as_str()), Some("t"));
    assert!(!found.is_complete() && !found.is_empty());
    found.set(&names(), "CLIENT", "c");
    assert!(found.is_complete());
}

#[test]
fn one_source_fills_the_gaps_of_another_and_overrides_nothing() {
    let mut found = Presented { uid: Some("mine".to_owned()), ..Presented::default() };
    found.fill_from(presented("theirs"));
    assert_eq!(found, presented("mine"));
    let mut found = presented("mine");
    found.fill_from(Presented::default());
    assert_eq!(found, presented("mine"));
}

#[test]
fn the_debug_form_of_what_was_presented_hides_the_token() {
    let shown = format!("{:?} {:#?} {:?}", presented("ada"), presented("ada"), credentials("ada"));
    assert!(shown.contains("ada"), "the uid is no secret");
    for at in 0..=token().expose().len() - 8 {
        assert!(!shown.contains(&token().expose()[at..at + 8]), "{shown}");
    }
}

#[test]
fn codes_are_distinct_and_stable() {
    let codes = [
        (Code::NotAuthenticated, "not_authenticated"),
        (Code::TokenInvalid, "token_invalid"),
        (Code::TokenSuperseded, "token_superseded"),
        (Code::TokenExpired, "token_expired"),
        (Code::SessionRevoked, "session_revoked"),
        (Code::BadCredentials, "bad_credentials"),
        (Code::CrossSite, "cross_site"),
        (Code::Invalid, "invalid"),
        (Code::Malformed, "malformed"),
        (Code::TooLarge, "too_large"),
        (Code::NotFound, "not_found"),
        (Code::MethodNotAllowed, "method_not_allowed"),
        (Code::Unavailable, "unavailable"),
    ];
    for (code, text) in codes {
        assert_eq!(code.as_str(), text);
    }
    assert_eq!(codes.iter().map(|(code, _)| code.as_str()).collect::<HashSet<_>>().len(), codes.len());
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn a_bearer_value_round_trips(uid in "[^\\s]{1,5}.{0,30}[^\\s]") {
        prop_assume!(meaningful(&uid) == Some(uid.as_str()));
        let value = credentials(&uid).to_authorization(&names());
        prop_assert!(value.is_ascii() && !value.contains(['\r', '\n']));
        prop_assert_eq!(Presented::from_authorization(&names(), &value), presented(&uid));
        prop_assert_eq!(Presented::from_json(&names(), credentials(&uid).to_json(&names()).as_bytes()), presented(&uid));
    }

    #[test]
    fn nothing_that_arrives_panics(text in any::<String>(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Presented::from_authorization(&names(), &text);
        let _ = Presented::from_json(&names(), &bytes);
        let _ = Presented::from_authorization(&names(), &STANDARD.encode(&bytes));
        let _ = Presented::from_authorization(&names(), &format!("Bearer {}", URL_SAFE_NO_PAD.encode(text.as_bytes())));
        Presented::default().set(&names(), &text, &text);
        let _ = meaningful(&text);
    }
}
