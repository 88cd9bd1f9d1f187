//! The tower layer: authenticate before the inner service, rotate when its response head is ready.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use baton_engine::{Attempt, AuthenticateError, Grant, Handover, Refusal};
use bytes::Bytes;
use http::header::{HeaderMap, ORIGIN};
use http::{Extensions, Method, Request, Response};
use smallvec::SmallVec;
use tower_http::cors::CorsLayer;
use tower_layer::Layer;
use tower_service::Service;

use crate::credentials::{self, FromBody, Owner, Read};
use crate::problem::{Problem, Shape};
use crate::{Auth, origins};

/// Authenticates requests and rotates tokens around any tower service. See the crate's documentation.
#[derive(Debug, Clone)]
pub struct AuthLayer {
    realms: Arc<[Auth]>,
    required: bool,
}

impl AuthLayer {
    /// Lets anonymous requests through; the extractor [`crate::CurrentUser`] turns them away where needed.
    #[must_use]
    pub fn new(auth: Auth) -> Self {
        Self::any_of([auth])
    }

    /// The same for accounts of several realms: each is asked in turn, and the first that admits the request rotates its
    /// token. [`baton_core::Account::realm`] tells whose account it is. Without any realm nobody is signed in.
    ///
    /// A token is looked for under the names of each realm, and costs one read in each that is asked, up to the one it belongs
    /// to; a forged one costs none. If none of them admits the request, the answer is that of the realm that has the most to
    /// say about it.
    #[must_use]
    pub fn any_of(realms: impl IntoIterator<Item = Auth>) -> Self {
        Self { realms: realms.into_iter().collect(), required: false }
    }

    /// Turns anonymous requests away here, for a service that is to be protected as a whole. Preflight requests
    /// (`OPTIONS`) still pass.
    #[must_use]
    pub fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// A CORS layer that exposes the auth headers of all its realms and allows what the front-end clients send. Pages of an
    /// origin may call if one of the realms allows it, with cookies if one of them has one.
    pub fn cors(&self) -> CorsLayer {
        origins::cors(&self.realms)
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthService { inner, realms: Arc::clone(&self.realms), required: self.required }
    }
}

/// The service that [`AuthLayer`] makes.
#[derive(Debug, Clone)]
pub struct AuthService<S> {
    inner: S,
    realms: Arc<[Auth]>,
    required: bool,
}

/// What the layers around a handler found out about a request; in its extensions while it is handled.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    /// Who is signed in, or why nobody is, as far as the innermost layer is concerned.
    pub(crate) user: Result<Arc<Grant>, Denial>,
    /// What each realm said that any of the layers has asked.
    findings: Findings,
}

/// Hardly ever more than one.
type Findings = SmallVec<[Finding; 1]>;

/// What one realm said. Layers of several realms may stand around each other: a user of the one is nobody to the other, and
/// nobody is asked twice.
#[derive(Debug, Clone)]
struct Finding {
    by: Auth,
    user: Result<Arc<Grant>, Denial>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    /// No credentials were presented.
    Anonymous,
    /// They are no good.
    Refused(Refusal),
    /// They came in a cookie with a request that a page of another site made.
    CrossSite,
    /// The store could not say.
    Unavailable,
}

impl Denial {
    /// Where several realms deny a request, the client hears the denial with the highest rank.
    ///
    /// First those that say nothing about the token: it may be good in the realm that could not or would not look at it, and
    /// a 401 would make a front end throw it away. Then what only the realm of a token can know; to all others it is merely
    /// invalid. That there is no such session is said by every realm of its store, and by realms of other stores about
    /// sessions that live. Last, the realm under whose names nothing was presented.
    const fn rank(self) -> u8 {
        match self {
            Self::Unavailable => 5,
            Self::CrossSite => 4,
            Self::Refused(Refusal::Superseded | Refusal::Expired) => 3,
            Self::Refused(Refusal::Revoked) => 2,
            Self::Refused(Refusal::Invalid) => 1,
            Self::Anonymous => 0,
        }
    }

    pub(crate) fn problem(self, shape: Shape) -> Problem {
        match self {
            Self::Anonymous => Problem::anonymous(shape),
            Self::Refused(refusal) => Problem::refused(refusal, shape),
            Self::CrossSite => Problem::cross_site(shape),
            Self::Unavailable => Problem::unavailable(shape),
        }
    }
}

/// On a response: its auth headers are what they are to be. Set by a layer inside another one, so that one applied twice
/// rotates once, and by the routes that open or end a session themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settled;

