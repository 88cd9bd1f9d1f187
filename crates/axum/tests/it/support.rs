//! A server on a free port of the loopback interface, with a clock that the test drives, and a client that speaks the protocol.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use baton_axum::{Auth, CurrentUser, HttpSettings, auth_routes};
use baton_core::{ClientId, Generation, Key, KeyRing, Store, Timestamp};
use baton_engine::{Engine, OsRandom, PasswordStrength, Settings};
use baton_store::clock::ManualClock;
use baton_store::faulty::FaultyStore;
use baton_store::memory::MemoryStore;
use baton_store::sqlite::{SqliteOptions, SqliteStore};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Some day in 2026.
pub const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);
pub const PASSWORD: &str = "correct horse battery";

/// A running server and what a test needs to steer it. The server ends with it.
pub struct TestApp {
    pub addr: SocketAddr,
    pub clock: Arc<ManualClock>,
    pub auth: Auth,
    pub gate: Gate,
    runtime: Option<tokio::runtime::Runtime>,
    folder: Option<tempfile::TempDir>,
}

/// Holds requests to `/gate` until the test lets them go: a slow handler without a clock of its own.
#[derive(Clone)]
pub struct Gate {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    fn new() -> Self {
        Self { arrived: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }

    async fn pass(&self) {
        self.arrived.add_permits(1);
        self.open.acquire().await.expect("the gate is never closed").forget();
    }

    /// Lets `n` requests go.
    pub fn let_go(&self, n: usize) {
        self.open.add_permits(n);
    }
}

impl TestApp {
    /// On a SQLite file, with the default settings.
    pub fn start() -> Self {
        Self::with(Settings::default(), HttpSettings::default())
    }

    /// On a SQLite file.
    pub fn with(settings: Settings, http: HttpSettings) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = Arc::new(ManualClock::new(START));
        let store = SqliteStore::open(folder.path().join("baton.sqlite"), SqliteOptions::default(), clock.clone());
        let mut app = Self::over(Arc::new(store.expect("a fresh SQLite file")), clock, settings, http, |app, _| app);
        app.folder = Some(folder);
        app
    }

