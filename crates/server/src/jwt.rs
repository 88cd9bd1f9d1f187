//! JWTs for backends (RFC 7519): who is signed in, in a form that they can verify on their own.
//!
//! ```text
//! {"iss":"https://api.example.com","sub":"1","aud":"things","iat":1795305600,"exp":1795305660,
//!  "uid":"ann@example.com","realm":"user","sid":"C8Bp1EUv_W80GbDMSi4HDQ"}
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use baton_axum::CurrentUser;
use baton_core::clock::millis;
use baton_core::token::ClientId;
use baton_core::{Clock, Timestamp};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use serde::Serialize;

use crate::config::JwtHeader;
use crate::keys::jwt::JwtKeys;

/// Where the public halves of the keys are.
const PATH: &str = "/.well-known/jwks.json";
/// The header that holds a JWT, unless it is `Authorization`.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-auth-jwt");
/// Most sessions whose JWTs are kept, a few hundred bytes each. Those of further ones are signed anew for each request.
const MOST_KEPT: usize = 65_536;

/// Signs for all audiences.
#[derive(Clone)]
pub(crate) struct Issuer {
    pub(crate) keys: Arc<JwtKeys>,
    /// The claim `iss`.
    pub(crate) name: String,
    pub(crate) lifetime: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Issuer {
    pub(crate) fn routes(&self) -> Router {
        // Once, and in the router for as long as that lives.
        let set = axum::body::Bytes::copy_from_slice(self.keys.set().as_bytes());
        Router::new().route(PATH, get(move || async move { published(set) }))
    }

    /// Whoever signs for one audience.
    pub(crate) fn signer(&self, audience: &str, header: JwtHeader) -> Signer {
        Signer { issuer: self.clone(), audience: audience.to_owned(), header, kept: Mutex::default() }
    }
}

/// A short while, so that a new key is known soon: libraries ask again when they meet one that they do not know.
fn published(set: axum::body::Bytes) -> Response {
    let headers = [(CACHE_CONTROL, "public, max-age=300"), (CONTENT_TYPE, "application/jwk-set+json")];
    (headers, set).into_response()
}

/// Signs for one audience.
pub(crate) struct Signer {
    issuer: Issuer,
    audience: String,
    header: JwtHeader,
    kept: Mutex<Kept>,
}

/// What was signed in this half of a lifetime.
#[derive(Default)]
struct Kept {
    half: i64,
    by_session: HashMap<ClientId, (String, HeaderValue)>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: String,
    aud: &'a str,
    iat: i64,
    exp: i64,
    uid: &'a str,
    realm: &'a str,
    sid: String,
}

impl Signer {
    /// What the header is called.
    pub(crate) const fn header(&self) -> HeaderName {
        match self.header {
            JwtHeader::Own => HEADER,
            JwtHeader::Authorization => http::header::AUTHORIZATION,
        }
    }

    /// The header's value for somebody. It is good for at least half of the lifetime, in which the session gets the same again, so
    /// that not every request waits for a signature.
    pub(crate) fn sign(&self, user: &CurrentUser) -> HeaderValue {
        let now = self.issuer.clock.now();
        let half = now.as_millis().div_euclid((millis(self.issuer.lifetime) / 2).max(1));
        let session = user.session().client;
        if let Some(kept) = self.kept.lock().of(half, session, &user.uid) {
            return kept;
        }
        let value = self.signed(user, now);
        self.kept.lock().keep(half, session, &user.uid, &value);
        value
    }

    fn signed(&self, user: &CurrentUser, now: Timestamp) -> HeaderValue {
        let iat = now.as_secs();
        let claims = Claims {
            iss: &self.issuer.name,
            sub: user.id.0.to_string(),
            aud: &self.audience,
            iat,
            exp: now.plus(self.issuer.lifetime).as_secs(),
            uid: &user.uid,
            realm: &user.realm,
            sid: user.session().client.to_string(),
        };
        // Texts and numbers, which JSON can hold all of.
        let jwt = self.issuer.keys.sign(&serde_json::to_vec(&claims).unwrap_or_default());
        let text = match self.header {
            JwtHeader::Own => jwt,
            JwtHeader::Authorization => format!("Bearer {jwt}"),
        };
        let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl Kept {
    /// What a session got in this half, unless its account has another uid by now.
    fn of(&self, half: i64, session: ClientId, uid: &str) -> Option<HeaderValue> {
        let (of, value) = self.by_session.get(&session).filter(|_| self.half == half)?;
        (of == uid).then(|| value.clone())
    }

    fn keep(&mut self, half: i64, session: ClientId, uid: &str, value: &HeaderValue) {
        if self.half != half {
            // With its memory: a busy half does not say that the next one will be.
            *self = Self { half, by_session: HashMap::new() };
        }
        if self.by_session.len() < MOST_KEPT || self.by_session.contains_key(&session) {
            self.by_session.insert(session, (uid.to_owned(), value.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: ClientId = ClientId::from_bytes([1; 16]);

    #[test]
    fn what_is_kept_is_of_one_session_one_uid_and_one_half() {
        let mut kept = Kept::default();
        let value = HeaderValue::from_static("a");
        kept.keep(5, SESSION, "ann", &value);
        assert_eq!(kept.of(5, SESSION, "ann"), Some(value.clone()));
        assert_eq!(kept.of(5, SESSION, "bob"), None);
        assert_eq!(kept.of(5, ClientId::from_bytes([2; 16]), "ann"), None);
        assert_eq!((kept.of(4, SESSION, "ann"), kept.of(6, SESSION, "ann")), (None, None));
        kept.keep(6, ClientId::from_bytes([2; 16]), "bob", &value);
        assert_eq!(kept.by_session.len(), 1, "nothing of an earlier half stays");
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let mut kept = Kept::default();
        for number in 0..=MOST_KEPT as u128 {
            kept.keep(0, ClientId::from_bytes(number.to_be_bytes()), "ann", &HeaderValue::from_static("a"));
        }
        assert_eq!(kept.by_session.len(), MOST_KEPT);
        kept.keep(0, ClientId::from_bytes([0; 16]), "bob", &HeaderValue::from_static("b"));
        assert!(kept.of(0, ClientId::from_bytes([0; 16]), "bob").is_some());
    }
}
