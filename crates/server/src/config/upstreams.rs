//! Backends: `[[upstream]]`.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};

use super::RealmConfig;
use super::jwt::audience;
use super::reader::Reader;
use super::values::UPSTREAM;

/// What a table `[[upstream]]` does not set; `default.toml` describes it.
const DEFAULTS: &str = r#"
path = "/"
host = ""
targets = []
require = "any"
strip_path = false
pass_token = false
jwt_audience = ""
jwt_header = "x-auth-jwt"
preserve_host = true
max_body_bytes = 0
connect_timeout = "5s"
response_timeout = "1m"
idle_timeout = "10m"
health_path = ""
health_interval = "10s"
ca_file = ""
"#;

/// A backend, and which requests go to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Which paths: this one and those below it. Without the slash at its end, so empty for all.
    pub path: String,
    /// Which host; all of them if `None`. In lower case, without a port.
    pub host: Option<String>,
    /// Where to: URLs without a path. At least one.
    pub targets: Vec<Uri>,
    /// Who is let through.
    pub require: Require,
    /// Whether the target is told the path without [`path`](Self::path).
    pub strip_path: bool,
    /// Whether the target gets the credentials as well.
    pub pass_token: bool,
    /// Whom the JWT is for that the target gets. `None`: it gets none.
    pub jwt_audience: Option<String>,
    /// Where it is.
    pub jwt_header: JwtHeader,
    /// Whether the target gets the `Host` that the client named, and not its own.
    pub preserve_host: bool,
    /// Most bytes of a request's body.
    pub max_body_bytes: Option<u64>,
    /// How long it may take to reach a target.
    pub connect_timeout: Duration,
    /// How long a target may take to begin its answer, once it has the request.
    pub response_timeout: Duration,
    /// How long a target may pause within an answer, and a tunnel may be silent.
    pub idle_timeout: Option<Duration>,
    /// Where to ask whether a target is well.
    pub health_path: Option<String>,
    /// How often.
    pub health_interval: Duration,
    /// Certificates to trust beside those of the system, for targets with TLS.
    pub ca_file: Option<PathBuf>,
}

/// Whom a backend is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Require {
    /// Accounts of this realm.
    Realm(String),
    /// Accounts of every realm.
    Any,
    /// Everybody; who is signed in is told.
    Optional,
    /// Everybody; nobody is looked at.
    None,
}

/// Where a backend finds its JWT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtHeader {
    /// `X-Auth-Jwt`.
    Own,
    /// `Authorization: Bearer` (RFC 6750 §2.1), in the place of whatever the client sent there.
    Authorization,
}

pub(super) fn read(reader: &mut Reader<'_>, realms: &[RealmConfig]) -> Vec<UpstreamConfig> {
    let upstreams = reader.tables(UPSTREAM, DEFAULTS, |reader| one(reader, realms));
    for (index, upstream) in upstreams.iter().enumerate() {
        let same =
            |other: &UpstreamConfig| other.path.eq_ignore_ascii_case(&upstream.path) && other.host == upstream.host;
        if let Some(other) = upstreams[..index].iter().position(same) {
            let (name, other) = (format!("{UPSTREAM}[{}]", index + 1), format!("{UPSTREAM}[{}]", other + 1));
            reader
                .refuse_other(&name, format!("is for the same host and path as {other}; list several targets in one"));
        }
    }
    upstreams
}

fn one(reader: &mut Reader<'_>, realms: &[RealmConfig]) -> UpstreamConfig {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const SHORTEST: Duration = Duration::from_millis(10);
    let idle = reader.duration("idle_timeout", Duration::ZERO..=DAY);
    let most = reader.number("max_body_bytes", 0..=i64::MAX);
    let (require, jwt_audience) = (require(reader, realms), audience(reader, "jwt_audience"));
    if require == Require::None && jwt_audience.is_some() {
        reader.refuse(
            "jwt_audience",
            "is for what says who is signed in, and with require = \"none\" nobody is looked at",
        );
    }
    UpstreamConfig {
        path: path(reader, realms),
        host: host(reader),
        targets: targets(reader),
        require,
        strip_path: reader.flag("strip_path"),
        pass_token: reader.flag("pass_token"),
        jwt_audience,
        jwt_header: reader
            .choice("jwt_header", [("x-auth-jwt", JwtHeader::Own), ("authorization", JwtHeader::Authorization)]),
        preserve_host: reader.flag("preserve_host"),
        max_body_bytes: (most > 0).then_some(most.unsigned_abs()),
        connect_timeout: reader.duration("connect_timeout", SHORTEST..=Duration::from_secs(10 * 60)),
        response_timeout: reader.duration("response_timeout", SHORTEST..=DAY),
        idle_timeout: (!idle.is_zero()).then_some(idle),
        health_path: health_path(reader),
        health_interval: reader.duration("health_interval", SHORTEST..=DAY),
        ca_file: Some(reader.text("ca_file")).filter(|path| !path.is_empty()).map(PathBuf::from),
    }
}

