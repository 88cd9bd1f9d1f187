//! What is done to a cluster while its clients are at work. Each scenario puts right what it has broken.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use fastrand::Rng;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::Failure;
use crate::cluster::{BUFFER, Cluster, Kind, Store, local};
use crate::proxy::Way;

/// What was committed this long ago is on the disk: three times `wal_writer_delay`, as PostgreSQL's manual has it.
const POSTGRES_LOSES: Duration = Duration::from_millis(600);

/// A scenario, by the name that `--only` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Nothing fails.
    Calm,
    KillNodes,
    KillStore,
    KillAccounts,
    FailOver,
    Cut,
    Deaf,
    Slow,
    FullDisk,
    Clocks,
    Pause,
    Storm,
}

impl Scenario {
    /// Those that make sense with a store. In the short form what is about the nodes alone is tried with one store.
    pub(crate) fn of(kind: Kind, short: bool) -> &'static [Self] {
        match kind {
            Kind::Postgres => &[
                Self::Calm,
                Self::KillNodes,
                Self::KillStore,
                Self::Cut,
                Self::Deaf,
                Self::Slow,
                Self::FullDisk,
                Self::Clocks,
                Self::Pause,
                Self::Storm,
            ],
            Kind::Redis if short => {
                &[Self::KillNodes, Self::FailOver, Self::KillAccounts, Self::Cut, Self::Deaf, Self::Storm]
            }
            Kind::Redis => &[
                Self::KillNodes,
                Self::FailOver,
                Self::KillAccounts,
                Self::Cut,
                Self::Deaf,
                Self::Slow,
                Self::Clocks,
                Self::Pause,
                Self::Storm,
            ],
            Kind::Sqlite => &[Self::KillNodes, Self::FullDisk],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::KillNodes => "kill-nodes",
            Self::KillStore => "kill-store",
            Self::KillAccounts => "kill-accounts",
            Self::FailOver => "fail-over",
            Self::Cut => "cut",
            Self::Deaf => "deaf",
            Self::Slow => "slow",
            Self::FullDisk => "full-disk",
            Self::Clocks => "clocks",
            Self::Pause => "pause",
            Self::Storm => "storm",
        }
    }

    pub(crate) async fn run(self, cluster: &mut Cluster, rng: &mut Rng) -> Result<(), Failure> {
        match self {
            Self::Calm => sleep(BUFFER).await,
            Self::KillNodes => kill_nodes(cluster, rng).await?,
            Self::KillStore => kill_store(cluster, rng).await?,
            Self::KillAccounts => kill_accounts(cluster, rng).await?,
            Self::FailOver => fail_over(cluster, rng).await?,
            Self::Cut => cut(cluster, rng).await?,
            Self::Deaf => deaf(cluster, rng).await?,
            Self::Slow => slow(cluster, rng).await?,
            Self::FullDisk => full_disk(cluster, rng).await?,
            Self::Clocks => clocks(cluster).await?,
            Self::Pause => pause(cluster, rng).await?,
            Self::Storm => storm(cluster, rng).await?,
        }
        // Longer than the window, so that it is seen whether superseded tokens are still accepted.
        sleep(BUFFER + BUFFER / 3).await;
        Ok(())
    }
}

/// Each node once, in some order, without warning.
async fn kill_nodes(cluster: &mut Cluster, rng: &mut Rng) -> Result<(), Failure> {
    let mut order: Vec<usize> = (0..cluster.nodes.len()).collect();
    rng.shuffle(&mut order);
    for number in order {
        let fault = cluster.fault("a node was killed", None).await;
        let world = cluster.world.clone();
        cluster.nodes[number].kill()?;
        wait(rng, 200..800).await;
        cluster.nodes[number].start(&world).await?;
        cluster.over(fault).await?;
    }
    Ok(())
}

/// Several times, so that what was healed after the one can be lost with the next.
async fn kill_store(cluster: &mut Cluster, rng: &mut Rng) -> Result<(), Failure> {
    let Store::Postgres(server) = &cluster.store else { return Ok(()) };
    for _ in 0..3 {
        let mut fault = cluster.fault("PostgreSQL was killed", Some(POSTGRES_LOSES)).await;
        server.kill();
        let gone = cluster.world.now();
        wait(rng, 1_000..2_000).await;
        fault.away = Some((gone, cluster.world.now()));
        Cluster::restart_postgres(server);
        cluster.over(fault).await?;
        wait(rng, 500..1_500).await;
    }
    Ok(())
}

