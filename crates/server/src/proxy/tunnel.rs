//! WebSockets: once both sides have agreed, bytes go to and fro and nobody looks at them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::HeaderMap;
use http::header::{CONNECTION, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::{Instant, sleep_until};

use super::headers::tokens;
use crate::listen::Place;

/// Whether a request asks for a WebSocket. Nothing else is tunnelled: behind an upgrade to HTTP/2 the backend would be given
/// requests that nobody here has seen.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
        && headers.get_all(UPGRADE).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && headers.contains_key(UPGRADE)
}

/// Connects both sides until one ends, or both are silent for `idle`. It holds the connection's `place` meanwhile.
pub(super) async fn run(client: OnUpgrade, target: OnUpgrade, idle: Option<Duration>, place: Option<Place>) {
    let (client, target) = match tokio::try_join!(client, target) {
        Ok((client, target)) => (TokioIo::new(client), TokioIo::new(target)),
        Err(error) => return tracing::debug!(%error, "a tunnel was not opened"),
    };
    let heard = Arc::new(Heard { start: Instant::now(), millis: AtomicU64::new(0) });
    let mut client = Listened { inner: client, heard: Arc::clone(&heard) };
    let mut target = Listened { inner: target, heard: Arc::clone(&heard) };
    tokio::select! {
        copied = copy_bidirectional(&mut client, &mut target) => match copied {
            Ok((up, down)) => tracing::debug!(up, down, "a tunnel was closed"),
            Err(error) => tracing::debug!(%error, "a tunnel broke"),
        },
        () = heard.silence(idle) => tracing::debug!("a tunnel was silent for too long"),
    }
    drop(place);
}

/// When the last byte came, from either side.
struct Heard {
    start: Instant,
    millis: AtomicU64,
}

impl Heard {
    fn now(&self) {
        self.millis.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Ends when nothing has come for that long.
    async fn silence(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return std::future::pending().await };
        loop {
            let end = self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed)) + limit;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// A stream that notes when something comes.
struct Listened<T> {
    inner: T,
    heard: Arc<Heard>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Listened<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        self.heard.now();
        Poll::Ready(read)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Listened<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
