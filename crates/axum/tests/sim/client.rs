//! A client: tabs that share one stored token and speak the protocol.

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until, timeout};
use turmoil::net::TcpStream;

use crate::history::{Act, Carries, Event, Sender};
use crate::node;
use crate::setting::{Keeps, NODES, PATIENCE_AT_THE_END, Shot, Volley, Which};
use crate::world::{UID, World, ring};

pub(crate) fn name(client: usize) -> String {
    format!("client-{client}")
}

/// Fires its volleys, and comes back when all is well again.
pub(crate) async fn run(world: Arc<World>, number: usize) -> turmoil::Result {
    let start = Instant::now();
    let client = Rc::new(Client { held: RefCell::new(Some((1, world.token(number, 1)))), number, world });
    let setting = &client.world.setting;
    for Volley { at, shots, .. } in setting.volleys.iter().filter(|volley| volley.client == number) {
        sleep_until(start + millis(*at)).await;
        for shot in shots {
            tokio::task::spawn_local(client.clone().follow_up(*shot));
        }
    }
    for (nth, at) in setting.last_at.into_iter().enumerate() {
        sleep_until(start + millis(at)).await;
        let shot = Shot { node: (number + nth) % 2, token: Which::Held, act: Act::Work(0), unbatch: false, more: 0 };
        client.shoot(shot, Sender::OwnerAtTheEnd).await;
    }
    Ok(())
}

struct Client {
    world: Arc<World>,
    number: usize,
    /// Generation and token; none once the session has ended.
    held: RefCell<Option<(u32, String)>>,
}

impl Client {
    async fn follow_up(self: Rc<Self>, first: Shot) {
        let nodes = (first.node..first.node + NODES).map(|node| node % NODES);
        for (nth, node) in nodes.enumerate().take(1 + first.more) {
            let next = Shot { token: Which::Held, act: Act::Work(0), unbatch: false, node, ..first };
            self.shoot(if nth == 0 { first } else { next }, Sender::Owner).await;
        }
    }

    async fn shoot(&self, shot: Shot, sender: Sender) {
        let handler = if let Act::Work(time) = shot.act { time as i64 } else { 0 };
        let patience = if sender == Sender::OwnerAtTheEnd { PATIENCE_AT_THE_END } else { self.world.setting.patience };
        let connecting = TcpStream::connect((node::name(shot.node), node::PORT));
        let Ok(Ok(stream)) = timeout(millis(patience), connecting).await else { return };
        // The token is taken when there is a connection: what it takes to get one is no part of a request's way.
        let Some((sender, presented, token)) = self.token(shot.token, sender) else { return };
        let request = self.world.ask(self.number, presented, shot.unbatch);
        let Shot { node, act, unbatch, .. } = shot;
        self.world.record(Event::Sent { request, session: self.number, node, presented, sender, act, unbatch });
        match timeout(millis(patience + handler + 1), self.exchange(stream, request, &token, shot)).await {
            Ok(Ok(response)) => self.arrived(request, sender, act, &response),
            _ => self.world.record(Event::Lost { request }),
        }
    }

    fn token(&self, which: Which, sender: Sender) -> Option<(Sender, u32, String)> {
        let issued = self.world.issued(self.number);
        match which {
            Which::Held => self.held.borrow().clone().map(|(generation, token)| (sender, generation, token)),
            Which::Issued(back) => {
                let generation = issued.saturating_sub(back).max(1);
                Some((Sender::Thief, generation, self.world.token(self.number, generation)))
            }
            Which::Forged(ahead) => {
                let generation = baton_core::Generation::new(issued + ahead);
                let token = ring(0x7a).derive(self.world.sessions[self.number], generation);
                Some((Sender::Forger, generation.get(), token.expose().to_owned()))
            }
        }
    }

    async fn exchange(
        &self,
        stream: TcpStream,
        number: usize,
        token: &str,
        shot: Shot,
    ) -> Result<Response<Bytes>, Box<dyn Error>> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(async move {
            // Its end is seen by the request.
            let _ = connection.await;
        });
        let (method, path) = match shot.act {
            Act::Work(time) => (Method::GET, format!("/work/{time}")),
            Act::Validate => (Method::GET, "/auth/validate_token".into()),
            Act::ListSessions => (Method::GET, "/auth/sessions".into()),
            Act::SignOut => (Method::DELETE, "/auth/sign_out".into()),
            Act::EndSession(other) => (Method::DELETE, format!("/auth/sessions/{}", self.world.sessions[other])),
        };
        let request = http::Request::builder()
            .method(method)
            .uri(if shot.unbatch { format!("{path}?unbatch=true") } else { path })
            .header("host", node::name(shot.node))
            .header(node::NUMBER, number)
            .header("access-token", token)
            .header("client", self.world.sessions[self.number].to_string())
            .header("uid", UID)
            .body(Empty::<Bytes>::new())?;
        let (parts, body): (_, Incoming) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
    }

    fn arrived(&self, request: usize, sender: Sender, act: Act, response: &Response<Bytes>) {
        let status = response.status().as_u16();
        let token = response.headers().get("access-token").map(|value| value.to_str().unwrap_or("?").to_owned());
        let given = token.as_deref().filter(|token| !token.is_empty());
        let generation = given.and_then(|given| self.world.generation(self.number, given));
        let carries = match (&token, given, generation) {
            (None, ..) => Carries::Nothing,
            (_, None, _) => Carries::Blank,
            (.., Some(generation)) => Carries::Token(generation),
            (_, Some(_), None) => Carries::Garbage,
        };
        self.world.record(Event::Arrived { request, status, carries });
        // A thief keeps what it gets to itself.
        if !matches!(sender, Sender::Owner | Sender::OwnerAtTheEnd) {
            return;
        }
        let mut held = self.held.borrow_mut();
        if status == 401 || act == Act::SignOut && matches!(status, 200 | 404) {
            *held = None;
        }
        let (Some((newest, stored)), Some(generation), Some(given)) = (held.as_mut(), generation, given) else {
            return;
        };
        let stores = match self.world.setting.family.keeps {
            Keeps::Anything => true,
            Keeps::NewestGeneration => generation > *newest,
        };
        if stores {
            (*newest, *stored) = (generation, given.to_owned());
        }
    }
}

fn millis(n: i64) -> Duration {
    Duration::from_millis(u64::try_from(n).unwrap_or(0))
}
