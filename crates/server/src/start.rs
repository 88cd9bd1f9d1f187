//! From a configuration to a running server.

use std::net::SocketAddr;
use std::sync::Arc;

use baton_axum::{Auth, HttpSettingsError, RateLimits};
use baton_core::letter::Mailer;
use baton_core::{Clock, KeyRing, StoreError};
use baton_engine::{Engine, EngineError, OsRandom, Settings, WebhookSender};
use baton_mail::{Mailbox, SmtpMailer, SmtpSettingsError};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::access_log::RequestIds;
use crate::app::{Mounted, Outside};
use crate::config::{Config, EventsConfig, RealmConfig};
use crate::courier::Courier;
use crate::jwt::Issuer;
use crate::keys::Keys;
use crate::keys::jwt::JwtKeys;
use crate::proxy::Proxy;
use crate::store::OpenStore;
use crate::tls::TrustError;
use crate::webhooks::{SignedWebhooks, WebhookSettingsError};
use crate::workers::Workers;
use crate::{app, listen, purge};

/// Which routes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routes {
    /// The auth routes and the health checks.
    Plain,
    /// Besides them the protected resources below `/demo`.
    WithDemo,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken, or the address is not one of this machine.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The database could not be opened.
    #[error("the database cannot be used: {0}")]
    Store(#[source] StoreError),
    /// The database belongs to other keys.
    #[error(
        "the keys do not belong to the database: its sessions were signed with others, and with these everybody would \
         be signed out. Put back the key file that this database was used with; a new key goes in front of the old ones \
         (`baton keys new --file`). If the old keys are lost for good, have the database forget them, so that everybody \
         signs in again: {0}"
    )]
    ForeignKeys(String),
    /// The engine could not be made.
    #[error(transparent)]
    Engine(EngineError),
    /// The configuration holds what cannot go over HTTP.
    #[error(transparent)]
    Http(#[from] HttpSettingsError),
    /// Letters cannot be handed to the mail server as configured.
    #[error("mail: {0}")]
    Mail(#[from] SmtpSettingsError),
    /// Events cannot be posted as configured.
    #[error("webhooks: {0}")]
    Webhooks(#[from] WebhookSettingsError),
    /// Backends cannot be called as configured.
    #[error("upstream: {0}")]
    Upstream(#[from] TrustError),
    /// JWTs are to be sent, and there is nothing to sign them with.
    #[error("JWTs are to be sent, and there are no keys to sign them with")]
    NoJwtKeys,
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] baton_core::ports::RandomError),
}

/// A server that accepts connections.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    realms: Vec<Mounted>,
    mailbox: Option<Arc<Mailbox>>,
    store: OpenStore,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<bool>,
    courier: Courier,
    purging: JoinHandle<()>,
    /// Asks backends whether they are well.
    watching: JoinSet<()>,
}

/// Starts a server on the caller's runtime. The time of day is `clock`'s; how long requests may take and similar limits are
/// real time.
///
/// # Errors
/// [`StartError`].
pub async fn start(
    config: &Config,
    keys: impl Into<Keys>,
    clock: Arc<dyn Clock>,
    routes: Routes,
) -> Result<Running, StartError> {
    start_on(Workers::here(), config, keys.into(), clock, routes).await
}

/// The same with connections served by `workers`.
pub(crate) async fn start_on(
    workers: Workers,
    config: &Config,
    keys: Keys,
    clock: Arc<dyn Clock>,
    routes: Routes,
) -> Result<Running, StartError> {
    let Keys { tokens, jwt } = keys;
    let wanted = config.server.listen;
    // First, so that a second server by mistake does not touch the first one's database.
    let listener = TcpListener::bind(wanted).await.map_err(|error| StartError::Listen(wanted, error))?;
    let address = listener.local_addr().map_err(|error| StartError::Listen(wanted, error))?;

    let ids = RequestIds::new(&OsRandom)?;
    let store = OpenStore::open(&config.store, config.sessions.as_deref(), Arc::clone(&clock))
        .await
        .map_err(StartError::Store)?;
    let mailbox = mailbox(config, routes, &clock);
    let outlets = Outlets::of(config, mailbox.as_ref(), &clock, address)?;
    let first = engine(&settings(&config.realms[0], &outlets), &store, &tokens, &outlets).await?;
    let mut realms = Vec::new();
    for realm in &config.realms {
        let auth = auth(realm, first.for_realm(settings(realm, &outlets)), &clock)?;
        realms.push(Mounted { mount: realm.mount.clone(), auth });
    }

    let demo = routes == Routes::WithDemo;
    let issuer = jwt.map(|keys| issuer(config, keys, &clock, address)).filter(|_| config.sends_jwts());
    if issuer.is_none() && config.sends_jwts() {
        return Err(StartError::NoJwtKeys);
    }
    let proxy = if config.upstreams.is_empty() { None } else { Some(Proxy::new(config, &realms, issuer.as_ref())?) };
    let watching = proxy.as_ref().map(Proxy::watch).unwrap_or_default();
    let outside = Outside { issuer, proxy, mailbox: mailbox.clone(), demo };
    let app = app::router(&realms, store.store(), outside, config, ids);
    let (stop, stopped) = oneshot::channel();
    let server = config.server.clone();
    let serving = tokio::spawn(async move {
        // An error means that the sender is gone, which is as good a reason to stop.
        listen::serve(listener, app, &server, &workers, async { drop(stopped.await) }).await
    });
    let courier = Courier::start(realms.iter().map(|realm| realm.auth.clone()).collect(), outlets.bell);
    let purging = tokio::spawn(purge::run(store.store(), config.events.keep));
    Ok(Running { address, realms, mailbox, store, stop, serving, courier, purging, watching })
}

