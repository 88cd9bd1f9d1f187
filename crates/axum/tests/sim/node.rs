//! A node: the real layer, routes and engine, served by hyper over the simulated network.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use baton_axum::{Auth, CurrentUser, HttpSettings, auth_routes};
use baton_engine::{Engine, EngineError, Settings};
use baton_store::faulty::FaultyStore;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use serde_json::Value;

use crate::dice::{Dice, Seeded};
use crate::history::{Carries, Event};
use crate::world::{NodeWire, REQUEST, World};

pub(crate) const PORT: u16 = 80;
/// The header that a request's number travels in.
pub(crate) const NUMBER: &str = "x-number";

pub(crate) fn name(node: usize) -> String {
    format!("node-{node}")
}

/// Runs until it is killed.
pub(crate) async fn run(world: Arc<World>, node: usize) -> turmoil::Result {
    let app = app(&world, open(&world, node).await?)?;
    let listener = turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
    world.record(Event::Started { node });
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(app.clone());
        // Local tasks end in the order of their start when a node dies; others do in one that depends on their ids.
        tokio::task::spawn_local(async move {
            // A client that hangs up is none of the node's errors.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Tries until the store is there, as whatever supervises a server does.
async fn open(world: &Arc<World>, node: usize) -> Result<Engine, EngineError> {
    let settings = Settings { rules: world.setting.rules.clone(), ..Settings::default() };
    loop {
        let store = FaultyStore::behind(Arc::new(NodeWire { world: world.clone(), node }), world.store.clone());
        let random = Seeded(Mutex::new(Dice::new(world.setting.seed, 3 + node as u64)));
        match Engine::open(Arc::new(store), world.keys.clone(), Arc::new(random), settings.clone()).await {
            Err(EngineError::Store(_)) => tokio::time::sleep(Duration::from_millis(3)).await,
            opened => return opened,
        }
    }
}

fn app(world: &Arc<World>, engine: Engine) -> Result<Router, baton_axum::HttpSettingsError> {
    let auth = Auth::new(engine, HttpSettings::default())?;
    Ok(Router::new()
        .route("/work/{millis}", get(work))
        .layer(auth.layer())
        .merge(auth_routes("/auth", &auth))
        .layer(from_fn_with_state(world.clone(), watched))
        .with_state(world.clone()))
}

async fn work(State(world): State<Arc<World>>, user: CurrentUser, Path(millis): Path<u64>) -> Json<String> {
    if let Ok(request) = REQUEST.try_with(|request| *request) {
        world.record(Event::Admitted { request });
    }
    if millis > 0 {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    Json(user.uid.clone())
}

/// Takes note of what becomes of a request.
async fn watched(State(world): State<Arc<World>>, request: Request, next: Next) -> Response {
    let number = header(&request, NUMBER).parse().expect("the clients number their requests");
    let session = world.sessions.iter().position(|id| id.to_string() == header(&request, "client"));
    let mut attended = Attended { world: &world, request: number, answered: false };
    let response = REQUEST.scope(number, next.run(request)).await;

    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 16).await.expect("a body in memory");
    let code = if parts.status.is_success() { Value::Null } else { serde_json::from_slice(&body).unwrap_or_default() };
    let carries = match (parts.headers.get("access-token").map(|value| value.to_str().unwrap_or("?")), session) {
        (None, _) => Carries::Nothing,
        (Some(""), _) => Carries::Blank,
        (Some(token), Some(session)) => world.generation(session, token).map_or(Carries::Garbage, Carries::Token),
        (Some(_), None) => Carries::Garbage,
    };
    world.replied(Event::Replied {
        request: number,
        status: parts.status.as_u16(),
        code: code["code"].as_str().unwrap_or_default().to_owned(),
        carries,
        retry_after: parts.headers.contains_key("retry-after"),
    });
    attended.answered = true;
    Response::from_parts(parts, Body::from(body))
}

fn header<'a>(request: &'a Request, name: &str) -> &'a str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Tells when a request is dropped with its connection or its node.
struct Attended<'a> {
    world: &'a World,
    request: usize,
    answered: bool,
}

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.world.record(Event::Dropped { request: self.request });
        }
    }
}