    /// In memory, behind a store that fails when it is told to.
    pub fn faulty(settings: Settings, http: HttpSettings) -> (Self, Arc<FaultyStore>) {
        let clock = Arc::new(ManualClock::new(START));
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new(clock.clone()))));
        (Self::over(store.clone(), clock, settings, http, |app, _| app), store)
    }

    /// In memory, with layers of the test's own around everything.
    pub fn layered(http: HttpSettings, layers: impl FnOnce(Router, &Auth) -> Router) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let store = Arc::new(MemoryStore::new(clock.clone()));
        Self::serving(store, clock, Settings::default(), http, layers)
    }

    /// Over any store, with the routes that `extend` adds.
    pub fn over(
        store: Arc<dyn Store>,
        clock: Arc<ManualClock>,
        settings: Settings,
        http: HttpSettings,
        extend: impl FnOnce(Router, &Auth) -> Router,
    ) -> Self {
        Self::serving(store, clock, settings, http, |protected, auth| {
            extend(protected.layer(auth.layer()), auth).merge(auth_routes("/auth", auth)).layer(auth.cors())
        })
    }

    /// Over any store. `assemble` puts the layers and routes around the protected ones, which come bare.
    pub fn serving(
        store: Arc<dyn Store>,
        clock: Arc<ManualClock>,
        settings: Settings,
        http: HttpSettings,
        assemble: impl FnOnce(Router, &Auth) -> Router,
    ) -> Self {
        Self::equipped(store, clock, settings, http, |engine| engine, assemble)
    }

    /// Over any store, with what `equip` gives to the engine.
    pub fn equipped(
        store: Arc<dyn Store>,
        clock: Arc<ManualClock>,
        settings: Settings,
        http: HttpSettings,
        equip: impl FnOnce(Engine) -> Engine,
        assemble: impl FnOnce(Router, &Auth) -> Router,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let gate = Gate::new();
        // The passwords of these tests are chosen for their characters.
        let password_strength = PasswordStrength { min_score: 0, ..settings.password_strength };
        let settings = Settings { password_strength, ..settings };
        let (addr, auth) = runtime.block_on(async {
            let engine = Engine::open(store, keys(), Arc::new(OsRandom), settings).await.expect("an engine");
            let auth = Auth::new(equip(engine), http).expect("HTTP settings");
            let app = assemble(protected(gate.clone()), &auth);
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let addr = listener.local_addr().expect("its address");
            let app = app.into_make_service_with_connect_info::<SocketAddr>();
            tokio::spawn(async move { axum::serve(listener, app).await });
            (addr, auth)
        });
        Self { addr, clock, auth, gate, runtime: Some(runtime), folder: None }
    }

    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Waits until `n` more requests stand at the gate.
    pub fn await_at_gate(&self, n: u32) {
        self.block_on(self.gate.arrived.acquire_many(n)).expect("the gate is never closed").forget();
    }

    /// Waits for something on the server's runtime.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("still running").block_on(future)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// A request without credentials.
    pub fn request(&self, method: Method, path: &str) -> Call {
        Call { method, url: self.url(path), headers: Vec::new(), body: None }
    }

    pub fn get(&self, path: &str) -> Call {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: &Value) -> Call {
        self.request(Method::POST, path).json(body)
    }

    pub fn put(&self, path: &str, body: &Value) -> Call {
        self.request(Method::PUT, path).json(body)
    }

    pub fn delete(&self, path: &str) -> Call {
        self.request(Method::DELETE, path)
    }

    /// A request exactly as it stands, for what no client library would send.
    pub fn raw(&self, request: impl AsRef<[u8]>) -> Answer {
        let answer = self.raw_bytes(request);
        let at = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
        let (head, text) = (String::from_utf8_lossy(&answer[..at]), String::from_utf8_lossy(&answer[at + 4..]));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let headers = lines.filter_map(|line| line.split_once(':'));
        let header = |(name, value): (&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).expect("a name"), value.trim().parse().expect("a value"))
        };
        Answer {
            status: status.parse().expect("a status"),
            headers: headers.map(header).collect(),
            text: text.into_owned(),
        }
    }

    /// The bytes that come back until the server ends the connection.
    pub fn raw_bytes(&self, request: impl AsRef<[u8]>) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.addr).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.write_all(request.as_ref()).expect("a request");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        answer
    }

    /// A new session with its window open: for the next 5 s its newest token stays as it is.
    pub fn settled(&self, email: &str) -> Held {
        self.get_as(&self.register(email), "/me").send().held().expect("the first request rotates")
    }

    /// A request with these credentials in the three headers.
    pub fn get_as(&self, held: &Held, path: &str) -> Call {
        self.get(path).held(held)
    }

    /// Registers an account; its first session.
    pub fn register(&self, email: &str) -> Held {
        let body = json!({ "email": email, "password": PASSWORD, "password_confirmation": PASSWORD });
        let answer = self.post("/auth", &body).send();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.held().expect("a registration signs in")
    }

    /// Signs in to an account; another session.
    pub fn sign_in(&self, email: &str) -> Held {
        let answer = self.post("/auth/sign_in", &json!({ "email": email, "password": PASSWORD })).send();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.held().expect("a sign-in hands out a token")
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

pub fn keys() -> KeyRing {
    ring(0, *b"0123456789abcdef0123456789abcdef")
}

pub fn ring(id: u8, secret: [u8; 32]) -> KeyRing {
    KeyRing::new(vec![Key::new(id, secret).expect("id in range")]).expect("a ring")
}

/// What the tests protect.
fn protected(gate: Gate) -> Router {
    Router::new()
        .route("/me", any(|user: CurrentUser| async move { Json(json!({ "uid": user.uid })) }))
        .route("/maybe", get(|user: Option<CurrentUser>| async move { Json(json!(user.map(|user| user.uid.clone()))) }))
        .route("/status/{code}", get(status))
        .route("/open", any(|| async { "for everybody" }))
        .route("/panic", get(|_: CurrentUser| async { panic!("as asked") as () }))
        .route("/gate", get(|State(gate): State<Gate>, _: CurrentUser| async move { gate.pass().await }))
        .with_state(gate)
}

async fn status(_: CurrentUser, Path(code): Path<u16>) -> impl IntoResponse {
    (StatusCode::from_u16(code).expect("a status"), [("etag", "\"v1\""), ("cache-control", "public, max-age=60")])
}

/// What a client holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub token: String,
    pub client: String,
    pub uid: String,
    pub expiry: u64,
}

impl Held {
    /// The number of the token within its session.
    pub fn generation(&self) -> u32 {
        let client = ClientId::parse(&self.client).expect("a client id");
        keys().verify(client, &self.token).expect("a token of this server").generation().get()
    }

