//! What the clients of a run share: the addresses of the nodes, the clock, and the history that they write.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::history::{About, Actor, Answer, Deed, Doubt, Ending, Exchange, Heal, History, Session, SignIn};
use crate::http::{Credentials, Http, Reply};

/// Every account's.
pub(crate) const PASSWORD: &str = "correct horse battery";
/// How long a client waits where a password is hashed: when that is done is nobody's promise.
const HASHING: Duration = Duration::from_secs(60);
/// How many superseded tokens lie about to be found.
const STOLEN: usize = 512;

/// A run, as its clients see it.
pub(crate) struct World {
    pub(crate) http: Http,
    /// How long a client waits for an answer. Less than half of the buffer, so that no round trip is as long as that.
    pub(crate) patience: Duration,
    start: Instant,
    nodes: Mutex<Vec<SocketAddr>>,
    turn: AtomicUsize,
    history: Mutex<History>,
    stolen: Mutex<VecDeque<(usize, Credentials)>>,
    rush: Notify,
    ending: AtomicBool,
}

impl World {
    pub(crate) fn new(history: History) -> Arc<Self> {
        Arc::new(Self {
            http: Http::new(),
            patience: history.buffer * 9 / 20,
            start: Instant::now(),
            nodes: Mutex::default(),
            turn: AtomicUsize::new(0),
            history: Mutex::new(history),
            stolen: Mutex::default(),
            rush: Notify::new(),
            ending: AtomicBool::new(false),
        })
    }

    /// The time of the history.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn set_node(&self, number: usize, address: SocketAddr) {
        let mut nodes = self.nodes.lock();
        match nodes.get_mut(number) {
            Some(node) => *node = address,
            None => nodes.push(address),
        }
    }

    pub(crate) fn node(&self, number: usize) -> SocketAddr {
        self.nodes.lock()[number]
    }

    pub(crate) fn nodes(&self) -> usize {
        self.nodes.lock().len()
    }

    /// Whose turn it is to get a request.
    pub(crate) fn next_node(&self) -> (usize, SocketAddr) {
        let nodes = self.nodes.lock();
        let number = self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len();
        (number, nodes[number])
    }

    /// Has all clients do what they do next at once.
    pub(crate) fn rush(&self) {
        self.rush.notify_waiters();
    }

    /// Waits for so many milliseconds; true if there is a rush.
    pub(crate) async fn pause(&self, rng: &mut Rng, millis: Range<u64>) -> bool {
        timeout(Duration::from_millis(rng.u64(millis)), self.rush.notified()).await.is_ok()
    }

    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Presents a token to the next node, and writes down what came of it.
    pub(crate) async fn present(
        &self,
        session: usize,
        actor: Actor,
        credentials: &Credentials,
        deed: Deed,
    ) -> (Answer, Option<Credentials>) {
        let (node, address) = self.next_node();
        let (request, body, patience) = match deed {
            Deed::Get(Duration::ZERO) => ((Method::GET, "/demo/members_only".to_owned()), None, self.patience),
            Deed::Get(sleep) => {
                ((Method::GET, format!("/demo/slow?ms={}", sleep.as_millis())), None, self.patience + sleep)
            }
            Deed::SignOut => ((Method::DELETE, "/auth/sign_out".to_owned()), None, self.patience),
            Deed::NewPassword => {
                let names = ["password", "password_confirmation", "current_password"];
                let body = names.map(|name| (name.to_owned(), Value::from(PASSWORD))).into_iter().collect();
                ((Method::PUT, "/auth".to_owned()), Some(Value::Object(body)), HASHING)
            }
        };
        let sent = self.now();
        let (method, path) = request;
        let reply = self.http.send(address, (method, &path), Some(credentials), body.as_ref(), patience).await;
        let answered = self.now();
        let presented = credentials.generation();
        let answer = reply.answer.clone();
        let exchange = Exchange { session, actor, node, sent, answered, presented, deed, answer };
        self.history.lock().exchanges.push(exchange);
        (reply.answer, reply.credentials)
    }

    /// Does something that ends a session, of which `with` are the credentials or those of another session of the account.
    pub(crate) async fn end_session(
        &self,
        ended: usize,
        (session, with): (usize, &Credentials),
        deed: Deed,
    ) -> (Answer, Option<Credentials>) {
        let asked = self.now();
        let (answer, credentials) = self.present(session, Actor::Owner, with, deed).await;
        let done = matches!(answer, Answer::Said { status: 200, .. });
        let acknowledged = done.then(|| self.now());
        if answer != Answer::Unsent {
            self.history.lock().endings.push(Ending { session: ended, asked, acknowledged });
        }
        (answer, credentials)
    }

    /// Signs in on the next node. The session and its first token, if it came to that.
    pub(crate) async fn sign_in(&self, email: &str) -> Option<(usize, Credentials)> {
        let body = json!({ "email": email, "password": PASSWORD });
        let sent = self.now();
        let reply = self.post("/auth/sign_in", &body).await;
        let mut history = self.history.lock();
        history.sign_ins.push(SignIn { sent, answer: reply.answer });
        let credentials = reply.credentials?;
        history.sessions.push(Session { client: credentials.client.clone() });
        Some((history.sessions.len() - 1, credentials))
    }

    /// Sends something without credentials.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        let (_, address) = self.next_node();
        self.http.send(address, (Method::POST, path), None, Some(body), HASHING).await
    }

    /// Leaves a token lying about that was just superseded.
    pub(crate) fn drop_token(&self, session: usize, credentials: Credentials) {
        let mut stolen = self.stolen.lock();
        if stolen.len() == STOLEN {
            stolen.pop_front();
        }
        stolen.push_back((session, credentials));
    }

    /// One of those.
    pub(crate) fn find_token(&self, rng: &mut Rng) -> Option<(usize, Credentials)> {
        let stolen = self.stolen.lock();
        rng.choice(stolen.iter()).cloned()
    }

    pub(crate) fn write(&self, add: impl FnOnce(&mut History)) {
        add(&mut self.history.lock());
    }

    pub(crate) fn doubted(&self, client: String, generation: u32, about: About) {
        let at = self.now();
        self.history.lock().doubts.push(Doubt { at, client, generation, about });
    }

    pub(crate) fn healed(&self, client: String, from: u32, to: u32) {
        let at = self.now();
        self.history.lock().heals.push(Heal { at, client, from, to });
    }

    /// The history so far, which is taken away.
    pub(crate) fn take_history(&self) -> History {
        std::mem::take(&mut self.history.lock())
    }
}
