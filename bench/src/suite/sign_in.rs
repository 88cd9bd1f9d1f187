//! Sign-ins: how many, against the password hash alone, and what they do to everybody else.

use std::path::Path;
use std::thread;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use serde::Serialize;

use super::Extent;
use super::rounds::{NO_ACCESS_LOG, PAGE, Side, plan};
use crate::clock::now;
use crate::load::{Plan, Report, sign_ins};
use crate::server::Engine;
use crate::{Failure, note};

/// Which share of what the server can do arrives while people sign in: they take a core.
const SHARE: f64 = 0.25;

/// Rounds that take turns.
#[derive(Debug, Serialize)]
pub(crate) struct SignIns {
    /// Threads that hash.
    pub(crate) threads: usize,
    /// Hashes a second, without a server.
    pub(crate) hashes: Vec<f64>,
    /// Sign-ins a second.
    pub(crate) sign_ins: Vec<f64>,
    /// Requests with tokens, at a rate that the server can do with ease, while nobody signs in.
    pub(crate) undisturbed: Vec<Report>,
    /// And while as many sign in as can.
    pub(crate) disturbed: Vec<Report>,
}

pub(super) fn measure(extent: Extent, program: Option<&Path>) -> Result<SignIns, Failure> {
    let threads = thread::available_parallelism().map_or(1, usize::from).div_ceil(2);
    let mut side =
        Side::baton(&Engine::Sqlite, &[NO_ACCESS_LOG], program, Plan { made_up: false, ..plan(extent, PAGE) })?;
    let duration = side.plan.duration;
    let capacity = side.measure()?.per_second;
    side.plan.rate = Some((capacity * SHARE).round());

    let count = extent.rounds();
    let (mut hashes, mut alone, mut undisturbed, mut disturbed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 1..=count {
        note(&format!("sign-ins, round {number} of {count}"));
        hashes.push(hash(threads, duration)?);
        alone.push(sign_ins(&side.server.target, &side.users, 4 * threads, duration)?);
        undisturbed.push(side.measure()?);
        let beside = side.plan.warm_up + duration;
        let (target, users) = (side.server.target.clone(), side.users.clone());
        let (report, busy) = thread::scope(|scope| {
            let signing_in = scope.spawn(|| sign_ins(&target, &users, 4 * threads, beside));
            (side.measure(), signing_in.join())
        });
        disturbed.push(report?);
        busy.map_err(|_| Failure::Usage("the thread that signs in panicked".into()))??;
    }
    Ok(SignIns { threads, hashes, sign_ins: alone, undisturbed, disturbed })
}

/// Hashes a second with baton's default costs, on as many threads as baton has for them.
fn hash(threads: usize, duration: Duration) -> Result<f64, Failure> {
    let failed = |error: argon2::Error| Failure::Usage(format!("argon2id: {error}"));
    let params = Params::new(19 * 1_024, 2, 1, None).map_err(failed)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let start = now();
    let work = || -> Result<f64, argon2::Error> {
        let (mut done, mut output) = (0.0, [0; 32]);
        loop {
            argon2.hash_password_into(b"correct horse battery", b"salt of 16 bytes", &mut output)?;
            done += 1.0;
            let took = now().duration_since(start);
            if took >= duration {
                return Ok(done / took.as_secs_f64());
            }
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let panicked = |_| Failure::Usage("a thread that hashes panicked".into());
        running.into_iter().map(|thread| thread.join().map_err(panicked)?.map_err(failed)).sum()
    })
}
