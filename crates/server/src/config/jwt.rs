//! JWTs for backends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::reader::Reader;
use super::values::{ENV_JWT_KEYS, Origin, Values};
use crate::keys::jwt::JwtKeys;

/// How backends are told who is signed in, so that they can tell it is true.
#[derive(Debug, Clone)]
pub struct JwtConfig {
    /// Where the keys are.
    pub keys: JwtKeySource,
    /// What the claim `iss` says; empty if that is to be the server's own address.
    pub issuer: String,
    /// From the claim `iat` to `exp`.
    pub lifetime: Duration,
    /// Whom the JWTs of `/forward-auth` are for. `None`: it sends none.
    pub forward_auth_audience: Option<String>,
}

/// Where the keys of JWTs are.
#[derive(Debug, Clone)]
pub enum JwtKeySource {
    /// In a file.
    File(PathBuf),
    /// They were given in the environment.
    Given(Arc<JwtKeys>),
}

pub(super) const KEYS_FILE: &str = "jwt.keys_file";

pub(super) fn read(reader: &mut Reader<'_>, values: &Values, env: &[(String, String)], public_url: &str) -> JwtConfig {
    let issuer = Some(reader.text("jwt.issuer")).filter(|issuer| !issuer.is_empty());
    JwtConfig {
        keys: keys(reader, values, env),
        issuer: issuer.unwrap_or_else(|| public_url.to_owned()),
        lifetime: reader.duration("jwt.lifetime", Duration::from_secs(10)..=Duration::from_secs(60 * 60)),
        forward_auth_audience: audience(reader, "jwt.forward_auth_audience"),
    }
}

/// Whom JWTs are for; `None` if none are to be sent.
pub(super) fn audience(reader: &mut Reader<'_>, key: &str) -> Option<String> {
    Some(reader.text(key)).filter(|audience| !audience.is_empty())
}

fn keys(reader: &mut Reader<'_>, values: &Values, env: &[(String, String)]) -> JwtKeySource {
    let file = reader.text(KEYS_FILE);
    if file.contains("-----BEGIN ") {
        reader.refuse_unseen(KEYS_FILE, "is a key; it has to be the path of a file that holds it");
    } else if file.is_empty() {
        reader.refuse(KEYS_FILE, "must not be empty");
    }
    let Some((_, text)) = env.iter().find(|(name, _)| name == ENV_JWT_KEYS) else {
        return JwtKeySource::File(file.into());
    };
    let chosen =
        values.get(None, KEYS_FILE).is_some_and(|entry| !matches!(entry.origin, Origin::Default | Origin::Preset));
    if chosen {
        reader.refuse(KEYS_FILE, format!("{ENV_JWT_KEYS} is set as well; which of the two holds the keys?"));
    }
    match JwtKeys::parse(text) {
        Ok(keys) => JwtKeySource::Given(Arc::new(keys)),
        Err(error) => {
            reader.refuse_other(ENV_JWT_KEYS, error);
            JwtKeySource::File(file.into())
        }
    }
}
