//! Connections to targets.

use std::time::Duration;

use axum::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};

use crate::config::UpstreamConfig;
use crate::tls::{self, TrustError};

/// How long a connection to a target is kept that nobody needs, and how many of them to one target, for each thread.
const IDLE: Duration = Duration::from_secs(30);
const MOST_IDLE: usize = 256;

type Connector = HttpsConnector<HttpConnector>;
type Client = legacy::Client<Connector, Body>;

/// A client for each runtime that asks. A connection is driven by the runtime that made it: a request that is served by another
/// one would have to wake that, and be woken by it.
pub(super) struct Clients {
    connector: Connector,
    made: Mutex<Vec<(Id, Client)>>,
}

impl Clients {
    pub(super) fn new(config: &UpstreamConfig) -> Result<Self, TrustError> {
        let mut tcp = HttpConnector::new();
        // The connector around it does TLS.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        tcp.set_connect_timeout(Some(config.connect_timeout));
        let with_tls = config.targets.iter().any(|target| target.scheme_str() == Some("https"));
        let tls = if with_tls { tls::trusting(config.ca_file.as_deref())? } else { tls::trusting_nobody()? };
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        Ok(Self { connector, made: Mutex::default() })
    }

    /// Sends a request over a connection of this thread's runtime.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub(super) fn request(&self, request: http::Request<Body>) -> ResponseFuture {
        let here = Handle::current().id();
        let mut made = self.made.lock();
        let known = made.iter().find(|(runtime, _)| *runtime == here).map(|(_, client)| client.clone());
        let client = known.unwrap_or_else(|| {
            let client = self.client();
            made.push((here, client.clone()));
            client
        });
        drop(made);
        client.request(request)
    }

    fn client(&self) -> Client {
        legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .build(self.connector.clone())
    }
}
