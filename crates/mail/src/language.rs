//! Which language a letter is written in.

/// More ranges than this, nobody reads.
const MOST_RANGES: usize = 64;

/// The best of the `available` locales for an `Accept-Language` value (RFC 9110 §12.5.4), by lookup (RFC 4647 §3.4): each
/// range in the order of its weight, and `de-CH-1996` falls back to `de-CH` and then to `de`. `None` if the person does not
/// mind (`*`), or reads none of them, or did not say.
///
/// Anything that is not of that form is passed over.
pub(crate) fn negotiate<'a>(languages: &str, available: &'a [String]) -> Option<&'a str> {
    let mut ranges: Vec<(&str, u16)> = languages.split(',').take(MOST_RANGES).filter_map(range).collect();
    ranges.sort_by_key(|&(_, weight)| std::cmp::Reverse(weight));
    for (range, _) in ranges {
        if range == "*" {
            return None;
        }
        let found = fallbacks(range).find_map(|tag| available.iter().find(|locale| locale.eq_ignore_ascii_case(tag)));
        if found.is_some() {
            return found.map(String::as_str);
        }
    }
    None
}

/// `de-CH;q=0.5` as `("de-CH", 500)`. A weight of zero means "not this one", which is the same as not naming it.
fn range(text: &str) -> Option<(&str, u16)> {
    let (range, weight) = match text.split_once(';') {
        None => (text, 1000),
        Some((range, parameter)) => (range, weight(parameter.trim().strip_prefix(['q', 'Q'])?)?),
    };
    (weight > 0).then_some((range.trim(), weight))
}

/// `=0.25` in thousandths.
fn weight(text: &str) -> Option<u16> {
    let value: f32 = text.trim_start().strip_prefix('=')?.trim().parse().ok()?;
    // In this range, thousandths fit.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be from 0 to 1")]
    (0.0..=1.0).contains(&value).then_some((value * 1000.0).round() as u16)
}

/// The tag itself, and then without its last part, and so on.
fn fallbacks(tag: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(tag), |tag| tag.rsplit_once('-').map(|(shorter, _)| shorter))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::negotiate;

    fn available() -> Vec<String> {
        ["de", "en", "pt", "zh-TW"].map(String::from).into()
    }

    #[test]
    fn picks_the_best_of_what_there_is() {
        for (languages, expected) in [
            ("de", Some("de")),
            ("DE", Some("de")),
            ("pt-BR", Some("pt")),
            ("de-CH-1996, en", Some("de")),
            ("zh-tw", Some("zh-TW")),
            ("zh", None),
            ("fr, de;q=0.5, en;q=0.7", Some("en")),
            ("en;q=0.5,de;q=0.5", Some("en")),
            ("en ; q=0.5 , de ; Q = 0.75", Some("de")),
            ("de;q=0, pt", Some("pt")),
            ("de;q=0", None),
            ("*", None),
            ("*;q=0.1, de", Some("de")),
            ("*, de;q=0.1", None),
            ("", None),
            (",,;;q=,de;q=x,-,--", None),
            ("de;q=2, pt;q=-1, en;q=NaN", None),
            ("de;level=1, en;q=0.1", Some("en")),
            ("德语, en", Some("en")),
        ] {
            assert_eq!(negotiate(languages, &available()), expected, "{languages}");
        }
    }

    #[test]
    fn does_not_read_on_forever() {
        assert_eq!(negotiate(&format!("{}de", "x,".repeat(5_000)), &available()), None);
        assert_eq!(negotiate(&format!("de-{}", "a-".repeat(5_000)), &available()), Some("de"));
    }

    proptest! {
        #[test]
        fn bears_anything(languages in ".{0,200}|([a-zA-Z*-]{0,5}[;q=0-9.,]{0,8}){0,20}") {
            let available = available();
            let found = negotiate(&languages, &available);
            prop_assert!(found.is_none_or(|found| available.iter().any(|locale| locale == found)));
        }
    }
}
