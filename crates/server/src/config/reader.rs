//! From values to types, one setting at a time. What does not fit is noted and a stand-in returned, so that all complaints
//! come together; with a complaint noted, nothing that was read is used.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Value;

use super::problem::{Problem, Problems};
use super::values::{Entry, Origin, Values, full_name};

pub(super) struct Reader<'v> {
    values: &'v Values,
    /// The further realm whose settings are being read. What it does not set, it has from the top level.
    realm: Option<&'v str>,
    problems: Problems,
    #[cfg(test)]
    pub(super) read: std::collections::BTreeSet<String>,
}

impl<'v> Reader<'v> {
    pub(super) const fn new(values: &'v Values, problems: Problems) -> Self {
        Self {
            values,
            realm: None,
            problems,
            #[cfg(test)]
            read: std::collections::BTreeSet::new(),
        }
    }

    pub(super) fn into_problems(self) -> Problems {
        self.problems
    }

    /// Names of the further realms.
    pub(super) fn realms(&self) -> impl Iterator<Item = &'v str> + use<'v> {
        self.values.realms()
    }

    /// Reads settings as this further realm has them; with `None`, those of the top level.
    pub(super) fn within<T>(&mut self, realm: Option<&'v str>, read: impl FnOnce(&mut Self) -> T) -> T {
        let outside = std::mem::replace(&mut self.realm, realm);
        let result = read(self);
        self.realm = outside;
        result
    }

