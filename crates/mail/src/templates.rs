//! Letters as people read them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_core::letter::{Letter, MailError, Occasion};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Output, State, UndefinedBehavior, Value, escape_formatter};

use crate::catalogue::{self, Catalogue, Sentence, has_link, line_of, names_new_email};
use crate::language::negotiate;
use crate::untrusted;

const LAYOUT_TEXT: &str = "layout.txt";
const LAYOUT_HTML: &str = "layout.html";

/// The files that are compiled in, by the names under which a folder may replace them.
const BUILT_IN: [(&str, &str); 8] = [
    (LAYOUT_TEXT, include_str!("../templates/layout.txt")),
    (LAYOUT_HTML, include_str!("../templates/layout.html")),
    ("de.toml", include_str!("../templates/de.toml")),
    ("en.toml", include_str!("../templates/en.toml")),
    ("es.toml", include_str!("../templates/es.toml")),
    ("fr.toml", include_str!("../templates/fr.toml")),
    ("ja.toml", include_str!("../templates/ja.toml")),
    ("pt.toml", include_str!("../templates/pt.toml")),
];

/// The variables of the layouts. Each has a value in every letter; it is empty where there is nothing to say.
const LAYOUT_VARIABLES: [&str; 17] = [
    "locale",
    "occasion",
    "product",
    "realm",
    "email",
    "name",
    "new_email",
    "subject",
    "greeting",
    "paragraphs",
    "button",
    "link",
    "button_fails",
    "lifetime",
    "notice",
    "closing",
    "footer",
];

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
            environment: environment(&files)?,
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

/// What the templates are made of.
struct Files {
    layouts: BTreeMap<String, Sentence>,
    /// By language.
    catalogues: BTreeMap<String, Catalogue>,
}

impl Files {
    fn read(dir: Option<&Path>) -> Result<Self, TemplateError> {
        let mut files = Self { layouts: BTreeMap::new(), catalogues: BTreeMap::new() };
        for (name, text) in BUILT_IN {
            files.add(name, name, text)?;
        }
        for (path, name) in dir.map(list).transpose()?.unwrap_or_default() {
            let shown = path.display().to_string();
            let bytes = std::fs::read(&path).map_err(|source| TemplateError::Read { path, source })?;
            let text = std::str::from_utf8(&bytes).map_err(|error| TemplateError::Broken {
                file: shown.clone(),
                line: 1 + bytes.iter().take(error.valid_up_to()).filter(|&&byte| byte == b'\n').count(),
                reason: "not UTF-8".to_owned(),
            })?;
            files.add(&name, &shown, text)?;
        }
        Ok(files)
    }

    /// Takes a file in, over what was there under its name.
    fn add(&mut self, name: &str, shown: &str, text: &str) -> Result<(), TemplateError> {
        let unfit = |reason: String| TemplateError::Unfit { file: shown.to_owned(), reason };
        if name == LAYOUT_TEXT || name == LAYOUT_HTML {
            let layout = Sentence { source: text.to_owned(), file: shown.to_owned(), line: 1 };
            self.layouts.insert(name.to_owned(), layout);
            return Ok(());
        }
        let Some(locale) = name.strip_suffix(".toml").filter(|locale| is_language_tag(locale)) else {
            return Err(unfit(format!("the name is neither {LAYOUT_TEXT}, {LAYOUT_HTML} nor a language with .toml")));
        };
        let catalogue = self.catalogues.entry(locale.to_owned()).or_default();
        catalogue.extend(catalogue::parse(shown, text)?);
        let missing: Vec<String> = catalogue::keys().filter(|key| !catalogue.contains_key(key)).collect();
        if !missing.is_empty() {
            return Err(unfit(format!("a new language has to be complete, and lacks {}", missing.join(", "))));
        }
        Ok(())
    }

    /// Every template: its name, itself, and the variables that it may use.
    fn templates(&self) -> impl Iterator<Item = (String, &Sentence, Vec<&'static str>)> {
        let layouts = self.layouts.iter().map(|(name, layout)| (name.clone(), layout, LAYOUT_VARIABLES.to_vec()));
        let sentences = self.catalogues.iter().flat_map(|(locale, catalogue)| {
            catalogue.iter().map(move |(key, it)| (format!("{locale}/{key}"), it, catalogue::variables(key)))
        });
        layouts.chain(sentences)
    }

    /// Where in which file an error is.
    fn blame(&self, error: &minijinja::Error) -> TemplateError {
        let name = error.name().unwrap_or_default();
        match self.templates().find(|(template, ..)| template == name) {
            Some((_, sentence, _)) => broken(sentence, error),
            None => self.unfit(name, &error.to_string()),
        }
    }

    fn unfit(&self, name: &str, reason: &str) -> TemplateError {
        let file = self.layouts.get(name).map_or(name, |layout| &layout.file).to_owned();
        TemplateError::Unfit { file, reason: reason.to_owned() }
    }
}

/// The files of a folder, with their names. What begins with a dot is none of them: a mounted folder has such things.
fn list(dir: &Path) -> Result<Vec<(PathBuf, String)>, TemplateError> {
    let unreadable = |source| TemplateError::Read { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            files.push((entry.path(), name));
        }
    }
    files.sort();
    Ok(files)
}

/// Such as `it` or `pt-BR`.
fn is_language_tag(text: &str) -> bool {
    let mut parts = text.split('-');
    let first = parts.next().unwrap_or_default();
    matches!(first.len(), 2..=3)
        && first.bytes().all(|byte| byte.is_ascii_lowercase())
        && parts.all(|part| matches!(part.len(), 1..=8) && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn environment(files: &Files) -> Result<Environment<'static>, TemplateError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Sentences are plain text; what they say is escaped as a whole, when the layout takes it in.
    environment.set_auto_escape_callback(|name| if name == LAYOUT_HTML { AutoEscape::Html } else { AutoEscape::None });
    environment.set_formatter(format_value);
    let lines_of_their_own = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(lines_of_their_own.map_err(|error| files.blame(&error))?);

    for (name, sentence, variables) in files.templates() {
        environment
            .add_template_owned(name.clone(), sentence.source.clone())
            .map_err(|error| broken(sentence, &error))?;
        let template = environment.get_template(&name).map_err(|error| broken(sentence, &error))?;
        let known = |variable: &str| {
            variables.contains(&variable) || environment.globals().any(|(global, _)| global == variable)
        };
        if let Some(unknown) = template.undeclared_variables(false).into_iter().find(|variable| !known(variable)) {
            let at = sentence.source.find(&unknown).unwrap_or_default();
            return Err(TemplateError::Broken {
                file: sentence.file.clone(),
                line: sentence.line + line_of(&sentence.source, at) - 1,
                reason: format!("there is no variable `{unknown}` here, only {}", variables.join(", ")),
            });
        }
    }
    Ok(environment)
}

/// Escapes HTML as the engine would, but for the slash, which is harmless: links stay legible.
fn format_value(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    match value.as_str() {
        Some(text) if matches!(state.auto_escape(), AutoEscape::Html) && !value.is_safe() => {
            Ok(out.write_str(&escape_html(text))?)
        }
        _ => escape_formatter(out, state, value),
    }
}

fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

fn broken(sentence: &Sentence, error: &minijinja::Error) -> TemplateError {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let line = sentence.line + error.line().unwrap_or(1).saturating_sub(1);
    TemplateError::Broken { file: sentence.file.clone(), line, reason: detail }
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