/// The store of the accounts, which those who have a session do not need.
async fn kill_accounts(cluster: &Cluster, rng: &mut Rng) -> Result<(), Failure> {
    let Store::Redis(redis) = &cluster.store else { return Ok(()) };
    let fault = cluster.fault("the accounts' store was killed", None).await;
    redis.accounts.kill();
    wait(rng, 1_000..3_000).await;
    Cluster::restart_postgres(&redis.accounts);
    cluster.over(fault).await
}

/// The replica is cut off, the primary goes on taking rotations and dies, and the replica takes its place.
async fn fail_over(cluster: &mut Cluster, rng: &mut Rng) -> Result<(), Failure> {
    for _ in 0..3 {
        let Store::Redis(redis) = &mut cluster.store else { return Ok(()) };
        let complete = cluster.world.now();
        // Until it has what there was then.
        let written = offset(&redis.primary, "master_repl_offset")?;
        while offset(&redis.replica, "slave_repl_offset")? < written {
            sleep(Duration::from_millis(10)).await;
        }
        // It stands by itself: what the primary is given from now on never gets there.
        promote(&redis.replica)?;
        wait(rng, 300..1_500).await;
        let mut fault = cluster.fault("Redis failed over", None).await;
        let Store::Redis(redis) = &mut cluster.store else { return Ok(()) };
        redis.primary.kill();
        let gone = cluster.world.now();
        fault.loses = Some(fault.from - complete);
        wait(rng, 300..1_500).await;
        fault.away = Some((gone, cluster.world.now()));
        for proxy in &cluster.proxies {
            proxy.turn_to(local(redis.replica.port));
        }
        let replica = baton_testkit::redis::Server::replica_of(redis.replica.port);
        redis.primary = std::mem::replace(&mut redis.replica, replica);
        cluster.over(fault).await?;
        wait(rng, 500..1_500).await;
    }
    Ok(())
}

/// How far a server is in what is replicated.
fn offset(server: &baton_testkit::redis::Server, name: &str) -> Result<u64, Failure> {
    let said = server.says(&["INFO", "replication"]);
    let value = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
    value.ok_or_else(|| Failure::Server(format!("Redis does not say its {name}: {said}")))
}

fn promote(replica: &baton_testkit::redis::Server) -> Result<(), Failure> {
    match replica.says(&["REPLICAOF", "NO", "ONE"]).trim() {
        "OK" => Ok(()),
        said => Err(Failure::Server(format!("the replica is not promoted: {said}"))),
    }
}

/// One node's way to the store, then everybody's.
async fn cut(cluster: &Cluster, rng: &mut Rng) -> Result<(), Failure> {
    let fault = cluster.fault("a node was cut off", None).await;
    let proxy = &cluster.proxies[rng.usize(..cluster.proxies.len())];
    proxy.set(Way::Cut);
    wait(rng, 800..1_500).await;
    proxy.set(Way::Clear);
    cluster.over(fault).await?;
    for _ in 0..2 {
        let mut fault = cluster.fault("all nodes were cut off", None).await;
        cluster.set_ways(Way::Cut);
        // What was on its way may still arrive.
        sleep(Duration::from_millis(100)).await;
        let gone = cluster.world.now();
        wait(rng, 500..1_500).await;
        fault.away = Some((gone, cluster.world.now()));
        cluster.set_ways(Way::Clear);
        cluster.over(fault).await?;
    }
    Ok(())
}

/// What is asked is done, and nobody hears of it; then they ask again.
async fn deaf(cluster: &Cluster, rng: &mut Rng) -> Result<(), Failure> {
    for _ in 0..3 {
        let fault = cluster.fault("answers were lost", None).await;
        cluster.set_ways(Way::Deaf);
        wait(rng, 100..500).await;
        cluster.set_ways(Way::Cut);
        wait(rng, 50..200).await;
        cluster.set_ways(Way::Clear);
        cluster.over(fault).await?;
    }
    Ok(())
}

/// All the same, but late.
async fn slow(cluster: &Cluster, rng: &mut Rng) -> Result<(), Failure> {
    let fault = cluster.fault("the network was slow", None).await;
    for proxy in &cluster.proxies {
        proxy.set(Way::Slow(Duration::from_millis(rng.u64(20..120))));
    }
    sleep(BUFFER + BUFFER / 2).await;
    cluster.set_ways(Way::Clear);
    cluster.over(fault).await
}

