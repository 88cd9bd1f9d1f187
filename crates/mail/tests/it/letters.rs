//! How letters read.

use std::time::Duration;

use baton_core::letter::{Letter, MailError, Occasion};
use baton_mail::{TemplateError, TemplateSettings, Templates};

use crate::support::{LINK, has_link, letter, templates};

const LOCALES: [&str; 6] = ["de", "en", "es", "fr", "ja", "pt"];

#[test]
fn every_letter_is_written_in_every_language() {
    let templates = templates();
    assert_eq!(templates.locales().collect::<Vec<_>>(), LOCALES);
    for locale in LOCALES {
        for occasion in Occasion::ALL {
            for name in [None, Some("Ada")] {
                let letter = Letter { languages: locale.to_owned(), name: name.map(String::from), ..letter(occasion) };
                let mail = templates.render(&letter).unwrap();
                assert_eq!((mail.locale.as_str(), mail.to.as_str()), (locale, "ada@example.com"));
                assert!(mail.subject.contains("baton") && !mail.subject.contains('\n'), "{}", mail.subject);
                for body in [&mail.text, &mail.html] {
                    for leftover in ["{{", "}}", "{%", "%}", "{#", "undefined", "&amp;amp;"] {
                        assert!(!body.contains(leftover), "{locale} {occasion:?} {leftover}: {body}");
                    }
                    assert_eq!(body.contains("Ada"), name.is_some(), "{locale} {occasion:?}: {body}");
                    assert!(body.contains("ada@example.com") && body.contains("baton"));
                    let says_new = matches!(occasion, Occasion::EmailChangeRequested | Occasion::EmailChanged);
                    assert_eq!(body.contains("lovelace@example.com"), says_new, "{locale} {occasion:?}: {body}");
                }
                assert!(!mail.text.contains("\n\n\n") && !mail.text.contains("&#"), "{}", mail.text);
                let escaped = LINK.replace('&', "&amp;").replace('\'', "&#39;");
                assert_eq!(mail.text.contains(&format!("\n{LINK}\n")), has_link(occasion));
                assert_eq!(mail.html.contains(&format!("href=\"{escaped}\"")), has_link(occasion), "{}", mail.html);
                assert!(mail.html.contains(&format!("lang=\"{locale}\"")));
            }
        }
    }
}

#[test]
fn a_letter_reads_as_a_whole() {
    let mail = templates().render(&Letter { name: None, ..letter(Occasion::ResetPassword) }).unwrap();
    assert_eq!(mail.subject, "Reset your baton password");
    let expected = format!(
        "Hello,\n\nWe were asked to reset the password of your account. You can choose a new one here.\n\n\
         Choose a new password\n{LINK}\n\nThis link is valid for 1 hour.\n\n\
         If you did not ask for this, you can ignore this message. Your password then stays as it is.\n\n\
         Kind regards,\nbaton\n\nThis message was sent automatically to ada@example.com."
    );
    assert_eq!(mail.text, expected);
    let two = templates().render(&letter(Occasion::AlreadyRegistered)).unwrap();
    assert_eq!(two.html.matches("<p>").count(), 6, "greeting, two paragraphs, notice, closing, footer: {}", two.html);
}

#[test]
fn lifetimes_have_their_plural() {
    let say = |locale: &str, seconds| {
        let letter = Letter {
            languages: locale.to_owned(),
            link_lifetime: Some(Duration::from_secs(seconds)),
            ..letter(Occasion::ConfirmEmail)
        };
        templates().render(&letter).unwrap().text
    };
    for (locale, seconds, expected) in [
        ("en", 60, "1 minute."),
        ("en", 1800, "30 minutes."),
        ("de", 3600, "1 Stunde "),
        ("de", 7200, "2 Stunden "),
        ("es", 60, "1 minuto."),
        ("es", 86_400, "24 horas."),
        ("fr", 3600, "1 heure."),
        ("fr", 3 * 86_400, "3 jours."),
        ("ja", 3600, "1時間"),
        ("pt", 60, "1 minuto."),
        ("pt", 3 * 86_400, "3 dias."),
    ] {
        let text = say(locale, seconds);
        assert!(text.contains(expected), "{locale} {seconds}: {text}");
    }
    let timeless = Letter { link_lifetime: None, ..letter(Occasion::ConfirmEmail) };
    assert!(!templates().render(&timeless).unwrap().text.contains("valid"));
}