fn path(reader: &mut Reader<'_>, realms: &[RealmConfig]) -> String {
    const KEY: &str = "path";
    let path = reader.text(KEY);
    // What is matched is the canonical form of a request's path (`proxy::route`).
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,=:@".contains(c);
    let dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
    if !path.starts_with('/') || path.contains("//") || dots || !path.chars().all(plain) {
        reader.refuse(KEY, "has to be a path such as \"/api\", without empty segments, dots and escapes");
    }
    let path = path.trim_end_matches('/').to_owned();
    let below = |mount: &str| path.strip_prefix(mount).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some(realm) = realms.iter().find(|realm| below(&realm.mount)) {
        reader.refuse(KEY, format!("is below {}, where the auth routes are", realm.mount));
    }
    path
}

fn host(reader: &mut Reader<'_>) -> Option<String> {
    let host = Some(reader.text("host")).filter(|host| !host.is_empty())?;
    let is_bare = host.parse::<Authority>().is_ok_and(|authority| authority.host() == host);
    if !is_bare || host.contains('*') {
        reader.refuse("host", "has to be the name of a host, without a port, such as \"api.example.com\"");
    }
    Some(host.to_ascii_lowercase())
}

fn targets(reader: &mut Reader<'_>) -> Vec<Uri> {
    const KEY: &str = "targets";
    let texts = reader.list(KEY);
    if texts.is_empty() {
        reader.refuse(KEY, "has to name at least one address, such as [\"http://127.0.0.1:8000\"]");
    }
    let mut targets = Vec::new();
    for text in texts {
        match target(&text) {
            Some(target) => targets.push(target),
            None => {
                let shape =
                    "an http or https address without a user, a path or a query, such as \"http://127.0.0.1:8000\"";
                reader.refuse(KEY, format!("{text:?} is not {shape}"));
            }
        }
    }
    targets
}

fn target(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let bare = !uri.authority()?.as_str().contains('@') && uri.path_and_query().is_none_or(|rest| rest == "/");
    (bare && (uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS))).then_some(uri)
}

fn require(reader: &mut Reader<'_>, realms: &[RealmConfig]) -> Require {
    const KEY: &str = "require";
    match &*reader.text(KEY) {
        "any" => Require::Any,
        "optional" => Require::Optional,
        "none" => Require::None,
        name => {
            if !realms.iter().any(|realm| realm.name() == name) {
                let names: Vec<String> = realms.iter().map(|realm| format!("{:?}", realm.name())).collect();
                let names = names.join(", ");
                reader
                    .refuse(KEY, format!("has to be \"any\", \"optional\", \"none\" or the name of a realm: {names}"));
            }
            Require::Realm(name.to_owned())
        }
    }
}

fn health_path(reader: &mut Reader<'_>) -> Option<String> {
    let path = Some(reader.text("health_path")).filter(|path| !path.is_empty())?;
    if !path.starts_with('/') || path.parse::<Uri>().is_err() {
        reader.refuse("health_path", "has to be a path such as \"/health\"");
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DEFAULT_FILE;

    #[test]
    fn the_default_file_describes_every_setting_with_its_default() {
        let (_, described) = DEFAULT_FILE.split_once("\n# [[upstream]]\n").unwrap();
        let lines = described.lines().take_while(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
        let is_setting = |line: &&str| line.split_once(" = ").is_some_and(|(name, _)| !name.trim().contains(' '));
        let described: Vec<&str> = lines.filter(is_setting).collect();
        let described: toml::Table = described.join("\n").parse().unwrap();
        assert_eq!(described, DEFAULTS.parse::<toml::Table>().unwrap());
    }

    #[test]
    fn targets_are_addresses_and_nothing_else() {
        for good in ["http://127.0.0.1:8000", "https://backend.internal", "http://[::1]:80/"] {
            assert!(target(good).is_some(), "{good:?}");
        }
        for bad in ["", "127.0.0.1:8000", "ftp://a", "http://", "http://a/b", "http://a?b", "http://u@a", "http://a b"]
        {
            assert!(target(bad).is_none(), "{bad:?}");
        }
    }
}
