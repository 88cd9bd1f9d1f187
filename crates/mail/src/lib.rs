//! Letters of baton: how they read and how they travel.
//!
//! The core says what is written to whom and why ([`Letter`](baton_core::letter::Letter)); this crate turns that into a
//! [`Mail`] with a subject, a text and an HTML body ([`Templates`]), and hands it over:
//!
//! | [`Mailer`](baton_core::letter::Mailer) | for |
//! | --- | --- |
//! | [`SmtpMailer`] | a mail server |
//! | [`Mailbox`] | development and tests: keeps the last mails in memory |
//!
//! What a letter says about people was chosen by strangers: a name or an address never becomes markup, a header, a second
//! recipient or a link ([`Templates::render`]). What an error says never names a recipient, a link or a password.

mod catalogue;
mod files;
mod language;
mod mailbox;
mod smtp;
mod templates;
mod untrusted;

pub use mailbox::{Kept, Mailbox};
pub use smtp::{Login, Security, SmtpMailer, SmtpSettings, SmtpSettingsError};
pub use templates::{Mail, TemplateError, TemplateSettings, Templates};
