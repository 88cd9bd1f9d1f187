//! The session in the project's README is what a person sees: its commands are run here, and the output compared.

use std::process::Command;

use crate::support::Baton;

const README: &str = include_str!("../../../../README.md");

#[test]
fn the_session_of_the_readme_is_real() {
    follow(&Baton::dev(&[]));
}

/// Does what the README does, with this server.
pub fn follow(baton: &Baton) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sessions = README.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut steps = 0;
    for step in sessions.flat_map(|session| session.split("$ ").skip(1)) {
        let (command, expected) = step.split_once('\n').expect("a command and its output");
        let command = command.replace("http://127.0.0.1:3000", &baton.url(""));
        let output = Command::new("bash").args(["-c", &command]).current_dir(folder.path()).output().expect("bash");
        let seen = String::from_utf8(output.stdout).expect("text");
        assert_eq!(comparable(&seen), comparable(expected), "{command}");
        steps += 1;
    }
    assert_eq!(steps, 6);
}

/// Without what differs from run to run: tokens, ids, times. A body that ends without a line break is put on a line of its own.
fn comparable(output: &str) -> Vec<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let lines = output.replace('}', "}\n").replace("}\n,", "},").replace("}\n}", "}}");
    let masked = |line: &str| {
        let mut masked = String::new();
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let length = rest.find(|c| is_word(c) != is_word(first)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(length);
            match word.len() {
                28 | 22 if is_word(first) => masked.push_str(&format!("<{length}>")),
                _ => masked.extend(word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c })),
            }
            rest = after;
        }
        masked
    };
    lines.lines().map(|line| masked(line.trim())).filter(|line| !line.is_empty()).collect()
}
