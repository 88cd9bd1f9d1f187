//! From the start of the process to its first answer, and the memory that it takes with nothing to do.

use std::path::Path;

use serde::Serialize;

use super::Extent;
use super::rounds::{NO_ACCESS_LOG, Side, all_settings, plan};
use crate::clock::now;
use crate::fill::Filled;
use crate::http::BlockingConnection;
use crate::load::User;
use crate::proc::usage;
use crate::server::{Engine, Server};
use crate::{Failure, note};

/// Starts on a file that exists.
#[derive(Debug, Serialize)]
pub(crate) struct Starts {
    pub(crate) sessions: u64,
    /// From before the process was made until a request with a token was answered.
    pub(crate) milliseconds: Vec<f64>,
    /// Resident after that answer.
    pub(crate) resident_kib: Vec<f64>,
}

pub(super) fn measure(extent: Extent, program: Option<&Path>) -> Result<Starts, Failure> {
    let (sessions, starts) = match extent {
        Extent::Quick => (10_000, 5),
        Extent::Usual | Extent::Long => (1_000_000, 20),
    };
    note(&format!("starting {starts} times on a file with {sessions} sessions"));
    let engine = Engine::Sqlite;
    let filled = Filled::new(&engine, sessions)?;
    let settings = all_settings(&engine, "baton", &[NO_ACCESS_LOG]);
    // A user a start: tokens of earlier ones have been superseded.
    let users = filled.users(starts, sessions);
    let mut measured = Starts { sessions, milliseconds: Vec::new(), resident_kib: Vec::new() };
    for user in &users {
        let start = now();
        let server = Server::baton(program, filled.folder.path(), &settings)?;
        first_answer(&server, user)?;
        measured.milliseconds.push(now().duration_since(start).as_secs_f64() * 1e3);
        measured.resident_kib.push(usage(server.pid())?.resident_kib as f64);
    }
    Ok(measured)
}

/// Resident memory of a server with an empty store, in KiB, after one user has signed in.
pub(super) fn idle(program: Option<&Path>) -> Result<f64, Failure> {
    let mut one = plan(Extent::Quick, 1);
    (one.users, one.connections, one.made_up) = (1, 1, false);
    let side = Side::baton(&Engine::Sqlite, &[NO_ACCESS_LOG], program, one)?;
    Ok(usage(side.server.pid())?.resident_kib as f64)
}

fn first_answer(server: &Server, user: &User) -> Result<(), Failure> {
    let failed = |error| Failure::Io(server.target.authority.clone(), error);
    let mut request = Vec::new();
    user.get(&server.target, "/demo/members_only", &mut request);
    let mut connection = BlockingConnection::open(server.target.address).map_err(failed)?;
    match connection.exchange(&request, |answer| (answer.status, answer.summary())).map_err(failed)? {
        (200, _) => Ok(()),
        (_, summary) => Err(Failure::Server(format!("the first answer was {summary}"))),
    }
}
