//! A deadline for the first bytes of a connection, and whether its requests say their length twice.
//!
//! Which version of HTTP a client speaks shows in its first bytes, and hyper waits for them without a limit: a connection
//! that sends nothing, or only the beginning of HTTP/2's preface, would be held for ever.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::lengths::{Lengths, TwoLengths};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose reads fail once the deadline has passed without it being clear what the client speaks.
pub(crate) struct FirstBytes<T> {
    inner: T,
    /// `None` when it is clear.
    deadline: Option<Pin<Box<Sleep>>>,
    /// How much of the preface has been read.
    matched: usize,
    lengths: Lengths,
}

impl<T> FirstBytes<T> {
    /// The requests are in `found` if they say two lengths, before anybody else sees them.
    pub(crate) fn within(limit: Duration, inner: T, found: TwoLengths) -> Self {
        Self { inner, deadline: Some(Box::pin(sleep(limit))), matched: 0, lengths: Lengths::new(found) }
    }

    fn saw(&mut self, bytes: &[u8]) {
        self.lengths.saw(bytes);
        if self.deadline.is_none() {
            return;
        }
        let rest = &PREFACE[self.matched..];
        let same = bytes.iter().zip(rest).take_while(|(a, b)| a == b).count();
        self.matched += same;
        if self.matched == PREFACE.len() {
            self.deadline = None;
            self.lengths.stop();
        } else if same < bytes.len() {
            self.deadline = None;
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for FirstBytes<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let late = self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Pending if late => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            polled => {
                ready!(polled)?;
                self.saw(&buf.filled()[before..]);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for FirstBytes<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    async fn outcome(sent: &[u8]) -> io::ErrorKind {
        let (mut client, server) = duplex(64);
        client.write_all(sent).await.unwrap();
        let mut server = FirstBytes::within(LIMIT, server, TwoLengths::default());
        let mut read = vec![0; sent.len()];
        server.read_exact(&mut read).await.unwrap();
        // What comes next never does; a stream without a deadline waits for it.
        match tokio::time::timeout(LIMIT * 20, server.read_u8()).await {
            Ok(Err(error)) => error.kind(),
            Ok(Ok(_)) => unreachable!("nothing more was sent"),
            Err(_) => io::ErrorKind::WouldBlock,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_client_that_does_not_say_what_it_speaks_is_cut_off() {
        assert_eq!(outcome(b"").await, io::ErrorKind::TimedOut);
        assert_eq!(outcome(b"P").await, io::ErrorKind::TimedOut);
        assert_eq!(outcome(b"PRI * HTTP/2.0\r\n").await, io::ErrorKind::TimedOut);
        assert_eq!(outcome(PREFACE).await, io::ErrorKind::WouldBlock);
        assert_eq!(outcome(b"G").await, io::ErrorKind::WouldBlock);
        assert_eq!(outcome(b"POST").await, io::ErrorKind::WouldBlock);
    }
}
