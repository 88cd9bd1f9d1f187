//! What answering takes before any authentication: the denominator of the ratios, and the ceiling of the generator.
//!
//! With a store behind it, a floor also makes the round trips that nobody who keeps sessions there can do without. It knows
//! nothing about tokens and does not look at what it reads.

mod postgres;
mod redis;
mod runtimes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::{Failure, note, print};

/// What `/demo/members_only` answers, byte for byte but for the account.
const BODY: &str = r#"{"data":{"id":1,"uid":"bench-00000001-00001@example.com"}}"#;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// The command line of `floor`.
#[derive(Debug, Args)]
pub(crate) struct Floor {
    /// Address and port. Port 0 takes a free one, which the first line on stdout names
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:3001")]
    listen: SocketAddr,
    /// Do not even read the request: answer every blank line with the same bytes. What the generator reaches against
    /// this is its own ceiling
    #[arg(long)]
    trivial: bool,
    /// Serve connections in turn on runtimes of one thread each, as baton does, instead of one runtime with all threads
    #[arg(long, conflicts_with_all = ["trivial", "postgres", "redis"])]
    own_runtimes: bool,
    /// Make one prepared point SELECT for each request, in a table of its own
    #[arg(long, value_name = "URL", conflicts_with_all = ["trivial", "redis"])]
    postgres: Option<String>,
    /// Make a conditional UPDATE as well
    #[arg(long, requires = "postgres")]
    update: bool,
    /// Read a hash and change it with a script that compares and sets, for each request
    #[arg(long, value_name = "URL", conflicts_with = "trivial")]
    redis: Option<String>,
}

impl Floor {
    /// Serves until it is killed.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let failed = |error| Failure::Io(self.listen.to_string(), error);
        // As many threads as baton has.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(async {
            let routes = self.routes().await?;
            let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
            print(&format!("listening on http://{}\n", listener.local_addr().map_err(failed)?))?;
            if self.trivial {
                return trivial(&listener).await.map_err(failed);
            }
            if self.own_runtimes {
                return runtimes::serve(&listener, &routes).await.map_err(failed);
            }
            let listener = listener.tap_io(|stream| without_delay(stream));
            axum::serve(listener, routes).await.map_err(failed)
        })
    }

    async fn routes(&self) -> Result<Router, Failure> {
        let handler = match (&self.postgres, &self.redis) {
            (Some(url), _) => {
                let store = Arc::new(postgres::Postgres::open(url, self.update).await?);
                get(move || async move { store.touch().await.map(|()| answer()).map_err(away) })
            }
            (None, Some(url)) => {
                let store = Arc::new(redis::Redis::open(url).await?);
                get(move || async move { store.touch().await.map(|()| answer()).map_err(away) })
            }
            (None, None) => get(|| async { answer() }),
        };
        Ok(Router::new().route("/demo/members_only", handler))
    }
}

fn answer() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json; charset=utf-8")], BODY)
}

/// Any other status than 200 is noticed by the generator.
fn away(failure: Failure) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, failure.to_string())
}

/// Rows of a floor's own: as many as the suite has users, so that no two requests that are under way meet in one.
const ENTRIES: usize = 256;

/// Takes turns, over all threads.
#[derive(Debug, Default)]
struct Turn(AtomicUsize);

impl Turn {
    fn next(&self, of: usize) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed) % of
    }
}

/// As baton does.
fn without_delay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        note(&format!("TCP_NODELAY: {error}"));
    }
}

async fn trivial(listener: &TcpListener) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        without_delay(&stream);
        // A client that went away is no concern of the others.
        tokio::spawn(async move { answer_blank_lines(stream).await.ok() });
    }
}

/// Requests come one at a time, so what has been read ends with a blank line or is not complete.
async fn answer_blank_lines(mut stream: TcpStream) -> std::io::Result<()> {
    let length = BODY.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: {length}");
    let answer = [head.as_bytes(), END_OF_HEAD, BODY.as_bytes()].concat();
    let mut buffer = Vec::with_capacity(4_096);
    while stream.read_buf(&mut buffer).await? > 0 {
        if buffer.ends_with(END_OF_HEAD) {
            stream.write_all(&answer).await?;
            buffer.clear();
        }
    }
    Ok(())
}
