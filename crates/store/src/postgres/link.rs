//! The connections: a few that all requests share, each kept up by a task of its own.
//!
//! tokio-postgres sends statements as they come and does not wait for the answer to the one before, so one connection
//! carries many requests. Every operation is one statement; nobody has a connection to himself, and there is no
//! transaction that a node could leave open.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use baton_core::error::StoreError;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement};

use super::error::{Failure, PostgresError};
use super::options::{Pooler, PostgresOptions};
use super::queries::{Lane, Query};
use super::tls::Tls;

/// Statements that may be on their way on one connection, per connection of a lane.
const DEPTH: usize = 128;
/// How often a statement is tried that another one got in the way of.
const ATTEMPTS: u32 = 5;
/// The first pause after a connection could not be made.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Shown by a connection that nothing is in between of.
const DIRECT: &str = "baton.direct";

/// How connections are made.
pub(super) struct Connector {
    pub(super) options: PostgresOptions,
    tls: Tls,
}

/// A connection that stands.
pub(super) struct Wire {
    pub(super) client: Client,
    /// `None` if there is a pooler: a statement prepared in one transaction is unknown in the next.
    prepared: Option<RwLock<HashMap<&'static str, Statement>>>,
    /// Of the task that moves the bytes.
    driver: AbortHandle,
}

impl Connector {
    pub(super) fn new(options: PostgresOptions) -> Result<Self, StoreError> {
        let tls = Tls::new(options.ssl_mode, options.ssl_root_cert.as_deref())?;
        Ok(Self { options, tls })
    }

    /// A connection, and the task that ends with it.
    pub(super) async fn connect(&self) -> Result<(Wire, JoinHandle<()>), PostgresError> {
        if self.options.pooler == Pooler::Yes {
            return self.connect_as(true).await;
        }
        match self.connect_as(false).await {
            // PgBouncer's answer to settings that it does not know.
            Err(error) if self.options.pooler == Pooler::Auto && error.message.contains("startup parameter") => {
                self.connect_as(true).await
            }
            answer => answer,
        }
    }

    async fn connect_as(&self, pooled: bool) -> Result<(Wire, JoinHandle<()>), PostgresError> {
        let connecting = async {
            let mut server = self.options.server.clone();
            if !pooled {
                let given = server.get_options().unwrap_or_default();
                let limit = self.options.statement_timeout.as_millis();
                // The functions count on seeing what was committed before each of their statements.
                let isolation = r"default_transaction_isolation=read\ committed";
                let ours = format!("-c {DIRECT}=yes -c statement_timeout={limit} -c {isolation}");
                server.options(format!("{given} {ours}").trim_start());
            }
            let (client, connection) = server.connect(self.tls.clone()).await?;
            let driver = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    let error = PostgresError::new("talk to PostgreSQL", &error);
                    tracing::debug!(%error, "a connection ended");
                }
            });
            // A pooler may also have swallowed the settings.
            let direct = !pooled
                && (self.options.pooler == Pooler::No
                    || client
                        .query_typed("SELECT current_setting($1, true)", &[(&DIRECT, Type::TEXT)])
                        .await?
                        .first()
                        .is_some_and(|row| row.get::<_, Option<&str>>(0).is_some_and(|set| !set.is_empty())));
            let prepared = direct.then(RwLock::default);
            Ok((Wire { client, prepared, driver: driver.abort_handle() }, driver))
        };
        match timeout(self.options.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(|error| PostgresError::new("connect", &error)),
            Err(_) => Err(PostgresError { doing: "connect", code: None, message: "no answer in time".to_owned() }),
        }
    }
}

impl Wire {
    /// Whether nothing may be left behind in it.
    pub(super) const fn is_pooled(&self) -> bool {
        self.prepared.is_none()
    }

