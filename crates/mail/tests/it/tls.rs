//! Encrypted delivery. The certificate is made for each test, so that no private key lies about in the repository.

use std::io::Write;
use std::sync::Arc;

use baton_core::letter::{MailError, Mailer, Occasion};
use baton_mail::{Login, Security, SmtpMailer, SmtpSettings};
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::server::{Seen, Server};
use crate::support::{Sevens, letter, templates};

/// Sends a letter to a server whose certificate is for `name`.
async fn send(security: Security, name: &str, trusted: bool) -> (Result<(), MailError>, Seen) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key))
        .expect("a configuration");
    let server = Server::encrypted([], Some((security, TlsAcceptor::from(Arc::new(config))))).await;

    let mut ca_file = NamedTempFile::new().expect("a file");
    ca_file.write_all(made.cert.pem().as_bytes()).expect("written");
    let settings = SmtpSettings {
        port: server.port,
        security,
        login: Some(Login { username: "postman".to_owned(), password: "correct horse".into() }),
        ca_file: trusted.then(|| ca_file.path().to_owned()),
        ..SmtpSettings::new("127.0.0.1", "no-reply@baton.example")
    };
    let mailer = SmtpMailer::new(&settings, templates(), Arc::new(Sevens)).expect("usable settings");
    let result = mailer.send(&letter(Occasion::ResetPassword)).await;
    (result, server.seen().await)
}

#[tokio::test]
async fn a_letter_travels_encrypted() {
    let (result, seen) = send(Security::Tls, "127.0.0.1", true).await;
    result.unwrap();
    assert!(seen.commands[1].starts_with("AUTH PLAIN ") && !seen.message.is_empty());

    let (result, seen) = send(Security::StartTls, "127.0.0.1", true).await;
    result.unwrap();
    assert_eq!(seen.commands[..3], ["EHLO baton.example", "STARTTLS", "EHLO baton.example"]);
    assert!(seen.commands[3].starts_with("AUTH PLAIN ") && !seen.message.is_empty());
}

#[tokio::test]
async fn a_server_that_cannot_prove_who_it_is_learns_nothing() {
    for (name, trusted, expected) in
        [("127.0.0.1", false, "UnknownIssuer"), ("mail.example", true, "not valid for name")]
    {
        for (security, heard) in [(Security::Tls, 0), (Security::StartTls, 2)] {
            let (result, seen) = send(security, name, trusted).await;
            let error = result.unwrap_err();
            assert!(matches!(error, MailError::Later(_)) && error.to_string().contains(expected), "{error}");
            assert_eq!(seen.commands.len(), heard, "{:?}", seen.commands);
        }
    }
}
