//! A server that is set up as for production and sends letters: as a process, or in this one with a clock that the test moves.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use baton_core::Clock as _;
use baton_server::{Config, Routes, Running, Sources};
use baton_store::clock::{ManualClock, SystemClock};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{Baton, Call, PUBLIC_URL, SMTP_PASSWORD, command, eventually};

/// What goes to a server, as anybody may send it.
#[derive(Debug, Clone, Copy)]
pub struct Http(pub SocketAddr);

impl Http {
    pub fn request(self, method: &str, path: &str) -> Call {
        Call::new(method, format!("http://{}{path}", self.0))
    }

    pub fn get(self, path: &str) -> Call {
        self.request("GET", path)
    }

    pub fn post(self, path: &str, body: &Value) -> Call {
        self.request("POST", path).json(body)
    }

    pub fn put(self, path: &str, body: &Value) -> Call {
        self.request("PUT", path).json(body)
    }
}

/// A folder with a configuration, a key and, in time, a database.
pub struct Site {
    folder: tempfile::TempDir,
    password: String,
}

impl Site {
    /// With these lines in the table `[mail]`, and these before the first table.
    pub fn new(mail: &str, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().display();
        let text = format!(
            r#"{settings}
            redirect_allowlist = ["https://app.example.com"]
            server.listen = "127.0.0.1:0"
            server.trusted_proxies = ["127.0.0.1"]
            lockable = {{ enabled = true, max_attempts = 3 }}
            store.url = "sqlite:{path}/baton.db"
            keys.file = "{path}/secret.key"
            log = {{ level = "trace", format = "json" }}
            [mail]
            from = "Example <no-reply@example.com>"
            public_url = "{PUBLIC_URL}"
            {mail}"#
        );
        std::fs::write(folder.path().join("baton.toml"), text).expect("written");
        baton_server::keys::ensure(&folder.path().join("secret.key")).expect("a key");
        Self { folder, password: SMTP_PASSWORD.into() }
    }

    /// With another password for the mail server than the one that it takes.
    pub fn with_password(self, password: &str) -> Self {
        Self { password: password.into(), ..self }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn config_file(&self) -> PathBuf {
        self.folder.path().join("baton.toml")
    }

    /// `baton serve`.
    pub fn serve(&self) -> Baton {
        let config = self.config_file();
        let mut serve = command(&["serve", "--config", config.to_str().expect("a path that is text")]);
        serve.env("BATON_MAIL__PASSWORD", &self.password);
        Baton::of_command(serve, self.folder()).unwrap_or_else(|ended| panic!("{ended:?}"))
    }

    /// The same in this process, at a time of its own.
    pub fn start(&self, ahead: Duration) -> Here {
        let env = vec![("BATON_MAIL__PASSWORD".into(), self.password.clone())];
        let sources = Sources { file: Some(self.config_file()), env, ..Sources::default() };
        let config = Config::load(&sources).unwrap_or_else(|problems| panic!("{problems}"));
        config.check_production().unwrap_or_else(|problems| panic!("{problems}"));
        let keys = baton_server::keys::Keys::load(&config).expect("keys");
        let clock = Arc::new(ManualClock::new(SystemClock::new().now().plus(ahead)));
        let runtime = Runtime::new().expect("threads");
        let started = runtime.block_on(baton_server::start(&config, keys, clock.clone(), Routes::Plain));
        let running = started.unwrap_or_else(|error| panic!("{error}"));
        Here { http: Http(running.address()), clock, running, runtime }
    }

    /// What waits to be sent: how often it was tried, and for how long after its order it waits.
    pub fn outbox(&self) -> Vec<(u32, Duration)> {
        let database = self.database();
        let mut rows =
            database.prepare("SELECT attempt, due_at - created_at FROM outbox ORDER BY id").expect("a table");
        let rows =
            rows.query_map([], |row| Ok((row.get(0)?, Duration::from_millis(row.get::<_, i64>(1)?.unsigned_abs()))));
        rows.expect("rows").map(|row| row.expect("a row")).collect()
    }

    /// Waits until everything is sent.
    pub fn wait_for_empty_outbox(&self) {
        eventually("an empty outbox", || self.outbox().is_empty().then_some(()));
    }

    /// Waits until each message in the outbox was tried this often, and none is being tried.
    pub fn wait_for_attempts(&self, messages: usize, attempts: u32) {
        // A message that is being tried is leased for longer than any of the first pauses.
        let waits = |&(attempt, wait): &(u32, Duration)| attempt == attempts && wait < LEASE;
        eventually(&format!("{attempts} attempts of {messages} messages"), || {
            let outbox = self.outbox();
            (outbox.len() == messages && outbox.iter().all(waits)).then_some(())
        });
    }

    /// Waits until one message is all that is left, taken by somebody who has not come back yet.
    pub fn wait_for_the_leased_one(&self) {
        eventually("one message that is leased", || {
            matches!(self.outbox()[..], [(1, wait)] if wait >= LEASE).then_some(())
        });
    }

    /// How many one-time tokens there are.
    pub fn one_time_tokens(&self) -> u32 {
        let count = self.database().query_row("SELECT count(*) FROM one_time_tokens", [], |row| row.get(0));
        count.expect("a number")
    }

    /// Kinds of the recorded events, in order.
    pub fn events(&self) -> Vec<String> {
        let database = self.database();
        let mut rows = database.prepare("SELECT kind FROM audit_events ORDER BY id").expect("a table");
        let rows = rows.query_map([], |row| row.get(0));
        rows.expect("rows").map(|row| row.expect("a row")).collect()
    }

    fn database(&self) -> rusqlite::Connection {
        let path = self.folder.path().join("baton.db");
        let database = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY);
        let database = database.expect("a database");
        database.busy_timeout(Duration::from_secs(30)).expect("a setting");
        database
    }
}

/// How long nobody else takes a message that is being sent.
const LEASE: Duration = Duration::from_secs(5 * 60);

/// A server in this process.
pub struct Here {
    pub http: Http,
    clock: Arc<ManualClock>,
    running: Running,
    runtime: Runtime,
}

impl Here {
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    pub fn stop(self) {
        self.runtime.block_on(self.running.stop()).expect("an orderly end");
    }
}
