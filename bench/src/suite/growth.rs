//! What a request costs with a thousand sessions, and with ten million.

use std::path::Path;

use serde::Serialize;

use super::Extent;
use super::rounds::{NO_ACCESS_LOG, NO_BUFFER, Side, all_settings, plan};
use crate::fill::Filled;
use crate::load::{Plan, Report};
use crate::report::Spread;
use crate::server::{Server, Store};
use crate::{Failure, note};

/// Users that take part, drawn out of all; so many that what they need does not stay in the caches of the processor, nor all of it
/// in those of the store.
const USERS: usize = 100_000;
/// A session of Redis takes about a kilobyte of memory.
const MOST_IN_MEMORY: u64 = 1_000_000;

/// A store, with more and more sessions.
#[derive(Debug, Serialize)]
pub(crate) struct Growth {
    pub(crate) store: &'static str,
    pub(crate) sizes: Vec<Size>,
}

/// With so many sessions.
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

/// Every request rotates, so each is a read and a write. The sizes take turns; each has a store of its own.
pub(super) fn measure(kind: Store, extent: Extent, program: Option<&Path>) -> Result<Growth, Failure> {
    let mut sides = Vec::new();
    let store = kind.name();
    for sessions in sizes(extent, kind) {
        let engine = kind.start();
        note(&format!("{store}: putting {sessions} sessions there"));
        let filled = Filled::new(&engine, sessions)?;
        let users = filled.users(USERS.min(usize::try_from(sessions).unwrap_or(USERS)), sessions);
        let settings = all_settings(&engine, "baton", &[NO_ACCESS_LOG, NO_BUFFER]);
        let server = Server::baton(program, filled.folder.path(), &settings)?;
        let plan = Plan { users: users.len(), made_up: false, ..plan(extent, 1) };
        sides.push((Side::with_users(server, plan, users), filled, engine));
    }
    let mut sizes: Vec<Size> = sides
        .iter()
        .map(|(side, filled, _)| Size { sessions: filled.sessions.count, users: side.users.len(), rounds: Vec::new() })
        .collect();
    for number in 1..=extent.rounds() {
        for ((side, ..), size) in sides.iter_mut().zip(&mut sizes) {
            note(&format!("{store}, {} sessions, round {number} of {}", size.sessions, extent.rounds()));
            size.rounds.push(side.measure()?);
        }
    }
    Ok(Growth { store, sizes })
}

fn sizes(extent: Extent, kind: Store) -> Vec<u64> {
    let most = match (extent, kind) {
        (Extent::Quick, _) => 10_000,
        (Extent::Long, Store::Sqlite | Store::Postgres) => 10_000_000,
        (Extent::Usual | Extent::Long, _) => MOST_IN_MEMORY,
    };
    (3..).map(|digits| 10_u64.pow(digits)).take_while(|size| *size <= most).collect()
}