    async fn run(
        &self,
        query: &'static Query,
        schema: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let failed = |error| Failure::of(query.name, query.writes, &error);
        let Some(cache) = &self.prepared else {
            let typed: Vec<_> = params.iter().copied().zip(query.types.iter().cloned()).collect();
            return self.client.query_typed(&query.text(schema), &typed).await.map_err(failed);
        };
        let known = cache.read().get(query.name).cloned();
        let statement = match known {
            Some(statement) => statement,
            None => {
                // Nothing has been run yet, whatever becomes of it.
                let text = query.text(schema);
                let prepare = self.client.prepare_typed(&text, query.types);
                let statement = prepare.await.map_err(|error| Failure::of(query.name, false, &error))?;
                cache.write().insert(query.name, statement.clone());
                statement
            }
        };
        let answer = self.client.query(&statement, params).await.map_err(failed);
        if let Err(Failure::Stale(_)) = &answer {
            cache.write().remove(query.name);
        }
        answer
    }
}

/// The place of one connection.
#[derive(Default)]
struct Slot(RwLock<Option<Arc<Wire>>>);

/// Some connections, of which each statement takes the one with the fewest on their way.
struct Slots {
    slots: Vec<Arc<Slot>>,
    next: AtomicUsize,
    /// Bounds what is on its way; the rest waits here.
    room: Semaphore,
}

/// All connections of a store.
pub(super) struct Links {
    connector: Arc<Connector>,
    quick: Slots,
    durable: Slots,
    /// Counts the connections that were made.
    made: watch::Receiver<u64>,
    /// Why the last connection was not made.
    trouble: Arc<Mutex<Option<PostgresError>>>,
    closed: watch::Sender<bool>,
    keepers: Mutex<Vec<JoinHandle<()>>>,
}

impl Links {
    /// Starts with this connection, and has the others made.
    pub(super) fn start(connector: Arc<Connector>, first: (Wire, JoinHandle<()>)) -> Self {
        let (closed, closing) = watch::channel(false);
        let (announce, made) = watch::channel(0);
        let announce = Arc::new(announce);
        let trouble = Arc::new(Mutex::new(None));
        let mut keepers = Vec::new();
        let mut first = Some(first);
        let mut lane = |count: usize| {
            let count = count.clamp(1, 64);
            let slots: Vec<_> = (0..count).map(|_| Arc::new(Slot::default())).collect();
            for slot in &slots {
                let keeper = Keeper {
                    slot: slot.clone(),
                    connector: connector.clone(),
                    announce: announce.clone(),
                    trouble: trouble.clone(),
                    closing: closing.clone(),
                };
                keepers.push(tokio::spawn(keeper.keep(first.take())));
            }
            Slots { slots, next: AtomicUsize::new(0), room: Semaphore::new(count * DEPTH) }
        };
        let quick = lane(connector.options.connections);
        let durable = lane(connector.options.writers);
        Self { quick, durable, made, trouble, closed, keepers: Mutex::new(keepers), connector }
    }

