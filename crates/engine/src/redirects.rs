//! Where a browser may be sent with credentials in the URL. The target comes with the request (`redirect_url`,
//! `confirm_success_url`), so it is checked against a list (OWASP ASVS 5.0 §3.7.2, RFC 9700 §4.11).
//!
//! Such lists are got around with URLs that two parsers read differently. So a target is parsed as browsers do (WHATWG URL),
//! and has to be written up to its path as that parser itself would write it: then there is one reading.

use percent_encoding::percent_decode_str;
use url::{Host, Position, Url, form_urlencoded};

/// Where redirects may lead. The default allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedirectAllowlist {
    patterns: Vec<Pattern>,
    localhost: bool,
}

impl RedirectAllowlist {
    /// From entries such as
    ///
    /// | entry | allows |
    /// | --- | --- |
    /// | `https://app.example.com`, `http://192.0.2.1:8080` | the origin, every path |
    /// | `https://app.example.com/landing` | that path alone |
    /// | `https://app.example.com/app/*` | `/app` and what is below it |
    /// | `https://*.example.com` | one label of letters, digits and dashes in place of the star; not `example.com` itself |
    /// | `com.example.app://callback` | an app's own scheme, with that host and path alone |
    ///
    /// A query or a fragment of the target is never looked at. Schemes, ports, hosts and paths are compared exactly. A star
    /// stands in front of at least two labels, and whoever may register names there (`https://*.co.uk`) is allowed too.
    ///
    /// # Errors
    /// [`InvalidRedirectPattern`] for the first entry that is none of these.
    pub fn parse<'e>(entries: impl IntoIterator<Item = &'e str>) -> Result<Self, InvalidRedirectPattern> {
        let pattern =
            |entry| Pattern::parse(entry).map_err(|why| InvalidRedirectPattern { entry: String::from(entry), why });
        Ok(Self { patterns: entries.into_iter().map(pattern).collect::<Result<_, _>>()?, localhost: false })
    }

    /// Also allows http and https on `localhost`, `127.0.0.1` and `[::1]`, on any port. For development: in production it
    /// hands credentials to whatever listens on a visitor's machine.
    #[must_use]
    pub fn with_localhost(self) -> Self {
        Self { localhost: true, ..self }
    }

    /// Whether an entry leads to `http://`, where anybody on the way can read what is in the URL.
    #[must_use]
    pub fn allows_http(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.scheme == "http")
    }

    /// Whether it allows localhost.
    #[must_use]
    pub const fn allows_localhost(&self) -> bool {
        self.localhost
    }

    /// Whether a redirect may lead there.
    ///
    /// # Errors
    /// [`RedirectRefused`] saying why not.
    pub fn check(&self, url: &str) -> Result<Redirect, RedirectRefused> {
        let url = parse(url)?;
        let localhost = self.localhost && is_localhost(&url);
        if localhost || self.patterns.iter().any(|pattern| pattern.matches(&url)) {
            Ok(Redirect(url))
        } else {
            Err(RedirectRefused::NotAllowed)
        }
    }
}

/// An entry that no [`RedirectAllowlist`] takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} {why}")]
pub struct InvalidRedirectPattern {
    entry: String,
    why: String,
}

/// Why a redirect may not lead there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedirectRefused {
    /// Longer than 2048 bytes.
    #[error("is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// Holds white space, a control character or a backslash: browsers drop or turn around some of them.
    #[error("holds white space, a control character or a backslash")]
    Character,
    /// Not an absolute URL with a host.
    #[error("is not an absolute URL with a host")]
    NotAbsolute,
    /// Written up to its path in a form in which parsers may differ.
    #[error(
        "has an origin in an unusual form; write scheme and host in lower case and ASCII, no default port, no user name"
    )]
    UnusualOrigin,
    /// The path climbs (`..`), has an empty segment, or hides a character that separates segments.
    #[error("has a path with \"..\", an empty segment, or an encoded slash, backslash, percent or control character")]
    UnusualPath,
    /// Well-formed, and not on the list.
    #[error("is not on the list of allowed redirects")]
    NotAllowed,
}

