//! Events to webhooks, signed by the Standard Webhooks specification (<https://www.standardwebhooks.com>).
//!
//! What a receiver gets, and how it checks that it comes from here:
//!
//! ```text
//! POST /hooks HTTP/1.1
//! content-type: application/json
//! webhook-id: evt_42                    the same over all attempts: whoever has seen it drops it
//! webhook-timestamp: 1795305600         when this attempt was made, in seconds since the epoch
//! webhook-signature: v1,<base64>        HMAC-SHA256 of "<id>.<timestamp>.<body>"; one for each secret, with spaces between
//!
//! {"type":"signed_in","timestamp":"2026-11-22T00:00:00.000Z","data":{"realm":"user","account_id":1,…}}
//! ```

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use baton_core::Clock;
use baton_core::event::Recorded;
use baton_engine::{WebhookError, WebhookSender};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use sha2::Sha256;
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::chain;
use crate::tls::{self, TrustError};

const AGENT: &str = concat!("baton/", env!("CARGO_PKG_VERSION"));
const SECRET_PREFIX: &str = "whsec_";
/// How long a secret has to be, in bytes, by the specification.
const SECRET_LEN: std::ops::RangeInclusive<usize> = 24..=64;
/// The most that one post may take. Well below the time for which the courier has a message to itself, so that no other
/// node posts the same event meanwhile.
const MAX_TIMEOUT: Duration = Duration::from_secs(2 * 60);

/// How events are posted. `Debug` hides the secrets.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// What the posts are signed with: each `whsec_` and the base64 of 24 to 64 bytes. Every post carries a signature for
    /// each, so that a secret can be replaced without losing events: add the new one, tell the receivers, remove the old one.
    pub secrets: Vec<SecretString>,
    /// How long one post may take altogether, from looking up the host to the status of the answer. Up to 2 minutes.
    pub timeout: Duration,
    /// A PEM file with certificates to trust beside those that the system trusts.
    pub ca_file: Option<PathBuf>,
}

impl WebhookSettings {
    /// What the secrets stand for.
    pub(crate) fn keys(&self) -> Result<Vec<Zeroizing<Vec<u8>>>, WebhookSettingsError> {
        if self.secrets.is_empty() {
            return Err(WebhookSettingsError::NoSecret);
        }
        let keys = self.secrets.iter().enumerate();
        keys.map(|(at, secret)| key(secret).ok_or(WebhookSettingsError::Secret(at + 1))).collect()
    }
}

/// Why events cannot be posted as the settings ask for. Never shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum WebhookSettingsError {
    /// There is none.
    #[error("webhooks need a secret to be signed with")]
    NoSecret,
    /// This one, counted from 1, is not of the form.
    #[error(
        "secret {0} has to be `{SECRET_PREFIX}` and the base64 of {min} to {max} random bytes; this makes one: \
         echo {SECRET_PREFIX}$(head -c 32 /dev/urandom | base64)",
        min = SECRET_LEN.start(),
        max = SECRET_LEN.end()
    )]
    Secret(usize),
    /// Too long or no time at all.
    #[error("`timeout` has to be longer than nothing and at most {} s", MAX_TIMEOUT.as_secs())]
    Timeout,
    /// No receiver could be trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Whether events may be posted to `url`: an `https` URL with a host, or an `http` one of this machine, for development.
///
/// # Errors
/// Says what is wrong, without the URL: its path or query may hold a secret.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    parse(url).map(drop)
}

fn parse(text: &str) -> Result<Uri, String> {
    // The parser is that of browsers, which silently repairs what somebody should look at.
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err("has a space, a backslash or a control character in it".into());
    }
    let lower = text.to_ascii_lowercase();
    if !lower.starts_with("https://") && !lower.starts_with("http://") {
        return Err("has to begin with https://".into());
    }
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not have a user or a password; receivers check the signature".into());
    }
    if url.fragment().is_some() {
        return Err("must not have a `#` part, which is never sent".into());
    }
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => return Err("has to name a host".into()),
    };
    if url.scheme() == "http" && !here {
        return Err("has to begin with https://; http:// is only for localhost, 127.0.0.1 and [::1]".into());
    }
    Uri::try_from(url.as_str()).map_err(|error| format!("is not a URL: {error}"))
}

