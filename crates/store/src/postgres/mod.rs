//! A store in PostgreSQL: for any number of nodes.
//!
//! - A few connections carry all requests at once: statements are sent as they come (pipelining). Every operation is **one
//!   statement**, those that change several rows by way of functions in the store's schema. So no lock is held while a node
//!   pauses or dies, and it works through PgBouncer with `pool_mode=transaction`, which is noticed without being told.
//! - Sessions that are read or rotated at the same time share a statement.
//! - A rotation does not wait for the disk (`synchronous_commit=off`, for its own transaction); everything that a crash must
//!   not undo does, also where the server's default is not to wait. The two go over connections of their own, so that a read
//!   does not queue behind a sign-in that waits for the disk.
//! - Time is the server's clock. If that is set back, or a replica with a slower clock takes over, time goes on from the
//!   latest time that was recorded, at about two thirds of the clock's pace, until the clock has caught up. A row's own times never
//!   go back.
//! - While PostgreSQL is away, operations are answered [`StoreError::Unavailable`] after a second. A connection that was
//!   lost between a write and its answer is [`StoreError::Uncertain`]. Connections are made anew with growing pauses.
//!
//! It needs PostgreSQL 13 or later, a database in UTF-8, and a role that may create a schema there, or owns one; for a server,
//! one that may read and write is enough ([`PostgresOptions::migrate`]). Nothing but its own schema is touched. What is in it holds password hashes, and neither tokens nor keys.

mod error;
mod gather;
mod inspect;
mod link;
mod options;
mod queries;
mod schema;
mod sessions;
mod tls;
mod values;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use baton_core::attempts::{AttemptName, AttemptRule, Counted};
use baton_core::clock::{Clock, Timestamp, millis};
use baton_core::error::{CreateAccountError, CreateSessionError, RedeemError, StoreError, UpdateAccountError};
use baton_core::event::{Message, Outcome, Recorded, Trace};
use baton_core::one_time::{OneTime, OneTimeId};
use baton_core::ports::{Found, FoundOneTime, KeyBinding, Login, NewOneTime, SessionEntry, Store};
use baton_core::session::{
    Account, AccountId, AccountUpdate, NewAccount, NewSession, PasswordHash, Session, Swap, Swapped,
};
use baton_core::token::ClientId;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSqlOwned, ToSql};

pub use error::PostgresError;
pub use options::{Pooler, PostgresOptions};
pub use tls::SslMode;

use crate::registry::Registry;
use error::{NAME, unreadable, unusable};
use gather::Gathering;
use link::{Connector, Links};
use queries::Query;
use sessions::{Finds, Swaps, Wanted};
use values::{Id, encode};

use crate::inspection::Inspection;
use crate::migrations::Migrations;

/// How often a node that is in use has the time kept.
const TICK: Duration = Duration::from_millis(500);

/// Accounts and sessions in PostgreSQL. See the [module](self).
pub struct PostgresStore {
    links: Arc<Links>,
    finds: Arc<Gathering<Finds>>,
    swaps: Arc<Gathering<Swaps>>,
    time: Arc<Time>,
    schema: String,
}

/// What this node knows of the store's time.
struct Time {
    /// The latest that it has seen: its own answers are never before that.
    seen: AtomicI64,
    /// Whether anything has asked since the time was last kept.
    used: AtomicBool,
}

impl Time {
    fn observe(&self, time: Timestamp) -> Timestamp {
        self.used.store(true, Ordering::Relaxed);
        let before = self.seen.fetch_max(time.as_millis(), Ordering::AcqRel);
        Timestamp::from_millis(before.max(time.as_millis()))
    }
}

