//! Throw-away Redis servers: one, one with replicas, a cluster of six, sentinels.

use std::fs::File;
use std::os::unix::process::{CommandExt as _, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

/// Nodes of a cluster: three primaries, with a replica each.
const CLUSTER: usize = 6;

/// A server that is running. It writes nothing to the disk unless its settings say so.
#[derive(Debug)]
pub struct Server {
    /// On 127.0.0.1.
    pub port: u16,
    folder: PathBuf,
    settings: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl Server {
    /// One that belongs to a single test, with these settings (`["--appendonly", "yes"]`).
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn own(settings: &[&str]) -> Self {
        Self::run(&["redis-server"], settings)
    }

    /// A replica of `primary`, once it has all that is there.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn replica_of(primary: u16) -> Self {
        let replica = Self::own(&["--replicaof", &format!("127.0.0.1 {primary}"), "--repl-diskless-sync-delay", "0"]);
        wait_for("a replica", || replica.says(&["ROLE"]).contains("connected"));
        replica
    }

    /// A sentinel that watches over the primary at this port, by the name of `main`, and by itself decides that it is gone
    /// after half a second.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn sentinel_of(primary: u16) -> Self {
        let sentinel = Self::run(&["redis-server", "sentinel.conf", "--sentinel"], &[]);
        for settings in [
            &["SENTINEL", "MONITOR", "main", "127.0.0.1", &primary.to_string(), "1"][..],
            &["SENTINEL", "SET", "main", "down-after-milliseconds", "500", "failover-timeout", "2000"],
        ] {
            assert_eq!(sentinel.says(settings).trim(), "OK");
        }
        wait_for("the replicas", || sentinel.says(&["SENTINEL", "REPLICAS", "main"]).contains("runid"));
        sentinel
    }

    fn run(program: &[&str], settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("baton-redis-").tempdir().expect("a folder").keep();
        std::fs::write(folder.join("sentinel.conf"), "").expect("write");
        watch(std::process::id(), &folder);
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        for _ in 0..10 {
            let port = crate::free_port();
            if let Some(child) = launch(program, &folder, port, &settings) {
                return Self { port, folder, settings, child: Mutex::new(Some(child)) };
            }
        }
        panic!("Redis does not start: {}", std::fs::read_to_string(folder.join("log")).unwrap_or_default());
    }

    /// Ends it as a crash would, but for what the kernel still writes.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&self) {
        let mut child = self.child.lock().take().expect("it runs");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&self) {
        let started = launch(&["redis-server"], &self.folder, self.port, &self.settings);
        *self.child.lock() = Some(started.expect("Redis does not start again"));
    }

    /// What it answers to a command.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn says(&self, command: &[&str]) -> String {
        ask(self.port, command)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.get_mut().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A cluster that belongs to a single test.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Three primaries, with a replica each.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn own() -> Self {
        let nodes: Vec<Server> = (0..CLUSTER)
            .map(|_| {
                let settings = cluster_settings();
                Server::own(&settings.iter().map(String::as_str).collect::<Vec<_>>())
            })
            .collect();
        let cluster = Self { nodes };
        join(&cluster.ports());
        cluster
    }

    /// Of its nodes.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    /// # Panics
    /// If there is none.
    pub fn kill_a_primary(&self) {
        let primary = self.nodes.iter().find(|node| node.says(&["ROLE"]).starts_with("master"));
        primary.expect("a primary").kill();
    }
}

/// With a port of its own on which the nodes talk to each other.
fn cluster_settings() -> Vec<String> {
    let bus = crate::free_port().to_string();
    let settings = [
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "1000",
        "--repl-diskless-sync-delay",
        "0",
        "--cluster-port",
        &bus,
    ];
    settings.map(str::to_owned).to_vec()
}

/// The port of the server that the tests share: those of one run of nextest, or else of this process. It is ended when whoever
/// runs them has ended, in whatever way.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn shared() -> u16 {
    static PORT: OnceLock<u16> = OnceLock::new();
    *PORT.get_or_init(|| shared_by("one", |folder| vec![start_shared(folder, &[])])[0])
}

