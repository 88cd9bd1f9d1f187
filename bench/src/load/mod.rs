//! Users whose tokens rotate, as fast as the server answers (closed loop) or at a constant rate (open loop).

mod lane;
mod pace;
mod sign_ins;
mod tally;
mod users;

use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

pub(crate) use sign_ins::sign_ins;
pub(crate) use tally::Report;
pub(crate) use users::User;

use crate::clock::now;
use crate::http::{Target, open};
use crate::proc::{Usage, usage, usage_of_family};
use crate::random::SplitMix;
use crate::{Failure, Outcome, print};
use lane::Lane;
use pace::Arrivals;
use tally::Tally;

/// How long the threads are given to get ready before the first request.
const GET_READY: Duration = Duration::from_millis(50);
/// Beyond what any generator can send.
const MAX_RATE: f64 = 1e7;

/// The command line of `load`.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The server. Its rate limits have to be off while users register
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3000")]
    base_url: String,
    /// A file to take the users from; made, or brought up to date, for the next run. It holds tokens
    #[arg(long, value_name = "FILE", conflicts_with = "made_up")]
    credentials: Option<PathBuf>,
    /// Of the server, to read its CPU time and memory from /proc
    #[arg(long)]
    pid: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    plan: Plan,
}

/// What is sent.
#[derive(Debug, Clone, Args)]
pub(crate) struct Plan {
    /// How many users there are
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) users: usize,
    /// How many connections there are, each with one request at a time
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) connections: usize,
    /// Requests of a page: sent at once, with the same token, each on a connection of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) batch: usize,
    /// What is asked for
    #[arg(long, default_value = "/demo/members_only")]
    pub(crate) path: String,
    /// Open loop: so many requests a second, whether the server keeps up or not. Default: a closed loop, in which the next
    /// page follows the answers of the one before
    #[arg(long, value_name = "REQUESTS")]
    pub(crate) rate: Option<f64>,
    /// In a closed loop, the least time from the end of a user's page to the start of that user's next one
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration, conflicts_with = "rate")]
    pub(crate) spacing: Duration,
    /// How long is measured
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// How long requests are sent before that
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) warm_up: Duration,
    /// Threads of the generator [default: half of the cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Present forged credentials of the right form instead of registering users: for servers that do not look at them, and
    /// with --expect-status 401 for those that do
    #[arg(long)]
    pub(crate) made_up: bool,
    /// Any other status is a rejection
    #[arg(long, value_name = "STATUS", default_value_t = 200)]
    pub(crate) expect_status: u16,
    /// For the users' addresses
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u32,
}

impl Load {
    pub(crate) fn run(&self) -> Result<Outcome, Failure> {
        let target = Target::parse(&self.base_url)?;
        let saved = self.credentials.as_deref().map(users::read).transpose()?.unwrap_or_default();
        let mut users = prepare(&target, &self.plan, saved)?;
        let report = run(&target, &self.plan, &mut users, self.pid)?;
        if let Some(file) = &self.credentials {
            users::write(file, &users)?;
        }
        print(&if self.json { report.json()? } else { report.text() })?;
        Ok(if report.is_clean() { Outcome::Good } else { Outcome::Bad })
    }
}

/// Users that are signed in, or made up.
pub(crate) fn prepare(target: &Target, plan: &Plan, saved: Vec<User>) -> Result<Vec<User>, Failure> {
    if plan.made_up {
        let mut random = SplitMix::new(plan.seed.into());
        return Ok((0..plan.users).map(|number| User::made_up(plan.seed, number, &mut random)).collect());
    }
    users::sign_in(target, plan.seed, plan.users, saved)
}

/// From when to when requests are sent, and from when they count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    start: Instant,
    measured: Instant,
    end: Instant,
}

/// Sends, and leaves the users with their newest tokens.
pub(crate) fn run(target: &Target, plan: &Plan, users: &mut Vec<User>, pid: Option<u32>) -> Result<Report, Failure> {
    let lanes = plan.lanes(users.len())?;
    let threads = plan.threads().min(lanes);
    let connect = |_| open(target.address).map_err(|error| Failure::Io(target.authority.clone(), error));
    let mut streams = (0..lanes * plan.batch).map(connect).collect::<Result<Vec<_>, _>>()?;

    let start = now() + GET_READY;
    let measured = start + plan.warm_up;
    let window = Window { start, measured, end: measured + plan.duration };
    let arrivals = plan.rate.map(|rate| Arrivals::new(start, rate / plan.batch as f64));

    // Each thread has its lanes, each lane its users and connections: nothing is shared while requests are sent.
    let mut shares: Vec<Vec<Lane<'_>>> = (0..threads).map(|_| Vec::new()).collect();
    let mut dealt: Vec<Vec<User>> = (0..lanes).map(|_| Vec::new()).collect();
    for (number, user) in users.drain(..).enumerate() {
        dealt[number % lanes].push(user);
    }
    for (number, users) in dealt.into_iter().enumerate() {
        let own = streams.split_off(streams.len() - plan.batch);
        shares[number % threads].push(Lane::new(target, plan, users, own));
    }

    let used = |pid: Option<u32>| pid.map(usage_of_family).transpose();
    let finished = Mutex::new((Tally::new(), Vec::new()));
    let sampled = thread::scope(|scope| {
        let running: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(|| lane::drive(share, window, arrivals.as_ref(), &finished)))
            .collect();
        let pacing = arrivals.as_ref().map(|arrivals| scope.spawn(|| arrivals.release(window.end)));
        let at = |instant: Instant| -> Result<(Usage, Option<Usage>), Failure> {
            thread::sleep(instant.saturating_duration_since(now()));
            Ok((usage(std::process::id())?, used(pid)?))
        };
        let sampled = at(window.measured).and_then(|before| Ok((before, at(window.end)?)));
        for thread in running {
            thread.join().map_err(|_| Failure::Usage("a thread of the generator panicked".into()))??;
        }
        if let Some(pacing) = pacing {
            pacing.join().map_err(|_| Failure::Usage("the pacing thread panicked".into()))?;
        }
        sampled
    });
    let (mut tally, returned) = finished.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    users.extend(returned);
    let (before, after) = sampled?;
    if let Some(arrivals) = &arrivals {
        tally.note_unserved(arrivals, window, plan.batch);
    }
    Ok(Report::new(plan, threads, &tally, before, after))
}

