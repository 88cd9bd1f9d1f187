//! Where a request comes from, if a proxy passed it on: `Forwarded` (RFC 7239) and `X-Forwarded-For`.
//!
//! Each proxy adds the address that it was called from at the right end, so the end is read first, and only as long as the one
//! who wrote it is trusted. What is left of that is what a client claims about itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies whose word on addresses is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Those in these networks.
    #[must_use]
    pub const fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether everybody is.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        self.0.iter().any(|network| network.prefix_len() == 0)
    }
}

/// What is known of the proxies in front, and was said of them.
#[derive(Debug, Clone)]
pub(crate) struct Proxies {
    trusted: TrustedProxies,
    /// Whether the log has been told of a proxy that is missing among them.
    told: Arc<AtomicBool>,
}

impl Proxies {
    pub(crate) fn new(trusted: TrustedProxies) -> Self {
        Self { trusted, told: Arc::default() }
    }

    /// Who sent a request that came from `peer`.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        self.suspect(peer, headers);
        client(peer, headers, &self.trusted)
    }

    /// Behind a proxy that was forgotten all clients are one client to the rate limits. Only neighbours are suspected: anybody
    /// can send such a header.
    fn suspect(&self, peer: IpAddr, headers: &HeaderMap) {
        if !(headers.contains_key(FORWARDED) || headers.contains_key(X_FORWARDED_FOR)) {
            return;
        }
        let neighbour = match peer.to_canonical() {
            IpAddr::V4(ip) => ip.is_private() || ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback(),
        };
        if neighbour && !self.trusted.contains(peer) && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %peer,
                "a proxy seems to pass requests on and is not in server.trusted_proxies: its clients count as one address"
            );
        }
    }
}

/// Who sent a request that came from `peer`.
fn client(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> IpAddr {
    let peer = peer.to_canonical();
    if !trusted.contains(peer) {
        return peer;
    }
    let told = |name: HeaderName, hops: fn(&str) -> Vec<Hop>| {
        headers.contains_key(&name).then(|| {
            let lines = headers.get_all(name).iter();
            // A line that is no text has one hop that cannot be read.
            let hops: Vec<Hop> = lines.flat_map(|line| line.to_str().map_or_else(|_| vec![None], hops)).collect();
            walk(peer, &hops, trusted)
        })
    };
    match (told(FORWARDED, forwarded), told(X_FORWARDED_FOR, x_forwarded_for)) {
        // A proxy writes one of the two and may pass on the other as the client sent it; which one cannot be known from here.
        (Some(one), Some(other)) if one != other => peer,
        (Some(client), _) | (None, Some(client)) => client,
        (None, None) => peer,
    }
}

/// An address that a proxy named; `None` if that is none (`unknown`, a made-up name, or garbage).
type Hop = Option<IpAddr>;

/// From the right: past the proxies that are trusted, to the first address that is not one. Ends early, at the last address
/// that is sure, where there is something else than an address.
fn walk(peer: IpAddr, hops: &[Hop], trusted: &TrustedProxies) -> IpAddr {
    let mut client = peer;
    for hop in hops.iter().rev() {
        let Some(address) = hop else { break };
        client = *address;
        if !trusted.contains(client) {
            break;
        }
    }
    client
}

/// `203.0.113.7, 10.0.0.2`
fn x_forwarded_for(line: &str) -> Vec<Hop> {
    line.split(',').map(str::trim).filter(|text| !text.is_empty()).map(node).collect()
}

/// `for=203.0.113.7;proto=https, for="[2001:db8::7]:4711"`. Where the line stops making sense, the rest of it is one hop that
/// cannot be read: a client must not be able to hide what a proxy added behind a quotation mark.
fn forwarded(line: &str) -> Vec<Hop> {
    let mut hops = Vec::new();
    let mut rest = line.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        match element(rest) {
            Some((hop, after)) => {
                hops.push(hop);
                rest = after.trim_start_matches([' ', '\t', ',']);
            }
            None => {
                hops.push(None);
                break;
            }
        }
    }
    hops
}

