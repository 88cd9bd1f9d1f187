//! Which pages may call: CORS, and the cross-site check of cookie requests.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use axum::http::request::Parts;
use http::header::{HOST, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use tower::{Layer as _, Service as _, service_fn};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tower_http::csrf::CsrfLayer;

use crate::Auth;
use crate::problem::{RATELIMIT, RATELIMIT_POLICY};

/// Origins whose pages may call, besides the server's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// Exact origins, such as `https://app.example.com`.
    pub exact: Vec<String>,
    /// Whether pages from `localhost`, `127.0.0.1` and `[::1]` may call, with any scheme and port. For development.
    pub localhost: bool,
}

/// A configured origin is not one.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an origin: expected a scheme, a host and at most a port, such as \"https://app.example.com\"")]
pub struct InvalidOrigin(String);

impl Origins {
    /// Whether a page of this origin may call.
    #[must_use]
    pub fn allow(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| {
            self.exact.iter().any(|allowed| allowed == origin) || self.localhost && is_localhost(origin)
        })
    }

    fn check(&self) -> Result<(), InvalidOrigin> {
        for origin in &self.exact {
            let uri: Result<http::Uri, _> = origin.parse();
            let is_origin = uri.is_ok_and(|uri| {
                let lower = !origin.chars().any(|c| c.is_ascii_uppercase());
                let bare = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                    && uri.path_and_query().is_none_or(|rest| rest == "/")
                    && !origin.ends_with('/');
                lower && bare && matches!(uri.scheme_str(), Some("http" | "https"))
            });
            if !is_origin {
                return Err(InvalidOrigin(origin.clone()));
            }
        }
        Ok(())
    }
}

fn is_localhost(origin: &str) -> bool {
    let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

pub(crate) fn cors(realms: &[Auth]) -> CorsLayer {
    let origins: Vec<Origins> = realms.iter().map(|auth| auth.settings().origins.clone()).collect();
    let may_call = move |origin: &HeaderValue, _: &Parts| origins.iter().any(|origins| origins.allow(origin));
    // A page that is told to wait has to be able to see for how long.
    let waits = [RETRY_AFTER, RATELIMIT, RATELIMIT_POLICY];
    let mut exposed: Vec<HeaderName> = Vec::new();
    for name in realms.iter().flat_map(Auth::header_names).chain(&waits) {
        if !exposed.contains(name) {
            exposed.push(name.clone());
        }
    }
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(may_call))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        // The origin is on the list: what its pages send is their affair, and clients add headers of their own.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
        .allow_credentials(realms.iter().any(|auth| auth.settings().cookie.is_some()))
        .max_age(Duration::from_secs(60 * 60))
}

/// Tells requests that a page of another site made with this site's cookie (tower-http's check of `Sec-Fetch-Site` and `Origin`).
pub(crate) struct CrossSiteCheck {
    layer: CsrfLayer,
    origins: Origins,
}

impl fmt::Debug for CrossSiteCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CrossSiteCheck").field(&self.origins).finish()
    }
}

impl CrossSiteCheck {
    pub(crate) fn new(origins: &Origins) -> Result<Self, InvalidOrigin> {
        origins.check()?;
        Ok(Self { layer: CsrfLayer::new(), origins: origins.clone() })
    }

    /// Whether a request with this head has to be refused if it is made with a cookie.
    pub(crate) async fn refuses(&self, head: Request<()>) -> bool {
        if head.headers().get(ORIGIN).is_some_and(|origin| self.origins.allow(origin)) {
            return false;
        }
        let passes = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
        let Ok(response) = self.layer.clone().layer(passes).call(head).await;
        response.status() == StatusCode::FORBIDDEN
    }
}

/// What [`CrossSiteCheck::refuses`] looks at.
pub(crate) fn head<B>(request: &Request<B>) -> Request<()> {
    let mut head = Request::new(());
    head.method_mut().clone_from(request.method());
    head.uri_mut().clone_from(request.uri());
    for name in [HOST, ORIGIN, HeaderName::from_static("sec-fetch-site")] {
        if let Some(value) = request.headers().get(&name) {
            head.headers_mut().insert(name, value.clone());
        }
    }
    head
}
