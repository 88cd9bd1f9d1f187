//! Bodies on their way through.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

/// What a client sends, until a target takes it. If the target could not be reached, the next one gets it whole.
pub(super) struct FromClient {
    lent: Arc<Lent>,
    /// Empty as long as nobody has read from it.
    body: Option<Body>,
    size: SizeHint,
}

/// A client's body, for as long as targets are tried.
pub(super) struct Lent {
    body: Mutex<Option<Body>>,
    size: SizeHint,
    most: Option<u64>,
    taken: AtomicU64,
    pause: Duration,
    start: Instant,
    /// When the target last took something, in milliseconds since the start.
    moved: AtomicU64,
    /// Whether it is the client who is waited for.
    waits: AtomicBool,
    broken: Mutex<Option<Broken>>,
}

/// Why a client's body did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("it is too long")]
    TooLong,
    #[error("the client paused for too long")]
    TooSlow,
    #[error("the client broke off, or it is malformed")]
    Malformed,
}

impl Lent {
    /// `pause`: how long the client may let wait for the next piece.
    pub(super) fn new(body: Body, most: Option<u64>, pause: Duration) -> Arc<Self> {
        Arc::new(Self {
            size: body.size_hint(),
            body: Mutex::new(Some(body)),
            most,
            taken: AtomicU64::new(0),
            pause,
            start: Instant::now(),
            moved: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            broken: Mutex::new(None),
        })
    }

    /// For a target.
    pub(super) fn lend(self: &Arc<Self>) -> FromClient {
        FromClient { lent: Arc::clone(self), body: None, size: self.size }
    }

    /// Whether nobody has read from it yet.
    pub(super) fn is_whole(&self) -> bool {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Why it did not come to its end, if that is so.
    pub(super) fn broken(&self) -> Option<Broken> {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when a target has `limit` to go on: from now while the client is waited for, else since it last took something.
    pub(super) fn patience(&self, limit: Duration) -> Instant {
        if self.waits.load(Ordering::Relaxed) {
            return Instant::now() + limit;
        }
        self.start + Duration::from_millis(self.moved.load(Ordering::Relaxed)) + limit
    }

    fn note(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(millis, Ordering::Relaxed);
    }

    fn broke(&self, why: Broken) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.note(false);
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        Poll::Ready(Some(Err(why.into())))
    }
}

impl HttpBody for FromClient {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let lent = Arc::clone(&self.lent);
        if self.body.is_none() {
            let body = lent.body.lock().unwrap_or_else(PoisonError::into_inner).take();
            // Once read from, it cannot be lent again; whoever tries has not asked `is_whole`.
            let Some(body) = body else { return lent.broke(Broken::Malformed) };
            self.body = Some(Body::new(Patient::new(body, Some(lent.pause))));
        }
        let Some(body) = &mut self.body else { return lent.broke(Broken::Malformed) };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            lent.note(true);
            return Poll::Pending;
        };
        match frame {
            Some(Ok(frame)) => {
                lent.note(false);
                let more = frame.data_ref().map_or(0, |data| data.len() as u64);
                let taken = lent.taken.fetch_add(more, Ordering::Relaxed) + more;
                if lent.most.is_some_and(|most| taken > most) {
                    return lent.broke(Broken::TooLong);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => lent.broke(if is_pause(&error) { Broken::TooSlow } else { Broken::Malformed }),
            None => {
                lent.note(false);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| self.size, HttpBody::size_hint)
    }
}

/// What a target answers.
pub(super) struct FromTarget {
    body: Patient<Incoming>,
    target: String,
}

impl FromTarget {
    /// `pause`: how long the target may let wait for the next piece.
    pub(super) fn new(body: Incoming, pause: Option<Duration>, target: &str) -> Self {
        Self { body: Patient::new(body, pause), target: target.to_owned() }
    }
}

impl HttpBody for FromTarget {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Err(error)) = &frame {
            // The head has gone out; all that is left is not to end the answer as if it were whole.
            tracing::warn!(target = self.target, %error, "a backend broke off in the middle of an answer");
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body whose next piece is waited for only so long.
struct Patient<B> {
    body: B,
    limit: Option<Duration>,
    deadline: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("nothing came for {0:?}")]
struct Pause(Duration);

fn is_pause(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<Pause>() {
            return true;
        }
        cause = error.source();
    }
    false
}

impl<B> Patient<B> {
    const fn new(body: B, limit: Option<Duration>) -> Self {
        Self { body, limit, deadline: None }
    }
}

impl<B> HttpBody for Patient<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.deadline = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(limit) = self.limit else { return Poll::Pending };
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Some(Err(Pause(limit).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
