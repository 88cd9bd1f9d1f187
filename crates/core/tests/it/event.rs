//! Names that stores, webhooks and logs keep, and orders for letters.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use baton_core::event::{Event, EventKind, Trace};
use baton_core::letter::{Letter, MailOrder, Occasion};
use baton_core::one_time::Purpose;
use baton_core::session::Device;
use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::common::cases;

fn named<T: Copy + PartialEq + Debug>(all: &[T], name: fn(T) -> &'static str, parse: fn(&str) -> Option<T>) {
    let names: BTreeSet<_> = all.iter().map(|one| name(*one)).collect();
    assert_eq!(names.len(), all.len(), "{names:?}");
    for one in all {
        assert_eq!(parse(name(*one)), Some(*one));
        assert!(name(*one).bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{one:?}");
        assert_eq!(parse(&name(*one).to_uppercase()), None);
        assert_eq!(parse(&format!("{} ", name(*one))), None);
    }
    assert_eq!((parse(""), parse("other")), (None, None));
}

#[test]
fn names_are_unique_and_read_back() {
    named(&EventKind::ALL, EventKind::as_str, EventKind::parse);
    named(&Occasion::ALL, Occasion::as_str, Occasion::parse);
    named(&Purpose::ALL, Purpose::as_str, Purpose::parse);
}

/// Files, tables and receivers of webhooks hold them: what is written here may be added to and not be changed.
#[test]
fn names_stay_as_they_are() {
    let list = |names: &[&str]| names.join(" ");
    assert_eq!(
        list(&EventKind::ALL.map(EventKind::as_str)),
        "registered signed_in sign_in_failed signed_out session_ended reuse_detected locked unlocked \
         password_reset_requested password_changed account_changed email_change_requested email_changed confirmed \
         account_deleted"
    );
    assert_eq!(
        list(&Occasion::ALL.map(Occasion::as_str)),
        "confirm_email confirm_new_email email_change_requested email_changed reset_password password_changed \
         unlock_account already_registered"
    );
    assert_eq!(list(&Purpose::ALL.map(Purpose::as_str)), "confirm reset unlock");
}

fn order(occasion: Occasion) -> MailOrder {
    MailOrder::new(occasion, "user", "email", "ada")
}

#[test]
fn an_order_of_a_letter_has_a_form_that_stays() {
    let json = serde_json::to_value(order(Occasion::ResetPassword)).unwrap();
    let expected = serde_json::json!({
        "occasion": "reset_password", "realm": "user", "provider": "email", "uid": "ada", "to": null, "name": null,
        "languages": "", "new_email": null, "redirect_url": null, "config_name": null,
    });
    assert_eq!(json, expected);
    for occasion in Occasion::ALL {
        let text = serde_json::to_string(&order(occasion)).unwrap();
        assert_eq!(serde_json::from_str::<MailOrder>(&text).unwrap(), order(occasion));
    }
    for broken in [serde_json::json!("birthday"), serde_json::json!(1), serde_json::json!(null)] {
        let mut other = json.clone();
        other["occasion"] = broken.clone();
        assert!(serde_json::from_value::<MailOrder>(other).is_err(), "{broken}");
    }
    let mut without = json;
    without.as_object_mut().unwrap().remove("uid");
    assert!(serde_json::from_value::<MailOrder>(without).is_err());
}

#[test]
fn the_debug_form_of_a_letter_hides_its_link() {
    let letter = Letter {
        occasion: Occasion::ResetPassword,
        realm: "user".to_owned(),
        to: "ada@example.test".to_owned(),
        name: Some("Ada".to_owned()),
        languages: String::new(),
        link: Some(Zeroizing::new("https://app.test/?token=secret".to_owned())),
        link_lifetime: Some(Duration::from_secs(60)),
        new_email: None,
    };
    let shown = format!("{letter:?} {letter:#?}");
    assert!(shown.contains("ResetPassword") && !shown.contains("secret") && !shown.contains("ada"), "{shown}");
}

#[test]
fn a_trace_posts_letters_and_events_that_somebody_is_told_of() {
    let device = Device::default();
    let event =
        Event { kind: EventKind::Locked, realm: "user".to_owned(), account: None, uid: None, client: None, device };
    for (events, webhooks, mails, posts) in [
        (0, 0, 0, false),
        (1, 0, 0, false),
        (0, 1, 0, false),
        (1, 1, 0, true),
        (0, 0, 1, true),
        (1, 0, 1, true),
        (0, 1, 1, true),
    ] {
        let trace = Trace {
            events: vec![event.clone(); events],
            webhooks: vec![String::new(); webhooks],
            mails: vec![order(Occasion::ConfirmEmail); mails],
        };
        assert_eq!(trace.posts(), posts, "{events} {webhooks} {mails}");
    }
    assert_eq!(Trace::NONE, Trace::default());
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn an_order_of_a_letter_is_read_as_it_was_written(
        occasion in 0..8_usize, realm: String, uid: String, name: Option<String>, languages: String, to: Option<String>,
    ) {
        let order = MailOrder { realm, uid, name, languages, to, ..order(Occasion::ALL[occasion]) };
        let text = serde_json::to_string(&order).unwrap();
        prop_assert_eq!(serde_json::from_str::<MailOrder>(&text).unwrap(), order);
    }
}
