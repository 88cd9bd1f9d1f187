//! What of a message's head concerns one connection, is a secret, or is somebody's claim, and what takes its place.

use std::fmt::Write as _;
use std::net::IpAddr;

use axum::extract::Request;
use baton_axum::{ClientAddr, CurrentUser};
use baton_core::wire::{HeaderNames, Presented};
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};

use crate::access_log::REQUEST_ID;
use crate::app::Mounted;
use crate::config::TrustedProxies;
use crate::edge::Arrival;
use crate::jwt;

/// What a backend is told about who is signed in: the uid, the account's number, its realm, and the name of the session.
pub(crate) const IDENTITY: [HeaderName; 4] = [
    HeaderName::from_static("x-auth-uid"),
    HeaderName::from_static("x-auth-user-id"),
    HeaderName::from_static("x-auth-realm"),
    HeaderName::from_static("x-auth-session"),
];
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What is said here about where a request comes from; more than is written, since a backend may believe it.
const ORIGIN_CLAIMS: [HeaderName; 7] = [
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-real-ip"),
];
/// Those of a connection and not of a message (RFC 9110 §7.6.1), besides what `Connection` names. The body is framed anew, so
/// `Trailer` is not for sure either.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The values of [`IDENTITY`] for somebody; `None` for a uid that no header can hold.
pub(crate) fn identity(user: &CurrentUser) -> [Option<HeaderValue>; 4] {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).ok();
    let session = user.session().client.to_string();
    [value(&user.uid), Some(user.id.0.into()), value(&user.realm), value(&session)]
}

/// The one host that a request is for, without its port and in lower case (RFC 9112 §3.2).
pub(super) fn host(request: &Request) -> Result<String, ()> {
    let authority = authority(request.uri(), request.headers(), request.version())?;
    let host = authority.as_ref().map_or("", Authority::host);
    Ok(host.trim_end_matches('.').to_ascii_lowercase())
}

