//! Where the keys are.

use std::path::PathBuf;

use baton_core::KeyRing;
use baton_core::token::parse_keys;

use super::reader::Reader;
use super::values::{ENV_KEYS, Origin, Values};

/// Where the keys are.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// They were given in the environment.
    Given(KeyRing),
}

pub(super) fn read(reader: &mut Reader<'_>, values: &Values, env: &[(String, String)]) -> KeySource {
    const KEY: &str = "keys.file";
    let file = reader.text(KEY);
    if parse_keys(&file).is_ok_and(|keys| !keys.is_empty()) {
        reader.refuse_unseen(KEY, "is a key; it has to be the path of a file that holds it");
    } else if file.is_empty() {
        reader.refuse(KEY, "must not be empty");
    }
    let Some((_, text)) = env.iter().find(|(name, _)| name == ENV_KEYS) else {
        return KeySource::File(file.into());
    };
    let chosen = values.get(None, KEY).is_some_and(|entry| !matches!(entry.origin, Origin::Default | Origin::Preset));
    if chosen {
        reader.refuse(KEY, format!("{ENV_KEYS} is set as well; which of the two holds the keys?"));
    }
    match KeyRing::parse(text) {
        Ok(ring) => KeySource::Given(ring),
        Err(error) => {
            reader.refuse_other(ENV_KEYS, error);
            KeySource::File(file.into())
        }
    }
}
