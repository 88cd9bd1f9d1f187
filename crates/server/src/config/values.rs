//! Where settings come from: the documented defaults, what `baton dev` presets, a file, the environment, the command line.
//! Each value remembers its origin, so that a complaint can name it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Problems};

/// The documented default file: what the program starts from and what `baton config print` prints.
pub const DEFAULT_FILE: &str = include_str!("../../default.toml");

/// The prefix of environment variables that hold settings.
const ENV_PREFIX: &str = "BATON_";
/// Holds the text of a key file and is no setting.
pub(super) const ENV_KEYS: &str = "BATON_KEYS";

/// What to read settings from, besides the defaults. Later fields win over earlier ones.
/// `Debug` shows the names of variables and settings and not their values: one of them may hold a secret.
#[derive(Clone, Default)]
pub struct Sources {
    /// What `baton dev` presets, as `(key, value)`.
    pub presets: Vec<(&'static str, String)>,
    /// The file of `--config`.
    pub file: Option<PathBuf>,
    /// The environment, as names and values; those that do not begin with `BATON_` are passed over.
    pub env: Vec<(String, String)>,
    /// Flags of their own, as `(flag, key, value)`.
    pub flags: Vec<(&'static str, &'static str, String)>,
    /// Each `--set`, as `key=value`.
    pub set: Vec<String>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        let set: Vec<&str> = self.set.iter().map(|set| set.split('=').next().unwrap_or_default()).collect();
        f.debug_struct("Sources")
            .field("presets", &self.presets)
            .field("file", &self.file)
            .field("env", &variables)
            .field("flags", &self.flags)
            .field("set", &set)
            .finish()
    }
}

/// Where a value was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `default.toml`.
    Default,
    /// What `baton dev` presets.
    Preset,
    /// A line of a file.
    File(PathBuf, usize),
    /// An environment variable.
    Env(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset => f.write_str("preset of baton dev"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A value with its origin.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) value: Value,
    /// As it was typed, where it comes from an environment variable or a flag: what a text setting takes, so that
    /// `--set realm=1` is the text `1`.
    pub(super) typed: Option<String>,
    pub(super) origin: Origin,
}

impl Entry {
    /// As it is shown in a complaint: short, and on one line.
    pub(super) fn shown(&self) -> String {
        let text = self.typed.as_ref().map_or_else(|| self.value.to_string(), |typed| format!("{typed:?}"));
        match text.char_indices().nth(80) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

/// All values, by their full name (`server.listen`).
#[derive(Debug, Clone)]
pub(super) struct Values(BTreeMap<String, Entry>);

impl Values {
    /// Reads all sources, one over the other. Unknown names go to `problems`.
    pub(super) fn read(sources: &Sources, problems: &mut Problems) -> Self {
        let mut values = Self::defaults();
        for (key, value) in &sources.presets {
            values.put_typed(key, value, Origin::Preset, problems);
        }
        if let Some(path) = &sources.file {
            values.put_file(path, problems);
        }
        values.put_env(&sources.env, problems);
        for (flag, key, value) in &sources.flags {
            values.put_typed(key, value, Origin::Flag(flag), problems);
        }
        for assignment in &sources.set {
            let origin = Origin::Flag("--set");
            match assignment.split_once('=') {
                Some((key, value)) => values.put_typed(key.trim(), value, origin, problems),
                None => problems.add(Problem::new("--set", format!("{assignment:?} has to be key=value"))),
            }
        }
        values
    }

    fn defaults() -> Self {
        let mut values = Self(BTreeMap::new());
        // A test parses this file; it is part of the program.
        if let Ok(table) = DEFAULT_FILE.parse::<toml::Table>() {
            let mut leaves = Vec::new();
            flatten(String::new(), Value::Table(table), &mut leaves);
            for (key, value) in leaves {
                values.0.insert(key, Entry { value, typed: None, origin: Origin::Default });
            }
        }
        values
    }

    /// Names of all settings.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.0.get(key)
    }

    /// Drops the value of a setting that has been read, so that no copy of a secret stays behind.
    pub(super) fn forget(&mut self, key: &str) {
        if let Some(entry) = self.0.get_mut(key) {
            entry.value = Value::String(String::new());
            entry.typed = None;
        }
    }

    fn put_file(&mut self, path: &Path, problems: &mut Problems) {
        let about = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return problems.add(Problem::new(about, format!("the file cannot be read: {error}"))),
        };
        let line_of = |at: usize| text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        let table = match DeTable::parse(&text) {
            Ok(table) => table,
            Err(error) => {
                // Not as the error displays itself: with the line, which may hold a secret.
                let line = error.span().map_or(1, |span| line_of(span.start));
                return problems.add(Problem::new(about, format!("is not TOML: line {line}: {}", error.message())));
            }
        };
        self.put_table("", table.get_ref(), path, &line_of, problems);
    }

    fn put_table(
        &mut self,
        above: &str,
        table: &DeTable<'_>,
        path: &Path,
        line_of: &dyn Fn(usize) -> usize,
        problems: &mut Problems,
    ) {
        for (name, value) in table {
            let key = join(above, name.get_ref());
            let origin = Origin::File(path.to_owned(), line_of(name.span().start));
            match value.get_ref() {
                DeValue::Table(inner) if self.is_table(&key) => self.put_table(&key, inner, path, line_of, problems),
                value => match plain(value) {
                    Ok(value) => self.put(key, Entry { value, typed: None, origin }, problems),
                    Err(why) => problems.add(Problem::new(key, why).from(origin)),
                },
            }
        }
    }