    /// The token of this session that has this number, made with `keys`.
    pub fn derived(&self, keys: &KeyRing, generation: u32) -> Self {
        let client = ClientId::parse(&self.client).expect("a client id");
        let token = keys.derive(client, Generation::new(generation));
        Self { token: token.expose().to_owned(), ..self.clone() }
    }

    /// The JSON that a bearer value and a cookie hold.
    pub fn json(&self) -> Value {
        json!({
            "access-token": self.token,
            "token-type": "Bearer",
            "client": self.client,
            "expiry": self.expiry.to_string(),
            "uid": self.uid,
        })
    }

    /// `access-token=…&client=…&uid=…`
    pub fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("access-token", &self.token).append_pair("client", &self.client);
        query.append_pair("uid", &self.uid).finish()
    }

    /// Takes over the token of an answer, if it carries one.
    pub fn adopt(&mut self, answer: &Answer) -> bool {
        let adopted = answer.held();
        let rotated = adopted.is_some();
        *self = adopted.unwrap_or_else(|| self.clone());
        rotated
    }
}

/// A request about to be made.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Call {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn held(self, held: &Held) -> Self {
        self.header("access-token", &held.token).header("client", &held.client).header("uid", &held.uid)
    }

    /// With these in `Authorization`, as the server issues them.
    pub fn bearer(self, fields: &Value) -> Self {
        self.header("authorization", &format!("Bearer {}", STANDARD.encode(fields.to_string())))
    }

    /// With these in a cookie.
    pub fn cookie(self, name: &str, fields: &Value) -> Self {
        let json = fields.to_string();
        let value = utf8_percent_encode(&json, NON_ALPHANUMERIC);
        self.header("cookie", &format!("{name}={value}"))
    }

    pub fn form(self, body: &str) -> Self {
        self.header("content-type", "application/x-www-form-urlencoded").body(body)
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// On a connection of its own.
    pub fn send(self) -> Answer {
        self.send_on(&agent())
    }

    /// On a connection that `agent` may hold open.
    pub fn send_on(self, agent: &ureq::Agent) -> Answer {
        let mut request = http::Request::builder().method(&self.method).uri(&self.url);
        for (name, value) in self.headers {
            request = request.header(name, value.into_bytes());
        }
        let request = request.body(self.body.unwrap_or_default()).expect("a request");
        let mut response = agent.run(request).expect("an answer");
        let answer = Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.body_mut().read_to_string().expect("a body"),
        };
        #[cfg(feature = "openapi")]
        crate::openapi::look_up(&self.method, &self.url, &answer);
        answer
    }
}

/// A client that keeps its connections and takes every status for an answer.
pub fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .max_redirects(0)
        .timeout_global(Some(Duration::from_secs(60)));
    config.build().new_agent()
}

/// A response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {:?}", self.text))
    }

    /// A header's text; `None` if it is absent, `Some("")` if it is blank.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| std::str::from_utf8(value.as_bytes()).expect("UTF-8"))
    }

    /// The credentials that it carries, if it carries a token.
    pub fn held(&self) -> Option<Held> {
        let token = self.header("access-token").filter(|token| !token.is_empty())?;
        let text = |name| self.header(name).unwrap_or_else(|| panic!("a token without {name}")).to_owned();
        Some(Held {
            token: token.to_owned(),
            client: text("client"),
            uid: text("uid"),
            expiry: text("expiry").parse().expect("Unix seconds"),
        })
    }

    /// Whether it is the answer to a batch request: all six headers, with no token in any of them.
    pub fn is_blank(&self) -> bool {
        let blank = |name| self.header(name) == Some("");
        let present = |name| self.header(name).is_some_and(|value| !value.is_empty());
        blank("access-token")
            && blank("expiry")
            && blank("authorization")
            && present("client")
            && present("uid")
            && present("token-type")
    }

    /// Whether it has none of the six headers.
    pub fn has_no_auth_headers(&self) -> bool {
        let names = ["access-token", "token-type", "client", "expiry", "uid", "authorization"];
        names.iter().all(|name| self.header(name).is_none())
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().expect("ASCII")).collect()
    }

    /// The status and the `code` of an error.
    pub fn refusal(&self) -> (u16, String) {
        (self.status, self.code())
    }

    /// The `code` of an error.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}
