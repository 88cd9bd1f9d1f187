//! `baton store check`: what there is, whether it works, and what may do harm.

use std::fmt::Write as _;
use std::sync::Arc;

use baton_core::Clock;
use baton_store::inspection::Inspection;
use baton_store::postgres::PostgresStore;
use baton_store::redis::RedisOptions;
use baton_store::sqlite::SqliteStore;
use serde_json::{Map, Value, json};

use crate::config::StoreConfig;

/// What was found out, part by part: each has the name of its table in the configuration.
pub(crate) struct Report {
    parts: Vec<(&'static str, Inspection)>,
}

impl Report {
    /// Looks at everything that is configured.
    pub(crate) async fn of(store: &StoreConfig, sessions: Option<&RedisOptions>, clock: Arc<dyn Clock>) -> Self {
        let mut parts = vec![("store", inspect(store, clock.clone()).await)];
        if let Some(options) = sessions {
            parts.push(("sessions", baton_store::redis::inspect(options, &*clock).await));
        }
        Self { parts }
    }

    /// Whether a server could work with all of it right now.
    pub(crate) fn is_usable(&self) -> bool {
        self.parts.iter().all(|(_, part)| part.is_usable())
    }

    /// For people: a line for each fact, then the warnings and what is wrong.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (name, part) in &self.parts {
            let _ = writeln!(text, "{name}");
            for fact in &part.facts {
                // An empty value is one, too: `synchronous_standby_names`.
                let shown = if fact.shown.is_empty() { "(empty)" } else { &fact.shown };
                let _ = writeln!(text, "  {:<26} {shown}", fact.name);
            }
            for warning in &part.warnings {
                let _ = writeln!(text, "  warning: {warning}");
            }
            for failure in &part.failures {
                let _ = writeln!(text, "  error: {failure}");
            }
        }
        text.push_str(if self.is_usable() { "ok\n" } else { "not usable\n" });
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let mut all = Map::new();
        all.insert("ok".to_owned(), self.is_usable().into());
        for (name, part) in &self.parts {
            let facts = part.facts.iter().map(|fact| (fact.name.replace(' ', "_"), fact.value.clone()));
            let mut object: Map<String, Value> = facts.collect();
            object.insert("warnings".to_owned(), json!(part.warnings));
            object.insert("errors".to_owned(), json!(part.failures));
            all.insert((*name).to_owned(), object.into());
        }
        all.into()
    }
}

async fn inspect(store: &StoreConfig, clock: Arc<dyn Clock>) -> Inspection {
    match store {
        StoreConfig::Sqlite { path, options } => SqliteStore::inspect(path, options.clone(), clock).await,
        StoreConfig::Postgres(options) => PostgresStore::inspect((**options).clone(), &*clock).await,
    }
}
