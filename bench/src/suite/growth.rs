//! What a request costs with a thousand sessions, and with ten million.

use std::path::Path;

use serde::Serialize;

use super::Extent;
use super::rounds::{NO_ACCESS_LOG, NO_BUFFER, all_settings, plan};
use crate::fill::Filled;
use crate::load::{self, Plan, Report, User};
use crate::report::Spread;
use crate::server::{Engine, Server, Store};
use crate::{Failure, note};

/// Users that take turns, drawn out of all: the same number with every number of sessions, or it would be their growth that is
/// measured. Where there are the most sessions, more and more of them besides, up to so many that what is kept of them fits
/// neither into the processor's caches nor into the store's.
const USERS: [usize; 3] = [1_000, 10_000, 100_000];
/// A session of Redis takes about a kilobyte of memory.
const MOST_IN_MEMORY: u64 = 1_000_000;

/// A store, with more and more sessions.
#[derive(Debug, Serialize)]
pub(crate) struct Growth {
    pub(crate) store: &'static str,
    pub(crate) sizes: Vec<Size>,
}

impl Growth {
    /// The one that the others are compared with, and that with the most sessions and as many users.
    pub(crate) fn ends(&self) -> Option<(&Size, &Size)> {
        let smallest = self.sizes.first()?;
        Some((smallest, self.sizes.iter().rfind(|size| size.users == smallest.users)?))
    }
}

/// With so many sessions, and users that take turns.
#[derive(Debug, Serialize)]
pub(crate) struct Size {
    pub(crate) sessions: u64,
    pub(crate) users: usize,
    pub(crate) rounds: Vec<Report>,
}

impl Size {
    pub(crate) fn figure(&self, figure: impl Fn(&Report) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(figure))
    }

    /// Time a request takes, by that of a request with the smaller number of sessions, in rounds that were neighbours.
    pub(crate) fn cost(&self, of: &Self) -> Spread {
        Spread::of(self.rounds.iter().zip(&of.rounds).map(|(larger, smaller)| smaller.per_second / larger.per_second))
    }
}

/// A store with so many sessions, and who serves it.
struct Grown {
    server: Server,
    /// Users, and what was measured with them.
    parts: Vec<(Vec<User>, Size)>,
    /// Removed, or ended, after the server.
    _store: (Filled, Engine),
}

/// Every request rotates, so each is a read and a write. Sizes and numbers of users take turns; each size has a store of its own.
pub(super) fn measure(kind: Store, extent: Extent, program: Option<&Path>) -> Result<Growth, Failure> {
    let store = kind.name();
    let counts = sizes(extent, kind);
    let mut stores = Vec::new();
    for sessions in &counts {
        note(&format!("{store}: putting {sessions} sessions there"));
        stores.push(Grown::new(kind, *sessions, Some(sessions) == counts.last(), program)?);
    }
    for number in 1..=extent.rounds() {
        for Grown { server, parts, .. } in &mut stores {
            for (users, size) in parts {
                let Size { sessions, users: count, .. } = *size;
                note(&format!("{store}, {sessions} sessions, {count} users, round {number} of {}", extent.rounds()));
                let plan = Plan { users: count, made_up: false, ..plan(extent, 1) };
                size.rounds.push(load::run(&server.target, &plan, users, Some(server.pid()))?);
            }
        }
    }
    let sizes = stores.into_iter().flat_map(|grown| grown.parts).map(|(_, size)| size).collect();
    Ok(Growth { store, sizes })
}

impl Grown {
    /// `most`: for more and more users.
    fn new(kind: Store, sessions: u64, most: bool, program: Option<&Path>) -> Result<Self, Failure> {
        let engine = kind.start();
        let filled = Filled::new(&engine, sessions)?;
        let room = usize::try_from(sessions).unwrap_or(usize::MAX);
        let mut counts = vec![USERS[0]];
        for more in USERS.into_iter().skip(1).filter(|_| most) {
            // Each takes part once: two who hold the same token would have it rotate away from each other.
            if counts.iter().sum::<usize>() + more <= room {
                counts.push(more);
            }
        }
        let mut drawn = filled.users(counts.iter().sum(), sessions).into_iter();
        let part = |users| (drawn.by_ref().take(users).collect(), Size { sessions, users, rounds: Vec::new() });
        let parts = counts.into_iter().map(part).collect();
        let settings = all_settings(&engine, "baton", &[NO_ACCESS_LOG, NO_BUFFER]);
        let server = Server::baton(program, filled.folder.path(), &settings)?;
        Ok(Self { server, parts, _store: (filled, engine) })
    }
}

fn sizes(extent: Extent, kind: Store) -> Vec<u64> {
    let most = match (extent, kind) {
        (Extent::Quick, _) => 10_000,
        (Extent::Long, Store::Sqlite | Store::Postgres) => 10_000_000,
        (Extent::Usual | Extent::Long, _) => MOST_IN_MEMORY,
    };
    (3..).map(|digits| 10_u64.pow(digits)).take_while(|size| *size <= most).collect()
}
