//! The sentences of one language, from one TOML file. What may stand there: `templates/README.md`.

use std::collections::BTreeMap;

use baton_core::letter::Occasion;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::templates::TemplateError;

/// By key: `greeting`, `confirm_email.subject`, …
pub(crate) type Catalogue = BTreeMap<String, Sentence>;

/// One sentence, and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Sentence {
    /// A template.
    pub source: String,
    pub file: String,
    /// The line on which it begins.
    pub line: usize,
}

/// The keys that every letter shares.
const COMMON: [&str; 8] = [
    "greeting",
    "greeting_with_name",
    "button_fails",
    "lifetime_minutes",
    "lifetime_hours",
    "lifetime_days",
    "closing",
    "footer",
];

/// Every key that a complete language has.
pub(crate) fn keys() -> impl Iterator<Item = String> {
    let own = Occasion::ALL.into_iter().flat_map(|occasion| {
        let parts = ["subject", "body", "notice"].into_iter().chain(has_link(occasion).then_some("button"));
        parts.map(move |part| format!("{}.{part}", occasion.as_str()))
    });
    COMMON.into_iter().map(str::to_owned).chain(own)
}

/// The variables that a sentence may name.
pub(crate) fn variables(key: &str) -> Vec<&'static str> {
    let mut variables = vec!["product", "realm", "email", "name"];
    let occasion = key.split_once('.').and_then(|(occasion, _)| Occasion::parse(occasion));
    if occasion.is_some_and(names_new_email) {
        variables.push("new_email");
    }
    if key.starts_with("lifetime_") {
        variables.push("count");
    }
    variables
}

pub(crate) const fn has_link(occasion: Occasion) -> bool {
    match occasion {
        Occasion::ConfirmEmail | Occasion::ConfirmNewEmail | Occasion::ResetPassword | Occasion::UnlockAccount => true,
        Occasion::EmailChangeRequested
        | Occasion::EmailChanged
        | Occasion::PasswordChanged
        | Occasion::AlreadyRegistered => false,
    }
}

pub(crate) const fn names_new_email(occasion: Occasion) -> bool {
    matches!(occasion, Occasion::EmailChangeRequested | Occasion::EmailChanged)
}

/// Reads a file. It need not be complete, but must not hold anything else.
pub(crate) fn parse(file: &str, text: &str) -> Result<Catalogue, TemplateError> {
    let broken =
        |at: usize, reason: String| TemplateError::Broken { file: file.to_owned(), line: line_of(text, at), reason };
    let table = DeTable::parse(text)
        .map_err(|error| broken(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;

    let mut catalogue = Catalogue::new();
    for (key, value) in leaves(table.get_ref()) {
        if !keys().any(|known| known == key) {
            return Err(broken(value.span().start, format!("`{key}` is not the key of a sentence")));
        }
        let DeValue::String(source) = value.get_ref() else {
            return Err(broken(value.span().start, format!("`{key}` has to be a string")));
        };
        let line = line_of(text, value.span().start) + usize::from(begins_on_next_line(&text[value.span()]));
        catalogue.insert(key, Sentence { source: source.to_string(), file: file.to_owned(), line });
    }
    Ok(catalogue)
}

/// The keys and values of the file, with the tables flattened.
fn leaves<'a, 'i>(table: &'a DeTable<'i>) -> Vec<(String, &'a Spanned<DeValue<'i>>)> {
    let mut leaves = Vec::new();
    for (key, value) in table {
        let key = key.get_ref();
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => {
                leaves.extend(leaves_below(key, inner));
            }
            _ => leaves.push((key.to_string(), value)),
        }
    }
    leaves
}

fn leaves_below<'a, 'i>(key: &str, table: &'a DeTable<'i>) -> Vec<(String, &'a Spanned<DeValue<'i>>)> {
    leaves(table).into_iter().map(|(below, value)| (format!("{key}.{below}"), value)).collect()
}

/// A multi-line string leaves its first line break out.
fn begins_on_next_line(raw: &str) -> bool {
    ["\"\"\"", "'''"]
        .iter()
        .any(|quotes| raw.strip_prefix(quotes).is_some_and(|rest| rest.starts_with('\n') || rest.starts_with("\r\n")))
}

/// Counted from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count()
}
