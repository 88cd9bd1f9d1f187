//! The protocol over plain strings: header names, the forms in which credentials travel, machine-readable codes.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde_json::{Map, Value};
use std::fmt;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::token::{ClientId, Token};

/// Names of the auth headers, and of the same fields in a bearer value, a cookie and parameters (`headers_names`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderNames {
    /// `access-token`
    pub access_token: String,
    /// `token-type`
    pub token_type: String,
    /// `client`
    pub client: String,
    /// `expiry`
    pub expiry: String,
    /// `uid`
    pub uid: String,
    /// `authorization`
    pub authorization: String,
}

impl Default for HeaderNames {
    fn default() -> Self {
        Self {
            access_token: "access-token".into(),
            token_type: "token-type".into(),
            client: "client".into(),
            expiry: "expiry".into(),
            uid: "uid".into(),
            authorization: "authorization".into(),
        }
    }
}

impl HeaderNames {
    /// All six, in the order in which they are sent.
    #[must_use]
    pub fn all(&self) -> [&str; 6] {
        [&self.access_token, &self.token_type, &self.client, &self.expiry, &self.uid, &self.authorization]
    }
}

/// The value of `token-type`.
pub const TOKEN_TYPE: &str = "Bearer";

/// What a request presents, field by field, before anything of it was checked. `Debug` hides the token.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Presented {
    /// The token.
    pub access_token: Option<Zeroizing<String>>,
    /// The client id.
    pub client: Option<String>,
    /// The account's uid.
    pub uid: Option<String>,
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented")
            .field("access_token", &self.access_token.as_ref().map(|_| ".."))
            .field("client", &self.client)
            .field("uid", &self.uid)
            .finish()
    }
}

impl Presented {
    /// Takes from `other` each field that is still missing here.
    pub fn fill_from(&mut self, other: Self) {
        self.access_token = self.access_token.take().or(other.access_token);
        self.client = self.client.take().or(other.client);
        self.uid = self.uid.take().or(other.uid);
    }

    /// Whether nothing was presented at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.access_token.is_none() && self.client.is_none() && self.uid.is_none()
    }

    /// Whether no field is missing.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.access_token.is_some() && self.client.is_some() && self.uid.is_some()
    }

    /// Sets the field that travels under `name`, if it is one of the three and has none yet. Values that mean nothing
    /// ([`meaningful`]) are passed over.
    pub fn set(&mut self, names: &HeaderNames, name: &str, value: &str) {
        let Some(value) = meaningful(value) else { return };
        if name.eq_ignore_ascii_case(&names.access_token) {
            self.access_token.get_or_insert_with(|| Zeroizing::new(value.to_owned()));
        } else if name.eq_ignore_ascii_case(&names.client) {
            self.client.get_or_insert_with(|| value.to_owned());
        } else if name.eq_ignore_ascii_case(&names.uid) {
            self.uid.get_or_insert_with(|| value.to_owned());
        }
    }

    /// From a JSON object with the fields under their header names; anything else presents nothing. Values that are not
    /// strings are passed over.
    #[must_use]
    pub fn from_json(names: &HeaderNames, json: &[u8]) -> Self {
        let mut presented = Self::default();
        if let Ok(object) = serde_json::from_slice::<Map<String, Value>>(json) {
            for (name, value) in &object {
                presented.set(names, name, value.as_str().unwrap_or_default());
            }
        }
        presented
    }

    /// From an `Authorization` value: the base64 (padded or not, either alphabet) of the JSON object, after a scheme word.
    #[must_use]
    pub fn from_authorization(names: &HeaderNames, value: &str) -> Self {
        let word = value.trim().rsplit(' ').next().unwrap_or_default();
        LENIENT
            .decode(word)
            .or_else(|_| LENIENT_URL_SAFE.decode(word))
            .map(|json| Self::from_json(names, &Zeroizing::new(json)))
            .unwrap_or_default()
    }
}

const LENIENT_CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT_CONFIG);
const LENIENT_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT_CONFIG);

/// A credential field that says something. Front-end clients send blanks, `undefined` and `null` when they hold nothing.
#[must_use]
pub fn meaningful(value: &str) -> Option<&str> {
    let value = value.trim();
    (!matches!(value, "" | "undefined" | "null")).then_some(value)
}

/// A token on its way to a client, with the fields that go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The token.
    pub token: Token,
    /// The session.
    pub client: ClientId,
    /// The account's uid.
    pub uid: String,
    /// End of the idle lifetime.
    pub expires_at: Timestamp,
}

impl Credentials {
    /// `expiry`: Unix seconds as text.
    #[must_use]
    pub fn expiry(&self) -> String {
        self.expires_at.as_secs().to_string()
    }