/// Posts events over HTTP/1.1, a connection for each: one that was kept open might be gone when the next event comes.
///
/// Any status of 2xx is an acknowledgement, as soon as it is there; what follows it is not read. Redirects are not followed,
/// since a signed event is meant for one receiver, and neither are proxies from the environment.
pub(crate) struct SignedWebhooks {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    keys: Vec<Zeroizing<Vec<u8>>>,
    timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for SignedWebhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedWebhooks")
            .field("secrets", &self.keys.len())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl SignedWebhooks {
    /// Reads the certificates; does not connect yet. `clock` says the time in the signatures: receivers refuse one that is
    /// several minutes from their own.
    ///
    /// # Errors
    /// [`WebhookSettingsError`] if the settings cannot be used.
    pub(crate) fn new(settings: &WebhookSettings, clock: Arc<dyn Clock>) -> Result<Self, WebhookSettingsError> {
        if settings.timeout.is_zero() || settings.timeout > MAX_TIMEOUT {
            return Err(WebhookSettingsError::Timeout);
        }
        let keys = settings.keys()?;

        let mut tcp = HttpConnector::new();
        // The connector around it does TLS; `parse` has seen to it that `http` stays on this machine.
        tcp.enforce_http(false);
        // Shared between the addresses of a host, so that one that does not answer leaves time for the next.
        tcp.set_connect_timeout(Some(settings.timeout / 2));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::trusting(settings.ca_file.as_deref())?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, keys, timeout: settings.timeout, clock })
    }

    async fn deliver(&self, url: &str, recorded: &Recorded) -> Result<(), Failure> {
        let uri = parse(url).map_err(Failure::Url)?;
        let host = uri.host().unwrap_or_default().to_owned();
        let fail = |why| Failure::At { host: host.clone(), why };
        let request = self.request(uri, recorded).map_err(|error| fail(Why::Request(error)))?;
        let response = match tokio::time::timeout(self.timeout, self.client.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(fail(Why::Connection(chain(&error)))),
            Err(_) => return Err(fail(Why::TimedOut(self.timeout))),
        };
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(fail(Why::Answered(status))),
        }
    }

    fn request(&self, uri: Uri, recorded: &Recorded) -> Result<Request<Full<Bytes>>, String> {
        let body = serde_json::to_vec(&Payload::from(recorded)).map_err(|error| error.to_string())?;
        let id = format!("evt_{}", recorded.id);
        let seconds = self.clock.now().as_secs();
        let signatures: Vec<String> = self.keys.iter().map(|key| signature(key, &id, seconds, &body)).collect();
        Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, AGENT)
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signatures.join(" "))
            .body(Full::from(body))
            .map_err(|error| error.to_string())
    }
}

#[async_trait]
impl WebhookSender for SignedWebhooks {
    async fn post(&self, url: &str, event: &Recorded) -> Result<(), WebhookError> {
        self.deliver(url, event).await.map_err(|failure| WebhookError(failure.into()))
    }
}

/// Why an event was not taken, for the log: with the receiver's host, but neither its path and query, which may hold a
/// secret of the receiver, nor anything that it answered besides the status.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the webhook's URL {0}")]
    Url(String),
    #[error("{host} {why}")]
    At { host: String, why: Why },
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("cannot be written to: {0}")]
    Request(String),
    #[error("did not answer: {0}")]
    Connection(String),
    #[error("did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("answered {}", .0.as_u16())]
    Answered(StatusCode),
}

/// As receivers read it. What is not known is `null`.
#[derive(Serialize)]
struct Payload<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    realm: &'a str,
    account_id: Option<i64>,
    uid: Option<&'a str>,
    session: Option<String>,
    ip: Option<IpAddr>,
    user_agent: Option<&'a str>,
}

impl<'a> From<&'a Recorded> for Payload<'a> {
    fn from(Recorded { at, event, .. }: &'a Recorded) -> Self {
        // A time that no calendar knows cannot have come from a clock.
        let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
        Self {
            kind: event.kind.as_str(),
            timestamp: format!("{at:.3}"),
            data: Data {
                realm: &event.realm,
                account_id: event.account.map(|account| account.0),
                uid: event.uid.as_deref(),
                session: event.client.map(|client| client.to_string()),
                ip: event.device.ip,
                user_agent: event.device.user_agent.as_deref(),
            },
        }
    }
}

fn key(secret: &SecretString) -> Option<Zeroizing<Vec<u8>>> {
    let encoded = secret.expose_secret().strip_prefix(SECRET_PREFIX)?;
    let key = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    SECRET_LEN.contains(&key.len()).then_some(key)
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn signature(key: &[u8], id: &str, seconds: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests;