/// The first element of a list: its address, and what comes after. `None` if it is malformed.
fn element(text: &str) -> Option<(Hop, &str)> {
    let mut address: Option<Hop> = None;
    let mut rest = text;
    loop {
        rest = blanks(rest).trim_start_matches(';');
        if rest.is_empty() || rest.starts_with(',') {
            return Some((address.flatten(), rest));
        }
        if rest.starts_with([' ', '\t']) {
            continue;
        }
        let (name, after) = rest.split_once('=')?;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)) {
            return None;
        }
        let (value, after) = value(after)?;
        rest = blanks(after);
        if !(rest.is_empty() || rest.starts_with([';', ','])) {
            return None;
        }
        // Each name occurs once (RFC 7239 §4).
        if name.eq_ignore_ascii_case("for") && address.replace(node(&value)).is_some() {
            return None;
        }
    }
}

/// A value, and what comes after it. Unquoted it may hold what RFC 7239 wants quoted, a colon or brackets: many proxies do so.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ';', ',', '"']).unwrap_or(text.len());
        return (end > 0 && !text[end..].starts_with('"')).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

fn blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// An address with or without a port, an IPv6 one with or without brackets.
fn node(text: &str) -> Hop {
    let is_port = |rest: &str| {
        let Some(port) = rest.strip_prefix(':') else { return rest.is_empty() };
        let name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match port.strip_prefix('_') {
            Some(made_up) => !made_up.is_empty() && made_up.chars().all(name),
            None => (1..=5).contains(&port.len()) && port.chars().all(|c| c.is_ascii_digit()),
        }
    };
    let address = if let Some(bracketed) = text.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']')?;
        address.parse::<Ipv6Addr>().ok().filter(|_| is_port(rest))?.into()
    } else if let Ok(address) = text.parse::<IpAddr>() {
        address
    } else {
        let (address, rest) = text.split_at(text.find(':')?);
        address.parse::<Ipv4Addr>().ok().filter(|_| is_port(rest))?.into()
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn trusted() -> TrustedProxies {
        TrustedProxies::new(["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap()).into())
    }

    fn headers<'a>(lines: impl IntoIterator<Item = (&'static str, &'a [u8])>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[track_caller]
    fn seen(peer: &str, lines: &[(&'static str, &str)], expected: &str) {
        let headers = headers(lines.iter().map(|(name, value)| (*name, value.as_bytes())));
        assert_eq!(client(ip(peer), &headers, &trusted()), ip(expected), "{lines:?}");
    }

    const XFF: &str = "x-forwarded-for";
    const FWD: &str = "forwarded";

    #[test]
    fn only_a_trusted_peer_is_asked() {
        for name in [XFF, FWD] {
            let value = if name == XFF { "192.0.2.1" } else { "for=192.0.2.1" };
            seen("198.51.100.1", &[(name, value)], "198.51.100.1");
            seen("::ffff:198.51.100.1", &[(name, value)], "198.51.100.1");
            seen("10.0.0.1", &[(name, value)], "192.0.2.1");
            seen("::ffff:10.0.0.1", &[(name, value)], "192.0.2.1");
            seen("fd00::1", &[(name, value)], "192.0.2.1");
        }
        seen("10.0.0.1", &[], "10.0.0.1");
    }

    #[test]
    fn x_forwarded_for_is_read_from_the_right() {
        let x = |value, expected| seen("10.0.0.1", &[(XFF, value)], expected);
        x("192.0.2.1, 198.51.100.7", "198.51.100.7");
        x("192.0.2.1, 198.51.100.7, 10.0.0.3, 10.0.0.2", "198.51.100.7");
        x("198.51.100.7,10.0.0.3 ,, 10.0.0.2,", "198.51.100.7");
        // Nobody but proxies: the one furthest away.
        x("10.0.0.4, 10.0.0.3", "10.0.0.4");
        x("garbage, 10.0.0.3, 10.0.0.2", "10.0.0.3");
        x("198.51.100.7, garbage, 10.0.0.2", "10.0.0.2");
        x("198.51.100.7, unknown", "10.0.0.1");
        x("", "10.0.0.1");
        x("198.51.100.7:4711", "198.51.100.7");
        x("2001:db8::7", "2001:db8::7");
        x("[2001:db8::7]", "2001:db8::7");
        x("[2001:db8::7]:4711", "2001:db8::7");
        x("::ffff:198.51.100.7", "198.51.100.7");
        x("198.51.100.7, ::ffff:10.0.0.9", "198.51.100.7");
        for garbage in [
            "198.51.100.7:",
            "198.51.100.7:123456",
            "[198.51.100.7]",
            "[2001:db8::7",
            "[2001:db8::7]x",
            "1.2.3",
            "fe80::1%eth0",
            "\"198.51.100.7\"",
        ] {
            x(garbage, "10.0.0.1");
        }
        // Lines are one list (RFC 9110 §5.3).
        seen("10.0.0.1", &[(XFF, "192.0.2.1"), (XFF, "198.51.100.7, 10.0.0.3"), (XFF, "10.0.0.2")], "198.51.100.7");
    }

    #[test]
    fn forwarded_is_read_from_the_right() {
        let f = |value, expected| seen("10.0.0.1", &[(FWD, value)], expected);
        f("for=192.0.2.1, for=198.51.100.7", "198.51.100.7");
        f("For=\"[2001:db8::7]:4711\"", "2001:db8::7");
        f("for=\"[2001:db8::7]\";proto=https;by=10.0.0.1", "2001:db8::7");
        f("proto=https ; FOR = x", "10.0.0.1");
        f("proto=https; FOR=198.51.100.7 , for=10.0.0.3", "198.51.100.7");
        f("for=198.51.100.7:80;host=\"a,b;c=\\\"d\", for=10.0.0.3", "198.51.100.7");
        f("for=\"198.51.100.7:_port\"", "198.51.100.7");
        f("for=\"\\1\\98.51.100.7\"", "198.51.100.7");
        f("for=[2001:db8::7]", "2001:db8::7");
        f(";;for=198.51.100.7;;", "198.51.100.7");
        for garbage in [
            "for=unknown",
            "for=_hidden",
            "for=",
            "for",
            "proto=https",
            "for=198.51.100.7;for=192.0.2.1",
            "for=\"198.51.100.7",
            "for=\"198.51.100.7\"x",
            "for=198.51.100.7\"",
            "for=198.51.100.7 x",
            "f r=198.51.100.7",
            "198.51.100.7",
        ] {
            f(garbage, "10.0.0.1");
            let before = format!("for=198.51.100.7, {garbage}, for=10.0.0.2");
            let seen = client(ip("10.0.0.1"), &headers([(FWD, before.as_bytes())]), &trusted());
            assert!(trusted().contains(seen), "{before}: {seen}");
        }
        seen("10.0.0.1", &[(FWD, "for=\"192.0.2.1"), (FWD, "for=198.51.100.7"), (FWD, "for=10.0.0.2")], "198.51.100.7");
    }

    #[test]
    fn a_header_that_the_proxy_did_not_write_gains_nothing() {
        // The proxy writes one of them, the client has sent the other.
        seen("10.0.0.1", &[(FWD, "for=192.0.2.1"), (XFF, "198.51.100.7")], "10.0.0.1");
        seen("10.0.0.1", &[(FWD, "for=198.51.100.7"), (XFF, "198.51.100.7")], "198.51.100.7");
        seen("10.0.0.1", &[(FWD, "garbage"), (XFF, "198.51.100.7")], "10.0.0.1");
    }

    #[test]
    fn bytes_that_are_no_text_are_no_address() {
        let headers = headers([(XFF, &b"198.51.100.7"[..]), (XFF, &b"192.0.2.1, \xff"[..])]);
        assert_eq!(client(ip("10.0.0.1"), &headers, &trusted()), ip("10.0.0.1"));
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
            any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
            any::<u8>().prop_map(|last| Ipv4Addr::new(10, 0, 0, last).into()),
        ]
    }

    /// What a client may send: any text, texts of likely pieces, and an address with something after it that is to swallow
    /// what the proxy appends.
    fn claim() -> impl Strategy<Value = String> {
        const PIECES: [&str; 14] =
            ["for=", "for=6.6.6.6", "\"", "\\", ",", ";", " ", "=", "x=\"", "10.0.0.9", "6.6.6.6", "[::6]", "by=", "_"];
        const OPENERS: [&str; 9] = ["x=\"", "x=\"\\", "\"", "for=\"", "x", "x=", "[", "(", ""];
        let pieces = proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..12);
        let swallow = (
            proptest::sample::select(&["for=6.6.6.6", "for=\"[::6]\"", "6.6.6.6"][..]),
            proptest::sample::select(&[",", ";", " ", ", ", ""][..]),
            proptest::sample::select(&OPENERS[..]),
        );
        prop_oneof![
            "[ -~]{0,40}",
            pieces.prop_map(|pieces| pieces.concat()),
            swallow.prop_map(|(address, separator, opener)| format!("{address}{separator}{opener}")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn nothing_panics_and_a_stranger_is_whom_the_socket_says(
            peer in address(),
            lines in proptest::collection::vec((any::<bool>(), proptest::collection::vec(prop_oneof![32_u8..=126, 128_u8..=255], 0..60)), 0..4),
        ) {
            let lines = lines.iter().map(|(forwarded, value)| (if *forwarded { FWD } else { XFF }, &**value));
            let seen = client(peer, &headers(lines), &trusted());
            if !trusted().contains(peer) {
                prop_assert_eq!(seen, peer.to_canonical());
            }
        }

        /// Whatever a client sends, in the line that the proxy appends to or in others: it is seen as the address that the
        /// first proxy was called from, or as one of the proxies; never as one that it has chosen.
        #[test]
        fn nobody_can_choose_an_address(
            claims in proptest::collection::vec((any::<bool>(), claim()), 0..3),
            prefix in claim(),
            form in 0..6,
        ) {
            let caller = if form % 2 == 0 { "198.51.100.7" } else { "2001:db8::7" };
            let (name, appended) = match form {
                0 => (XFF, caller.to_owned()),
                1 => (XFF, format!("[{caller}]:80")),
                2 => (FWD, format!("for={caller};proto=https")),
                3 => (FWD, format!("by=\"_a\";for=\"[{caller}]:80\"")),
                4 => (FWD, format!("for=\"{caller}\";by=\"\"")),
                _ => (FWD, format!("for=\"[{caller}]\", for=10.0.0.2")),
            };
            let mut lines: Vec<(&'static str, String)> =
                claims.into_iter().map(|(forwarded, claim)| (if forwarded { FWD } else { XFF }, claim)).collect();
            lines.push((name, format!("{prefix}, {appended}")));
            let headers = headers(lines.iter().map(|(name, value)| (*name, value.as_bytes())));
            let seen = client(ip("10.0.0.1"), &headers, &trusted());
            prop_assert!(seen == ip(caller) || ["10.0.0.1", "10.0.0.2"].map(ip).contains(&seen), "{seen} from {lines:?}");
        }

        #[test]
        fn a_clean_chain_is_followed_to_its_first_stranger(chain in proptest::collection::vec(address(), 0..6), ports in any::<bool>()) {
            let peer = ip("10.0.0.1");
            let known = chain.iter().rev().take_while(|hop| trusted().contains(**hop)).count();
            let expected = chain.iter().rev().nth(known).or(chain.first()).map_or(peer, IpAddr::to_canonical);
            let port = if ports { ":1" } else { "" };
            let bare = |hop: &IpAddr| if hop.is_ipv6() { format!("[{hop}]{port}") } else { format!("{hop}{port}") };
            let x: Vec<String> = chain.iter().map(bare).collect();
            let f: Vec<String> = chain.iter().map(|hop| format!("for=\"{}\"", bare(hop))).collect();
            for lines in [vec![(XFF, x.join(", "))], vec![(FWD, f.join(","))], vec![(XFF, x.join(",")), (FWD, f.join(", "))], f.iter().map(|hop| (FWD, hop.clone())).collect()] {
                let headers = headers(lines.iter().map(|(name, value)| (*name, value.as_bytes())));
                prop_assert_eq!(client(peer, &headers, &trusted()), expected);
            }
        }
    }
}
