//! The links that the server mailed.

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

/// Everything that a server has mailed.
#[derive(Debug, Default)]
pub struct Mailbox;

impl Mailbox {
    /// The token in a mail of this kind to this address: `back` 0 is the newest such mail, 1 the one before it.
    /// `None` if there is none, which is always so until the server sends mail: see [`super::scenarios::NOT_YET`].
    pub fn token(&self, _kind: Kind, _email: &str, _back: usize) -> Option<String> {
        None
    }
}
