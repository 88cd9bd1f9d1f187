//! One browser at a time: it loads a page, keeps the token that it is given, and goes on to the next user.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::pace::Arrivals;
use super::tally::{Reply, Tally};
use super::users::{Issued, User};
use super::{Plan, Window};
use crate::Failure;
use crate::clock::now;
use crate::http::{Connection, Target};

/// After a connection failed, so that a server that is gone does not make the generator spin.
const PAUSE: Duration = Duration::from_millis(10);

/// A few users, of whom one at a time has a page under way.
#[derive(Debug)]
pub(crate) struct Lane<'a> {
    target: &'a Target,
    plan: &'a Plan,
    /// The one that has waited longest comes first; with when the last page ended.
    users: VecDeque<(User, Option<Instant>)>,
    streams: Vec<TcpStream>,
}

impl<'a> Lane<'a> {
    pub(crate) fn new(target: &'a Target, plan: &'a Plan, users: Vec<User>, streams: Vec<TcpStream>) -> Self {
        Self { target, plan, users: users.into_iter().map(|user| (user, None)).collect(), streams }
    }

    /// Until the end of the window.
    async fn run(
        mut self,
        window: Window,
        arrivals: Option<&Arrivals>,
        tally: &RefCell<Tally>,
    ) -> Result<Vec<User>, Failure> {
        let address = self.target.address;
        let opened = std::mem::take(&mut self.streams).into_iter();
        let connections =
            opened.map(|stream| Connection::opened(address, stream, now())).collect::<Result<Vec<_>, _>>();
        let mut connections = connections.map_err(|error| Failure::Io(self.target.authority.clone(), error))?;
        let mut request = Vec::new();
        tokio::time::sleep_until(window.start.into()).await;

        while let Some((mut user, ended)) = self.users.pop_front() {
            let intended = match arrivals {
                Some(arrivals) => arrivals.next().await,
                None => {
                    if let Some(ended) = ended.filter(|_| !self.plan.spacing.is_zero()) {
                        tokio::time::sleep_until((ended + self.plan.spacing).min(window.end).into()).await;
                    }
                    Some(now()).filter(|now| *now < window.end)
                }
            };
            let Some(intended) = intended else {
                self.users.push_front((user, ended));
                break;
            };
            user.get(self.target, &self.plan.path, &mut request);
            let failed = page(&mut connections, &request, intended, &mut user, self.plan, window, tally).await;
            if failed {
                tokio::time::sleep(PAUSE).await;
            }
            self.users.push_back((user, Some(now())));
        }
        Ok(self.users.into_iter().map(|(user, _)| user).collect())
    }
}

/// Sends the requests of a page at once, all with the same token. Whether a connection failed.
async fn page(
    connections: &mut [Connection],
    request: &[u8],
    intended: Instant,
    user: &mut User,
    plan: &Plan,
    window: Window,
    tally: &RefCell<Tally>,
) -> bool {
    let sent = now();
    let replies = match connections {
        [connection] => vec![exchange(connection, request, sent, plan.expect_status).await],
        several => {
            join_all(several.iter_mut().map(|connection| exchange(connection, request, sent, plan.expect_status))).await
        }
    };
    let mut tally = tally.borrow_mut();
    tally.note_page(sent.saturating_duration_since(intended), intended >= window.measured);
    let mut failed = false;
    for (reply, answered) in replies {
        let counts = window.measured <= answered && answered < window.end;
        // By when it should have begun, so that a server that falls behind cannot shift slow answers out of the window.
        let timed = if plan.rate.is_some() { window.measured <= intended } else { counts };
        let latency = timed.then(|| answered.saturating_duration_since(intended));
        tally.note(&reply, counts, latency);
        match reply {
            Reply::Answer(issued) => user.adopt(issued),
            Reply::Rejection(_) => {}
            Reply::Failure(_) => failed = true,
        }
    }
    failed
}

async fn exchange(connection: &mut Connection, request: &[u8], sent: Instant, expected: u16) -> (Reply, Instant) {
    let exchanged = connection.exchange(request, sent, |answer| {
        if answer.status == expected { Reply::Answer(Issued::of(answer)) } else { Reply::Rejection(answer.summary()) }
    });
    let reply = exchanged.await.unwrap_or_else(|error| Reply::Failure(error.to_string()));
    (reply, now())
}

/// Runs these lanes on this thread, and adds what they found.
pub(crate) fn drive(
    lanes: Vec<Lane<'_>>,
    window: Window,
    arrivals: Option<&Arrivals>,
    finished: &Mutex<(Tally, Vec<User>)>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Io("the runtime".into(), error))?;
    let tally = RefCell::new(Tally::new());
    let returned = runtime.block_on(join_all(lanes.into_iter().map(|lane| lane.run(window, arrivals, &tally))));
    let mut finished = finished.lock().unwrap_or_else(PoisonError::into_inner);
    finished.0.add(&tally.into_inner());
    for users in returned {
        finished.1.extend(users?);
    }
    Ok(())
}
