//! Nodes on one store, with clients at work.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use baton_testkit::{postgres, redis};
use fastrand::Rng;
use http::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Failure;
use crate::clients::{follow, renew_password, steal};
use crate::history::{Fault, History, Phase};
use crate::node::{Node, Program, sqlite_url};
use crate::proxy::{Proxy, Way};
use crate::world::{PASSWORD, World};

/// Short, so that there are many rotations; long enough for two round trips on a busy machine.
pub(crate) const BUFFER: Duration = Duration::from_secs(3);
/// For how long a node may answer whether it is ready without asking its store.
const READINESS: Duration = Duration::from_millis(1_200);
/// From the beginning of a rush to the fault in it.
const RUSH: Duration = Duration::from_millis(60);
/// Clients that share an account.
const DEVICES: usize = 10;
/// Of so many clients one signs out every now and then.
const ONE_SIGNS_OUT: usize = 8;
const THIEVES: usize = 6;
/// Clients that set new passwords all the time.
const CHANGERS: usize = 2;

/// What is to be run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) baton: PathBuf,
    pub(crate) store: Kind,
    pub(crate) forgiving: bool,
    pub(crate) clients: usize,
    /// A small file system of its own, which is filled.
    pub(crate) small_disk: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    /// The sessions; the accounts are in PostgreSQL.
    Redis,
    Sqlite,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Sqlite => "sqlite",
        }
    }
}

/// What the nodes keep their sessions in.
pub(crate) enum Store {
    Postgres(postgres::Server),
    Redis(Box<Redis>),
    Sqlite,
}

/// A primary with one replica, which sign-outs and sign-ins wait for.
pub(crate) struct Redis {
    pub(crate) accounts: postgres::Server,
    pub(crate) primary: redis::Server,
    pub(crate) replica: redis::Server,
}

/// A run.
pub(crate) struct Cluster {
    pub(crate) world: Arc<World>,
    pub(crate) nodes: Vec<Node>,
    /// One for each node; none if the store is a file.
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) store: Store,
    /// On the small disk.
    folder: tempfile::TempDir,
    clients: JoinSet<()>,
}

/// PostgreSQL's settings: the defaults, on a small disk.
const POSTGRES: [&str; 6] = ["-c", "min_wal_size=2MB", "-c", "max_wal_size=16MB", "-c", "autovacuum=on"];

pub(crate) fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn postgres_url(address: SocketAddr) -> String {
    format!("postgres://baton@{address}/postgres?sslmode=disable")
}

