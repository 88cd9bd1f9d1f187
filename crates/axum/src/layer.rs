//! The tower layer: authenticate before the inner service, rotate when its response head is ready.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use baton_core::wire::Presented;
use baton_engine::{Attempt, AuthenticateError, Grant, Handover, Refusal};
use bytes::Bytes;
use http::header::ORIGIN;
use http::{Method, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use crate::credentials::{self, FromBody, Owner, Read};
use crate::problem::{Problem, Shape};
use crate::{Auth, origins};

/// Authenticates requests and rotates tokens around any tower service. See the crate's documentation.
#[derive(Debug, Clone)]
pub struct AuthLayer {
    auth: Auth,
    required: bool,
}

impl AuthLayer {
    /// Lets anonymous requests through; the extractor [`crate::CurrentUser`] turns them away where needed.
    #[must_use]
    pub const fn new(auth: Auth) -> Self {
        Self { auth, required: false }
    }

    /// Turns anonymous requests away here, for a service that is to be protected as a whole. Preflight requests
    /// (`OPTIONS`) still pass.
    #[must_use]
    pub fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthService { inner, auth: self.auth.clone(), required: self.required }
    }
}

/// The service that [`AuthLayer`] makes.
#[derive(Debug, Clone)]
pub struct AuthService<S> {
    inner: S,
    auth: Auth,
    required: bool,
}

/// What a layer found out about a request; in its extensions while it is handled.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    /// Who says so. Layers of two realms may stand around each other, and a user of the one is nobody to the other.
    by: Auth,
    /// Who is signed in, or why nobody is.
    pub(crate) user: Result<Arc<Grant>, Denial>,
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
    pub(crate) fn problem(self, shape: Shape) -> Problem {
        match self {
            Self::Anonymous => Problem::anonymous(shape),
            Self::Refused(refusal) => Problem::refused(refusal, shape),
            Self::CrossSite => Problem::cross_site(shape),
            Self::Unavailable => Problem::unavailable(shape),
        }
    }
}

/// On a response: its auth headers are what they are to be. Set by the layer, so that one applied twice rotates once, and by
/// the routes that open or end a session themselves.
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

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        // The clone has not been polled ready; the one that has been must take the call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let (auth, required) = (self.auth.clone(), self.required);
        if request.method() == Method::OPTIONS {
            request.extensions_mut().insert(Admission { by: auth, user: Err(Denial::Anonymous) });
            return Box::pin(async move { inner.call(request).await });
        }
        // A layer further out has authenticated this request already, and rotates.
        let outer = settled_outside(&auth, &request);
        if outer.is_some() && !required {
            return Box::pin(async move { inner.call(request).await });
        }

        let rotates = outer.is_none();
        let knock = Knock::of(&auth, &request);
        Box::pin(async move {
            let (from_page, by_cookie) = (knock.from_page, knock.read.by_cookie);
            let user = match outer {
                Some(user) => user,
                None => admit(&auth, knock).await.map(Arc::new),
            };
            let mut response = match &user {
                Err(denial) if required => denial.problem(Shape::Bare).into_response_of(),
                _ => {
                    request.extensions_mut().insert(Admission { by: auth.clone(), user: user.clone() });
                    inner.call(request).await?
                }
            };
            if let Ok(grant) = &user
                && rotates
                && response.extensions_mut().insert(Settled).is_none()
            {
                let mut handover = auth.engine().complete(grant).await;
                let client = grant.session().client.to_string();
                let renamed = response.extensions_mut().remove::<Renamed>();
                if let (Some(Renamed(uid)), Handover::Token(credentials)) = (&renamed, &mut handover) {
                    credentials.uid.clone_from(uid);
                }
                let uid = renamed.as_ref().map_or(&grant.account().uid, |Renamed(uid)| uid);
                let owner = Owner { client: &client, uid, by_cookie };
                credentials::write(&auth, response.headers_mut(), &handover, &owner);
            }
            if from_page {
                credentials::expose(&auth, response.headers_mut());
            }
            Ok(response)
        })
    }
}

/// All that admission looks at, taken from the request before anything is awaited: a body need not be `Sync`.
struct Knock {
    read: Read,
    ip: Option<IpAddr>,
    /// The request has an `Origin`: a page of some site made it.
    from_page: bool,
    /// Its head, where the cross-site check is due.
    to_check: Option<Request<()>>,
}

impl Knock {
    fn of<B>(auth: &Auth, request: &Request<B>) -> Self {
        let read = credentials::read(auth, request.uri(), request.headers(), request.extensions());
        Self {
            ip: credentials::client_ip(request.extensions()),
            from_page: request.headers().contains_key(ORIGIN),
            to_check: read.by_cookie.then(|| origins::head(request)),
            read,
        }
    }
}

/// What a layer of the same [`Auth`] further out has found. Credentials that were read from the body since are news to it.
fn settled_outside<B>(auth: &Auth, request: &Request<B>) -> Option<Result<Arc<Grant>, Denial>> {
    let outer = request.extensions().get::<Admission>().filter(|outer| outer.by.is(auth))?;
    let news = outer.user.is_err() && request.extensions().get::<FromBody>().is_some();
    (!news).then(|| outer.user.clone())
}

async fn admit(auth: &Auth, knock: Knock) -> Result<Grant, Denial> {
    let Knock { read: Read { presented, unbatch, .. }, ip, to_check, .. } = knock;
    if presented.is_empty() {
        return Err(Denial::Anonymous);
    }
    if let Some(head) = to_check
        && auth.0.csrf.refuses(head).await
    {
        return Err(Denial::CrossSite);
    }
    let Presented { access_token: Some(token), client: Some(client), uid: Some(uid) } = &presented else {
        return Err(Denial::Refused(Refusal::Invalid));
    };
    auth.engine().authenticate(Attempt { token, client, uid, unbatch, ip }).await.map_err(|error| match error {
        AuthenticateError::Refused(refusal) => Denial::Refused(refusal),
        AuthenticateError::Store(error) => {
            tracing::error!(%error, "could not authenticate a request");
            Denial::Unavailable
        }
    })
}
