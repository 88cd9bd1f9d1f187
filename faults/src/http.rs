//! A client's way to a node.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;
use tokio::time::timeout;

use crate::history::{Answer, Handed};

/// Connections to all nodes, kept between requests.
#[derive(Debug, Clone)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

/// What a client holds.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) token: String,
    pub(crate) client: String,
    pub(crate) uid: String,
}

impl Credentials {
    /// The number of the token.
    pub(crate) fn generation(&self) -> u32 {
        generation(&self.token)
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({}, {})", self.client, self.generation())
    }
}

/// An answer, or why there is none.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    /// If a token was handed out.
    pub(crate) credentials: Option<Credentials>,
}

impl Http {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        // What was sent is never sent again behind the history's back.
        builder.retry_canceled_requests(false);
        // Nodes close connections that nobody has used for 30 s.
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(Duration::from_secs(10));
        Self(builder.build(connector))
    }

    /// Sends a request, and waits for all of its answer for `patience` at most.
    pub(crate) async fn send(
        &self,
        node: SocketAddr,
        (method, path): (Method, &str),
        credentials: Option<&Credentials>,
        body: Option<&Value>,
        patience: Duration,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(format!("http://{node}{path}"));
        if let Some(Credentials { token, client, uid }) = credentials {
            request = request.header("access-token", token).header("client", client).header("uid", uid);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let Ok(request) = request.body(Full::new(bytes)) else { return nothing(Answer::Unsent) };
        let exchange = async {
            let response = self
                .0
                .request(request)
                .await
                .map_err(|error| if error.is_connect() { Answer::Unsent } else { Answer::Lost })?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|_| Answer::Lost)?.to_bytes();
            Ok((head, body))
        };
        match timeout(patience, exchange).await {
            Ok(Ok((head, body))) => reply(head.status.as_u16(), head.headers, &body),
            Ok(Err(answer)) => nothing(answer),
            Err(_) => nothing(Answer::Lost),
        }
    }
}

fn reply(status: u16, headers: HeaderMap, body: &[u8]) -> Reply {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut code = body["code"].as_str().unwrap_or_default().to_owned();
    if status == 503 && text("retry-after").is_none() {
        code.push_str(", without Retry-After");
    }
    let credentials = match (text("access-token"), text("client"), text("uid")) {
        (Some(token), Some(client), Some(uid)) if !token.is_empty() => {
            Some(Credentials { token: token.into(), client: client.into(), uid: uid.into() })
        }
        _ => None,
    };
    let handed = match &credentials {
        Some(credentials) => Handed::Token(credentials.generation()),
        None if text("access-token").is_some() => Handed::Blank,
        None => Handed::Nothing,
    };
    Reply { answer: Answer::Said { status, code, handed }, credentials }
}

fn nothing(answer: Answer) -> Reply {
    Reply { answer, credentials: None }
}

/// Bytes 1 to 4 of a token; 0 if it is none.
fn generation(token: &str) -> u32 {
    let bytes = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
    bytes.get(1..5).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}
