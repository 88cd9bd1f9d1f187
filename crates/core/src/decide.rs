//! The rotation rule. This is the only place where it lives.
//!
//! With `p` the presented generation, `g` the record's, `now` the store's time and `w = handed_out_at + buffer`:
//!
//! | case | verdict | record | token in the response |
//! | --- | --- | --- | --- |
//! | over its idle or absolute lifetime | reject, expired | removed | – |
//! | `p = g`, `now ≥ w` | accept, **rotate** | `g+1`, `handed_out_at = now` | the new one |
//! | `p = g`, `now < w` | accept, **batch** | – | blank |
//! | `p = g−1`, `now < w` | accept, **batch** | – | blank |
//! | `p > g` | **heal**: `g := p`, window opens now, then as `p = g` | `g = p` | blank |
//! | forgiving: `p = g−1`, `confirmed ≤ p`, `now ≥ w` | accept, **resend** | `handed_out_at = now` | the current one |
//! | `p < g` otherwise | reject, **superseded** | – (or revoked, `on_reuse`) | – |
//!
//! [`decide`] is asked before the handler runs, [`complete`] when its response head is ready: a slow request must not burn
//! the token that its quick siblings still use (DESIGN §2.4). A malformed or forged token never gets here, because only
//! [`crate::KeyRing::verify`] makes a [`Genuine`].
//!
//! The window is counted from the moment the token was handed out and is not extended by the requests in it, so a client
//! that talks all the time rotates once per buffer, and at most two tokens of a session are acceptable at any instant.
//!
//! A round trip, in what the rule promises, is the way of a request plus the way of a response; the time that a handler
//! takes does not count, because the window opens when its response head is ready.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::session::{Renewal, Session, Swap, Swapped};
use crate::token::{Generation, Genuine};

/// How often a session that does not rotate has its `last_seen_at` renewed, so that the list of devices stays true.
pub const SEEN_INTERVAL: Duration = Duration::from_secs(60);

/// The settings of the rule, by the names that devise_token_auth gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Whether tokens rotate at all. With `false` the token of the sign-in comes back on every response.
    pub change_headers_on_each_request: bool,
    /// Idle lifetime: a session ends this long after its last rotation.
    pub token_lifespan: Duration,
    /// Absolute lifetime: a session ends this long after its sign-in, whatever happens (ASVS 7.3.2).
    pub session_max_lifetime: Duration,
    /// Length of the batch window. Zero: every request rotates, and concurrent requests must not share a token.
    pub batch_request_buffer_throttle: Duration,
    /// Whether a token stays acceptable until its successor has been *seen*: for networks that lose responses.
    pub forgive_lost_responses: bool,
    /// What happens to a session one of whose superseded tokens is presented.
    pub on_reuse: OnReuse,
    /// What the responses of a batch carry that do not carry the new token.
    pub batch_response: BatchResponse,
}

impl Default for Rules {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            change_headers_on_each_request: true,
            token_lifespan: 14 * DAY,
            session_max_lifetime: 30 * DAY,
            batch_request_buffer_throttle: Duration::from_secs(5),
            forgive_lost_responses: false,
            on_reuse: OnReuse::Reject,
            batch_response: BatchResponse::Blank,
        }
    }
}

impl Rules {
    /// How a hand-out under these rules moves the end of a session.
    #[must_use]
    pub const fn renewal(&self) -> Renewal {
        Renewal { lifespan: self.token_lifespan, max_lifetime: self.session_max_lifetime }
    }
}

/// What happens to a session when a superseded token is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnReuse {
    /// The request is refused; the session goes on.
    #[default]
    Reject,
    /// The request is refused and the session ends, for the owner too (RFC 9700 §4.14.2).
    Revoke,
}

/// What a response of a batch carries in place of the new token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BatchResponse {
    /// The headers, blank: a cached 304 cannot revive old ones, and no client stores anything.
    #[default]
    Blank,
    /// No auth headers at all.
    Omit,
    /// The current token again, for clients that store whatever they are given (j-toker, redux-token-auth).
    Repeat,
}

/// What a request may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Go on to the handler; [`complete`] follows when its response head is ready.
    Accept(Plan),
    /// Make this change first, then decide again on the record it leads to (or on the one that was found instead). If the
    /// store cannot write, a change that does not [`heal`](Swap::heals) may be left out: without it the token's
    /// predecessor merely stays acceptable a little longer.
    First(Swap),
    /// Refuse.
    Reject(Rejection),
}

/// Why a genuine token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// The session is over its idle or absolute lifetime and is to be removed.
    Expired,
    /// A newer token has taken its place. With `revoke` the session is to be ended.
    Superseded {
        /// Whether [`Rules::on_reuse`] asks for it.
        revoke: bool,
    },
}

/// What the response of an accepted request is to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plan {
    /// Rotate or resend: make the swap, and hand out its generation if it was made.
    HandOut {
        /// The compare-and-set. Whoever loses it answers as a batch request.
        swap: Swap,
        /// Whether the loser repeats the current token.
        repeat: bool,
    },
    /// The token that is current when the response is ready, derived again; nothing changes.
    Repeat,
    /// The token of this session, which does not rotate.
    Keep,
    /// A batch request: no token.
    Blank,
}

