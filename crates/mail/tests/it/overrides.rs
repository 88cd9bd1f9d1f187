//! A folder of one's own templates.

use baton_core::letter::{Letter, Occasion};
use baton_mail::{TemplateError, TemplateSettings, Templates};

use crate::support::{LINK, letter};

const ENGLISH: &str = include_str!("../../templates/en.toml");

fn load(files: &[(&str, &[u8])]) -> Result<Templates, TemplateError> {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).expect("written");
    }
    Templates::load(&TemplateSettings { dir: Some(dir.path().to_owned()), ..TemplateSettings::default() })
}

#[test]
fn a_sentence_is_replaced_and_the_others_stay() {
    let templates =
        load(&[("en.toml", b"closing = 'Cheers,'\n[reset_password]\nsubject = 'New {{ realm }} password'\n")]);
    let mail = templates.unwrap().render(&letter(Occasion::ResetPassword)).unwrap();
    assert_eq!(mail.subject, "New user password");
    assert!(mail.text.contains("Cheers,\nbaton") && mail.text.contains("Hello Ada,"), "{}", mail.text);
}

#[test]
fn a_layout_is_replaced() {
    let templates = load(&[
        ("layout.txt", b"{{ locale }} {{ occasion }} {{ greeting }} {{ link }}"),
        (".git", b"none of our business"),
    ])
    .unwrap();
    let mail = templates.render(&letter(Occasion::ResetPassword)).unwrap();
    assert_eq!(mail.text, format!("en reset_password Hello Ada, {LINK}"));
    assert!(mail.html.contains("<!DOCTYPE html>"));
}

#[test]
fn a_complete_language_is_available() {
    let italian = ENGLISH.replace("Hello", "Ciao");
    let templates = load(&[("it.toml", italian.as_bytes()), ("pt-BR.toml", ENGLISH.as_bytes())]).unwrap();
    assert_eq!(templates.locales().collect::<Vec<_>>(), ["de", "en", "es", "fr", "it", "ja", "pt", "pt-BR"]);
    let letter = Letter { languages: "it-CH".to_owned(), ..letter(Occasion::UnlockAccount) };
    let mail = templates.render(&letter).unwrap();
    assert_eq!(mail.locale, "it");
    assert!(mail.text.starts_with("Ciao Ada,"));
}

#[test]
fn mistakes_are_found_at_once_and_where_they_are() {
    let cases: &[(&str, &[u8], &str)] = &[
        ("en.toml", b"greeting = 'x'\nclosing = \n", "en.toml:2: "),
        ("en.toml", b"greeting = 'x'\n\nclosing = '{{ product'\n", "en.toml:3: "),
        ("en.toml", b"greeting = 'x'\nclosing = '{{ produkt }}'\n", "en.toml:2: there is no variable `produkt` here"),
        (
            "en.toml",
            b"greeting = '{% if false %}{{ produkt }}{% endif %}'\n",
            "en.toml:1: there is no variable `produkt`",
        ),
        ("en.toml", b"closing = '{{ count }}'\n", "en.toml:1: there is no variable `count` here"),
        ("en.toml", b"[reset_password]\nbody = '{{ new_email }}'\n", "en.toml:2: there is no variable `new_email`"),
        (
            "en.toml",
            b"[reset_password]\nbody = \"\"\"\nOne\n\n{{ usr }}\"\"\"\n",
            "en.toml:5: there is no variable `usr`",
        ),
        ("en.toml", b"[reset_password]\nbody = \"\"\"One\n\n{% endif %}\"\"\"\n", "en.toml:4: "),
        ("en.toml", b"\nclosing = '{{ product.x.y }}'\n", "en.toml:2: "),
        ("en.toml", b"\nclosing = '{{ product | shout }}'\n", "en.toml:2: "),
        ("en.toml", b"\ngreting = 'Hello'\n", "en.toml:2: `greting` is not the key of a sentence"),
        ("en.toml", b"[password_changed]\nbutton = 'x'\n", "en.toml:2: `password_changed.button` is not the key"),
        ("en.toml", b"[password_changed]\n", "en.toml:1: `password_changed` is not the key"),
        ("en.toml", b"greeting = 1\n", "en.toml:1: `greeting` has to be a string"),
        ("en.toml", b"greeting = 'x'\n# \xff\n", "en.toml:2: not UTF-8"),
        (
            "layout.txt",
            b"{{ link }}\n{% for x in paragraphs %}\n{{ y }}{% endfor %}",
            "layout.txt:3: there is no variable `y`",
        ),
        ("layout.html", b"{{ link }}\n{% if %}", "layout.html:2: "),
        ("layout.html", b"<p>{{ greeting }}</p>", "layout.html: does not show `link`"),
        ("layout.html", b"\xc3", "layout.html:1: not UTF-8"),
        (
            "it.toml",
            b"greeting = 'Ciao,'\n",
            "it.toml: a new language has to be complete, and lacks greeting_with_name, ",
        ),
        ("readme.txt", b"", "readme.txt: the name is neither "),
        ("EN.toml", b"", "EN.toml: the name is neither "),
        ("en.toml~", b"", "en.toml~: the name is neither "),
        ("english.toml", b"", "english.toml: the name is neither "),
    ];
    for (name, content, expected) in cases {
        let error = load(&[(name, content)]).unwrap_err().to_string();
        let tail = error.rsplit_once('/').map_or(error.as_str(), |_| &error[error.find(name).unwrap()..]);
        assert!(tail.starts_with(expected), "{error}\nwanted: {expected}");
    }
}

#[test]
fn a_folder_has_to_be_one() {
    let settings = TemplateSettings { dir: Some("/nowhere/at/all".into()), ..TemplateSettings::default() };
    let error = Templates::load(&settings).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/at/all: "), "{error}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("en.toml")).unwrap();
    let settings = TemplateSettings { dir: Some(dir.path().to_owned()), ..TemplateSettings::default() };
    assert!(matches!(Templates::load(&settings), Err(TemplateError::Read { path, .. }) if path.ends_with("en.toml")));
}

/// The documentation names every key, every occasion and every variable that there is.
#[test]
fn the_documentation_is_complete() {
    let documentation = include_str!("../../templates/README.md");
    let named = ENGLISH
        .lines()
        .filter_map(|line| line.strip_prefix('[').map_or_else(|| line.split_once(" = "), |it| it.split_once(']')));
    for (key, _) in named {
        assert!(documentation.contains(&format!("`{key}`")), "{key}");
    }
}
