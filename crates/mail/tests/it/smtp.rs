//! Delivery to a mail server that does as a script says.

use std::sync::Arc;
use std::time::Duration;

use baton_core::letter::{Letter, MailError, Mailer, Occasion};
use baton_mail::{Login, Security, SmtpMailer, SmtpSettings, SmtpSettingsError, TemplateSettings, Templates};
use mail_parser::{Message, MessageParser, MimeHeaders};

use crate::server::{Answer, Event, Server};
use crate::support::{LINK, Sevens, letter, templates};

fn settings(server: &Server) -> SmtpSettings {
    SmtpSettings {
        port: server.port,
        security: Security::None,
        reply_to: Some("help@baton.example".to_owned()),
        ..SmtpSettings::new("127.0.0.1", "Bätön <no-reply@baton.example>")
    }
}

fn login() -> Option<Login> {
    Some(Login { username: "postman".to_owned(), password: "correct horse".into() })
}

async fn send(settings: &SmtpSettings, letter: &Letter) -> Result<(), MailError> {
    SmtpMailer::new(settings, templates(), Arc::new(Sevens)).expect("usable settings").send(letter).await
}

fn only<'a>(message: &'a Message<'_>, name: &str) -> &'a str {
    let raw: Vec<&str> =
        message.headers_raw().filter(|(header, _)| *header == name).map(|(_, value)| value.trim()).collect();
    assert_eq!(raw.len(), 1, "{name}: {raw:?}");
    raw[0]
}

#[tokio::test]
async fn a_letter_arrives_as_it_was_written() {
    let server = Server::start([]).await;
    let letter = Letter { languages: "ja".to_owned(), ..letter(Occasion::ConfirmEmail) };
    send(&settings(&server), &letter).await.unwrap();

    let seen = server.seen().await;
    assert_eq!(
        seen.commands,
        ["EHLO baton.example", "MAIL FROM:<no-reply@baton.example>", "RCPT TO:<ada@example.com>", "DATA", "QUIT"]
    );
    let message = MessageParser::default().parse(&seen.message).unwrap();
    let mail = templates().render(&letter).unwrap();
    assert_eq!(message.subject(), Some(mail.subject.as_str()));
    let from = message.from().unwrap().first().unwrap();
    assert_eq!((from.name(), from.address()), (Some("Bätön"), Some("no-reply@baton.example")));
    let to = message.to().unwrap().first().unwrap();
    assert_eq!((to.name(), to.address()), (None, Some("ada@example.com")));
    assert_eq!(message.reply_to().unwrap().first().unwrap().address(), Some("help@baton.example"));
    assert_eq!(message.message_id(), Some(format!("{}@baton.example", "07".repeat(16)).as_str()));
    assert!(message.date().is_some());
    assert_eq!(only(&message, "Auto-Submitted"), "auto-generated");
    assert_eq!(only(&message, "X-Auto-Response-Suppress"), "All");

    assert_eq!(message.content_type().unwrap().subtype(), Some("alternative"));
    let parts: Vec<_> = message.parts[1..].iter().map(|part| part.content_type().unwrap().subtype().unwrap()).collect();
    assert_eq!(parts, ["plain", "html"]);
    assert_eq!(message.body_text(0).unwrap().replace("\r\n", "\n").trim_end(), mail.text.trim_end());
    assert_eq!(message.body_html(0).unwrap().replace("\r\n", "\n").trim_end(), mail.html.trim_end());
    assert!(seen.message.is_ascii() && message.body_text(0).unwrap().contains(LINK));
}

#[tokio::test]
async fn signs_in_if_told_to() {
    let server = Server::start([]).await;
    let settings = SmtpSettings { login: login(), hello_name: Some("app-1".to_owned()), ..settings(&server) };
    send(&settings, &letter(Occasion::PasswordChanged)).await.unwrap();
    let commands = server.seen().await.commands;
    // base64 of "\0postman\0correct horse"
    assert_eq!(commands[..2], ["EHLO app-1", "AUTH PLAIN AHBvc3RtYW4AY29ycmVjdCBob3JzZQ=="]);
}

