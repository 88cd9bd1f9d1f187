//! Where sessions are, if not with the accounts.

use std::time::Duration;

use baton_store::redis::RedisOptions;

use super::reader::Reader;
use super::store::holds_a_password;

/// May hold a password.
pub(super) const URL: &str = "sessions.url";

/// `None`: with the accounts.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Box<RedisOptions>> {
    let minute = Duration::from_secs(60);
    let wait_replicas = reader.number("sessions.wait_replicas", 0..=16);
    let wait_timeout = reader.duration("sessions.wait_timeout", Duration::from_millis(1)..=minute);
    let recheck = reader.duration("sessions.recheck", Duration::from_secs(1)..=60 * minute);
    let writers = reader.number("sessions.writers", 1..=64);
    let url = reader.text(URL);
    if url.is_empty() {
        return None;
    }
    if reader.is_typed_in_a_command(URL) && holds_a_password(&url) {
        reader.refuse_unseen(
            URL,
            "holds a password, which a command line does not keep; set it in the environment or a file",
        );
    }
    match RedisOptions::from_url(&url) {
        Ok(mut options) => {
            (options.wait_replicas, options.wait_timeout) = (wait_replicas, wait_timeout);
            (options.recheck, options.writers) = (recheck, writers);
            Some(Box::new(options))
        }
        Err(error) => {
            reader.refuse_unseen(URL, error);
            None
        }
    }
}