    /// The further realm whose settings are being read.
    pub(super) const fn realm(&self) -> Option<&'v str> {
        self.realm
    }

    /// Whether it sets this itself and does not have it from the top level.
    pub(super) fn is_own(&self, key: &str) -> bool {
        self.name(key) == self.own_name(key)
    }

    /// The full name of a setting, where its value comes from.
    pub(super) fn name(&self, key: &str) -> String {
        self.name_in(self.realm, key)
    }

    /// The same as another realm has it.
    pub(super) fn name_in(&self, realm: Option<&str>, key: &str) -> String {
        self.values.find(realm, key).0
    }

    /// The full name of a setting that is this realm's own.
    pub(super) fn own_name(&self, key: &str) -> String {
        full_name(self.realm, key)
    }

    /// Complains about a setting.
    pub(super) fn refuse(&mut self, key: &str, why: impl Display) {
        self.problems.add(complaint(self.values, self.realm, key, why));
    }

    /// Complains about a setting whose value may be a secret, without showing it.
    pub(super) fn refuse_unseen(&mut self, key: &str, why: impl Display) {
        self.problems.add(Problem { value: None, ..complaint(self.values, self.realm, key, why) });
    }

    /// Complains about something that is no setting.
    pub(super) fn refuse_other(&mut self, name: &str, why: impl Display) {
        self.problems.add(Problem::new(name, why.to_string()));
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &str) -> bool {
        match self.entry(key).map(|entry| &entry.value) {
            Some(Value::Boolean(value)) => *value,
            _ => {
                self.refuse(key, "has to be true or false");
                false
            }
        }
    }

    /// `true`, `false` or a word that the caller has looked for.
    pub(super) fn flag_or(&mut self, key: &str, word: &str) -> bool {
        match self.entry(key).map(|entry| &entry.value) {
            Some(Value::Boolean(value)) => *value,
            _ => {
                self.refuse(key, format!("has to be true, false or {word:?}"));
                false
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn number<T>(&mut self, key: &str, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let given = match self.entry(key).map(|entry| &entry.value) {
            Some(Value::Integer(number)) => T::try_from(*number).ok(),
            _ => None,
        };
        given.filter(|number| range.contains(number)).unwrap_or_else(|| {
            self.refuse(key, format!("has to be a whole number from {} to {}", range.start(), range.end()));
            *range.start()
        })
    }

    /// A duration within bounds.
    pub(super) fn duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Duration {
        let given = match self.entry(key) {
            Some(entry) => duration(&entry.value),
            None => Err("is missing".into()),
        };
        let why = match given {
            Ok(given) if range.contains(&given) => return given,
            Ok(_) => format!("has to be from {} to {}", shown(*range.start()), shown(*range.end())),
            Err(why) => why,
        };
        self.refuse(key, why);
        *range.start()
    }

    /// A text.
    pub(super) fn text(&mut self, key: &str) -> String {
        match self.entry(key) {
            Some(Entry { value: Value::String(text), .. }) => text.clone(),
            // `--set realm=1`: what looks like a number was typed as a name.
            Some(Entry { typed: Some(typed), .. }) => typed.clone(),
            _ => {
                self.refuse(key, "has to be a text");
                String::new()
            }
        }
    }

    /// Whether the value stands in a command line, which every process of the machine can read.
    pub(super) fn is_typed_in_a_command(&mut self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| matches!(entry.origin, Origin::Flag(_)))
    }

    /// A text that nobody may see: it is not taken from the command line, which every process of the machine can read.
    pub(super) fn secret(&mut self, key: &str) -> String {
        match self.entry(key) {
            Some(Entry { origin: Origin::Flag(_), .. }) => {
                self.refuse_unseen(
                    key,
                    "is a secret, which a command line does not keep; set it in the environment or a file",
                );
            }
            Some(Entry { value: Value::String(text), .. }) => return text.clone(),
            Some(Entry { typed: Some(typed), .. }) => return typed.clone(),
            _ => self.refuse_unseen(key, "has to be a text"),
        }
        String::new()
    }

    /// A list of texts. Typed on the command line it may be `a,b` as well as `["a", "b"]`.
    pub(super) fn list(&mut self, key: &str) -> Vec<String> {
        let texts = match self.entry(key) {
            Some(Entry { value: Value::Array(items), .. }) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
            }
            Some(Entry { value: Value::String(text), typed: Some(_), .. }) => {
                Some(text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
            }
            _ => None,
        };
        texts.unwrap_or_else(|| {
            self.refuse(key, "has to be a list of texts, such as [\"a\", \"b\"]");
            Vec::new()
        })
    }

    /// Tables that stand in a list: `[[KEY]]` in a file. Each takes what it does not set from `defaults`, and knows no setting
    /// that these do not name.
    pub(super) fn tables<T>(
        &mut self,
        key: &str,
        defaults: &str,
        mut read: impl FnMut(&mut Reader<'_>) -> T,
    ) -> Vec<T> {
        let Some(Entry { value: Value::Array(items), origin, .. }) = self.entry(key) else {
            self.refuse(key, format!("has to be a list of tables; in a file each begins with [[{key}]]"));
            return Vec::new();
        };
        let mut all = Vec::new();
        for (item, number) in items.iter().zip(1..) {
            let name = format!("{key}[{number}]");
            let Value::Table(table) = item else {
                self.refuse_other(&name, format!("has to be a table; in a file it begins with [[{key}]]"));
                continue;
            };
            let mut problems = Problems::default();
            let values = Values::of_table(defaults, table, origin, &mut problems);
            let mut reader = Reader::new(&values, problems);
            all.push(read(&mut reader));
            for problem in reader.into_problems().into_vec() {
                self.problems.add(Problem { key: format!("{name}.{}", problem.key), ..problem });
            }
        }
        all
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy, const N: usize>(&mut self, key: &str, words: [(&str, T); N]) -> T {
        let given = match self.entry(key).map(|entry| &entry.value) {
            Some(Value::String(text)) => words.iter().find(|(word, _)| word == text),
            _ => None,
        };
        given.map_or_else(
            || {
                let list: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
                self.refuse(key, format!("has to be one of {}", list.join(", ")));
                words[0].1
            },
            |(_, meaning)| *meaning,
        )
    }

    /// Whether the setting is this text.
    pub(super) fn is(&self, key: &str, word: &str) -> bool {
        self.values.get(self.realm, key).is_some_and(|entry| entry.value.as_str() == Some(word))
    }

    /// Whether the setting is `false`.
    pub(super) fn is_false(&mut self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| entry.value.as_bool() == Some(false))
    }

    fn entry(&mut self, key: &str) -> Option<&'v Entry> {
        #[cfg(test)]
        self.read.insert(key.to_owned());
        self.values.get(self.realm, key)
    }
}

/// A complaint about a setting as a realm has it, under the name where its value comes from.
pub(super) fn complaint(values: &Values, realm: Option<&str>, key: &str, why: impl Display) -> Problem {
    let (name, entry) = values.find(realm, key);
    Problem {
        key: name,
        value: entry.map(Entry::shown),
        origin: entry.map(|entry| entry.origin.clone()),
        message: why.to_string(),
    }
}

/// A duration as people write it: `40 days`, `1h`, `1m 30s`.
pub(super) fn shown(duration: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = duration.as_secs();
    match duration.subsec_nanos() {
        0 if seconds == 0 => "0".into(),
        // humantime would make months of 30.44 days of them.
        0 if seconds.is_multiple_of(DAY) => format!("{} days", seconds / DAY),
        _ => humantime::format_duration(duration).to_string(),
    }
}

fn duration(value: &Value) -> Result<Duration, String> {
    const NEGATIVE: &str = "must not be negative";
    const TOO_LONG: &str = "is too long";
    let given = match value {
        Value::Integer(seconds) => Duration::from_secs(u64::try_from(*seconds).map_err(|_| NEGATIVE)?),
        Value::Float(seconds) if seconds.is_nan() => return Err("is not a number".into()),
        Value::Float(seconds) if *seconds < 0.0 => return Err(NEGATIVE.into()),
        Value::Float(seconds) => Duration::try_from_secs_f64(*seconds).map_err(|_| TOO_LONG)?,
        Value::String(text) if text.trim().is_empty() => return Err("must not be empty".into()),
        Value::String(text) if text.trim_start().starts_with('-') => return Err(NEGATIVE.into()),
        Value::String(text) => humantime::parse_duration(text.trim()).map_err(|error| match error {
            humantime::DurationError::NumberOverflow => TOO_LONG.to_owned(),
            error => format!("is not a duration ({error}); write seconds, or a text such as \"5s\" or \"2 weeks\""),
        })?,
        _ => return Err("has to be a duration: seconds, or a text such as \"5s\" or \"2 weeks\"".into()),
    };
    // Times are kept in milliseconds; what is shorter would silently become nothing.
    if !given.is_zero() && given < Duration::from_millis(1) {
        return Err("is shorter than a millisecond".into());
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let of = |text: &str| duration(&format!("v = {text}").parse::<toml::Table>().unwrap()["v"]);
        let ok = |text: &str, millis: u64| assert_eq!(of(text), Ok(Duration::from_millis(millis)), "{text}");
        ok("0", 0);
        ok("5", 5_000);
        ok("0.1", 100);
        ok("-0.0", 0);
        ok(r#""500ms""#, 500);
        ok(r#"" 5s ""#, 5_000);
        ok(r#""1h 30m""#, 5_400_000);
        ok(r#""2 weeks""#, 14 * 86_400_000);
        ok(r#""0s""#, 0);
        for (text, why) in [
            ("-1", "negative"),
            ("-0.1", "negative"),
            ("-inf", "negative"),
            ("nan", "not a number"),
            ("inf", "too long"),
            ("1e300", "too long"),
            (r#""""#, "empty"),
            (r#""  ""#, "empty"),
            (r#""-5s""#, "negative"),
            (r#""5""#, "is not a duration"),
            (r#""5 parsecs""#, "is not a duration"),
            (r#""soon""#, "is not a duration"),
            (r#""99999999999999999999s""#, "too long"),
            ("0.0001", "shorter than a millisecond"),
            ("true", "has to be a duration"),
            ("[5]", "has to be a duration"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
