//! What is seen of a run: by the store, by the nodes, and by the clients.

use std::collections::BTreeMap;

use baton_store::faulty::Operation;

/// Everything that was seen, in order, with its time in milliseconds since the start.
pub(crate) type History = Vec<(i64, Event)>;

/// Sessions go by their place in [`crate::world::World::sessions`], requests by their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    // --- clients ---
    /// A client took the token that it holds and sent it.
    Sent {
        request: usize,
        session: usize,
        node: usize,
        presented: u32,
        sender: Sender,
        act: Act,
        unbatch: bool,
    },
    /// The response came.
    Arrived {
        request: usize,
        status: u16,
        carries: Carries,
    },
    /// None came, or no connection.
    Lost {
        request: usize,
    },

    // --- nodes ---
    /// The handler runs.
    Admitted {
        request: usize,
    },
    /// A response is ready to be sent.
    Replied {
        request: usize,
        status: u16,
        code: String,
        carries: Carries,
        retry_after: bool,
    },
    /// The request ended without one: the node died, or the client had hung up.
    Dropped {
        request: usize,
    },
    Started {
        node: usize,
    },
    Crashed {
        node: usize,
    },

    // --- the store ---
    /// It did what a node asked.
    Did {
        request: Option<usize>,
        operation: Operation,
        finds: Finds,
    },
    /// A node was told an error. `done`: it was done all the same.
    Failed {
        request: Option<usize>,
        operation: Operation,
        done: bool,
        told: Told,
    },
    Opened {
        session: usize,
    },
    /// The record's generation changed.
    Moved {
        session: usize,
        from: u32,
        to: u32,
        request: Option<usize>,
    },
    /// Something else in the record did; `resent`: its window opened again.
    Noted {
        session: usize,
        resent: bool,
    },
    Ended {
        session: usize,
        request: Option<usize>,
    },
    /// A session that had ended is there again.
    Revived {
        session: usize,
    },
    /// Which generations would be accepted now.
    Probed {
        session: usize,
        current: u32,
        acceptable: Vec<u32>,
    },
    Lose {
        writes: usize,
    },

    // --- the rest of the world ---
    Fault(crate::setting::Fault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The session's own client.
    Owner,
    /// The same, when all is well again.
    OwnerAtTheEnd,
    /// Somebody with a token that was issued at some time.
    Thief,
    /// Somebody with a token that nobody issued.
    Forger,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// A handler that takes this many milliseconds.
    Work(u64),
    Validate,
    ListSessions,
    SignOut,
    EndSession(usize),
}

/// The auth headers of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carries {
    Token(u32),
    Blank,
    Nothing,
    /// A token that is not one of the session's.
    Garbage,
}

/// What the rule has to say about a request, by the record that the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finds {
    /// Not about a session, or not asked by a request.
    Other,
    Good,
    Superseded,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Unavailable,
    Uncertain,
}

/// How often the interesting things happened, by name: runs in which they did not prove nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(BTreeMap<&'static str, usize>);

impl Counts {
    /// Those of one more run.
    pub(crate) fn add(&mut self, history: &History, requests: &[Request]) {
        for (index, (_, event)) in history.iter().enumerate() {
            match event {
                Event::Lost { .. } => self.one("lost responses"),
                Event::Crashed { .. } => self.one("crashes"),
                Event::Lose { .. } => self.one("lost writes"),
                Event::Noted { resent: true, .. } => self.one("resends"),
                Event::Ended { request: None, .. } => self.one("ended from elsewhere"),
                Event::Did { operation: Operation::Swap, .. } if !changes(history.get(index + 1)) => {
                    self.one("lost compare-and-sets");
                }
                Event::Failed { told: Told::Uncertain, done: true, .. } => self.one("uncertain and done"),
                Event::Failed { told: Told::Uncertain, done: false, .. } => self.one("uncertain and not done"),
                _ => {}
            }
        }
        requests.iter().for_each(|request| self.count(request));
    }

    /// How often this happened.
    pub(crate) fn get(&self, what: &str) -> usize {
        self.0.get(what).copied().unwrap_or(0)
    }

