//! The conformance suite.

use std::sync::Arc;
use std::time::Duration;

use baton_core::Store;
use baton_store::conformance::Harness;
use baton_store::postgres::{Pooler, PostgresStore};
use parking_lot::Mutex;

use super::Schema;

/// Each node has connections of its own, as another process would.
pub(super) struct InPostgres {
    pooler: Pooler,
    /// Of something between the store and the server.
    port: Option<u16>,
    schemas: Mutex<Vec<Arc<Schema>>>,
}

impl InPostgres {
    pub(super) fn new(pooler: Pooler) -> Self {
        Self { pooler, port: None, schemas: Mutex::default() }
    }

    pub(super) fn through(pooler: Pooler, port: u16) -> Self {
        Self { port: Some(port), ..Self::new(pooler) }
    }
}

#[async_trait::async_trait]
impl Harness for InPostgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    async fn nodes(&self, count: usize) -> Vec<Arc<dyn Store>> {
        let schema = Arc::new(Schema::fresh());
        let mut nodes: Vec<Arc<dyn Store>> = Vec::new();
        for _ in 0..count {
            let mut options = schema.options_through(self.port.unwrap_or(schema.server.port));
            options.pooler = self.pooler;
            // Rivals on two slow cores may wait for each other longer than a server should.
            (options.acquire_timeout, options.statement_timeout) = (Duration::from_secs(30), Duration::from_secs(30));
            nodes.push(Arc::new(PostgresStore::open(options).await.expect("open")));
        }
        self.schemas.lock().push(schema);
        nodes
    }

    async fn advance(&self, by: Duration) {
        let schemas = self.schemas.lock().clone();
        let Some(last) = schemas.last() else { return };
        let by = by.as_millis();
        let all = schemas.iter().map(|schema| {
            // As after a clock that was set back by so much.
            schema.text(&format!(
                "UPDATE baton.clock SET ahead = greatest(baton.baton_clock() + ahead, mark) - baton.baton_clock() + {by};"
            ))
        });
        last.execute(&all.collect::<String>()).await;
    }
}

mod postgres {
    use super::{InPostgres, Pooler};

    baton_store::conformance!(InPostgres::new(Pooler::Auto));
}

/// With statements that leave nothing behind in a connection.
mod postgres_unnamed {
    use super::{InPostgres, Pooler};

    baton_store::conformance!(InPostgres::new(Pooler::Yes));
}
