//! The PostgreSQL store, on a real server.

mod faults;
mod gather;
mod inspect;
mod open;
mod pooler;
mod processes;
mod purge;
mod suite;
mod time;

use std::sync::Arc;
use std::time::Duration;

use baton_core::Timestamp;
use baton_core::error::StoreError;
use baton_store::postgres::{PostgresOptions, PostgresStore};
use baton_testkit::postgres::{Server, shared, unique_name};

/// A schema of its own on the server that all tests share.
pub(crate) struct Schema {
    pub(crate) name: String,
    pub(crate) server: Arc<Server>,
}

impl Schema {
    pub(crate) fn fresh() -> Self {
        Self::on(shared())
    }

    pub(crate) fn on(server: Arc<Server>) -> Self {
        Self { name: unique_name(), server }
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        self.options_through(self.server.port)
    }

    /// By way of something that listens on this port.
    pub(crate) fn options_through(&self, port: u16) -> PostgresOptions {
        let url = format!("postgres://baton@127.0.0.1:{port}/postgres?sslmode=disable&schema={}", self.name);
        let mut options = PostgresOptions::from_url(&url).expect("a good URL");
        (options.connections, options.writers) = (2, 2);
        options
    }

    pub(crate) async fn open(&self) -> Result<PostgresStore, StoreError> {
        PostgresStore::open(self.options()).await
    }

    pub(crate) async fn must_open(&self) -> PostgresStore {
        self.open().await.expect("open")
    }

    /// Runs statements in which `baton.` stands for the schema.
    pub(crate) async fn execute(&self, sql: &str) {
        let client = self.server.client().await;
        client.batch_execute(&self.text(sql)).await.expect(sql);
    }

    /// Moves the store's time on, as after a clock that was set back by so much; the time it is then.
    pub(crate) async fn advance(&self, by: Duration) -> Timestamp {
        let sql = format!(
            "UPDATE baton.clock SET ahead = greatest(baton.baton_clock() + ahead, mark) - baton.baton_clock() + {} \
             RETURNING baton.baton_clock() + ahead",
            by.as_millis()
        );
        let row = self.server.client().await.query_one(&self.text(&sql), &[]).await.expect(&sql);
        Timestamp::from_millis(row.get(0))
    }

    pub(crate) fn text(&self, sql: &str) -> String {
        sql.replace("baton.", &format!("\"{}\".", self.name))
    }
}
