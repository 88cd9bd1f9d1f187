//! As much of HTTP/1.1 as it takes to talk to a server that is being measured: one request at a time on a connection, and
//! answers that fit into memory. A client for every purpose would cost several times the CPU, on cores that the server shares.

use std::borrow::Cow;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream as BlockingStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Failure;

/// Servers close connections that are idle, baton after 30 s; one that was idle for longer than this is opened anew.
const IDLE: Duration = Duration::from_secs(20);
/// Fits any answer of the servers measured here; grows if one does not fit.
const BUFFER: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;

/// Where a server listens.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// What goes into `Host`.
    pub(crate) authority: String,
}

impl Target {
    /// From `http://host:port`.
    pub(crate) fn parse(url: &str) -> Result<Self, Failure> {
        let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let authority = authority
            .filter(|authority| !authority.contains('/'))
            .ok_or_else(|| Failure::Usage(format!("{url}: the address has to be http://HOST:PORT")))?;
        let address = authority.to_socket_addrs().map_err(|error| Failure::Io(url.to_owned(), error))?.next();
        let address = address.ok_or_else(|| Failure::Usage(format!("{url}: there is no such host")))?;
        Ok(Self { address, authority: authority.to_owned() })
    }

    /// A `POST` of a JSON document.
    pub(crate) fn post(&self, path: &str, body: &str) -> Vec<u8> {
        let (host, length) = (&self.authority, body.len());
        format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// An answer, borrowed from the buffer that it was read into.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) headers: &'a [httparse::Header<'a>],
    pub(crate) body: Cow<'a, [u8]>,
}

impl<'a> Answer<'a> {
    /// A header, if it is there and text.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        find(self.headers, name)
    }

    /// The beginning of it, for messages.
    pub(crate) fn summary(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        let body: String = body.chars().take(200).collect();
        format!("{} {body}", self.status)
    }
}

fn find<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(header.value).ok()
}

/// What [`parse`] found.
struct Parsed<T> {
    taken: T,
    length: usize,
    closes: bool,
}

/// Hands an answer to `take` once all of it is there; `None` before that.
fn parse<T>(buffer: &[u8], take: &mut impl FnMut(&Answer<'_>) -> T) -> io::Result<Option<Parsed<T>>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(buffer).map_err(|error| malformed(&error.to_string()))? else {
        return Ok(None);
    };
    let status = head.code.ok_or_else(|| malformed("no status"))?;
    let headers = &*head.headers;
    let chunked = find(headers, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let (body, length) = if chunked {
        let Some((body, length)) = unchunk(&buffer[start..])? else { return Ok(None) };
        (Cow::Owned(body), start + length)
    } else {
        let length = match find(headers, "content-length") {
            Some(length) => length.parse().map_err(|_| malformed("content-length"))?,
            None if matches!(status, 204 | 304) => 0,
            None => return Err(malformed("an answer without a length")),
        };
        let Some(body) = buffer[start..].get(..length) else { return Ok(None) };
        (Cow::Borrowed(body), start + length)
    };
    let closes = find(headers, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let taken = take(&Answer { status, headers, body });
    Ok(Some(Parsed { taken, length, closes }))
}

/// A body in chunks, and how long it was with its framing; `None` if it is not complete. Trailers are not supported.
fn unchunk(mut rest: &[u8]) -> io::Result<Option<(Vec<u8>, usize)>> {
    let whole = rest.len();
    let mut body = Vec::new();
    loop {
        let parsed = httparse::parse_chunk_size(rest).map_err(|_| malformed("the size of a chunk"))?;
        let httparse::Status::Complete((start, size)) = parsed else { return Ok(None) };
        let size = usize::try_from(size).map_err(|_| malformed("the size of a chunk"))?;
        let Some((chunk, after)) = rest[start..].split_at_checked(size) else { return Ok(None) };
        let Some((end, after)) = after.split_at_checked(2) else { return Ok(None) };
        if end != b"\r\n" {
            return Err(malformed("the end of a chunk"));
        }
        body.extend_from_slice(chunk);
        rest = after;
        if size == 0 {
            return Ok(Some((body, whole - rest.len())));
        }
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an answer that this client understands: {what}"))
}

/// One request at a time is under way, so more than one answer is a server's mistake.
fn alone<T>(parsed: Parsed<T>, read: usize) -> io::Result<(T, bool)> {
    if parsed.length == read { Ok((parsed.taken, parsed.closes)) } else { Err(malformed("more than was asked for")) }
}

/// A connection that is kept, for many at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    /// `None`: to be opened.
    stream: Option<TcpStream>,
    used: Instant,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens when it is first used.
    pub(crate) fn new(address: SocketAddr, now: Instant) -> Self {
        Self { address, stream: None, used: now, buffer: Vec::with_capacity(BUFFER) }
    }

    /// Takes over a connection that was opened before there was a runtime.
    pub(crate) fn opened(address: SocketAddr, stream: BlockingStream, now: Instant) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: Some(TcpStream::from_std(stream)?), ..Self::new(address, now) })
    }

    /// Sends a request and hands its answer to `take`.
    pub(crate) async fn exchange<T>(
        &mut self,
        request: &[u8],
        now: Instant,
        mut take: impl FnMut(&Answer<'_>) -> T,
    ) -> io::Result<T> {
        let idle = now.saturating_duration_since(std::mem::replace(&mut self.used, now)) > IDLE;
        // It is put back when the exchange has succeeded, so one that failed leaves nothing half read behind.
        let mut stream = match self.stream.take().filter(|_| !idle) {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(parsed) = parse(&self.buffer, &mut take)? {
                let (taken, closes) = alone(parsed, self.buffer.len())?;
                self.stream = Some(stream).filter(|_| !closes);
                return Ok(taken);
            }
        }
    }
}