    fn put_env(&mut self, env: &[(String, String)], problems: &mut Problems) {
        for (name, value) in env {
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
            if name == ENV_KEYS || is_service_link(rest) {
                continue;
            }
            let lower = rest.to_ascii_lowercase().replace("__", ".");
            // A dash cannot be in the name of a variable.
            let known = self.names().find(|known| known.replace('-', "_") == lower).map(str::to_owned);
            self.put_typed(&known.unwrap_or(lower), value, Origin::Env(name.clone()), problems);
        }
    }

    /// A value that was typed: TOML if it is that, a text otherwise.
    fn put_typed(&mut self, key: &str, typed: &str, origin: Origin, problems: &mut Problems) {
        let value = format!("v = {typed}")
            .parse::<toml::Table>()
            .ok()
            // More than one line could smuggle in a second key.
            .filter(|table| table.len() == 1)
            .and_then(|mut table| table.remove("v"))
            .unwrap_or_else(|| Value::String(typed.to_owned()));
        match value {
            Value::Table(_) if self.is_table(key) => {
                let mut leaves = Vec::new();
                flatten(key.to_owned(), value, &mut leaves);
                for (key, value) in leaves {
                    self.put(key, Entry { value, typed: None, origin: origin.clone() }, problems);
                }
            }
            value => {
                self.put(key.to_owned(), Entry { value, typed: Some(typed.to_owned()), origin }, problems);
            }
        }
    }

    fn put(&mut self, key: String, entry: Entry, problems: &mut Problems) {
        if let Some(known) = self.0.get_mut(&key) {
            *known = entry;
            return;
        }
        let why = self.why_unknown(&key);
        // Without its value: what is in the wrong place may be a secret.
        problems.add(Problem::new(key, why).from(entry.origin));
    }

    /// Whether settings are below this name.
    fn is_table(&self, key: &str) -> bool {
        let below = format!("{key}.");
        self.0.range(below.clone()..).next().is_some_and(|(name, _)| name.starts_with(&below))
    }

    fn why_unknown(&self, key: &str) -> String {
        if self.is_table(key) {
            return format!("is a table, not a value; it holds {}", self.below(key).join(", "));
        }
        if let Some(value) = self.names().find(|name| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
        {
            return format!("there is no such setting; {value} is a value, not a table");
        }
        match self.closest(key) {
            Some(name) => format!("there is no such setting; did you mean {name}?"),
            None => "there is no such setting (`baton config print` lists all)".into(),
        }
    }

    fn below(&self, key: &str) -> Vec<&str> {
        self.names().filter(|name| name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'))).collect()
    }

    fn closest(&self, key: &str) -> Option<String> {
        let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        let likeness = |name: &str| {
            let whole = strsim::jaro_winkler(key, name);
            // `listen` for `server.listen`, `store.file` for `keys.file`.
            let end = strsim::jaro_winkler(&last(key), &last(name)) - 0.02;
            whole.max(end)
        };
        let tables: BTreeSet<&str> = self.names().filter_map(|name| Some(name.split_once('.')?.0)).collect();
        self.names()
            .chain(tables)
            .map(|name| (likeness(name), name))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(likeness, _)| *likeness > 0.86)
            .map(|(_, name)| name.to_owned())
    }
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}

fn flatten(key: String, value: Value, leaves: &mut Vec<(String, Value)>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                flatten(join(&key, &name), value, leaves);
            }
        }
        value => leaves.push((key, value)),
    }
}

/// Without the positions.
fn plain(value: &DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => Value::Integer(
            i64::from_str_radix(number.as_str(), number.radix())
                // Without the number: the quotes of a secret may be missing.
                .map_err(|_| "is too large for a number")?,
        ),
        DeValue::Float(number) => {
            Value::Float(number.as_str().parse().map_err(|_| format!("{number} is not a number"))?)
        }
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(at) => Value::Datetime(*at),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| plain(item.get_ref())).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => Value::Table(
            table
                .iter()
                .map(|(name, value)| Ok((name.get_ref().to_string(), plain(value.get_ref())?)))
                .collect::<Result<_, String>>()?,
        ),
    })
}

/// Variables that Kubernetes and Docker add by themselves when a service is called `baton`, such as `BATON_SERVICE_HOST` and
/// `BATON_PORT_3000_TCP_ADDR`. They are not ours to complain about.
fn is_service_link(rest: &str) -> bool {
    if rest.contains("__") {
        return false;
    }
    let words: Vec<&str> = rest.split('_').collect();
    let service = words.windows(2).any(|pair| pair[0] == "SERVICE" && matches!(pair[1], "HOST" | "PORT"));
    let port = words.iter().position(|word| *word == "PORT").is_some_and(|at| match words.get(at + 1) {
        None => true,
        Some(number) => number.parse::<u16>().is_ok() && matches!(words.get(at + 2), Some(&("TCP" | "UDP" | "SCTP"))),
    });
    service || port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_an_orchestrator_are_told_from_settings() {
        for name in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTP",
            "PORT",
            "PORT_3000_TCP",
            "PORT_3000_TCP_ADDR",
            "WEB_SERVICE_HOST",
        ] {
            assert!(is_service_link(name), "{name}");
        }
        let values = Values::defaults();
        for name in values.names() {
            let upper = name.to_ascii_uppercase().replace('.', "__").replace('-', "_");
            assert!(!is_service_link(&upper), "{upper}");
        }
    }

    #[test]
    fn no_two_settings_share_the_name_of_a_variable() {
        let values = Values::defaults();
        let names: BTreeSet<String> = values.names().map(|name| name.replace('-', "_")).collect();
        assert_eq!(names.len(), values.names().count());
        assert!(!names.contains("keys"), "BATON_KEYS holds the keys themselves");
    }
}
