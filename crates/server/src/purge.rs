//! What has expired is removed from time to time.

use std::sync::Arc;
use std::time::Duration;

use baton_core::{Store, StoreError};

/// How often.
const PAUSE: Duration = Duration::from_secs(5 * 60);
/// How many in one step: the writer is not held for longer than a few milliseconds.
const STEP: u32 = 1_000;

/// Removes expired sessions and what else has expired, and events older than `keep`, now and then, for ever.
pub(crate) async fn run(store: Arc<dyn Store>, keep: Duration) {
    loop {
        match all(&*store, keep).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed what had expired"),
            Err(error) => tracing::warn!(%error, "what has expired could not be removed; trying again later"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn all(store: &dyn Store, keep: Duration) -> Result<u64, StoreError> {
    let mut removed = 0;
    loop {
        let (expired, old) = (store.purge(STEP).await?, store.purge_events(keep, STEP).await?);
        removed += expired + old;
        if expired.max(old) < u64::from(STEP) {
            return Ok(removed);
        }
    }
}
