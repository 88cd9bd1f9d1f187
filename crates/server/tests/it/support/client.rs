//! HTTP, with the protocol's headers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// Every account's.
pub const PASSWORD: &str = "correct horse battery";

const TIMEOUT: Duration = Duration::from_secs(60);

/// A client that keeps its connections and takes every status for an answer.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .max_redirects(0)
        .build()
        .new_agent()
}

/// What a client keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub token: String,
    pub client: String,
    pub uid: String,
}

impl Held {
    /// Takes the token of an answer if it carries one. False if it is blank.
    pub fn adopt(&mut self, answer: &Answer) -> bool {
        match answer.held() {
            Some(held) => {
                *self = held;
                true
            }
            None => false,
        }
    }
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Call {
    method: String,
    url: String,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
}

impl Call {
    pub fn new(method: &str, url: String) -> Self {
        Self { method: method.into(), url, headers: HeaderMap::new(), body: None }
    }

    /// With these credentials.
    pub fn held(self, held: &Held) -> Self {
        self.header("access-token", &held.token).header("client", &held.client).header("uid", &held.uid)
    }

    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let mut call = self;
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        call.headers.append(name, HeaderValue::from_bytes(value.as_ref()).expect("a header value"));
        call
    }

    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub fn body(self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Some(body.into()), ..self.header("content-type", content_type) }
    }

    /// On a connection of its own.
    pub fn send(&self) -> Answer {
        self.try_send().unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.url))
    }

    pub fn try_send(&self) -> Result<Answer, ureq::Error> {
        self.try_send_on(&agent())
    }

    pub fn try_send_on(&self, agent: &ureq::Agent) -> Result<Answer, ureq::Error> {
        let mut request = http::Request::builder().method(self.method.as_str()).uri(&self.url).body(())?;
        *request.headers_mut() = self.headers.clone();
        let response = match &self.body {
            Some(body) => agent.run(request.map(|()| body.as_slice())),
            None => agent.run(request),
        }?;
        let (parts, mut body) = response.into_parts();
        let body = body.read_to_vec()?;
        Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

/// A response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// A header as text; the empty text if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The token that it carries, if any.
    pub fn held(&self) -> Option<Held> {
        let field = |name| Some(self.header(name).to_owned()).filter(|value| !value.is_empty());
        Some(Held { token: field("access-token")?, client: field("client")?, uid: field("uid")? })
    }

    /// Whether the auth headers are there without a token.
    pub fn is_blank(&self) -> bool {
        self.headers.contains_key("access-token") && self.header("access-token").is_empty()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The `code` of an error body; the empty text if there is none.
    pub fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends bytes as they are, and returns everything that comes back until the server closes. A reset after that is what a
/// server does that has heard enough.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    exchange(address, bytes, false)
}

/// The same, hanging up after the last byte.
pub fn raw_and_hang_up(address: SocketAddr, bytes: &[u8]) -> String {
    exchange(address, bytes, true)
}

fn exchange(address: SocketAddr, bytes: &[u8], hang_up: bool) -> String {
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let mut writer = stream.try_clone().expect("a second handle");
    let bytes = bytes.to_vec();
    // Beside the reading: the server may answer, and stop reading, long before everything is sent.
    let writing = thread::spawn(move || {
        let _ = writer.write_all(&bytes);
        if hang_up {
            let _ = writer.shutdown(std::net::Shutdown::Write);
        }
    });
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut part) {
        answer.extend_from_slice(&part[..read]);
    }
    drop(stream);
    writing.join().expect("the writer does not panic");
    String::from_utf8_lossy(&answer).into_owned()
}
