//! What stands between a node and its store, and fails.
//!
//! TCP repeats nothing that it has delivered, so an operation is made twice only if its answer was lost and somebody asks
//! again: [`Way::Deaf`], and then [`Way::Cut`].

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// What it does with what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Passes it on.
    Clear,
    /// Passes it on after this long, either way.
    Slow(Duration),
    /// Passes on what the node sends, and drops what the store answers. A connection that lost something that way is closed
    /// when this is over.
    Deaf,
    /// Closes what is open and lets nobody through.
    Cut,
}

/// On a port of its own, in front of a server that may be another one later.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    way: watch::Sender<Way>,
    target: watch::Sender<SocketAddr>,
}

impl Proxy {
    pub(crate) async fn before(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", baton_testkit::free_port())).await?;
        let address = listener.local_addr()?;
        let way = watch::Sender::new(Way::Clear);
        let target = watch::Sender::new(target);
        let (ways, targets) = (way.clone(), target.clone());
        tokio::spawn(async move {
            while let Ok((node, _)) = listener.accept().await {
                let (way, target) = (ways.subscribe(), targets.subscribe());
                // A connection that ends in whatever way is what this is for.
                tokio::spawn(async move { relay(node, target, way).await.ok() });
            }
        });
        Ok(Self { address, way, target })
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Another server takes over: what is open to the one before is closed.
    pub(crate) fn turn_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }
}

async fn relay(
    node: TcpStream,
    mut target: watch::Receiver<SocketAddr>,
    mut way: watch::Receiver<Way>,
) -> io::Result<()> {
    if *way.borrow() == Way::Cut {
        return Ok(());
    }
    let address = *target.borrow_and_update();
    let store = TcpStream::connect(address).await?;
    node.set_nodelay(true)?;
    store.set_nodelay(true)?;
    let (from_node, to_node) = node.into_split();
    let (from_store, to_store) = store.into_split();
    let there = pump(from_node, to_store, way.clone(), false);
    let back = pump(from_store, to_node, way.clone(), true);
    tokio::select! {
        done = there => done,
        done = back => done,
        _ = way.wait_for(|way| *way == Way::Cut) => Ok(()),
        _ = target.changed() => Ok(()),
    }
}

/// One direction, until its source ends.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    answers: bool,
) -> io::Result<()> {
    let (queue, mut queued) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return io::Result::Ok(());
            }
            let now = *way.borrow();
            let delay = match now {
                Way::Slow(delay) => delay,
                Way::Deaf if answers => {
                    // Something is missing now, so nothing that comes later would be understood.
                    let _ = way.wait_for(|way| *way != Way::Deaf).await;
                    return Ok(());
                }
                _ => Duration::ZERO,
            };
            if queue.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
                return Ok(());
            }
        }
    };
    let write = async {
        // In their order, even when the delay has just become shorter.
        while let Some((at, bytes)) = queued.recv().await {
            sleep_until(at).await;
            to.write_all(&bytes).await?;
        }
        io::Result::Ok(())
    };
    tokio::select! {
        done = read => done,
        done = write => done,
    }
}
