//! Baton against the floor, case by case, and the report.

mod forged;
mod growth;
mod proxy;
mod rounds;
mod sign_in;
mod start;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

pub(crate) use forged::Asked;
pub(crate) use growth::Growth;
pub(crate) use rounds::Measured;
pub(crate) use sign_in::SignIns;
pub(crate) use start::{Idle, Starts};

use crate::load::Report;
use crate::proc::Machine;
use crate::report;
use crate::server::{Engine, Server, Store};
use crate::{Failure, Outcome, note};
use rounds::{Case, NO_ACCESS_LOG, NO_BUFFER, PAGE, Side, alternate, plan, take_turns};

/// The command line of `suite`.
#[derive(Debug, Args)]
pub(crate) struct Suite {
    /// Where the report goes, a Markdown file; a plot (.svg) and all figures (.json) go beside it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What is measured, for the report
    #[arg(long, value_name = "TEXT")]
    revision: String,
    /// Three short rounds: to see that it works, not to quote
    #[arg(long, conflicts_with = "long")]
    quick: bool,
    /// Up to ten million sessions; takes ten gigabytes of disk
    #[arg(long)]
    long: bool,
    /// Only these parts
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,
    /// The program to measure [default: `baton` beside this one]
    #[arg(long, value_name = "PATH")]
    baton: Option<PathBuf>,
}

/// What can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Requests a second and latency, SQLite
    Sqlite,
    /// Requests a second, PostgreSQL
    Postgres,
    /// Requests a second, Redis
    Redis,
    /// Requests a second as a proxy, by nginx's
    Proxy,
    /// Whether a forged token reaches the store
    Forged,
    /// More and more sessions
    Growth,
    /// Memory, and the time of a start
    Start,
    /// Sign-ins
    SignIn,
}

/// How much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Quick,
    Usual,
    Long,
}

impl Extent {
    const fn rounds(self) -> usize {
        match self {
            Self::Quick => 3,
            Self::Usual | Self::Long => 5,
        }
    }
}

const ON_SQLITE: [Case; 4] = [
    Case {
        name: "default buffer, pages of 8",
        settings: &[NO_ACCESS_LOG],
        batch: PAGE,
        forged: false,
        target: Some(0.85),
    },
    Case { name: "the same with the access log", settings: &[], batch: PAGE, forged: false, target: None },
    Case {
        name: "every request rotates",
        settings: &[NO_ACCESS_LOG, NO_BUFFER],
        batch: 1,
        forged: false,
        target: Some(0.60),
    },
    Case { name: "forged token", settings: &[NO_ACCESS_LOG], batch: 1, forged: true, target: Some(0.95) },
];

const BARE: Case =
    Case { name: "for comparison: the floor on baton's threads", settings: &[], batch: 1, forged: false, target: None };

const ON_POSTGRES: [Case; 2] = [
    Case {
        name: "default buffer, pages of 8",
        settings: &[NO_ACCESS_LOG],
        batch: PAGE,
        forged: false,
        target: Some(0.90),
    },
    Case {
        name: "every request rotates",
        settings: &[NO_ACCESS_LOG, NO_BUFFER],
        batch: 1,
        forged: false,
        target: Some(0.90),
    },
];

const ON_REDIS: [Case; 1] = [Case {
    name: "every request rotates",
    settings: &[NO_ACCESS_LOG, NO_BUFFER],
    batch: 1,
    forged: false,
    target: Some(0.90),
}];

/// Everything that goes into the report. What was left out is empty.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    pub(crate) quick: bool,
    /// The generator against a responder that does nothing: single requests, and pages.
    pub(crate) ceiling: Vec<Report>,
    pub(crate) throughput: Vec<Measured>,
    pub(crate) half_load: Option<Measured>,
    /// Here nginx is the floor.
    pub(crate) proxy: Vec<Measured>,
    pub(crate) asked: Option<Asked>,
    pub(crate) growth: Vec<Growth>,
    pub(crate) idle_kib: Option<Idle>,
    pub(crate) starts: Option<Starts>,
    pub(crate) sign_ins: Option<SignIns>,
}

