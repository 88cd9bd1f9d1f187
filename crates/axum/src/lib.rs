//! Rotating-token authentication for axum and any tower service.
//!
//! ```
//! use std::sync::Arc;
//!
//! use axum::{Router, routing::get};
//! use baton_axum::{Auth, CurrentUser, HttpSettings, auth_routes};
//! use baton_core::{Key, KeyRing};
//! use baton_engine::{Engine, OsRandom, Settings};
//! use baton_store::{clock::SystemClock, memory::MemoryStore};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let secret = *b"an example key of 32 bytes only!";
//! let store = Arc::new(MemoryStore::new(Arc::new(SystemClock::new())));
//! let keys = KeyRing::new(vec![Key::new(0, secret)?])?;
//! let engine = Engine::open(store, keys, Arc::new(OsRandom), Settings::default()).await?;
//! let auth = Auth::new(engine, HttpSettings::default())?;
//!
//! let app: Router = Router::new()
//!     .route("/hello", get(|user: CurrentUser| async move { format!("hello {}", user.uid) }))
//!     .merge(auth_routes("/auth", &auth))
//!     .layer(auth.layer());
//! # let _ = app; Ok(()) }
//! ```
//!
//! # What the layer does
//!
//! It reads the credentials, asks the engine, runs the inner service, and when the response head is ready rotates the token
//! and writes the auth headers. A request without credentials goes through as anonymous: [`CurrentUser`] turns it away,
//! `Option<CurrentUser>` does not. [`AuthLayer::required`] turns it away at the layer, for services that have no extractors.
//!
//! Several kinds of account are several engines over one store, each with a realm and an [`Auth`] of its own. A token of the one
//! is worthless to the layer of the other; [`AuthLayer::any_of`] takes those of several.
//!
//! With the feature `openapi`, `openapi` describes the ready-made routes as OpenAPI 3.1.
//!
//! # Deployment caveats
//!
//! - Put the layer **outside** a CORS layer of your own that lists exposed headers, or use [`Auth::cors`]: tower-http's layer
//!   replaces what an inner layer exposed.
//! - A response that carries a token is `Cache-Control: no-store`, whatever the handler said.
//! - The client's address is the peer's ([`axum::extract::ConnectInfo`]) unless an outer layer sets [`ClientAddr`]. Behind a
//!   proxy that is the proxy's, and [`RateLimits`] would take all clients for one; with neither, no address is limited.

mod cookie;
mod credentials;
mod extract;
mod layer;
mod limits;
#[cfg(feature = "openapi")]
mod openapi;
mod origins;
mod problem;
mod routes;

use std::net::IpAddr;
use std::sync::Arc;

use baton_core::wire::HeaderNames;
use baton_engine::Engine;
use http::HeaderName;
use http::header::InvalidHeaderName;

pub use cookie::{CookieSettings, SameSite};
pub use extract::CurrentUser;
pub use layer::{AuthLayer, AuthService};
pub use limits::{Quota, Quotas, RateLimits, Scopes};
#[cfg(feature = "openapi")]
pub use openapi::openapi;
pub use origins::{InvalidOrigin, Origins};
pub use problem::{Problem, Shape};
pub use routes::auth_routes;

/// Where a request comes from, when it is not the peer that the socket names. Set by an outer layer that knows the proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddr(pub IpAddr);

/// How credentials travel over HTTP.
#[derive(Debug, Clone, Default)]
pub struct HttpSettings {
    /// Names of the auth headers.
    pub headers_names: HeaderNames,
    /// The cookie, if the token may travel in one (`cookie_enabled`).
    pub cookie: Option<CookieSettings>,
    /// Whether credentials are read from the query, and on the auth routes from the body. Off by default: a URL ends up in
    /// logs and histories (ASVS 14.2.1). redux-token-auth needs it.
    pub credentials_in_params: bool,
    /// Pages of which origins may call: for CORS and for the check of cookie requests.
    pub origins: Origins,
    /// How often the ready-made routes may be tried. `None`, the default, does not limit them.
    pub rate_limits: Option<RateLimits>,
}

/// Why [`HttpSettings`] cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HttpSettingsError {
    /// A configured header name is not one.
    #[error("headers_names: {name:?} is not a header name")]
    HeaderName {
        /// What was given.
        name: String,
        /// Why not.
        #[source]
        source: InvalidHeaderName,
    },
    /// Two fields have the same name.
    #[error("headers_names: {0:?} is used twice")]
    DuplicateName(String),
    /// The cookie cannot be set as configured.
    #[error("cookie: {0}")]
    Cookie(String),
    /// An allowed origin is not one.
    #[error(transparent)]
    Origin(#[from] InvalidOrigin),
    /// Addresses have to be confirmed, and nobody sends the letters.
    #[error("confirmation is required, and the engine has no mailer")]
    NoMailer,
    /// Letters are sent, and what their links begin with is not known.
    #[error("public_url has to be an address such as \"https://api.example.com/auth\": links in letters begin with it")]
    NoPublicUrl,
}

/// An engine and the way it is spoken to over HTTP. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Auth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    settings: HttpSettings,
    headers: credentials::Names,
    csrf: origins::CrossSiteCheck,
    limits: limits::Limits,
}

impl Auth {
    /// Puts `engine` on the wire.
    ///
    /// # Errors
    /// [`HttpSettingsError`] for header names, cookie attributes or origins that cannot be used, and for letters that are
    /// needed and cannot be written.
    pub fn new(engine: Engine, settings: HttpSettings) -> Result<Self, HttpSettingsError> {
        let headers = credentials::Names::resolve(&settings.headers_names)?;
        if let Some(cookie) = &settings.cookie {
            cookie.check().map_err(HttpSettingsError::Cookie)?;
        }
        if engine.settings().confirmation.required && !engine.sends_mail() {
            return Err(HttpSettingsError::NoMailer);
        }
        if engine.sends_mail() && !engine.settings().public_url.starts_with("http") {
            return Err(HttpSettingsError::NoPublicUrl);
        }
        let csrf = origins::CrossSiteCheck::new(&settings.origins)?;
        let limits = limits::Limits::new(settings.rate_limits.as_ref());
        Ok(Self(Arc::new(Inner { engine, settings, headers, csrf, limits })))
    }

    /// The use cases below.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// How it is spoken to.
    #[must_use]
    pub fn settings(&self) -> &HttpSettings {
        &self.0.settings
    }

    /// The layer that authenticates requests and rotates tokens.
    #[must_use]
    pub fn layer(&self) -> AuthLayer {
        AuthLayer::new(self.clone())
    }

    /// A CORS layer for the allowed origins that exposes the auth headers and allows what the front-end clients send.
    pub fn cors(&self) -> tower_http::cors::CorsLayer {
        self.layer().cors()
    }

    /// Whether both are clones of one [`Auth::new`].
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn header_names(&self) -> &[HeaderName; 6] {
        self.0.headers.all()
    }
}

/// The examples of the project's documents have to compile.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../docs/realms.md")]
    struct Realms;
}
