//! Connections, and how operations travel.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use baton_core::error::StoreError;
use parking_lot::Mutex;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisFuture,
    RedisResult, Script, ServerErrorKind, TlsMode, Value,
};
use tokio::time::Instant;

use super::error::{failed, is_in_doubt, unavailable, uncertain, unusable};
use super::options::{Place, RedisOptions};

/// The first pause between two attempts to connect.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// Something to be done with one key. Doing it twice has to be as good as once: see [`Links::run`].
pub(super) struct Operation<'a> {
    /// For errors.
    pub(super) doing: &'static str,
    pub(super) key: &'a str,
    pub(super) call: Call<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum Call<'a> {
    /// Reads the value.
    Get,
    /// Reads what time it is, and the value.
    TimeAndGet,
    /// Writes. What is durable has to be with the replicas that were asked for before it counts; anything else may be forgotten
    /// in a failover.
    Script { script: &'a Lua, args: &'a [&'a [u8]], durable: bool },
}

impl Call<'_> {
    const fn writes(&self) -> bool {
        matches!(self, Self::Script { .. })
    }
}

/// For a cluster, where a server has to be asked for the time by a key.
static FIND: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("find.lua")));

/// A script, and what it is called by once the server has it.
pub(super) struct Lua {
    text: &'static str,
    hash: String,
}

impl Lua {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, hash: Script::new(text).get_hash().to_owned() }
    }
}

/// All connections of a store.
pub(super) struct Links {
    /// For what does not wait for replicas.
    quick: Link,
    /// For what does: meanwhile a connection stands still.
    writers: Vec<Link>,
    next: AtomicUsize,
    wait_replicas: u32,
    wait_timeout: Duration,
    closed: AtomicBool,
}

impl Links {
    pub(super) fn new(options: &RedisOptions) -> Result<Self, StoreError> {
        let target = Arc::new(Target::new(options)?);
        let link = |timeout| Link::new(target.clone(), timeout, options);
        let writers = if options.wait_replicas == 0 { 0 } else { options.writers.max(1) };
        Ok(Self {
            quick: link(options.timeout),
            writers: (0..writers).map(|_| link(options.timeout + options.wait_timeout)).collect(),
            next: AtomicUsize::new(0),
            wait_replicas: options.wait_replicas,
            wait_timeout: options.wait_timeout,
            closed: AtomicBool::new(false),
        })
    }

    /// Connects, or says why not.
    pub(super) async fn connect(&self) -> Result<(), StoreError> {
        self.quick.connection().await.map(drop)
    }

    /// Runs an operation, a second time if the connection was lost: then its outcome is known after all.
    ///
    /// # Errors
    /// As [`failed`] has it. [`StoreError::Uncertain`] also if too few replicas have what had to be there.
    pub(super) async fn run<T: FromRedisValue>(&self, operation: &Operation<'_>) -> Result<T, StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(unavailable("the store was closed"));
        }
        let waits = match operation.call {
            Call::Script { script, args, durable: true } if self.wait_replicas > 0 => Some((script, args)),
            _ => None,
        };
        let link = if waits.is_some() {
            &self.writers[self.next.fetch_add(1, Ordering::Relaxed) % self.writers.len()]
        } else {
            &self.quick
        };
        let mut sent = false;
        for last in [false, true] {
            let (number, mut connection) = match link.connection().await {
                Ok(connection) => connection,
                // The first attempt may have been made.
                Err(error) if sent && operation.call.writes() => return Err(uncertain(error.to_string())),
                Err(error) => return Err(error),
            };
            let answer = match waits {
                Some((script, args)) => Box::pin(self.run_and_wait(operation, script, args, &mut connection)).await,
                None => run(operation, &mut connection).await.map(Ok),
            };
            let error = match answer {
                Ok(answer) => return answer,
                Err(error) => error,
            };
            link.give_up(number, &error);
            let lost = is_in_doubt(&error);
            if last || !lost || error.is_timeout() {
                return Err(failed(operation.doing, operation.call.writes(), &error));
            }
            sent = true;
        }
        Err(unavailable("no attempt was made"))
    }

    /// In one go: the connection that waits has to be the one that wrote, also if the server changes in between.
    async fn run_and_wait<T: FromRedisValue>(
        &self,
        operation: &Operation<'_>,
        script: &Lua,
        args: &[&[u8]],
        connection: &mut Connection,
    ) -> RedisResult<Result<T, StoreError>> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(call("EVAL", script.text, operation.key, args));
        pipeline
            .cmd("WAIT")
            .arg(self.wait_replicas)
            .arg(u64::try_from(self.wait_timeout.as_millis()).unwrap_or(0).max(1));
        let (answer, replicas): (T, u32) = pipeline.query_async(connection).await?;
        if replicas >= self.wait_replicas {
            return Ok(Ok(answer));
        }
        let wanted = self.wait_replicas;
        Ok(Err(uncertain(format!("{}: {replicas} of {wanted} replicas have it in time", operation.doing))))
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for link in std::iter::once(&self.quick).chain(&self.writers) {
            *link.current.lock() = None;
        }
    }

    /// A command that has nothing to do with a key, for what is good to know.
    pub(super) async fn ask<T: FromRedisValue>(&self, doing: &'static str, command: &Cmd) -> Result<T, StoreError> {
        let (_, mut connection) = self.quick.connection().await?;
        command.query_async(&mut connection).await.map_err(|error| failed(doing, false, &error))
    }
}

