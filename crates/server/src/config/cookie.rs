//! The cookie.

use std::time::Duration;

use baton_axum::{CookieSettings, SameSite};

use super::reader::Reader;

const NAME: &str = "cookie_name";
const SECURE: &str = "cookie_attributes.secure";
const PATH: &str = "cookie_attributes.path";
const SAME_SITE: &str = "cookie_attributes.same_site";
const DOMAIN: &str = "cookie_attributes.domain";

/// The cookie, if it is enabled. It is kept for `lifespan` by the browser.
pub(super) fn read(reader: &mut Reader<'_>, lifespan: Duration) -> Option<CookieSettings> {
    let enabled = reader.flag("cookie_enabled");
    let domain = reader.text(DOMAIN);
    let cookie = CookieSettings {
        name: reader.text(NAME),
        same_site: reader
            .choice(SAME_SITE, [("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)]),
        secure: reader.flag(SECURE),
        http_only: reader.flag("cookie_attributes.http_only"),
        path: reader.text(PATH),
        domain: (!domain.is_empty()).then_some(domain),
        only: reader.flag("cookie_only"),
        max_age: lifespan,
    };
    check(reader, &cookie);
    enabled.then_some(cookie)
}

/// What a browser would drop, and what would end the header early (RFC 6265 §4.1.1).
fn check(reader: &mut Reader<'_>, cookie: &CookieSettings) {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if cookie.name.is_empty() || !cookie.name.chars().all(token) {
        reader.refuse(NAME, "is not the name of a cookie");
    }
    let attribute = |c: char| c.is_ascii_graphic() && c != ';';
    if !cookie.path.starts_with('/') || !cookie.path.chars().all(attribute) {
        reader.refuse(PATH, "has to begin with a slash and to hold no space and no semicolon");
    }
    let host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if cookie.domain.as_ref().is_some_and(|domain| !domain.chars().all(host)) {
        reader.refuse(DOMAIN, "has to be a domain such as \"example.com\", or empty");
    }
    let called = reader.name(NAME);
    // Browsers know the prefixes in any case.
    let name = cookie.name.to_ascii_lowercase();
    if name.starts_with("__host-") {
        if cookie.path.starts_with('/') && cookie.path != "/" {
            reader.refuse(PATH, format!("has to be \"/\" where {called} begins with __Host-"));
        }
        if cookie.domain.is_some() {
            reader.refuse(DOMAIN, format!("has to be empty where {called} begins with __Host-"));
        }
    }
    if !cookie.secure && (name.starts_with("__host-") || name.starts_with("__secure-")) {
        reader.refuse(SECURE, format!("has to be true where {called} begins with __Host- or __Secure-"));
    }
    if !cookie.secure && cookie.same_site == SameSite::None {
        let same_site = reader.name(SAME_SITE);
        reader.refuse(SECURE, format!("has to be true where {same_site} is \"none\""));
    }
}
