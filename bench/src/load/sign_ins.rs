//! Sign-ins, one after the other on each of a few connections.

use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::json;

use super::users::{PASSWORD, User};
use crate::Failure;
use crate::clock::now;
use crate::http::{Connection, Target};

/// Has these users sign in over and over again, so many at once; sign-ins a second.
pub(crate) fn sign_ins(
    target: &Target,
    users: &[User],
    connections: usize,
    duration: Duration,
) -> Result<f64, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Io("the runtime".into(), error))?;
    let start = now();
    let end = start + duration;
    let one = async |first: usize| -> Result<f64, Failure> {
        let mut connection = Connection::new(target.address, now());
        let mut done = 0.0;
        for user in users.iter().cycle().skip(first) {
            let body = json!({ "email": user.uid, "password": PASSWORD }).to_string();
            let request = target.post("/auth/sign_in", &body);
            let exchanged = connection.exchange(&request, now(), |answer| (answer.status, answer.summary()));
            match exchanged.await.map_err(|error| Failure::Io(target.authority.clone(), error))? {
                (200, _) if now() < end => done += 1.0,
                (200, _) => break,
                (_, summary) => return Err(Failure::Server(format!("{} could not sign in: {summary}", user.uid))),
            }
        }
        Ok(done)
    };
    let done = runtime.block_on(try_join_all((0..connections).map(|number| one(number * 7))))?;
    Ok(done.iter().sum::<f64>() / duration.as_secs_f64())
}
