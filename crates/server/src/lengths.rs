//! Requests that say twice how long they are.
//!
//! A request with `Content-Length` and `Transfer-Encoding` may be two requests to somebody else on its way (RFC 9112 §6.1, §11.2).
//! hyper believes the latter and drops the former before anybody sees it, so it is looked for in what it is about to read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memchr::memchr;

/// Follows the requests of an HTTP/1 connection, as far as their first body in chunks: that is where a connection ends here.
#[derive(Debug)]
pub(crate) struct Lengths {
    at: At,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    found: TwoLengths,
}

/// Whether the request in chunks, of which a connection has one at most, says its length as well.
#[derive(Debug, Clone, Default)]
pub(crate) struct TwoLengths(Arc<AtomicBool>);

impl TwoLengths {
    pub(crate) fn were_said(&self) -> bool {
        // By the task that reads them.
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone, Copy)]
enum At {
    Head {
        is_begun: bool,
        length: Option<u64>,
        in_chunks: bool,
    },
    /// So many bytes before the end of a body.
    Body(u64),
    /// Where nothing is looked at any more.
    End,
}

const NEXT: At = At::Head { is_begun: false, length: None, in_chunks: false };
/// Most bytes of a line that are kept. Those that matter are short, and what goes through a tunnel has no lines.
const LONGEST: usize = 1024;

impl Lengths {
    pub(crate) fn new(found: TwoLengths) -> Self {
        Self { at: NEXT, line: Vec::new(), found }
    }

    /// What comes is no HTTP/1.
    pub(crate) fn stop(&mut self) {
        self.at = At::End;
        self.line = Vec::new();
    }

    /// Takes the next bytes of the connection.
    pub(crate) fn saw(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.at {
                At::End => return,
                At::Body(left) => {
                    let of_body = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= of_body as u64;
                    bytes = &bytes[of_body..];
                    if *left == 0 {
                        self.at = NEXT;
                    }
                }
                At::Head { .. } => {
                    let Some(end) = memchr(b'\n', bytes) else {
                        self.keep(bytes);
                        return;
                    };
                    if self.line.is_empty() {
                        self.at = self.at.after(&bytes[..end], &self.found);
                    } else {
                        self.keep(&bytes[..end]);
                        self.at = self.at.after(&self.line, &self.found);
                        self.line.clear();
                    }
                    bytes = &bytes[end + 1..];
                }
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LONGEST - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl At {
    /// Behind this line of a head.
    fn after(self, line: &[u8], found: &TwoLengths) -> Self {
        let Self::Head { is_begun, length, in_chunks } = self else { return self };
        match line {
            // Before a request, empty lines mean nothing (RFC 9112 §2.2).
            b"" | b"\r" if !is_begun => self,
            b"" | b"\r" if in_chunks => {
                found.0.store(length.is_some(), Ordering::Relaxed);
                Self::End
            }
            b"" | b"\r" => length.filter(|length| *length > 0).map_or(NEXT, Self::Body),
            _ if !is_begun => Self::Head { is_begun: true, length, in_chunks },
            [b'c' | b'C', ..] => match value(line, b"content-length").map(number) {
                // Of several lines, hyper takes those that agree.
                Some(Some(length)) => Self::Head { is_begun, length: Some(length), in_chunks },
                // Where this request ends cannot be told, so none in chunks that comes later is believed.
                Some(None) => {
                    found.0.store(true, Ordering::Relaxed);
                    Self::End
                }
                None => self,
            },
            [b't' | b'T', ..] => {
                let in_chunks = in_chunks || value(line, b"transfer-encoding").is_some();
                Self::Head { is_begun, length, in_chunks }
            }
            _ => self,
        }
    }
}

/// What a line says under a name, if it is of that.
fn value<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let rest = rest.strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name).then_some(rest)
}

fn number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether two lengths are found when the bytes come in pieces of this size.
    fn found(bytes: &[u8], piece: usize) -> bool {
        let found = TwoLengths::default();
        let mut lengths = Lengths::new(found.clone());
        bytes.chunks(piece).for_each(|piece| lengths.saw(piece));
        found.were_said()
    }

    #[track_caller]
    fn check(text: &str, expected: bool) {
        for piece in [1, 2, 3, 7, 64, 4096] {
            assert_eq!(found(text.as_bytes(), piece), expected, "in pieces of {piece}: {text:?}");
        }
    }

    #[test]
    fn two_lengths_are_found_in_whatever_order_and_spelling() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 5\r\n",
            "cOnTENT-length:5\r\ntransfer-encoding:chunked\r\n",
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        ] {
            check(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), true);
            check(&format!("\r\n\nPOST / HTTP/1.1\r\n{fields}\r\n0\r\n\r\n"), true);
            check(&format!("GET /first HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\n{fields}\n"), true);
            check(&format!("PUT / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\r\n\r\nPOST / HTTP/1.1\r\n{fields}\r\n"), true);
            check(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}"), false);
        }
    }

    #[test]
    fn one_length_is_none_too_many_and_a_body_says_nothing() {
        let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        let length = both.len();
        for text in [
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
            format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{both}"),
            format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\nContent-Length: {length}\r\n\r\n{both}"),
            format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n{both}"),
            "GET /?Content-Length:5 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            "POST / HTTP/1.1\r\nX-Content-Length: 5\r\nContent-Length-X: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
            // Those of one request and those of the next.
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
        ] {
            check(&text, false);
        }
    }

    #[test]
    fn a_length_that_cannot_be_read_counts_as_one_too_many() {
        for length in ["none", "", "-1", "5, 6", "99999999999999999999", &" ".repeat(LONGEST)] {
            check(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n"), true);
        }
    }

    #[test]
    fn what_has_no_lines_is_not_kept() {
        let mut lengths = Lengths::new(TwoLengths::default());
        for _ in 0..100 {
            lengths.saw(&[b'x'; 1000]);
        }
        assert!(lengths.line.capacity() <= 2 * LONGEST);
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "\r\n", "\n", "\r", "POST / HTTP/1.1\r\n", "Content-Length: 3\r\n", "content-length:", "12", "x", ":",
                    "Transfer-Encoding: chunked\r\n", "transfer-", "encoding", "Host: a\r\n", "abc",
                ]),
                0..24,
            ),
            piece in 1_usize..40,
        ) {
            let text = parts.concat();
            prop_assert_eq!(found(text.as_bytes(), piece), found(text.as_bytes(), 4096));
        }
    }
}