impl PostgresStore {
    /// Connects, and brings the schema up to date, if that is what the options say; several nodes may do this at once. Further
    /// connections are made as time goes on. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if the schema belongs to another application, was written by a newer version, or is not up to
    /// date and may not be changed; [`StoreError::Unavailable`] if PostgreSQL cannot be reached or lets nobody in.
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        options.check_schema()?;
        if options.is_exposed() {
            tracing::warn!(
                "the connection to PostgreSQL is protected against those who listen at best; say sslmode=verify-full in the \
                 URL, or sslmode=disable if the network is yours alone"
            );
        }
        let (schema, migrate) = (options.schema.clone(), options.migrate);
        let connector = Arc::new(Connector::new(options)?);
        let (mut wire, driver) = connector.connect().await.map_err(unreachable)?;
        if migrate {
            schema::migrate(&mut wire.client, &schema).await?;
        } else {
            schema::require(&mut wire.client, &schema).await?;
        }
        let links = Arc::new(Links::start(connector, (wire, driver)));
        let time = Arc::new(Time { seen: AtomicI64::new(0), used: AtomicBool::new(true) });
        tokio::spawn(keep_time(Arc::downgrade(&links), time.clone()));
        let finds = Gathering::new(Finds { links: links.clone(), time: time.clone() }, links.clone());
        let swaps = Gathering::new(Swaps { links: links.clone(), time: time.clone() }, links.clone());
        Ok(Self { links, finds, swaps, time, schema })
    }

    /// Brings the schema up to date, whatever [`PostgresOptions::migrate`] says, and answers how far it was. Several may do this
    /// at once. Needs a tokio runtime.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn migrate(options: PostgresOptions) -> Result<Migrations, StoreError> {
        options.check_schema()?;
        let schema = options.schema.clone();
        let (mut wire, _) = Connector::new(options)?.connect().await.map_err(unreachable)?;
        schema::migrate(&mut wire.client, &schema).await
    }

    /// How far the schema is. Changes nothing. Needs a tokio runtime.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn migrations(options: PostgresOptions) -> Result<Migrations, StoreError> {
        options.check_schema()?;
        let schema = options.schema.clone();
        let (mut wire, _) = Connector::new(options)?.connect().await.map_err(unreachable)?;
        schema::look(&mut wire.client, &schema).await
    }

    /// What an operator may want to know of the store that these options name, and whether a server could work with it. Changes
    /// nothing, and counts no rows. `clock`: this machine's. Needs a tokio runtime.
    pub async fn inspect(options: PostgresOptions, clock: &dyn Clock) -> Inspection {
        inspect::inspect(options, clock).await
    }

    /// Waits for what is on its way and ends the connections. Operations that come later are answered
    /// [`StoreError::Unavailable`]. Closing twice is harmless; dropping the store ends the connections too, without waiting.
    pub async fn close(&self) {
        self.links.close().await;
    }

    async fn rows(&self, query: &'static Query, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        self.links.run(query, params).await.map_err(StoreError::from)
    }

    /// The row of a statement that has one always.
    async fn row(&self, query: &'static Query, params: &[&(dyn ToSql + Sync)]) -> Result<Row, StoreError> {
        self.rows(query, params).await?.pop().ok_or_else(|| unusable(format!("{}: no answer", query.name)))
    }

    /// The one value that a function answers.
    async fn value<T: FromSqlOwned>(
        &self,
        query: &'static Query,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<T, StoreError> {
        self.row(query, params).await?.try_get(0).map_err(unreadable(query.name))
    }
}

fn unreachable(error: PostgresError) -> StoreError {
    StoreError::Unavailable { store: NAME, cause: Box::new(error) }
}