/// A target that was found allowed, in its canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect(Url);

impl Redirect {
    /// A target that the operator has chosen, on a list or not.
    ///
    /// # Errors
    /// [`RedirectRefused`] if it is not in its canonical form.
    pub fn parse(url: &str) -> Result<Self, RedirectRefused> {
        parse(url).map(Self)
    }

    /// The URL: printable ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The URL with parameters, as devise_token_auth builds it: first the query that it has, without parameters of the same
    /// names, then these sorted by name and form-encoded. All of it is repeated at the end of a fragment, for front ends whose routes are in there.
    #[must_use]
    pub fn with_params(&self, params: &[(&str, &str)]) -> String {
        let Self(url) = self;
        let mut params = params.to_vec();
        params.sort_by_key(|(name, _)| *name);
        let added = form_urlencoded::Serializer::new(String::new()).extend_pairs(&params).finish();
        // A front end that takes the first of two would be handed a session of whoever asked for the link.
        let ours = |pair: &&str| {
            let (name, _) = form_urlencoded::parse(pair.as_bytes()).next().unwrap_or_default();
            !params.iter().any(|(ours, _)| *ours == name)
        };
        let own = url.query().unwrap_or_default().split('&').filter(ours).collect::<Vec<_>>().join("&");
        let queries = [own.as_str(), &added];
        let query = queries.into_iter().filter(|query| !query.is_empty()).collect::<Vec<_>>().join("&");
        if query.is_empty() {
            return url.as_str().to_owned();
        }
        let mut landing = format!("{}?{query}", &url[..Position::AfterPath]);
        if let Some(fragment) = url.fragment() {
            // The gem writes `?` in any case, which spoils the last parameter of a route such as `#/welcome?tab=1`.
            let joint = if fragment.contains('?') { '&' } else { '?' };
            landing += &format!("#{fragment}{joint}{query}");
        }
        landing
    }
}

/// Longest target, in bytes.
const MAX_LENGTH: usize = 2048;

/// Schemes that no app can have for itself: a browser or the system acts on them, or they reach others.
const TAKEN_SCHEMES: [&str; 34] = [
    "about",
    "android-app",
    "blob",
    "chrome",
    "chrome-extension",
    "content",
    "data",
    "facetime",
    "feed",
    "file",
    "filesystem",
    "ftp",
    "geo",
    "intent",
    "jar",
    "javascript",
    "livescript",
    "mailto",
    "market",
    "mhtml",
    "mocha",
    "moz-extension",
    "ms-appinstaller",
    "ms-settings",
    "resource",
    "sftp",
    "sms",
    "ssh",
    "tel",
    "vbscript",
    "view-source",
    "wap",
    "ws",
    "wss",
];

/// The one reading of a target.
fn parse(raw: &str) -> Result<Url, RedirectRefused> {
    if raw.len() > MAX_LENGTH {
        return Err(RedirectRefused::TooLong);
    }
    if raw.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(RedirectRefused::Character);
    }
    let url = Url::parse(raw).map_err(|_| RedirectRefused::NotAbsolute)?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(RedirectRefused::NotAbsolute);
    }
    // The parser leaves out a default port and an empty user name, and writes hosts anew.
    let path = raw.strip_prefix(&url[..Position::BeforePath]).ok_or(RedirectRefused::UnusualOrigin)?;
    let ends_there = path.is_empty() || path.starts_with(['/', '?', '#']);
    let has_user = !url.username().is_empty() || url.password().is_some();
    if !ends_there || has_user || !is_plain_host(&url) {
        return Err(RedirectRefused::UnusualOrigin);
    }
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if is_plain_path(path) { Ok(url) } else { Err(RedirectRefused::UnusualPath) }
}

/// Without an empty label, be it the last one, and without an encoded character, which the parser leaves in hosts of schemes
/// that it does not know.
fn is_plain_host(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.split('.').all(|label| !label.is_empty() && !label.contains('%')),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
        None => false,
    }
}

