//! Key files: read, made, and given a new key.

mod file;
pub mod jwt;

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use baton_core::token::{KEY_LEN, parse_keys};
use baton_core::{Key, KeyRing, Random};
use baton_engine::OsRandom;
use zeroize::Zeroizing;

use crate::config::{Config, KeySource};
use jwt::JwtKeys;

/// Most keys in a file.
const MOST: usize = 16;

/// All keys of a server.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Those that tokens are signed with.
    pub tokens: KeyRing,
    /// Those that JWTs for backends are signed with. `None` where none are sent.
    pub jwt: Option<Arc<JwtKeys>>,
}

impl Keys {
    /// Those that the configuration names and has a use for.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn load(config: &Config) -> Result<Self, KeysError> {
        let jwt = config.sends_jwts().then(|| jwt::load(&config.jwt.keys)).transpose()?;
        Ok(Self { tokens: load(&config.keys)?, jwt })
    }
}

impl From<KeyRing> for Keys {
    fn from(tokens: KeyRing) -> Self {
        Self { tokens, jwt: None }
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// There is no such file.
    #[error(
        "there is no key file {0}: make one with `baton keys new --file {0}`, or set BATON_KEYS. If this server has run \
         before, put the file back: with a new key everybody has to sign in again"
    )]
    Missing(PathBuf),
    /// There is no file for the keys of JWTs.
    #[error("there is no key file {0}: make one with `baton keys new --jwt --file {0}`, or set BATON_JWT_KEYS")]
    MissingJwt(PathBuf),
    /// It could not be read or written.
    #[error("the key file {0} cannot be {1}: {2}")]
    Io(PathBuf, &'static str, #[source] io::Error),
    /// It is a folder, a device or a pipe.
    #[error("the key file {0} is not a file")]
    NotAFile(PathBuf),
    /// Others may read or change it.
    #[error(
        "the key file {0} can be read or changed by others (mode {1:04o}); whoever has the key can pass for anybody: chmod 600 {0}"
    )]
    Open(PathBuf, u32),
    /// It belongs to somebody else.
    #[error("the key file {0} belongs to another user (uid {1}), who can change it")]
    Foreign(PathBuf, u32),
    /// What is in it is no ring of keys.
    #[error("the key file {0}: {1}")]
    Malformed(PathBuf, String),
    /// It holds the most keys that it may.
    #[error("the key file {0} holds sixteen keys, which is the most; remove the last ones, which are the oldest")]
    Full(PathBuf),
    /// There are no random bytes to make a key of.
    #[error("no key can be made: {0}")]
    Random(String),
}

/// The keys that the configuration names.
///
/// # Errors
/// [`KeysError`]: no file, unreadable, readable by others, or malformed. Never shows a key.
pub fn load(source: &KeySource<KeyRing>) -> Result<KeyRing, KeysError> {
    load_with(source, KeysError::Missing, KeyRing::parse)
}

fn load_with<K: Clone, E: Display>(
    source: &KeySource<K>,
    missing: impl FnOnce(PathBuf) -> KeysError,
    parse: impl FnOnce(&str) -> Result<K, E>,
) -> Result<K, KeysError> {
    match source {
        KeySource::Given(keys) => Ok(keys.clone()),
        KeySource::File(path) => {
            let text = file::read(path)?.ok_or_else(|| missing(path.clone()))?;
            parse(&text).map_err(|error| KeysError::Malformed(path.clone(), error.to_string()))
        }
    }
}

/// Makes a key file with one fresh key unless there is a file already, which is left alone. True if it was made.
///
/// The file appears under its name only when it is complete and on the disk.
///
/// # Errors
/// [`KeysError`].
pub fn ensure(path: &Path) -> Result<bool, KeysError> {
    file::make(path, || Ok(Zeroizing::new(format!("{FILE_HEAD}{}\n", *fresh(0)?.to_line()))))
}

/// The line of a fresh key with the id 0, for a new key file.
///
/// # Errors
/// [`KeysError::Random`].
pub fn fresh_line() -> Result<Zeroizing<String>, KeysError> {
    Ok(Zeroizing::new(format!("{}\n", *fresh(0)?.to_line())))
}

/// Puts a fresh key in front of the keys of a file, or makes the file. What was done, in words.
///
/// # Errors
/// [`KeysError`].
pub fn add(path: &Path) -> Result<String, KeysError> {
    if ensure(path)? {
        return Ok(format!("made {} with one key", path.display()));
    }
    let text = file::read(path)?.ok_or_else(|| KeysError::Missing(path.to_owned()))?;
    let malformed = |error: baton_core::token::KeyRingError| KeysError::Malformed(path.to_owned(), error.to_string());
    let keys = parse_keys(&text).map_err(malformed)?;
    let newest = keys.first().map_or(15, Key::id);
    // Not the lowest free one: an id that was retired is not used again until all others have been.
    let id = (1..=16).map(|step| (newest + step) % 16).find(|id| keys.iter().all(|key| key.id() != *id));
    let id = id.ok_or_else(|| KeysError::Full(path.to_owned()))?;

    let line = fresh(id)?.to_line();
    let text = Zeroizing::new(with_key_in_front(&text, &line));
    file::replace(path, &text)?;
    Ok(format!(
        "put key {id} in front of {}, which now holds {}. Restart the server to sign with it. Remove the older keys no \
         sooner than session_max_lifetime from then",
        path.display(),
        keys.len() + 1
    ))
}

const FILE_HEAD: &str = "\
# The keys that baton signs tokens with. Whoever has one can sign in as anybody: keep this file out of the backup that
# holds the database. The first key signs, all of them verify. `baton keys new --file` puts a new one in front.
";

/// Comments stay where they are; the new line goes before the first key.
fn with_key_in_front(text: &str, line: &str) -> String {
    let is_key = |line: &str| !line.trim().is_empty() && !line.trim().starts_with('#');
    file::with_in_front(text, is_key, &format!("{line}\n"))
}

fn fresh(id: u8) -> Result<Key, KeysError> {
    let mut secret = Zeroizing::new([0; KEY_LEN]);
    OsRandom.fill(secret.as_mut_slice()).map_err(|error| KeysError::Random(error.to_string()))?;
    Key::new(id, *secret).map_err(|error| KeysError::Random(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn read(path: &Path) -> Zeroizing<String> {
        file::read(path).unwrap().unwrap()
    }

    fn ids(path: &Path) -> Vec<u8> {
        parse_keys(&read(path)).unwrap().iter().map(Key::id).collect()
    }

    #[test]
    fn a_key_file_is_made_once_and_never_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        assert!(ensure(&path).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(!ensure(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        // Nothing half-made stays behind.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn racing_starts_agree_on_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        let barrier = std::sync::Barrier::new(8);
        let made = std::thread::scope(|scope| {
            let start = || {
                barrier.wait();
                ensure(&path).unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).filter(|made| *made).count()
        });
        assert_eq!(made, 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn new_keys_go_in_front_until_the_ring_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        add(&path).unwrap();
        let first = KeyRing::parse(&read(&path)).unwrap();
        add(&path).unwrap();
        add(&path).unwrap();
        assert_eq!(ids(&path), [2, 1, 0]);
        assert!(fs::read_to_string(&path).unwrap().starts_with("# The keys"));
        let now = KeyRing::parse(&read(&path)).unwrap();
        assert_eq!(now.fingerprints().last(), first.fingerprints().last());
        for _ in 3..16 {
            add(&path).unwrap();
        }
        assert!(matches!(add(&path), Err(KeysError::Full(_))));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }
}
