//! Processes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpSocket;

use super::backend::nobody_at;
use super::{Answer, Call, Held, PASSWORD};

/// The program.
const BIN: &str = env!("CARGO_BIN_EXE_baton");
/// Longer than anything here takes on the busiest of machines; reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// `baton ARGS`, with nothing of the test's own environment.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(BIN);
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// Runs `baton ARGS` to its end.
pub fn run(args: &[&str]) -> Ended {
    match Started::of(command(args)) {
        Ok(started) => panic!("this was to end by itself: baton {args:?}: {}", started.line),
        Err(ended) => ended,
    }
}

/// Waits until `condition` holds.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    const PAUSE: Duration = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(waited < PATIENCE, "never happened: {what}");
        thread::sleep(PAUSE);
        waited += PAUSE;
    }
}

/// A process that has said where it listens.
struct Started {
    child: Child,
    line: String,
    log: Arc<Mutex<String>>,
    /// What fills the log; gone once it has been waited for.
    collector: Option<JoinHandle<()>>,
}

impl Started {
    /// `Err` if it ended without a line of that kind.
    fn of(mut command: Command) -> Result<Self, Ended> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let log = Arc::new(Mutex::new(String::new()));
        let collected = log.clone();
        let collector = thread::spawn(move || {
            for line in BufReader::new(err).split(b'\n').map_while(Result::ok) {
                let mut log = collected.lock().expect("not poisoned");
                log.push_str(&String::from_utf8_lossy(&line));
                log.push('\n');
            }
        });
        let (first, line) = mpsc::channel();
        thread::spawn(move || {
            let mut out = BufReader::new(out);
            let mut line = String::new();
            if out.read_line(&mut line).is_ok() && line.starts_with("listening on ") {
                let _ = first.send(Ok(line));
                let _ = std::io::copy(&mut out, &mut std::io::sink());
            } else {
                let _ = out.read_to_string(&mut line);
                let _ = first.send(Err(line));
            }
        });
        match line.recv_timeout(PATIENCE) {
            Ok(Ok(line)) => Ok(Self { child, line, log, collector: Some(collector) }),
            Ok(Err(stdout)) => {
                let status = wait(&mut child);
                collector.join().expect("the log was collected");
                let stderr = log.lock().expect("not poisoned").clone();
                Err(Ended { status, stdout, stderr })
            }
            Err(_) => {
                let _ = child.kill();
                panic!("neither listened nor ended: {}", log.lock().expect("not poisoned"));
            }
        }
    }

    /// Waits for its end, and for the last line of its log.
    fn wait(&mut self) -> ExitStatus {
        let status = wait(&mut self.child);
        if let Some(collector) = self.collector.take() {
            collector.join().expect("the log was collected");
        }
        status
    }

    fn address(&self) -> SocketAddr {
        let address = self.line.strip_prefix("listening on http://").and_then(|rest| rest.strip_suffix('\n'));
        address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("unexpected line {:?}", self.line))
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    eventually("the process ends", || child.try_wait().expect("a child can be waited for"))
}

/// A running server. It is killed when this goes.
pub struct Baton {
    pub address: SocketAddr,
    args: Vec<String>,
    started: Mutex<Started>,
    /// Everything that earlier processes of this server logged.
    earlier: Mutex<String>,
    folder: Folder,
    /// Its address, when it has been stopped.
    kept: OnceLock<TcpSocket>,
}

enum Folder {
    Own(tempfile::TempDir),
    Given(PathBuf),
}

impl Baton {
    /// `baton dev ARGS` with a data folder of its own.
    pub fn dev(args: &[&str]) -> Self {
        Self::start(Folder::Own(tempfile::tempdir().expect("a temporary folder")), args)
            .unwrap_or_else(|ended| panic!("{ended:?}"))
    }

    /// `baton dev ARGS` with this data folder. `Err` if it does not start.
    pub fn dev_in(folder: &Path, args: &[&str]) -> Result<Self, Ended> {
        Self::start(Folder::Given(folder.to_owned()), args)
    }

