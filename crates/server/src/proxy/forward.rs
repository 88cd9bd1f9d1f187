//! One request, to a target and back.

use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use baton_axum::{Origins, Problem, Shape};
use baton_core::wire::Code;
use http::header::{CONNECTION, HOST, ORIGIN, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::Error;
use tokio::time::{Instant, timeout_at};

use super::body::{Broken, FromTarget, Lent};
use super::clients::Clients;
use super::headers::{self, Secrets};
use super::targets::{Target, Targets};
use super::tunnel;
use super::{Passed, signed_in};
use crate::chain;
use crate::config::{Require, ServerConfig, TrustedProxies, UpstreamConfig};
use crate::edge::Arrival;
use crate::jwt::Signer;
use crate::tls::TrustError;

/// A backend.
pub(super) struct Upstream {
    pub(super) config: UpstreamConfig,
    pub(super) targets: Targets,
    pub(super) clients: Clients,
    secrets: Arc<Secrets>,
    signer: Option<Signer>,
    trusted: TrustedProxies,
    origins: Origins,
    pause: std::time::Duration,
}

impl Upstream {
    pub(super) fn new(
        config: UpstreamConfig,
        secrets: Arc<Secrets>,
        signer: Option<Signer>,
        origins: Origins,
        server: &ServerConfig,
    ) -> Result<Self, TrustError> {
        Ok(Self {
            targets: Targets::new(&config.targets),
            clients: Clients::new(&config)?,
            secrets,
            signer,
            trusted: server.trusted_proxies.clone(),
            origins,
            pause: server.body_read_timeout,
            config,
        })
    }

    /// Answers a request, in whatever way: with a target's answer or with why there is none.
    pub(super) async fn forward(&self, request: Request) -> Response {
        let mut response = self.answer(request).await.unwrap_or_else(Problem::into_response);
        response.extensions_mut().insert(Passed);
        response
    }

    async fn answer(&self, request: Request) -> Result<Response, Problem> {
        let (mut parts, body) = request.into_parts();
        if matches!(parts.method, Method::CONNECT | Method::TRACE) {
            let message = format!("{} is not passed on.", parts.method);
            return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, Shape::Bare, message));
        }
        let user = match self.config.require {
            Require::None => None,
            Require::Optional => signed_in(&mut parts, true).await?,
            Require::Any | Require::Realm(_) => signed_in(&mut parts, false).await?,
        };
        if self.config.max_body_bytes.is_some_and(|most| body.size_hint().lower() > most) {
            return Err(self.broken(Broken::TooLong));
        }
        let path = self.path(&parts.uri)?;
        let origin = headers::Origin::of(&parts, &self.trusted);
        let client = parts.extensions.remove::<OnUpgrade>().filter(|_| tunnel::is_asked_for(&parts.headers));
        if client.is_some() && self.config.require != Require::None && !self.may_open(&parts, &origin) {
            let message = "WebSockets are opened by this site's own pages only.";
            return Err(Problem::new(StatusCode::FORBIDDEN, Code::CrossSite, Shape::Bare, message));
        }
        let secrets = (!self.config.pass_token).then_some(&*self.secrets);
        headers::to_target(&mut parts, &origin, user.as_ref(), secrets);
        if let Some(signer) = &self.signer {
            parts.headers.remove(signer.header());
            if let Some(user) = &user {
                parts.headers.insert(signer.header(), signer.sign(user));
            }
        }
        if client.is_some() {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        parts.headers.remove(HOST);
        if let Some(host) = origin.host.filter(|_| self.config.preserve_host) {
            parts.headers.insert(HOST, host);
        }

        let (target, response) = self.send(&parts, path, body).await?;
        let (mut head, body) = response.into_parts();
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        headers::to_client(&mut head.headers, secrets);
        let mut response = if switches {
            let (Some(client), Some(target)) = (client, head.extensions.remove::<OnUpgrade>()) else {
                return Err(broke_off(target, "it changes to a protocol that nobody asked for"));
            };
            head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            let place = parts.extensions.remove::<Arrival>().and_then(|arrival| arrival.place);
            tokio::spawn(tunnel::run(client, target, self.config.idle_timeout, place));
            Response::new(Body::empty())
        } else {
            Response::new(Body::new(FromTarget::new(body, self.config.idle_timeout, target.authority.as_str())))
        };
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Ok(response)
    }

    /// Whether the page that asks for a WebSocket may: browsers open them to every site, with the cookies that it has.
    fn may_open(&self, parts: &Parts, origin: &headers::Origin) -> bool {
        let Some(page) = parts.headers.get(ORIGIN) else { return true };
        let of_host = page.to_str().ok().and_then(|page| page.split_once("://")).map(|(_, host)| host.as_bytes());
        self.origins.allow(page) || of_host.is_some() && of_host == origin.host.as_ref().map(HeaderValue::as_bytes)
    }

    /// The path and query as the target sees them.
    fn path(&self, uri: &Uri) -> Result<PathAndQuery, Problem> {
        let mut path = uri.path();
        if self.config.strip_path {
            let rest = path.strip_prefix(&*self.config.path).filter(|rest| rest.is_empty() || rest.starts_with('/'));
            let message = format!("There is nothing at {path}.");
            path = rest.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, Code::NotFound, Shape::Bare, message))?;
        }
        let query = uri.query().map(|query| {
            let cleaned = if self.config.pass_token { None } else { self.secrets.without_params(query) };
            cleaned.unwrap_or_else(|| query.to_owned())
        });
        let path = if path.is_empty() { "/" } else { path };
        let text =
            query.filter(|query| !query.is_empty()).map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        PathAndQuery::try_from(text).map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST, Code::Malformed, Shape::Bare, "The address cannot be read.")
        })
    }

    /// Tries the targets in turn. One that could not be reached has seen nothing of the request, so the next one gets it; after
    /// that only what may be repeated is sent once more (RFC 9110 §9.2.2).
    async fn send(
        &self,
        parts: &Parts,
        path: PathAndQuery,
        body: Body,
    ) -> Result<(&Target, http::Response<Incoming>), Problem> {
        let turn = self.targets.in_turn();
        let lent = (!body.is_end_stream()).then(|| Lent::new(body, self.config.max_body_bytes, self.pause));
        let may_repeat = lent.is_none() && parts.method.is_idempotent();
        let mut repeated = false;
        let mut problem = Problem::unavailable(Shape::Bare);
        let mut attempts = turn.iter().copied();
        let mut next = attempts.next();
        while let Some(target) = next {
            let request =
                request(parts, target, path.clone(), lent.as_ref()).map_err(|error| broke_off(target, &error))?;
            match self.attempt(request, lent.as_deref()).await {
                Ok(response) => {
                    self.targets.succeeded(target);
                    return Ok((target, response));
                }
                Err(Failed::Late) => {
                    tracing::warn!(target = %target.authority, "a backend did not answer in time");
                    let message = "The service behind this one did not answer in time.";
                    return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, Code::GatewayTimeout, Shape::Bare, message));
                }
                Err(Failed::Unreached(why)) => {
                    self.targets.failed(target, &why);
                    let message = "The service behind this one cannot be reached right now.";
                    problem = Problem::new(StatusCode::BAD_GATEWAY, Code::BadGateway, Shape::Bare, message);
                    if lent.as_ref().is_some_and(|lent| !lent.is_whole()) {
                        break;
                    }
                    next = attempts.next();
                }
                Err(Failed::Broken(why)) => {
                    if let Some(broken) = lent.as_ref().and_then(|lent| lent.broken()) {
                        return Err(self.broken(broken));
                    }
                    problem = broke_off(target, &why);
                    if !may_repeat || repeated {
                        break;
                    }
                    // Most likely it closed a connection that was kept, at the moment when the request came.
                    repeated = true;
                    next = attempts.next().or(Some(target));
                }
            }
        }
        Err(problem)
    }

    async fn attempt(
        &self,
        request: http::Request<Body>,
        lent: Option<&Lent>,
    ) -> Result<http::Response<Incoming>, Failed> {
        let limit = self.config.response_timeout;
        let sent = self.clients.request(request);
        tokio::pin!(sent);
        let mut deadline = Instant::now() + limit;
        loop {
            match timeout_at(deadline, &mut sent).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => return Err(Failed::of(&error)),
                Err(_) => {
                    let later = lent.map_or(deadline, |lent| lent.patience(limit));
                    if later <= Instant::now() {
                        return Err(Failed::Late);
                    }
                    deadline = later;
                }
            }
        }
    }

    fn broken(&self, why: Broken) -> Problem {
        let (status, code, message) = match why {
            Broken::TooLong => {
                let most = self.config.max_body_bytes.unwrap_or_default();
                (StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, format!("The body is longer than {most} bytes."))
            }
            Broken::TooSlow => (StatusCode::REQUEST_TIMEOUT, Code::Malformed, "The body did not come in time.".into()),
            Broken::Malformed => (StatusCode::BAD_REQUEST, Code::Malformed, "The body could not be read.".into()),
        };
        Problem::new(status, code, Shape::Bare, message)
    }
}

enum Failed {
    Unreached(String),
    Broken(String),
    Late,
}

impl Failed {
    fn of(error: &Error) -> Self {
        let why = chain(error);
        if error.is_connect() { Self::Unreached(why) } else { Self::Broken(why) }
    }
}

fn request(
    parts: &Parts,
    target: &Target,
    path: PathAndQuery,
    lent: Option<&Arc<Lent>>,
) -> Result<http::Request<Body>, String> {
    let body = lent.map_or_else(Body::empty, |lent| Body::new(lent.lend()));
    let mut request = http::Request::new(body);
    *request.uri_mut() = target.at(path).map_err(|error| error.to_string())?;
    request.method_mut().clone_from(&parts.method);
    request.headers_mut().clone_from(&parts.headers);
    *request.version_mut() = Version::HTTP_11;
    Ok(request)
}

fn broke_off(target: &Target, why: &str) -> Problem {
    tracing::warn!(target = %target.authority, why, "a backend broke off");
    let message = "The service behind this one broke off.";
    Problem::new(StatusCode::BAD_GATEWAY, Code::BadGateway, Shape::Bare, message)
}
