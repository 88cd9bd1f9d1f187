//! Whether a forged token reaches the store.

use std::path::Path;

use serde::Serialize;

use super::Extent;
use super::rounds::{NO_ACCESS_LOG, Side, plan};
use crate::load::Plan;
use crate::server::{Engine, Store};
use crate::{Failure, note};

/// What Redis was asked, which keeps the sessions and counts its commands.
#[derive(Debug, Serialize)]
pub(crate) struct Asked {
    /// Requests with forged tokens, and commands meanwhile.
    pub(crate) refused: u64,
    pub(crate) while_refusing: u64,
    /// The control: requests with good ones, and commands meanwhile.
    pub(crate) served: u64,
    pub(crate) while_serving: u64,
}

pub(super) fn measure(program: Option<&Path>) -> Result<Asked, Failure> {
    note("forged tokens, and what the store hears of them");
    let engine = Store::Redis.start();
    let Engine::Redis(redis) = &engine else { unreachable!("just started") };
    let good = Plan { made_up: false, ..plan(Extent::Quick, 1) };
    let mut good = Side::baton(&engine, &[NO_ACCESS_LOG], program, good)?;
    let before = commands(redis.port)?;
    let served = good.measure()?;
    let between = commands(redis.port)?;
    good.plan = Plan { made_up: true, expect_status: 401, ..good.plan };
    good.users = crate::load::prepare(&good.server.target, &good.plan, Vec::new())?;
    let refused = good.measure()?;
    let after = commands(redis.port)?;
    if !served.is_clean() || !refused.is_clean() {
        return Err(Failure::Server(format!("not as expected:\n{}{}", served.text(), refused.text())));
    }
    Ok(Asked {
        refused: refused.answers,
        while_refusing: after - between,
        served: served.answers,
        while_serving: between - before,
    })
}

/// Calls of all commands, but for the ones that ask for this.
fn commands(port: u16) -> Result<u64, Failure> {
    let failed = |error| Failure::Server(format!("Redis: {error}"));
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).map_err(failed)?;
    let mut connection = client.get_connection().map_err(failed)?;
    let text: String = redis::cmd("INFO").arg("commandstats").query(&mut connection).map_err(failed)?;
    Ok(calls(&text))
}

/// From lines such as `cmdstat_hset:calls=3,usec=…`. A client that connects says who it is.
fn calls(text: &str) -> u64 {
    let of_line = |line: &str| {
        let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let ours = name == "info" || name.starts_with("client") || name.starts_with("hello");
        if ours { None } else { figures.split(',').next()?.parse::<u64>().ok() }
    };
    text.lines().filter_map(of_line).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_added_up() {
        let text = "# Commandstats\r\ncmdstat_info:calls=9,usec=1\r\ncmdstat_client|setinfo:calls=4,usec=1\r\n\
                    cmdstat_evalsha:calls=3,usec=10\r\ncmdstat_hmget:calls=2,usec=1,usec_per_call=1.00\r\n";
        assert_eq!(calls(text), 5);
    }
}