    fn start(folder: Folder, args: &[&str]) -> Result<Self, Ended> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let dev = dev_command(folder.path(), "127.0.0.1:0", &args);
        Self::of(dev, folder, args)
    }

    /// A server that any command starts, with `folder` as its data folder.
    pub fn of_command(command: Command, folder: &Path) -> Result<Self, Ended> {
        Self::of(command, Folder::Given(folder.to_owned()), Vec::new())
    }

    fn of(command: Command, folder: Folder, args: Vec<String>) -> Result<Self, Ended> {
        let started = Started::of(command)?;
        let address = started.address();
        Ok(Self {
            address,
            args,
            started: Mutex::new(started),
            earlier: Mutex::default(),
            folder,
            kept: OnceLock::new(),
        })
    }

    /// Its data folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        let now = self.started().log.lock().expect("not poisoned").clone();
        self.earlier.lock().expect("not poisoned").clone() + &now
    }

    /// Waits until the log holds `text`.
    pub fn wait_for_log(&self, text: &str) {
        eventually(&format!("{text:?} in the log"), || self.log().contains(text).then_some(()));
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.started().child.id()
    }

    /// `baton dev` in front of backends: these tables `[[upstream]]`, written as TOML between braces.
    pub fn before(upstreams: &[String], args: &[&str]) -> Self {
        let upstreams = upstreams.iter().map(|table| format!("{{ {table} }}")).collect::<Vec<_>>().join(", ");
        let upstreams = format!("upstream=[{upstreams}]");
        Self::dev(&[&["--set", &upstreams], args].concat())
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.send(Signal::TERM);
    }

    pub fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.started().child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end.
    pub fn wait(&self) -> ExitStatus {
        self.started().wait()
    }

    /// SIGTERM, and waits for an orderly end.
    pub fn stop(&self) {
        self.terminate();
        let status = self.wait();
        assert!(status.success(), "{status:?}: {}", self.log());
        self.kept.get_or_init(|| nobody_at(self.address));
    }

    /// `kill -9`, and starts it again at the same address with the same data.
    pub fn kill_and_restart(&self) {
        let mut started = self.started();
        started.child.kill().expect("it can be killed");
        started.wait();
        self.earlier.lock().expect("not poisoned").push_str(&started.log.lock().expect("not poisoned"));
        let again = dev_command(self.folder(), &self.address.to_string(), &self.args);
        *started = Started::of(again).unwrap_or_else(|ended| panic!("{ended:?}"));
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request without credentials.
    pub fn request(&self, method: &str, path: &str) -> Call {
        Call::new(method, self.url(path))
    }

    pub fn get(&self, path: &str) -> Call {
        self.request("GET", path)
    }

    pub fn post(&self, path: &str, body: &serde_json::Value) -> Call {
        self.request("POST", path).json(body)
    }

    /// Makes an account with [`PASSWORD`].
    pub fn register(&self, email: &str) -> Held {
        let answer = self.post("/auth", &serde_json::json!({ "email": email, "password": PASSWORD })).send();
        answer.held().unwrap_or_else(|| panic!("a registration hands out a token: {answer:?}"))
    }

    pub fn sign_in_call(&self, email: &str) -> Call {
        self.post("/auth/sign_in", &serde_json::json!({ "email": email, "password": PASSWORD }))
    }

    pub fn sign_in(&self, email: &str) -> Held {
        let answer = self.sign_in_call(email).send();
        answer.held().unwrap_or_else(|| panic!("a sign-in hands out a token: {answer:?}"))
    }

    /// The protected resource.
    pub fn members_only(&self, held: &Held) -> Answer {
        self.get("/demo/members_only").held(held).send()
    }

    /// Whether it serves as on the first day: an account is made, signs in, and its token rotates.
    pub fn assert_works(&self) {
        let mut tag = [0; 8];
        baton_core::Random::fill(&baton_engine::OsRandom, &mut tag).expect("random bytes");
        let email = format!("{:016x}@example.com", u64::from_ne_bytes(tag));
        self.register(&email);
        let mut held = self.sign_in(&email);
        let answer = self.members_only(&held);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(held.adopt(&answer), "the token rotates: {answer:?}");
        assert_eq!(self.members_only(&held).status, 200);
    }

    fn started(&self) -> MutexGuard<'_, Started> {
        self.started.lock().expect("not poisoned")
    }
}

impl Drop for Baton {
    fn drop(&mut self) {
        if let Ok(started) = self.started.get_mut() {
            let _ = started.child.kill();
            let _ = started.child.wait();
        }
    }
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Given(path) => path,
        }
    }
}

fn dev_command(folder: &Path, listen: &str, args: &[String]) -> Command {
    let folder = folder.to_str().expect("a folder whose name is text");
    let mut dev = command(&["dev", "--listen", listen, "--data-dir", folder]);
    dev.args(args);
    dev
}
