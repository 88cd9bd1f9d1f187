//! HTTP/2 a frame at a time (RFC 9113): what a client may not send is refused, and nothing of it reaches a backend.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{Backend, Baton};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals that nobody is to remember (RFC 7541 §6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// The pseudo-fields of a request, and these behind them.
fn request(method: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":path", "/things"), (":authority", "a.test")];
    block(&[&pseudo[..], fields].concat())
}

fn get(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", fields))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The code of a frame that holds one.
    fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A connection after its preface.
struct Client(TcpStream);

impl Client {
    fn connect(baton: &Baton) -> Self {
        let mut stream = TcpStream::connect(baton.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
        Self(stream)
    }

    /// As far as the server takes it: it may have heard enough.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// `None` when the connection has ended.
    fn receive(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// How it went with a stream.
    fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            match self.receive() {
                None => return Outcome::Ended,
                Some(frame) if frame.kind == GOAWAY => return Outcome::GoneAway(frame.code()),
                Some(frame) if frame.stream != stream => {}
                Some(frame) if frame.kind == RST_STREAM => return Outcome::Reset(frame.code()),
                // The status comes first, behind what is said of the size of a table (RFC 7541 §6.3).
                Some(frame) if frame.kind == HEADERS => {
                    let status = frame.payload.iter().find(|byte| **byte >= 0x40);
                    return match status {
                        Some(0x88) => Outcome::Answered(200),
                        Some(0x8c) => Outcome::Answered(400),
                        _ => Outcome::Answered(0),
                    };
                }
                Some(_) => {}
            }
        }
    }

    /// By an answer, or by an end of the stream or the connection that says why (RFC 9113 §8.1.1).
    #[track_caller]
    fn assert_refused(&mut self, stream: u32, what: &str) {
        let outcome = self.outcome(stream);
        let refused = [Outcome::Reset(PROTOCOL_ERROR), Outcome::GoneAway(PROTOCOL_ERROR), Outcome::Answered(400)];
        assert!(refused.contains(&outcome), "{what}: {outcome:?}");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answered(u16),
    Reset(u32),
    GoneAway(u32),
    Ended,
}

fn before(backend: &Backend) -> Baton {
    Baton::before(&[format!("targets = ['{}'], require = 'none'", backend.url())], &[])
}

#[test]
fn a_request_is_answered_and_a_ping_too() {
    let backend = Backend::start();
    let baton = before(&backend);
    let mut client = Client::connect(&baton);
    assert!(client.send(&frame(PING, 0, 0, b"12345678")));
    let pong = std::iter::from_fn(|| client.receive()).find(|frame| frame.kind == PING).unwrap();
    assert_eq!((pong.flags, &*pong.payload), (1, &b"12345678"[..]));
    assert!(client.send(&get(1, &[("te", "trailers"), ("x-a", "b")])));
    assert_eq!(client.outcome(1), Outcome::Answered(200));
    // What is unknown is passed over (RFC 9113 §4.1), and padding is no part of a body.
    assert!(client.send(&frame(0xee, 0xff, 0, b"whatever")));
    assert!(client.send(&frame(HEADERS, END_HEADERS, 3, &request("POST", &[("content-length", "2")]))));
    assert!(client.send(&frame(DATA, PADDED | END_STREAM, 3, b"\x03hi\0\0\0")));
    assert_eq!(client.outcome(3), Outcome::Answered(200));
    assert_eq!(backend.seen(), 2);
}

#[test]
fn requests_that_are_malformed_reach_no_backend() {
    let backend = Backend::start();
    let baton = before(&backend);
    let whole = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];
    let without = |name: &str| -> Vec<_> { whole.into_iter().filter(|field| field.0 != name).collect() };
    let with = |field: (&'static str, &'static str)| [&whole[..], &[field]].concat();
    for (what, fields) in [
        ("an encoding of transfer", with(("transfer-encoding", "chunked"))),
        ("a field of the connection", with(("connection", "x-a"))),
        ("another one", with(("keep-alive", "timeout=5"))),
        ("another one", with(("proxy-connection", "close"))),
        ("another one", with(("upgrade", "websocket"))),
        ("TE with more than trailers", with(("te", "gzip"))),
        ("capitals", with(("X-A", "b"))),
        ("a space in a name", with(("x a", "b"))),
        ("a line feed in a value", with(("x-a", "b\r\nx-auth-uid: root"))),
        ("a zero byte in a value", with(("x-a", "b\0"))),
        ("a colon in a name", with(("x-a:", "b"))),
        ("an empty name", with(("", "b"))),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("an empty path", [&without(":path")[..], &[(":path", "")]].concat()),
        ("two paths", with((":path", "/other"))),
        ("two methods", with((":method", "POST"))),
        ("a pseudo-field of answers", with((":status", "200"))),
        ("an unknown pseudo-field", with((":what", "x"))),
        ("a pseudo-field behind a field", [&without(":path")[..], &[("x-a", "b"), (":path", "/")]].concat()),
        ("two lengths", [&whole[..], &[("content-length", "0"), ("content-length", "5")]].concat()),
        ("a length that is none", with(("content-length", "x"))),
        ("two hosts", with(("host", "b.test"))),
    ] {
        let mut client = Client::connect(&baton);
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)));
        client.assert_refused(1, what);
        assert_eq!(backend.seen(), 0, "{what}");
    }
}

