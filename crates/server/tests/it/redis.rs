//! Several servers with their sessions in Redis and their accounts in PostgreSQL, each of which may be away.

use std::sync::Arc;

use baton_testkit::redis::Server;
use baton_testkit::{postgres, redis};
use serde_json::{Value, json};

use crate::postgres::{Cluster, EVERY_REQUEST_ROTATES, a_session_goes_on, twenty_at_once};
use crate::readme;
use crate::support::{Answer, Baton, Held, PASSWORD, eventually, run};

fn at(port: u16) -> String {
    format!("sessions.url=redis://127.0.0.1:{port}?prefix={}", postgres::unique_name())
}

/// With sessions on the server that the tests share.
fn cluster() -> Cluster {
    Cluster::new().with(at(redis::shared()))
}

fn is_away(answer: &Answer) {
    let seconds = answer.header("retry-after").parse::<u32>();
    assert_eq!((answer.status, &*answer.code()), (503, "unavailable"), "{answer:?}");
    assert!(seconds.is_ok_and(|seconds| seconds > 0), "{answer:?}");
    for cause in ["redis", "postgres", "connect", "127.0.0.1", "store"] {
        assert!(!answer.body.to_lowercase().contains(cause), "{answer:?}");
    }
    assert!(answer.held().is_none() && !answer.is_blank(), "{answer:?}");
}

fn rotates(node: &Baton, held: &mut Held) {
    let answer = node.members_only(held);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(held.adopt(&answer), "it rotates: {answer:?}");
}

#[test]
fn the_session_of_the_readme_is_as_real_with_redis() {
    readme::follow(&cluster().node(&[]));
}

#[test]
fn a_session_goes_on_from_node_to_node_and_ends_on_all_of_them() {
    a_session_goes_on(&cluster());
}

#[test]
fn of_twenty_requests_at_once_over_two_nodes_one_carries_the_new_token() {
    twenty_at_once(&cluster());
}

#[test]
fn a_cluster_of_redis_serves_as_well() {
    let ports = redis::shared_cluster();
    let url = format!(
        "sessions.url=redis+cluster://127.0.0.1:{},127.0.0.1:{}?prefix={}",
        ports[0],
        ports[1],
        postgres::unique_name()
    );
    a_session_goes_on(&Cluster::new().with(url).with("sessions.wait_replicas=1".to_owned()));
}

#[test]
fn while_redis_is_away_requests_are_put_off_and_nobody_is_signed_out() {
    let server = Server::own(&[]);
    let cluster = Cluster::new().with(at(server.port));
    let nodes: [Baton; 2] = cluster.nodes(&EVERY_REQUEST_ROTATES);
    let mut held = nodes[0].register("ann@example.com");
    rotates(&nodes[1], &mut held);
    let ended = nodes[0].sign_in("ann@example.com");
    assert_eq!(nodes[0].request("DELETE", "/auth/sign_out").held(&ended).send().status, 200);

    server.kill();
    for node in &nodes {
        is_away(&node.members_only(&held));
        is_away(&node.get("/auth/sessions").held(&held).send());
        is_away(&node.request("DELETE", "/auth/sign_out").held(&held).send());
        is_away(&node.post("/auth/sign_in", &json!({ "email": "ann@example.com", "password": PASSWORD })).send());
        is_away(&node.post("/auth", &json!({ "email": "bob@example.com", "password": PASSWORD })).send());
        assert_eq!(node.get("/readyz").send().status, 503);
        for told in ["Redis cannot be reached", "not ready error=redis: ", "refused"] {
            node.wait_for_log(told);
        }
    }

    // Empty: what it had, the accounts' store and the clients make up for.
    server.restart();
    for node in &nodes {
        eventually("ready again", || (node.get("/readyz").send().status == 200).then_some(()));
        rotates(node, &mut held);
        assert_eq!(node.members_only(&ended).code(), "session_revoked", "an ended session is back");
        node.wait_for_log("Redis can be reached again");
    }
    nodes[0].wait_for_log("healed a lost rotation");
    nodes[1].register("bob@example.com");
}

