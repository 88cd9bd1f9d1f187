//! Pipelined SETs.

use baton_testkit::redis::Server;

use super::{DAY, Row, Sessions, failed, uid};
use crate::Failure;

/// Sessions that are sent at once.
const CHUNK: usize = 2_000;

/// The sessions, as `baton_store::redis` keeps them, into a server where nobody uses it yet.
pub(super) fn fill(server: &Server, sessions: Sessions) -> Result<(), Failure> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port)).map_err(failed)?;
    let mut connection = client.get_connection().map_err(failed)?;
    redis::cmd("FLUSHALL").query::<()>(&mut connection).map_err(failed)?;
    let mut rows = sessions.rows().peekable();
    while rows.peek().is_some() {
        let mut pipeline = redis::Pipeline::with_capacity(2 * CHUNK);
        for row in rows.by_ref().take(CHUNK) {
            let key = format!("baton:s:{}", row.client);
            pipeline.cmd("SET").arg(&key).arg(kept(sessions, &row)).ignore();
            pipeline.cmd("PEXPIREAT").arg(&key).arg(sessions.ends() + DAY).ignore();
        }
        pipeline.query::<()>(&mut connection).map_err(failed)?;
    }
    Ok(())
}

/// In the format of `baton_store`'s `redis/record.rs`.
fn kept(sessions: Sessions, row: &Row) -> Vec<u8> {
    let since = sessions.since.to_be_bytes();
    let mut kept = vec![1];
    kept.extend(row.account.to_be_bytes());
    // Generation, handed out, confirmed.
    kept.extend(1_u32.to_be_bytes());
    kept.push(1);
    kept.extend(since);
    kept.extend(1_u32.to_be_bytes());
    // Opened, ends, last seen, and found in the registry just now.
    for time in [sessions.since, sessions.ends(), sessions.since, sessions.since + DAY] {
        kept.extend(time.to_be_bytes());
    }
    // No operation, and where it was seen from.
    kept.extend([0; 16]);
    kept.extend([4, 127, 0, 0, 1]);
    kept.extend([0; 12]);
    let uid = uid(row.account);
    for text in ["user", "email", &uid, &uid, "{}"] {
        kept.extend((text.len() as u32).to_be_bytes());
        kept.extend_from_slice(text.as_bytes());
    }
    // No permit.
    kept.extend([0; 25]);
    kept.extend(since);
    kept.extend(since);
    kept
}
