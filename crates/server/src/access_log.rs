//! One line a request. Never a header, never the query, never a body: that is where secrets are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::response::Response;
use baton_core::Random;
use baton_core::ports::RandomError;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderName, HeaderValue, Method};
use tokio::time::Instant;

use crate::proxy::Passed;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_PATH: usize = 256;

/// Numbers the requests of this process.
#[derive(Debug, Clone)]
pub(crate) struct RequestIds {
    /// Tells this process from others, and from the one before it.
    process: u32,
    next: Arc<AtomicU64>,
}

impl RequestIds {
    pub(crate) fn new(random: &dyn Random) -> Result<Self, RandomError> {
        let mut process = [0; 4];
        random.fill(&mut process)?;
        Ok(Self { process: u32::from_ne_bytes(process), next: Arc::new(AtomicU64::new(1)) })
    }

    fn next(&self) -> String {
        // Not what the client calls it: a log line is no place for a text of somebody else.
        format!("{:08x}-{:x}", self.process, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// The line of a request that is being answered.
pub(crate) struct Line {
    id: String,
    method: &'static str,
    path: String,
    start: Instant,
}

impl Line {
    pub(crate) fn begin(ids: &RequestIds, method: &Method, path: &str) -> Self {
        Self { id: ids.next(), method: known(method), path: shortened(path).to_owned(), start: Instant::now() }
    }

    /// The request's id.
    pub(crate) fn id(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.id).ok()
    }

    /// Logs the request when its response head is ready, and gives the response its id.
    pub(crate) fn end(self, response: &mut Response) {
        let header = self.id();
        let Self { id, method, path, start } = self;
        let (status, ms) = (response.status().as_u16(), start.elapsed().as_secs_f64() * 1000.0);
        let ms = (ms * 1000.0).round() / 1000.0;
        if matches!(&*path, "/healthz" | "/readyz") {
            tracing::debug!(method, path, status, ms, request = id, "request");
        } else {
            tracing::info!(method, path, status, ms, request = id, "request");
        }
        // How a browser is to take a backend's answers is the backend's affair.
        let is_passed = response.extensions().get::<Passed>().is_some();
        let headers = response.headers_mut();
        if let Some(header) = header {
            headers.insert(REQUEST_ID, header);
        }
        if !is_passed {
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
    }
}

/// A client may call its method what it likes; the log has it only if HTTP does.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "(other)",
    }
}

fn shortened(path: &str) -> &str {
    let end = (0..=path.len().min(MAX_PATH)).rev().find(|at| path.is_char_boundary(*at)).unwrap_or(0);
    &path[..end]
}
