//! Sockets and connections: HTTP/1.1 and HTTP/2 over plain TCP.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use futures_util::future::Either;
use http::header::TRANSFER_ENCODING;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::ServerConfig;
use crate::edge::Edge;
use crate::first_bytes::FirstBytes;
use crate::head_timer::HeadTimer;
use crate::lengths::TwoLengths;
use crate::workers::Workers;

/// How long to wait before accepting again when the system has nothing left to accept with.
const PAUSE: Duration = Duration::from_millis(200);

/// The place of a connection among those that are served at once.
#[derive(Debug, Clone)]
pub(crate) struct Place(#[expect(dead_code, reason = "what counts is how long it is kept")] Arc<OwnedSemaphorePermit>);

/// Serves until `stop`, then lets what is in flight finish for as long as the configuration grants. Whether it did.
pub(crate) async fn serve(
    listener: TcpListener,
    edge: Edge,
    config: &ServerConfig,
    workers: &Workers,
    stop: impl Future<Output = ()>,
) -> bool {
    let serving = Serving {
        builder: builder(config, workers),
        edge,
        head_read_timeout: config.header_read_timeout,
        workers,
        graceful: GracefulShutdown::new(),
    };
    let places = Arc::new(Semaphore::new(config.max_connections));
    tokio::pin!(stop);
    loop {
        let (stream, peer, place) = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accept(&listener, &places) => accepted,
        };
        if let Err(error) = serving.hand_over(stream, peer, place) {
            ended_early(&error);
        }
    }
    drop(listener);
    tokio::select! {
        () = serving.graceful.shutdown() => true,
        () = tokio::time::sleep(config.shutdown_grace) => false,
    }
}

/// A client that went away, was too slow, or does not speak HTTP.
fn ended_early(error: &dyn fmt::Display) {
    tracing::debug!(%error, "a connection ended early");
}

/// What every connection needs.
struct Serving<'a> {
    builder: Builder<Workers>,
    edge: Edge,
    head_read_timeout: Duration,
    workers: &'a Workers,
    graceful: GracefulShutdown,
}

impl Serving<'_> {
    /// Has a connection served by a thread that has few.
    fn hand_over(&self, stream: TcpStream, peer: SocketAddr, place: Option<Place>) -> io::Result<()> {
        let Some((runtime, seat)) = self.workers.idlest() else { return Ok(()) };
        // From one runtime's events to the other's.
        let stream = stream.into_std()?;
        let (mut builder, edge, limit) = (self.builder.clone(), self.edge.clone(), self.head_read_timeout);
        builder.http1().timer(HeadTimer::default());
        let watcher = self.graceful.watcher();
        runtime.spawn(async move {
            let _seat = seat;
            let stream = match TcpStream::from_std(stream) {
                Ok(stream) => stream,
                Err(error) => return ended_early(&error),
            };
            if let Err(error) = watcher.watch(connection(&builder, stream, peer, place, edge, limit)).await {
                ended_early(&error);
            }
        });
        Ok(())
    }
}

/// The next connection, when there is a place for it. An error never ends the server.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, Option<Place>) {
    // The semaphore is never closed; without a permit there would merely be no bound.
    let place = Arc::clone(places).acquire_owned().await.ok().map(|permit| Place(Arc::new(permit)));
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // A token request is one small packet each way; waiting to fill it would only add time.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY");
                }
                return (stream, peer, place);
            }
            // The client was gone before it was accepted.
            Err(error) if is_of_one_connection(&error) => ended_early(&error),
            // Out of files or memory: connections that end will make room.
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The timer of a connection's heads is still to be set.
fn builder(config: &ServerConfig, workers: &Workers) -> Builder<Workers> {
    /// How often an idle HTTP/2 connection is asked whether its client is still there, and how long that may take.
    const PING: Duration = Duration::from_secs(20);
    let mut builder = Builder::new(workers.clone());
    builder.http1().header_read_timeout(config.header_read_timeout).max_buf_size(config.max_header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(200)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}

fn connection(
    builder: &Builder<Workers>,
    stream: TcpStream,
    peer: SocketAddr,
    place: Option<Place>,
    edge: Edge,
    limit: Duration,
) -> impl hyper_util::server::graceful::GracefulConnection<Error: std::fmt::Display, Output: Send> + Send + 'static {
    // An IPv4 client of a socket that listens on both is shown as what it is.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let two_lengths = TwoLengths::default();
    let stream = FirstBytes::within(limit, stream, two_lengths.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        // Those of the one request that comes in chunks.
        let is_ambiguous = request.headers().contains_key(TRANSFER_ENCODING) && two_lengths.were_said();
        if is_ambiguous {
            Either::Left(ready(Ok(edge.refuse(&request))))
        } else {
            Either::Right(edge.clone().answer(request, peer, place.clone()))
        }
    });
    builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned()
}
