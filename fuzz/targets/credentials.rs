//! Everything in which credentials travel: `Authorization`, the JSON in it and in the cookie, single fields.
//!
//! The first byte says what the rest is.

#![no_main]

use std::sync::LazyLock;

use baton_core::wire::{Credentials, HeaderNames, Presented, meaningful};
use baton_core::{ClientId, Generation, Key, KeyRing, Timestamp};
use libfuzzer_sys::fuzz_target;

static RING: LazyLock<KeyRing> = LazyLock::new(|| {
    let key = Key::new(0, *b"a key for the fuzzer, 32 bytes..").expect("an id in range");
    KeyRing::new(vec![key]).expect("a key")
});

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let names = HeaderNames::default();
    let text = String::from_utf8_lossy(rest);
    match kind % 4 {
        0 => holds(&Presented::from_authorization(&names, &text)),
        1 => holds(&Presented::from_json(&names, rest)),
        2 => fields(&names, &text),
        _ => there_and_back(&names, rest),
    }
});

/// What is presented says something, and the token does not show in `Debug`.
fn holds(presented: &Presented) {
    let Presented { access_token, client, uid } = presented;
    let values = [access_token.as_deref(), client.as_ref(), uid.as_ref()];
    for value in values.into_iter().flatten() {
        assert_eq!(meaningful(value), Some(value.as_str()));
    }
    assert_eq!(presented.is_empty(), values.iter().all(Option::is_none));
    assert_eq!(presented.is_complete(), values.iter().all(Option::is_some));
    if let Some(token) = access_token {
        let without = Presented { access_token: Some(String::from("x").into()), ..presented.clone() };
        assert_eq!(format!("{presented:?}"), format!("{without:?}"), "{}", token.len());
    }
}

/// Lines of `name=value`: the first one that says something wins, whichever way they come together.
fn fields(names: &HeaderNames, text: &str) {
    let mut all = Presented::default();
    let mut merged = Presented::default();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        all.set(names, name, value);
        let mut one = Presented::default();
        one.set(names, name, value);
        merged.fill_from(one);
    }
    holds(&all);
    assert!(all == merged);
}

/// 16 bytes of client id, 4 of generation, 8 of time, then the uid.
fn there_and_back(names: &HeaderNames, data: &[u8]) {
    let Some((client, data)) = data.split_first_chunk() else { return };
    let Some((generation, data)) = data.split_first_chunk() else { return };
    let Some((expires_at, uid)) = data.split_first_chunk() else { return };
    let client = ClientId::from_bytes(*client);
    let uid = String::from_utf8_lossy(uid);
    let credentials = Credentials {
        token: RING.derive(client, Generation::new(u32::from_be_bytes(*generation))),
        client,
        uid: uid.clone().into_owned(),
        expires_at: Timestamp::from_millis(i64::from_be_bytes(*expires_at)),
    };
    let from_bearer = Presented::from_authorization(names, &credentials.to_authorization(names));
    let from_json = Presented::from_json(names, credentials.to_json(names).as_bytes());
    assert!(from_bearer == from_json);
    holds(&from_bearer);
    assert_eq!(from_bearer.access_token.as_deref().map(String::as_str), Some(credentials.token.expose()));
    assert_eq!(from_bearer.client, Some(client.to_string()));
    assert_eq!(from_bearer.uid.as_deref(), meaningful(&uid));
}
