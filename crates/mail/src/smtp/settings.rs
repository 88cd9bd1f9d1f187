//! Which mail server, and how.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use baton_core::Random;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{Encryption, SmtpMailer};
use crate::templates::Templates;
use crate::untrusted;

/// Which mail server is used, and how.
#[derive(Debug, Clone)]
pub struct SmtpSettings {
    /// Its name, which is also the one that its certificate has to have.
    pub host: String,
    /// Its port; [`Security::port`] knows the usual ones.
    pub port: u16,
    /// How the connection is encrypted.
    pub security: Security,
    /// As whom to sign in there, if at all.
    pub login: Option<Login>,
    /// How long one mail may take altogether, from connecting to the server's acknowledgement. 20 s by default.
    pub timeout: Duration,
    /// The sender, as `ada@example.com` or `Ada <ada@example.com>`.
    pub from: String,
    /// Where answers go, if not to the sender. In the same form.
    pub reply_to: Option<String>,
    /// A PEM file with certificates to trust beside those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// The name by which we greet (`EHLO`). The sender's domain by default.
    pub hello_name: Option<String>,
}

/// An account at the mail server.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password.
    pub password: SecretString,
}

/// How the connection to the mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// It begins in the clear and is encrypted before anything else is said (RFC 3207). A server that does not offer that
    /// gets no mail and no password.
    #[default]
    StartTls,
    /// It is encrypted from its beginning (RFC 8314 §3.3).
    Tls,
    /// It is not: mails and the password can be read and changed on their way. For a server on the same machine.
    None,
}

impl Security {
    /// The usual port.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

/// Why a mail server cannot be used as the settings ask for. Never shows the password, nor the URL that has it.
#[derive(Debug, thiserror::Error)]
pub enum SmtpSettingsError {
    /// The URL is not of a form that is known.
    #[error("the SMTP URL {0}")]
    Url(&'static str),
    /// An address is not one.
    #[error("`{0}` has to be an address such as `ada@example.com` or `Ada <ada@example.com>`")]
    Address(&'static str),
    /// The host or the name in the greeting is not one.
    #[error("`{0}` has to be the name of a host")]
    HostName(&'static str),
    /// No time at all.
    #[error("`timeout` has to be longer than nothing")]
    Timeout,
    /// The file with certificates could not be read.
    #[error("{path}: {source}")]
    ReadCaFile {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file does not hold certificates.
    #[error("{0}: holds no certificates in PEM form")]
    CaFile(PathBuf),
    /// The certificates of the system or of the file are of no use.
    #[error("TLS: {0}")]
    Tls(String),
}

impl SmtpSettings {
    /// Over STARTTLS at its usual port, without signing in.
    #[must_use]
    pub fn new(host: impl Into<String>, from: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: Security::StartTls.port(),
            security: Security::StartTls,
            login: None,
            timeout: Duration::from_secs(20),
            from: from.into(),
            reply_to: None,
            ca_file: None,
            hello_name: None,
        }
    }

    /// From `smtp://user:password@host:port` for [`Security::StartTls`], `smtps://…` for [`Security::Tls`] or
    /// `smtp+plain://…` for [`Security::None`]. The user and the password are percent-encoded; both may be missing, and so
    /// may the port.
    ///
    /// # Errors
    /// [`SmtpSettingsError::Url`].
    pub fn from_url(url: &str, from: impl Into<String>) -> Result<Self, SmtpSettingsError> {
        use SmtpSettingsError::Url as Bad;

        let url = Url::parse(url).map_err(|_| Bad("has to look like smtp://user:password@host:587"))?;
        let security = match url.scheme() {
            "smtp" => Security::StartTls,
            "smtps" => Security::Tls,
            "smtp+plain" => Security::None,
            _ => return Err(Bad("has to begin with smtp://, smtps:// or smtp+plain://")),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(Bad("names no host"))?;
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(Bad("has to end after the port; a `/`, `?` or `#` in the password has to be percent-encoded"));
        }
        let decode = |text| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map(String::from).map_err(|_| Bad("has a user or password that is not UTF-8"))
        };
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            ("", Some(_)) => return Err(Bad("has a password but no user")),
            (_, None) => return Err(Bad("has a user but no password")),
            (username, Some(password)) => {
                Some(Login { username: decode(username)?, password: decode(password)?.into() })
            }
        };
        // Square brackets belong to the URL, not to the address in them.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self { port: url.port().unwrap_or(security.port()), security, login, ..Self::new(host, from) })
    }

    fn encryption(&self) -> Result<Encryption, SmtpSettingsError> {
        match self.security {
            Security::None => Ok(Encryption::None),
            Security::StartTls => self.tls().map(Encryption::StartTls),
            Security::Tls => self.tls().map(Encryption::Tls),
        }
    }

    fn tls(&self) -> Result<TlsParameters, SmtpSettingsError> {
        let mut tls = TlsParameters::builder(self.host.clone());
        if let Some(path) = &self.ca_file {
            let pem =
                std::fs::read(path).map_err(|source| SmtpSettingsError::ReadCaFile { path: path.clone(), source })?;
            let unfit = || SmtpSettingsError::CaFile(path.clone());
            // The parser passes over everything that is not a certificate, and so over a file that has none.
            if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
                return Err(unfit());
            }
            tls = tls.add_root_certificate(Certificate::from_pem(&pem).map_err(|_| unfit())?);
        }
        tls.build().map_err(|error| SmtpSettingsError::Tls(error.to_string()))
    }
}

impl SmtpMailer {
    /// Reads the certificates; does not connect yet.
    ///
    /// # Errors
    /// [`SmtpSettingsError`] if the settings cannot be used.
    pub fn new(
        settings: &SmtpSettings,
        templates: Arc<Templates>,
        random: Arc<dyn Random>,
    ) -> Result<Self, SmtpSettingsError> {
        if !is_host_name(&settings.host) {
            return Err(SmtpSettingsError::HostName("host"));
        }
        if settings.timeout.is_zero() {
            return Err(SmtpSettingsError::Timeout);
        }
        let from = sender("from", &settings.from)?;
        Ok(Self {
            templates,
            random,
            host: settings.host.clone(),
            port: settings.port,
            encryption: settings.encryption()?,
            credentials: settings
                .login
                .as_ref()
                .map(|login| Credentials::new(login.username.clone(), login.password.expose_secret().to_owned())),
            timeout: settings.timeout,
            hello: hello(settings.hello_name.as_deref().unwrap_or(from.email.domain()))?,
            reply_to: settings.reply_to.as_deref().map(|reply_to| sender("reply_to", reply_to)).transpose()?,
            from,
        })
    }
}

fn sender(setting: &'static str, text: &str) -> Result<Mailbox, SmtpSettingsError> {
    let parsed = text.parse::<Mailbox>().ok();
    parsed
        .filter(|it| untrusted::is_one_line(text) && untrusted::address(it.email.as_ref()).is_some())
        .ok_or(SmtpSettingsError::Address(setting))
}

fn hello(name: &str) -> Result<ClientId, SmtpSettingsError> {
    if is_host_name(name) {
        Ok(ClientId::Domain(name.to_owned()))
    } else {
        Err(SmtpSettingsError::HostName("hello_name"))
    }
}

/// Good enough to be put on a line of the protocol.
fn is_host_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
}
