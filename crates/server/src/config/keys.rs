//! Where the keys are.

use std::fmt::Display;
use std::path::PathBuf;

use baton_core::KeyRing;
use baton_core::token::parse_keys;

use super::reader::Reader;
use super::values::{ENV_KEYS, Origin, Values};

/// Where keys are.
#[derive(Debug, Clone)]
pub enum KeySource<K> {
    /// In a file.
    File(PathBuf),
    /// They were given in the environment.
    Given(K),
}

/// Those that tokens are signed with.
pub(super) fn read(reader: &mut Reader<'_>, values: &Values, env: &[(String, String)]) -> KeySource<KeyRing> {
    let is_key = |text: &str| parse_keys(text).is_ok_and(|keys| !keys.is_empty());
    source(reader, values, env, ("keys.file", ENV_KEYS), is_key, KeyRing::parse)
}

/// The file that a setting names, or what a variable holds instead. `is_key`: whether a text is a key and no path.
pub(super) fn source<K, E: Display>(
    reader: &mut Reader<'_>,
    values: &Values,
    env: &[(String, String)],
    (key, variable): (&'static str, &'static str),
    is_key: impl FnOnce(&str) -> bool,
    parse: impl FnOnce(&str) -> Result<K, E>,
) -> KeySource<K> {
    let file = reader.text(key);
    if is_key(&file) {
        reader.refuse_unseen(key, "is a key; it has to be the path of a file that holds it");
    } else if file.is_empty() {
        reader.refuse(key, "must not be empty");
    }
    let Some((_, text)) = env.iter().find(|(name, _)| name == variable) else {
        return KeySource::File(file.into());
    };
    let chosen = values.get(None, key).is_some_and(|entry| !matches!(entry.origin, Origin::Default | Origin::Preset));
    if chosen {
        reader.refuse(key, format!("{variable} is set as well; which of the two holds the keys?"));
    }
    match parse(text) {
        Ok(keys) => KeySource::Given(keys),
        Err(error) => {
            reader.refuse_other(variable, error);
            KeySource::File(file.into())
        }
    }
}