/// Until the store is closed or dropped.
async fn keep_time(links: std::sync::Weak<Links>, time: Arc<Time>) {
    let Some(mut closing) = links.upgrade().map(|links| links.closing()) else { return };
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            _ = closing.wait_for(|closed| *closed) => return,
        }
        if !time.used.swap(false, Ordering::Relaxed) {
            continue;
        }
        let Some(links) = links.upgrade() else { return };
        let kept = links.run(&queries::TICK, &[&time.seen.load(Ordering::Acquire)]).await;
        if let Err(error) = kept.map_err(StoreError::from) {
            tracing::debug!(%error, "the time was not kept");
            time.used.store(true, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("schema", &self.schema).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn find(&self, client: ClientId) -> Result<Option<Found>, StoreError> {
        self.finds.ask(client).await.map_err(StoreError::from)
    }

    async fn swap(&self, client: ClientId, swap: &Swap, seen_from: Option<IpAddr>) -> Result<Swapped, StoreError> {
        let wanted = Wanted { client, swap: *swap, seen_from };
        // What waits for the disk goes by itself, over connections of its own.
        let gathered = if swap.resends() { None } else { self.swaps.ask(wanted).await? };
        match gathered {
            Some(swapped) => Ok(swapped),
            None => self.swaps.work().alone(&wanted).await.map_err(StoreError::from),
        }
    }

    async fn create_account(
        &self,
        account: NewAccount,
        session: Option<NewSession>,
        trace: &Trace,
    ) -> Result<(Account, Option<Session>), CreateAccountError> {
        let query = &queries::CREATE_ACCOUNT;
        let row = self
            .row(query, &[&values::account(&account), &session.as_ref().map(values::session), &left(trace)?])
            .await?;
        let id: Option<i64> = row.try_get(0).map_err(unreadable(query.name))?;
        let now = queries::time_at(&row, 1).map_err(unreadable(query.name))?;
        self.time.observe(now);
        let id = AccountId(id.ok_or(CreateAccountError::Taken)?);
        let (account, _) = account.made(id, now);
        Ok((account, session.map(|new| Session::new(new.client, id, now, new.renewal))))
    }

    async fn find_login(&self, realm: &str, provider: &str, uid: &str) -> Result<Option<Login>, StoreError> {
        let rows = self.rows(&queries::FIND_LOGIN, &[&encode(realm), &encode(provider), &encode(uid)]).await?;
        rows.first().map(queries::login_at).transpose().map_err(unreadable("find a login"))
    }

    async fn update_account(
        &self,
        account: AccountId,
        update: AccountUpdate,
        trace: &Trace,
    ) -> Result<Account, UpdateAccountError> {
        let query = &queries::UPDATE_ACCOUNT;
        let row = self.row(query, &[&account.0, &values::update(&update), &left(trace)?]).await?;
        match queries::changed(&row).map_err(unreadable(query.name))? {
            (_, Some(account)) => {
                self.time.observe(account.updated_at);
                Ok(account)
            }
            (outcome, None) => Err(match outcome.as_str() {
                "gone" => UpdateAccountError::Gone,
                "overtaken" => UpdateAccountError::Overtaken,
                "taken" => UpdateAccountError::Taken,
                _ => strange(query, &outcome).into(),
            }),
        }
    }

    async fn delete_account(&self, account: AccountId, trace: &Trace) -> Result<bool, StoreError> {
        self.value(&queries::DELETE_ACCOUNT, &[&account.0, &left(trace)?]).await
    }

    async fn create_session(
        &self,
        account: AccountId,
        session: NewSession,
        trace: &Trace,
    ) -> Result<Session, CreateSessionError> {
        let query = &queries::CREATE_SESSION;
        let if_password = session.if_password.as_ref().map(PasswordHash::expose).map(encode);
        let row = self.row(query, &[&account.0, &values::session(&session), &if_password, &left(trace)?]).await?;
        let now = queries::optional_time_at(&row, 0).map_err(unreadable(query.name))?;
        let now = now.ok_or(CreateSessionError::NoAccount)?;
        self.time.observe(now);
        Ok(Session::new(session.client, account, now, session.renewal))
    }

    async fn end_session(&self, account: AccountId, client: ClientId, trace: &Trace) -> Result<bool, StoreError> {
        self.value(&queries::END_SESSION, &[&account.0, &Id(*client.as_bytes()), &left(trace)?]).await
    }

    async fn sessions(&self, account: AccountId) -> Result<(Timestamp, Vec<SessionEntry>), StoreError> {
        let mut now = Timestamp::default();
        let mut entries = Vec::new();
        for row in self.rows(&queries::SESSIONS, &[&account.0]).await? {
            let (at, entry) = queries::listed(&row).map_err(unreadable("list sessions"))?;
            now = at;
            entries.extend(entry);
        }
        Ok((self.time.observe(now), entries))
    }

    async fn create_one_time(&self, token: NewOneTime) -> Result<bool, StoreError> {
        let NewOneTime { id, account, purpose, email, lifetime } = token;
        let id = Id(*id.as_bytes());
        let query = &queries::CREATE_ONE_TIME;
        self.value(query, &[&id, &account.0, &purpose.as_str(), &encode(&email), &millis(lifetime)]).await
    }

    async fn find_one_time(&self, id: OneTimeId) -> Result<Option<FoundOneTime>, StoreError> {
        let query = &queries::FIND_ONE_TIME;
        let rows = self.rows(query, &[&Id(*id.as_bytes())]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (login, purpose, email, [expires_at, now]) = queries::one_time(row).map_err(unreadable(query.name))?;
        let purpose = purpose.ok_or_else(|| unusable(format!("{}: a purpose that this version lacks", query.name)))?;
        let now = self.time.observe(now);
        let one_time = OneTime { id, account: login.account.id, purpose, email, expires_at };
        Ok((now < expires_at).then_some(FoundOneTime { one_time, login, now }))
    }

    async fn redeem(
        &self,
        id: OneTimeId,
        update: AccountUpdate,
        session: Option<NewSession>,
        trace: &Trace,
    ) -> Result<(Account, Option<Session>), RedeemError> {
        let query = &queries::REDEEM;
        let id = Id(*id.as_bytes());
        let new = session.as_ref().map(values::session);
        let row = self.row(query, &[&id, &values::update(&update), &new, &left(trace)?]).await?;
        let account = match queries::changed(&row).map_err(unreadable(query.name))? {
            (_, Some(account)) => account,
            (outcome, None) => {
                return Err(match outcome.as_str() {
                    "gone" | "overtaken" => RedeemError::Gone,
                    "taken" => RedeemError::Taken,
                    _ => strange(query, &outcome).into(),
                });
            }
        };
        let now = queries::redeemed_at(&row).map_err(unreadable(query.name))?;
        self.time.observe(now);
        let session = session.map(|new| Session::new(new.client, account.id, now, new.renewal));
        Ok((account, session))
    }

    async fn void_one_time(&self, id: OneTimeId) -> Result<(), StoreError> {
        self.rows(&queries::VOID_ONE_TIME, &[&Id(*id.as_bytes())]).await.map(drop)
    }

    async fn count_attempt(&self, name: AttemptName, rule: AttemptRule) -> Result<Counted, StoreError> {
        let query = &queries::COUNT_ATTEMPT;
        let row = self
            .row(
                query,
                &[&Id(name.0), &i64::from(rule.max_attempts), &millis(rule.lock_for), &millis(rule.forget_after)],
            )
            .await?;
        if let Some(until) = queries::optional_time_at(&row, 0).map_err(unreadable(query.name))? {
            return Ok(Counted::Locked(until));
        }
        Ok(Counted::Allowed { last: row.try_get(1).map_err(unreadable(query.name))? })
    }

    async fn forget_attempts(&self, name: AttemptName) -> Result<(), StoreError> {
        self.rows(&queries::FORGET_ATTEMPTS, &[&Id(name.0)]).await.map(drop)
    }

    async fn record(&self, trace: &Trace) -> Result<(), StoreError> {
        self.rows(&queries::RECORD, &[&left(trace)?]).await.map(drop)
    }

    async fn events(&self, after: i64, limit: u32) -> Result<Vec<Recorded>, StoreError> {
        let query = &queries::EVENTS;
        let rows = self.rows(query, &[&after, &i64::from(limit)]).await?;
        let event = |row| {
            let event = queries::event_at(row).map_err(unreadable(query.name))?;
            event.ok_or_else(|| unusable(format!("{}: a kind that this version does not know", query.name)))
        };
        rows.iter().map(event).collect()
    }

    async fn claim(&self, limit: u32, lease: Duration) -> Result<Vec<Message>, StoreError> {
        let query = &queries::CLAIM;
        let mut claimed = Vec::new();
        for row in self.rows(query, &[&i64::from(limit), &millis(lease)]).await? {
            match queries::message(&row).map_err(unreadable(query.name))? {
                (_, Some(message)) => claimed.push(message),
                (id, None) => {
                    tracing::error!(message = id, "the outbox holds a message that this version cannot read");
                }
            }
        }
        Ok(claimed)
    }

    async fn settle(&self, id: i64, attempt: u32, outcome: Outcome) -> Result<(), StoreError> {
        let retry = match outcome {
            Outcome::Done => None,
            Outcome::Retry(after) => Some(millis(after)),
        };
        self.rows(&queries::SETTLE, &[&id, &i64::from(attempt), &retry]).await.map(drop)
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        self.value::<i64>(&queries::PURGE, &[&i64::from(limit)]).await.map(i64::unsigned_abs)
    }

    async fn purge_events(&self, age: Duration, limit: u32) -> Result<u64, StoreError> {
        let params: [&(dyn ToSql + Sync); 2] = [&millis(age), &i64::from(limit)];
        self.value::<i64>(&queries::PURGE_EVENTS, &params).await.map(i64::unsigned_abs)
    }

    async fn bind_keys(&self, fingerprints: &[String]) -> Result<KeyBinding, StoreError> {
        let known = self.value(&queries::BIND_KEYS, &[&fingerprints]).await?;
        Ok(if known { KeyBinding::Bound } else { KeyBinding::Foreign })
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.rows(&queries::CHECK_READ, &[]).await?;
        self.rows(&queries::CHECK_WRITE, &[]).await.map(drop)
    }
}

#[async_trait]
impl Registry for PostgresStore {
    async fn remember_ends(&self) -> Result<(), StoreError> {
        self.rows(&queries::REMEMBER_ENDS, &[]).await.map(drop)
    }

    async fn remembered_ends(&self, account: Option<AccountId>, limit: u32) -> Result<Vec<ClientId>, StoreError> {
        let query = &queries::REMEMBERED_ENDS;
        let row = self.row(query, &[&account.map(|account| account.0), &i64::from(limit)]).await?;
        queries::clients_at(&row, 0).map_err(unreadable(query.name))
    }

    async fn forget_ends(&self, clients: &[ClientId]) -> Result<(), StoreError> {
        let clients: Vec<Id> = clients.iter().map(|client| Id(*client.as_bytes())).collect();
        self.rows(&queries::FORGET_ENDS, &[&clients]).await.map(drop)
    }

    async fn due(&self, limit: u32) -> Result<Vec<(AccountId, ClientId)>, StoreError> {
        let query = &queries::DUE;
        let rows = self.rows(query, &[&i64::from(limit)]).await?;
        rows.iter().map(|row| queries::due(row).map_err(unreadable(query.name))).collect()
    }

    async fn note(&self, session: &Session) -> Result<(), StoreError> {
        let params: [&(dyn ToSql + Sync); 6] = [
            &Id(*session.client.as_bytes()),
            &i64::from(session.generation.get()),
            &session.handed_out_at.map(Timestamp::as_millis),
            &i64::from(session.confirmed.get()),
            &session.last_seen_at.as_millis(),
            &session.expires_at.as_millis(),
        ];
        self.rows(&queries::NOTE, &params).await.map(drop)
    }

    async fn purge_others(&self, limit: u32) -> Result<u64, StoreError> {
        self.value::<i64>(&queries::PURGE_OTHERS, &[&i64::from(limit)]).await.map(i64::unsigned_abs)
    }
}

/// The trace, as the functions take it.
fn left(trace: &Trace) -> Result<Option<String>, StoreError> {
    values::trace(trace).map_err(|error| unusable(format!("a letter cannot be written down: {error}")))
}

/// An outcome that this version does not know.
fn strange(query: &Query, outcome: &str) -> StoreError {
    unusable(format!("{}: {outcome}", query.name))
}
