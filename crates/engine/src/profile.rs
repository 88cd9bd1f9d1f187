//! What an account tells about its owner: fields that are declared, each with its type and limits.

use std::fmt;
use std::str::FromStr as _;

use baton_core::session::Profile;
use jiff::civil::Date;
use serde_json::{Map, Value};
use url::Url;

use crate::Engine;
use crate::register::FieldFaults;

/// A field that an account may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileField {
    name: String,
    kind: FieldKind,
}

impl ProfileField {
    /// From a name, and after a colon what it holds:
    ///
    /// | text | holds |
    /// | --- | --- |
    /// | `name`, `name:text` | text of at most 255 characters |
    /// | `bio:text(500)` | text of at most 500 characters; 1 to 65536 |
    /// | `age:integer(0..150)` | a whole number from 0 to 150, both included |
    /// | `points:integer` | a whole number that JSON is sure to carry, ±(2⁵³ − 1) (RFC 8259 §6) |
    /// | `newsletter:boolean` | true or false |
    /// | `website:url` | an http or https address of at most 2048 characters |
    /// | `birthday:date` | a day, `YYYY-MM-DD` |
    ///
    /// A name is 1 to 64 letters, digits, underscores and dashes, all of them ASCII.
    ///
    /// # Errors
    /// [`InvalidProfileField`] if the text is none of these.
    pub fn parse(declaration: &str) -> Result<Self, InvalidProfileField> {
        let (name, kind) = match declaration.split_once(':') {
            Some((name, kind)) => (name, FieldKind::parse(kind)),
            None => (declaration, Ok(FieldKind::DEFAULT)),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let why = match kind {
            _ if !(1..=64).contains(&name.len()) || !name.chars().all(plain) => {
                "does not begin with a name of 1 to 64 letters, digits, dashes and underscores".into()
            }
            Ok(kind) => return Ok(Self { name: name.to_owned(), kind }),
            Err(why) => why,
        };
        Err(InvalidProfileField { declaration: declaration.to_owned(), why })
    }

    /// A text of at most 255 characters, for a name known to be good.
    pub(crate) fn text(name: &str) -> Self {
        Self { name: name.to_owned(), kind: FieldKind::DEFAULT }
    }

    /// Its name in requests and in the account's JSON.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it holds.
    #[must_use]
    pub const fn kind(&self) -> FieldKind {
        self.kind
    }
}

/// The text that [`ProfileField::parse`] makes it from, in its shortest form.
impl fmt::Display for ProfileField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.kind {
            FieldKind::DEFAULT => Ok(()),
            FieldKind::Text { max_chars } => write!(f, ":text({max_chars})"),
            FieldKind::Integer { min: MIN_INTEGER, max: MAX_INTEGER } => f.write_str(":integer"),
            FieldKind::Integer { min, max } => write!(f, ":integer({min}..{max})"),
            FieldKind::Boolean => f.write_str(":boolean"),
            FieldKind::Url => f.write_str(":url"),
            FieldKind::Date => f.write_str(":date"),
        }
    }
}

/// A text that declares no profile field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{declaration:?} {why}")]
pub struct InvalidProfileField {
    declaration: String,
    why: String,
}

/// What a profile field holds. Any of them may also be null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// Text without control characters but tabs and newlines.
    Text {
        /// Most characters.
        max_chars: usize,
    },
    /// A whole number.
    Integer {
        /// Least.
        min: i64,
        /// Greatest.
        max: i64,
    },
    /// `true` or `false`.
    Boolean,
    /// An absolute http or https URL, kept as it was written.
    Url,
    /// A day of the calendar.
    Date,
}

const MAX_TEXT_CHARS: usize = 65_536;
const MAX_URL_CHARS: usize = 2048;
/// Beyond these JavaScript rounds.
const MAX_INTEGER: i64 = (1 << 53) - 1;
const MIN_INTEGER: i64 = -MAX_INTEGER;

impl FieldKind {
    const DEFAULT: Self = Self::Text { max_chars: 255 };

