//! Backends behind the server: one that says what it was sent, and ones that do as they like.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

/// A backend in this process, over HTTP/1.1. It ends with the value.
pub struct Backend {
    pub address: SocketAddr,
    seen: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Backend {
    /// Answers everything with what it was sent, as JSON.
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"))
    }

    /// The same at an address.
    pub fn start_at(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads");
        let seen = Arc::new(AtomicUsize::new(0));
        let app = Router::new().route("/bytes/{count}", any(bytes)).fallback(any(echo)).with_state(Arc::clone(&seen));
        let listener = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            socket.set_reuseaddr(true).expect("an option");
            socket.bind(address).expect("the address is free");
            socket.listen(1024).expect("it listens")
        });
        let address = listener.local_addr().expect("an address");
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { address, seen, _runtime: runtime }
    }

    /// How many requests came.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    /// Ends it, with the connections that it has; how many requests came.
    pub fn stop(self) -> usize {
        let seen = Arc::clone(&self.seen);
        drop(self);
        seen.load(Ordering::SeqCst)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// An address where nobody listens, and nobody else can for as long as the first one lives.
pub fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = nobody_at("127.0.0.1:0".parse().expect("an address"));
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

/// The same at this address, where nobody listens any more: other tests look for free ports.
pub fn nobody_at(address: SocketAddr) -> TcpSocket {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(address).expect("a free port");
    socket
}

async fn echo(State(seen): State<Arc<AtomicUsize>>, request: Request) -> Response {
    seen.fetch_add(1, Ordering::SeqCst);
    let (parts, mut body) = request.into_parts();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => length += frame.data_ref().map_or(0, axum::body::Bytes::len),
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        }
    }
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<_> = parts.headers.iter().map(|(name, value)| json!([name.as_str(), text(value)])).collect();
    let seen =
        json!({ "method": parts.method.as_str(), "uri": parts.uri.to_string(), "headers": headers, "length": length });
    let mut response = Response::new(Body::from(seen.to_string()));
    // What a backend has no business to send.
    for (name, value) in [
        ("access-token", "made up"),
        ("access-control-allow-origin", "*"),
        ("x-backend", "yes"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ] {
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    response
}

/// As many bytes, a piece at a time.
async fn bytes(axum::extract::Path(count): axum::extract::Path<u64>) -> Response {
    const PIECE: &[u8] = &[7; 64 * 1024];
    struct Pieces(u64);
    impl http_body::Body for Pieces {
        type Data = axum::body::Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
            let next = self.0.min(PIECE.len() as u64);
            self.0 -= next;
            let piece = axum::body::Bytes::from_static(&PIECE[..usize::try_from(next).expect("a piece")]);
            std::task::Poll::Ready((next > 0).then(|| Ok(http_body::Frame::data(piece))))
        }
    }
    let pieces = Body::new(Pieces(count));
    assert!(pieces.size_hint().exact().is_none(), "so that it comes in chunks");
    Response::new(pieces)
}

/// Does with each connection what `serve` does, in a thread each.
pub fn raw_backend(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Reads a head, up to the empty line. Empty if the connection ended before.
pub fn read_head(stream: &TcpStream) -> String {
    let mut head = String::new();
    let mut reader = BufReader::with_capacity(1, stream);
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return String::new();
        }
    }
    head
}

/// Reads until the other side ends the connection, in whatever way.
pub fn read_to_the_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut part) {
        all.extend_from_slice(&part[..read]);
    }
    all
}
