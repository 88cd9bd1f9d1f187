//! Processes of baton.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::history::About;
use crate::world::World;
use crate::{Failure, note};

/// Reached only if something hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a node is started that ends at once, as a supervisor would.
const ATTEMPTS: usize = 5;
/// Where Debian puts the library that lies about the time.
const FAKETIME: &str = "/usr/lib/*/faketime/libfaketime.so.1";

/// How nodes are started.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) baton: PathBuf,
    /// `--set`, for all of them.
    pub(crate) settings: Vec<String>,
    /// Keys, and what they log.
    pub(crate) folder: PathBuf,
}

/// A node that runs, or has run.
#[derive(Debug)]
pub(crate) struct Node {
    number: usize,
    program: Program,
    /// Settings of its own.
    settings: Vec<String>,
    child: Option<Child>,
}

impl Node {
    pub(crate) fn new(number: usize, program: Program, settings: Vec<String>) -> Self {
        Self { number, program, settings, child: None }
    }

    /// Starts it and tells the world where it listens.
    pub(crate) async fn start(&mut self, world: &Arc<World>) -> Result<(), Failure> {
        for _ in 0..ATTEMPTS {
            if let Some(address) = self.try_start(world).await? {
                world.set_node(self.number, address);
                return Ok(());
            }
            self.kill()?;
            note(&format!("node {} has not started: {:#?}", self.number, self.end_of_log()));
        }
        Err(Failure::Server(format!("node {} does not start", self.number)))
    }

    /// Where it listens.
    async fn try_start(&mut self, world: &Arc<World>) -> Result<Option<SocketAddr>, Failure> {
        let (said, address) = oneshot::channel();
        let mut child = self.command().spawn().map_err(Failure::io("baton"))?;
        if let Some(out) = child.stdout.take() {
            thread::spawn(move || {
                let mut lines = BufReader::new(out).lines().map_while(Result::ok);
                let address = lines.next().and_then(|line| line.strip_prefix("listening on http://")?.parse().ok());
                let _ = said.send(address);
                lines.for_each(drop);
            });
        }
        if let Some(err) = child.stderr.take() {
            let world = world.clone();
            let mut file = File::options().create(true).append(true).open(self.log()).map_err(Failure::io("log"))?;
            thread::spawn(move || {
                for line in BufReader::new(err).lines().map_while(Result::ok) {
                    look_at(&line, &world);
                    // What cannot be kept is only there for whoever looks for the cause of a failure.
                    let _ = writeln!(file, "{line}");
                }
            });
        }
        self.child = Some(child);
        Ok(timeout(PATIENCE, address).await.ok().and_then(Result::ok).flatten())
    }

    /// As if the machine had lost its power.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().and_then(|()| child.wait()).map(drop).map_err(Failure::io("kill"))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn send(&self, signal: Signal) -> Result<(), Failure> {
        let id = self.child.as_ref().and_then(|child| Pid::from_raw(child.id().try_into().ok()?));
        // One that was killed does not notice.
        let Some(id) = id else { return Ok(()) };
        kill_process(id, signal).map_err(|error| Failure::Io("a signal".into(), error.into()))
    }

    /// Steps its clock to so many seconds off, from now on.
    pub(crate) fn step_clock(&self, seconds: i32) -> Result<(), Failure> {
        let file = self.clock();
        let fresh = file.with_extension("new");
        // Never seen half written.
        std::fs::write(&fresh, format!("{seconds:+}\n"))
            .and_then(|()| std::fs::rename(&fresh, &file))
            .map_err(Failure::io("the clock"))
    }

    /// Waits until the times in its log are that far from those in the log of another.
    pub(crate) async fn shows_a_clock_off_by(&self, seconds: i32, other: &Self) -> Result<(), Failure> {
        for _ in 0..200 {
            if let (Some(mine), Some(theirs)) = (self.time_in_log(), other.time_in_log()) {
                // Across midnight too, and with a second for what happened between the two lines.
                let off = (mine - theirs + 86_400 + 43_200).rem_euclid(86_400) - 43_200;
                if (off - seconds).abs() <= 1 {
                    return Ok(());
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(Failure::Server("a node's clock cannot be stepped; install it: apt-get install -y faketime".into()))
    }

    /// The second of the day in the newest line.
    fn time_in_log(&self) -> Option<i32> {
        let mut file = File::open(self.log()).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4_096))).ok()?;
        let mut tail = String::new();
        file.read_to_string(&mut tail).ok()?;
        let (_, newest) = tail.rsplit_once(r#""timestamp":""#)?;
        let time = newest.split_once('T')?.1.get(..8)?;
        time.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<i32>().ok()?))
    }

    fn clock(&self) -> PathBuf {
        self.program.folder.join(format!("clock-{}", self.number))
    }

    fn end_of_log(&self) -> Vec<String> {
        let said = std::fs::read_to_string(self.log()).unwrap_or_default();
        let mut last: Vec<String> = said.lines().rev().take(5).map(ToOwned::to_owned).collect();
        last.reverse();
        last
    }

    fn log(&self) -> PathBuf {
        self.program.folder.join(format!("log-{}", self.number))
    }

    fn command(&self) -> Command {
        // It ends with this program, also if that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&self.program.baton);
        command.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&self.program.folder);
        for setting in self.program.settings.iter().chain(&self.settings) {
            command.args(["--set", setting]);
        }
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if let Some(library) = faketime() {
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", self.clock());
            // What is stepped is the time of day; and at once, whenever the file says so.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// What the history wants to know of a log.
fn look_at(line: &str, world: &World) {
    const HEALED: &str = "healed a lost rotation";
    const ROTATION: &str = "rotation may not have been stored";
    const USE: &str = "could not note the use of a token";
    // Most lines are about something else, and need not be read.
    if ![HEALED, ROTATION, USE].iter().any(|message| line.contains(message)) {
        return;
    }
    let Ok(line) = serde_json::from_str::<Value>(line) else { return };
    let text = |name: &str| line[name].as_str().unwrap_or_default();
    let number = |name: &str| text(name).parse().unwrap_or(0);
    let client = text("client").to_owned();
    match text("message") {
        HEALED => world.healed(client, number("from"), number("to")),
        ROTATION => world.doubted(client, number("generation"), About::Rotation),
        USE => world.doubted(client, number("generation"), About::Use),
        _ => {}
    }
}

fn faketime() -> Option<PathBuf> {
    let (before, after) = FAKETIME.split_once('*')?;
    let folders = std::fs::read_dir(before).ok()?.flatten();
    let mut found =
        folders.map(|folder| folder.path().join(after.trim_start_matches('/'))).filter(|path| path.exists());
    found.next()
}

/// `sqlite:` below this folder.
pub(crate) fn sqlite_url(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("baton.db").display())
}