    fn parse(text: &str) -> Result<Self, String> {
        let (name, argument) = match text.split_once('(') {
            Some((name, rest)) => {
                let argument = rest.strip_suffix(')').ok_or("has a parenthesis that is not closed at the end")?;
                (name, Some(argument))
            }
            None => (text, None),
        };
        match (name, argument) {
            ("text", None) => Ok(Self::DEFAULT),
            ("text", Some(most)) => {
                let max_chars = most.parse().ok().filter(|most| (1..=MAX_TEXT_CHARS).contains(most));
                let max_chars = max_chars
                    .ok_or(format!("needs a number of characters from 1 to {MAX_TEXT_CHARS}, as in bio:text(500)"))?;
                Ok(Self::Text { max_chars })
            }
            ("integer", None) => Ok(Self::Integer { min: MIN_INTEGER, max: MAX_INTEGER }),
            ("integer", Some(range)) => {
                let bound = |text: &str| text.parse().ok().filter(|n| (MIN_INTEGER..=MAX_INTEGER).contains(n));
                let range = range.split_once("..").and_then(|(min, max)| Some((bound(min)?, bound(max)?)));
                let (min, max) = range.filter(|(min, max)| min <= max).ok_or(format!(
                    "needs the least and the greatest number, as in age:integer(0..150), within ±{MAX_INTEGER}"
                ))?;
                Ok(Self::Integer { min, max })
            }
            ("boolean", None) => Ok(Self::Boolean),
            ("url", None) => Ok(Self::Url),
            ("date", None) => Ok(Self::Date),
            ("boolean" | "url" | "date", Some(_)) => Err(format!("gives {name} a limit, which it does not take")),
            _ => Err("has a type that is none of text, integer, boolean, url and date".into()),
        }
    }

    /// The value as it is kept, or what is wrong with it.
    fn keep(self, given: Value) -> Result<Value, String> {
        match self {
            Self::Text { max_chars } => text(given, max_chars),
            // A form has no other way to clear a field.
            _ if given.is_null() || given == "" => Ok(Value::Null),
            Self::Integer { min, max } => integer(&given)
                .filter(|number| (min..=max).contains(number))
                .map(Value::from)
                .ok_or_else(|| format!("has to be a whole number from {min} to {max}")),
            Self::Boolean => boolean(&given).map(Value::from).ok_or_else(|| "has to be true or false".into()),
            Self::Url if given.as_str().is_some_and(|url| url.chars().count() > MAX_URL_CHARS) => {
                Err(too_long(MAX_URL_CHARS))
            }
            Self::Url if is_web_address(&given) => Ok(given),
            Self::Url => Err("has to be an address that begins with http:// or https://".into()),
            Self::Date if is_date(&given) => Ok(given),
            Self::Date => Err("has to be a date such as 2026-12-31".into()),
        }
    }
}

impl Engine {
    /// The profile of a new account.
    pub(crate) fn new_profile(&self, given: Map<String, Value>, faults: &mut FieldFaults) -> Profile {
        let mut fields: Map<_, _> =
            self.settings.profile_fields.iter().map(|field| (field.name.clone(), Value::Null)).collect();
        fields.extend(self.profile_fields(given, faults));
        Profile::from_fields(&fields)
    }

    /// Those of the given fields that are declared, in the form in which they are kept.
    pub(crate) fn profile_fields(&self, mut given: Map<String, Value>, faults: &mut FieldFaults) -> Map<String, Value> {
        let mut fields = Map::new();
        for ProfileField { name, kind } in &self.settings.profile_fields {
            let Some(value) = given.remove(name) else { continue };
            match kind.keep(value) {
                Ok(kept) => drop(fields.insert(name.clone(), kept)),
                Err(fault) => faults.add(name, fault),
            }
        }
        fields
    }
}

fn text(given: Value, max_chars: usize) -> Result<Value, String> {
    // As in the gem, a scalar is taken as text and anything nested is as good as absent.
    let text = match given {
        // So a form ends the lines of a text that has several.
        Value::String(text) => text.replace("\r\n", "\n"),
        scalar @ (Value::Number(_) | Value::Bool(_)) => scalar.to_string(),
        _ => return Ok(Value::Null),
    };
    if text.chars().count() > max_chars {
        Err(too_long(max_chars))
    } else if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')) {
        Err("must not contain control characters".into())
    } else {
        Ok(text.into())
    }
}

fn too_long(max_chars: usize) -> String {
    format!("is too long (maximum is {max_chars} characters)")
}

fn integer(given: &Value) -> Option<i64> {
    let Value::String(text) = given else { return given.as_i64() };
    let digits = text.strip_prefix('-').unwrap_or(text);
    // The standard library would take a plus sign too.
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn boolean(given: &Value) -> Option<bool> {
    match given.as_str() {
        Some("true" | "1") => Some(true),
        Some("false" | "0") => Some(false),
        _ => given.as_bool(),
    }
}

/// The parser, which is that of browsers, mends white space, backslashes and missing slashes; who shows the address may not.
fn is_web_address(given: &Value) -> bool {
    let Some(text) = given.as_str() else { return false };
    let odd = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
    let begins = ["http://", "https://"]
        .iter()
        .any(|scheme| text.split_at_checked(scheme.len()).is_some_and(|(start, _)| start.eq_ignore_ascii_case(scheme)));
    begins && !text.contains(odd) && Url::parse(text).is_ok()
}

/// The parser also takes times, and days of the week.
fn is_date(given: &Value) -> bool {
    given.as_str().is_some_and(|text| {
        let shape = |(at, byte): (usize, u8)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
        text.bytes().enumerate().all(shape) && Date::from_str(text).is_ok()
    })
}