/// On a response: the account's uid has changed to this one.
#[derive(Debug, Clone)]
pub(crate) struct Renamed(pub(crate) String);

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for AuthService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    ReqBody: Send + 'static,
    ResBody: From<Bytes> + Send,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // The clone has not been polled ready; the one that has been must take the call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let (realms, required) = (Arc::clone(&self.realms), self.required);
        // All that is looked at is in the head, and a body need not be `Sync`.
        let (parts, body) = request.into_parts();
        let mut head = Request::from_parts(parts, ());
        Box::pin(async move {
            let turns_away = required && !is_preflight(&head);
            let from_page = head.headers().contains_key(ORIGIN);
            let is_inside = head.extensions().get::<Admission>().is_some();
            let (admission, admitted) = ask(&realms, &head).await;
            let mut response = match admission.user {
                Err(denial) if turns_away => denial.problem(Shape::Bare).into_response_of(),
                _ => {
                    head.extensions_mut().insert(admission);
                    inner.call(head.map(|()| body)).await?
                }
            };
            if let Some(admitted) = admitted
                && response.extensions().get::<Settled>().is_none()
            {
                if is_inside {
                    response.extensions_mut().insert(Settled);
                }
                let renamed = response.extensions_mut().remove::<Renamed>();
                admitted.complete(renamed, response.headers_mut()).await;
            }
            if from_page {
                for auth in &*realms {
                    credentials::expose(auth, response.headers_mut());
                }
            }
            Ok(response)
        })
    }
}

fn is_preflight(head: &Request<()>) -> bool {
    head.method() == Method::OPTIONS
}

/// Asks the realms in turn until one admits the request. If this is the layer that asked it, its token is this layer's to
/// rotate; else a layer further out sees to that.
async fn ask(realms: &[Auth], head: &Request<()>) -> (Admission, Option<Admitted>) {
    let mut findings = found_outside(head.extensions());
    let mut denied = Denial::Anonymous;
    for auth in realms {
        let known = findings.iter().find(|finding| finding.by.is(auth)).map(|finding| finding.user.clone());
        let (user, by_cookie) = match known {
            Some(user) => (user, None),
            None => {
                let read = credentials::read(auth, head.uri(), head.headers(), head.extensions());
                let by_cookie = read.by_cookie;
                let user = admit(auth, read, head).await.map(Arc::new);
                findings.push(Finding { by: auth.clone(), user: user.clone() });
                (user, Some(by_cookie))
            }
        };
        match user {
            Ok(grant) => {
                let admitted =
                    by_cookie.map(|by_cookie| Admitted { by: auth.clone(), grant: Arc::clone(&grant), by_cookie });
                return (Admission { user: Ok(grant), findings }, admitted);
            }
            Err(denial) if denial.rank() > denied.rank() => denied = denial,
            Err(_) => {}
        }
    }
    (Admission { user: Err(denied), findings }, None)
}

/// What layers further out were told. To those who admitted nobody, credentials that were read from the body since are news.
fn found_outside(extensions: &Extensions) -> Findings {
    let mut findings = extensions.get::<Admission>().map(|outer| outer.findings.clone()).unwrap_or_default();
    if extensions.get::<FromBody>().is_some() {
        findings.retain(|finding| finding.user.is_ok());
    }
    findings
}

async fn admit(auth: &Auth, read: Read<'_>, head: &Request<()>) -> Result<Grant, Denial> {
    let fields = read.fields();
    if fields == [None; 3] || is_preflight(head) {
        return Err(Denial::Anonymous);
    }
    if read.by_cookie && auth.0.csrf.refuses(origins::head(head)).await {
        return Err(Denial::CrossSite);
    }
    let [Some(token), Some(client), Some(uid)] = fields else {
        return Err(Denial::Refused(Refusal::Invalid));
    };
    let ip = credentials::client_ip(head.extensions());
    let unbatch = read.unbatch;
    auth.engine().authenticate(Attempt { token, client, uid, unbatch, ip }).await.map_err(|error| match error {
        AuthenticateError::Refused(refusal) => Denial::Refused(refusal),
        AuthenticateError::Store(error) => {
            tracing::error!(%error, "could not authenticate a request");
            Denial::Unavailable
        }
    })
}

/// A request whose token this layer has to rotate.
struct Admitted {
    by: Auth,
    grant: Arc<Grant>,
    by_cookie: bool,
}

impl Admitted {
    async fn complete(self, renamed: Option<Renamed>, headers: &mut HeaderMap) {
        let Self { by: auth, grant, by_cookie } = self;
        let mut handover = auth.engine().complete(&grant).await;
        if let (Some(Renamed(uid)), Handover::Token(credentials)) = (&renamed, &mut handover) {
            credentials.uid.clone_from(uid);
        }
        let uid = renamed.as_ref().map_or(&grant.account().uid, |Renamed(uid)| uid);
        credentials::write(&auth, headers, &handover, &Owner { client: grant.session().client, uid, by_cookie });
    }
}