    /// Runs a statement, on whichever connection has the fewest to do.
    pub(super) async fn run(&self, query: &'static Query, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failure> {
        let options = &self.connector.options;
        let lane = match query.lane {
            Lane::Quick => &self.quick,
            Lane::Durable => &self.durable,
        };
        let Ok(Ok(_room)) = timeout(self.patience(), lane.room.acquire()).await else {
            return Err(self.crowded(query));
        };
        let limit = options.statement_timeout.saturating_mul(2).saturating_add(Duration::from_secs(1));
        let mut attempt = 1;
        loop {
            let wire = self.pick(lane, query).await?;
            let answer = match timeout(limit, wire.run(query, &options.schema, params)).await {
                Ok(answer) => answer,
                Err(_) => {
                    // What is behind it on this connection would wait as long.
                    wire.driver.abort();
                    Err(Failure::no_answer(query.name, query.writes))
                }
            };
            match answer {
                Err(Failure::Again(error) | Failure::Stale(error)) if attempt < ATTEMPTS => {
                    tracing::debug!(%error, attempt, "tried again");
                    // Longer each time, so that rivals get out of each other's way.
                    tokio::time::sleep(Duration::from_millis(5) * (attempt - 1)).await;
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }

    /// How long anything may wait before it is sent.
    pub(super) fn patience(&self) -> Duration {
        self.connector.options.acquire_timeout
    }

    /// It has waited for longer.
    pub(super) fn crowded(&self, query: &Query) -> Failure {
        self.unavailable(query, "too much is waiting for PostgreSQL already")
    }

    /// A connection that stands, waiting for one if there is none.
    async fn pick(&self, lane: &Slots, query: &Query) -> Result<Arc<Wire>, Failure> {
        let picked = async {
            let mut made = self.made.clone();
            loop {
                made.borrow_and_update();
                if *self.closed.borrow() {
                    return None;
                }
                if let Some(wire) = lane.least_busy() {
                    return Some(wire);
                }
                made.changed().await.ok()?;
            }
        };
        match timeout(self.patience(), picked).await {
            Ok(Some(wire)) => Ok(wire),
            Ok(None) => Err(self.unavailable(query, "the store was closed")),
            Err(_) => Err(self.unavailable(query, "no connection")),
        }
    }

    fn unavailable(&self, query: &Query, why: &str) -> Failure {
        let message = match &*self.trouble.lock() {
            Some(trouble) => format!("{why}: {trouble}"),
            None => why.to_owned(),
        };
        Failure::Unavailable(PostgresError { doing: query.name, code: None, message })
    }

    /// Refuses what comes from now on, waits for what is on its way, and ends the connections.
    pub(super) async fn close(&self) {
        self.closed.send_replace(true);
        let keepers = std::mem::take(&mut *self.keepers.lock());
        for keeper in keepers {
            // It can only have been ended by the runtime.
            let _ = keeper.await;
        }
    }

    /// For work of the store's own that goes on until it is closed.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }
}

impl Slots {
    fn least_busy(&self) -> Option<Arc<Wire>> {
        // Begins elsewhere each time, so that they share what comes while nobody is busy.
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut best: Option<(usize, Arc<Wire>)> = None;
        for number in 0..self.slots.len() {
            let slot = self.slots[first.wrapping_add(number) % self.slots.len()].0.read();
            let Some(wire) = slot.as_ref().filter(|wire| !wire.client.is_closed()) else { continue };
            // Every statement on its way holds one.
            let busy = Arc::strong_count(wire);
            if best.as_ref().is_none_or(|(least, _)| busy < *least) {
                best = Some((busy, wire.clone()));
            }
        }
        best.map(|(_, wire)| wire)
    }
}

/// Keeps one connection up until the store is closed or dropped.
struct Keeper {
    slot: Arc<Slot>,
    connector: Arc<Connector>,
    announce: Arc<watch::Sender<u64>>,
    trouble: Arc<Mutex<Option<PostgresError>>>,
    closing: watch::Receiver<bool>,
}

impl Keeper {
    async fn keep(mut self, first: Option<(Wire, JoinHandle<()>)>) {
        let mut connected = first;
        let mut pause = FIRST_PAUSE;
        loop {
            let made = match connected.take() {
                Some(made) => Ok(made),
                None => tokio::select! {
                    made = self.connector.connect() => made,
                    _ = self.closing.wait_for(|closed| *closed) => return,
                },
            };
            match made {
                Ok((wire, driver)) => {
                    if self.trouble.lock().take().is_some() {
                        tracing::info!("PostgreSQL can be reached again");
                    }
                    pause = FIRST_PAUSE;
                    if self.serve(wire, driver).await {
                        return;
                    }
                }
                Err(error) => {
                    // Once, and not with every attempt of every connection.
                    if self.trouble.lock().replace(error.clone()).is_none() {
                        tracing::error!(%error, "PostgreSQL cannot be reached");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = self.closing.wait_for(|closed| *closed) => return,
                    }
                    pause = (pause * 2).min(self.connector.options.longest_pause);
                }
            }
        }
    }

    /// Until the connection has ended. True if the store was closed.
    async fn serve(&mut self, wire: Wire, mut driver: JoinHandle<()>) -> bool {
        *self.slot.0.write() = Some(Arc::new(wire));
        self.announce.send_modify(|made| *made += 1);
        let closed = tokio::select! {
            _ = &mut driver => false,
            _ = self.closing.wait_for(|closed| *closed) => true,
        };
        *self.slot.0.write() = None;
        if closed {
            // It ends when the last statement on it has been answered. After this long none is waited for any more.
            let limit = self.connector.options.statement_timeout.saturating_mul(2) + Duration::from_secs(1);
            if timeout(limit, &mut driver).await.is_err() {
                driver.abort();
            }
        }
        closed
    }
}
