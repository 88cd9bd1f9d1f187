//! Has the outbox emptied, as long as the server runs.

use std::sync::Arc;
use std::time::Duration;

use baton_axum::Auth;
use baton_engine::{Engine, deliver};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// How often it looks without being told: for messages whose time to be tried again has come, and those of other nodes.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause when the store is away.
const LONG_PAUSE: Duration = Duration::from_secs(10);
/// How long a round is waited for when the server stops. What it does not get done comes back after the next start.
const PATIENCE: Duration = Duration::from_secs(10);

/// The task that does it.
#[derive(Debug)]
pub(crate) struct Courier {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Courier {
    /// `bell` rings when there is something in the outbox.
    pub(crate) fn start(realms: Vec<Auth>, bell: Arc<Notify>) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { stop, task: tokio::spawn(run(realms, bell, stopped)) }
    }

    /// Waits for the letters that are under way, but not for ever: one that was handed over and not noted as sent is sent again.
    pub(crate) async fn stop(self) {
        // The receiver is gone only if the task is.
        let _ = self.stop.send(true);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(PATIENCE, self.task).await.is_err() {
            abort.abort();
            tracing::warn!("letters or webhooks under way were cut off; they go out after the next start");
        }
    }
}

async fn run(realms: Vec<Auth>, bell: Arc<Notify>, mut stopped: watch::Receiver<bool>) {
    let engines: Vec<&Engine> = realms.iter().map(Auth::engine).collect();
    while !*stopped.borrow() {
        let pause = match deliver(&engines).await {
            Ok(_) => PAUSE,
            Err(error) => {
                tracing::warn!(%error, "the outbox cannot be read; trying again later");
                LONG_PAUSE
            }
        };
        tokio::select! {
            () = bell.notified() => {}
            () = tokio::time::sleep(pause) => {}
            _ = stopped.changed() => {}
        }
    }
}
