//! Sockets, limits, and pages of which origins may call.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use baton_axum::Origins;
use ipnet::IpNet;

use super::TrustedProxies;
use super::reader::Reader;

/// Sockets and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Most bytes of a request's head.
    pub max_header_bytes: usize,
    /// Most bytes of a request's body.
    pub max_body_bytes: usize,
    /// How long a request's head may take, and how long a connection may be idle.
    pub header_read_timeout: Duration,
    /// How long a client may pause within a body.
    pub body_read_timeout: Duration,
    /// How long requests in flight are waited for at the end.
    pub shutdown_grace: Duration,
    /// How many connections are served at once.
    pub max_connections: usize,
    /// Which peers may say, in `Forwarded` or `X-Forwarded-For`, on whose behalf they call.
    pub trusted_proxies: TrustedProxies,
}

pub(super) fn read(reader: &mut Reader<'_>) -> ServerConfig {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let timeouts = Duration::from_millis(100)..=Duration::from_secs(10 * 60);
    ServerConfig {
        listen: listen(reader),
        max_header_bytes: reader.number("server.max_header_bytes", 8 * 1024..=1024 * 1024),
        max_body_bytes: reader.number("server.max_body_bytes", 1024..=1024 * 1024 * 1024),
        header_read_timeout: reader.duration("server.header_read_timeout", timeouts.clone()),
        body_read_timeout: reader.duration("server.body_read_timeout", timeouts),
        shutdown_grace: reader.duration("server.shutdown_grace", Duration::ZERO..=HOUR),
        max_connections: reader.number("server.max_connections", 1..=1_000_000),
        trusted_proxies: trusted_proxies(reader),
    }
}

fn listen(reader: &mut Reader<'_>) -> SocketAddr {
    const KEY: &str = "server.listen";
    let text = reader.text(KEY);
    // The one name that needs nobody to look it up.
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(&text).parse().unwrap_or_else(|_| {
        reader.refuse(KEY, "has to be an address and a port, such as 127.0.0.1:3000 or [::]:3000");
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    })
}

fn trusted_proxies(reader: &mut Reader<'_>) -> TrustedProxies {
    const KEY: &str = "server.trusted_proxies";
    let mut networks = Vec::new();
    for text in reader.list(KEY) {
        match network(&text) {
            Ok(network) => networks.push(network),
            Err(why) => reader.refuse(KEY, format!("{text:?} {why}")),
        }
    }
    TrustedProxies::new(networks)
}

fn network(text: &str) -> Result<IpNet, &'static str> {
    let network = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse());
    match network {
        // Clients of a socket that listens on both are compared as what they are.
        Ok(IpNet::V6(network)) if network.addr().to_ipv4_mapped().is_some() => {
            Err("is an IPv4 address in the form of an IPv6 one; write it as \"10.0.0.1\"")
        }
        Ok(network) => Ok(network.trunc()),
        Err(_) => Err("is neither an address nor a network such as \"10.0.0.0/8\" or \"fd00::/8\""),
    }
}

pub(super) fn origins(reader: &mut Reader<'_>) -> Origins {
    const KEY: &str = "server.allowed_origins";
    let exact = reader.list(KEY);
    for origin in &exact {
        if let Some(why) = not_an_origin(origin) {
            reader.refuse(KEY, format!("{origin:?} {why}"));
        }
    }
    Origins { exact, localhost: reader.flag("server.allowed_localhost_origins") }
}

/// Why a browser would never send this as `Origin` (RFC 6454 §6.2).
fn not_an_origin(origin: &str) -> Option<&'static str> {
    const SHAPE: &str = "is not an origin: a scheme, a host and at most a port, such as \"https://app.example.com\"";
    if origin.contains('*') {
        return Some("holds a wildcard; name each origin whose pages may call");
    }
    if origin == "null" {
        return Some("is what sandboxed and local pages of anybody send");
    }
    if origin.ends_with('/') {
        return Some("ends with a slash; an origin has no path");
    }
    if origin.chars().any(|c| c.is_ascii_uppercase()) {
        return Some("has capitals; browsers send origins in lower case");
    }
    let Ok(uri) = origin.parse::<http::Uri>() else { return Some(SHAPE) };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Some(SHAPE) };
    if !matches!(scheme, "http" | "https") {
        return Some("is neither http nor https");
    }
    if uri.path_and_query().is_some_and(|rest| rest != "/") || authority.as_str().contains('@') {
        return Some(SHAPE);
    }
    let default_port = if scheme == "https" { 443 } else { 80 };
    if authority.port_u16() == Some(default_port) {
        return Some("names the port that browsers leave out");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_those_that_browsers_send() {
        for good in ["https://app.example.com", "http://localhost:5173", "http://[::1]:3000", "https://10.0.0.1:8443"] {
            assert_eq!(not_an_origin(good), None, "{good:?}");
        }
        for bad in [
            "*",
            "https://*.example.com",
            "null",
            "",
            "example.com",
            "https://example.com/",
            "https://example.com/app",
            "https://Example.com",
            "https://user@example.com",
            "https://example.com:443",
            "http://example.com:80",
            "ftp://example.com",
            "https://",
            "https://exam ple.com",
        ] {
            assert!(not_an_origin(bad).is_some(), "{bad:?}");
        }
    }
}
