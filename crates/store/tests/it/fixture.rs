//! What the tests of the SQLite store share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use baton_core::clock::{Clock, Timestamp};
use baton_core::error::StoreError;
use baton_core::event::Trace;
use baton_core::letter::{MailOrder, Occasion};
use baton_core::session::{Device, NewAccount, NewSession, PasswordHash, Profile, Renewal, Session, Swap};
use baton_core::token::ClientId;
use baton_store::sqlite::{SqliteOptions, SqliteStore};
use tempfile::TempDir;

pub(crate) const START: Timestamp = Timestamp::from_millis(1_750_000_000_000);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const RENEWAL: Renewal =
    Renewal { lifespan: Duration::from_secs(14 * 86_400), max_lifetime: Duration::from_secs(30 * 86_400) };

/// The path of a file that does not exist yet, in a folder that goes away with the test.
pub(crate) fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("baton.db");
    (folder, path)
}

pub(crate) fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, SqliteOptions::default(), clock)
}

pub(crate) fn must_open(path: &Path, clock: Arc<dyn Clock>) -> SqliteStore {
    open(path, clock).expect("open")
}

pub(crate) fn client(number: u8) -> ClientId {
    ClientId::from_bytes([number; 16])
}

pub(crate) fn new_account(uid: &str) -> NewAccount {
    NewAccount {
        realm: "user".to_owned(),
        provider: "email".to_owned(),
        uid: uid.to_owned(),
        email: format!("{uid}@example.test"),
        profile: Profile::default(),
        password: PasswordHash::new(format!("$argon2id$of-{uid}")),
    }
}

pub(crate) fn new_session(number: u8) -> NewSession {
    NewSession {
        client: client(number),
        renewal: RENEWAL,
        device: Device::default(),
        max_devices: 100,
        if_password: None,
    }
}

pub(crate) fn rotation(session: &Session) -> Swap {
    Swap {
        expect: session.version(),
        generation: session.generation.next().expect("a next generation"),
        confirmed: session.generation,
        hand_out: Some(RENEWAL),
    }
}

/// A trace with a letter for each of these.
pub(crate) fn mails<const N: usize>(uids: [&str; N]) -> Trace {
    let mails = uids.map(|uid| MailOrder::new(Occasion::ResetPassword, "user", "email", uid));
    Trace { mails: mails.into(), ..Trace::NONE }
}

/// The name of a file beside the database.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
