//! Reads and rotations that are wanted at the same time, with one statement.
//!
//! A statement costs PostgreSQL several times what a further row in it does, and a node no less. So there is one of a kind under
//! way, and whoever comes meanwhile waits for the next one, which is for all that wait: until the one before is answered, or has
//! taken long. It is sent after they have come: nobody is answered with what was read before he asked. With little to do,
//! everybody is the only one in his statement and waits for nobody.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::error::Failure;
use super::link::Links;
use super::queries::Query;

/// How long a statement is under way before another one may be sent: PostgreSQL is far away, or the connection is dead.
const LONG: Duration = Duration::from_millis(2);
/// Statements of a kind that are under way at most.
const FLIGHTS: usize = 8;
/// How many one statement is for at most. What is behind it on its connection waits for it.
const MOST: usize = 128;

/// What one statement can do for many.
pub(super) trait Work: Send + Sync + 'static {
    type Ask: Send + Sync + 'static;
    type Answer: Send + 'static;
    /// For errors.
    const QUERY: &'static Query;

    /// An answer to each, in their order. There is at least one.
    fn work(&self, asked: &[Self::Ask]) -> impl Future<Output = Vec<Result<Self::Answer, Failure>>> + Send;
}

/// Those who want it.
pub(super) struct Gathering<W: Work> {
    work: W,
    links: Arc<Links>,
    queue: Mutex<Queue<W>>,
}

/// Somebody, and where he waits.
type Waiting<W> = (<W as Work>::Ask, oneshot::Sender<Result<<W as Work>::Answer, Failure>>);

struct Queue<W: Work> {
    waiting: Vec<Waiting<W>>,
    /// How many have left it.
    left: u64,
    flights: usize,
    /// When the last flight began.
    began: Instant,
}

impl<W: Work> Gathering<W> {
    pub(super) fn new(work: W, links: Arc<Links>) -> Arc<Self> {
        let queue = Queue { waiting: Vec::new(), left: 0, flights: 0, began: Instant::now() };
        Arc::new(Self { work, links, queue: Mutex::new(queue) })
    }

    pub(super) const fn work(&self) -> &W {
        &self.work
    }

    pub(super) async fn ask(self: &Arc<Self>, ask: W::Ask) -> Result<W::Answer, Failure> {
        let (sender, mut answer) = oneshot::channel();
        let number = self.join((ask, sender));
        let answer = match timeout(self.links.patience(), &mut answer).await {
            Ok(answer) => answer,
            Err(_) if self.queue.lock().left <= number => return Err(self.links.crowded(W::QUERY)),
            // Sent, and sure to be answered in time.
            Err(_) => answer.await,
        };
        // There is always one, unless the runtime is about to end.
        answer.unwrap_or_else(|_| Err(Failure::no_answer(W::QUERY.name, W::QUERY.writes)))
    }

    /// Answers how many were before him.
    fn join(self: &Arc<Self>, waiting: Waiting<W>) -> u64 {
        let mut queue = self.queue.lock();
        let number = queue.left + queue.waiting.len() as u64;
        queue.waiting.push(waiting);
        if queue.begins() {
            // In a task of its own: the others are not to be left alone when whoever came first goes away.
            tokio::spawn(self.clone().fly());
        }
        number
    }

    async fn fly(self: Arc<Self>) {
        // Those who are about to ask come first.
        yield_now().await;
        loop {
            // Who has gone away does not want it any more.
            let (asked, answers): (Vec<_>, Vec<_>) =
                self.take().into_iter().filter(|(_, answer)| !answer.is_closed()).unzip();
            if !asked.is_empty() {
                for (sender, answer) in answers.into_iter().zip(self.work.work(&asked).await) {
                    // He may have gone away by now.
                    let _ = sender.send(answer);
                }
            }
            let mut queue = self.queue.lock();
            queue.flights -= 1;
            if queue.waiting.is_empty() || !queue.begins() {
                return;
            }
        }
    }

    /// Those whom the next statement is for.
    fn take(&self) -> Vec<Waiting<W>> {
        let mut queue = self.queue.lock();
        let count = queue.waiting.len().min(MOST);
        queue.left += count as u64;
        let rest = queue.waiting.split_off(count);
        std::mem::replace(&mut queue.waiting, rest)
    }
}

impl<W: Work> Queue<W> {
    /// Whether a flight begins now. If not, those who wait can wait for one that is under way.
    fn begins(&mut self) -> bool {
        let begins = self.flights == 0 || (self.flights < FLIGHTS && self.began.elapsed() >= LONG);
        if begins {
            self.flights += 1;
            self.began = Instant::now();
        }
        begins
    }
}
