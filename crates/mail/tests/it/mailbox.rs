//! The mailbox of development.

use std::sync::Arc;
use std::time::Duration;

use baton_core::Timestamp;
use baton_core::letter::{Letter, MailError, Mailer, Occasion};
use baton_mail::Mailbox;
use baton_store::clock::ManualClock;

use crate::support::{LINK, letter, templates};

#[tokio::test]
async fn keeps_what_was_sent() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000)));
    let mailbox = Mailbox::new(templates(), clock.clone());
    mailbox.send(&Letter { languages: "de".to_owned(), ..letter(Occasion::ResetPassword) }).await.unwrap();
    clock.advance(Duration::from_secs(1));
    mailbox.send(&letter(Occasion::PasswordChanged)).await.unwrap();

    let list = mailbox.list();
    assert_eq!(list.iter().map(|kept| (kept.id, kept.at.as_millis())).collect::<Vec<_>>(), [(2, 2_000), (1, 1_000)]);
    let reset = mailbox.get(1).unwrap();
    assert_eq!((reset.occasion, reset.realm.as_str()), (Occasion::ResetPassword, "user"));
    assert_eq!(reset.link.as_ref().unwrap().as_str(), LINK);
    assert_eq!((reset.mail.to.as_str(), reset.mail.locale.as_str()), ("ada@example.com", "de"));
    assert_eq!(
        reset.mail,
        templates().render(&Letter { languages: "de".to_owned(), ..letter(Occasion::ResetPassword) }).unwrap()
    );
    assert_eq!(list[0].link, None);
    assert_eq!(mailbox.get(3), None);

    let shown = format!("{mailbox:?} {reset:?}");
    for hidden in ["ada", "app.example", "Passwort"] {
        assert!(!shown.contains(hidden), "{shown}");
    }

    mailbox.clear();
    assert_eq!(mailbox.list(), []);
    mailbox.send(&letter(Occasion::PasswordChanged)).await.unwrap();
    assert_eq!(mailbox.list()[0].id, 3);
}

#[tokio::test]
async fn keeps_no_more_than_it_can_hold() {
    let mailbox = Mailbox::new(templates(), Arc::new(ManualClock::default()));
    for _ in 0..Mailbox::CAPACITY + 5 {
        mailbox.send(&letter(Occasion::PasswordChanged)).await.unwrap();
    }
    let list = mailbox.list();
    assert_eq!((list.len(), list[0].id, list[Mailbox::CAPACITY - 1].id), (200, 205, 6));
    assert_eq!(mailbox.get(5), None);
}

#[tokio::test]
async fn refuses_what_no_mail_server_would_take() {
    let mailbox = Mailbox::new(templates(), Arc::new(ManualClock::default()));
    let letter = Letter { to: "Ada <ada@example.com>".to_owned(), ..letter(Occasion::PasswordChanged) };
    assert!(matches!(mailbox.send(&letter).await, Err(MailError::Never(_))));
    assert_eq!(mailbox.list(), []);
}
