//! The runs: a cluster for each store and mode, with its scenarios one after the other.

use fastrand::Rng;

use crate::check::{Counts, Findings, check};
use crate::cluster::{Cluster, Kind, Plan};
use crate::report;
use crate::scenarios::Scenario;
use crate::{Cli, Failure, note, print};

/// Runs what the command line asks for. False if a rule was broken.
pub(crate) fn all(cli: &Cli) -> Result<bool, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::io("threads"))?;
    let mut good = true;
    let mut total = Counts::default();
    print(&format!("seed {}\n", cli.seed))?;
    let mut ran = false;
    for (number, (kind, forgiving)) in RUNS.into_iter().enumerate() {
        let name = format!("{}/{}", kind.name(), if forgiving { "forgiving" } else { "default" });
        let mut rng = Rng::with_seed(cli.seed.wrapping_mul(1_000).wrapping_add(number as u64));
        let scenarios = scenarios(cli, &name, kind, &mut rng);
        if scenarios.is_empty() {
            continue;
        }
        ran = true;
        let plan = Plan {
            baton: cli.baton.clone(),
            store: kind,
            forgiving,
            clients: cli.clients.unwrap_or(if cli.short { 150 } else { 300 }),
            small_disk: cli.small_disk.clone(),
        };
        let findings = runtime.block_on(one(&name, &plan, &scenarios, &mut rng))?;
        good &= findings.violations.is_empty();
        total += findings.total();
        print(&report::run(&name, &findings))?;
    }
    if !ran {
        return Err(Failure::Usage("no run has a name like that".into()));
    }
    // A run in which nothing happened proves nothing.
    let missing = if cli.only.is_empty() { report::missing(&total) } else { Vec::new() };
    print(&report::summary(&total, &missing, good))?;
    Ok(good && missing.is_empty())
}

const RUNS: [(Kind, bool); 4] =
    [(Kind::Postgres, false), (Kind::Postgres, true), (Kind::Sqlite, false), (Kind::Sqlite, true)];

/// Once each in the short form, else several times in some order.
fn scenarios(cli: &Cli, run: &str, kind: Kind, rng: &mut Rng) -> Vec<Scenario> {
    let wanted = |scenario: &&Scenario| {
        let name = format!("{run}/{}", scenario.name());
        cli.only.is_empty() || cli.only.iter().any(|only| name.contains(only.as_str()))
    };
    let once: Vec<Scenario> = Scenario::of(kind).iter().filter(wanted).copied().collect();
    let mut all = once.clone();
    for _ in 1..if cli.short { 1 } else { cli.rounds } {
        let mut again = once.clone();
        rng.shuffle(&mut again);
        all.extend(again);
    }
    all
}

async fn one(name: &str, plan: &Plan, scenarios: &[Scenario], rng: &mut Rng) -> Result<Findings, Failure> {
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
