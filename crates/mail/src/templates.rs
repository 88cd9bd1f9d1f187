//! Letters as people read them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use baton_core::letter::{Letter, MailError, Occasion};
use minijinja::{Environment, Value};

use crate::catalogue::{has_link, names_new_email};
use crate::files::{Files, LAYOUT_HTML, LAYOUT_TEXT};
use crate::language::negotiate;
use crate::untrusted;

/// How letters are to read.
#[derive(Debug, Clone)]
pub struct TemplateSettings {
    /// A folder whose files replace or complete the built-in ones.
    pub dir: Option<PathBuf>,
    /// What the people who get the letters know as the name of this service. `baton` by default.
    pub product: String,
    /// The language for people who read none of the others, or did not say. `en` by default.
    pub language: String,
}

impl Default for TemplateSettings {
    fn default() -> Self {
        Self { dir: None, product: "baton".to_owned(), language: "en".to_owned() }
    }
}

/// Why letters cannot be written as the settings ask for.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file or the folder could not be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file has a mistake.
    #[error("{file}:{line}: {reason}")]
    Broken {
        /// Which file.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A file as a whole is not fit for use.
    #[error("{file}: {reason}")]
    Unfit {
        /// Which file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The name of the product is empty or has a control character.
    #[error("the product name has to be one line of text")]
    Product,
    /// There is no such language.
    #[error("there are no sentences in the default language, `{0}`")]
    Language(String),
}

/// A letter as it reads. `Debug` hides what it says and to whom.
#[derive(Clone, PartialEq, Eq)]
pub struct Mail {
    /// Exactly one bare address.
    pub to: String,
    /// The language that it is written in.
    pub locale: String,
    /// One line.
    pub subject: String,
    /// The body as plain text.
    pub text: String,
    /// The body as HTML.
    pub html: String,
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail").field("locale", &self.locale).finish_non_exhaustive()
    }
}

/// The templates of every letter in every language.
///
#[doc = include_str!("../templates/README.md")]
pub struct Templates {
    environment: Environment<'static>,
    locales: Vec<String>,
    default: String,
    product: String,
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Templates")
            .field("locales", &self.locales)
            .field("default", &self.default)
            .finish_non_exhaustive()
    }
}

impl Templates {
    /// Reads the files, and writes every letter once, so that a mistake shows now and not when somebody waits for a letter.
    ///
    /// # Errors
    /// [`TemplateError`] names the file and the line.
    pub fn load(settings: &TemplateSettings) -> Result<Self, TemplateError> {
        if settings.product.trim().is_empty() || !untrusted::is_one_line(&settings.product) {
            return Err(TemplateError::Product);
        }
        let files = Files::read(settings.dir.as_deref())?;
        if !files.catalogues.contains_key(&settings.language) {
            return Err(TemplateError::Language(settings.language.clone()));
        }
        let templates = Self {
            environment: files.environment()?,
            locales: files.catalogues.keys().cloned().collect(),
            default: settings.language.clone(),
            product: settings.product.clone(),
        };
        templates.rehearse(&files)?;
        Ok(templates)
    }

    /// The languages that letters can be written in.
    pub fn locales(&self) -> impl Iterator<Item = &str> {
        self.locales.iter().map(String::as_str)
    }

    /// Writes a letter in the language that suits its reader best.
    ///
    /// What strangers chose is taken with care: the name loses everything that is not visible and is cut to 64 characters,
    /// or is left out if it might become a link; an address has to be a bare one.
    ///
    /// # Errors
    /// [`MailError::Never`] if an address is not a bare one, or the link or the other address that such a letter is about is
    /// missing.
    pub fn render(&self, letter: &Letter) -> Result<Mail, MailError> {
        let to = untrusted::address(&letter.to).ok_or_else(|| never("the recipient is not a bare e-mail address"))?;
        let new_email = match &letter.new_email {
            Some(new_email) if untrusted::address(new_email).is_none() => {
                return Err(never("the new address is not a bare e-mail address"));
            }
            None if names_new_email(letter.occasion) => return Err(never("a letter about a new address without one")),
            new_email => new_email.as_deref().unwrap_or_default(),
        };
        let link = match &letter.link {
            _ if !has_link(letter.occasion) => "",
            Some(link) if is_link(link) => link,
            Some(_) => return Err(never("the link is not one word")),
            None => return Err(never("a letter with a button without a link")),
        };
        let locale = negotiate(&letter.languages, &self.locales).unwrap_or(&self.default);
        let name = letter.name.as_deref().and_then(untrusted::display_name);
        let page = Page {
            occasion: letter.occasion,
            realm: &letter.realm,
            to: to.as_ref(),
            locale,
            name: name.as_deref().unwrap_or_default(),
            new_email,
            link,
            lifetime: letter.link_lifetime.filter(|_| !link.is_empty()),
        };
        // Says which sentence, but not what was put into it.
        self.fill(&page).map_err(|error| {
            never(format!(
                "{}:{}: {}",
                error.name().unwrap_or_default(),
                error.line().unwrap_or_default(),
                error.kind()
            ))
        })
    }

