//! How to reach Redis, and what to ask of it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use baton_core::error::StoreError;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};

use super::error::unusable;

/// Settings of a [`RedisStore`](super::RedisStore). Made by [`from_url`](Self::from_url); the rest may be changed then.
#[derive(Clone)]
#[non_exhaustive]
pub struct RedisOptions {
    /// Where it is.
    pub(super) place: Place,
    /// What the names of all keys begin with, before a colon. Default `baton`. 1 to 64 letters, digits, `-`, `_` and `.`.
    pub prefix: String,
    /// How many replicas have to have a write that must not be undone (a new session, one that ends, a token handed out again)
    /// before it counts (`WAIT`). Default 0: the primary alone; a failover may then bring an ended session back until it is
    /// looked for in the registry.
    pub wait_replicas: u32,
    /// How long to wait for them before the outcome counts as unknown. 1 ms to 1 minute, default 1 s.
    pub wait_timeout: Duration,
    /// How often a session in use is looked for in the registry: how long one that ended there can live here after a crash or
    /// a failover took its end back. Default 1 minute.
    pub recheck: Duration,
    /// Connections for what waits for replicas. 1 to 64, default 4.
    pub writers: usize,
    /// How long an operation may take before it is answered [`StoreError::Unavailable`], or
    /// [`StoreError::Uncertain`] if it writes. Default 1 s.
    pub timeout: Duration,
    /// How long making a connection may take. Default 1 s.
    pub connect_timeout: Duration,
    /// The longest pause between two attempts to connect. They begin at 50 ms and double. Default 2 s.
    pub longest_pause: Duration,
}

#[derive(Clone)]
pub(super) enum Place {
    Node(Box<ConnectionInfo>),
    Sentinel { sentinels: Vec<ConnectionInfo>, service: String, primary: Box<ConnectionInfo> },
    Cluster(Vec<ConnectionInfo>),
}

/// The schemes of URLs, and what is there.
const SCHEMES: [(&str, Kind, &str); 12] = [
    ("redis", Kind::Node, "redis"),
    ("rediss", Kind::Node, "rediss"),
    ("valkey", Kind::Node, "redis"),
    ("valkeys", Kind::Node, "rediss"),
    ("redis+sentinel", Kind::Sentinel, "redis"),
    ("rediss+sentinel", Kind::Sentinel, "rediss"),
    ("valkey+sentinel", Kind::Sentinel, "redis"),
    ("valkeys+sentinel", Kind::Sentinel, "rediss"),
    ("redis+cluster", Kind::Cluster, "redis"),
    ("rediss+cluster", Kind::Cluster, "rediss"),
    ("valkey+cluster", Kind::Cluster, "redis"),
    ("valkeys+cluster", Kind::Cluster, "rediss"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Node,
    Sentinel,
    Cluster,
}

impl RedisOptions {
    /// From a URL, in which `s` after `redis` asks for TLS and `valkey` is as good a word:
    ///
    /// | URL | |
    /// | --- | --- |
    /// | `redis://USER:PASSWORD@HOST:PORT/DATABASE` | one server, or whatever speaks for several |
    /// | `redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/SERVICE/DATABASE` | the primary that these sentinels name; user and password are for it |
    /// | `redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT` | a cluster, of which these are some nodes |
    ///
    /// Parameter: `prefix`.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if it cannot be read. The message does not repeat the URL.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut prefix = "baton".to_owned();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("prefix", value)) => value.clone_into(&mut prefix),
                _ => return Err(unusable("the URL may have the parameter prefix, and no other")),
            }
        }
        check_prefix(&prefix)?;
        Ok(Self {
            place: Place::from_url(base)?,
            prefix,
            wait_replicas: 0,
            wait_timeout: Duration::from_secs(1),
            recheck: Duration::from_secs(60),
            writers: 4,
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            longest_pause: Duration::from_secs(2),
        })
    }

    /// Whether a URL is one of these, as opposed to one of another kind of store.
    #[must_use]
    pub fn knows(url: &str) -> bool {
        url.split_once("://").is_some_and(|(scheme, _)| SCHEMES.iter().any(|(known, ..)| *known == scheme))
    }
}

