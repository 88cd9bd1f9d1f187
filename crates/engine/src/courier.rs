//! Takes letters and webhooks out of the outbox, as often as it takes.

use std::time::Duration;

use async_trait::async_trait;
use baton_core::StoreError;
use baton_core::error::Cause;
use baton_core::event::{EventKind, Message, MessageBody, Outcome, Recorded};
use baton_core::letter::{MailError, MailOrder, Occasion};
use baton_core::session::Device;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::Engine;
use crate::letters::Written;

/// Posts events to webhooks.
#[async_trait]
pub trait WebhookSender: Send + Sync {
    /// Posts an event. The receiver may get it more than once: its number tells.
    ///
    /// # Errors
    /// [`WebhookError`]; another attempt follows.
    async fn post(&self, url: &str, event: &Recorded) -> Result<(), WebhookError>;
}

/// An event was not taken.
#[derive(Debug, thiserror::Error)]
#[error("not taken: {0}")]
pub struct WebhookError(#[source] pub Cause);

/// What came of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivered {
    /// Messages that are out.
    pub sent: usize,
    /// Messages that will never go out: nobody to write to, refused for good, or tried too often.
    pub dropped: usize,
    /// Messages that are to be tried again.
    pub postponed: usize,
}

/// How many messages go out at the same time.
const MOST_AT_ONCE: usize = 8;
/// How long nobody else takes them. Longer than a mailer or a receiver may take.
const LEASE: Duration = Duration::from_secs(5 * 60);
/// The pause after the first attempt; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// With those pauses, about five days.
const MOST_ATTEMPTS: u32 = 130;

/// Sends what is due, a few messages at a time. The engines share one store; each serves a realm.
///
/// # Errors
/// [`StoreError`] if the outbox could not be read. What was taken out of it comes back by itself.
pub async fn deliver(engines: &[&Engine]) -> Result<Delivered, StoreError> {
    let Some(any) = engines.first() else { return Ok(Delivered::default()) };
    let mut delivered = Delivered::default();
    let mut under_way = FuturesUnordered::new();
    let mut outcome = Ok(());
    loop {
        // One that takes its time does not hold up the others.
        let room = MOST_AT_ONCE.saturating_sub(under_way.len());
        if outcome.is_ok() && room > 0 {
            match any.store.claim(u32::try_from(room).unwrap_or(1), LEASE).await {
                Ok(messages) => under_way.extend(messages.into_iter().map(|message| carry(engines, any, message))),
                Err(error) => outcome = Err(error),
            }
        }
        match under_way.next().await {
            Some(Fate::Sent) => delivered.sent += 1,
            Some(Fate::Dropped) => delivered.dropped += 1,
            Some(Fate::Postponed) => delivered.postponed += 1,
            None => return outcome.map(|()| delivered),
        }
    }
}

#[derive(Clone, Copy)]
enum Fate {
    Sent,
    Dropped,
    Postponed,
}

async fn carry(engines: &[&Engine], any: &Engine, message: Message) -> Fate {
    let realm = match &message.body {
        MessageBody::Mail(order) => &order.realm,
        MessageBody::Webhook(_, recorded) => &recorded.event.realm,
    };
    let mut fate = match (engines.iter().find(|engine| engine.settings.realm == *realm), &message.body) {
        (Some(engine), MessageBody::Mail(order)) => engine.mail(order).await,
        (Some(engine), MessageBody::Webhook(url, event)) => engine.post(url, event).await,
        (None, _) => {
            // Another node may know it, or this one after its next start.
            tracing::warn!(message = message.id, realm, "the outbox has a message of a realm that is not configured");
            Fate::Postponed
        }
    };
    if matches!(fate, Fate::Postponed) && message.attempt >= MOST_ATTEMPTS {
        tracing::error!(message = message.id, attempts = message.attempt, "gave up on a message");
        fate = Fate::Dropped;
    }
    let outcome = match fate {
        Fate::Sent | Fate::Dropped => Outcome::Done,
        Fate::Postponed => Outcome::Retry(pause(message.attempt)),
    };
    if let Err(error) = any.store.settle(message.id, message.attempt, outcome).await {
        tracing::warn!(message = message.id, %error, "could not settle a message; it may go out again");
    }
    fate
}

fn pause(attempt: u32) -> Duration {
    let doubled = 2_u32.checked_pow(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE)
}

impl Engine {
    async fn mail(&self, order: &MailOrder) -> Fate {
        let occasion = order.occasion.as_str();
        let Some(mailer) = &self.mailer else {
            tracing::warn!(occasion, "a letter waits, and no mail server is configured");
            return Fate::Postponed;
        };
        let Written { letter, one_time } = match self.write(order).await {
            Ok(Some(written)) => written,
            Ok(None) => {
                // The usual case where somebody tries out addresses.
                tracing::debug!(occasion, "nobody to write to");
                return Fate::Dropped;
            }
            Err(error) => {
                tracing::warn!(occasion, %error, "could not write a letter");
                return Fate::Postponed;
            }
        };
        let sent = mailer.send(&letter).await;
        if let (Err(_), Some((id, _))) = (&sent, &one_time)
            && let Err(error) = self.store.void_one_time(*id).await
        {
            tracing::debug!(%error, "a one-time token that nobody has stays until it expires");
        }
        match sent {
            Ok(()) => {
                tracing::info!(occasion, "letter sent");
                if let (Occasion::ResetPassword, Some((_, account))) = (letter.occasion, &one_time) {
                    // Only now: when it was asked for, nobody looked whether there is such an account.
                    let kind = EventKind::PasswordResetRequested;
                    self.note(&self.trace(kind, account, None, &Device::default())).await;
                }
                Fate::Sent
            }
            Err(MailError::Later(error)) => {
                tracing::warn!(occasion, %error, "letter not sent yet");
                Fate::Postponed
            }
            Err(MailError::Never(error)) => {
                tracing::error!(occasion, %error, "letter cannot be sent");
                Fate::Dropped
            }
        }
    }

    async fn post(&self, url: &str, recorded: &Recorded) -> Fate {
        let kind = recorded.event.kind;
        if !self.settings.webhooks.iter().any(|webhook| webhook.url == url && webhook.wants(kind)) {
            return Fate::Dropped;
        }
        let Some(sender) = &self.webhook_sender else { return Fate::Postponed };
        match sender.post(url, recorded).await {
            Ok(()) => Fate::Sent,
            Err(error) => {
                tracing::warn!(event = recorded.id, %error, "webhook not delivered yet");
                Fate::Postponed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_tried_for_about_five_days() {
        assert_eq!(pause(1), FIRST_PAUSE);
        assert_eq!(pause(2), FIRST_PAUSE * 2);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
        let all: Duration = (1..MOST_ATTEMPTS).map(pause).sum();
        let days = all.as_secs_f64() / 86_400.0;
        assert!((4.8..5.2).contains(&days), "{days}");
    }
}
