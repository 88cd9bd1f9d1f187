//! The files that letters are made of: the built-in ones, and those of a folder over them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Output, State, UndefinedBehavior, Value, escape_formatter};

use crate::catalogue::{self, Catalogue, Sentence, line_of};
use crate::templates::TemplateError;

pub(crate) const LAYOUT_TEXT: &str = "layout.txt";
pub(crate) const LAYOUT_HTML: &str = "layout.html";

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

/// What the templates are made of.
pub(crate) struct Files {
    layouts: BTreeMap<String, Sentence>,
    /// By language.
    pub catalogues: BTreeMap<String, Catalogue>,
}

impl Files {
    pub(crate) fn read(dir: Option<&Path>) -> Result<Self, TemplateError> {
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

    /// The engine with all of them in it. No template names a variable that it does not get.
    pub(crate) fn environment(&self) -> Result<Environment<'static>, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // Sentences are plain text; what they say is escaped as a whole, when the layout takes it in.
        environment
            .set_auto_escape_callback(|name| if name == LAYOUT_HTML { AutoEscape::Html } else { AutoEscape::None });
        environment.set_formatter(format_value);
        let lines_of_their_own = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(lines_of_their_own.map_err(|error| self.blame(&error))?);

        for (name, sentence, variables) in self.templates() {
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

    /// Every template: its name, itself, and the variables that it may use.
    fn templates(&self) -> impl Iterator<Item = (String, &Sentence, Vec<&'static str>)> {
        let layouts = self.layouts.iter().map(|(name, layout)| (name.clone(), layout, LAYOUT_VARIABLES.to_vec()));
        let sentences = self.catalogues.iter().flat_map(|(locale, catalogue)| {
            catalogue.iter().map(move |(key, it)| (format!("{locale}/{key}"), it, catalogue::variables(key)))
        });
        layouts.chain(sentences)
    }

    /// Where in which file an error is.
    pub(crate) fn blame(&self, error: &minijinja::Error) -> TemplateError {
        let name = error.name().unwrap_or_default();
        match self.templates().find(|(template, ..)| template == name) {
            Some((_, sentence, _)) => broken(sentence, error),
            None => self.unfit(name, &error.to_string()),
        }
    }

    pub(crate) fn unfit(&self, name: &str, reason: &str) -> TemplateError {
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