/// What a stranger chose reaches the server as exactly what it is, or not at all.
#[tokio::test]
async fn nothing_can_be_injected() {
    let server = Server::start([]).await;
    let templates =
        Templates::load(&TemplateSettings { product: "Ada: & \"Co\"".to_owned(), ..TemplateSettings::default() });
    let mailer = SmtpMailer::new(&settings(&server), Arc::new(templates.unwrap()), Arc::new(Sevens)).unwrap();
    let evil = Letter {
        name: Some("Ada\r\n.\r\nMAIL FROM:<eve@evil>\r\nBcc: eve@evil\r\n\r\n.".to_owned()),
        languages: "en\r\nBcc: eve@evil".to_owned(),
        ..letter(Occasion::ConfirmEmail)
    };
    mailer.send(&evil).await.unwrap();
    let seen = server.seen().await;
    assert_eq!(seen.commands.len(), 5, "{:?}", seen.commands);
    let message = MessageParser::default().parse(&seen.message).unwrap();
    assert!(message.bcc().is_none());
    assert_eq!(message.subject(), Some("Confirm your e-mail address for Ada: & \"Co\""));
    assert!(message.body_text(0).unwrap().starts_with("Hello Ada . MAIL FROM:<eve@evil> Bcc: eve@evil .,"));

    for address in [
        "ada@example.com>\r\nRCPT TO:<eve@evil.example",
        "ada@example.com\nBcc: eve@evil.example",
        "a@b.example, c@d.example",
    ] {
        let server = Server::start([]).await;
        for letter in [
            Letter { to: address.to_owned(), ..evil.clone() },
            Letter { new_email: Some(address.to_owned()), ..letter(Occasion::EmailChanged) },
        ] {
            assert!(matches!(send(&settings(&server), &letter).await, Err(MailError::Never(_))));
        }
        assert!(!server.was_called(), "refused before anybody was asked");
    }
}