    fn fill(&self, page: &Page<'_>) -> Result<Mail, minijinja::Error> {
        let occasion = page.occasion.as_str();
        let mut values: BTreeMap<&str, Value> = BTreeMap::from([
            ("product", self.product.as_str().into()),
            ("realm", page.realm.into()),
            ("email", page.to.into()),
            ("name", page.name.into()),
            ("new_email", page.new_email.into()),
        ]);
        let lifetime = page.lifetime.map(phrase);
        if let Some((_, count)) = lifetime {
            values.insert("count", count.into());
        }
        let say = |key: &str| self.environment.get_template(&format!("{}/{key}", page.locale))?.render(&values);
        let own = |part: &str| say(&format!("{occasion}.{part}"));

        let subject = one_line(&own("subject")?);
        let body = own("body")?;
        let sentences: [(&str, Value); 11] = [
            ("locale", page.locale.into()),
            ("occasion", occasion.into()),
            ("subject", subject.as_str().into()),
            ("greeting", say(if page.name.is_empty() { "greeting" } else { "greeting_with_name" })?.into()),
            ("paragraphs", paragraphs(&body).into()),
            ("button", if page.link.is_empty() { String::new() } else { own("button")? }.into()),
            ("link", page.link.into()),
            ("button_fails", say("button_fails")?.into()),
            ("lifetime", lifetime.map(|(key, _)| say(key)).transpose()?.unwrap_or_default().into()),
            ("notice", own("notice")?.into()),
            ("closing", say("closing")?.into()),
        ];
        let footer = say("footer")?;
        values.extend(sentences);
        values.insert("footer", footer.into());
        Ok(Mail {
            to: page.to.to_owned(),
            locale: page.locale.to_owned(),
            subject,
            text: self.environment.get_template(LAYOUT_TEXT)?.render(&values)?,
            html: self.environment.get_template(LAYOUT_HTML)?.render(&values)?,
        })
    }

    /// Writes every letter in every language, with and without what may be missing.
    fn rehearse(&self, files: &Files) -> Result<(), TemplateError> {
        let (minute, hour, day) = (60, 3600, 86_400);
        let variants = [("", None), ("Ada", Some(minute)), ("", Some(hour)), ("", Some(3 * day))];
        for locale in &self.locales {
            for (occasion, (name, lifetime)) in
                Occasion::ALL.into_iter().flat_map(|it| variants.map(|variant| (it, variant)))
            {
                let link = if has_link(occasion) { "https://example.com/confirm" } else { "" };
                let new_email = if names_new_email(occasion) { "lovelace@example.com" } else { "" };
                let page = Page {
                    occasion,
                    realm: "user",
                    to: "ada@example.com",
                    locale,
                    name,
                    new_email,
                    link,
                    lifetime: lifetime.filter(|_| has_link(occasion)).map(Duration::from_secs),
                };
                let mail = self.fill(&page).map_err(|error| files.blame(&error))?;
                for (layout, body) in [(LAYOUT_TEXT, &mail.text), (LAYOUT_HTML, &mail.html)] {
                    if !body.contains(link) {
                        return Err(files.unfit(layout, "does not show `link`"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What is put into one letter, once it has been looked at.
/// Empty is what there is nothing to say of.
struct Page<'a> {
    occasion: Occasion,
    realm: &'a str,
    to: &'a str,
    locale: &'a str,
    name: &'a str,
    new_email: &'a str,
    link: &'a str,
    /// Of the link.
    lifetime: Option<Duration>,
}

/// In the largest unit in which it can be said without promising too much.
fn phrase(lifetime: Duration) -> (&'static str, u64) {
    let minutes = lifetime.as_secs() / 60;
    match (minutes / 60, minutes % 60) {
        (hours, 0) if hours >= 48 && hours % 24 == 0 => ("lifetime_days", hours / 24),
        (0, _) | (1, 1..) => ("lifetime_minutes", minutes.max(1)),
        (hours, _) => ("lifetime_hours", hours),
    }
}

/// Blank lines part them.
fn paragraphs(body: &str) -> Vec<String> {
    body.replace("\r\n", "\n").split("\n\n").map(one_line).filter(|paragraph| !paragraph.is_empty()).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_link(link: &str) -> bool {
    !link.is_empty() && untrusted::is_one_line(link) && !link.contains(char::is_whitespace)
}

fn never(reason: impl Into<String>) -> MailError {
    MailError::Never(reason.into().into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::phrase;

    #[test]
    fn a_lifetime_is_said_in_a_fitting_unit_and_never_overstated() {
        for (seconds, expected) in [
            (0, ("lifetime_minutes", 1)),
            (60, ("lifetime_minutes", 1)),
            (899, ("lifetime_minutes", 14)),
            (3600, ("lifetime_hours", 1)),
            (5400, ("lifetime_minutes", 90)),
            (7200, ("lifetime_hours", 2)),
            (9000, ("lifetime_hours", 2)),
            (86_400, ("lifetime_hours", 24)),
            (2 * 86_400, ("lifetime_days", 2)),
            (2 * 86_400 + 3600, ("lifetime_hours", 49)),
            (u64::MAX, ("lifetime_hours", u64::MAX / 3600)),
        ] {
            assert_eq!(phrase(Duration::from_secs(seconds)), expected, "{seconds}");
        }
    }
}