async fn run<T: FromRedisValue>(operation: &Operation<'_>, connection: &mut Connection) -> RedisResult<T> {
    let key = operation.key;
    match (operation.call, &*connection) {
        (Call::Get, _) => redis::cmd("GET").arg(key).query_async(connection).await,
        (Call::TimeAndGet, Connection::Node(_)) => {
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.cmd("TIME").cmd("GET").arg(key);
            pipeline.query_async(connection).await
        }
        (Call::TimeAndGet, Connection::Cluster(_)) => evaluate(&FIND, key, &[], connection).await,
        (Call::Script { script, args, .. }, _) => evaluate(script, key, args, connection).await,
    }
}

async fn evaluate<T: FromRedisValue>(
    script: &Lua,
    key: &str,
    args: &[&[u8]],
    connection: &mut Connection,
) -> RedisResult<T> {
    match call("EVALSHA", &script.hash, key, args).query_async(connection).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            // From now on the server knows it.
            call("EVAL", script.text, key, args).query_async(connection).await
        }
        answer => answer,
    }
}

fn call(command: &str, script: &str, key: &str, args: &[&[u8]]) -> Cmd {
    let size = args.iter().fold(command.len() + script.len() + 1 + key.len(), |size, arg| size + arg.len());
    let mut cmd = Cmd::with_capacity(4 + args.len(), size);
    cmd.arg(command).arg(script).arg(1).arg(key);
    for arg in args {
        cmd.arg(*arg);
    }
    cmd
}

/// One connection, made when it is needed and again when it was lost.
struct Link {
    target: Arc<Target>,
    config: AsyncConnectionConfig,
    connect_timeout: Duration,
    longest_pause: Duration,
    current: Mutex<Option<(u64, Connection)>>,
    /// Held by whoever connects.
    attempts: tokio::sync::Mutex<Attempts>,
}

#[derive(Default)]
struct Attempts {
    made: u64,
    /// Of the last one, if it failed: until when none is made, how long that pause is, and why.
    failed: Option<(Instant, Duration, String)>,
}