impl Results {
    fn reports(&self) -> impl Iterator<Item = &Report> {
        let rounds =
            self.throughput.iter().chain(&self.half_load).chain(&self.proxy).flat_map(|measured| &measured.rounds);
        let grown = self.growth.iter().flat_map(|growth| &growth.sizes).flat_map(|size| &size.rounds);
        let beside = self.sign_ins.iter().flat_map(|sign_ins| sign_ins.undisturbed.iter().chain(&sign_ins.disturbed));
        self.ceiling.iter().chain(rounds.flat_map(|round| [&round.floor, &round.baton])).chain(grown).chain(beside)
    }
}

impl Suite {
    pub(crate) fn run(&self) -> Result<Outcome, Failure> {
        let machine = Machine::describe();
        let results = self.measure()?;
        report::write(&self.out, &self.revision, &machine, &results)?;
        note(&format!("written: {}", self.out.display()));
        for report in results.reports().filter(|report| !report.is_clean()) {
            note(&format!("not as expected:\n{}", report.text()));
        }
        Ok(if results.reports().all(Report::is_clean) { Outcome::Good } else { Outcome::Bad })
    }

    fn measure(&self) -> Result<Results, Failure> {
        let (extent, program) = (self.extent(), self.baton.as_deref());
        let mut results = Results { quick: self.quick, ..Results::default() };
        results.ceiling = [1, PAGE].map(|batch| ceiling(extent, batch)).into_iter().collect::<Result<_, _>>()?;
        if self.includes(Part::Sqlite) {
            for case in &ON_SQLITE {
                results.throughput.push(take_turns(case, &Engine::Sqlite, extent, program, None)?);
            }
            results.throughput.push(own_runtimes(extent)?);
            let [pages, ..] = &ON_SQLITE;
            let served = results.throughput.first().map_or(0.0, |measured| measured.baton(|all| all.per_second).median);
            results.half_load = Some(half_load(pages, extent, program, served / 2.0)?);
        }
        for (part, store, cases) in
            [(Part::Postgres, Store::Postgres, &ON_POSTGRES[..]), (Part::Redis, Store::Redis, &ON_REDIS)]
        {
            if self.includes(part) {
                let engine = store.start();
                for case in cases {
                    results.throughput.push(take_turns(case, &engine, extent, program, None)?);
                }
            }
        }
        if self.includes(Part::Proxy) {
            results.proxy = proxy::measure(extent, program)?;
        }
        if self.includes(Part::Forged) {
            results.asked = Some(forged::measure(program)?);
        }
        if self.includes(Part::Start) {
            results.idle_kib = Some(start::idle(program)?);
            results.starts = Some(start::measure(extent, program)?);
        }
        if self.includes(Part::SignIn) {
            results.sign_ins = Some(sign_in::measure(extent, program)?);
        }
        if self.includes(Part::Growth) {
            for store in [Store::Sqlite, Store::Postgres, Store::Redis] {
                results.growth.push(growth::measure(store, extent, program)?);
            }
        }
        Ok(results)
    }

    fn includes(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    const fn extent(&self) -> Extent {
        match (self.quick, self.long) {
            (true, _) => Extent::Quick,
            (_, true) => Extent::Long,
            _ => Extent::Usual,
        }
    }
}

fn ceiling(extent: Extent, batch: usize) -> Result<Report, Failure> {
    note(&format!("the generator's ceiling, pages of {batch}"));
    Side::new(Server::trivial()?, plan(extent, batch), None)?.measure()
}

/// What the floor would do on threads as baton has them, by what it does.
fn own_runtimes(extent: Extent) -> Result<Measured, Failure> {
    let plan = plan(extent, BARE.batch);
    let floor = Side::new(Server::floor(&Engine::Sqlite, false)?, plan.clone(), None)?;
    let bare = Side::new(Server::floor_on_own_runtimes()?, plan, None)?;
    alternate(BARE.name.to_owned(), &BARE, floor, bare, extent)
}

fn half_load(pages: &Case, extent: Extent, program: Option<&Path>, rate: f64) -> Result<Measured, Failure> {
    take_turns(pages, &Engine::Sqlite, extent, program, Some(rate.round()))
}
