//! Threads that serve connections, each with a runtime of its own.
//!
//! A connection stays with the thread that it was given to: whoever finds that there is something to read goes on with it, nobody
//! on another core is woken to help, and queues and timers are shared with nobody. That is worth more than help where a request
//! takes microseconds, and passwords are hashed elsewhere. What a thread is given is balanced by connections, and by requests
//! where there may be many at once on a connection, as in HTTP/2.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use hyper::rt::Executor;
use tokio::runtime::{Builder, Handle, Runtime};

/// Where connections are served. Cheap to clone; does not keep the threads.
#[derive(Debug, Clone)]
pub(crate) struct Workers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    workers: Vec<Worker>,
    /// Whose turn it is with a request of a connection that has many.
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// A clone for each of its connections.
    seats: Arc<()>,
}

/// A connection's place with a thread; counts for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Seat(#[expect(dead_code, reason = "what counts is how long it is kept")] Arc<()>);

impl Workers {
    /// One thread, or whatever else the caller's runtime consists of.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub(crate) fn here() -> Self {
        Self::of([Handle::current()])
    }

    fn of(runtimes: impl IntoIterator<Item = Handle>) -> Self {
        let workers = runtimes.into_iter().map(|runtime| Worker { runtime, seats: Arc::default() }).collect();
        Self(Arc::new(Inner { workers, turn: AtomicUsize::new(0) }))
    }

    /// The thread with the fewest connections, and a place with it.
    pub(crate) fn idlest(&self) -> Option<(&Handle, Seat)> {
        let worker = self.0.workers.iter().min_by_key(|worker| Arc::strong_count(&worker.seats))?;
        Some((&worker.runtime, Seat(Arc::clone(&worker.seats))))
    }
}

/// For the requests of an HTTP/2 connection, which may be all that a gateway sends.
impl<F> Executor<F> for Workers
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, request: F) {
        let Inner { workers, turn } = &*self.0;
        if let Some(worker) = workers.get(turn.fetch_add(1, Ordering::Relaxed) % workers.len().max(1)) {
            worker.runtime.spawn(request);
        }
    }
}

/// The threads of this process: as many as it has cores.
pub(crate) struct Threads(Vec<Runtime>);

impl Threads {
    /// A runtime for each.
    ///
    /// # Errors
    /// If the system has no thread or no file descriptor left.
    pub(crate) fn apart() -> io::Result<Self> {
        // Not `new_current_thread`, whose tasks depend on somebody driving it: stores tell the two apart.
        (0..available_parallelism()?.get()).map(|_| runtime(1)).collect::<io::Result<_>>().map(Self)
    }

    /// One runtime for all of them, so that they help each other.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn together() -> io::Result<Self> {
        Ok(Self(vec![runtime(available_parallelism()?.get())?]))
    }

    /// Runs this here, and whatever it spawns on the first of them.
    pub(crate) fn block_on<T>(&self, main: impl Future<Output = T>) -> T {
        self.0[0].block_on(main)
    }

    pub(crate) fn workers(&self) -> Workers {
        Workers::of(self.0.iter().map(|runtime| runtime.handle().clone()))
    }
}

fn runtime(threads: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads).enable_all().thread_name("baton-worker").build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_there_are_fewest() {
        let threads = Threads((0..3).map(|_| Builder::new_current_thread().build().unwrap()).collect());
        let workers = threads.workers();
        let next = || {
            let (runtime, seat) = workers.idlest().unwrap();
            (runtime.id(), seat)
        };
        let (mut seats, mut ids): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            let (id, seat) = next();
            ids.push(id);
            seats.push(seat);
        }
        for runtime in &threads.0 {
            let id = runtime.handle().id();
            assert_eq!(ids.iter().filter(|found| **found == id).count(), 2);
        }
        // The connections of the second one end.
        let second = ids[1];
        let (kept, ended): (Vec<_>, Vec<_>) = ids.into_iter().zip(seats).partition(|(id, _)| *id != second);
        drop(ended);
        let (id, first) = next();
        assert_eq!(id, second);
        let (id, _) = next();
        assert_eq!(id, second);
        drop((kept, first));
    }

    #[test]
    fn requests_of_one_connection_go_to_all() {
        let threads = Threads((0..2).map(|_| runtime(1).unwrap()).collect());
        let workers = threads.workers();
        let (sender, seen) = std::sync::mpsc::channel();
        for _ in 0..4 {
            let sender = sender.clone();
            workers.execute(async move { sender.send(Handle::current().id()).unwrap() });
        }
        drop(sender);
        let seen: Vec<_> = seen.into_iter().collect();
        for runtime in &threads.0 {
            let id = runtime.handle().id();
            assert_eq!(seen.iter().filter(|found| **found == id).count(), 2);
        }
    }
}
