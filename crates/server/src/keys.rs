//! Key files: read, made, and given a new key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use baton_core::token::{KEY_LEN, parse_keys};
use baton_core::{Key, KeyRing, Random};
use baton_engine::OsRandom;
use zeroize::Zeroizing;

use crate::config::KeySource;

/// Most bytes of a key file: sixteen keys take less than a kilobyte.
const MAX_BYTES: u64 = 64 * 1024;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// There is no such file.
    #[error(
        "there is no key file {0}: make one with `baton keys new --file {0}`, or set BATON_KEYS. If this server has run \
         before, put the file back: with a new key everybody has to sign in again"
    )]
    Missing(PathBuf),
    /// It could not be read or written.
    #[error("the key file {0} cannot be {1}: {2}")]
    Io(PathBuf, &'static str, #[source] io::Error),
    /// It is a folder, a device or a pipe.
    #[error("the key file {0} is not a file")]
    NotAFile(PathBuf),
    /// Others may read or change it.
    #[error(
        "the key file {0} can be read or changed by others (mode {1:04o}); whoever has the key can sign in as anybody: chmod 600 {0}"
    )]
    Open(PathBuf, u32),
    /// It belongs to somebody else.
    #[error("the key file {0} belongs to another user (uid {1}), who can change it")]
    Foreign(PathBuf, u32),
    /// What is in it is no ring of keys.
    #[error("the key file {0}: {1}")]
    Malformed(PathBuf, String),
    /// All sixteen ids are taken.
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
pub fn load(source: &KeySource) -> Result<KeyRing, KeysError> {
    match source {
        KeySource::Given(ring) => Ok(ring.clone()),
        KeySource::File(path) => {
            let text = read(path)?;
            KeyRing::parse(&text).map_err(|error| KeysError::Malformed(path.clone(), error.to_string()))
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
    if fs::symlink_metadata(path).is_ok() {
        return Ok(false);
    }
    let line = fresh(0)?.to_line();
    let text = Zeroizing::new(format!("{FILE_HEAD}{}\n", *line));
    let written = write_aside(path, &text)?;
    // A link, unlike a rename, does not replace what another process has put there meanwhile.
    let linked = fs::hard_link(&written.0, path);
    match linked {
        Ok(()) => sync_folder(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(KeysError::Io(path.to_owned(), "made", error)),
    }
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
    let text = read(path)?;
    let malformed = |error: baton_core::token::KeyRingError| KeysError::Malformed(path.to_owned(), error.to_string());
    let keys = parse_keys(&text).map_err(malformed)?;
    let newest = keys.first().map_or(15, Key::id);
    // Not the lowest free one: an id that was retired is not used again until all others have been.
    let id = (1..=16).map(|step| (newest + step) % 16).find(|id| keys.iter().all(|key| key.id() != *id));
    let id = id.ok_or_else(|| KeysError::Full(path.to_owned()))?;

    let line = fresh(id)?.to_line();
    let text = Zeroizing::new(with_key_in_front(&text, &line));
    let written = write_aside(path, &text)?;
    fs::rename(&written.0, path).map_err(|error| KeysError::Io(path.to_owned(), "replaced", error))?;
    sync_folder(path)?;
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
    let at: usize = text.split_inclusive('\n').take_while(|line| !is_key(line)).map(str::len).sum();
    let (head, keys) = text.split_at(at);
    let gap = if head.is_empty() || head.ends_with('\n') { "" } else { "\n" };
    format!("{head}{gap}{line}\n{keys}")
}

fn fresh(id: u8) -> Result<Key, KeysError> {
    let mut secret = Zeroizing::new([0; KEY_LEN]);
    OsRandom.fill(secret.as_mut_slice()).map_err(|error| KeysError::Random(error.to_string()))?;
    Key::new(id, *secret).map_err(|error| KeysError::Random(error.to_string()))
}

fn read(path: &Path) -> Result<Zeroizing<String>, KeysError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => KeysError::Missing(path.to_owned()),
        _ => KeysError::Io(path.to_owned(), "read", error),
    };
    // Opened first and asked about through the handle, so that it is this file that was found safe; and looked at before
    // it is opened, because opening a pipe would wait for somebody to write to it.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(KeysError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(KeysError::Open(path.to_owned(), metadata.mode() & 0o7777));
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user && metadata.uid() != 0 {
        return Err(KeysError::Foreign(path.to_owned(), metadata.uid()));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len().min(MAX_BYTES) as usize + 1));
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    let text = str::from_utf8(&bytes).map_err(|_| KeysError::Malformed(path.to_owned(), "it is not text".into()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A file beside the one that is meant, removed when this goes unless it has been renamed.
struct Aside(PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes `text` to a new file beside `path`, readable by its owner alone, and sees it onto the disk.
fn write_aside(path: &Path, text: &str) -> Result<Aside, KeysError> {
    let mut tag = [0; 8];
    OsRandom.fill(&mut tag).map_err(|error| KeysError::Random(error.to_string()))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.new", u64::from_ne_bytes(tag)));
    let aside = path.with_file_name(name);

    let failed = |error| KeysError::Io(path.to_owned(), "written", error);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside).map_err(failed)?;
    let aside = Aside(aside);
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(aside)
}

/// Makes a new name in a folder survive a power cut.
fn sync_folder(path: &Path) -> Result<(), KeysError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| KeysError::Io(path.to_owned(), "written", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(path: &Path) -> Vec<u8> {
        parse_keys(&read(path).unwrap()).unwrap().iter().map(Key::id).collect()
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
        let first = KeyRing::parse(&read(&path).unwrap()).unwrap();
        add(&path).unwrap();
        add(&path).unwrap();
        assert_eq!(ids(&path), [2, 1, 0]);
        assert!(fs::read_to_string(&path).unwrap().starts_with("# The keys"));
        let now = KeyRing::parse(&read(&path).unwrap()).unwrap();
        assert_eq!(now.fingerprints().last(), first.fingerprints().last());
        for _ in 3..16 {
            add(&path).unwrap();
        }
        assert!(matches!(add(&path), Err(KeysError::Full(_))));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }
}
