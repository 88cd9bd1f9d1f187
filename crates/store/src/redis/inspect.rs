//! What an operator gets to see.

use std::collections::HashMap;

use baton_core::clock::Clock;
use baton_core::error::StoreError;
use redis::{InfoDict, Value};
use tokio::time::Instant;

use super::link::Links;
use super::options::{Place, RedisOptions};
use super::sessions::Sessions;
use crate::inspection::{Inspection, TRIPS, bytes};

const DOING: &str = "look at the server";
/// The oldest version that has been tried.
const OLDEST: u32 = 6;

pub(super) async fn inspect(options: &RedisOptions, clock: &dyn Clock) -> Inspection {
    let mut found = Inspection::default();
    found.note("kind", options.place.kind());
    found.note("where", options.place.to_string());
    found.note("prefix", &options.prefix);
    if let Err(error) = look(options, clock, &mut found).await {
        found.fail(error);
    }
    found
}

async fn look(options: &RedisOptions, clock: &dyn Clock, found: &mut Inspection) -> Result<(), StoreError> {
    // It names operations that change nothing which another one could be taken for.
    let sessions = Sessions::named(options, 0)?;
    let links = &sessions.links;
    links.connect().await?;
    match &options.place {
        Place::Cluster(_) => about_the_cluster(options, links, found).await?,
        Place::Node(_) | Place::Sentinel { .. } => about_the_server(options, links, found).await?,
    }
    let mut trips = Vec::new();
    for _ in 0..TRIPS {
        let (sent, asked_at) = (Instant::now(), clock.now());
        let (seconds, micros): (i64, i64) = links.ask(DOING, &redis::cmd("TIME")).await?;
        let took = sent.elapsed();
        trips.push((took, seconds * 1000 + micros / 1000 - asked_at.plus(took / 2).as_millis()));
    }
    found.note_trips("Redis", trips);
    sessions.check().await?;
    found.note("reads and writes", "work");
    Ok(())
}

async fn about_the_server(options: &RedisOptions, links: &Links, found: &mut Inspection) -> Result<(), StoreError> {
    let info: InfoDict = links.ask(DOING, &redis::cmd("INFO")).await?;
    let text = |name: &str| info.get::<String>(name).unwrap_or_default();
    about_the_version(&text("redis_version"), found);
    let role = text("role");
    found.note("role", &*role);
    if role == "slave" {
        found.fail("this is a replica, which takes no writes; name the primary, or the sentinels that know it");
    }
    let replicas: u32 = info.get("connected_slaves").unwrap_or_default();
    about_the_replicas(options, replicas, found);
    found.note("persistence", if text("aof_enabled") == "1" { "append-only file" } else { "snapshots at most" });
    if text("aof_enabled") != "1" && replicas == 0 {
        found.warn("a restart of Redis signs people out: there is no append-only file, and no replica to take over");
    }
    let memory: u64 = info.get("used_memory").unwrap_or_default();
    found.note_as("memory", memory, bytes(memory));
    let keys: u64 = links.ask(DOING, &redis::cmd("DBSIZE")).await?;
    found.note_as("keys", keys, keys.to_string());
    about_eviction(links, found).await;
    Ok(())
}

async fn about_the_cluster(options: &RedisOptions, links: &Links, found: &mut Inspection) -> Result<(), StoreError> {
    let told: String = links.ask(DOING, redis::cmd("CLUSTER").arg("INFO")).await?;
    let info: HashMap<&str, &str> = told.lines().filter_map(|line| line.trim().split_once(':')).collect();
    let state = info.get("cluster_state").copied().unwrap_or("unknown");
    found.note("state", state);
    if state != "ok" {
        found.fail(format!("the cluster is in state {state:?}"));
    }
    let nodes: String = links.ask(DOING, redis::cmd("CLUSTER").arg("NODES")).await?;
    // Of each line: its flags, and for a replica the name of its primary.
    let lines: Vec<Vec<&str>> = nodes.lines().map(|line| line.split(' ').collect()).collect();
    let flagged =
        |line: &&Vec<&str>, flag: &str| line.get(2).is_some_and(|flags| flags.split(',').any(|one| one == flag));
    let primaries: Vec<&str> =
        lines.iter().filter(|line| flagged(line, "master")).filter_map(|line| line.first().copied()).collect();
    let replicas_of = |primary: &str| {
        lines.iter().filter(|line| flagged(line, "slave") && line.get(3) == Some(&primary)).count() as u32
    };
    found.note_as("primaries", primaries.len(), primaries.len().to_string());
    about_the_replicas(options, primaries.iter().map(|primary| replicas_of(primary)).min().unwrap_or(0), found);
    about_eviction(links, found).await;
    Ok(())
}

fn about_the_version(version: &str, found: &mut Inspection) {
    found.note("version", version);
    let major = version.split('.').next().and_then(|major| major.parse().ok());
    if major.is_some_and(|major: u32| major < OLDEST) {
        found.fail(format!("Redis {version} is too old; version {OLDEST} or later is needed"));
    }
}

/// `replicas`: of the primary that has the fewest.
fn about_the_replicas(options: &RedisOptions, replicas: u32, found: &mut Inspection) {
    found.note_as("replicas", replicas, replicas.to_string());
    let wanted = options.wait_replicas;
    found.note_as("waits for replicas", wanted, wanted.to_string());
    if wanted > replicas {
        found.fail(format!(
            "sessions.wait_replicas is {wanted}, and there are {replicas} replicas: nobody could sign in or out"
        ));
    } else if wanted == 0 && replicas > 0 {
        found.warn(format!(
            "sessions.wait_replicas is 0: a failover may bring a session that was ended back, for up to {} s",
            options.recheck.as_secs()
        ));
    }
    if options.place.is_exposed() {
        found.warn("the connection is not encrypted; use rediss:// where the network is not yours alone");
    }
}

async fn about_eviction(links: &Links, found: &mut Inspection) {
    let Some(policy) = eviction_policy(links).await else { return };
    found.note("maxmemory-policy", &*policy);
    if policy != "noeviction" {
        found.warn("Redis may throw sessions away when its memory is full; set maxmemory-policy to noeviction");
    }
}

/// What becomes of keys when the memory is full. `None` if the server does not say, as hosted ones do not always.
pub(super) async fn eviction_policy(links: &Links) -> Option<String> {
    let asked = links.ask(DOING, redis::cmd("CONFIG").arg("GET").arg("maxmemory-policy")).await;
    asked.ok().as_ref().and_then(policy)
}

/// The value in the answer of one server, or of the first of many.
fn policy(answer: &Value) -> Option<String> {
    match answer {
        Value::Map(nodes) => nodes.first().and_then(|(_, value)| policy(value).or_else(|| text(value))),
        Value::Array(values) => values.get(1).and_then(text),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}
