//! Baton against the floor, in rounds that take turns, so that whatever else the machine does happens to both.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::load::{self, Plan, Report, User};
use crate::proc::Machine;
use crate::report::{self, Spread};
use crate::server::Server;
use crate::{Failure, Outcome, note};

/// The floor logs nothing, so baton's line a request is measured in a case of its own.
const NO_ACCESS_LOG: &str = "log.level=warn";
const PAGE: usize = 8;

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
    #[arg(long)]
    quick: bool,
    /// The program to measure [default: `baton` beside this one]
    #[arg(long, value_name = "PATH")]
    baton: Option<PathBuf>,
}

/// What is measured. A store of its own is one more case with other settings.
struct Case {
    name: &'static str,
    settings: &'static [&'static str],
    batch: usize,
    forged: bool,
}

const CASES: [Case; 4] = [
    Case { name: "default buffer, pages of 8", settings: &[NO_ACCESS_LOG], batch: PAGE, forged: false },
    Case { name: "the same with the access log", settings: &[], batch: PAGE, forged: false },
    Case {
        name: "every request rotates",
        settings: &[NO_ACCESS_LOG, "batch_request_buffer_throttle=0"],
        batch: 1,
        forged: false,
    },
    Case { name: "forged token", settings: &[NO_ACCESS_LOG], batch: 1, forged: true },
];

/// A round of the floor and one of baton.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) floor: Report,
    pub(crate) baton: Report,
}

/// The rounds of a case.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    /// What differs from `baton dev`.
    pub(crate) settings: Vec<&'static str>,
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

/// Everything that goes into the report.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) quick: bool,
    /// The generator against a responder that does nothing: single requests, and pages.
    pub(crate) ceiling: Vec<Report>,
    pub(crate) throughput: Vec<Measured>,
    pub(crate) half_load: Measured,
}

impl Results {
    fn reports(&self) -> impl Iterator<Item = &Report> {
        let rounds = self.throughput.iter().chain([&self.half_load]).flat_map(|measured| &measured.rounds);
        self.ceiling.iter().chain(rounds.flat_map(|round| [&round.floor, &round.baton]))
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
        let ceiling = [1, PAGE].map(|batch| self.ceiling(batch)).into_iter().collect::<Result<_, _>>()?;
        let throughput = CASES.iter().map(|case| self.case(case, None)).collect::<Result<Vec<_>, _>>()?;
        let [pages, ..] = &CASES;
        let half = throughput.first().map_or(0.0, |measured| measured.baton(|report| report.per_second).median / 2.0);
        let half_load = self.case(pages, Some(half.round()))?;
        Ok(Results { quick: self.quick, ceiling, throughput, half_load })
    }

    fn plan(&self, batch: usize) -> Plan {
        let (users, warm_up, duration) = if self.quick { (64, 1, 2) } else { (256, 2, 10) };
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

    fn ceiling(&self, batch: usize) -> Result<Report, Failure> {
        note(&format!("the generator's ceiling, pages of {batch}"));
        Side::new(Server::floor(true)?, self.plan(batch))?.measure()
    }

    /// `rate`: in an open loop.
    fn case(&self, case: &Case, rate: Option<f64>) -> Result<Measured, Failure> {
        let plan = Plan { rate, ..self.plan(case.batch) };
        let of_baton =
            Plan { made_up: case.forged, expect_status: if case.forged { 401 } else { 200 }, ..plan.clone() };
        let mut floor = Side::new(Server::floor(false)?, plan)?;
        let mut baton = Side::new(Server::baton(self.baton.as_deref(), case.settings)?, of_baton)?;
        let count = if self.quick { 3 } else { 5 };
        let mut rounds = Vec::new();
        for number in 1..=count {
            note(&format!("{}, round {number} of {count}", case.name));
            rounds.push(if number % 2 == 1 {
                let floor = floor.measure()?;
                Round { floor, baton: baton.measure()? }
            } else {
                let baton = baton.measure()?;
                Round { floor: floor.measure()?, baton }
            });
        }
        Ok(Measured { name: case.name, settings: case.settings.to_vec(), rounds })
    }
}

/// A server that idles while it is not its turn.
struct Side {
    server: Server,
    plan: Plan,
    users: Vec<User>,
}

impl Side {
    fn new(server: Server, plan: Plan) -> Result<Self, Failure> {
        let users = load::prepare(&server.target, &plan, Vec::new())?;
        Ok(Self { server, plan, users })
    }

    fn measure(&mut self) -> Result<Report, Failure> {
        load::run(&self.server.target, &self.plan, &mut self.users, Some(self.server.pid()))
    }
}
