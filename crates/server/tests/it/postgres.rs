//! Several servers on one PostgreSQL, which may be killed.

use std::sync::{Arc, Barrier};
use std::thread;

use baton_testkit::postgres::{Server, shared, unique_name};
use serde_json::json;

use crate::readme;
use crate::support::{Answer, Baton, Call, Held, PASSWORD, agent, eventually, run};

pub(crate) const EVERY_REQUEST_ROTATES: [&str; 2] = ["--set", "batch_request_buffer_throttle=0"];

/// A database and a key for any number of nodes.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    server: Arc<Server>,
    settings: Vec<String>,
}

impl Cluster {
    /// In a schema of its own on the server that the tests share.
    pub(crate) fn new() -> Self {
        Self::on(shared(), &unique_name())
    }

    pub(crate) fn on(server: Arc<Server>, schema: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("secret.key");
        baton_server::keys::ensure(&key).unwrap();
        let settings = vec![format!("store.url={}", server.url(schema)), format!("keys.file={}", key.display())];
        Self { folder, server, settings }
    }

    /// With one more setting, of all nodes.
    pub(crate) fn with(mut self, setting: String) -> Self {
        self.settings.push(setting);
        self
    }

    /// `baton dev ARGS` as one more node.
    pub(crate) fn node(&self, args: &[&str]) -> Baton {
        let mut all: Vec<&str> = self.settings.iter().flat_map(|setting| ["--set", setting]).collect();
        all.extend(args);
        Baton::dev_in(self.folder.path(), &all).unwrap_or_else(|ended| panic!("{ended:?}"))
    }

    pub(crate) fn nodes<const N: usize>(&self, args: &[&str]) -> [Baton; N] {
        std::array::from_fn(|_| self.node(args))
    }
}

#[test]
fn the_session_of_the_readme_is_as_real_on_postgres() {
    readme::follow(&Cluster::new().node(&[]));
}

#[test]
fn a_session_goes_on_from_node_to_node_and_ends_on_all_of_them() {
    a_session_goes_on(&Cluster::new());
}

pub(crate) fn a_session_goes_on(cluster: &Cluster) {
    let nodes: [Baton; 2] = cluster.nodes(&EVERY_REQUEST_ROTATES);
    let mut held = nodes[0].register("ann@example.com");
    for number in 0..10 {
        let (answer, before) = (nodes[(number + 1) % 2].members_only(&held), held.clone());
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(held.adopt(&answer) && held != before, "it rotates: {answer:?}");
        // What one node has superseded the other one knows.
        let answer = nodes[number % 2].members_only(&before);
        assert_eq!((answer.status, answer.code()), (401, "token_superseded".to_owned()));
    }
    let elsewhere = nodes[1].sign_in("ann@example.com");
    assert_eq!(nodes[0].request("DELETE", "/auth/sign_out").held(&held).send().status, 200);
    for node in &nodes {
        let answer = node.members_only(&held);
        assert_eq!((answer.status, answer.code()), (401, "session_revoked".to_owned()), "{answer:?}");
    }
    // A new password ends the others, wherever they are.
    let mut own = nodes[0].sign_in("ann@example.com");
    let change = json!({ "password": "another-lantern-oboe-38", "password_confirmation": "another-lantern-oboe-38",
        "current_password": PASSWORD });
    let answer = nodes[0].request("PUT", "/auth").held(&own).json(&change).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    own.adopt(&answer);
    assert_eq!(nodes[1].members_only(&elsewhere).code(), "session_revoked");
    assert_eq!(nodes[1].members_only(&own).status, 200);
}

#[test]
fn of_twenty_requests_at_once_over_two_nodes_one_carries_the_new_token() {
    twenty_at_once(&Cluster::new());
}

