//! Servers that are started to be measured, and end with the measurement.

use std::io::{self, BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use baton_testkit::{postgres, redis};
use rustix::process::{Pid, Signal, kill_process};

use crate::Failure;
use crate::http::Target;

/// As an administrator would have it, for a small machine; a test server has as little as it can do with. Durability is the default's.
const POSTGRES: [&str; 6] = ["-c", "shared_buffers=512MB", "-c", "autovacuum=on", "-c", "max_wal_size=4GB"];

/// What keeps the sessions. The servers end when this is dropped.
#[derive(Debug)]
pub(crate) enum Engine {
    /// In the data folder.
    Sqlite,
    Postgres(postgres::Server),
    Redis(redis::Server),
}

/// Which kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Sqlite,
    Postgres,
    Redis,
}

impl Store {
    /// With a throw-away server, if it takes one. Ends the program if none is installed, with the command that installs it.
    pub(crate) fn start(self) -> Engine {
        match self {
            Self::Sqlite => Engine::Sqlite,
            Self::Postgres => Engine::Postgres(postgres::Server::own(&POSTGRES)),
            Self::Redis => Engine::Redis(redis::Server::own(&[])),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
        }
    }
}

impl Engine {
    /// For people.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => Store::Sqlite.name(),
            Self::Postgres(_) => Store::Postgres.name(),
            Self::Redis(_) => Store::Redis.name(),
        }
    }

    /// What tells baton to use it, apart from whoever else does by `name`.
    pub(crate) fn settings(&self, name: &str) -> Vec<String> {
        match self {
            Self::Sqlite => Vec::new(),
            Self::Postgres(server) => vec![format!("store.url={}", server.url(name))],
            Self::Redis(server) => vec![format!("sessions.url=redis://127.0.0.1:{}?prefix={name}", server.port)],
        }
    }

    /// What has a floor make as many round trips to it as baton. SQLite takes none.
    fn floor(&self, rotates: bool) -> Vec<String> {
        match self {
            Self::Sqlite => Vec::new(),
            Self::Postgres(server) => {
                let url = format!("postgres://baton@127.0.0.1:{}/postgres?sslmode=disable", server.port);
                let update = rotates.then(|| "--update".to_owned());
                ["--postgres".to_owned(), url].into_iter().chain(update).collect()
            }
            Self::Redis(server) => vec!["--redis".to_owned(), format!("redis://127.0.0.1:{}", server.port)],
        }
    }
}

/// A child process that serves.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Whether it has children of its own, which it has to see to at its end.
    is_parent: bool,
    pub(crate) target: Target,
}

impl Server {
    /// `baton dev` on a free port with this data folder. `program`: other than the one beside this program.
    pub(crate) fn baton(program: Option<&Path>, folder: &Path, settings: &[String]) -> Result<Self, Failure> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => this_program()?.with_file_name("baton"),
        };
        let mut command = Command::new(&program);
        command.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder);
        for setting in settings {
            command.args(["--set", setting]);
        }
        // Settings of whoever runs this would be measured too.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BATON_")) {
            command.env_remove(name);
        }
        Self::start(&program, command)
    }

    /// [`crate::floor`] in a process of its own, on a free port.
    pub(crate) fn floor(engine: &Engine, rotates: bool) -> Result<Self, Failure> {
        Self::floor_with(&engine.floor(rotates))
    }

    /// One that does not even read the request.
    pub(crate) fn trivial() -> Result<Self, Failure> {
        Self::floor_with(&["--trivial".to_owned()])
    }

    /// The floor without a store on threads as baton has them.
    pub(crate) fn floor_on_own_runtimes() -> Result<Self, Failure> {
        Self::floor_with(&["--own-runtimes".to_owned()])
    }

    /// nginx in front of `backend`, as an administrator would have it who wants nothing of it but to pass on.
    pub(crate) fn nginx(folder: &Path, backend: &str) -> Result<Self, Failure> {
        let failed = |error| Failure::Io("nginx (apt-get install -y nginx)".into(), error);
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(failed)?;
        let shown = folder.display();
        let config = format!(
            "daemon off; worker_processes auto; pid {shown}/pid; error_log {shown}/error.log;
             events {{ worker_connections 1024; }}
             http {{
               access_log off; keepalive_requests 1000000000; client_body_temp_path {shown}/b; proxy_temp_path {shown}/p;
               fastcgi_temp_path {shown}/f; uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;
               upstream backend {{ server {backend}; keepalive 64; keepalive_requests 1000000000; }}
               server {{
                 listen {free};
                 location / {{
                   proxy_pass http://backend;
                   proxy_http_version 1.1;
                   proxy_set_header Connection \"\";
                   proxy_set_header Host $http_host;
                   proxy_set_header X-Forwarded-For $remote_addr;
                   proxy_set_header X-Forwarded-Host $http_host;
                   proxy_set_header X-Forwarded-Proto $scheme;
                 }}
               }}
             }}"
        );
        std::fs::write(folder.join("nginx.conf"), config).map_err(failed)?;
        let mut command = Command::new("nginx");
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
        command.arg("-e").arg(folder.join("error.log")).stdin(Stdio::null());
        let child = command.spawn().map_err(failed)?;
        let server = Self { child, is_parent: true, target: Target::parse(&format!("http://{free}"))? };
        for _ in 0..1_000 {
            if TcpStream::connect(free).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(Failure::Server("nginx did not start; see its error.log".into()))
    }

    fn floor_with(arguments: &[String]) -> Result<Self, Failure> {
        let program = this_program()?;
        let mut command = Command::new(&program);
        command.args(["floor", "--listen", "127.0.0.1:0"]).args(arguments);
        Self::start(&program, command)
    }

    fn start(program: &Path, mut command: Command) -> Result<Self, Failure> {
        let failed = |error| Failure::Io(program.display().to_string(), error);
        // Its log is thrown away, as an operator's goes into a pipe: a terminal would be what is measured.
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(failed)?;
        let mut line = String::new();
        let read = match child.stdout.take() {
            Some(stdout) => BufReader::new(stdout).read_line(&mut line),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        let url = read.map_err(failed).map(|_| line.trim().strip_prefix("listening on "));
        let target = match url {
            Ok(Some(url)) => Target::parse(url),
            Ok(None) => Err(Failure::Server(format!("{} did not start; run it to see why", program.display()))),
            Err(failure) => Err(failure),
        };
        match target {
            Ok(target) => Ok(Self { child, is_parent: false, target }),
            Err(failure) => {
                end(&mut child);
                Err(failure)
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).filter(|_| self.is_parent);
        if pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok()) {
            let _ = self.child.wait();
        } else {
            end(&mut self.child);
        }
    }
}

/// Nothing of what it has stored is wanted, so it need not finish. It may have ended by itself.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn this_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::Io("the path of this program".into(), error))
}
