//! The record and its one conditional change.

use baton_core::session::{PasswordHash, Profile, Renewal};
use baton_core::{AccountId, Generation, Session, Swap, Timestamp};

use crate::common::{at, ms, rules, session, signed_in};

fn swap(session: &Session, to: u32, confirmed: u32, hand_out: bool) -> Swap {
    Swap {
        expect: session.version(),
        generation: Generation::new(to),
        confirmed: Generation::new(confirmed),
        hand_out: hand_out.then(|| rules(10).renewal()),
    }
}

#[test]
fn a_sign_in_starts_at_the_first_generation_with_nothing_seen() {
    let s = signed_in(40, Renewal { lifespan: ms(100), max_lifetime: ms(1000) });
    assert_eq!((s.generation, s.confirmed, s.handed_out_at), (Generation::FIRST, Generation::ZERO, None));
    assert_eq!((s.created_at, s.last_seen_at, s.expires_at), (at(40), at(40), at(140)));
    assert_eq!(s.account, AccountId(1));
}

#[test]
fn a_swap_is_made_only_on_the_version_that_it_expects() {
    let s = session(2, Some(100), 1, &rules(10));
    let swap = swap(&s, 3, 2, true);
    assert!(s.swapped(&swap, at(200)).is_some());
    for moved in [
        Session { generation: Generation::new(3), ..s.clone() },
        Session { generation: Generation::new(1), ..s.clone() },
        Session { handed_out_at: Some(at(101)), ..s.clone() },
        Session { handed_out_at: None, ..s.clone() },
        Session { confirmed: Generation::new(2), ..s.clone() },
        Session { confirmed: Generation::ZERO, ..s.clone() },
    ] {
        assert_eq!(moved.swapped(&swap, at(200)), None, "{:?}", moved.version());
    }
}

#[test]
fn a_swap_does_not_look_at_what_the_rule_does_not_look_at() {
    let s = session(2, Some(100), 1, &rules(10));
    let seen = Session { last_seen_at: at(150), expires_at: at(5_000_000), ..s.clone() };
    let next = seen.swapped(&swap(&s, 3, 2, true), at(200)).unwrap();
    assert_eq!(next.expires_at, at(5_000_000), "what was promised stays promised");
}

#[test]
fn confirmed_and_last_seen_never_go_down() {
    let s = Session { last_seen_at: at(500), ..session(5, Some(100), 5, &rules(10)) };
    let next = s.swapped(&swap(&s, 5, 4, false), at(400)).unwrap();
    assert_eq!((next.confirmed.get(), next.last_seen_at), (5, at(500)));
}

#[test]
fn a_note_neither_opens_the_window_nor_prolongs_the_session() {
    let s = session(5, Some(100), 4, &rules(10));
    let next = s.swapped(&swap(&s, 5, 5, false), at(400)).unwrap();
    assert_eq!((next.handed_out_at, next.expires_at), (s.handed_out_at, s.expires_at));
}

#[test]
fn a_renewal_is_idle_time_from_now_under_the_cap_and_never_below_the_promise() {
    let renewal = Renewal { lifespan: ms(100), max_lifetime: ms(250) };
    assert_eq!(renewal.expires_at(at(0), at(0), at(20)), at(120));
    assert_eq!(renewal.expires_at(at(0), at(130), at(20)), at(130));
    assert_eq!(renewal.expires_at(at(0), at(130), at(200)), at(250));
    assert_eq!(renewal.expires_at(at(0), at(300), at(200)), at(300));
}

#[test]
fn time_saturates() {
    assert_eq!(at(i64::MAX).plus(ms(1)), at(i64::MAX));
    assert_eq!(at(0).plus(std::time::Duration::MAX), at(i64::MAX));
    assert_eq!(at(5).since(at(9)), ms(0));
    assert_eq!(at(9).since(at(5)), ms(4));
    assert_eq!(at(i64::MAX).since(at(i64::MIN)), ms(u64::try_from(i64::MAX).unwrap()));
    assert_eq!((at(1999).as_secs(), at(-1).as_secs(), Timestamp::default()), (1, -1, at(0)));
}

#[test]
fn a_profile_that_is_no_object_reads_as_one_without_fields() {
    for stored in ["", "[]", "3", "{", "null"] {
        assert!(Profile::from_stored(stored.to_owned()).fields().is_empty());
    }
    let fields = Profile::from_stored(r#"{"name":"Ada"}"#.to_owned()).fields();
    assert_eq!(Profile::from_fields(&fields).as_json(), r#"{"name":"Ada"}"#);
    assert_eq!(Profile::default().as_json(), "{}");
}

#[test]
fn the_debug_form_of_a_password_hash_hides_it() {
    let hash = PasswordHash::new("$argon2id$secret".to_owned());
    assert!(!format!("{hash:?}").contains("secret"));
    assert_eq!(hash.expose(), "$argon2id$secret");
}