#[test]
fn a_body_has_the_length_that_was_said() {
    let backend = Backend::start();
    let baton = before(&backend);
    for body in [&b"abc"[..], b"abcdefg"] {
        let mut client = Client::connect(&baton);
        client.send(&frame(HEADERS, END_HEADERS, 1, &request("POST", &[("content-length", "5")])));
        client.send(&frame(DATA, END_STREAM, 1, body));
        client.assert_refused(1, &format!("{body:?}"));
    }
    baton.assert_works();
}

#[test]
fn frames_that_break_the_rules_end_the_connection() {
    let backend = Backend::start();
    let baton = before(&backend);
    let head = request("POST", &[]);
    let too_long = vec![0; 16 * 1024 + 1];
    let mut others = Vec::new();
    for (what, frames, code) in [
        ("a body without a stream", frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        ("a body before its head", frame(DATA, 0, 1, b"x"), STREAM_CLOSED),
        ("a head without a stream", frame(HEADERS, END_HEADERS, 0, &head), PROTOCOL_ERROR),
        ("a stream of the server's", frame(HEADERS, END_HEADERS, 2, &head), PROTOCOL_ERROR),
        ("a head that goes on before it began", frame(CONTINUATION, END_HEADERS, 1, &head), PROTOCOL_ERROR),
        ("something within a head", [frame(HEADERS, 0, 1, &head), frame(PING, 0, 0, &[0; 8])].concat(), PROTOCOL_ERROR),
        (
            "a head that another stream goes on with",
            [frame(HEADERS, 0, 1, &head), frame(CONTINUATION, END_HEADERS, 3, b"")].concat(),
            PROTOCOL_ERROR,
        ),
        ("settings that are cut off", frame(SETTINGS, 0, 0, &[0; 5]), FRAME_SIZE_ERROR),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[]), PROTOCOL_ERROR),
        ("a window beyond its bounds", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]), FLOW_CONTROL_ERROR),
        ("a ping that is cut off", frame(PING, 0, 0, &[0; 7]), FRAME_SIZE_ERROR),
        ("a window that grows by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), FLOW_CONTROL_ERROR),
        ("a promise", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), PROTOCOL_ERROR),
        ("a frame that is too long", frame(DATA, 0, 1, &too_long), FRAME_SIZE_ERROR),
        ("more padding than there is", frame(HEADERS, END_HEADERS | PADDED, 1, b"\xffx"), PROTOCOL_ERROR),
        ("a head that cannot be read", frame(HEADERS, END_HEADERS, 1, &[0xff; 16]), COMPRESSION_ERROR),
        ("a stream that was passed over", [get(5, &[]), get(3, &[])].concat(), STREAM_CLOSED),
    ] {
        let mut client = Client::connect(&baton);
        client.send(&frames);
        let outcome = loop {
            match client.outcome(0) {
                Outcome::Answered(_) | Outcome::Reset(_) => {}
                outcome => break outcome,
            }
        };
        // The general code may take the place of each (RFC 9113 §5.4).
        if ![Outcome::GoneAway(code), Outcome::GoneAway(PROTOCOL_ERROR)].contains(&outcome) {
            others.push((what, outcome));
        }
    }
    assert_eq!(others, []);
    assert!(backend.seen() <= 1, "but for the one that was passed over");
    baton.assert_works();
}

#[test]
fn floods_end_their_connection_and_nothing_else() {
    let backend = Backend::start();
    let baton = before(&backend);
    let reset = |stream: u32| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());

    // Requests that are taken back at once (CVE-2023-44487).
    let mut client = Client::connect(&baton);
    let sent = (0..20_000)
        .map(|number| 2 * number + 1)
        .take_while(|stream| client.send(&[get(*stream, &[]), reset(*stream)].concat()));
    assert!(sent.count() > 0);
    assert_eq!(client.outcome(0), Outcome::GoneAway(ENHANCE_YOUR_CALM));

    // A head without an end (CVE-2024-27316).
    let mut client = Client::connect(&baton);
    client.send(&frame(HEADERS, 0, 1, &request("GET", &[])));
    let piece = frame(CONTINUATION, 0, 1, &block(&[("x-a", "b".repeat(100).as_str()); 100]));
    let sent = (0..10_000).take_while(|_| client.send(&piece)).count();
    assert!(sent < 10_000, "it is not read for ever");

    // More requests at once than are allowed.
    let mut client = Client::connect(&baton);
    let post = |stream: u32| frame(HEADERS, END_HEADERS, stream, &request("POST", &[]));
    for number in 0..=200 {
        client.send(&post(2 * number + 1));
    }
    assert_eq!(client.outcome(401), Outcome::Reset(REFUSED_STREAM));
    baton.assert_works();
}
