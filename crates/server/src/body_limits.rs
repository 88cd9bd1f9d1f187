//! How long a body may be, and how long it may take.

use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use baton_axum::{Problem, Shape};
use baton_core::wire::Code;
use futures_util::future::{Either, Ready, ready};
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use http_body::Body as _;
use http_body_util::Limited;
use tower::{Layer, Service};
use tower_http::timeout::TimeoutBody;

/// Limits on the body of a request. A request without a body passes as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// In bytes.
    pub(crate) max: usize,
    /// Between two pieces of it.
    pub(crate) timeout: Duration,
}

impl<S> Layer<S> for BodyLimits {
    type Service = Limit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Limit { inner, limits: *self }
    }
}

/// The service that [`BodyLimits`] makes.
#[derive(Debug, Clone)]
pub(crate) struct Limit<S> {
    inner: S,
    limits: BodyLimits,
}

impl<S: Service<Request, Response = Response>> Service<Request> for Limit<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if request.body().is_end_stream() {
            return Either::Left(self.inner.call(request));
        }
        let BodyLimits { max, timeout } = self.limits;
        // A body that says it is too long is refused unread; one that turns out to be is cut off.
        let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > max as u64) {
            let message = format!("The body is longer than {max} bytes.");
            let refused = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, Shape::Bare, message);
            return Either::Right(ready(Ok(refused.into_response())));
        }
        let limited = request.map(|body| Body::new(Limited::new(Body::new(TimeoutBody::new(timeout, body)), max)));
        Either::Left(self.inner.call(limited))
    }
}
