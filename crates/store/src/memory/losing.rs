//! A store in memory that can be made to lose its newest writes, as a power cut or a failover to a replica that lags does.

use std::collections::VecDeque;
use std::sync::Arc;

use baton_core::clock::Clock;
use baton_core::ports::SessionEntry;
use baton_core::session::Swap;

use super::{MemoryStore, Tables};

/// The relaxed writes that may still be lost, each as the entry that it took the place of, oldest first.
#[derive(Default)]
pub(super) struct AtRisk {
    before: VecDeque<SessionEntry>,
    horizon: usize,
}

impl MemoryStore {
    /// A store whose newest `horizon` relaxed writes can be taken back with [`lose`](Self::lose); with 0 it is a
    /// [`new`](Self::new) one.
    ///
    /// It keeps what [`Store`](baton_core::Store) calls durable and nothing more, so it loses more than most real ones would:
    /// a durable write saves what was written before to the same session, but not to others. What it may forget is rotations
    /// and notes of what was seen. A session that ended stays ended, whatever of it is taken back.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use baton_store::{clock::ManualClock, memory::MemoryStore};
    /// let store = MemoryStore::losing(Arc::new(ManualClock::default()), 8);
    /// // … sign in, rotate …
    /// assert_eq!(store.lose(3), 0, "nothing was written yet");
    /// ```
    #[must_use]
    pub fn losing(clock: Arc<dyn Clock>, horizon: usize) -> Self {
        let store = Self::new(clock);
        store.tables.lock().at_risk.horizon = horizon;
        store
    }

    /// Takes back up to `writes` of the newest relaxed writes, the newest first; how many there were. Time does not go back
    /// with them.
    pub fn lose(&self, writes: usize) -> usize {
        let mut tables = self.tables.lock();
        let mut lost = 0;
        while lost < writes
            && let Some(before) = tables.at_risk.before.pop_back()
        {
            // A session that is not there has ended, and that was durable.
            if let Some(entry) = tables.sessions.get_mut(&before.session.client) {
                *entry = before;
            }
            lost += 1;
        }
        lost
    }
}

impl Tables {
    /// Takes note of a swap that is made on this entry.
    pub(super) fn risk(&mut self, before: SessionEntry, swap: &Swap) {
        if swap.resends() {
            let client = before.session.client;
            self.at_risk.before.retain(|earlier| earlier.session.client != client);
            return;
        }
        self.at_risk.before.push_back(before);
        if self.at_risk.before.len() > self.at_risk.horizon {
            self.at_risk.before.pop_front();
        }
    }
}
