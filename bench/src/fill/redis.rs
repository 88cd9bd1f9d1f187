//! Pipelined HSETs.

use baton_testkit::redis::Server;

use super::{DAY, Sessions, failed, uid};
use crate::Failure;

/// Sessions that are sent at once.
const CHUNK: usize = 2_000;

/// The sessions, as `baton_store::redis` keeps them, into a server where nobody uses it yet.
pub(super) fn fill(server: &Server, sessions: Sessions) -> Result<(), Failure> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).map_err(failed)?;
    let mut connection = client.get_connection().map_err(failed)?;
    redis::cmd("FLUSHALL").query::<()>(&mut connection).map_err(failed)?;
    let (since, ends) = (sessions.since.to_string(), sessions.ends().to_string());
    // Found in the registry just now.
    let verified = (sessions.since + DAY).to_string();
    let mut rows = sessions.rows().peekable();
    while rows.peek().is_some() {
        let mut pipeline = redis::Pipeline::with_capacity(2 * CHUNK);
        for row in rows.by_ref().take(CHUNK) {
            let key = format!("baton:s:{}", row.client);
            let (account, uid) = (row.account.to_string(), uid(row.account));
            let fields: [(&str, &str); 19] = [
                ("a", &account),
                ("g", "1"),
                ("h", &since),
                ("c", "1"),
                ("b", &since),
                ("e", &ends),
                ("l", &since),
                ("i", "127.0.0.1"),
                ("v", &verified),
                ("ar", "user"),
                ("ap", "email"),
                ("au", &uid),
                ("ae", &uid),
                ("af", "{}"),
                ("ax", ""),
                ("ay", ""),
                ("ac", &since),
                ("am", &since),
                ("o", ""),
            ];
            pipeline.cmd("HSET").arg(&key).arg(&fields).ignore();
            pipeline.cmd("PEXPIREAT").arg(&key).arg(&ends).ignore();
        }
        pipeline.query::<()>(&mut connection).map_err(failed)?;
    }
    Ok(())
}