pub(crate) fn twenty_at_once(cluster: &Cluster) {
    let nodes: Arc<[Baton; 2]> = Arc::new(cluster.nodes(&[]));
    for round in 0..5 {
        let held = nodes[0].register(&format!("ann{round}@example.com"));
        let barrier = Arc::new(Barrier::new(20));
        let requests: Vec<_> = (0..20)
            .map(|number| {
                let call = nodes[number % 2].get("/demo/members_only").held(&held);
                let barrier = barrier.clone();
                thread::spawn(move || {
                    let agent = agent();
                    barrier.wait();
                    call.try_send_on(&agent).expect("it is answered")
                })
            })
            .collect();
        let answers: Vec<Answer> = requests.into_iter().map(|request| request.join().expect("no panic")).collect();
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        let tokens: Vec<Held> = answers.iter().filter_map(Answer::held).collect();
        assert_eq!(tokens.len(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer.is_blank()).count(), 19, "{answers:?}");
        assert_eq!(nodes[1].members_only(&tokens[0]).status, 200);
    }
}

#[test]
fn servers_that_start_at_once_on_an_empty_database_share_it() {
    let cluster = Arc::new(Cluster::new());
    let barrier = Arc::new(Barrier::new(6));
    let starting: Vec<_> = (0..6)
        .map(|_| {
            let (cluster, barrier) = (cluster.clone(), barrier.clone());
            thread::spawn(move || {
                barrier.wait();
                cluster.node(&EVERY_REQUEST_ROTATES)
            })
        })
        .collect();
    let nodes: Vec<Baton> = starting.into_iter().map(|starting| starting.join().expect("it starts")).collect();
    let mut held = nodes[0].register("ann@example.com");
    for node in &nodes {
        assert!(held.adopt(&node.members_only(&held)));
    }
    // The whole of their logs.
    nodes.iter().for_each(Baton::stop);
    let made = nodes.iter().filter(|node| node.log().contains("database schema brought up to date")).count();
    assert_eq!(made, 1, "the schema is made once");
}

/// Every route, each as it would be let through.
fn calls(node: &Baton, held: &Held, links: &[String]) -> Vec<Call> {
    let new = "velvet-otter-pancake-91";
    let credentials = |email: &str| json!({ "email": email, "password": PASSWORD });
    let letter = json!({ "email": "ann@example.com", "redirect_url": "http://localhost:5173/here" });
    let password = json!({ "password": new, "password_confirmation": new, "current_password": PASSWORD });
    let mut calls = vec![
        node.get("/demo/members_only").held(held),
        node.get("/demo/status?code=500").held(held),
        node.get("/auth/validate_token").held(held),
        node.get("/auth/sessions").held(held),
        node.request("DELETE", &format!("/auth/sessions/{}", held.client)).held(held),
        node.request("DELETE", "/auth/sign_out").held(held),
        node.request("PUT", "/auth").held(held).json(&json!({ "name": "Ann" })),
        node.request("PATCH", "/auth").held(held).json(&json!({ "email": "other@example.com" })),
        node.request("PUT", "/auth/password").held(held).json(&password),
        node.request("DELETE", "/auth").held(held),
        node.post("/auth", &credentials("bob@example.com")),
        node.post("/auth/sign_in", &credentials("ann@example.com")),
        node.post("/auth/sign_in", &credentials("nobody@example.com")),
        node.post("/auth/sign_in", &json!({ "email": "ann@example.com", "password": "wrong" })),
        node.post("/auth/password", &letter),
        node.post("/auth/confirmation", &letter),
        node.post("/auth/unlock", &letter),
    ];
    calls.extend(links.iter().map(|link| node.get(link)));
    calls
}

fn at_once(calls: &[Call]) -> Vec<Answer> {
    thread::scope(|scope| {
        let requests: Vec<_> = calls.iter().map(|call| scope.spawn(|| call.send())).collect();
        requests.into_iter().map(|request| request.join().expect("it is answered")).collect()
    })
}

/// The path and query of the link in the newest letter to this address.
fn link(node: &Baton, email: &str, occasion: &str) -> String {
    let found = eventually("a letter", || {
        let list = node.get("/dev/mailbox.json").send().json();
        let of = |mail: &serde_json::Value| mail["to"] == email && mail["link"].to_string().contains(occasion);
        let mails = list.as_array().or_else(|| list["mails"].as_array())?;
        let link = mails.iter().find(|mail| of(mail))?["link"].as_str()?.to_owned();
        Some(link)
    });
    found.strip_prefix(&node.url("")).expect("an address of its own").to_owned()
}

