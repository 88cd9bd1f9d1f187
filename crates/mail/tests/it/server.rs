//! A mail server that does as a script says, for one connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use baton_mail::Security;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What the server answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    Greeting,
    Ehlo,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// The mail itself.
    Body,
    Quit,
}

#[derive(Debug, Clone, Copy)]
pub enum Answer {
    Line(&'static str),
    /// The connection ends instead; for the body, in the midst of it.
    Hangup,
    /// The connection stays, and nothing comes.
    Silence,
}

/// What the client said.
#[derive(Debug, Default)]
pub struct Seen {
    pub commands: Vec<String>,
    pub message: Vec<u8>,
}

pub struct Server {
    pub port: u16,
    called: Arc<AtomicBool>,
    task: JoinHandle<Seen>,
}

impl Server {
    /// One that takes every mail, but for what the script says.
    pub async fn start<const N: usize>(script: [(Event, Answer); N]) -> Self {
        Self::encrypted(script, None).await
    }

    /// The same over TLS: from the beginning, or from a STARTTLS on.
    pub async fn encrypted<const N: usize>(script: [(Event, Answer); N], tls: Option<(Security, TlsAcceptor)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let called = Arc::new(AtomicBool::new(false));
        let script = HashMap::from(script);
        let task = tokio::spawn({
            let called = called.clone();
            async move {
                let (stream, _) = listener.accept().await.expect("a client");
                called.store(true, Ordering::SeqCst);
                let mut seen = Seen::default();
                // An error is a client that has gone: that is its right.
                let _ = serve(stream, tls, &script, &mut seen).await;
                seen
            }
        });
        Self { port, called, task }
    }

    /// Once the connection has ended.
    pub async fn seen(self) -> Seen {
        self.task.await.expect("the server runs to its end")
    }

    pub fn was_called(&self) -> bool {
        self.called.load(Ordering::SeqCst)
    }

    /// Closes the port.
    pub async fn stop(self) {
        self.task.abort();
        assert!(self.task.await.is_err_and(|error| error.is_cancelled()));
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<(Security, TlsAcceptor)>,
    script: &HashMap<Event, Answer>,
    seen: &mut Seen,
) -> std::io::Result<()> {
    match tls {
        None => converse(BufStream::new(stream), Event::Greeting, script, seen).await,
        Some((Security::Tls, tls)) => {
            converse(BufStream::new(tls.accept(stream).await?), Event::Greeting, script, seen).await
        }
        Some((_, tls)) => {
            let mut stream = BufStream::new(stream);
            for reply in ["220 mail.example ESMTP\r\n", "250-mail.example\r\n250 STARTTLS\r\n"] {
                stream.write_all(reply.as_bytes()).await?;
                stream.flush().await?;
                command(&mut stream, seen).await?;
            }
            stream.write_all(b"220 go on\r\n").await?;
            stream.flush().await?;
            let mut stream = BufStream::new(tls.accept(stream.into_inner()).await?);
            match command(&mut stream, seen).await? {
                Some(event) => converse(stream, event, script, seen).await,
                None => Ok(()),
            }
        }
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: BufStream<S>,
    mut event: Event,
    script: &HashMap<Event, Answer>,
    seen: &mut Seen,
) -> std::io::Result<()> {
    loop {
        match script.get(&event).copied().unwrap_or(Answer::Line(usual(event))) {
            // A byte at a time: a reply need not come in one piece.
            Answer::Line(line) => {
                for byte in format!("{line}\r\n").bytes() {
                    stream.write_all(&[byte]).await?;
                    stream.flush().await?;
                }
                if event == Event::Quit {
                    return Ok(());
                }
                if event == Event::Data && line.starts_with("354") {
                    event = Event::Body;
                    if matches!(script.get(&event), Some(Answer::Hangup)) {
                        stream.read_exact(&mut [0; 16]).await?;
                    } else {
                        seen.message = body(&mut stream).await?;
                    }
                    continue;
                }
            }
            Answer::Hangup => return Ok(()),
            Answer::Silence => return stream.read_to_end(&mut Vec::new()).await.map(drop),
        }
        match command(&mut stream, seen).await? {
            Some(next) => event = next,
            None => return Ok(()),
        }
    }
}

/// What the client says next, if anything.
async fn command<S: AsyncBufRead + Unpin>(stream: &mut S, seen: &mut Seen) -> std::io::Result<Option<Event>> {
    let mut command = String::new();
    if stream.read_line(&mut command).await? == 0 {
        return Ok(None);
    }
    let event = match command.get(..4) {
        Some("EHLO") => Event::Ehlo,
        Some("AUTH") => Event::Auth,
        Some("MAIL") => Event::Mail,
        Some("RCPT") => Event::Rcpt,
        Some("DATA") => Event::Data,
        _ => Event::Quit,
    };
    seen.commands.push(command.trim_end().to_owned());
    Ok(Some(event))
}

/// Up to the lone dot, with the doubled dots undone (RFC 5321 §4.5.2).
async fn body<S: AsyncBufRead + Unpin>(stream: &mut S) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 || line == b".\r\n" {
            return Ok(body);
        }
        body.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

fn usual(event: Event) -> &'static str {
    match event {
        Event::Greeting => "220 mail.example ESMTP",
        Event::Ehlo => {
            "250-mail.example\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250-ENHANCEDSTATUSCODES\r\n250 AUTH PLAIN LOGIN"
        }
        Event::Auth => "235 2.7.0 welcome",
        Event::Mail | Event::Rcpt => "250 2.1.0 ok",
        Event::Data => "354 go on",
        Event::Body => "250 2.0.0 taken",
        Event::Quit => "221 2.0.0 bye",
    }
}
