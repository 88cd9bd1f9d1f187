//! The checker: what the histories have to show, whatever happened to the servers. A pure function.
//!
//! It is sound: it complains only if the rule was broken at every possible moment between a request's `sent` and `answered`.
//! The rules are those of `docs/design.md` §2.5.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use crate::history::{About, Actor, Answer, Deed, Ending, Exchange, Fault, Handed, Heal, History};

/// A rule, by what breaks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    /// S1: a superseded token was accepted after its window, and no fault explains it.
    Superseded,
    /// S2: a token was accepted although two newer ones were out.
    ThirdToken,
    /// S3: a generation was delivered twice.
    Twice,
    /// S4: a session came back after its end was acknowledged.
    Resurrected,
    /// S5: generations went backwards.
    Backwards,
    /// L1, L2: a client that followed the protocol was refused, and lost no response that would explain it.
    LockedOut,
    /// L1, L2: a client did not get through when all was well again.
    Stuck,
    /// What must not be lost was: a session that was opened and not ended is unknown, or answers without auth headers.
    SessionLost,
    /// A rotation was forgotten that was older than the bound.
    LostTooMuch,
    /// 401 although nobody could have asked the store.
    RefusedWhileAway,
    /// An answer that no client expects: 5xx other than 503, or 503 without `Retry-After`.
    Status,
}

/// A rule that was broken, and by what.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) what: String,
}

/// What happened how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) rotations: u64,
    /// Answers with blank headers.
    pub(crate) batches: u64,
    pub(crate) heals: u64,
    /// Compare-and-sets that somebody else was quicker with, as far as the history proves it.
    pub(crate) lost_swaps: u64,
    pub(crate) unavailable: u64,
    /// Superseded tokens that were refused.
    pub(crate) superseded: u64,
    /// Answers that did not arrive.
    pub(crate) lost: u64,
    pub(crate) sign_ins: u64,
    /// Acknowledged ends of sessions: sign-outs and new passwords.
    pub(crate) sign_outs: u64,
    /// Requests with tokens of sessions that had ended.
    pub(crate) ghosts: u64,
    /// Clients that were refused after they had lost a response.
    pub(crate) locked_out: u64,
    /// Rotations and uses of which a node did not hear whether they were stored.
    pub(crate) doubts: u64,
    /// Generations that were delivered again: resends, and rotations that were made anew after the store had lost them.
    pub(crate) again: u64,
    /// Superseded tokens that were accepted after their window, because the store had lost the rotation.
    pub(crate) late: u64,
}

/// What the histories show.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) violations: Vec<Violation>,
    /// By phase.
    pub(crate) counts: Vec<(String, Counts)>,
    /// The longest time after which a superseded token was accepted while the store lost nothing. Bound: the buffer.
    pub(crate) longest_acceptance: Duration,
    /// The oldest rotation that a fault took back, counted back from the fault, by fault, with the bound.
    pub(crate) oldest_loss: HashMap<String, (Duration, Duration)>,
}

/// Checks a run.
pub(crate) fn check(history: &History) -> Findings {
    let doubts = history.doubts.iter().map(|doubt| (&*doubt.client, doubt.about, doubt.generation)).collect();
    let mut checker = Checker { history, doubts, findings: Findings::default() };
    checker.findings.counts = history.phases.iter().map(|phase| (phase.name.clone(), Counts::default())).collect();
    let mut by_session: Vec<Vec<&Exchange>> = vec![Vec::new(); history.sessions.len()];
    for exchange in &history.exchanges {
        by_session[exchange.session].push(exchange);
    }
    let mut heals: HashMap<&str, Vec<&Heal>> = HashMap::new();
    for heal in &history.heals {
        heals.entry(&heal.client).or_default().push(heal);
        checker.count(heal.at, |counts| counts.heals += 1);
    }
    for doubt in &history.doubts {
        checker.count(doubt.at, |counts| counts.doubts += 1);
    }
    for sign_in in &history.sign_ins {
        checker.sign_in(sign_in.sent, &sign_in.answer);
    }
    for (number, exchanges) in by_session.iter_mut().enumerate() {
        exchanges.sort_by_key(|exchange| exchange.sent);
        let heals = heals.get(&*history.sessions[number].client).map(Vec::as_slice).unwrap_or_default();
        let endings: Vec<&Ending> = history.endings.iter().filter(|ending| ending.session == number).collect();
        checker.session(exchanges, heals, &endings);
    }
    for session in &history.stuck {
        checker.complain(Rule::Stuck, format!("session {session}"));
    }
    checker.findings
}

