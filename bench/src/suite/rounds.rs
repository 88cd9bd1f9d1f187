//! Rounds that take turns, so that whatever else the machine does happens to both sides.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tempfile::TempDir;

use super::Extent;
use crate::load::{self, Plan, Report, User};
use crate::report::Spread;
use crate::server::{Engine, Server};
use crate::{Failure, note};

/// The floor logs nothing, so baton's line a request is measured in a case of its own.
pub(super) const NO_ACCESS_LOG: &str = "log.level=warn";
/// With it, every request rotates.
pub(super) const NO_BUFFER: &str = "batch_request_buffer_throttle=0";
pub(super) const PAGE: usize = 8;

/// A case of the suite.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) name: &'static str,
    /// What differs from `baton dev`, but for the store.
    pub(super) settings: &'static [&'static str],
    pub(super) batch: usize,
    pub(super) forged: bool,
    /// The least share of the floor's throughput.
    pub(super) target: Option<f64>,
}

impl Case {
    /// Whether the floor has to write for each request, if it has something to write to.
    fn rotates(&self) -> bool {
        self.settings.contains(&NO_BUFFER)
    }
}

/// A round of the floor and one of baton.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) floor: Report,
    pub(crate) baton: Report,
}

/// The rounds of a case.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) settings: Vec<&'static str>,
    pub(crate) target: Option<f64>,
    pub(crate) rounds: Vec<Round>,
}

impl Measured {
    /// A figure of baton's in every round.
    pub(crate) fn baton(&self, figure: impl Fn(&Report) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(|round| figure(&round.baton)))
    }

    pub(crate) fn floor(&self, figure: impl Fn(&Report) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(|round| figure(&round.floor)))
    }

    /// Baton's figure by the floor's of the same round.
    pub(crate) fn ratio(&self, figure: impl Fn(&Report) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(|round| figure(&round.baton) / figure(&round.floor)))
    }
}

/// Both sides of a case in turn. `rate`: in an open loop.
pub(super) fn take_turns(
    case: &Case,
    engine: &Engine,
    extent: Extent,
    program: Option<&Path>,
    rate: Option<f64>,
) -> Result<Measured, Failure> {
    let name = format!("{}, {}", engine.name(), case.name);
    let plan = Plan { rate, ..plan(extent, case.batch) };
    let of_baton = Plan { made_up: case.forged, expect_status: if case.forged { 401 } else { 200 }, ..plan.clone() };
    let floor = Side::new(Server::floor(engine, case.rotates())?, plan, None)?;
    let baton = Side::baton(engine, case.settings, program, of_baton)?;
    alternate(name, case, floor, baton, extent)
}

/// Rounds of both sides, of which now the one and now the other comes first.
pub(super) fn alternate(
    name: String,
    case: &Case,
    mut floor: Side,
    mut baton: Side,
    extent: Extent,
) -> Result<Measured, Failure> {
    let count = extent.rounds();
    let mut rounds = Vec::new();
    for number in 1..=count {
        note(&format!("{name}, round {number} of {count}"));
        rounds.push(if number % 2 == 1 {
            let floor = floor.measure()?;
            Round { floor, baton: baton.measure()? }
        } else {
            let baton = baton.measure()?;
            Round { floor: floor.measure()?, baton }
        });
    }
    Ok(Measured { name, settings: case.settings.to_vec(), target: case.target, rounds })
}

pub(super) fn plan(extent: Extent, batch: usize) -> Plan {
    let (users, warm_up, duration) = match extent {
        Extent::Quick => (64, 1, 2),
        Extent::Usual | Extent::Long => (256, 2, 10),
    };
    Plan {
        users,
        connections: 4 * PAGE,
        batch,
        path: "/demo/members_only".to_owned(),
        rate: None,
        spacing: Duration::ZERO,
        duration: Duration::from_secs(duration),
        warm_up: Duration::from_secs(warm_up),
        threads: None,
        made_up: true,
        expect_status: 200,
        seed: 1,
    }
}

/// A server that idles while it is not its turn.
pub(super) struct Side {
    pub(super) server: Server,
    pub(super) plan: Plan,
    pub(super) users: Vec<User>,
    /// Removed after the server has ended.
    _folder: Option<TempDir>,
}

impl Side {
    /// With users that are made up or sign in, as the plan says.
    pub(super) fn new(server: Server, plan: Plan, folder: Option<TempDir>) -> Result<Self, Failure> {
        let users = load::prepare(&server.target, &plan, Vec::new())?;
        Ok(Self { server, plan, users, _folder: folder })
    }

    /// A baton with an empty store.
    pub(super) fn baton(
        engine: &Engine,
        settings: &[&str],
        program: Option<&Path>,
        plan: Plan,
    ) -> Result<Self, Failure> {
        let folder = TempDir::new().map_err(|error| Failure::Io("a temporary folder".into(), error))?;
        let settings = all_settings(engine, &baton_testkit::postgres::unique_name(), settings);
        Self::new(Server::baton(program, folder.path(), &settings)?, plan, Some(folder))
    }

    pub(super) fn measure(&mut self) -> Result<Report, Failure> {
        load::run(&self.server.target, &self.plan, &mut self.users, Some(self.server.pid()))
    }
}

/// `name`: of the part of the store that is this server's.
pub(super) fn all_settings(engine: &Engine, name: &str, settings: &[&str]) -> Vec<String> {
    settings.iter().map(|setting| (*setting).to_owned()).chain(engine.settings(name)).collect()
}
