//! The runs: a cluster for each store and mode, with its scenarios one after the other.

use std::sync::mpsc;
use std::thread;

use fastrand::Rng;
use parking_lot::Mutex;

use crate::check::{Counts, Findings, check};
use crate::cluster::{Cluster, Kind, Plan};
use crate::report;
use crate::scenarios::Scenario;
use crate::{Cli, Failure, note, print};

/// Every store, in both modes; the ones that take longest first.
const RUNS: [(Kind, bool); 6] = [
    (Kind::Postgres, false),
    (Kind::Postgres, true),
    (Kind::Redis, false),
    (Kind::Redis, true),
    (Kind::Sqlite, false),
    (Kind::Sqlite, true),
];

/// A run that is to be made.
struct Run {
    name: String,
    plan: Plan,
    scenarios: Vec<Scenario>,
    rng: Rng,
}

/// Runs what the command line asks for. False if a rule was broken.
pub(crate) fn all(cli: &Cli) -> Result<bool, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::io("threads"))?;
    let runs = plan(cli);
    if runs.is_empty() {
        return Err(Failure::Usage("no run has a name like that".into()));
    }
    print(&format!("seed {}\n", cli.seed))?;
    // Processes end with the thread that has started them, so each run has one of its own.
    let queue = Mutex::new(runs.into_iter());
    let (done, reports) = mpsc::channel();
    let (mut good, mut total) = (true, Counts::default());
    thread::scope(|scope| {
        for _ in 0..cli.jobs.max(1) {
            let (queue, done, runtime) = (&queue, done.clone(), &runtime);
            scope.spawn(move || {
                // Not in the loop's head, where the lock would be held for as long as the run takes.
                let next = || queue.lock().next();
                while let Some(run) = next() {
                    let name = run.name.clone();
                    let findings = runtime.block_on(run.make());
                    let failed = findings.is_err();
                    let _ = done.send((name, findings));
                    if failed {
                        // There is no point in the others.
                        queue.lock().by_ref().for_each(drop);
                    }
                }
            });
        }
        drop(done);
        for (name, findings) in reports {
            let findings = findings?;
            good &= findings.violations.is_empty();
            total += findings.total();
            print(&report::run(&name, &findings))?;
        }
        Ok(())
    })?;
    // A run in which nothing happened proves nothing.
    let missing = if cli.only.is_empty() { report::missing(&total) } else { Vec::new() };
    print(&report::summary(&total, &missing, good))?;
    Ok(good && missing.is_empty())
}

fn plan(cli: &Cli) -> Vec<Run> {
    let run = |(number, (store, forgiving)): (usize, (Kind, bool))| {
        let name = format!("{}/{}", store.name(), if forgiving { "forgiving" } else { "default" });
        let mut rng = Rng::with_seed(cli.seed.wrapping_mul(1_000).wrapping_add(number as u64));
        let scenarios = scenarios(cli, &name, store, &mut rng);
        let clients = cli.clients.unwrap_or(if cli.short { 150 } else { 300 });
        // Each has a disk of its own, or one would fill that of another.
        let small_disk = cli.small_disks.join(number.to_string());
        let plan = Plan { baton: cli.baton.clone(), store, forgiving, clients, small_disk };
        (!scenarios.is_empty()).then_some(Run { name, plan, scenarios, rng })
    };
    RUNS.into_iter().enumerate().filter_map(run).collect()
}

/// Once each in the short form, else several times in some order.
fn scenarios(cli: &Cli, run: &str, kind: Kind, rng: &mut Rng) -> Vec<Scenario> {
    let wanted = |scenario: &&Scenario| {
        let name = format!("{run}/{}", scenario.name());
        cli.only.is_empty() || cli.only.iter().any(|only| name.contains(only.as_str()))
    };
    let once: Vec<Scenario> = Scenario::of(kind, cli.short).iter().filter(wanted).copied().collect();
    let mut all = once.clone();
    for _ in 1..if cli.short { 1 } else { cli.rounds } {
        let mut again = once.clone();
        rng.shuffle(&mut again);
        all.extend(again);
    }
    all
}

impl Run {
    async fn make(mut self) -> Result<Findings, Failure> {
        let Self { name, plan, scenarios, rng } = &mut self;
        note(&format!("{name}: {} clients sign in", plan.clients));
        let mut cluster = Cluster::start(plan, rng).await?;
        for scenario in scenarios {
            note(&format!("{name}/{}", scenario.name()));
            cluster.begin(scenario.name());
            scenario.run(&mut cluster, rng).await?;
        }
        cluster.begin("end");
        let history = cluster.end().await?;
        Ok(check(&history))
    }
}