impl Cluster {
    /// Starts everything, and has the clients sign in.
    pub(crate) async fn start(plan: &Plan, rng: &mut Rng) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("baton-faults-").tempdir_in(&plan.small_disk);
        let folder = folder.map_err(Failure::io("a folder on the small disk"))?;
        let world = World::new(History { buffer: BUFFER, forgiving: plan.forgiving, ..History::default() });
        let program = Program {
            baton: plan.baton.clone(),
            settings: vec![
                format!("batch_request_buffer_throttle={}ms", BUFFER.as_millis()),
                format!("forgive_lost_responses={}", plan.forgiving),
                "max_number_of_devices=100000".into(),
                "log.format=json".into(),
            ],
            folder: folder.path().to_owned(),
        };
        let (store, settings, behind) = match plan.store {
            Kind::Postgres => {
                let server = postgres::Server::own_below(&plan.small_disk, &POSTGRES);
                let port = server.port;
                (Store::Postgres(server), vec![], Some(port))
            }
            Kind::Redis => {
                let accounts = postgres::Server::own_below(&plan.small_disk, &POSTGRES);
                let primary = redis::Server::own(&[]);
                let replica = redis::Server::replica_of(primary.port);
                let settings = vec![
                    format!("store.url={}", postgres_url(local(accounts.port))),
                    "sessions.wait_replicas=1".into(),
                ];
                let port = primary.port;
                (Store::Redis(Box::new(Redis { accounts, primary, replica })), settings, Some(port))
            }
            Kind::Sqlite => (Store::Sqlite, vec![format!("store.url={}", sqlite_url(folder.path()))], None),
        };
        let (mut nodes, mut proxies) = (Vec::new(), Vec::new());
        // A file is for one process.
        for number in 0..if behind.is_some() { 3 } else { 1 } {
            let mut settings = settings.clone();
            if let Some(port) = behind {
                let proxy = Proxy::before(local(port)).await.map_err(Failure::io("a proxy"))?;
                settings.push(match plan.store {
                    Kind::Redis => format!("sessions.url=redis://{}", proxy.address),
                    _ => format!("store.url={}", postgres_url(proxy.address)),
                });
                proxies.push(proxy);
            }
            nodes.push(Node::new(number, program.clone(), settings));
        }
        for node in &mut nodes {
            node.step_clock(0)?;
            node.start(&world).await?;
        }
        let mut cluster = Self { world, nodes, proxies, store, folder, clients: JoinSet::new() };
        cluster.let_in(plan.clients, rng).await?;
        Ok(cluster)
    }

    async fn let_in(&mut self, clients: usize, rng: &mut Rng) -> Result<(), Failure> {
        let email = |number: usize| format!("user-{number}@example.com");
        let changer = |number: usize| format!("changer-{number}@example.com");
        for email in (0..clients.div_ceil(DEVICES)).map(email).chain((0..CHANGERS).map(changer)) {
            self.register(&email).await?;
        }
        for number in 0..clients {
            let signs_out = number % ONE_SIGNS_OUT == 0;
            self.clients.spawn(follow(self.world.clone(), email(number / DEVICES), signs_out, rng.fork()));
        }
        for number in 0..CHANGERS {
            self.clients.spawn(renew_password(self.world.clone(), changer(number), rng.fork()));
        }
        for _ in 0..THIEVES {
            self.clients.spawn(steal(self.world.clone(), rng.fork()));
        }
        // Until most of them are at work: passwords are hashed one after the other.
        loop {
            let mut signed_in = 0;
            self.world.write(|history| signed_in = history.sessions.len());
            if signed_in >= clients {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn register(&self, email: &str) -> Result<(), Failure> {
        let reply = self.world.post("/auth", &json!({ "email": email, "password": PASSWORD })).await;
        match reply.credentials {
            Some(_) => Ok(()),
            None => Err(Failure::Server(format!("an account cannot be made: {:?}", reply.answer))),
        }
    }

    /// Lets the clients end, and takes the history.
    pub(crate) async fn end(mut self) -> Result<History, Failure> {
        self.world.end();
        while let Some(ended) = self.clients.join_next().await {
            ended.map_err(|error| Failure::Server(format!("a client: {error}")))?;
        }
        Ok(self.world.take_history())
    }

    /// Begins a part that is reported by itself.
    pub(crate) fn begin(&self, name: &str) {
        let now = self.world.now();
        let phase = Phase { name: name.to_owned(), from: now, until: Duration::MAX };
        self.world.write(|history| {
            if let Some(last) = history.phases.last_mut() {
                last.until = now;
            }
            history.phases.push(phase);
        });
    }

    /// A fault that begins now, while everybody is busy. Nothing is known of it before [`over`](Self::over).
    pub(crate) async fn fault(&self, name: &str, loses: Option<Duration>) -> Fault {
        self.world.rush();
        // So long that what the clients ask for now is partly done and partly on its way.
        sleep(RUSH).await;
        Fault { name: name.to_owned(), from: self.world.now(), until: Duration::MAX, loses, away: None }
    }

    /// Waits until all is well again, which has to come by itself.
    pub(crate) async fn over(&self, mut fault: Fault) -> Result<(), Failure> {
        sleep(READINESS).await;
        for number in 0..self.world.nodes() {
            self.ready(number, &fault.name).await?;
        }
        fault.until = self.world.now();
        self.world.write(|history| history.faults.push(fault));
        Ok(())
    }

    async fn ready(&self, number: usize, after: &str) -> Result<(), Failure> {
        for _ in 0..300 {
            let address = self.world.node(number);
            let get = (Method::GET, "/readyz");
            let reply = self.world.http.send(address, get, None, None, Duration::from_secs(5)).await;
            if matches!(reply.answer, crate::history::Answer::Said { status: 200, .. }) {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Err(Failure::Server(format!("{after}: node {number} does not go on by itself")))
    }

    pub(crate) fn set_ways(&self, way: Way) {
        for proxy in &self.proxies {
            proxy.set(way);
        }
    }

    /// The file that takes what room there is.
    pub(crate) fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }

    pub(crate) fn restart_postgres(server: &postgres::Server) {
        server.restart(&POSTGRES);
    }
}