/// What proves that a record had reached a generation.
#[derive(Debug, Clone, Copy)]
struct Proof<'a> {
    generation: u32,
    /// Presented and accepted; else delivered.
    presented: bool,
    exchange: &'a Exchange,
}

struct Checker<'a> {
    history: &'a History,
    /// What the nodes say themselves that they do not know.
    doubts: HashSet<(&'a str, About, u32)>,
    findings: Findings,
}

impl Checker<'_> {
    fn session(&mut self, exchanges: &[&Exchange], heals: &[&Heal], endings: &[&Ending]) {
        let proofs = proofs(exchanges);
        for exchange in exchanges {
            self.answer(exchange);
            self.resurrection(exchange, endings);
            if exchange.accepted() {
                self.acceptance(exchange, &proofs);
            }
            if exchange.actor == Actor::Owner && matches!(exchange.deed, Deed::Get(_)) {
                self.refusal(exchange, exchanges, endings);
            }
            if exchange.delivered().is_some() {
                self.delivery(exchange, exchanges);
            }
            if lost_swap(exchange, exchanges, self.history.buffer) {
                self.count(exchange.sent, |counts| counts.lost_swaps += 1);
            }
        }
        for heal in heals {
            self.heal(heal, exchanges);
        }
    }

    /// What is said of each answer by itself.
    fn answer(&mut self, exchange: &Exchange) {
        let superseded = exchange.code() == "token_superseded";
        let (status, delivered) = (exchange.status(), exchange.delivered().is_some());
        let blank = matches!(exchange.answer, Answer::Said { handed: Handed::Blank, status: 200, .. });
        self.count(exchange.sent, |counts| {
            counts.requests += 1;
            counts.rotations += u64::from(delivered);
            counts.batches += u64::from(blank);
            counts.unavailable += u64::from(status == Some(503));
            counts.superseded += u64::from(superseded);
            counts.lost += u64::from(exchange.answer == Answer::Lost);
            counts.sign_outs += u64::from(!matches!(exchange.deed, Deed::Get(_)) && status == Some(200));
        });
        self.status(exchange.status(), exchange.code(), || format!("{exchange:?}"));
        let away =
            |fault: &Fault| fault.away.is_some_and(|(from, until)| from <= exchange.sent && exchange.answered <= until);
        if status == Some(401) && self.history.faults.iter().any(away) {
            self.complain(Rule::RefusedWhileAway, format!("{exchange:?}"));
        }
    }

    fn sign_in(&mut self, sent: Duration, answer: &Answer) {
        let Answer::Said { status, code, .. } = answer else {
            return self.count(sent, |counts| counts.lost += u64::from(*answer == Answer::Lost));
        };
        self.count(sent, |counts| {
            counts.sign_ins += u64::from(*status == 200);
            counts.unavailable += u64::from(*status == 503);
        });
        let shown = || format!("a sign-in at {sent:?} was answered {status} {code}");
        if matches!(status, 200 | 500..) {
            self.status(Some(*status), code, shown);
        } else {
            self.complain(Rule::Status, shown());
        }
    }

    fn status(&mut self, status: Option<u16>, code: &str, shown: impl Fn() -> String) {
        let expected = match status {
            None | Some(200 | 401 | 404) => true,
            Some(503) => code == "unavailable",
            Some(_) => false,
        };
        if !expected {
            self.complain(Rule::Status, shown());
        }
    }

    /// S4.
    fn resurrection(&mut self, exchange: &Exchange, endings: &[&Ending]) {
        let over = |ending: &&Ending| ending.acknowledged.is_some_and(|at| at < exchange.sent);
        if !endings.iter().any(over) {
            return;
        }
        self.count(exchange.sent, |counts| counts.ghosts += 1);
        if exchange.accepted() {
            self.complain(Rule::Resurrected, format!("{exchange:?} after {endings:?}"));
        }
    }

    /// S1 and S2: a token that was accepted had not been superseded for too long.
    fn acceptance(&mut self, exchange: &Exchange, proofs: &[Proof<'_>]) {
        let (buffer, presented) = (self.history.buffer, exchange.presented);
        let mut excused = false;
        for proof in proofs.iter().filter(|proof| proof.generation > presented) {
            let since = exchange.sent.saturating_sub(proof.exchange.answered);
            if since.is_zero() {
                continue;
            }
            // A forgiven token stays good until its successor was seen, however often that was handed out.
            let next = proof.generation == presented + 1;
            if next && self.history.forgiving && !proof.presented {
                continue;
            }
            let broken = if next { since > buffer } else { true };
            if self.is_in_doubt(proof) || !self.stands(proof.exchange, exchange.answered) {
                excused |= broken;
                continue;
            }
            if broken {
                let rule = if next { Rule::Superseded } else { Rule::ThirdToken };
                let what = format!("{exchange:?}, {since:?} after {:?}", proof.exchange);
                return self.complain(rule, what);
            }
            self.findings.longest_acceptance = self.findings.longest_acceptance.max(since);
        }
        if excused {
            self.count(exchange.sent, |counts| counts.late += 1);
            // The rotation away from this token is the one that was lost.
            let lost = proofs.iter().find(|proof| !proof.presented && proof.generation == presented + 1);
            if let Some(lost) = lost {
                self.loss(lost.exchange, exchange.answered);
            }
        }
    }

    /// S3 and S5.
    fn delivery(&mut self, exchange: &Exchange, all: &[&Exchange]) {
        let Some(generation) = exchange.delivered() else { return };
        if generation <= exchange.presented {
            self.complain(Rule::Backwards, format!("older than what was presented: {exchange:?}"));
        }
        for earlier in all {
            let Some(before) = earlier.delivered() else { continue };
            let stands = !self.doubts(exchange, About::Rotation, before) && self.stands(earlier, exchange.answered);
            if before > generation && earlier.answered < exchange.sent && stands {
                self.complain(Rule::Backwards, format!("{exchange:?} after {earlier:?}"));
            }
            if before == generation && !std::ptr::eq(*earlier, exchange) && earlier.sent <= exchange.sent {
                // Who does not hear whether it won the race believes that it may have.
                let noticed = earlier.answered.max(exchange.answered);
                let excused = self.doubts(exchange, About::Rotation, generation) || !self.stands(earlier, noticed);
                self.count(exchange.sent, |counts| counts.again += 1);
                if !self.history.forgiving && !excused {
                    self.complain(Rule::Twice, format!("{exchange:?} and {earlier:?}"));
                }
            }
        }
    }

    /// L1 and L2: a client that was refused has lost a response, or its round trips took too long.
    fn refusal(&mut self, exchange: &Exchange, all: &[&Exchange], endings: &[&Ending]) {
        if endings.iter().any(|ending| ending.asked <= exchange.answered) {
            return;
        }
        if let Answer::Said { status: 200, handed: Handed::Nothing, .. } = exchange.answer {
            return self.complain(Rule::SessionLost, format!("no auth headers: {exchange:?}"));
        }
        if !matches!(exchange.status(), Some(401 | 404)) {
            return;
        }
        if exchange.code() != "token_superseded" {
            return self.complain(Rule::SessionLost, format!("{exchange:?}"));
        }
        let mut lost = false;
        let mut slow = false;
        for other in all.iter().filter(|other| {
            other.actor == Actor::Owner && other.presented == exchange.presented && other.sent <= exchange.answered
        }) {
            lost |= other.answer == Answer::Lost;
            // The way of this request and the way of that response, both at most a round trip.
            slow |= other.delivered().is_some() && other.on_the_way() + exchange.on_the_way() >= self.history.buffer;
        }
        if slow || lost && !self.history.forgiving {
            self.count(exchange.sent, |counts| counts.locked_out += 1);
        } else {
            self.complain(Rule::LockedOut, format!("{exchange:?}"));
        }
    }

    fn heal(&mut self, heal: &Heal, all: &[&Exchange]) {
        // The first of the rotations that were lost is the oldest.
        let delivery = all.iter().find(|exchange| exchange.delivered() == Some(heal.from + 1));
        let Some(delivery) = delivery else { return };
        if self.doubts.contains(&(&*heal.client, About::Rotation, heal.from + 1)) {
            return;
        }
        if self.stands(delivery, heal.at) {
            self.complain(Rule::LostTooMuch, format!("{heal:?} of {delivery:?}"));
        } else {
            self.loss(delivery, heal.at);
        }
        debug_assert!(heal.from < heal.to, "a record is moved up");
    }

    /// Notes how old a rotation was that a fault took back, which was noticed at `at`.
    fn loss(&mut self, delivery: &Exchange, at: Duration) {
        let Some((fault, bound)) = self.culprit(delivery, at) else { return };
        let age = fault.from.saturating_sub(delivery.answered);
        let name = fault.name.clone();
        let entry = self.findings.oldest_loss.entry(name).or_insert((Duration::ZERO, bound));
        *entry = (entry.0.max(age), entry.1.max(bound));
    }

    /// Whether the node that gave the proof does not know itself whether it was stored.
    fn is_in_doubt(&self, proof: &Proof<'_>) -> bool {
        let about = if proof.presented { About::Use } else { About::Rotation };
        self.doubts(proof.exchange, about, proof.generation)
    }

    /// Whether a node doubts this about the session of the exchange.
    fn doubts(&self, exchange: &Exchange, about: About, generation: u32) -> bool {
        self.doubts.contains(&(&*self.history.sessions[exchange.session].client, about, generation))
    }

    /// Whether the rotation that this exchange shows was still on record at `at`: no fault until then can have undone it.
    fn stands(&self, exchange: &Exchange, at: Duration) -> bool {
        self.culprit(exchange, at).is_none()
    }

    /// The last fault until `at` that can have undone it.
    fn culprit(&self, exchange: &Exchange, at: Duration) -> Option<(&Fault, Duration)> {
        let faults = self.history.faults.iter().rev();
        faults.filter(|fault| fault.from <= at).find_map(|fault| {
            let bound = fault.loses?;
            let before = exchange.answered < fault.from.saturating_sub(bound);
            let after = exchange.sent > fault.until;
            (!before && !after).then_some((fault, bound))
        })
    }

    fn count(&mut self, at: Duration, add: impl FnOnce(&mut Counts)) {
        let phase = self.history.phases.iter().position(|phase| phase.from <= at && at < phase.until);
        if let Some(phase) = phase {
            add(&mut self.findings.counts[phase].1);
        }
    }

    fn complain(&mut self, rule: Rule, what: String) {
        self.findings.violations.push(Violation { rule, what });
    }
}

