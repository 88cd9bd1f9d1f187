//! The bare handler on threads as baton has them: what of a ratio is due to them.

use std::io;
use std::net::SocketAddr;
use std::thread::available_parallelism;

use axum::Router;
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::without_delay;

type Accepted = (std::net::TcpStream, SocketAddr);

/// Connections that were accepted elsewhere.
struct HandedOver {
    connections: UnboundedReceiver<Accepted>,
    address: SocketAddr,
}

impl Listener for HandedOver {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            // The program ends by being killed, so there are always more to come.
            let Some((stream, peer)) = self.connections.recv().await else { std::future::pending().await };
            // A client that went away is no concern of the others.
            if let Ok(stream) = TcpStream::from_std(stream) {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Accepts for as many runtimes as there are cores, which take turns.
pub(super) async fn serve(listener: &TcpListener, routes: &Router) -> io::Result<()> {
    let address = listener.local_addr()?;
    let mut senders = Vec::new();
    for _ in 0..available_parallelism()?.get() {
        // For as long as the program runs.
        let runtime = Box::leak(Box::new(Builder::new_multi_thread().worker_threads(1).enable_all().build()?));
        let (sender, connections) = unbounded_channel();
        let (handed_over, routes) = (HandedOver { connections, address }, routes.clone());
        runtime.spawn(async move { axum::serve(handed_over, routes).await });
        senders.push(sender);
    }
    for sender in senders.iter().cycle() {
        let (stream, peer) = listener.accept().await?;
        without_delay(&stream);
        // Its receiver lives as long.
        let _ = sender.send((stream.into_std()?, peer));
    }
    Ok(())
}