#[test]
fn the_language_is_the_readers_or_else_the_default() {
    let settings = TemplateSettings { language: "fr".to_owned(), ..TemplateSettings::default() };
    let templates = Templates::load(&settings).unwrap();
    for (languages, expected) in [
        ("pt-BR,pt;q=0.9", "pt"),
        ("xx", "fr"),
        ("", "fr"),
        ("*", "fr"),
        ("\r\nBcc: eve@example.com", "fr"),
        ("de-CH", "de"),
    ] {
        let letter = Letter { languages: languages.to_owned(), ..letter(Occasion::PasswordChanged) };
        assert_eq!(templates.render(&letter).unwrap().locale, expected, "{languages}");
    }
    let missing = TemplateSettings { language: "xx".to_owned(), ..TemplateSettings::default() };
    assert!(matches!(Templates::load(&missing), Err(TemplateError::Language(_))));
}

#[test]
fn a_name_never_becomes_markup_or_a_second_line() {
    for locale in LOCALES {
        let render = |name: &str| {
            let letter = Letter {
                name: Some(name.to_owned()),
                languages: locale.to_owned(),
                ..letter(Occasion::PasswordChanged)
            };
            templates().render(&letter).unwrap()
        };
        let mail = render("<script>\"x\"</script> & {{ email }}");
        assert!(mail.html.contains("&lt;script&gt;&quot;x&quot;&lt;/script&gt; &amp; {{ email }}"), "{}", mail.html);
        assert!(!mail.html.contains("<script"));
        assert!(mail.text.contains("<script>\"x\"</script> & {{ email }}"));

        let mail = render("Ada\r\nBcc: eve@evil\r\n\r\nBuy now\u{202e}");
        assert!(mail.text.lines().next().unwrap().contains("Ada Bcc: eve@evil Buy now"), "{}", mail.text);

        let mail = render("Win at https://evil.example/");
        assert!(!mail.text.contains("evil") && !mail.html.contains("evil"));
        let nameless = Letter { name: None, languages: locale.to_owned(), ..letter(Occasion::PasswordChanged) };
        assert_eq!(mail, templates().render(&nameless).unwrap());
    }
}

#[test]
fn what_cannot_be_written_never_will() {
    let refused = |letter: &Letter| match templates().render(letter) {
        Err(error @ MailError::Never(_)) => {
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("example") && !shown.contains("evil"), "{shown}");
        }
        other => panic!("{other:?}"),
    };
    let good = letter(Occasion::EmailChanged);
    for address in [
        "",
        "ada",
        "Ada <ada@example.com>",
        "ada@example.com, eve@evil.example",
        "ada@example.com\r\nBcc: x@evil.example",
    ] {
        refused(&Letter { to: address.to_owned(), ..good.clone() });
        refused(&Letter { new_email: Some(address.to_owned()), ..good.clone() });
    }
    refused(&Letter { new_email: None, ..good });
    let linked = letter(Occasion::ConfirmEmail);
    refused(&Letter { link: None, ..linked.clone() });
    for link in ["", "https://app.example/\r\nX: y", "https://app.example/ x"] {
        refused(&Letter { link: Some(link.to_owned().into()), ..linked.clone() });
    }
}

#[test]
fn the_product_is_one_line() {
    for product in ["", " ", "a\r\nBcc: eve@example.com", "a\nb", "a\0b"] {
        let settings = TemplateSettings { product: product.to_owned(), ..TemplateSettings::default() };
        assert!(matches!(Templates::load(&settings), Err(TemplateError::Product)), "{product:?}");
    }
    let settings = TemplateSettings { product: "Crêpes & <Co>".to_owned(), ..TemplateSettings::default() };
    let mail = Templates::load(&settings).unwrap().render(&letter(Occasion::ConfirmEmail)).unwrap();
    assert_eq!(mail.subject, "Confirm your e-mail address for Crêpes & <Co>");
    assert!(mail.html.contains("Crêpes &amp; &lt;Co&gt;") && !mail.html.contains("<Co>"));
}

#[test]
fn debug_tells_nothing() {
    let mail = templates().render(&letter(Occasion::ConfirmEmail)).unwrap();
    assert_eq!(format!("{mail:?}"), "Mail { locale: \"en\", .. }");
}