fn proofs<'a>(exchanges: &[&'a Exchange]) -> Vec<Proof<'a>> {
    let mut proofs = Vec::new();
    for &exchange in exchanges {
        if let Some(generation) = exchange.delivered() {
            proofs.push(Proof { generation, presented: false, exchange });
        }
        if exchange.accepted() {
            proofs.push(Proof { generation: exchange.presented, presented: true, exchange });
        }
    }
    proofs
}

/// Whether a blank answer can only be that of a lost compare-and-set: the request was looked at after the window that its token
/// had opened and before somebody else's rotation, and was ready to rotate after that.
fn lost_swap(exchange: &Exchange, all: &[&Exchange], buffer: Duration) -> bool {
    let (Answer::Said { status: 200, handed: Handed::Blank, .. }, Deed::Get(sleep)) = (&exchange.answer, exchange.deed)
    else {
        return false;
    };
    // Its handler ran in between, for that long at least.
    let (looked_at, ready) = (exchange.answered.saturating_sub(sleep), exchange.sent + sleep);
    let overtaken = all.iter().any(|other| {
        let Deed::Get(sleep) = other.deed else { return false };
        let rotated = other.presented == exchange.presented && other.delivered().is_some();
        rotated && looked_at < other.sent + sleep && other.answered <= ready
    });
    let mut opened = all.iter().filter(|other| other.delivered() == Some(exchange.presented));
    overtaken && opened.all(|other| exchange.sent > other.answered + buffer)
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Superseded => "S1: a superseded token was accepted beyond its bound",
            Self::ThirdToken => "S2: a token was accepted although two newer ones were out",
            Self::Twice => "S3: a generation was delivered twice",
            Self::Resurrected => "S4: a session came back after it had ended",
            Self::Backwards => "S5: generations went backwards",
            Self::LockedOut => "L1/L2: a client that followed the protocol was refused",
            Self::Stuck => "L1/L2: a client did not get through although all was well again",
            Self::SessionLost => "a session is gone that nobody ended",
            Self::LostTooMuch => "the store lost a rotation that was older than the bound",
            Self::RefusedWhileAway => "401 while the store was away",
            Self::Status => "an answer that no client expects",
        })
    }
}

#[cfg(test)]
mod tests;
