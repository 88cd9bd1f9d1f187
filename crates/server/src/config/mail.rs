//! Who sends letters, and how they read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use baton_engine::{OsRandom, Redirect, SecretString};
use baton_mail::{Login, SmtpMailer, SmtpSettings, SmtpSettingsError, TemplateError, TemplateSettings, Templates};

use super::reader::Reader;

/// Who sends letters, and how they read.
#[derive(Debug, Clone)]
pub struct MailConfig {
    /// The mail server. `None`: letters go into the mailbox of `baton dev`, or there are none.
    pub smtp: Option<SmtpSettings>,
    /// How they read. `None` only if there was a complaint.
    pub templates: Option<Arc<Templates>>,
    /// What links in letters begin with, before the mount; empty if that is not said.
    pub public_url: String,
}

/// What no complaint and no `Debug` may show.
pub(super) const PASSWORD: &str = "mail.password";

pub(super) fn read(reader: &mut Reader<'_>) -> MailConfig {
    let (smtp, templates) = (smtp(reader), templates(reader));
    if let (Some(smtp), Some(templates)) = (&smtp, &templates)
        && let Err(error) = SmtpMailer::new(smtp, Arc::clone(templates), Arc::new(OsRandom))
    {
        reader.refuse(faulty(&error), error);
    }
    MailConfig { smtp, templates, public_url: public_url(reader) }
}

/// The setting that is to blame.
fn faulty(error: &SmtpSettingsError) -> &'static str {
    match error {
        SmtpSettingsError::Address("reply_to") => "mail.reply_to",
        SmtpSettingsError::Address(_) => "mail.from",
        SmtpSettingsError::HostName("hello_name") => "mail.hello_name",
        SmtpSettingsError::Timeout => "mail.timeout",
        SmtpSettingsError::ReadCaFile { .. } | SmtpSettingsError::CaFile(_) | SmtpSettingsError::Tls(_) => {
            "mail.ca_file"
        }
        SmtpSettingsError::Url(_) | SmtpSettingsError::HostName(_) => "mail.url",
    }
}

fn smtp(reader: &mut Reader<'_>) -> Option<SmtpSettings> {
    const URL: &str = "mail.url";
    let (url, from) = (reader.text(URL), reader.text("mail.from"));
    let (username, password) = (reader.text("mail.username"), reader.secret(PASSWORD));
    let timeout = reader.duration("mail.timeout", Duration::from_millis(100)..=Duration::from_secs(4 * 60));
    let optional = |text: String| (!text.is_empty()).then_some(text);
    let reply_to = optional(reader.text("mail.reply_to"));
    let ca_file = optional(reader.text("mail.ca_file")).map(PathBuf::from);
    let hello_name = optional(reader.text("mail.hello_name"));
    if url.is_empty() {
        return None;
    }
    if url.contains('@') {
        reader.refuse_unseen(URL, "holds a name or a password; set mail.username and mail.password");
        return None;
    }
    if from.is_empty() {
        reader.refuse("mail.from", "is needed: the address that letters come from");
        return None;
    }
    if username.is_empty() != password.is_empty() {
        reader.refuse("mail.username", "has to be set together with mail.password");
    }
    let mut smtp = match SmtpSettings::from_url(&url, from) {
        Ok(smtp) => smtp,
        Err(_) => {
            // Not what the library says: it tells how to write a password into the URL.
            let why = "has to be smtp://HOST, smtps://HOST or smtp+plain://HOST, with :PORT if it is not the usual one";
            reader.refuse(URL, why);
            return None;
        }
    };
    smtp.login = (!username.is_empty()).then(|| Login { username, password: SecretString::from(password) });
    (smtp.timeout, smtp.reply_to, smtp.ca_file, smtp.hello_name) = (timeout, reply_to, ca_file, hello_name);
    Some(smtp)
}

fn templates(reader: &mut Reader<'_>) -> Option<Arc<Templates>> {
    const DIR: &str = "mail.templates";
    let dir = reader.text(DIR);
    let settings = TemplateSettings {
        dir: (!dir.is_empty()).then(|| dir.into()),
        product: reader.text("mail.product"),
        language: reader.text("mail.language"),
    };
    match Templates::load(&settings) {
        Ok(templates) => Some(Arc::new(templates)),
        Err(error) => {
            let key = match error {
                TemplateError::Product => "mail.product",
                TemplateError::Language(_) => "mail.language",
                _ => DIR,
            };
            reader.refuse(key, error);
            None
        }
    }
}

fn public_url(reader: &mut Reader<'_>) -> String {
    const KEY: &str = "mail.public_url";
    let url = reader.text(KEY);
    let url = url.trim_end_matches('/').to_owned();
    if url.is_empty() {
        return url;
    }
    if let Err(error) = Redirect::parse(&url) {
        reader.refuse(KEY, error);
    } else if !(url.starts_with("https://") || url.starts_with("http://")) {
        reader.refuse(KEY, "has to begin with https:// or http://");
    } else if url.contains(['?', '#']) {
        reader.refuse(KEY, "has to end with its path: links are made by writing on");
    }
    url
}
