//! The two round trips of a rotation: a hash is read, and a script compares and sets. Over one connection, as baton's.

use redis::aio::MultiplexedConnection;
use redis::{Client, RedisError};

use super::Turn;
use crate::Failure;

const SWAP: &str = "
    if redis.call('HGET', KEYS[1], 'g') ~= ARGV[1] then return 0 end
    redis.call('HSET', KEYS[1], 'g', ARGV[2], 'h', ARGV[3], 'e', ARGV[3])
    redis.call('PEXPIRE', KEYS[1], 86400000)
    return 1";

/// Hashes of its own: so many that no two requests meet in one, though one of them is held up. Redis does not mind.
const ENTRIES: usize = 4096;

/// The hashes, and the connection to them.
pub(super) struct Redis {
    connection: MultiplexedConnection,
    /// What the server knows the script by.
    swap: String,
    entry: Turn,
}

impl Redis {
    pub(super) async fn open(url: &str) -> Result<Self, Failure> {
        let client = Client::open(url).map_err(failed)?;
        let mut connection = client.get_multiplexed_async_connection().await.map_err(failed)?;
        for number in 0..ENTRIES {
            let uid = format!("bench-{number}@example.com");
            let fields = [("g", "1"), ("h", "0"), ("e", "0"), ("u", &uid)];
            let mut set = redis::cmd("HSET");
            set.arg(key(number));
            for (name, value) in fields {
                set.arg(name).arg(value);
            }
            set.query_async::<()>(&mut connection).await.map_err(failed)?;
        }
        let mut load = redis::cmd("SCRIPT");
        let swap = load.arg("LOAD").arg(SWAP).query_async(&mut connection).await.map_err(failed)?;
        Ok(Self { connection, swap, entry: Turn::default() })
    }

    pub(super) async fn touch(&self) -> Result<(), Failure> {
        let key = key(self.entry.next(ENTRIES));
        let mut connection = self.connection.clone();
        let mut read = redis::cmd("HMGET");
        read.arg(&key).arg(&["g", "h", "e", "u"]);
        let (generation, _, _, _uid): (u64, u64, u64, String) =
            read.query_async(&mut connection).await.map_err(failed)?;
        let mut swap = redis::cmd("EVALSHA");
        swap.arg(&self.swap).arg(1).arg(&key).arg(generation).arg(generation + 1).arg(generation);
        let made: u64 = swap.query_async(&mut connection).await.map_err(failed)?;
        if made == 1 { Ok(()) } else { Err(Failure::Server("two requests met in a hash of the floor".into())) }
    }
}

fn key(number: usize) -> String {
    format!("floor:{number}")
}

fn failed(error: RedisError) -> Failure {
    Failure::Server(format!("Redis: {error}"))
}