impl Link {
    fn new(target: Arc<Target>, timeout: Duration, options: &RedisOptions) -> Self {
        Self {
            target,
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(options.connect_timeout))
                .set_response_timeout(Some(timeout)),
            connect_timeout: options.connect_timeout,
            longest_pause: options.longest_pause.max(SHORTEST_PAUSE),
            current: Mutex::new(None),
            attempts: tokio::sync::Mutex::default(),
        }
    }

    /// The connection and its number.
    async fn connection(&self) -> Result<(u64, Connection), StoreError> {
        let current = self.current.lock().clone();
        match current {
            Some(current) => Ok(current),
            // Boxed, like all that is rare: otherwise each operation's future has room for it, and is moved with that.
            None => Box::pin(self.connect()).await,
        }
    }

    /// Nobody waits longer than making a connection may take; after an attempt that failed there is a pause, in which the answer is
    /// the same again.
    async fn connect(&self) -> Result<(u64, Connection), StoreError> {
        let mut attempts = self.attempts.lock().await;
        if let Some(current) = &*self.current.lock() {
            return Ok(current.clone());
        }
        let now = Instant::now();
        let pause = match &attempts.failed {
            Some((until, _, why)) if now < *until => return Err(unavailable(why.as_str())),
            Some((_, pause, _)) => (*pause * 2).min(self.longest_pause),
            None => SHORTEST_PAUSE,
        };
        let made = match tokio::time::timeout(self.connect_timeout, self.target.connect(&self.config)).await {
            Ok(made) => made.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        match made {
            Ok(connection) => {
                attempts.made += 1;
                if attempts.failed.take().is_some() {
                    tracing::info!("Redis can be reached again");
                }
                let current = (attempts.made, connection);
                *self.current.lock() = Some(current.clone());
                Ok(current)
            }
            Err(error) => {
                let why = format!("connect: {error}");
                if attempts.failed.is_none() {
                    tracing::error!(error = why, "Redis cannot be reached");
                }
                attempts.failed = Some((Instant::now() + pause, pause, why.clone()));
                Err(unavailable(why))
            }
        }
    }

    /// Lets go of a connection that is no good any more. A cluster's mends itself.
    fn give_up(&self, number: u64, error: &RedisError) {
        let demoted = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly);
        let spent = demoted || error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error();
        let mut current = self.current.lock();
        if spent && matches!(&*current, Some((held, Connection::Node(_))) if *held == number) {
            *current = None;
        }
    }
}

enum Target {
    Node(Client),
    Sentinel(tokio::sync::Mutex<SentinelClient>),
    Cluster(ClusterClient),
}

impl Target {
    fn new(options: &RedisOptions) -> Result<Self, StoreError> {
        let invalid = |error: RedisError| unusable(format!("the URL cannot be used: {}", error.category()));
        Ok(match &options.place {
            Place::Node(info) => Self::Node(Client::open((**info).clone()).map_err(invalid)?),
            Place::Sentinel { sentinels, service, primary } => {
                let addresses = sentinels.iter().map(|info| info.addr().clone());
                let mut builder = SentinelClientBuilder::new(addresses, service.clone(), SentinelServerType::Master)
                    .map_err(invalid)?;
                let settings = primary.redis_settings();
                builder = builder.set_client_to_redis_db(settings.db());
                if let Some(username) = settings.username() {
                    builder = builder.set_client_to_redis_username(username);
                }
                if let Some(password) = settings.password() {
                    builder = builder.set_client_to_redis_password(password);
                }
                if matches!(primary.addr(), ConnectionAddr::TcpTls { .. }) {
                    builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
                }
                Self::Sentinel(tokio::sync::Mutex::new(builder.build().map_err(invalid)?))
            }
            Place::Cluster(nodes) => {
                let builder = ClusterClient::builder(nodes.clone())
                    .connection_timeout(options.connect_timeout)
                    .response_timeout(options.timeout + options.wait_timeout)
                    .retries(4)
                    .min_retry_wait(10)
                    .max_retry_wait(200);
                Self::Cluster(builder.build().map_err(invalid)?)
            }
        })
    }

    async fn connect(&self, config: &AsyncConnectionConfig) -> RedisResult<Connection> {
        match self {
            Self::Node(client) => {
                client.get_multiplexed_async_connection_with_config(config).await.map(Connection::Node)
            }
            Self::Sentinel(client) => {
                client.lock().await.get_async_connection_with_config(config).await.map(Connection::Node)
            }
            Self::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
        }
    }
}

/// To one server, or to all of a cluster.
#[derive(Clone)]
enum Connection {
    Node(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Node(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Node(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Node(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