/// What the response carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// This token, with the session's end.
    Token {
        /// Which one.
        generation: Generation,
        /// The protocol's `expiry`.
        expires_at: Timestamp,
    },
    /// No token: blank headers, or none with [`BatchResponse::Omit`].
    Blank,
    /// The session is gone: no auth headers.
    Nothing,
}

/// What a request that presents `token` may do with `session`. `unbatch`: it asks inside the window for the current token
/// instead of a blank. In forgiving mode that is a resend, which opens the window again, and only for a client that cannot
/// have the current token yet.
///
/// `token` has to be one of this session; the caller found the session by it.
#[must_use]
pub fn decide(session: &Session, token: Genuine, unbatch: bool, now: Timestamp, rules: &Rules) -> Verdict {
    let presented = token.generation();
    let current = session.generation;

    if is_expired(session, now, rules) {
        return Verdict::Reject(Rejection::Expired);
    }
    if presented > current {
        // It was issued, so the store has forgotten a rotation. The window opens for its siblings that are on their way.
        return Verdict::First(Swap { generation: presented, ..hand_out(session, presented, rules) });
    }

    let open = is_open(session, now, rules);
    let unseen_successor = rules.forgive_lost_responses && session.confirmed <= presented;
    let acceptable = presented == current || presented.precedes(current) && (open || unseen_successor);
    if !acceptable {
        return Verdict::Reject(Rejection::Superseded { revoke: rules.on_reuse == OnReuse::Revoke });
    }
    if let Some(note) = note(session, presented, now, rules) {
        return Verdict::First(note);
    }

    // Where responses get lost, a token handed out once more needs a window of its own, for the siblings of the request that
    // asks for it. So a retry inside the window is a resend there, and not a repetition.
    let retries = unbatch && unseen_successor && presented != current;
    let repeat = unbatch && !rules.forgive_lost_responses || rules.batch_response == BatchResponse::Repeat;
    Verdict::Accept(if !rules.change_headers_on_each_request {
        Plan::Keep
    } else if open && !retries {
        if repeat { Plan::Repeat } else { Plan::Blank }
    } else if presented == current {
        let Some(next) = current.next() else { return Verdict::Reject(Rejection::Expired) };
        Plan::HandOut { swap: Swap { generation: next, ..hand_out(session, presented, rules) }, repeat }
    } else {
        Plan::HandOut { swap: hand_out(session, presented, rules), repeat }
    })
}

/// What the response of `plan` carries, given the store's answer: to the swap of [`Plan::HandOut`], or to a second look for
/// [`Plan::Repeat`] (`Moved` with what was found, or `Gone`). For the other plans there is nothing to ask; pass
/// `Moved(session)` with the record that was decided on.
#[must_use]
pub fn complete(session: &Session, plan: &Plan, answer: &Swapped) -> Reply {
    let token = |of: &Session| Reply::Token { generation: of.generation, expires_at: of.expires_at };
    match (plan, answer) {
        (_, Swapped::Gone) => Reply::Nothing,
        (Plan::HandOut { swap, .. }, Swapped::Done(at)) => {
            session.swapped(swap, *at).as_ref().map_or(Reply::Blank, token)
        }
        // A store that lost its newest writes meanwhile must not set the client back (S5): its old token is still genuine.
        (Plan::HandOut { repeat: true, .. } | Plan::Repeat | Plan::Keep, Swapped::Moved(found)) => {
            token(if found.generation < session.generation { session } else { found })
        }
        (Plan::HandOut { .. } | Plan::Blank, Swapped::Moved(_)) => Reply::Blank,
        (Plan::Repeat | Plan::Keep | Plan::Blank, Swapped::Done(_)) => Reply::Blank,
    }
}

/// Whether the session is over its idle or its absolute lifetime.
#[must_use]
pub fn is_expired(session: &Session, now: Timestamp, rules: &Rules) -> bool {
    // The cap is looked at again here so that a shorter one takes effect for sessions that exist.
    now >= session.expires_at || now >= session.created_at.plus(rules.session_max_lifetime)
}

fn is_open(session: &Session, now: Timestamp, rules: &Rules) -> bool {
    session.handed_out_at.is_some_and(|at| now < at.plus(rules.batch_request_buffer_throttle))
}

/// A swap that hands out the record's own generation again; the caller puts another one in to rotate or to heal.
fn hand_out(session: &Session, presented: Generation, rules: &Rules) -> Swap {
    Swap {
        expect: session.version(),
        generation: session.generation,
        confirmed: presented,
        hand_out: Some(rules.renewal()),
    }
}

/// What has to be written down about an accepted request before its handler runs, if anything.
fn note(session: &Session, presented: Generation, now: Timestamp, rules: &Rules) -> Option<Swap> {
    // Only the forgiving mode asks what has been seen; without it a batch request costs no write.
    let confirms = rules.forgive_lost_responses && presented > session.confirmed;
    let stale = !rules.change_headers_on_each_request && now.since(session.last_seen_at) >= SEEN_INTERVAL;
    (confirms || stale).then(|| Swap {
        expect: session.version(),
        generation: session.generation,
        confirmed: presented,
        hand_out: None,
    })
}