impl Place {
    fn from_url(base: &str) -> Result<Self, StoreError> {
        let (scheme, rest) = base.split_once("://").unwrap_or(("", base));
        let Some((_, kind, plain)) = SCHEMES.iter().find(|(known, ..)| *known == scheme) else {
            return Err(unusable(
                "the URL has to begin with redis://, rediss://, redis+sentinel:// or redis+cluster://",
            ));
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let each = |user: &str, path: &str| -> Result<Vec<ConnectionInfo>, StoreError> {
            hosts.split(',').map(|host| info(&format!("{plain}://{user}{host}/{path}"))).collect()
        };
        match kind {
            Kind::Node if hosts.contains(',') => {
                Err(unusable("the URL names several servers; is it a redis+cluster:// or redis+sentinel:// one?"))
            }
            Kind::Node => Ok(Self::Node(Box::new(info(&format!("{plain}://{user}{hosts}/{path}"))?))),
            Kind::Cluster if path.is_empty() => Ok(Self::Cluster(each(&user, "")?)),
            Kind::Cluster => Err(unusable("the URL names a database, and a cluster has none")),
            Kind::Sentinel => {
                let (service, database) = path.split_once('/').unwrap_or((path, ""));
                if service.is_empty() {
                    return Err(unusable("the URL does not name the service to ask the sentinels for (…/SERVICE)"));
                }
                // The address is the sentinels' to tell.
                let primary = Box::new(info(&format!("{plain}://{user}sentinel/{database}"))?);
                Ok(Self::Sentinel { sentinels: each("", "")?, service: service.to_owned(), primary })
            }
        }
    }
}

fn info(url: &str) -> Result<ConnectionInfo, StoreError> {
    // What the library says may repeat the URL.
    url.into_connection_info().map_err(|_| unusable("the URL cannot be read"))
}

fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=64).contains(&prefix.len()) && prefix.chars().all(letters) {
        return Ok(());
    }
    Err(unusable("the URL's prefix has to be 1 to 64 letters, digits, '-', '_' and '.'"))
}

impl Place {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Node(_) => "redis",
            Self::Sentinel { .. } => "redis, by sentinels",
            Self::Cluster(_) => "redis cluster",
        }
    }

    /// Whether what goes over the wire can be read by others on the way.
    pub(super) fn is_exposed(&self) -> bool {
        let servers = match self {
            Self::Node(info) => std::slice::from_ref(&**info),
            Self::Sentinel { primary, .. } => std::slice::from_ref(&**primary),
            Self::Cluster(nodes) => nodes,
        };
        let exposed = |info: &ConnectionInfo| match info.addr() {
            ConnectionAddr::Tcp(host, _) => {
                !(host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()))
            }
            _ => false,
        };
        servers.iter().any(exposed)
    }
}

impl fmt::Display for Place {
    /// Addresses, and nothing that lets anybody in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (servers, service) = match self {
            Self::Node(info) => (std::slice::from_ref(&**info), None),
            Self::Sentinel { sentinels, service, .. } => (&**sentinels, Some(service)),
            Self::Cluster(nodes) => (&**nodes, None),
        };
        let addresses: Vec<String> = servers.iter().map(|info| info.addr().to_string()).collect();
        f.write_str(&addresses.join(", "))?;
        service.map_or(Ok(()), |service| write!(f, ", service {service}"))
    }
}

impl fmt::Debug for RedisOptions {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("place", &format_args!("{} at {}", self.place.kind(), self.place))
            .field("prefix", &self.prefix)
            .field("wait_replicas", &self.wait_replicas)
            .field("recheck", &self.recheck)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_what_is_there() {
        for url in [
            "redis://127.0.0.1:6379",
            "redis://127.0.0.1:6379/3",
            "rediss://ada:se%20cret@redis.test:6380/0?prefix=auth-1",
            "valkey://[::1]:6379",
        ] {
            let options = RedisOptions::from_url(url).expect(url);
            assert!(matches!(options.place, Place::Node(_)), "{url}");
            assert!(RedisOptions::knows(url));
        }
        let options = RedisOptions::from_url("redis+cluster://ada:secret@a:1,b:2?prefix=x").expect("a cluster");
        assert!(matches!(&options.place, Place::Cluster(nodes) if nodes.len() == 2));
        assert_eq!(options.prefix, "x");
        let options = RedisOptions::from_url("rediss+sentinel://:secret@a:1,b:2,c:3/main/2").expect("sentinels");
        let Place::Sentinel { sentinels, service, primary } = &options.place else { panic!("{options:?}") };
        assert_eq!((sentinels.len(), service.as_str()), (3, "main"));
        assert_eq!((primary.redis_settings().db(), primary.redis_settings().password()), (2, Some("secret")));
        assert_eq!(sentinels[0].redis_settings().password(), None);
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for url in [
            "redis://ada:hush@a:1,b:2",
            "redis+cluster://ada:hush@a:1/2",
            "redis+sentinel://ada:hush@a:1",
            "redis://ada:hush@a:port",
            "redis://ada:hush@a:1/x",
            "redis://ada:hush@a:1?prefix=",
            "redis://ada:hush@a:1?prefix=a:b",
            "redis://ada:hush@a:1?protocol=resp3",
            "memcached://ada:hush@a",
        ] {
            let error = RedisOptions::from_url(url).expect_err(url);
            assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        }
        assert!(!RedisOptions::knows("postgres://a/b") && !RedisOptions::knows("redis"));
    }
}
