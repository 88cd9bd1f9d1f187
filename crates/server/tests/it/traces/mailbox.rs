//! The links that the server mailed.

use baton_mail::Mailbox;

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Reset,
    Confirmation,
    Unlock,
}

impl Kind {
    /// By the name of its placeholder in the recording.
    pub fn of(placeholder: &str) -> Option<Self> {
        match placeholder {
            "reset_token" => Some(Self::Reset),
            "confirmation_token" => Some(Self::Confirmation),
            "unlock_token" => Some(Self::Unlock),
            _ => None,
        }
    }
}

impl Kind {
    /// The name of its token in a link.
    pub const fn parameter(self) -> &'static str {
        match self {
            Self::Reset => "reset_password_token",
            Self::Confirmation => "confirmation_token",
            Self::Unlock => "unlock_token",
        }
    }
}

/// The token in a mail of this kind to this address: `back` 0 is the newest such mail, 1 the one before it.
pub fn token(mailbox: &Mailbox, kind: Kind, email: &str, back: usize) -> Option<String> {
    let tokens = mailbox.list().into_iter().filter(|kept| kept.mail.to == email).filter_map(|kept| {
        let (_, query) = kept.link.as_ref()?.split_once('?')?;
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == kind.parameter()).map(|(_, token)| token.into_owned())
    });
    tokens.collect::<Vec<_>>().into_iter().nth(back)
}
