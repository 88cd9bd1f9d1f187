//! A server within the test, with both of its clocks in the test's hands: the one that tokens age by, and tokio's, by which
//! `/demo/slow` sleeps.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use baton_core::{Key, KeyRing, Timestamp};
use baton_mail::Mailbox;
use baton_server::{Config, Routes, Sources};
use baton_store::clock::ManualClock;
use tokio::sync::mpsc as tokio_mpsc;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use super::mailbox::{Kind, token};
use crate::support::eventually;

/// Some day in 2026, at a full second.
const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
/// Longer than anything here takes on the busiest of machines; reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Server {
    pub address: SocketAddr,
    mailbox: Arc<Mailbox>,
    database: PathBuf,
    clock: Arc<ManualClock>,
    /// How far the clock is past [`START`], in milliseconds.
    now: u64,
    asleep: mpsc::Receiver<()>,
    /// Each a time by which to advance tokio's clock. The server ends when this is gone.
    wake: Option<tokio_mpsc::UnboundedSender<Duration>>,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Server {
    /// With the demo resources, and with these settings over the defaults.
    pub fn start(settings: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut set: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let database = folder.path().join("baton.db");
        set.push(format!("store.url=sqlite:{}", database.display()));
        set.push("server.listen=127.0.0.1:0".to_owned());
        let config = Config::load(&Sources { set, ..Sources::default() }).unwrap_or_else(|wrong| panic!("{wrong}"));

        let clock = Arc::new(ManualClock::new(START));
        let (wake, woken) = tokio_mpsc::unbounded_channel();
        let (falling, asleep) = mpsc::channel();
        let (ready, listening) = mpsc::channel();
        let thread = std::thread::spawn({
            let clock = Arc::clone(&clock);
            move || run(&config, clock, &ready, falling, woken)
        });
        let (address, mailbox) = listening.recv_timeout(PATIENCE).expect("the server starts");
        Self {
            address,
            mailbox,
            database,
            clock,
            now: 0,
            asleep,
            wake: Some(wake),
            thread: Some(thread),
            _folder: folder,
        }
    }

    /// Sets the clock that tokens age by.
    pub fn set_time(&mut self, millis: u64) {
        let by = millis.checked_sub(self.now).expect("the times of a scenario ascend");
        self.clock.advance(Duration::from_millis(by));
        self.now = millis;
    }

    /// The token in a mail, when all mails that were asked for have been sent.
    pub fn mailed(&self, kind: Kind, email: &str, back: usize) -> Option<String> {
        eventually("the outbox is empty", || {
            let database = rusqlite::Connection::open(&self.database).expect("the database");
            let waiting = database.query_row("SELECT count(*) FROM outbox", [], |row| row.get::<_, u32>(0));
            (waiting.expect("the outbox") == 0).then_some(())
        });
        token(&self.mailbox, kind, email, back)
    }

    /// Waits until a request to `/demo/slow` has been let in and sleeps.
    pub fn await_sleeper(&self) {
        self.asleep.recv_timeout(PATIENCE).expect("the slow request arrives");
    }

    /// Lets those wake up that sleep for no longer than this.
    pub fn wake(&self, slept: Duration) {
        self.wake.as_ref().and_then(|wake| wake.send(slept).ok()).expect("the server runs");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.wake.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the server panicked");
    }
}

fn run(
    config: &Config,
    clock: Arc<ManualClock>,
    ready: &mpsc::Sender<(SocketAddr, Arc<Mailbox>)>,
    falling: mpsc::Sender<()>,
    mut woken: tokio_mpsc::UnboundedReceiver<Duration>,
) {
    // One thread, so that the log of the server alone is listened to.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let _listening = tracing::subscriber::set_default(tracing_subscriber::registry().with(Sleepers(falling)));
    // tokio moves a paused clock by itself when it has nothing to do, except while something blocks.
    let (hold, held) = mpsc::channel::<()>();
    runtime.block_on(async {
        tokio::task::spawn_blocking(move || held.recv());
        let keys = KeyRing::new(vec![Key::new(0, *b"0123456789abcdef0123456789abcdef").expect("an id")]);
        let started = baton_server::start(config, keys.expect("a ring"), clock, Routes::WithDemo).await;
        let running = started.unwrap_or_else(|error| panic!("{error}"));
        let mailbox = running.mailbox().expect("letters land in a mailbox").clone();
        ready.send((running.address(), mailbox)).expect("the test waits");
        while let Some(slept) = woken.recv().await {
            tokio::time::advance(slept).await;
        }
    });
    drop(hold);
    runtime.shutdown_timeout(PATIENCE);
}

/// Hears from the log when a request to `/demo/slow` goes to sleep.
struct Sleepers(mpsc::Sender<()>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Sleepers {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "baton_server::demo" {
            // Nobody listens in scenarios without slow requests.
            let _ = self.0.send(());
        }
    }
}
