//! What went wrong, without what must not be in a log: servers like to quote the recipient in their replies.

use std::error::Error as _;
use std::io;

use baton_core::letter::MailError;
use lettre::transport::smtp::Error;

/// How far a delivery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    StartTls,
    Auth,
    MailFrom,
    RcptTo,
    Data,
    Message,
}

/// Safe to be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the mail server did not answer in time")]
    TimedOut,
    #[error("the mail server cannot deliver to an address that is not ASCII (SMTPUTF8, RFC 6531)")]
    NeedsSmtpUtf8,
    /// The reply code, and the enhanced one (RFC 3463) if there is one.
    #[error("the mail server refused {step}: {code}{enhanced}")]
    Refused { step: Step, code: u16, enhanced: String },
    /// From this side of the connection: nothing in it was said by the server.
    #[error("{step}: {reason}")]
    Broken { step: Step, reason: String },
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "the connection",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::MailFrom => "MAIL FROM",
            Self::RcptTo => "RCPT TO",
            Self::Data => "DATA",
            Self::Message => "the message",
        })
    }
}

impl Step {
    /// For `map_err`.
    pub(super) fn failed(self) -> impl FnOnce(Error) -> Failure {
        move |error| match error.status() {
            Some(code) => Failure::Refused { step: self, code: code.into(), enhanced: enhanced_status(&error) },
            None => Failure::Broken { step: self, reason: reason(&error) },
        }
    }
}

impl From<Failure> for MailError {
    fn from(failure: Failure) -> Self {
        if failure.is_about_the_letter() { Self::Never(failure.into()) } else { Self::Later(failure.into()) }
    }
}

impl Failure {
    fn is_about_the_letter(&self) -> bool {
        match self {
            Self::NeedsSmtpUtf8 => true,
            Self::Refused { step: Step::RcptTo | Step::Data | Step::Message, code, .. } => {
                // 530 to 538: about signing in (RFC 4954 §6), which some servers say no earlier.
                *code >= 500 && !(530..=538).contains(code)
            }
            Self::Refused { .. } | Self::Broken { .. } | Self::TimedOut => false,
        }
    }
}

/// The enhanced status code with a space before it, if the reply begins with one.
fn enhanced_status(error: &Error) -> String {
    let reply = error.source().map(ToString::to_string).unwrap_or_default();
    let word = reply.split_whitespace().next().unwrap_or_default();
    let parts: Vec<&str> = word.split('.').collect();
    let is_number = |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() == 3 && parts.iter().all(is_number) { format!(" {word}") } else { String::new() }
}

fn reason(error: &Error) -> String {
    if error.is_response() {
        // Its source is the reply.
        return "the reply is not SMTP".to_owned();
    }
    let mut causes = std::iter::successors(error.source(), |&error| error.source());
    if error.is_tls() || error.is_client() {
        return causes.next().map_or_else(|| "failed".to_owned(), ToString::to_string);
    }
    match causes.find_map(|cause| cause.downcast_ref::<io::Error>()) {
        // What a TLS handshake says is in there.
        Some(error) => error.to_string(),
        None => "the connection failed".to_owned(),
    }
}