/// The host and port that a request names. HTTP/1.0 need not name one; HTTP/2 may name it twice, if it is the same (RFC 9113 §8.3.1).
fn authority(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<Option<Authority>, ()> {
    let mut lines = headers.get_all(HOST).iter();
    let named = match (lines.next(), lines.next()) {
        (_, Some(_)) => return Err(()),
        (Some(value), None) => Some(Authority::try_from(value.as_bytes()).map_err(drop)?),
        (None, None) => None,
    };
    if version == Version::HTTP_2 && named.is_some() && named.as_ref() != uri.authority() {
        return Err(());
    }
    match uri.authority().cloned().or(named) {
        Some(authority) if authority.as_str().contains('@') => Err(()),
        None if version > Version::HTTP_10 => Err(()),
        authority => Ok(authority),
    }
}

/// Where a request comes from, as far as that is known and not merely claimed.
#[derive(Debug)]
pub(super) struct Origin {
    client: Option<IpAddr>,
    peer: Option<IpAddr>,
    is_https: bool,
    pub(super) host: Option<HeaderValue>,
}

impl Origin {
    /// What a proxy in `trusted` says of the scheme and the host is taken; the client's address was found out before.
    pub(super) fn of(parts: &Parts, trusted: &TrustedProxies) -> Self {
        let peer = parts.extensions.get::<Arrival>().map(|arrival| arrival.peer);
        let client = parts.extensions.get::<ClientAddr>().map(|client| client.0).or(peer);
        let is_trusted = peer.is_some_and(|peer| trusted.contains(peer));
        let said = |name: &HeaderName| parts.headers.get(name).filter(|_| is_trusted);
        let named = authority(&parts.uri, &parts.headers, parts.version).ok().flatten();
        let named = named.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        let is_host = |value: &&HeaderValue| Authority::try_from(value.as_bytes()).is_ok();
        Self {
            client,
            peer,
            is_https: said(&X_FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https")),
            host: said(&X_FORWARDED_HOST).filter(is_host).cloned().or(named),
        }
    }

    fn write(&self, headers: &mut HeaderMap) {
        let proto = if self.is_https { "https" } else { "http" };
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
        if let Some(host) = &self.host {
            headers.insert(X_FORWARDED_HOST, host.clone());
        }
        // Not the whole way, but both ends of it that are known.
        let Some(client) = self.client else { return };
        let further = self.peer.filter(|peer| *peer != client);
        let plain = further.map_or_else(|| client.to_string(), |peer| format!("{client}, {peer}"));
        let mut forwarded = String::with_capacity(128);
        let node = |forwarded: &mut String, ip: IpAddr| {
            let _ = if ip.is_ipv6() { write!(forwarded, "for=\"[{ip}]\"") } else { write!(forwarded, "for={ip}") };
        };
        node(&mut forwarded, client);
        if let Some(host) = self.host.as_ref().and_then(|host| host.to_str().ok()) {
            let _ = write!(forwarded, ";host=\"{host}\"");
        }
        let _ = write!(forwarded, ";proto={proto}");
        if let Some(peer) = further {
            forwarded.push_str(", ");
            node(&mut forwarded, peer);
        }
        for (name, value) in [(X_FORWARDED_FOR, plain), (FORWARDED, forwarded)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

/// Makes the head of a request fit for a target: who is signed in, where it comes from, and nothing that only claims to say so.
pub(super) fn to_target(parts: &mut Parts, origin: &Origin, user: Option<&CurrentUser>, secrets: Option<&Secrets>) {
    let takes_trailers = tokens(&parts.headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    let id = parts.extensions.get::<Arrival>().and_then(|arrival| arrival.request_id.clone());
    let version = parts.version;
    let headers = &mut parts.headers;
    drop_hop_by_hop(headers);
    if let Some(secrets) = secrets {
        secrets.take_from_request(headers);
    }
    let ours = |name: &HeaderName| IDENTITY.contains(name) || *name == jwt::HEADER || ORIGIN_CLAIMS.contains(name);
    drop_spellings(headers, |name| ours(name) || secrets.is_some_and(|secrets| secrets.names.contains(name)));
    for name in IDENTITY.iter().chain([&jwt::HEADER]).chain(&ORIGIN_CLAIMS) {
        headers.remove(name);
    }
    // Whoever reads the body here answers that.
    headers.remove(EXPECT);
    for (name, value) in IDENTITY.into_iter().zip(user.map(identity).unwrap_or_default()) {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
    origin.write(headers);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(id) = id {
        headers.insert(REQUEST_ID, id);
    }
    headers.append(VIA, HeaderValue::from_static(if version == Version::HTTP_2 { "2 baton" } else { "1.1 baton" }));
}

/// Makes the head of a target's answer fit for a client. CORS is dealt with here, once; tokens are handed out here and nowhere
/// else.
pub(super) fn to_client(headers: &mut HeaderMap, secrets: Option<&Secrets>) {
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    drop_hop_by_hop(headers);
    let of_cors: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    for name in of_cors {
        headers.remove(name);
    }
    if let Some(secrets) = secrets {
        secrets.take_from_response(headers);
    }
}

/// The elements of a header that is a list of words.
pub(super) fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|token| token.split(';').next().unwrap_or_default().trim())
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        tokens(headers, &CONNECTION).filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Drops what is spelled with underscores like a header that matters: to many a backend `X_Auth_Uid` is the same as `X-Auth-Uid`.
fn drop_spellings(headers: &mut HeaderMap, matters: impl Fn(&HeaderName) -> bool) {
    let is_spelling = |name: &&HeaderName| {
        name.as_str().contains('_')
            && HeaderName::from_bytes(name.as_str().replace('_', "-").as_bytes()).is_ok_and(|name| matters(&name))
    };
    let spellings: Vec<HeaderName> = headers.keys().filter(is_spelling).cloned().collect();
    for name in spellings {
        headers.remove(name);
    }
}

/// Where credentials travel, so that they can be taken out.
#[derive(Debug)]
pub(super) struct Secrets {
    /// Header names, but for `authorization`.
    names: Vec<HeaderName>,
    /// How each realm calls the fields within one.
    fields: Vec<HeaderNames>,
    cookies: Vec<String>,
    /// Names of parameters.
    params: Vec<String>,
}

impl Secrets {
    pub(super) fn of(realms: &[Mounted]) -> Self {
        let mut secrets = Self { names: Vec::new(), fields: Vec::new(), cookies: Vec::new(), params: Vec::new() };
        for settings in realms.iter().map(|realm| realm.auth.settings()) {
            let names = &settings.headers_names;
            for name in names.all().iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()) {
                if name != AUTHORIZATION && !secrets.names.contains(&name) {
                    secrets.names.push(name);
                }
            }
            if settings.credentials_in_params {
                secrets.params.extend([&names.access_token, &names.client, &names.uid].map(Clone::clone));
            }
            secrets.cookies.extend(settings.cookie.iter().map(|cookie| cookie.name.clone()));
            secrets.fields.push(names.clone());
        }
        secrets
    }

    fn take_from_request(&self, headers: &mut HeaderMap) {
        for name in &self.names {
            headers.remove(name);
        }
        // `Authorization` is the backend's, unless it holds a token of ours.
        let is_ours = |value: &HeaderValue| {
            let text = value.to_str().unwrap_or_default();
            self.fields.iter().any(|names| !Presented::from_authorization(names, text).is_empty())
        };
        if headers.get_all(AUTHORIZATION).iter().any(is_ours) {
            headers.remove(AUTHORIZATION);
        }
        if !self.cookies.is_empty() && headers.contains_key(COOKIE) {
            let lines: Vec<HeaderValue> =
                headers.get_all(COOKIE).iter().filter_map(|line| self.without_cookies(line)).collect();
            headers.remove(COOKIE);
            for line in lines {
                headers.append(COOKIE, line);
            }
        }
    }

    fn take_from_response(&self, headers: &mut HeaderMap) {
        for name in &self.names {
            headers.remove(name);
        }
        if !self.cookies.is_empty() && headers.contains_key(SET_COOKIE) {
            let is_ours = |value: &HeaderValue| self.is_cookie(value.as_bytes());
            let others: Vec<HeaderValue> =
                headers.get_all(SET_COOKIE).iter().filter(|value| !is_ours(value)).cloned().collect();
            headers.remove(SET_COOKIE);
            for value in others {
                headers.append(SET_COOKIE, value);
            }
        }
    }

    fn without_cookies(&self, line: &HeaderValue) -> Option<HeaderValue> {
        let pairs = line.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let others: Vec<&[u8]> = pairs.filter(|pair| !pair.is_empty() && !self.is_cookie(pair)).collect();
        if others.is_empty() { None } else { HeaderValue::from_bytes(&others.join(&b"; "[..])).ok() }
    }

    /// Whether this pair of a name and a value is a cookie of ours.
    fn is_cookie(&self, pair: &[u8]) -> bool {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        self.cookies.iter().any(|cookie| cookie.as_bytes() == name)
    }

    /// A query without credentials; `None` if there are none in it.
    pub(super) fn without_params(&self, query: &str) -> Option<String> {
        let is_ours = |pair: &&str| {
            form_urlencoded::parse(pair.as_bytes())
                .any(|(name, _)| self.params.iter().any(|param| name.eq_ignore_ascii_case(param)))
        };
        if self.params.is_empty() || !query.split('&').any(|pair| is_ours(&pair)) {
            return None;
        }
        Some(query.split('&').filter(|pair| !is_ours(pair)).collect::<Vec<_>>().join("&"))
    }
}

#[cfg(test)]
mod tests;