#[test]
fn while_the_accounts_are_away_sessions_go_on() {
    let database = Arc::new(postgres::Server::own(&["-c", "fsync=off"]));
    let cluster =
        Cluster::on(database.clone(), "baton").with(at(redis::shared())).with("sessions.recheck=1s".to_owned());
    let node = cluster.node(&EVERY_REQUEST_ROTATES);
    let mut held = node.register("ann@example.com");
    database.kill();
    eventually("a session that cannot be looked for", || {
        rotates(&node, &mut held);
        node.log().contains("sessions cannot be looked for in the registry").then_some(())
    });
    is_away(&node.post("/auth/sign_in", &json!({ "email": "ann@example.com", "password": PASSWORD })).send());
    // It has not ended, so there is a next token.
    let answer = node.request("DELETE", "/auth/sign_out").held(&held).send();
    assert_eq!((answer.status, held.adopt(&answer)), (503, true), "{answer:?}");
    rotates(&node, &mut held);

    database.restart(&["-c", "fsync=off"]);
    eventually("ready again", || (node.get("/readyz").send().status == 200).then_some(()));
    eventually("sessions that are looked for", || {
        rotates(&node, &mut held);
        node.log().contains("sessions are looked for in the registry again").then_some(())
    });
    assert_eq!(node.request("DELETE", "/auth/sign_out").held(&held).send().status, 200);
}

#[test]
fn an_operator_sees_both_stores() {
    let server = Server::own(&[]);
    let folder = tempfile::tempdir().unwrap();
    let store = format!("store.url=sqlite:{}/baton.db", folder.path().display());
    let sessions = format!("sessions.url=redis://127.0.0.1:{}", server.port);
    let check = |more: &[&str]| {
        let ended = run(&[&["store", "check", "--json", "--set", &store, "--set", &sessions], more].concat());
        let found: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        found
    };
    assert_eq!(run(&["migrate", "--set", &store]).code(), Some(0));
    let found = check(&[]);
    assert_eq!((&found["ok"], &found["sessions"]["kind"]), (&true.into(), &"redis".into()), "{found}");
    assert_eq!(found["sessions"]["where"], format!("127.0.0.1:{}", server.port), "{found}");
    assert_eq!((&found["sessions"]["role"], &found["sessions"]["keys"]), (&"master".into(), &0.into()), "{found}");
    assert!(found["sessions"]["round_trip_ms"].is_number(), "{found}");
    assert!(found["sessions"]["warnings"].to_string().contains("a restart of Redis"), "{found}");

    let found = check(&["--set", "sessions.wait_replicas=1"]);
    assert_eq!(found["ok"], false, "{found}");
    assert!(found["sessions"]["errors"].to_string().contains("there are 0 replicas"), "{found}");
    let replica = Server::replica_of(server.port);
    let found = check(&["--set", "sessions.wait_replicas=1"]);
    assert_eq!((&found["ok"], &found["sessions"]["warnings"]), (&true.into(), &json!([])), "{found}");
    assert!(check(&[])["sessions"]["warnings"].to_string().contains("a failover may bring"));
    let to_replica = format!("sessions.url=redis://127.0.0.1:{}", replica.port);
    let found = check(&["--set", &to_replica]);
    assert!(found["sessions"]["errors"].to_string().contains("this is a replica"), "{found}");

    let ports = redis::shared_cluster();
    let found = check(&["--set", &format!("sessions.url=redis+cluster://127.0.0.1:{}", ports[2])]);
    assert_eq!((&found["ok"], &found["sessions"]["state"]), (&true.into(), &"ok".into()), "{found}");
    assert_eq!((&found["sessions"]["primaries"], &found["sessions"]["replicas"]), (&3.into(), &1.into()), "{found}");

    server.kill();
    let found = check(&[]);
    assert_eq!(found["ok"], false, "{found}");
    assert!(found["sessions"]["errors"].to_string().contains("redis: connect: "), "{found}");
}