    /// The five fields as a JSON object under their header names: what a bearer value and the cookie hold.
    #[must_use]
    pub fn to_json(&self, names: &HeaderNames) -> Zeroizing<String> {
        let (client, expiry) = (self.client.encoded(), self.expiry());
        // Base64 is text, so the default is never taken.
        let client = std::str::from_utf8(&client).unwrap_or_default();
        let fields: [(&str, &str); 5] = [
            (&names.access_token, self.token.expose()),
            (&names.token_type, TOKEN_TYPE),
            (&names.client, client),
            (&names.expiry, &expiry),
            (&names.uid, &self.uid),
        ];
        // Room for all of it: text that outgrew its place would leave the token behind there, unwiped.
        let length: usize = fields.iter().map(|(name, value)| name.len() + value.len() + r#""":"","#.len()).sum();
        let plain = fields.iter().all(|(name, value)| is_plain(name) && is_plain(value));
        let (push, room) =
            if plain { (push_plain as fn(&mut String, &str), length) } else { (push_json as _, ESCAPED * length) };
        let mut json = Zeroizing::new(String::with_capacity(1 + room));
        for (index, (name, value)) in fields.into_iter().enumerate() {
            json.push(if index == 0 { '{' } else { ',' });
            push(&mut json, name);
            json.push(':');
            push(&mut json, value);
        }
        json.push('}');
        json
    }

    /// The value of `authorization`: `Bearer`, and the base64 of [`to_json`](Self::to_json).
    #[must_use]
    pub fn to_authorization(&self, names: &HeaderNames) -> Zeroizing<String> {
        let json = self.to_json(names);
        let room = TOKEN_TYPE.len() + 1 + json.len().div_ceil(3) * 4;
        let mut value = Zeroizing::new(String::with_capacity(room));
        value.push_str(TOKEN_TYPE);
        value.push(' ');
        STANDARD.encode_string(json.as_bytes(), &mut value);
        value
    }
}

/// Most bytes that one byte becomes in a JSON string (`\u0000`).
const ESCAPED: usize = 6;

/// Whether it is in a JSON string as it is: nearly everything.
fn is_plain(text: &str) -> bool {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    // To the end in any case, so that many bytes are looked at in one step.
    text.bytes().fold(true, |so_far, byte| so_far & is_plain(byte))
}

/// As a JSON string, in which it is as it is.
fn push_plain(json: &mut String, text: &str) {
    json.push('"');
    json.push_str(text);
    json.push('"');
}

/// As a JSON string.
fn push_json(json: &mut String, text: &str) {
    if is_plain(text) {
        // A token is, and so is never copied to where nobody wipes it.
        push_plain(json, text);
    } else {
        json.push_str(&Value::from(text).to_string());
    }
}

/// Stable, machine-readable reason of a refusal: the `code` of an error body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// No credentials were presented.
    NotAuthenticated,
    /// The token is malformed, forged, signed with a retired key, or presented with another client or uid.
    TokenInvalid,
    /// A newer token has taken its place.
    TokenSuperseded,
    /// The session is over its idle or absolute lifetime.
    TokenExpired,
    /// The session was ended: signed out, ended from another device, or its account is gone.
    SessionRevoked,
    /// E-mail or password are wrong.
    BadCredentials,
    /// The password is right, and the e-mail address has not been confirmed yet.
    Unconfirmed,
    /// Too many sign-ins failed.
    Locked,
    /// A link, or the token in it, is not good (any more).
    LinkInvalid,
    /// The account's link may not lead on to there.
    RedirectRefused,
    /// A cookie was presented by a page of another site.
    CrossSite,
    /// A field of the request is missing or wrong; `errors` says which.
    Invalid,
    /// The body is not what its `Content-Type` says.
    Malformed,
    /// The body is longer than accepted.
    TooLarge,
    /// There is nothing at this address.
    NotFound,
    /// The address does not take this method.
    MethodNotAllowed,
    /// Too many attempts from this address or at this account; try again after `Retry-After`.
    RateLimited,
    /// The service behind this one could not be reached, or broke off.
    BadGateway,
    /// The service behind this one did not answer in time.
    GatewayTimeout,
    /// The store is away or overloaded; try again, and keep the credentials.
    Unavailable,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::NotAuthenticated,
        Self::TokenInvalid,
        Self::TokenSuperseded,
        Self::TokenExpired,
        Self::SessionRevoked,
        Self::BadCredentials,
        Self::Unconfirmed,
        Self::Locked,
        Self::LinkInvalid,
        Self::RedirectRefused,
        Self::CrossSite,
        Self::Invalid,
        Self::Malformed,
        Self::TooLarge,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RateLimited,
        Self::BadGateway,
        Self::GatewayTimeout,
        Self::Unavailable,
    ];

    /// As it stands in a body.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAuthenticated => "not_authenticated",
            Self::TokenInvalid => "token_invalid",
            Self::TokenSuperseded => "token_superseded",
            Self::TokenExpired => "token_expired",
            Self::SessionRevoked => "session_revoked",
            Self::BadCredentials => "bad_credentials",
            Self::Unconfirmed => "unconfirmed",
            Self::Locked => "locked",
            Self::LinkInvalid => "link_invalid",
            Self::RedirectRefused => "redirect_refused",
            Self::CrossSite => "cross_site",
            Self::Invalid => "invalid",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RateLimited => "rate_limited",
            Self::BadGateway => "bad_gateway",
            Self::GatewayTimeout => "gateway_timeout",
            Self::Unavailable => "unavailable",
        }
    }
}

// `ALL` is complete and in order; what is last stays last.
const _: () = {
    let mut at = 0;
    while at < Code::ALL.len() {
        assert!(Code::ALL[at] as usize == at, "Code::ALL is not in the order of the variants");
        at += 1;
    }
    assert!(Code::Unavailable as usize + 1 == Code::ALL.len(), "Code::ALL is not complete");
};
