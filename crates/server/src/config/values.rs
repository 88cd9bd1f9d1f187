//! Where settings come from: the documented defaults, what `baton dev` presets, a file, the environment, the command line.
//! Each value remembers its origin, so that a complaint can name it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Problems};
use super::realms;

/// The documented default file: what the program starts from and what `baton config print` prints.
pub const DEFAULT_FILE: &str = include_str!("../../default.toml");

/// The prefix of environment variables that hold settings.
const ENV_PREFIX: &str = "BATON_";
/// Holds the text of a key file and is no setting.
pub(super) const ENV_KEYS: &str = "BATON_KEYS";
/// The same for those of JWTs.
pub(super) const ENV_JWT_KEYS: &str = "BATON_JWT_KEYS";

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
    const fn default_of(value: Value) -> Self {
        Self { value, typed: None, origin: Origin::Default }
    }

    /// As it is shown in a complaint: short, and on one line.
    pub(super) fn shown(&self) -> String {
        let text = self.typed.as_ref().map_or_else(|| self.value.to_string(), |typed| format!("{typed:?}"));
        match text.char_indices().nth(80) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

/// What further realms are described below, `realms.NAME`.
const REALMS: &str = "realms";
/// The list of tables with the backends.
pub(super) const UPSTREAM: &str = "upstream";

/// All values, by the name of the setting (`server.listen`).
#[derive(Debug, Clone)]
pub(super) struct Values {
    top: BTreeMap<String, Entry>,
    /// What further realms set themselves, by their names.
    realms: BTreeMap<String, BTreeMap<String, Entry>>,
}

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
        let mut values = Self::from_text(DEFAULT_FILE);
        // Not in the file: whoever copies it could not add one.
        values.top.insert(UPSTREAM.to_owned(), Entry::default_of(Value::Array(Vec::new())));
        values
    }

    fn from_text(text: &str) -> Self {
        let mut values = Self { top: BTreeMap::new(), realms: BTreeMap::new() };
        // A test parses these texts; they are part of the program.
        if let Ok(table) = text.parse::<toml::Table>() {
            let mut leaves = Vec::new();
            flatten(String::new(), Value::Table(table), &mut leaves);
            values.top.extend(leaves.into_iter().map(|(key, value)| (key, Entry::default_of(value))));
        }
        values
    }

    /// Those of one table of a list, over its defaults.
    pub(super) fn of_table(defaults: &str, table: &toml::Table, origin: &Origin, problems: &mut Problems) -> Self {
        let mut values = Self::from_text(defaults);
        values.put_typed_table("", table.clone(), origin, problems);
        values
    }

    /// Names of all settings.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.top.keys().map(String::as_str)
    }

    /// Names of the further realms.
    pub(super) fn realms(&self) -> impl Iterator<Item = &str> {
        self.realms.keys().map(String::as_str)
    }

    /// A setting as this further realm has it, or the top level.
    pub(super) fn get(&self, realm: Option<&str>, key: &str) -> Option<&Entry> {
        self.find(realm, key).1
    }

    /// The same, with the full name under which it was found.
    pub(super) fn find(&self, realm: Option<&str>, key: &str) -> (String, Option<&Entry>) {
        match realm.and_then(|realm| self.realms.get(realm)?.get(key)) {
            Some(own) => (full_name(realm, key), Some(own)),
            None => (full_name(None, key), self.top.get(key)),
        }
    }

    /// Drops the value of a setting that has been read, so that no copy of a secret stays behind.
    pub(super) fn forget(&mut self, key: &str) {
        if let Some(entry) = self.top.get_mut(key) {
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
        self.note_realm(above);
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
            if name == ENV_KEYS || name == ENV_JWT_KEYS || is_service_link(rest) {
                continue;
            }
            let key = self.key_of_variable(&rest.to_ascii_lowercase().replace("__", "."));
            self.put_typed(&key, value, Origin::Env(name.clone()), problems);
        }
    }

    /// The name of a setting that stands so in the name of a variable, which can hold neither a dash nor small letters.
    fn key_of_variable(&self, lower: &str) -> String {
        let (realm, key) = in_realm(lower).map_or((None, lower), |(realm, key)| (Some(realm), key));
        // A realm that only a variable tells of is called as the variable has it.
        let realm = realm.map(|realm| {
            let is_meant = |known: &&str| known.to_ascii_lowercase().replace('-', "_") == realm;
            if self.realms.contains_key(realm) { realm } else { self.realms().find(is_meant).unwrap_or(realm) }
        });
        full_name(realm, self.names().find(|known| known.replace('-', "_") == key).unwrap_or(key))
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
            Value::Table(table) if self.is_table(key) => self.put_typed_table(key, table, &origin, problems),
            value => {
                self.put(key.to_owned(), Entry { value, typed: Some(typed.to_owned()), origin }, problems);
            }
        }
    }

    fn put_typed_table(&mut self, above: &str, table: toml::Table, origin: &Origin, problems: &mut Problems) {
        self.note_realm(above);
        for (name, value) in table {
            let key = join(above, &name);
            match value {
                Value::Table(inner) if self.is_table(&key) => self.put_typed_table(&key, inner, origin, problems),
                value => self.put(key, Entry { value, typed: None, origin: origin.clone() }, problems),
            }
        }
    }

    /// A realm is one even if its table is empty.
    fn note_realm(&mut self, table: &str) {
        if let Some(realm) = realm_table(table) {
            self.realms.entry(realm.to_owned()).or_default();
        }
    }

    fn put(&mut self, key: String, entry: Entry, problems: &mut Problems) {
        match in_realm(&key) {
            Some((realm, key)) if realms::has(key) && self.top.contains_key(key) => {
                self.realms.entry(realm.to_owned()).or_default().insert(key.to_owned(), entry);
                return;
            }
            _ => {}
        }
        if let Some(known) = self.top.get_mut(&key) {
            *known = entry;
            return;
        }
        let why = self.why_unknown(&key);
        // Without its value: what is in the wrong place may be a secret.
        problems.add(Problem::new(key, why).from(entry.origin));
    }

    /// Whether settings are below this name.
    fn is_table(&self, key: &str) -> bool {
        if key == REALMS || realm_table(key).is_some() {
            return true;
        }
        let below = format!("{}.", in_realm(key).map_or(key, |(_, key)| key));
        self.top.range(below.clone()..).next().is_some_and(|(name, _)| name.starts_with(&below))
    }

    fn why_unknown(&self, key: &str) -> String {
        if key == REALMS || realm_table(key).is_some() {
            return "is a table, not a value; a further realm is a table [realms.NAME] with settings of its own".into();
        }
        if let Some((realm, key)) = in_realm(key) {
            return self.why_unknown_in(realm, key);
        }
        if self.is_table(key) {
            return format!("is a table, not a value; it holds {}", self.below(key).join(", "));
        }
        if let Some(value) = self.names().find(|name| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
        {
            return format!("there is no such setting; {value} is a value, not a table");
        }
        no_such_setting(self.closest(key))
    }

    fn why_unknown_in(&self, realm: &str, key: &str) -> String {
        if key == "realm" {
            return "the name of a further realm is that of its table".into();
        }
        let below = self.below(key);
        let of_realm: Vec<&str> = below.iter().copied().filter(|name| realms::has(name)).collect();
        if self.top.contains_key(key) || !below.is_empty() && of_realm.is_empty() {
            return format!("is the whole server's and the same for every realm; set {key} itself");
        }
        if !below.is_empty() {
            return format!("is a table, not a value; it holds {}", of_realm.join(", "));
        }
        no_such_setting(self.closest(key).filter(|name| realms::has(name)).map(|name| full_name(Some(realm), &name)))
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

fn no_such_setting(closest: Option<String>) -> String {
    match closest {
        Some(name) => format!("there is no such setting; did you mean {name}?"),
        None => "there is no such setting (`baton config print` lists all)".into(),
    }
}

/// The full name of a setting of this further realm, or of the top level.
pub(super) fn full_name(realm: Option<&str>, key: &str) -> String {
    realm.map_or_else(|| key.to_owned(), |realm| format!("{REALMS}.{realm}.{key}"))
}

/// The further realm and the setting that a full name names.
fn in_realm(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(REALMS)?.strip_prefix('.')?.split_once('.')
}

/// The further realm whose table has this name.
fn realm_table(name: &str) -> Option<&str> {
    name.strip_prefix(REALMS)?.strip_prefix('.').filter(|realm| !realm.contains('.'))
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
