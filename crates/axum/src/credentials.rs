//! Credentials on the wire: read from a request, written to a response.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use baton_core::ClientId;
use baton_core::decide::BatchResponse;
use baton_core::session::Device;
use baton_core::wire::{Credentials, HeaderNames, Presented, TOKEN_TYPE, meaningful};
use baton_engine::{Handover, Visitor};
use http::header::{ACCEPT_LANGUAGE, ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, SET_COOKIE, USER_AGENT};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Uri};

use crate::{Auth, ClientAddr, HttpSettingsError};

/// Room for what others add: the cache's, the content's and the connection's.
pub(crate) const MORE_HEADERS: usize = 8;

// Nothing is copied for these.
const BLANK: HeaderValue = HeaderValue::from_static("");
const BEARER: HeaderValue = HeaderValue::from_static(TOKEN_TYPE);

/// The six header names, ready for use.
#[derive(Debug)]
pub(crate) struct Names {
    all: [HeaderName; 6],
    /// All of them as the value of `Access-Control-Expose-Headers`.
    exposed: HeaderValue,
}

impl Names {
    pub(crate) fn resolve(names: &HeaderNames) -> Result<Self, HttpSettingsError> {
        let mut resolved = Vec::with_capacity(6);
        for name in names.all() {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|source| HttpSettingsError::HeaderName { name: name.to_owned(), source })?;
            if resolved.contains(&header) {
                return Err(HttpSettingsError::DuplicateName(name.to_owned()));
            }
            resolved.push(header);
        }
        let list = resolved.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
        let duplicate = || HttpSettingsError::DuplicateName(String::new());
        let all = resolved.try_into().map_err(|_| duplicate())?;
        // A list of header names is a header value; this cannot fail.
        Ok(Self { all, exposed: HeaderValue::from_str(&list).map_err(|_| duplicate())? })
    }

    pub(crate) const fn all(&self) -> &[HeaderName; 6] {
        &self.all
    }
}

/// Credentials read from the body by an outer layer, where that is asked for (the auth routes only).
#[derive(Debug, Clone)]
pub(crate) struct FromBody(pub(crate) Presented);

/// What a request presents, and how.
pub(crate) struct Read<'r> {
    /// Token, client and uid in headers of their own, as nearly every client sends them. They are not copied.
    headers: [Option<&'r str>; 3],
    /// What is elsewhere.
    elsewhere: Presented,
    /// The token came in the cookie, which a browser sends along whoever asks it to.
    pub(crate) by_cookie: bool,
    /// It asks for the current token inside the batch window.
    pub(crate) unbatch: bool,
}

impl Read<'_> {
    /// Token, client and uid.
    pub(crate) fn fields(&self) -> [Option<&str>; 3] {
        let Presented { access_token, client, uid } = &self.elsewhere;
        let elsewhere = [access_token.as_ref().map(|token| token.as_str()), client.as_deref(), uid.as_deref()];
        let mut fields = self.headers;
        fields.iter_mut().zip(elsewhere).for_each(|(field, elsewhere)| *field = field.or(elsewhere));
        fields
    }

    fn is_complete(&self) -> bool {
        self.fields().iter().all(Option::is_some)
    }
}

/// Reads each field from the first place that has it: header, parameter, cookie, `Authorization`. That order, field by
/// field, is the gem's.
pub(crate) fn read<'r>(auth: &Auth, uri: &Uri, headers: &'r HeaderMap, extensions: &Extensions) -> Read<'r> {
    let settings = auth.settings();
    let names = &settings.headers_names;
    let [access_token, _, client, _, uid, authorization] = auth.header_names();
    let text = |name: &HeaderName| headers.get(name).and_then(utf8);
    let query = uri.query().unwrap_or_default();

    let mut read = Read {
        headers: [access_token, client, uid].map(|name| text(name).and_then(meaningful)),
        elsewhere: Presented::default(),
        by_cookie: false,
        unbatch: asks_to_unbatch(query),
    };
    if settings.credentials_in_params {
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            read.elsewhere.set(names, &name, &value);
        }
        if let Some(FromBody(body)) = extensions.get() {
            read.elsewhere.fill_from(body.clone());
        }
    }
    if !read.is_complete()
        && let Some(cookie) = &settings.cookie
    {
        let found = cookie.read(names, headers);
        let [token, ..] = read.fields();
        read.by_cookie = token.is_none() && found.access_token.is_some();
        read.elsewhere.fill_from(found);
    }
    if !read.is_complete()
        && let Some(value) = text(authorization)
    {
        read.elsewhere.fill_from(Presented::from_authorization(names, value));
    }
    read
}

