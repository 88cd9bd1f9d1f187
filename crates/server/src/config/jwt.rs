//! JWTs for backends.

use std::sync::Arc;
use std::time::Duration;

use super::keys::{self, KeySource};
use super::reader::Reader;
use super::values::{ENV_JWT_KEYS, Values};
use crate::keys::jwt::JwtKeys;

/// How backends are told who is signed in, so that they can tell it is true.
#[derive(Debug, Clone)]
pub struct JwtConfig {
    /// Where the keys are.
    pub keys: KeySource<Arc<JwtKeys>>,
    /// What the claim `iss` says; empty if that is to be the server's own address.
    pub issuer: String,
    /// From the claim `iat` to `exp`.
    pub lifetime: Duration,
    /// Whom the JWTs of `/forward-auth` are for. `None`: it sends none.
    pub forward_auth_audience: Option<String>,
}

pub(super) const KEYS_FILE: &str = "jwt.keys_file";

pub(super) fn read(reader: &mut Reader<'_>, values: &Values, env: &[(String, String)], public_url: &str) -> JwtConfig {
    let is_key = |text: &str| text.contains("-----BEGIN ");
    let parse = |text: &str| JwtKeys::parse(text).map(Arc::new);
    let issuer = Some(reader.text("jwt.issuer")).filter(|issuer| !issuer.is_empty());
    JwtConfig {
        keys: keys::source(reader, values, env, (KEYS_FILE, ENV_JWT_KEYS), is_key, parse),
        issuer: issuer.unwrap_or_else(|| public_url.to_owned()),
        lifetime: reader.duration("jwt.lifetime", Duration::from_secs(10)..=Duration::from_secs(60 * 60)),
        forward_auth_audience: audience(reader, "jwt.forward_auth_audience"),
    }
}

/// Whom JWTs are for; `None` if none are to be sent.
pub(super) fn audience(reader: &mut Reader<'_>, key: &str) -> Option<String> {
    Some(reader.text(key)).filter(|audience| !audience.is_empty())
}
