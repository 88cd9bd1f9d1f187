//! Sessions that have expired are removed from time to time.

use std::sync::Arc;
use std::time::Duration;

use baton_core::{Store, StoreError};

/// How often.
const PAUSE: Duration = Duration::from_secs(5 * 60);
/// How many in one step: the writer is not held for longer than a few milliseconds.
const STEP: u32 = 1_000;

/// Removes expired sessions of all realms now and then, for ever.
pub(crate) async fn run(store: Arc<dyn Store>) {
    loop {
        match all(&*store).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed sessions that had expired"),
            Err(error) => tracing::warn!(%error, "expired sessions could not be removed; trying again later"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn all(store: &dyn Store) -> Result<u64, StoreError> {
    let mut removed = 0;
    loop {
        let step = store.purge(STEP).await?;
        removed += step;
        if step < u64::from(STEP) {
            return Ok(removed);
        }
    }
}