/// Filled to the last byte for a while.
async fn full_disk(cluster: &mut Cluster, rng: &mut Rng) -> Result<(), Failure> {
    let io = Failure::io("the small disk");
    let loses = match cluster.store {
        Store::Postgres(_) => Some(POSTGRES_LOSES),
        Store::Redis(_) => None,
        Store::Sqlite => None,
    };
    let fault = cluster.fault("the disk was full", loses).await;
    let mut ballast = fs::File::create(cluster.ballast()).map_err(&io)?;
    let other_work = match &cluster.store {
        Store::Postgres(server) => Some(tokio::spawn(fill_the_log(server.client().await))),
        Store::Redis(_) | Store::Sqlite => None,
    };
    let begun = cluster.world.now();
    let lasts = Duration::from_millis(rng.u64(3_000..4_000));
    while cluster.world.now() < begun + lasts {
        // Whatever is freed meanwhile is taken too.
        while ballast.write_all(&[0; 1024]).is_ok() {}
        sleep(Duration::from_millis(10)).await;
    }
    if let Some(other_work) = other_work {
        other_work.abort();
    }
    drop(ballast);
    fs::remove_file(cluster.ballast()).map_err(&io)?;
    if let Store::Postgres(server) = &cluster.store {
        // It gives up if it cannot write its log while it recovers; then somebody has to start it.
        sleep(Duration::from_millis(500)).await;
        if !server.is_running() {
            server.kill();
            Cluster::restart_postgres(server);
        }
    }
    cluster.over(fault).await
}

/// What PostgreSQL has got of the disk lasts for a while; whatever else it is used for takes that.
async fn fill_the_log(client: tokio_postgres::Client) {
    let sql = "SELECT pg_logical_emit_message(true, 'other work', repeat('x', 100000))";
    while client.batch_execute(sql).await.is_ok() {
        sleep(Duration::from_millis(20)).await;
    }
}

/// Of the first node, by 3 s to either side. The store's is what counts, so nothing may happen.
async fn clocks(cluster: &Cluster) -> Result<(), Failure> {
    for seconds in [3, -3, 0] {
        let fault = cluster.fault("a clock was stepped", None).await;
        cluster.nodes[0].step_clock(seconds)?;
        cluster.nodes[0].shows_a_clock_off_by(seconds, &cluster.nodes[1]).await?;
        sleep(BUFFER / 2).await;
        cluster.over(fault).await?;
    }
    Ok(())
}

/// A node stands still for 10 s, and goes on with what it was doing.
async fn pause(cluster: &Cluster, rng: &mut Rng) -> Result<(), Failure> {
    let fault = cluster.fault("a node was paused", None).await;
    let node = &cluster.nodes[rng.usize(..cluster.nodes.len())];
    node.send(Signal::STOP)?;
    sleep(Duration::from_secs(10)).await;
    node.send(Signal::CONT)?;
    cluster.over(fault).await
}

/// All of it, one upon the other.
async fn storm(cluster: &mut Cluster, rng: &mut Rng) -> Result<(), Failure> {
    let loses = matches!(cluster.store, Store::Postgres(_)).then_some(POSTGRES_LOSES);
    let fault = cluster.fault("there was a storm", loses).await;
    for _ in 0..10 {
        let number = rng.usize(..cluster.nodes.len());
        match rng.u8(..6) {
            0 => cluster.nodes[number].kill()?,
            1 => cluster.nodes[number].send(Signal::STOP)?,
            2 => cluster.set_ways(Way::Deaf),
            3 => cluster.proxies[number].set(Way::Cut),
            4 => cluster.proxies[number].set(Way::Slow(Duration::from_millis(rng.u64(20..300)))),
            _ => {
                if let Store::Postgres(server) = &cluster.store {
                    server.kill();
                    wait(rng, 100..500).await;
                    Cluster::restart_postgres(server);
                }
            }
        }
        wait(rng, 100..500).await;
        // Some of it stays for a while.
        if rng.bool() {
            clear_up(cluster).await?;
        }
        cluster.world.rush();
    }
    clear_up(cluster).await?;
    cluster.over(fault).await
}

async fn clear_up(cluster: &mut Cluster) -> Result<(), Failure> {
    let world = cluster.world.clone();
    cluster.set_ways(Way::Clear);
    for node in &mut cluster.nodes {
        if node.is_running() {
            node.send(Signal::CONT)?;
        } else {
            node.start(&world).await?;
        }
    }
    Ok(())
}

async fn wait(rng: &mut Rng, millis: std::ops::Range<u64>) {
    sleep(Duration::from_millis(rng.u64(millis))).await;
}
