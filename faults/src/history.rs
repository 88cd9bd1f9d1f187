//! What was seen: every request of every client, and what was done to the servers meanwhile.
//!
//! All times are of one monotonic clock, counted from the start of the run. What happened on a server happened at some moment
//! between `sent` and `answered`; which one is not known, so the checker claims nothing that depends on it.

use std::time::Duration;

/// A run of one cluster.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// `batch_request_buffer_throttle`.
    pub(crate) buffer: Duration,
    /// `forgive_lost_responses`.
    pub(crate) forgiving: bool,
    /// By number.
    pub(crate) sessions: Vec<Session>,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) sign_ins: Vec<SignIn>,
    pub(crate) endings: Vec<Ending>,
    pub(crate) heals: Vec<Heal>,
    pub(crate) doubts: Vec<Doubt>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) phases: Vec<Phase>,
    /// Sessions whose client did not get through any more at the end, although everything had been put right.
    pub(crate) stuck: Vec<usize>,
}

#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// The protocol's `client`.
    pub(crate) client: String,
}

/// A request that presented a token, and what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) session: usize,
    pub(crate) actor: Actor,
    #[expect(dead_code, reason = "for whoever reads a violation")]
    pub(crate) node: usize,
    pub(crate) sent: Duration,
    /// When the last byte of the answer was there, or when it was given up.
    pub(crate) answered: Duration,
    /// The generation.
    pub(crate) presented: u32,
    pub(crate) deed: Deed,
    pub(crate) answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Actor {
    /// Follows the protocol.
    Owner,
    /// Presents a token that it has found somewhere.
    Thief,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A resource whose handler takes this long at least.
    Get(Duration),
    SignOut,
    /// A new password, which ends the account's other sessions.
    NewPassword,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// There was no connection: no server has seen the request.
    Unsent,
    /// It may have been seen; nothing came back in time.
    Lost,
    Said {
        status: u16,
        /// `code` of the body; empty if it has none.
        code: String,
        handed: Handed,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handed {
    /// The token of this generation.
    Token(u32),
    /// The auth headers, blank.
    Blank,
    /// No auth headers.
    Nothing,
}

/// A sign-in. Opens a session with the token 1 if it succeeds.
#[derive(Debug, Clone)]
pub(crate) struct SignIn {
    pub(crate) sent: Duration,
    pub(crate) answer: Answer,
}

/// Somebody asked for the end of a session.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    pub(crate) session: usize,
    pub(crate) asked: Duration,
    /// When it was known to be done; `None` if it may have been.
    pub(crate) acknowledged: Option<Duration>,
}

/// A node's log says that a record was moved up.
#[derive(Debug, Clone)]
pub(crate) struct Heal {
    /// When the line was read: not before it happened.
    pub(crate) at: Duration,
    pub(crate) client: String,
    pub(crate) from: u32,
    pub(crate) to: u32,
}

/// A node's log says that it does not know whether something was stored.
#[derive(Debug, Clone)]
pub(crate) struct Doubt {
    /// When the line was read.
    pub(crate) at: Duration,
    pub(crate) client: String,
    pub(crate) generation: u32,
    pub(crate) about: About,
}

/// Of what is not known whether it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum About {
    /// The rotation to this generation, which was handed out all the same.
    Rotation,
    /// That this generation was presented.
    Use,
}

/// What was done to the servers.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) name: String,
    pub(crate) from: Duration,
    /// When all was well again.
    pub(crate) until: Duration,
    /// For what can cost the store rotations: those that were made from this long before `from` up to `until` may be missing
    /// afterwards. No others, and nothing but rotations.
    pub(crate) loses: Option<Duration>,
    /// Between these moments no node could have read the store.
    pub(crate) away: Option<(Duration, Duration)>,
}

/// A part of the run that is reported by itself.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    pub(crate) name: String,
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

impl Exchange {
    pub(crate) fn status(&self) -> Option<u16> {
        match &self.answer {
            Answer::Said { status, .. } => Some(*status),
            Answer::Unsent | Answer::Lost => None,
        }
    }

    pub(crate) fn code(&self) -> &str {
        match &self.answer {
            Answer::Said { code, .. } => code,
            Answer::Unsent | Answer::Lost => "",
        }
    }

    /// Whether the token was accepted.
    pub(crate) fn accepted(&self) -> bool {
        self.status() == Some(200)
    }

    pub(crate) fn delivered(&self) -> Option<u32> {
        match self.answer {
            Answer::Said { handed: Handed::Token(generation), .. } => Some(generation),
            _ => None,
        }
    }

    /// How long its request and its answer were on the way, at most. What the handler took does not count.
    pub(crate) fn on_the_way(&self) -> Duration {
        let handled = match self.deed {
            Deed::Get(sleep) => sleep,
            Deed::SignOut | Deed::NewPassword => Duration::ZERO,
        };
        self.answered.saturating_sub(self.sent + handled)
    }
}
