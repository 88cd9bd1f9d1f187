//! What stands for what: the recording's placeholders and literal values, and the values of the server under test.

use std::collections::BTreeMap;

use serde_json::Value;

/// What one replay has learnt so far.
#[derive(Debug, Default)]
pub struct Names {
    /// Ours by their names in the recording: `token1`, `client2`, `expiry1`.
    known: BTreeMap<String, String>,
    /// Ours by what the recording shows where it shows the very value: in `Location` and under other header names.
    literal: BTreeMap<String, String>,
    /// The newest token and client of those. The recording goes on with a placeholder for them.
    unnamed: BTreeMap<&'static str, String>,
}

impl Names {
    pub fn learn(&mut self, name: &str, ours: &str) {
        self.known.insert(name.to_owned(), ours.to_owned());
    }

    pub fn get(&self, name: &str) -> Option<&String> {
        self.known.get(name)
    }

    /// `kind` is "token" or "client" for what later gets a name.
    pub fn learn_literal(&mut self, kind: Option<&'static str>, recorded: &str, ours: &str) {
        self.literal.insert(recorded.to_owned(), ours.to_owned());
        if let Some(kind) = kind {
            self.unnamed.insert(kind, ours.to_owned());
        }
    }

    /// The text with our values. A token that the server never issued becomes one of `size` characters that it never would.
    pub fn fill(&mut self, text: &str, size: usize) -> String {
        let mut text = literal_emails(text);
        for (recorded, ours) in &self.literal {
            text = text.replace(recorded, ours);
        }
        let names: Vec<String> = placeholders(&text).map(str::to_owned).collect();
        for name in names {
            let value = self.value(&name, size);
            text = text.replace(&format!("{{{name}}}"), &value);
        }
        text
    }

    fn value(&mut self, name: &str, size: usize) -> String {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let (kind, number) = name.split_at(name.trim_end_matches(|c: char| c.is_ascii_digit()).len());
        let value = match kind {
            "email" => return email(number),
            "id" => return "1".to_owned(),
            "token" | "client" => self.unnamed.remove(kind).unwrap_or_else(|| "x".repeat(size)),
            _ => return "0".to_owned(),
        };
        self.learn(name, &value);
        value
    }

    /// The same for all texts within a JSON value.
    pub fn fill_json(&mut self, value: &Value, size: usize) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text, size)),
            Value::Array(items) => items.iter().map(|item| self.fill_json(item, size)).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(key, field)| (key.clone(), self.fill_json(field, size))).collect()
            }
            other => other.clone(),
        }
    }
}

/// The names of the placeholders in a text.
pub fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        is_name.then_some(name)
    })
}

/// Addresses that the recording shows as they were, in capitals or within base64: `R15_1795290229@EXAMPLE.COM`. There the
/// number is that of the placeholder where a scenario has many accounts; where it has one, [`super::replay`] says so.
fn literal_emails(text: &str) -> String {
    let mut rest = text;
    let mut filled = String::new();
    while let Some(at) = rest.find(['R', 'r']) {
        let (before, from) = rest.split_at(at);
        let upper = from.starts_with('R');
        let domain = if upper { "@EXAMPLE.COM" } else { "@example.com" };
        let end = from.find(domain).filter(|end| from[1..*end].chars().all(|c| c.is_ascii_digit() || c == '_'));
        filled.push_str(before);
        let taken = match end {
            Some(end) => {
                let number = from[1..end].split('_').next().unwrap_or_default();
                let address = email(alias(number));
                filled.push_str(&if upper { address.to_uppercase() } else { address });
                end + domain.len()
            }
            None => {
                filled.push_str(&from[..1]);
                1
            }
        };
        rest = &from[taken..];
    }
    filled + rest
}

/// The accounts of the scenarios after the first were numbered on; each of those scenarios has one account of this kind.
fn alias(number: &str) -> &str {
    if number.parse::<u32>().is_ok_and(|number| number <= 21) { number } else { "1" }
}

/// The address that `{email1}` stands for.
pub fn email(number: &str) -> String {
    format!("r{number}@example.com")
}
