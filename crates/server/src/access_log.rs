//! One line a request. Never a header, never the query, never a body: that is where secrets are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes;
use axum::response::Response;
use baton_core::Random;
use baton_core::ports::RandomError;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderName, HeaderValue, Method};
use tokio::time::Instant;

use crate::proxy::Passed;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_PATH: usize = 256;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Numbers the requests of this process.
#[derive(Debug, Clone)]
pub(crate) struct RequestIds {
    /// Tells this process from others, and from the one before it: eight digits and a hyphen.
    process: Arc<str>,
    next: Arc<AtomicU64>,
}

impl RequestIds {
    pub(crate) fn new(random: &dyn Random) -> Result<Self, RandomError> {
        let mut process = [0; 4];
        random.fill(&mut process)?;
        let process = format!("{:08x}-", u32::from_ne_bytes(process)).into();
        Ok(Self { process, next: Arc::new(AtomicU64::new(1)) })
    }

    fn next(&self) -> Option<HeaderValue> {
        // Not what the client calls it: a log line is no place for a text of somebody else.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
        let mut id = Vec::with_capacity(self.process.len() + digits as usize);
        id.extend_from_slice(self.process.as_bytes());
        id.extend((0..digits).rev().map(|digit| HEX[(number >> (4 * digit)) as usize % HEX.len()]));
        HeaderValue::from_maybe_shared(Bytes::from(id)).ok()
    }
}

/// The line of a request that is being answered.
pub(crate) struct Line {
    id: Option<HeaderValue>,
    method: &'static str,
    /// The path, and when the request came. `None` if nobody wants to read the line.
    seen: Option<(String, Instant)>,
}

impl Line {
    pub(crate) fn begin(ids: &RequestIds, method: &Method, path: &str) -> Self {
        let seen = tracing::enabled!(tracing::Level::INFO).then(|| (shortened(path).to_owned(), Instant::now()));
        Self { id: ids.next(), method: known(method), seen }
    }

    /// The request's id.
    pub(crate) fn id(&self) -> Option<HeaderValue> {
        self.id.clone()
    }

    /// Logs the request when its response head is ready, and gives the response its id.
    pub(crate) fn end(self, response: &mut Response) {
        let Self { id, method, seen } = self;
        if let Some((path, start)) = seen {
            let (status, ms) = (response.status().as_u16(), start.elapsed().as_secs_f64() * 1000.0);
            let ms = (ms * 1000.0).round() / 1000.0;
            let request = id.as_ref().and_then(|id| id.to_str().ok());
            if matches!(&*path, "/healthz" | "/readyz") {
                tracing::debug!(method, path, status, ms, request, "request");
            } else {
                tracing::info!(method, path, status, ms, request, "request");
            }
        }
        // How a browser is to take a backend's answers is the backend's affair.
        let is_passed = response.extensions().get::<Passed>().is_some();
        let headers = response.headers_mut();
        if let Some(id) = id {
            headers.insert(REQUEST_ID, id);
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

#[cfg(test)]
mod tests {
    use baton_engine::OsRandom;

    use super::*;

    #[test]
    fn ids_are_the_process_and_the_number_in_hexadecimal() {
        let ids = RequestIds::new(&OsRandom).unwrap();
        let process = ids.process.strip_suffix('-').unwrap();
        assert!(process.len() == 8 && process.bytes().all(|byte| HEX.contains(&byte)), "{process}");
        assert_eq!(ids.next().unwrap(), format!("{process}-1"));
        for number in [0, 9, 10, 15, 16, 0xab_cdef, u64::from(u32::MAX), 0x0123_4567_89ab_cdef, u64::MAX] {
            ids.next.store(number, Ordering::Relaxed);
            assert_eq!(ids.next().unwrap(), format!("{process}-{number:x}"));
        }
    }
}
