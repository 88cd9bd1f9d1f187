//! Files that hold keys: seen to be their owner's alone, and replaced as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use baton_core::Random as _;
use baton_engine::OsRandom;
use zeroize::Zeroizing;

use super::KeysError;

/// Most bytes of a key file: sixteen keys take less than four kilobytes.
const MAX_BYTES: u64 = 64 * 1024;

/// What is in a file; `None` if there is none.
///
/// # Errors
/// [`KeysError`]: it cannot be read, is no file or no text, or others may read or change it.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<String>>, KeysError> {
    let failed = |error| KeysError::Io(path.to_owned(), "read", error);
    // Opened first and asked about through the handle, so that it is this file that was found safe; and looked at before
    // it is opened, because opening a pipe would wait for somebody to write to it.
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.is_file() => return Err(KeysError::NotAFile(path.to_owned())),
        Ok(_) => {}
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
    Ok(Some(Zeroizing::new(text.to_owned())))
}

/// Makes a file unless there is one already, which is left alone. True if it was made.
///
/// The file appears under its name only when it is complete and on the disk.
pub(super) fn make(
    path: &Path,
    text: impl FnOnce() -> Result<Zeroizing<String>, KeysError>,
) -> Result<bool, KeysError> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(false);
    }
    let written = write_aside(path, &text()?)?;
    // A link, unlike a rename, does not replace what another process has put there meanwhile.
    let linked = fs::hard_link(&written.0, path);
    match linked {
        Ok(()) => sync_folder(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(KeysError::Io(path.to_owned(), "made", error)),
    }
}

/// Puts another text in the place of a file's.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), KeysError> {
    let written = write_aside(path, text)?;
    fs::rename(&written.0, path).map_err(|error| KeysError::Io(path.to_owned(), "replaced", error))?;
    sync_folder(path)
}

/// A text with `new` before the first line that begins a key. What stands above it stays there.
pub(super) fn with_in_front(text: &str, is_key: impl Fn(&str) -> bool, new: &str) -> String {
    let at: usize = text.split_inclusive('\n').take_while(|line| !is_key(line)).map(str::len).sum();
    let (head, keys) = text.split_at(at);
    let gap = if head.is_empty() || head.ends_with('\n') { "" } else { "\n" };
    format!("{head}{gap}{new}{keys}")
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
