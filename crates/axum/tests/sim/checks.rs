//! The promises of DESIGN §2.5 on what was seen of a run, each with exactly the conditions under which it is made.

use std::collections::BTreeMap;

use baton_core::{BatchResponse, OnReuse};
use baton_store::faulty::Operation;

use crate::history::{Act, Carries, Event, Finds, History, Reply, Request, Sender, Told};
use crate::setting::{CLIENTS, Family, Setting};

type Checked = Result<(), String>;

/// Everything that holds in runs of this kind.
pub(crate) fn check(setting: &Setting, history: &History, requests: &[Request]) -> Checked {
    let run = Run { setting, history, requests };
    let Family { forgiving, loses_writes, unbatch, batch_response, prompt, .. } = setting.family;
    run.answers_are_those_of_the_rule()?;
    run.an_absent_store_is_503()?;
    run.what_was_acknowledged_was_done()?;
    run.an_ended_session_stays_ended()?;
    run.at_most_two_are_acceptable()?;
    run.nobody_is_set_back()?;
    if run.store_is_sure() {
        run.generations_never_decrease()?;
    }
    if !loses_writes && !forgiving {
        run.superseded_tokens_are_dead()?;
        if !unbatch && batch_response != BatchResponse::Repeat {
            run.each_generation_is_delivered_once()?;
        }
    }
    if prompt {
        run.round_trips_are_shorter_than_the_buffer()?;
        run.nobody_is_refused()?;
    }
    run.everybody_is_answered_at_the_end()
}

struct Run<'a> {
    setting: &'a Setting,
    history: &'a History,
    requests: &'a [Request],
}