/// The ports of the cluster that the tests share, in the same way.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn shared_cluster() -> Vec<u16> {
    static PORTS: OnceLock<Arc<[u16]>> = OnceLock::new();
    let start = |folder: &Path| {
        let ports: Vec<u16> = (0..CLUSTER)
            .map(|number| {
                let folder = folder.join(number.to_string());
                std::fs::create_dir_all(&folder).expect("a folder");
                start_shared(&folder, &cluster_settings())
            })
            .collect();
        join(&ports);
        ports
    };
    PORTS.get_or_init(|| shared_by("cluster", start).into()).to_vec()
}

/// Makes a cluster of nodes that are running.
fn join(ports: &[u16]) {
    let output = Command::new("redis-cli")
        .args(["--cluster", "create", "--cluster-replicas", "1", "--cluster-yes"])
        .args(ports.iter().map(|port| format!("127.0.0.1:{port}")))
        .output()
        .expect("run redis-cli");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    for port in ports {
        wait_for("the cluster", || ask(*port, &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    }
}

fn shared_by(what: &str, start: impl FnOnce(&Path) -> Vec<u16>) -> Vec<u16> {
    let (key, owner) = match std::env::var("NEXTEST_RUN_ID") {
        Ok(run) => (run, parent_id()),
        Err(_) => (std::process::id().to_string(), std::process::id()),
    };
    let folder = std::env::temp_dir().join(format!("baton-redis-{what}-{key}"));
    let lock = File::create(format!("{}.lock", folder.display())).expect("a lock file");
    lock.lock().expect("the lock");
    let ready = folder.join("ports");
    if let Ok(ports) = std::fs::read_to_string(&ready) {
        return ports.split_whitespace().map(|port| port.parse().expect("a port")).collect();
    }
    std::fs::create_dir_all(&folder).expect("a folder");
    watch(owner, &folder);
    let ports = start(&folder);
    let text: Vec<String> = ports.iter().map(ToString::to_string).collect();
    std::fs::write(&ready, text.join(" ")).expect("write the ports");
    ports
}

fn start_shared(folder: &Path, settings: &[String]) -> u16 {
    for _ in 0..10 {
        let port = crate::free_port();
        if launch(&["redis-server"], folder, port, settings).is_some() {
            return port;
        }
    }
    panic!("Redis does not start: {}", std::fs::read_to_string(folder.join("log")).unwrap_or_default());
}

/// `None` if it ends at once: another process may have been quicker to take the port.
fn launch(program: &[&str], folder: &Path, port: u16, settings: &[String]) -> Option<Child> {
    let log = File::options().create(true).append(true).open(folder.join("log")).expect("a log");
    let pid_file = folder.join("pid");
    let _ = std::fs::remove_file(&pid_file);
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--pidfile"])
        .arg(&pid_file)
        .args(["--dir", ".", "--save", ""])
        .args(settings)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}. Install it: apt-get install -y redis-server", program[0]));
    std::fs::write(&pid_file, child.id().to_string()).expect("write");
    for _ in 0..600 {
        let answer = ask(port, &["PING"]);
        if answer.contains("PONG") || answer.contains("NOAUTH") {
            return Some(child);
        }
        if child.try_wait().expect("wait").is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("Redis is not ready after 12 s");
}

fn ask(port: u16, command: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(command).output();
    let output =
        output.unwrap_or_else(|error| panic!("redis-cli: {error}. Install it: apt-get install -y redis-tools"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    for _ in 0..600 {
        if there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}: not there after 30 s");
}

/// Ends the servers in a folder and removes their files when `owner` is gone, also if that was killed.
fn watch(owner: u32, folder: &Path) {
    let script = "(
        while kill -0 \"$1\" 2>/dev/null; do sleep 0.5; done
        for pid in \"$2\"/pid \"$2\"/*/pid; do kill -9 \"$(cat \"$pid\")\"; done
        sleep 0.2
        rm -rf \"$2\" \"$2.lock\"
    ) </dev/null >/dev/null 2>&1 &";
    let status = Command::new("sh")
        .args(["-c", script, "watch", &owner.to_string()])
        .arg(folder)
        .process_group(0)
        .status()
        .expect("run sh");
    assert!(status.success());
}
