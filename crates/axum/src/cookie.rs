//! The token in a cookie (`cookie_enabled`).

use std::time::Duration;

use baton_core::wire::{Credentials, HeaderNames, Presented};
use http::header::{COOKIE, HeaderMap, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use zeroize::Zeroizing;

/// How the cookie is set. The defaults are the strictest that work for a front end of the same site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieSettings {
    /// Its name. With the prefix `__Host-` the browser itself sees to `Secure`, `Path=/` and no `Domain` (RFC 6265bis §4.1.3.2).
    pub name: String,
    /// Which pages' requests carry it.
    pub same_site: SameSite,
    /// Only over TLS (and to localhost).
    pub secure: bool,
    /// Hidden from scripts.
    pub http_only: bool,
    /// Below which path it is sent.
    pub path: String,
    /// To which domain's hosts it is sent; the one that set it alone if `None`.
    pub domain: Option<String>,
    /// Whether the token is kept out of the response headers, so that a script of the page never sees it. With `false` it is
    /// in both, as the gem has it.
    pub only: bool,
    /// How long the browser keeps it; normally `token_lifespan`.
    pub max_age: Duration,
}

impl Default for CookieSettings {
    fn default() -> Self {
        Self {
            name: "__Host-baton".into(),
            same_site: SameSite::Lax,
            secure: true,
            http_only: true,
            path: "/".into(),
            domain: None,
            only: true,
            max_age: Duration::from_secs(14 * 24 * 60 * 60),
        }
    }
}

/// The cookie attribute of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SameSite {
    /// Only requests of pages of the same site.
    Strict,
    /// The same, and following a link to the site.
    #[default]
    Lax,
    /// Requests of pages of any site; needs `Secure`.
    None,
}

impl CookieSettings {
    /// Whether a browser would take it.
    pub(crate) fn check(&self) -> Result<(), String> {
        let token_char = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if self.name.is_empty() || !self.name.chars().all(token_char) {
            return Err(format!("{:?} is not a cookie name", self.name));
        }
        let attribute_char = |c: char| c.is_ascii_graphic() && c != ';';
        if !self.path.starts_with('/') || !self.path.chars().all(attribute_char) {
            return Err(format!("path {:?} has to begin with a slash and hold no space or semicolon", self.path));
        }
        if self.domain.as_ref().is_some_and(|domain| domain.is_empty() || !domain.chars().all(attribute_char)) {
            return Err("domain has to be a host name".into());
        }
        // Browsers know the prefixes in any case.
        let name = self.name.to_ascii_lowercase();
        let host_prefix = name.starts_with("__host-");
        if host_prefix && !(self.secure && self.path == "/" && self.domain.is_none()) {
            return Err("a name with the prefix __Host- needs secure = true, path = \"/\" and no domain".into());
        }
        if (name.starts_with("__secure-") || self.same_site == SameSite::None) && !self.secure {
            return Err("the prefix __Secure- and same_site = \"none\" need secure = true".into());
        }
        Ok(())
    }

    /// What the request's cookie presents; nothing if there is none or it holds garbage.
    pub(crate) fn read(&self, names: &HeaderNames, headers: &HeaderMap) -> Presented {
        headers
            .get_all(COOKIE)
            .iter()
            // As bytes: another cookie beside it may hold what is no text.
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
            .filter_map(|pair| pair.trim_ascii().strip_prefix(self.name.as_bytes())?.strip_prefix(b"="))
            .next()
            .map(|value| Zeroizing::new(percent_decode(value).collect::<Vec<u8>>()))
            .map_or_else(Presented::default, |json| Presented::from_json(names, &json))
    }

    /// The `Set-Cookie` that hands out a token.
    pub(crate) fn set(&self, names: &HeaderNames, credentials: &Credentials) -> Option<HeaderValue> {
        let json = credentials.to_json(names);
        let value = utf8_percent_encode(&json, NON_ALPHANUMERIC);
        self.header(&format!("{}={value}; Max-Age={}", self.name, self.max_age.as_secs()))
    }

    /// The `Set-Cookie` that takes it away.
    pub(crate) fn clear(&self) -> Option<HeaderValue> {
        self.header(&format!("{}=; Max-Age=0", self.name))
    }

    fn header(&self, start: &str) -> Option<HeaderValue> {
        let same_site = match self.same_site {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        };
        let mut text = Zeroizing::new(format!("{start}; Path={}; SameSite={same_site}", self.path));
        if let Some(domain) = &self.domain {
            text.push_str("; Domain=");
            text.push_str(domain);
        }
        if self.secure {
            text.push_str("; Secure");
        }
        if self.http_only {
            text.push_str("; HttpOnly");
        }
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}