/// Whether nobody on the way can take the path for another one. Empty, or begins with a slash.
fn is_plain_path(path: &str) -> bool {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let decoded: Vec<u8> = percent_decode_str(segment).collect();
        let hides = |byte: &u8| matches!(byte, b'/' | b'\\' | b'%') || byte.is_ascii_control();
        let climbs = matches!(&*decoded, b"." | b"..");
        let doubled = decoded.is_empty() && segments.peek().is_some();
        if climbs || doubled || decoded.iter().any(hides) {
            return false;
        }
    }
    true
}

fn is_web(scheme: &str) -> bool {
    matches!(scheme, "http" | "https")
}

fn is_localhost(url: &Url) -> bool {
    is_web(url.scheme()) && matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

/// An entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    scheme: String,
    host: HostPattern,
    /// `None` is the scheme's default.
    port: Option<u16>,
    path: PathPattern,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Exactly(String),
    /// One label, a dot and this.
    LabelBefore(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PathPattern {
    Any,
    Exactly(String),
    /// This, or this with a slash and anything behind it. Without a slash at its end; empty for the root.
    AtOrBelow(String),
}

impl Pattern {
    fn parse(entry: &str) -> Result<Self, String> {
        const LABEL: &str = "label.";
        let (scheme, rest) = entry
            .split_once("://")
            .ok_or("has to be an origin such as https://app.example.com, with or without a path")?;
        if TAKEN_SCHEMES.contains(&scheme) {
            return Err(format!("has the scheme {scheme}, which is not an app's own"));
        }
        let (rest, below) = rest.strip_suffix("/*").map_or((rest, false), |rest| (rest, true));
        let (rest, any_label) =
            rest.strip_prefix("*.").map_or((rest.to_owned(), false), |rest| (format!("{LABEL}{rest}"), true));
        if rest.contains('*') || (!is_web(scheme) && (below || any_label)) {
            return Err("has a * elsewhere than as the first label of a host or after the last slash of a path; \
                        an app's scheme takes none"
                .into());
        }
        if rest.contains(['?', '#']) {
            return Err("has a query or a fragment; leave it out: every one is allowed".into());
        }

        // It stands for URLs that are written like this one; so it is good if this one is.
        let sample = format!("{scheme}://{rest}");
        let url = parse(&sample).map_err(|why| why.to_string())?;
        let has_path = rest.contains('/');
        let written_so = has_path || !is_web(scheme);
        if (written_so && url.as_str() != sample) || (below && rest.ends_with('/')) {
            return Err("has a path that a browser would write differently".into());
        }
        let host = url.host_str().unwrap_or_default();
        let host = match host.strip_prefix(LABEL).filter(|_| any_label) {
            Some(domain) if domain.contains('.') => HostPattern::LabelBefore(domain.to_owned()),
            Some(_) => return Err("needs at least two labels after the *, as in https://*.example.com".into()),
            None => HostPattern::Exactly(host.to_owned()),
        };
        let path = match url.path() {
            path if below => PathPattern::AtOrBelow(path.trim_end_matches('/').to_owned()),
            path if written_so => PathPattern::Exactly(path.to_owned()),
            _ => PathPattern::Any,
        };
        Ok(Self { scheme: scheme.to_owned(), host, port: url.port(), path })
    }

    fn matches(&self, url: &Url) -> bool {
        self.scheme == url.scheme()
            && self.port == url.port()
            && url.host_str().is_some_and(|host| self.host.matches(host))
            && self.path.matches(url.path())
    }
}

impl HostPattern {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exactly(exact) => host == exact,
            Self::LabelBefore(domain) => {
                let label = host.strip_suffix(&**domain).and_then(|rest| rest.strip_suffix('.'));
                label.is_some_and(|label| {
                    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                })
            }
        }
    }
}

impl PathPattern {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(exact) => path == exact,
            Self::AtOrBelow(top) => {
                path.strip_prefix(&**top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}
