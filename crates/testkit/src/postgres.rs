//! Throw-away PostgreSQL servers.

use std::fs::File;
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::os::unix::process::{CommandExt as _, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

/// A server that is running.
#[derive(Debug)]
pub struct Server {
    /// On 127.0.0.1.
    pub port: u16,
    folder: PathBuf,
    /// `None` for the one that is shared: somebody else ends that.
    own: Mutex<Option<Child>>,
}

/// The server that the tests share: those of one run of nextest, or else of this process. It is ended when whoever runs them
/// has ended, in whatever way.
///
/// It may lose what a crash would undo: `fsync` is off.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn shared() -> Arc<Server> {
    static SERVER: OnceLock<Arc<Server>> = OnceLock::new();
    SERVER
        .get_or_init(|| {
            let (key, owner) = match std::env::var("NEXTEST_RUN_ID") {
                Ok(run) => (run, parent_id()),
                Err(_) => (std::process::id().to_string(), std::process::id()),
            };
            let folder = std::env::temp_dir().join(format!("baton-postgres-{key}"));
            let lock = File::create(format!("{}.lock", folder.display())).expect("a lock file");
            lock.lock().expect("the lock");
            let ready = folder.join("port");
            let port = match std::fs::read_to_string(&ready) {
                Ok(port) => port.parse().expect("a port"),
                Err(_) => {
                    std::fs::create_dir_all(&folder).expect("a folder");
                    prepare(&folder);
                    let (_, port) = start(&folder, &["-c", "fsync=off"]);
                    watch(owner, &folder);
                    std::fs::write(&ready, port.to_string()).expect("write the port");
                    port
                }
            };
            Arc::new(Server { port, folder, own: Mutex::new(None) })
        })
        .clone()
}

