//! Something between a store and its server that can be told to misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything is passed on.
    Pass,
    /// What the client says is passed on; the answers are lost.
    Deaf,
    /// All are ended, and new ones at once.
    Cut,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    server: Arc<AtomicU16>,
    mode: Arc<watch::Sender<Mode>>,
    cuts: Arc<watch::Sender<u32>>,
}

impl Proxy {
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("an address").port();
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let server = Arc::new(AtomicU16::new(server));
        let cuts = Arc::new(watch::Sender::new(0));
        let (modes, servers, scissors) = (mode.clone(), server.clone(), cuts.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, servers.load(Ordering::Relaxed), modes.subscribe(), scissors.subscribe()));
            }
        });
        Self { port, server, mode, cuts }
    }

    /// Ends all connections there are; those that come pass.
    pub(crate) fn cut_and_pass(&self) {
        self.mode.send_replace(Mode::Pass);
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// New connections lead to another server.
    pub(crate) fn lead_to(&self, server: u16) {
        self.server.store(server, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn relay(client: TcpStream, server: u16, mut mode: watch::Receiver<Mode>, mut cuts: watch::Receiver<u32>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = mode.clone();
    let there = async move { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let back = async move {
        let mut buffer = [0; 4096];
        loop {
            let length = from_server.read(&mut buffer).await?;
            if length == 0 {
                return std::io::Result::Ok(());
            }
            if *answers.borrow() == Mode::Pass {
                to_client.write_all(&buffer[..length]).await?;
            }
        }
    };
    tokio::select! {
        _ = there => {}
        _ = back => {}
        _ = cuts.changed() => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}