fn asks_to_unbatch(query: &str) -> bool {
    // Nearly no request does; look before parsing.
    query.contains("unbatch")
        && form_urlencoded::parse(query.as_bytes())
            .any(|(name, value)| name == "unbatch" && !matches!(&*value, "false" | "0"))
}

/// Who makes a request.
pub(crate) fn visitor(headers: &HeaderMap, extensions: &Extensions) -> Visitor {
    const MAX_BYTES: usize = 512;
    let text = |name| {
        headers.get(name).and_then(utf8).and_then(meaningful).map(|text| {
            let end = (0..=text.len().min(MAX_BYTES)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text[..end].to_owned()
        })
    };
    Visitor {
        device: Device { user_agent: text(USER_AGENT), ip: client_ip(extensions) },
        languages: text(ACCEPT_LANGUAGE).unwrap_or_default(),
    }
}

pub(crate) fn client_ip(extensions: &Extensions) -> Option<IpAddr> {
    let named = extensions.get::<ClientAddr>().map(|addr| addr.0);
    named.or_else(|| extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip()))
}

/// A header value as text. Not `to_str`, which would refuse the uid of an address with non-ASCII letters.
fn utf8(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

/// Whose token a response carries, if any.
pub(crate) struct Owner<'a> {
    pub(crate) client: ClientId,
    pub(crate) uid: &'a str,
    /// The request presented the token in the cookie, or (at sign-in) presented none.
    pub(crate) by_cookie: bool,
}

/// Writes what the engine hands over.
pub(crate) fn write(auth: &Auth, headers: &mut HeaderMap, handover: &Handover, owner: &Owner<'_>) {
    match handover {
        Handover::Token(credentials) => write_token(auth, headers, credentials, owner),
        Handover::Blank if auth.engine().settings().rules.batch_response == BatchResponse::Omit => {}
        Handover::Blank => write_headers(auth, headers, "", "", "", owner),
        Handover::Nothing => {}
    }
}

fn write_token(auth: &Auth, headers: &mut HeaderMap, credentials: &Credentials, owner: &Owner<'_>) {
    let settings = auth.settings();
    let names = &settings.headers_names;
    let cookie = settings.cookie.as_ref().filter(|cookie| owner.by_cookie || !cookie.only);
    if let Some(value) = cookie.and_then(|cookie| cookie.set(names, credentials)) {
        headers.append(SET_COOKIE, value);
    }
    if cookie.is_some_and(|cookie| cookie.only) {
        write_headers(auth, headers, "", &credentials.expiry(), "", owner);
    } else {
        let bearer = credentials.to_authorization(names);
        write_headers(auth, headers, credentials.token.expose(), &credentials.expiry(), &bearer, owner);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Blank values stay blank all through: a batch answer's `authorization` carries no token either.
fn write_headers(
    auth: &Auth,
    headers: &mut HeaderMap,
    token: &str,
    expiry: &str,
    authorization: &str,
    owner: &Owner<'_>,
) {
    // At once: a map that grows one by one puts everything into its new place again and again.
    headers.reserve(auth.header_names().len() + MORE_HEADERS);
    let client = owner.client.encoded();
    let [token, expiry, uid, authorization] = [token, expiry, owner.uid, authorization].map(str::as_bytes);
    let values = [token, TOKEN_TYPE.as_bytes(), &client, expiry, uid, authorization];
    for (index, (name, value)) in auth.header_names().iter().zip(values).enumerate() {
        let value = match (index, value) {
            (_, []) => Ok(BLANK),
            (1, _) => Ok(BEARER),
            (_, value) => HeaderValue::from_bytes(value),
        };
        // A uid may hold what no header can (a control character); such an account goes without that header.
        if let Ok(mut value) = value {
            value.set_sensitive(matches!(index, 0 | 5));
            headers.insert(name, value);
        }
    }
}

/// Lets a page of another origin read the auth headers; adds to what the response already exposes.
pub(crate) fn expose(auth: &Auth, headers: &mut HeaderMap) {
    let exposed = &auth.0.headers.exposed;
    if !headers.get_all(ACCESS_CONTROL_EXPOSE_HEADERS).iter().any(|value| value == exposed) {
        headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
    }
}

/// Takes the cookie away, where there is one.
pub(crate) fn clear_cookie(auth: &Auth, headers: &mut HeaderMap) {
    if let Some(value) = auth.settings().cookie.as_ref().and_then(crate::CookieSettings::clear) {
        headers.append(SET_COOKIE, value);
    }
}