/// How it ends when the server says or does this, and what the log is told.
#[tokio::test]
async fn every_ending_is_told_apart() {
    use Answer::{Hangup, Line};
    use Event::{Auth, Body, Data, Ehlo, Greeting, Mail, Rcpt};

    const NO_USER: &str = "550 5.1.1 <ada@example.com>: no such user; see https://mail.example/?ada@example.com";
    let later = [
        (Greeting, Line("421 4.3.2 mail.example too busy for ada@example.com"), "refused the connection: 421 4.3.2"),
        (Greeting, Line("554 no service"), "refused the connection: 554"),
        (Greeting, Line("ada@example.com"), "the connection: the reply is not SMTP"),
        (Greeting, Hangup, "the connection: "),
        (Ehlo, Line("550 5.7.1 go away"), "refused the connection: 550 5.7.1"),
        (Auth, Line("535 5.7.8 bad password correct horse"), "refused AUTH: 535 5.7.8"),
        (Auth, Line("454 4.7.0 later"), "refused AUTH: 454 4.7.0"),
        (Mail, Line("550 5.7.1 sender <ada@example.com> refused"), "refused MAIL FROM: 550 5.7.1"),
        (Rcpt, Line("450 4.2.1 <ada@example.com> try later"), "refused RCPT TO: 450 4.2.1"),
        (Rcpt, Line("530 5.7.0 sign in first, ada@example.com"), "refused RCPT TO: 530 5.7.0"),
        (Rcpt, Hangup, "RCPT TO: "),
        (Data, Line("451 4.3.0 hm"), "refused DATA: 451 4.3.0"),
        (Data, Hangup, "DATA: "),
        (Body, Hangup, "the message: "),
        (Body, Line("452 4.3.1 disk full"), "refused the message: 452 4.3.1"),
    ];
    let never = [
        (Rcpt, Line(NO_USER), "refused RCPT TO: 550 5.1.1"),
        (Rcpt, Line("553-5.1.3 more\r\n553 5.1.3 than one line"), "refused RCPT TO: 553 5.1.3"),
        (Rcpt, Line("550 ada@example.com is unknown"), "refused RCPT TO: 550"),
        (Data, Line("554 5.5.1 no"), "refused DATA: 554 5.5.1"),
        (Body, Line("552 5.2.2 mailbox of ada@example.com full"), "refused the message: 552 5.2.2"),
    ];
    let all = later.into_iter().map(|case| (true, case)).chain(never.into_iter().map(|case| (false, case)));
    for (is_later, (event, answer, expected)) in all {
        let server = Server::start([(event, answer)]).await;
        let settings = SmtpSettings { login: login(), ..settings(&server) };
        let error = send(&settings, &letter(Occasion::ResetPassword)).await.unwrap_err();
        assert_eq!(matches!(error, MailError::Later(_)), is_later, "{event:?} {answer:?}: {error}");
        assert!(error.to_string().contains(expected), "{event:?} {answer:?}: {error}");
        let shown = format!("{error} {error:?}");
        for hidden in ["ada", "example", "correct", "token"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_waited_for_only_so_long() {
    for event in [Event::Greeting, Event::Rcpt, Event::Body] {
        let server = Server::start([(event, Answer::Silence)]).await;
        let settings = SmtpSettings { timeout: Duration::from_millis(50), ..settings(&server) };
        let error = send(&settings, &letter(Occasion::ResetPassword)).await.unwrap_err();
        assert_eq!(error.to_string(), "not sent yet: the mail server did not answer in time");
    }
}

#[tokio::test]
async fn a_mail_that_was_taken_is_sent_however_the_goodbye_goes() {
    for answer in [Answer::Hangup, Answer::Line("500 what?")] {
        let server = Server::start([(Event::Quit, answer)]).await;
        send(&settings(&server), &letter(Occasion::ResetPassword)).await.unwrap();
    }
}

#[tokio::test]
async fn nobody_there_is_a_reason_to_come_back() {
    let server = Server::start([]).await;
    let settings = settings(&server);
    server.stop().await;
    let error = send(&settings, &letter(Occasion::ResetPassword)).await.unwrap_err();
    assert!(matches!(error, MailError::Later(_)), "{error}");
}

/// An attacker between us who takes the offer out of the greeting gets neither mail nor password.
#[tokio::test]
async fn without_encryption_nothing_is_said() {
    let server = Server::start([]).await;
    let settings = SmtpSettings { security: Security::StartTls, login: login(), ..settings(&server) };
    let error = send(&settings, &letter(Occasion::ResetPassword)).await.unwrap_err();
    assert_eq!(error.to_string(), "not sent yet: STARTTLS: STARTTLS is not supported on this server");
    assert_eq!(server.seen().await.commands, ["EHLO baton.example"]);

    let server = Server::start([]).await;
    let settings = SmtpSettings { security: Security::Tls, port: server.port, ..settings };
    let error = send(&settings, &letter(Occasion::ResetPassword)).await.unwrap_err();
    assert!(matches!(error, MailError::Later(_)), "{error}");
}

#[tokio::test]
async fn an_address_beyond_ascii_needs_a_server_that_knows_them() {
    let letter = Letter { to: "adá@example.com".to_owned(), ..letter(Occasion::PasswordChanged) };
    let server = Server::start([]).await;
    let error = send(&settings(&server), &letter).await.unwrap_err();
    assert!(matches!(error, MailError::Never(_)) && error.to_string().contains("SMTPUTF8"), "{error}");

    let capable = Answer::Line("250-mail.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8");
    let server = Server::start([(Event::Ehlo, capable)]).await;
    send(&settings(&server), &letter).await.unwrap();
    let commands = server.seen().await.commands;
    assert!(commands[1].starts_with("MAIL FROM:<no-reply@baton.example> SMTPUTF8"), "{commands:?}");
    assert_eq!(commands[2], "RCPT TO:<adá@example.com>");
}

#[test]
fn settings_come_from_a_url() {
    let parse = |url| SmtpSettings::from_url(url, "no-reply@baton.example");
    let read = |url| {
        use secrecy::ExposeSecret;
        let settings = parse(url).unwrap();
        let login = settings.login.map(|it| format!("{}/{}", it.username, it.password.expose_secret()));
        (settings.host, settings.port, settings.security, login.unwrap_or_default())
    };
    for (url, host, port, security, login) in [
        ("smtp://mail.example", "mail.example", 587, Security::StartTls, ""),
        ("smtp://mail.example:2525/", "mail.example", 2525, Security::StartTls, ""),
        ("smtps://u:p@mail.example", "mail.example", 465, Security::Tls, "u/p"),
        ("smtps://u%40x.example:p%2F%3A%23%25@mail.example", "mail.example", 465, Security::Tls, "u@x.example/p/:#%"),
        ("smtp+plain://localhost", "localhost", 25, Security::None, ""),
        ("smtp+plain://[::1]:25", "::1", 25, Security::None, ""),
    ] {
        assert_eq!(read(url), (host.to_owned(), port, security, login.to_owned()), "{url}");
    }
    for (url, expected) in [
        ("", "has to look like"),
        ("hunter2", "has to look like"),
        ("http://u:hunter2@mail.example", "has to begin with"),
        ("smtp:u:hunter2@mail.example", "names no host"),
        ("smtp://u:hunter2@", "has to look like"),
        ("smtp://u:hunter2@mail.example:99999", "has to look like"),
        ("smtp://u:hunter2/x@mail.example", "has to look like"),
        ("smtp://u:hunter2@mail.example/x", "has to end after the port"),
        ("smtp://u:hunter2@mail.example?x", "has to end after the port"),
        ("smtp://mail.example#hunter2", "has to end after the port"),
        ("smtp://:hunter2@mail.example", "has a password but no user"),
        ("smtp://hunter2@mail.example", "has a user but no password"),
        ("smtp://u:%FFhunter2@mail.example", "not UTF-8"),
    ] {
        let error = parse(url).unwrap_err();
        assert!(error.to_string().contains(expected), "{url}: {error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    assert!(!format!("{:?}", parse("smtp://u:hunter2@mail.example")).contains("hunter2"));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let good = SmtpSettings::new("mail.example", "Ada <no-reply@baton.example>");
    let refusal = |settings: &SmtpSettings| {
        SmtpMailer::new(settings, templates(), Arc::new(Sevens)).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(refusal(&good), Ok(()));
    for host in ["", "mail example", "mail.example\r\nX", "<x>"] {
        assert_eq!(
            refusal(&SmtpSettings { host: host.to_owned(), ..good.clone() }).unwrap_err(),
            "`host` has to be the name of a host"
        );
        let hello_name = Some(host.to_owned());
        assert!(refusal(&SmtpSettings { hello_name, ..good.clone() }).unwrap_err().starts_with("`hello_name`"));
    }
    for from in [
        "",
        "Ada",
        "Ada <ada>",
        "a@b.example, c@d.example",
        "Ada\r\nBcc: eve@evil.example <a@b.example>",
        "a@b.example\r\n",
    ] {
        assert!(
            refusal(&SmtpSettings { from: from.to_owned(), ..good.clone() }).unwrap_err().starts_with("`from` has")
        );
        let reply_to = Some(from.to_owned());
        assert!(refusal(&SmtpSettings { reply_to, ..good.clone() }).unwrap_err().starts_with("`reply_to` has"));
    }
    assert!(refusal(&SmtpSettings { timeout: Duration::ZERO, ..good.clone() }).unwrap_err().starts_with("`timeout`"));

    let file = tempfile::NamedTempFile::new().unwrap();
    let with = |ca_file: &std::path::Path| SmtpSettings { ca_file: Some(ca_file.to_owned()), ..good.clone() };
    assert!(refusal(&with(file.path())).unwrap_err().ends_with("holds no certificates in PEM form"));
    let missing = SmtpMailer::new(&with("/nowhere/ca.pem".as_ref()), templates(), Arc::new(Sevens)).map(drop);
    assert!(matches!(missing, Err(SmtpSettingsError::ReadCaFile { .. })));
}
