//! From the start of the process to its first answer, and the memory that it takes with nothing to do.

use std::path::Path;

use serde::Serialize;

use super::Extent;
use super::rounds::{NO_ACCESS_LOG, Side, all_settings, plan};
use crate::clock::now;
use crate::fill::Filled;
use crate::http::BlockingConnection;
use crate::load::{self, User};
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

/// Resident memory of a server with an empty store, in KiB.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    /// It has answered one request, without a token.
    pub(crate) started: f64,
    /// Somebody has registered: a password hash takes 19 MiB while it is computed.
    pub(crate) hashed: f64,
}

pub(super) fn idle(program: Option<&Path>) -> Result<Idle, Failure> {
    let mut one = plan(Extent::Quick, 1);
    (one.users, one.connections) = (1, 1);
    let side = Side::baton(&Engine::Sqlite, &[NO_ACCESS_LOG], program, one.clone())?;
    let resident = || Ok(usage(side.server.pid())?.resident_kib as f64);
    answer(
        &side.server,
        format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", side.server.target.authority).as_bytes(),
    )?;
    let started = resident()?;
    one.made_up = false;
    load::prepare(&side.server.target, &one, Vec::new())?;
    Ok(Idle { started, hashed: resident()? })
}

fn first_answer(server: &Server, user: &User) -> Result<(), Failure> {
    let mut request = Vec::new();
    user.get(&server.target, "/demo/members_only", &mut request);
    answer(server, &request)
}

/// It has to be 200.
fn answer(server: &Server, request: &[u8]) -> Result<(), Failure> {
    let failed = |error| Failure::Io(server.target.authority.clone(), error);
    let mut connection = BlockingConnection::open(server.target.address).map_err(failed)?;
    match connection.exchange(request, |answer| (answer.status, answer.summary())).map_err(failed)? {
        (200, _) => Ok(()),
        (_, summary) => Err(Failure::Server(format!("the first answer was {summary}"))),
    }
}