    fn one(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    fn count(&mut self, request: &Request) {
        self.one("requests");
        for (_, _, to) in &request.moved {
            if *to == request.presented {
                self.one("heals");
            } else {
                self.one("rotations");
                if request.dropped {
                    self.one("died between swap and response");
                }
            }
        }
        let Some(reply) = &request.reply else { return };
        match (reply.status, reply.code.as_str(), reply.carries) {
            (200, _, Carries::Blank) => self.one("batches"),
            (200, _, Carries::Token(_)) if request.moved.is_empty() => self.one("repetitions"),
            (200, _, Carries::Nothing) if request.act == Act::SignOut => self.one("sign-outs"),
            (200, _, Carries::Nothing) => self.one("without auth headers"),
            (503, ..) => self.one("503"),
            (_, "token_superseded", _) => self.one("superseded"),
            (_, "session_revoked", _) => self.one("revoked"),
            (_, "token_invalid", _) => self.one("forged"),
            _ => {}
        }
    }
}

/// Whether a swap that was made is followed by this.
fn changes(next: Option<&(i64, Event)>) -> bool {
    matches!(next, Some((_, Event::Moved { .. } | Event::Noted { .. })))
}

/// All that was seen of one request. Places are those in the history.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) number: usize,
    pub(crate) session: usize,
    pub(crate) presented: u32,
    pub(crate) sender: Sender,
    pub(crate) act: Act,
    pub(crate) sent_at: i64,
    /// What the store did for it: place, time, and what the rule said.
    pub(crate) looks: Vec<(usize, i64, Finds)>,
    /// How many of the looks came before its handler.
    pub(crate) looks_before: usize,
    /// When it last heard from the store, be it an error.
    pub(crate) heard_at: i64,
    /// Whether the store failed it once it was let in.
    pub(crate) in_doubt: bool,
    /// The changes of the generation that it made: place, from, to.
    pub(crate) moved: Vec<(usize, u32, u32)>,
    pub(crate) admitted: bool,
    pub(crate) reply: Option<Reply>,
    pub(crate) dropped: bool,
    /// Place and time of the response's arrival.
    pub(crate) arrived: Option<(usize, i64)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) place: usize,
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) carries: Carries,
    pub(crate) retry_after: bool,
}

impl Request {
    /// Whether its token was let in.
    pub(crate) fn accepted(&self) -> bool {
        self.admitted || self.reply.as_ref().is_some_and(|reply| reply.status == 200)
    }

    /// Place of the store's last answer to it.
    pub(crate) fn last_look(&self) -> Option<usize> {
        self.looks.last().map(|(place, ..)| *place)
    }
}

/// The requests of a history, by number. Those that were never sent are not among them.
pub(crate) fn requests(history: &History) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    for (place, (now, event)) in history.iter().enumerate() {
        if let Event::Sent { request, session, presented, sender, act, .. } = event {
            requests.push(Request {
                number: *request,
                session: *session,
                presented: *presented,
                sender: *sender,
                act: *act,
                sent_at: *now,
                looks: Vec::new(),
                looks_before: 0,
                heard_at: *now,
                in_doubt: false,
                moved: Vec::new(),
                admitted: false,
                reply: None,
                dropped: false,
                arrived: None,
            });
            continue;
        }
        let Some(number) = event.request() else { continue };
        let Some(request) = requests.iter_mut().rev().find(|request| request.number == number) else { continue };
        match event {
            Event::Did { finds, .. } => {
                request.heard_at = *now;
                request.looks.push((place, *now, *finds));
                request.looks_before += usize::from(!request.admitted);
            }
            Event::Failed { operation, done, .. } => {
                // What was done was done then.
                if !done {
                    request.heard_at = *now;
                }
                request.in_doubt |= matches!(operation, Operation::Find | Operation::Swap);
            }
            Event::Moved { from, to, .. } => request.moved.push((place, *from, *to)),
            Event::Admitted { .. } => request.admitted = true,
            Event::Dropped { .. } => request.dropped = true,
            Event::Arrived { .. } => request.arrived = Some((place, *now)),
            Event::Replied { status, code, carries, retry_after, .. } => {
                let (status, code, carries, retry_after) = (*status, code.clone(), *carries, *retry_after);
                request.reply = Some(Reply { place, status, code, carries, retry_after });
            }
            _ => {}
        }
    }
    requests
}

impl Event {
    fn request(&self) -> Option<usize> {
        match self {
            Self::Sent { request, .. }
            | Self::Arrived { request, .. }
            | Self::Lost { request }
            | Self::Admitted { request }
            | Self::Replied { request, .. }
            | Self::Dropped { request } => Some(*request),
            Self::Did { request, .. }
            | Self::Failed { request, .. }
            | Self::Moved { request, .. }
            | Self::Ended { request, .. } => *request,
            _ => None,
        }
    }
}