impl Plan {
    /// A lane is one browser at a time: as many connections as a page needs.
    fn lanes(&self, users: usize) -> Result<usize, Failure> {
        let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
        if self.batch == 0 || self.connections < self.batch {
            return usage("--connections has to be at least --batch, and that at least 1");
        }
        let lanes = self.connections / self.batch;
        if users < lanes {
            return usage("--users has to be at least --connections divided by --batch: a user has one page at a time");
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= MAX_RATE)) {
            return Err(Failure::Usage(format!("--rate has to be above 0 and at most {MAX_RATE}")));
        }
        if self.duration.is_zero() {
            return usage("--duration has to be above 0");
        }
        Ok(lanes)
    }

    /// The other half is for the server.
    fn threads(&self) -> usize {
        let half = || thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        self.threads.unwrap_or_else(half).max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use axum::Router;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::get;

    use super::*;

    /// A server for one user that holds the token 1. The newest token is answered with the next one, the one before it with a
    /// blank, as within a batch window; any other is refused.
    fn rotating() -> Target {
        let newest = Arc::new(AtomicU64::new(1));
        let answer = move |headers: HeaderMap| {
            let presented = headers["access-token"].to_str().unwrap_or_default().parse::<u64>().unwrap_or(0);
            let next = presented + 1;
            let rotated = newest.compare_exchange(presented, next, Ordering::SeqCst, Ordering::SeqCst);
            async move {
                match rotated {
                    Ok(_) => (StatusCode::OK, [("access-token", next.to_string()), ("expiry", "1".into())]),
                    Err(newest) if newest == next => {
                        (StatusCode::OK, [("access-token", String::new()), ("expiry", String::new())])
                    }
                    Err(_) => (StatusCode::UNAUTHORIZED, [("x", String::new()), ("y", String::new())]),
                }
            }
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, Router::new().route("/page", get(answer))).await.unwrap();
            });
        });
        Target::parse(&format!("http://{authority}")).unwrap()
    }

    fn plan(batch: usize, rate: Option<f64>) -> Plan {
        Plan {
            users: 1,
            connections: batch,
            batch,
            path: "/page".into(),
            rate,
            spacing: Duration::ZERO,
            duration: Duration::from_millis(200),
            warm_up: Duration::ZERO,
            threads: None,
            made_up: true,
            expect_status: 200,
            seed: 1,
        }
    }

    /// With a user that presents this token first.
    fn report(plan: &Plan, token: &str) -> (Report, User) {
        let mut user = User::made_up(1, 0, &mut SplitMix::new(1));
        user.token = token.to_owned();
        let mut users = vec![user];
        let report = run(&rotating(), plan, &mut users, None).unwrap();
        (report, users.remove(0))
    }

    #[test]
    fn tokens_are_followed() {
        let (report, user) = report(&plan(1, None), "1");
        assert!(report.is_clean() && report.blanks == 0, "{}", report.text());
        assert!(user.token.parse::<u64>().unwrap() > report.rotations, "{user:?}");
    }

    #[test]
    fn requests_of_a_page_share_a_token() {
        let (report, _) = report(&plan(4, Some(400.0)), "1");
        assert!(report.is_clean() && report.rotations > 0, "{}", report.text());
        // Each page is answered with one token. The last one may have begun within the time and ended after it.
        let beside = report.rotations * 3;
        assert!((beside.saturating_sub(3)..=beside + 3).contains(&report.blanks), "{}", report.text());
    }

    #[test]
    fn a_rejection_is_noticed() {
        let (report, user) = report(&plan(1, None), "7");
        assert!(!report.is_clean() && report.rejections > 0 && report.answers == 0, "{}", report.text());
        assert_eq!(user.token, "7");
    }

    #[test]
    fn a_plan_has_to_be_possible() {
        assert_eq!(plan(4, None).lanes(1).unwrap(), 1);
        assert_eq!(Plan { connections: 11, ..plan(4, None) }.lanes(2).unwrap(), 2);
        assert!(plan(0, None).lanes(1).is_err());
        assert!(Plan { connections: 3, ..plan(4, None) }.lanes(1).is_err());
        assert!(plan(1, None).lanes(0).is_err());
        assert!(plan(1, Some(0.0)).lanes(1).is_err());
        assert!(plan(1, Some(f64::INFINITY)).lanes(1).is_err());
    }
}