/// Whoever signs JWTs. It is called by the server's own address, if nobody has said how others call it.
fn issuer(config: &Config, keys: Arc<JwtKeys>, clock: &Arc<dyn Clock>, address: SocketAddr) -> Issuer {
    let name = match &*config.jwt.issuer {
        "" => format!("http://{address}"),
        name => name.to_owned(),
    };
    Issuer { keys, name, lifetime: config.jwt.lifetime, clock: Arc::clone(clock) }
}

/// Where letters land while developing, unless a mail server is named.
fn mailbox(config: &Config, routes: Routes, clock: &Arc<dyn Clock>) -> Option<Arc<Mailbox>> {
    let templates = config.mail.templates.clone()?;
    let wanted = routes == Routes::WithDemo && config.mail.smtp.is_none();
    wanted.then(|| Arc::new(Mailbox::new(templates, Arc::clone(clock))))
}

/// What leaves the server besides responses.
struct Outlets {
    mailer: Option<Arc<dyn Mailer>>,
    webhooks: Option<Arc<dyn WebhookSender>>,
    bell: Arc<Notify>,
    /// What links begin with, before the mount.
    public_url: String,
}

impl Outlets {
    fn of(
        config: &Config,
        mailbox: Option<&Arc<Mailbox>>,
        clock: &Arc<dyn Clock>,
        address: SocketAddr,
    ) -> Result<Self, StartError> {
        let mailer: Option<Arc<dyn Mailer>> = match (&config.mail.smtp, &config.mail.templates, mailbox) {
            (Some(smtp), Some(templates), _) => {
                Some(Arc::new(SmtpMailer::new(smtp, Arc::clone(templates), Arc::new(OsRandom))?))
            }
            (_, _, Some(mailbox)) => Some(Arc::clone(mailbox) as Arc<dyn Mailer>),
            _ => {
                tracing::warn!(
                    "mail.url is not set: nobody can reset a password, and nobody has to confirm an address"
                );
                None
            }
        };
        let EventsConfig { webhooks, posting, .. } = &config.events;
        let webhooks: Option<Arc<dyn WebhookSender>> =
            if webhooks.is_empty() { None } else { Some(Arc::new(SignedWebhooks::new(posting, Arc::clone(clock))?)) };
        let public_url = match &*config.mail.public_url {
            "" => format!("http://{address}"),
            url => url.to_owned(),
        };
        Ok(Self { mailer, webhooks, bell: Arc::default(), public_url })
    }
}

fn settings(realm: &RealmConfig, outlets: &Outlets) -> Settings {
    Settings { public_url: format!("{}{}", outlets.public_url, realm.mount), ..realm.engine.clone() }
}

async fn engine(
    settings: &Settings,
    store: &OpenStore,
    keys: &KeyRing,
    outlets: &Outlets,
) -> Result<Engine, StartError> {
    let engine = Engine::open(store.store(), keys.clone(), Arc::new(OsRandom), settings.clone()).await;
    let mut engine = engine.map_err(|error| match error {
        EngineError::ForeignKeys => StartError::ForeignKeys(store.forgets_keys()),
        EngineError::Store(error) => StartError::Store(error),
        error @ EngineError::Hashing(_) => StartError::Engine(error),
    })?;
    engine = engine.with_bell(Arc::clone(&outlets.bell));
    if let Some(mailer) = &outlets.mailer {
        engine = engine.with_mailer(Arc::clone(mailer));
    }
    if let Some(webhooks) = &outlets.webhooks {
        engine = engine.with_webhook_sender(Arc::clone(webhooks));
    }
    Ok(engine)
}

fn auth(realm: &RealmConfig, engine: Engine, clock: &Arc<dyn Clock>) -> Result<Auth, StartError> {
    let mut http = realm.http.clone();
    http.rate_limits = realm.rate_limits.map(|quotas| RateLimits { quotas, clock: Arc::clone(clock) });
    Ok(Auth::new(engine, http)?)
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it serves: its realms, in the order of [`Config::realms`].
    pub fn auths(&self) -> impl Iterator<Item = &Auth> {
        self.realms.iter().map(|realm| &realm.auth)
    }

    /// Where letters land, if not with a mail server.
    #[must_use]
    pub const fn mailbox(&self) -> Option<&Arc<Mailbox>> {
        self.mailbox.as_ref()
    }

    /// Stops accepting, lets requests in flight finish within `shutdown_grace`, and closes the database.
    ///
    /// # Errors
    /// [`StoreError`] if the last step failed; nothing is lost then.
    pub async fn stop(self) -> Result<(), StoreError> {
        // The receiver is gone only if the task is.
        let _ = self.stop.send(());
        if !self.serving.await.unwrap_or(false) {
            tracing::warn!("requests that took longer than shutdown_grace were cut off");
        }
        self.courier.stop().await;
        self.purging.abort();
        drop(self.watching);
        self.store.close().await
    }
}
