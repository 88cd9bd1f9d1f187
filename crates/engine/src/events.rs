//! What happened: to the log, and as a trace in the store.

use std::collections::HashMap;
use std::time::Duration;

use baton_core::event::{Event, EventKind, Recorded, Trace};
use baton_core::session::Device;
use baton_core::{Account, ClientId, Session, StoreError, Timestamp};
use parking_lot::Mutex;

use crate::Engine;

/// A webhook: an address that events are posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where.
    pub url: String,
    /// Which; all of them if there are none.
    pub events: Vec<EventKind>,
}

impl Webhook {
    /// Whether events of this kind go there.
    #[must_use]
    pub fn wants(&self, kind: EventKind) -> bool {
        self.events.is_empty() || self.events.contains(&kind)
    }
}

impl Engine {
    /// The trace of one event of this account.
    pub(crate) fn trace(&self, kind: EventKind, account: &Account, client: Option<ClientId>, device: &Device) -> Trace {
        self.trace_of(self.event_of(kind, account, client, device))
    }

    /// An event of this account.
    pub(crate) fn event_of(
        &self,
        kind: EventKind,
        account: &Account,
        client: Option<ClientId>,
        device: &Device,
    ) -> Event {
        let (id, uid) = (Some(account.id), Some(account.uid.clone()));
        Event { account: id, uid, ..self.event(kind, client, device) }
    }

    /// An event without an account.
    pub(crate) fn event(&self, kind: EventKind, client: Option<ClientId>, device: &Device) -> Event {
        let realm = self.settings.realm.clone();
        Event { kind, realm, account: None, uid: None, client, device: device.clone() }
    }

    pub(crate) fn trace_of(&self, event: Event) -> Trace {
        let mut trace = Trace::default();
        self.add_event(&mut trace, event);
        trace
    }

    /// One more event of the same change.
    pub(crate) fn add_event(&self, trace: &mut Trace, event: Event) {
        for webhook in &self.settings.webhooks {
            // With several events in a trace, the courier looks once more which of them go where.
            if webhook.wants(event.kind) && !trace.webhooks.contains(&webhook.url) {
                trace.webhooks.push(webhook.url.clone());
            }
        }
        trace.events.push(event);
    }

    /// Leaves a trace of something that changes nothing else.
    pub(crate) async fn record(&self, trace: &Trace) -> Result<(), StoreError> {
        self.store.record(trace).await?;
        self.left(trace, None);
        Ok(())
    }

    /// The same where it is not worth failing a request for.
    pub(crate) async fn note(&self, trace: &Trace) {
        if let Err(error) = self.record(trace).await {
            tracing::warn!(%error, "could not record an event");
        }
    }

    /// A trace was left: a line in the log for each event, and word to the courier. `made`: the account that the change made.
    pub(crate) fn left(&self, trace: &Trace, made: Option<&Account>) {
        log(trace, made);
        if trace.posts() {
            self.bell.notify_one();
        }
    }

    /// Leaves a trace of a superseded token, but not of each: whoever holds one can present it as often as they like.
    pub(crate) async fn note_reuse(&self, account: &Account, session: &Session, device: &Device, now: Timestamp) {
        if self.reuses.is_news(session.client, now) {
            self.note(&self.trace(EventKind::ReuseDetected, account, Some(session.client), device)).await;
        }
    }

    /// Up to `limit` recorded events of all realms with numbers above `after`, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn events(&self, after: i64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        self.store.events(after, limit).await
    }

    /// Removes up to `limit` events that are older than `age`; how many there were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn purge_events(&self, age: Duration, limit: u32) -> Result<u64, StoreError> {
        self.store.purge_events(age, limit).await
    }
}

fn log(trace: &Trace, made: Option<&Account>) {
    for Event { kind, realm, account, client, device, .. } in &trace.events {
        let account = account.or(made.map(|made| made.id)).map(tracing::field::display);
        let client = client.as_ref().map(tracing::field::display);
        let ip = device.ip.as_ref().map(tracing::field::display);
        let event = kind.as_str();
        match kind {
            EventKind::ReuseDetected | EventKind::Locked => tracing::warn!(realm, account, client, ip, "{event}"),
            _ => tracing::info!(realm, account, client, ip, "{event}"),
        }
    }
}

/// Sessions whose reuse was noted a short while ago.
#[derive(Debug, Default)]
pub(crate) struct Reuses(Mutex<HashMap<ClientId, Timestamp>>);

impl Reuses {
    const PAUSE: Duration = Duration::from_secs(60);
    /// Beyond it all is forgotten, and some sessions are noted a second time.
    const MOST: usize = 10_000;

    fn is_news(&self, client: ClientId, now: Timestamp) -> bool {
        let mut noted = self.0.lock();
        if noted.get(&client).is_some_and(|at| now < at.plus(Self::PAUSE)) {
            return false;
        }
        if noted.len() >= Self::MOST {
            noted.clear();
        }
        noted.insert(client, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reuse_is_noted_once_a_minute_and_session() {
        let reuses = Reuses::default();
        let (one, two) = (ClientId::from_bytes([1; 16]), ClientId::from_bytes([2; 16]));
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        assert!(reuses.is_news(one, at(0)));
        assert!(!reuses.is_news(one, at(59)));
        assert!(reuses.is_news(two, at(59)));
        assert!(reuses.is_news(one, at(60)));
        for number in 0..30_000_u32 {
            let mut bytes = [3; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            assert!(reuses.is_news(ClientId::from_bytes(bytes), at(60)));
            assert!(reuses.0.lock().len() <= Reuses::MOST);
        }
    }
}
