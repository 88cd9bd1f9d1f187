//! Mail that goes to a mail server.

mod failure;
mod settings;

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use baton_core::Random;
use baton_core::letter::{Letter, MailError, Mailer};
use lettre::Message;
use lettre::address::{Address, Envelope};
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use tokio::time::timeout;

use self::failure::{Failure, Step};
pub use self::settings::{Login, Security, SmtpSettings, SmtpSettingsError};
use crate::templates::{Mail, Templates};

/// How long the mail server may take to say goodbye. By then the mail is its own.
const GOODBYE: Duration = Duration::from_secs(1);

/// Sends letters by SMTP (RFC 5321), a connection for each.
///
/// What goes wrong before the server has heard of the recipient is a matter between it and us: even a reply of 5xx there is
/// worth [another attempt](MailError::Later), since somebody may put it right meanwhile. When the connection ends after the
/// mail was sent and before it was acknowledged, another attempt may send it twice.
pub struct SmtpMailer {
    templates: Arc<Templates>,
    random: Arc<dyn Random>,
    host: String,
    port: u16,
    encryption: Encryption,
    credentials: Option<Credentials>,
    timeout: Duration,
    hello: ClientId,
    from: Mailbox,
    reply_to: Option<Mailbox>,
}

enum Encryption {
    None,
    StartTls(TlsParameters),
    Tls(TlsParameters),
}

impl fmt::Debug for SmtpMailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpMailer").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn send(&self, letter: &Letter) -> Result<(), MailError> {
        let mail = self.templates.render(letter)?;
        let message = self.message(&mail)?;
        let (mut connection, result) = timeout(self.timeout, async {
            let mut connection = self.connect().await?;
            let result = hand_over(&mut connection, message.envelope(), &message.formatted()).await;
            Ok::<_, Failure>((connection, result))
        })
        .await
        .unwrap_or(Err(Failure::TimedOut))?;
        // Courtesy. Whether it succeeds changes nothing.
        let _ = timeout(GOODBYE, connection.abort()).await;
        Ok(result?)
    }
}

impl SmtpMailer {
    fn message(&self, mail: &Mail) -> Result<Message, MailError> {
        let to: Address = mail.to.parse().map_err(|_| never("the recipient is not a bare e-mail address"))?;
        let mut message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(mail.subject.as_str())
            .message_id(Some(self.message_id()?))
            .date_now()
            // No answers from machines: RFC 3834 §5, and for Exchange, which does not know it.
            .raw_header(header("Auto-Submitted", "auto-generated"))
            .raw_header(header("X-Auto-Response-Suppress", "All"));
        if let Some(reply_to) = &self.reply_to {
            message = message.reply_to(reply_to.clone());
        }
        message
            .multipart(MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone()))
            .map_err(|_| never("the mail cannot be put together"))
    }

    /// Unique (RFC 5322 §3.6.4) without telling anything about this machine.
    fn message_id(&self) -> Result<String, MailError> {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).map_err(|error| MailError::Later(error.into()))?;
        let id = bytes.iter().fold(String::new(), |mut id, byte| {
            // Writing to a String cannot fail.
            let _ = write!(id, "{byte:02x}");
            id
        });
        Ok(format!("<{id}@{}>", self.from.email.domain()))
    }

    /// Up to the point at which the server is ready for a mail.
    async fn connect(&self) -> Result<AsyncSmtpConnection, Failure> {
        let tls = match &self.encryption {
            Encryption::Tls(tls) => Some(tls.clone()),
            Encryption::None | Encryption::StartTls(_) => None,
        };
        let server = (self.host.as_str(), self.port);
        let mut connection = AsyncSmtpConnection::connect_tokio1(server, None, &self.hello, tls, None)
            .await
            .map_err(Step::Connect.failed())?;
        if let Encryption::StartTls(tls) = &self.encryption {
            connection.starttls(tls.clone(), &self.hello).await.map_err(Step::StartTls.failed())?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await.map_err(Step::Auth.failed())?;
        }
        Ok(connection)
    }
}

async fn hand_over(connection: &mut AsyncSmtpConnection, envelope: &Envelope, message: &[u8]) -> Result<(), Failure> {
    let mut parameters = Vec::new();
    if envelope.from().into_iter().chain(envelope.to()).any(|address| !AsRef::<str>::as_ref(address).is_ascii()) {
        if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
            return Err(Failure::NeedsSmtpUtf8);
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    if !message.is_ascii() {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    let sender = MailFrom::new(envelope.from().cloned(), parameters);
    connection.command(sender).await.map_err(Step::MailFrom.failed())?;
    for to in envelope.to() {
        connection.command(Rcpt::new(to.clone(), Vec::new())).await.map_err(Step::RcptTo.failed())?;
    }
    connection.command(Data).await.map_err(Step::Data.failed())?;
    connection.message(message).await.map_err(Step::Message.failed())?;
    Ok(())
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

fn never(reason: &str) -> MailError {
    MailError::Never(reason.into())
}