/// A name for a schema that nobody else uses on the server that is shared.
#[must_use]
pub fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Server {
    /// One that belongs to a single test, with these settings (`["-c", "fsync=off"]`).
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn own(settings: &[&str]) -> Self {
        Self::own_below(&std::env::temp_dir(), settings)
    }

    /// The same, with its files in a folder below `parent`.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn own_below(parent: &Path, settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("baton-postgres-").tempdir_in(parent).expect("a folder").keep();
        prepare(&folder);
        let (child, port) = start(&folder, settings);
        watch(std::process::id(), &folder);
        Self { port, folder, own: Mutex::new(Some(child)) }
    }

    /// Ends it as a crash of the machine would, but for what the kernel still writes.
    ///
    /// # Panics
    /// If it does not run, or is the shared one.
    pub fn kill(&self) {
        let mut child = self.own.lock().take().expect("it runs, and is the test's own");
        let helpers = crate::children(child.id());
        child.kill().expect("kill");
        child.wait().expect("wait");
        // They notice by themselves, but go on until then, and one of them writes the log to the disk.
        crate::kill_all(&helpers);
    }

    /// Whether it has not ended by itself, as it does when it cannot write its log.
    ///
    /// # Panics
    /// If it is the shared one.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let mut own = self.own.lock();
        own.as_mut().is_some_and(|child| child.try_wait().expect("wait").is_none())
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&self, settings: &[&str]) {
        // What the server had started ends when it notices that the server is gone; until then it holds the memory.
        for _ in 0..100 {
            if let Some(child) = launch(&self.folder, self.port, settings) {
                *self.own.lock() = Some(child);
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("PostgreSQL does not start again");
    }

    /// The URL with which baton uses this schema.
    #[must_use]
    pub fn url(&self, schema: &str) -> String {
        format!("postgres://baton@127.0.0.1:{}/postgres?sslmode=disable&schema={schema}", self.port)
    }

    /// A connection as superuser. Needs a tokio runtime.
    ///
    /// # Panics
    /// If there is none to be had.
    pub async fn client(&self) -> tokio_postgres::Client {
        let url = format!("postgres://baton@127.0.0.1:{}/postgres?sslmode=disable", self.port);
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connect");
        tokio::spawn(connection);
        client
    }

    /// Where the test may leave files that the server reads.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.own.get_mut().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A PgBouncer that is running, with `pool_mode = transaction`.
#[derive(Debug)]
pub struct PgBouncer {
    /// On 127.0.0.1.
    pub port: u16,
    child: Child,
    _folder: tempfile::TempDir,
}

impl PgBouncer {
    /// Before the server on this port. It has fewer connections to that than a store has to it, so that each statement may meet
    /// another one.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn before(server: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        give(folder.path());
        let port = crate::free_port();
        let settings = format!(
            "[databases]\npostgres = host=127.0.0.1 port={server} dbname=postgres user=baton\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n\
             max_client_conn = 500\n"
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).expect("write");
        let child = unprivileged(&mut Command::new("pgbouncer"))
            .arg(&file)
            .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("pgbouncer: {error}. Install it: apt-get install -y pgbouncer"));
        let started = Self { port, child, _folder: folder };
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return started;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("PgBouncer is not ready after 10 s");
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of PostgreSQL's.
fn program(name: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found
        .pop()
        .or_else(|| std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.exists()))
        .unwrap_or_else(|| panic!("PostgreSQL is missing ({name}). Install it: apt-get install -y postgresql"))
}

/// Has a command run as somebody else than root, which PostgreSQL and PgBouncer refuse to run as.
pub fn unprivileged(command: &mut Command) -> &mut Command {
    if let Some(uid) = demoted() { command.uid(uid).gid(uid) } else { command }
}

/// The user to run as, if this one is root: nobody.
fn demoted() -> Option<u32> {
    let id = Command::new("id").arg("-u").output().expect("id");
    (id.stdout == b"0\n").then_some(65_534)
}

/// Makes a file or folder theirs who run [`unprivileged`].
///
/// # Panics
/// If it cannot be.
pub fn give(path: &Path) {
    if let Some(uid) = demoted() {
        chown(path, Some(uid), Some(uid)).expect("chown");
    }
}

fn prepare(folder: &Path) {
    give(folder);
    let output = unprivileged(&mut Command::new(program("initdb")))
        // Segments of 1 MiB, so that it fits on a small disk.
        .args(["-A", "trust", "-U", "baton", "-E", "UTF8", "--no-locale", "--no-sync", "--wal-segsize=1", "-D"])
        .arg(folder.join("data"))
        .current_dir(folder)
        .output()
        .expect("run initdb");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// On a port that is free; another process may be quicker to take it.
fn start(folder: &Path, settings: &[&str]) -> (Child, u16) {
    for _ in 0..10 {
        let port = crate::free_port();
        if let Some(child) = launch(folder, port, settings) {
            return (child, port);
        }
    }
    panic!("PostgreSQL does not start: {}", std::fs::read_to_string(folder.join("log")).unwrap_or_default());
}

fn launch(folder: &Path, port: u16, settings: &[&str]) -> Option<Child> {
    let log = File::options().create(true).append(true).open(folder.join("log")).expect("a log");
    let mut child = unprivileged(&mut Command::new(program("postgres")))
        .arg("-D")
        .arg(folder.join("data"))
        .args(["-p", &port.to_string(), "-k", "", "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=500"])
        .args(["-c", "shared_buffers=32MB", "-c", "autovacuum=off"])
        .args(settings)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .process_group(0)
        .spawn()
        .expect("run postgres");
    for _ in 0..600 {
        let ready = Command::new(program("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-U", "baton", "-d", "postgres", "-p", &port.to_string()])
            .status()
            .expect("run pg_isready");
        if ready.success() {
            return Some(child);
        }
        if child.try_wait().expect("wait").is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("PostgreSQL is not ready after 30 s");
}

/// Ends the server and removes its files when `owner` is gone, also if that was killed.
fn watch(owner: u32, folder: &Path) {
    let script = "(
        while kill -0 \"$1\" 2>/dev/null; do sleep 0.5; done
        kill -QUIT \"$(head -n 1 \"$2/data/postmaster.pid\")\" 2>/dev/null
        sleep 1
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