impl Run<'_> {
    /// A request is let in or refused as the rule says about a record that the store showed it; a forged token never gets as
    /// far as the store.
    fn answers_are_those_of_the_rule(&self) -> Checked {
        for (request, reply) in self.replies() {
            let found = |what| request.looks.iter().any(|(_, _, finds)| *finds == what);
            let right = match (request.sender, reply.status, reply.code.as_str()) {
                (Sender::Forger, 401, "token_invalid") => request.looks.is_empty(),
                (Sender::Forger, 404, "not_found") => request.act == Act::SignOut && request.looks.is_empty(),
                (Sender::Forger, ..) => false,
                (_, 200, _) => found(Finds::Good),
                (_, 401, "token_superseded") => found(Finds::Superseded),
                (_, 401, "session_revoked") => found(Finds::Gone),
                (_, 404, "not_found") => match request.act {
                    Act::SignOut => found(Finds::Superseded) || found(Finds::Gone),
                    Act::EndSession(_) => found(Finds::Good),
                    _ => false,
                },
                (_, 503, "unavailable") => reply.retry_after,
                _ => false,
            };
            if !right || reply.carries == Carries::Garbage {
                return Err(format!("not what the rule says: {request:?}"));
            }
        }
        Ok(())
    }

    /// While the store does not answer, neither is a token refused nor let in.
    fn an_absent_store_is_503(&self) -> Checked {
        for (request, reply) in self.replies() {
            let by_it = |event: &Event| matches!(event, Event::Did { request: r, .. } | Event::Failed { request: r, .. } if *r == Some(request.number));
            let mut looks = self.history.iter().map(|(_, event)| event).filter(|event| by_it(event));
            let first_fails = match looks.next() {
                Some(Event::Failed { operation: Operation::Find, done: false, .. }) => true,
                Some(Event::Did { operation: Operation::Find, .. }) => {
                    matches!(looks.next(), Some(Event::Failed { operation: Operation::Find, done: true, .. }))
                }
                _ => false,
            };
            if first_fails && (reply.status, reply.retry_after) != (503, true) {
                return Err(format!("the store was away, and yet: {request:?}"));
            }
        }
        Ok(())
    }

    /// A sign-out that was acknowledged has ended the session, and so has the refusal of a token that was used again where
    /// that ends the session.
    fn what_was_acknowledged_was_done(&self) -> Checked {
        for (request, reply) in self.replies() {
            let ends = match (request.act, reply.status) {
                (Act::SignOut, 200) => Some(request.session),
                (Act::EndSession(other), 200) => Some(other),
                (_, 401) if reply.code == "token_superseded" && self.setting.family.on_reuse == OnReuse::Revoke => {
                    Some(request.session)
                }
                _ => None,
            };
            if ends.is_some_and(|session| self.ended(session).is_none_or(|place| place > reply.place)) {
                return Err(format!("S4: acknowledged, and the session lives: {request:?}"));
            }
        }
        Ok(())
    }

    /// S4.
    fn an_ended_session_stays_ended(&self) -> Checked {
        if let Some(event) = self.history.iter().find(|(_, event)| matches!(event, Event::Revived { .. })) {
            return Err(format!("S4: {event:?}"));
        }
        for request in self.requests {
            let Some(ended) = self.ended(request.session) else { continue };
            let looked_after = request.looks.first().is_some_and(|(place, ..)| *place > ended);
            let token = request.reply.as_ref().is_some_and(|reply| matches!(reply.carries, Carries::Token(_)));
            if looked_after && (request.accepted() || token) {
                return Err(format!("S4: let in after the end: {request:?}"));
            }
        }
        Ok(())
    }

    /// S1.
    fn superseded_tokens_are_dead(&self) -> Checked {
        let mut superseded_at = BTreeMap::new();
        let dead =
            |superseded_at: &BTreeMap<_, (usize, i64)>, session: usize, presented: u32, place: usize, now: i64| {
                let then = superseded_at.get(&(session, presented));
                // With a buffer of zero, the order counts of what happens in the same millisecond.
                then.filter(|(then_place, then)| place > *then_place && now - then >= self.setting.buffer).map_or(
                    Ok(()),
                    |(_, then)| {
                        Err(format!(
                            "S1: generation {presented} of {session}, superseded at {then}, is accepted at {now}"
                        ))
                    },
                )
            };
        for (place, (now, event)) in self.history.iter().enumerate() {
            match event {
                Event::Moved { session, from, to, .. } => {
                    for generation in *from..*to {
                        superseded_at.entry((*session, generation)).or_insert((place, *now));
                    }
                }
                Event::Probed { session, acceptable, .. } => {
                    acceptable.iter().try_for_each(|p| dead(&superseded_at, *session, *p, place, *now))?;
                }
                _ => {}
            }
        }
        for request in self.requests.iter().filter(|request| request.accepted()) {
            let Some((place, decided_at, _)) = request.looks.first() else { continue };
            dead(&superseded_at, request.session, request.presented, *place, *decided_at)?;
        }
        Ok(())
    }

    /// S2. What a store that loses rotations has yet to hear of again comes on top.
    fn at_most_two_are_acceptable(&self) -> Checked {
        for (now, event) in self.history {
            let Event::Probed { session, current, acceptable } = event else { continue };
            let known = acceptable.iter().filter(|p| *p <= current).count();
            let ahead = acceptable.len() - known;
            if known > 2 || !acceptable.contains(current) || ahead > 0 && self.store_is_sure() {
                return Err(format!("S2: {acceptable:?} of {session} at {now}, the record being at {current}"));
            }
        }
        Ok(())
    }

    /// S3.
    fn each_generation_is_delivered_once(&self) -> Checked {
        let mut delivered = BTreeMap::new();
        // A node that the store fails at the end hands out what it would have made: better twice than never.
        for (request, reply) in self.replies().filter(|(request, _)| !request.in_doubt) {
            if let Carries::Token(generation) = reply.carries
                && let Some(other) = delivered.insert((request.session, generation), request.number)
            {
                return Err(format!("S3: request {other} delivers generation {generation}, and so does {request:?}"));
            }
        }
        for request in self.requests {
            for (_, _, to) in &request.moved {
                let delivers = request.reply.as_ref().is_some_and(|reply| reply.carries == Carries::Token(*to));
                if !delivers && !request.dropped {
                    return Err(format!("S3: nobody delivers generation {to}: {request:?}"));
                }
            }
        }
        Ok(())
    }

    /// S5, whatever the store loses.
    fn nobody_is_set_back(&self) -> Checked {
        let mut issued = [1; CLIENTS];
        for (_, event) in self.history {
            match event {
                Event::Replied { request, carries: Carries::Token(generation), .. } => {
                    let Some(request) = self.requests.iter().find(|r| r.number == *request) else { continue };
                    if *generation < request.presented {
                        return Err(format!("S5: sets the client back: {request:?}"));
                    }
                    issued[request.session] = issued[request.session].max(*generation);
                }
                Event::Moved { session, from, to, request: Some(_) } if *to > (*from + 1).max(issued[*session]) => {
                    return Err(format!("S5: generation {to} was never issued: {event:?}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// S5 without lost writes: the record moves by one, and in the order in which the store has made them so do the tokens.
    fn generations_never_decrease(&self) -> Checked {
        for (_, event) in self.history {
            if matches!(event, Event::Moved { from, to, .. } if *to != from + 1) {
                return Err(format!("S5: {event:?}"));
            }
        }
        let mut tokens: Vec<(usize, usize, u32)> = Vec::new();
        for (request, reply) in self.replies().filter(|(request, _)| !request.in_doubt) {
            if let (Carries::Token(generation), Some(place)) = (reply.carries, request.last_look()) {
                tokens.push((request.session, place, generation));
            }
        }
        tokens.sort_unstable();
        for pair in tokens.windows(2) {
            if pair[0].0 == pair[1].0 && pair[1].2 < pair[0].2 {
                return Err(format!("S5: generation {} is handed out after {}", pair[1].2, pair[0].2));
            }
        }
        Ok(())
    }

    /// Not a promise but the condition of the next ones, and this simulation's to keep.
    fn round_trips_are_shorter_than_the_buffer(&self) -> Checked {
        let (mut longest_way, mut longest_back) = (0, 0);
        for request in self.requests {
            let Some((_, arrived_at)) = request.arrived else { continue };
            let decision = if request.admitted { request.looks_before } else { 1 };
            let decided = decision.checked_sub(1).and_then(|nth| request.looks.get(nth));
            longest_way = longest_way.max(decided.map_or(0, |(_, at, _)| at - request.sent_at));
            let token = request.reply.as_ref().is_some_and(|reply| matches!(reply.carries, Carries::Token(_)));
            if token {
                longest_back = longest_back.max(arrived_at - request.heard_at);
            }
        }
        if longest_way + longest_back >= self.setting.buffer {
            return Err(format!("the simulation is too slow: {longest_way} there and {longest_back} back"));
        }
        Ok(())
    }

    /// L1 and L2.
    fn nobody_is_refused(&self) -> Checked {
        for (request, reply) in self.replies() {
            if request.arrived.is_some() && !matches!(reply.status, 200 | 503) {
                return Err(format!("L: {request:?}"));
            }
        }
        Ok(())
    }

    /// When all is well, every client that still believes to be signed in hears whether it is.
    fn everybody_is_answered_at_the_end(&self) -> Checked {
        for request in self.requests.iter().filter(|request| request.sender == Sender::OwnerAtTheEnd) {
            let status = request.reply.as_ref().filter(|_| request.arrived.is_some()).map(|reply| reply.status);
            if !matches!(status, Some(200 | 401)) {
                return Err(format!("not answered at the end: {request:?}"));
            }
        }
        if self.setting.family.prompt {
            let came_back = self.requests.iter().filter(|request| request.sender == Sender::OwnerAtTheEnd).count();
            if came_back != 2 * CLIENTS {
                return Err(format!("only {came_back} requests at the end"));
            }
        }
        Ok(())
    }

    /// Whether the store loses nothing, and whoever asked it for a swap was told whether it was made.
    fn store_is_sure(&self) -> bool {
        let doubt =
            |event: &Event| matches!(event, Event::Failed { operation: Operation::Swap, told: Told::Uncertain, .. });
        !self.setting.family.loses_writes && !self.history.iter().any(|(_, event)| doubt(event))
    }

    fn replies(&self) -> impl Iterator<Item = (&Request, &Reply)> {
        self.requests.iter().filter_map(|request| request.reply.as_ref().map(|reply| (request, reply)))
    }

    /// The place where a session ended.
    fn ended(&self, session: usize) -> Option<usize> {
        self.history.iter().position(|(_, event)| matches!(event, Event::Ended { session: s, .. } if *s == session))
    }
}