#[test]
fn while_the_database_is_away_every_route_says_so_and_nobody_is_signed_out() {
    let server = Arc::new(Server::own(&[]));
    let cluster = Cluster::on(server.clone(), "baton");
    let args = [&EVERY_REQUEST_ROTATES[..], &["--set", "lockable.enabled=true", "--set", "confirmable=true"]].concat();
    let first = cluster.node(&args);
    first.post("/auth", &json!({ "email": "ann@example.com", "password": PASSWORD })).send();
    assert_eq!(first.get(&link(&first, "ann@example.com", "confirmation_token")).send().status, 200);
    // Links that are good, and stay so.
    first.post("/auth", &json!({ "email": "eve@example.com", "password": PASSWORD })).send();
    let confirmation = link(&first, "eve@example.com", "confirmation_token");
    let letter = json!({ "email": "ann@example.com", "redirect_url": "http://localhost:5173/here" });
    first.post("/auth/password", &letter).send();
    let reset = link(&first, "ann@example.com", "reset_password_token");
    let second = cluster.node(&args);
    let nodes = [&first, &second];
    let mut held = first.sign_in("ann@example.com");
    assert!(held.adopt(&second.members_only(&held)));

    server.kill();
    for node in nodes {
        let calls = calls(node, &held, &[confirmation.clone(), reset.clone()]);
        for (call, answer) in calls.iter().zip(at_once(&calls)) {
            let (code, seconds) = (answer.code(), answer.header("retry-after").parse::<u32>());
            assert_eq!((answer.status, &*code), (503, "unavailable"), "{call:?}: {answer:?}");
            assert!(seconds.is_ok_and(|seconds| seconds > 0), "{call:?}: {answer:?}");
            let body = answer.body.to_lowercase();
            for cause in ["postgres", "sql", "connect", "127.0.0.1", "store", "database", &server.port.to_string()] {
                assert!(!body.contains(cause), "{cause}: {call:?}: {answer:?}");
            }
            assert!(answer.held().is_none() && !answer.is_blank(), "{call:?}: {answer:?}");
        }
        // Who presents nothing good is told so all the same, and who asks for nothing of the database is answered.
        let forged = Held { token: "EAAAAAFkTx5rTaJ8mOJUVdIYgmnf".into(), ..held.clone() };
        assert_eq!(node.members_only(&forged).code(), "token_invalid");
        assert_eq!(node.get("/healthz").send().status, 200);
        let ready = node.get("/readyz").send();
        assert_eq!((ready.status, ready.code()), (503, "unavailable".to_owned()), "{ready:?}");
        assert!(!ready.header("retry-after").is_empty() && !ready.body.contains("postgres"), "{ready:?}");
        // The log names the store and the cause.
        for told in ["PostgreSQL cannot be reached", "not ready error=postgres: ", "could not authenticate a request"] {
            node.wait_for_log(told);
        }
        node.wait_for_log("refused");
    }

    server.restart(&[]);
    for node in nodes {
        eventually("ready again", || (node.get("/readyz").send().status == 200).then_some(()));
        node.wait_for_log("PostgreSQL can be reached again");
        for _ in 0..3 {
            let answer = node.members_only(&held);
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(held.adopt(&answer), "it rotates: {answer:?}");
        }
    }
    // Nothing came of what was refused: the account and its password are as they were, the links are good.
    assert_eq!(first.get(&reset).send().status, 302);
    assert_eq!(second.get(&confirmation).send().status, 200);
    assert_eq!(second.sign_in("ann@example.com").uid, "ann@example.com");
    let names = second.get("/auth/validate_token").held(&held).send().json();
    assert_eq!(names["data"]["name"], serde_json::Value::Null, "{names}");
}

#[test]
fn a_server_does_not_start_without_its_database_and_says_why() {
    let server = Arc::new(Server::own(&["-c", "fsync=off"]));
    let cluster = Cluster::on(server.clone(), "baton");
    server.kill();
    let mut args = vec!["dev", "--listen", "127.0.0.1:0", "--data-dir", cluster.folder.path().to_str().unwrap()];
    args.extend(cluster.settings.iter().flat_map(|setting| ["--set", setting.as_str()]));
    let ended = run(&args);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("the database cannot be used: postgres: connect: "), "{ended:?}");
    assert_eq!(cluster.server.port, server.port);
}
