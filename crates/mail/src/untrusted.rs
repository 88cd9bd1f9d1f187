//! What strangers wrote: names and addresses. Whoever registers chooses them, and may want our server to send their
//! advertisement, or a second header, to somebody else.

use lettre::Address;

/// As much of a name as a greeting needs.
const LONGEST_NAME: usize = 64;

/// The longest path of RFC 5321 §4.5.3.1.3, without its angle brackets.
const LONGEST_ADDRESS: usize = 254;

/// A name that is fit to be printed on one line, or none: a name that a mail program might turn into a link is not a name.
pub(crate) fn display_name(name: &str) -> Option<String> {
    let visible: String =
        name.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|&c| is_visible(c)).collect();
    if looks_like_link(&visible) {
        return None;
    }
    let words = visible.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let cut: String = words.chars().take(LONGEST_NAME).collect();
    let cut = cut.trim_end();
    (!cut.is_empty()).then(|| cut.to_owned())
}

/// Exactly one bare address, such as `ada@example.com`.
///
/// Stricter than RFC 5322: no quoted local parts, comments, routes or address literals. They are not in use, and every one
/// of them has hidden a second recipient in some mail program.
pub(crate) fn address(text: &str) -> Option<Address> {
    let forbidden = |c: char| !is_visible(c) || c.is_whitespace() || "<>()[]\\,;:\"".contains(c);
    if text.len() > LONGEST_ADDRESS || text.contains(forbidden) || text.matches('@').count() != 1 {
        return None;
    }
    text.parse().ok()
}

/// One line without control characters: what a header or the link of a letter has to be.
pub(crate) fn is_one_line(text: &str) -> bool {
    text.chars().all(is_visible)
}

/// Not a control character, nor one that hides, reorders or breaks what stands around it.
fn is_visible(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn looks_like_link(name: &str) -> bool {
    let name = name.to_lowercase();
    ["http", "www.", "://"].iter().any(|sign| name.contains(sign)) || has_domain(&name)
}

/// Whether a dot stands before two letters, as in `example.com`, but not in `J. R. R.`. The other dots are those which
/// browsers take for one.
fn has_domain(name: &str) -> bool {
    let chars: Vec<char> = name.chars().collect();
    chars
        .windows(3)
        .any(|at| matches!(at[0], '.' | '。' | '．' | '｡') && at[1].is_alphabetic() && at[2].is_alphabetic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LONGEST_NAME, address, display_name, is_one_line};

    #[test]
    fn names_of_people_stay() {
        for name in [
            "Ada Lovelace",
            "J. R. R. Tolkien",
            "J.R.R. Tolkien",
            "Anne-Marie O’Neill",
            "山田 太郎",
            "عمر",
            "<b>Bob</b>",
        ] {
            assert_eq!(display_name(name).as_deref(), Some(name));
        }
        assert_eq!(display_name("  Ada\r\nLovelace\t\u{0}! ").as_deref(), Some("Ada Lovelace !"));
        assert_eq!(display_name("Ada\u{2028}\u{202e}Lovelace").as_deref(), Some("Ada Lovelace"));
        assert_eq!(display_name(" \r\n\u{200b}"), None);
        assert_eq!(display_name(&"é".repeat(1_000)), Some("é".repeat(LONGEST_NAME)));
    }

    #[test]
    fn names_that_may_become_links_go() {
        for name in [
            "http://evil.example",
            "Win HTTPS now",
            "WWW.evil",
            "ftp://1.2.3.4",
            "go to evil.example today",
            "evil。example",
            "evil\u{200b}.\u{200b}example",
            "ev.\nil.ex\u{ad}ample",
            "mallory@evil.example",
            "пример.рф",
        ] {
            assert_eq!(display_name(name), None, "{name}");
        }
        assert_eq!(display_name(&format!("{} evil.example", "x".repeat(100))), None, "cut only after the check");
    }

    #[test]
    fn addresses_are_bare() {
        for good in
            ["ada@example.com", "a.b+c@sub.example.com", "o'neill@example.com", "é@example.com", "a@bücher.example"]
        {
            assert_eq!(address(good).map(|address| address.to_string()).as_deref(), Some(good));
        }
        for bad in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "Ada <ada@example.com>",
            "<ada@example.com>",
            "ada@example.com, eve@example.com",
            "ada@example.com,eve@example.com",
            "ada@example.com;eve@example.com",
            "group:ada@example.com",
            "ada@example.com\r\nBcc: eve@example.com",
            "ada\n@example.com",
            "ada@example.com\n",
            "ada@example.com\0",
            "ada @example.com",
            "\"ada eve\"@example.com",
            "\"ada@eve.example\"@example.com",
            "ada(comment)@example.com",
            "ada@eve.example@example.com",
            "ada@[127.0.0.1]",
            "ada\u{2028}@example.com",
            "ada\u{200b}@example.com",
        ] {
            assert_eq!(address(bad), None, "{bad:?}");
        }
        assert_eq!(address(&format!("ada@{}example.com", "a.".repeat(200))), None);
    }

    proptest! {
        #[test]
        fn whatever_is_left_is_one_line(text in "\\PC{0,100}|[a@.<>,\"\r\n\u{2028}\u{202e} ]{0,40}") {
            prop_assert!(display_name(&text).is_none_or(|name| is_one_line(&name) && name.chars().count() <= LONGEST_NAME));
            prop_assert!(address(&text).is_none_or(|address| is_one_line(address.as_ref())));
        }
    }
}