/// Opens a connection the blocking way.
pub(crate) fn open(address: SocketAddr) -> io::Result<BlockingStream> {
    let stream = BlockingStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection that is kept, for one thread that waits: nothing is between the clock and the system calls.
#[derive(Debug)]
pub(crate) struct BlockingConnection {
    stream: BlockingStream,
    buffer: Vec<u8>,
}

impl BlockingConnection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { stream: open(address)?, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Sends a request and hands its answer to `take`.
    pub(crate) fn exchange<T>(&mut self, request: &[u8], mut take: impl FnMut(&Answer<'_>) -> T) -> io::Result<T> {
        let mut chunk = [0; BUFFER];
        self.stream.write_all(request)?;
        self.buffer.clear();
        loop {
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&chunk[..read]);
            if let Some(parsed) = parse(&self.buffer, &mut take)? {
                return alone(parsed, self.buffer.len()).map(|(taken, _)| taken);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses, and requires that every beginning of it is found incomplete.
    fn parsed(text: &str) -> (String, usize) {
        let mut take = |answer: &Answer<'_>| answer.summary();
        for end in 0..text.len() {
            let part = parse(&text.as_bytes()[..end], &mut take).unwrap();
            assert!(part.is_none(), "complete after {end} bytes of {text:?}");
        }
        let parsed = parse(text.as_bytes(), &mut take).unwrap().unwrap();
        (parsed.taken, parsed.length)
    }

    #[test]
    fn answers_with_a_length() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\naccess-token: \r\n\r\nhello";
        assert_eq!(parsed(text), ("200 hello".to_owned(), text.len()));
        let text = "HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(parsed(text), ("204 ".to_owned(), text.len()));
    }

    #[test]
    fn answers_in_chunks() {
        let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        assert_eq!(parsed(text), ("200 hello".to_owned(), text.len()));
    }

    #[test]
    fn a_blank_header_is_there() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nAccess-Token: \r\nexpiry: 7\r\n\r\n";
        let mut take = |answer: &Answer<'_>| {
            (answer.header("access-token").map(str::to_owned), answer.header("expiry").map(str::to_owned))
        };
        let found = parse(text, &mut take).unwrap().unwrap();
        assert_eq!(found.taken, (Some(String::new()), Some("7".to_owned())));
        assert!(!found.closes);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in ["nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"] {
            assert!(parse(text.as_bytes(), &mut |_: &Answer<'_>| ()).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        let target = Target::parse("http://127.0.0.1:3000/").unwrap();
        assert_eq!((target.address.port(), target.authority.as_str()), (3_000, "127.0.0.1:3000"));
        for url in ["127.0.0.1:3000", "https://127.0.0.1:3000", "http://127.0.0.1:3000/path", "http://127.0.0.1"] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
