//! Where events go, and how long they are kept.

use std::path::PathBuf;
use std::time::Duration;

use baton_core::event::EventKind;
use baton_engine::{SecretString, Webhook};

use super::reader::Reader;
use crate::webhooks::WebhookSettings;

/// Where events go, and how long they are kept.
#[derive(Debug, Clone)]
pub struct EventsConfig {
    /// How long they stay in the table.
    pub keep: Duration,
    /// Where they are posted to.
    pub webhooks: Vec<Webhook>,
    /// How.
    pub posting: WebhookSettings,
}

/// What no complaint and no `Debug` may show.
pub(super) const SECRET: &str = "webhooks.secret";

pub(super) fn read(reader: &mut Reader<'_>) -> EventsConfig {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    let keep = reader.duration("audit.keep", Duration::ZERO..=10 * YEAR);
    let (urls, events) = (urls(reader), kinds(reader));
    let secrets: Vec<SecretString> = reader.secret(SECRET).split_whitespace().map(SecretString::from).collect();
    let timeout = reader.duration("webhooks.timeout", Duration::from_millis(100)..=Duration::from_secs(60));
    let ca_file = Some(reader.text("webhooks.ca_file")).filter(|path| !path.is_empty()).map(PathBuf::from);
    let posting = WebhookSettings { secrets, timeout, ca_file };
    if !urls.is_empty()
        && let Err(error) = posting.keys()
    {
        reader.refuse_unseen(SECRET, error);
    }
    let webhooks = urls.into_iter().map(|url| Webhook { url, events: events.clone() }).collect();
    EventsConfig { keep, webhooks, posting }
}

fn urls(reader: &mut Reader<'_>) -> Vec<String> {
    const KEY: &str = "webhooks.urls";
    let urls = reader.list(KEY);
    for url in &urls {
        if let Err(why) = crate::webhooks::check_url(url) {
            reader.refuse(KEY, format!("{url:?} {why}"));
        }
    }
    urls
}

fn kinds(reader: &mut Reader<'_>) -> Vec<EventKind> {
    const KEY: &str = "webhooks.events";
    let mut kinds = Vec::new();
    for name in reader.list(KEY) {
        match EventKind::parse(&name) {
            Some(kind) => kinds.push(kind),
            None => {
                let known = EventKind::ALL.map(EventKind::as_str).join(", ");
                reader.refuse(KEY, format!("{name:?} is no event; there are {known}"));
            }
        }
    }
    kinds
}
