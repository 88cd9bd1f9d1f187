//! CORS for what pages call, and for nothing else: tower-http's layer answers every `OPTIONS` itself.

use std::task::{Context, Poll};

use axum::extract::Request;
use futures_util::future::Either;
use http::Method;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use tower::{Layer, Service};
use tower_http::cors::{Cors, CorsLayer};

use crate::forward_auth;

/// Passes by the [`CorsLayer`] what a gateway asks, which is no page's call, whatever it says of the request that it asks about;
/// and, where there are backends, an `OPTIONS` that is no preflight: that is for them to answer.
#[derive(Clone)]
pub(crate) struct EdgeCors {
    cors: CorsLayer,
    before_backends: bool,
}

impl EdgeCors {
    pub(crate) const fn new(cors: CorsLayer, before_backends: bool) -> Self {
        Self { cors, before_backends }
    }
}

impl<S: Clone> Layer<S> for EdgeCors {
    type Service = EdgeCorsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        EdgeCorsService { with: self.cors.layer(inner.clone()), without: inner, before_backends: self.before_backends }
    }
}

#[derive(Clone)]
pub(crate) struct EdgeCorsService<S> {
    with: Cors<S>,
    without: S,
    before_backends: bool,
}

impl<S> Service<Request> for EdgeCorsService<S>
where
    S: Service<Request>,
    Cors<S>: Service<Request, Response = S::Response, Error = S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<<Cors<S> as Service<Request>>::Future, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        match self.with.poll_ready(cx)? {
            Poll::Ready(()) => self.without.poll_ready(cx),
            Poll::Pending => Poll::Pending,
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let headers = request.headers();
        let is_preflight = headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let is_for_backends = self.before_backends && request.method() == Method::OPTIONS && !is_preflight;
        if is_for_backends || forward_auth::is_at(request.uri().path()) {
            Either::Right(self.without.call(request))
        } else {
            Either::Left(self.with.call(request))
        }
    }
}
