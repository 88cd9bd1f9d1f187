//! Password hashes that Devise made: bcrypt over the password and a pepper, as the Ruby gem `bcrypt` computes it.

use std::str::FromStr as _;

use bcrypt::HashParts;
use zeroize::Zeroizing;

use crate::passwords::PasswordError;

/// Costs that are computed. Each step doubles the time; 14 takes about a second. A row with a higher one, from wherever it
/// comes, must not hold up all other sign-ins.
const COSTS: std::ops::RangeInclusive<u32> = 4..=14;

/// As many bytes of password and pepper count, and no more: the gem cuts off the rest (`BCrypt::Engine::MAX_SECRET_BYTESIZE`).
const MAX_BYTES: usize = 72;

/// Whether a hash is of this kind, readable or not.
pub(crate) fn is_bcrypt(hash: &str) -> bool {
    hash.starts_with("$2")
}

/// Whether `password` is the one of `hash`.
///
/// # Errors
/// [`PasswordError::Failed`]: the hash is malformed, of another variant than 2a, 2b and 2y, or too costly.
pub(crate) fn verify(password: &str, pepper: &str, hash: &str) -> Result<bool, PasswordError> {
    let unreadable = |why: &dyn std::fmt::Display| PasswordError::Failed(format!("bcrypt: {why}"));
    // The three differ in the bugs of implementations that made them, none of which concerns UTF-8; that of 2x does.
    if !["$2a$", "$2b$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix)) {
        return Err(unreadable(&"the variant is none of 2a, 2b and 2y"));
    }
    // The parser takes "+4" for a number.
    if !hash.bytes().skip(4).take(2).all(|byte| byte.is_ascii_digit()) {
        return Err(unreadable(&"the cost is not a number"));
    }
    let cost = HashParts::from_str(hash).map_err(|error| unreadable(&error))?.get_cost();
    if !COSTS.contains(&cost) {
        return Err(unreadable(&format_args!("the cost {cost} is not from {} to {}", COSTS.start(), COSTS.end())));
    }
    let bytes = password.bytes().chain(pepper.bytes()).take(MAX_BYTES);
    // With room from the start, so that no copy is left behind by growing.
    let mut secret = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
    secret.extend(bytes);
    let matches = bcrypt::verify(&*secret, hash).map_err(|error| unreadable(&error))?;
    // No hash is of such a password: the gem raises an error for a NUL among the bytes that count. Computed all the same, so
    // that it takes as long.
    Ok(matches && !secret.contains(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEPPER: &str = "pepper of the old application";
    const PASSWORD: &str = "correct horse battery";

    /// Made with the Python package `bcrypt` 5.0.0 from the first 72 bytes of password and pepper.
    #[test]
    fn known_answers() {
        let long = "💩".repeat(128);
        let a = |count: usize| "a".repeat(count);
        for (password, pepper, hash) in [
            (PASSWORD, "", "$2a$04$abcdefghijklmnopqrstuuqREtd3VJD2QVZbuFskFSLk6eRIrQoOS"),
            (PASSWORD, "", "$2b$05$0123456789ABCDEFGHIJKe5tiFfgHO05Fhw9k8iO6g5Pru3DaI/w6"),
            (PASSWORD, "", "$2y$04$abcdefghijklmnopqrstuuqREtd3VJD2QVZbuFskFSLk6eRIrQoOS"),
            (PASSWORD, PEPPER, "$2a$04$0123456789ABCDEFGHIJKeQCfH9g6BtJBK6rz5gbVTP0g3KtvoPa6"),
            (PASSWORD, PEPPER, "$2a$12$abcdefghijklmnopqrstuumPP5wvyy9yjT1v0j5LrlNCgzuxIf.MK"),
            (PASSWORD, "", "$2a$14$abcdefghijklmnopqrstuul23KaJPfG17fYq5iST4cMx3J830VIcu"),
            ("Grüße, 世界", PEPPER, "$2a$04$......................MSMt9F2YAMqwlWlShhvEnvI8b3AMsua"),
            (&long, PEPPER, "$2a$04$abcdefghijklmnopqrstuuXNFaiSqEKtYg/xmlk9QnNV.SauID4ca"),
            (&a(71), "", "$2a$04$abcdefghijklmnopqrstuuMCu.k1vM/ywQwiONaEn3oEMlZoCVBd6"),
            (&a(72), "", "$2a$04$abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe"),
            // The pepper counts as far as there is room: one byte, none.
            (&a(71), PEPPER, "$2a$04$abcdefghijklmnopqrstuu8kgXTzH7v6D0kyny/v3nt1rlSyLSUVa"),
            (&a(72), PEPPER, "$2a$04$abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe"),
            // Cut within a character.
            (&format!("{}é", a(71)), "", "$2b$04$abcdefghijklmnopqrstuuoVx8RufeJl2sf6nnK3ltb8OHjZZZsny"),
        ] {
            assert!(verify(password, pepper, hash).unwrap(), "{hash}");
            assert!(!verify(&format!("b{password}"), pepper, hash).unwrap(), "{hash}");
        }
    }

    #[test]
    fn what_does_not_count_and_what_does() {
        let of_71 = "$2a$04$abcdefghijklmnopqrstuuMCu.k1vM/ywQwiONaEn3oEMlZoCVBd6";
        let of_72 = "$2a$04$abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe";
        assert!(verify(&"a".repeat(128), "", of_72).unwrap());
        assert!(!verify(&"a".repeat(71), "", of_72).unwrap());
        assert!(!verify(&"a".repeat(72), "", of_71).unwrap());
        let peppered = "$2a$04$0123456789ABCDEFGHIJKeQCfH9g6BtJBK6rz5gbVTP0g3KtvoPa6";
        assert!(!verify(PASSWORD, "", peppered).unwrap());
        assert!(!verify(PASSWORD, "another pepper", peppered).unwrap());
        assert!(!verify("", "", peppered).unwrap());
    }

    #[test]
    fn a_nul_that_counts_is_refused() {
        // What C makes of "before\0after".
        let of_before = "$2a$04$abcdefghijklmnopqrstuurVuonhdASGxouTT2vs6aczD1rdQw2kq";
        assert!(verify("before", "", of_before).unwrap());
        assert!(!verify("before\0after", "", of_before).unwrap());
        assert!(!verify("before\0", "", of_before).unwrap());
        // A hash of 71 bytes and one of 71 bytes and a NUL are the same.
        let of_71 = "$2a$04$abcdefghijklmnopqrstuuMCu.k1vM/ywQwiONaEn3oEMlZoCVBd6";
        assert!(!verify(&format!("{}\0", "a".repeat(71)), "", of_71).unwrap());
        // Beyond the 72 bytes it is cut off, in the gem too.
        let of_72 = "$2a$04$abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe";
        assert!(verify(&format!("{}\0", "a".repeat(72)), "", of_72).unwrap());
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_shows_nothing() {
        let rest = "abcdefghijklmnopqrstuuqREtd3VJD2QVZbuFskFSLk6eRIrQoOS";
        let hashes = ["03", "15", "31", "99", "+4", "4$"].map(|cost| format!("$2a${cost}${rest}"));
        let malformed = [
            "$2".to_owned(),
            format!("$2x$04${rest}"),
            format!("$2$04${rest}"),
            format!("$2a$04${}", &rest[1..]),
            format!("$2a$04${rest}x"),
            format!("$2a$04$é{}", &rest[2..]),
            format!("$2a$04$!{}", &rest[1..]),
            // Bits that no implementation sets.
            format!("$2a$04$abcdefghijklmnopqrstuv{}", &rest[22..]),
        ];
        for hash in hashes.iter().chain(&malformed) {
            assert!(is_bcrypt(hash));
            let error = verify(PASSWORD, PEPPER, hash);
            let Err(PasswordError::Failed(text)) = error else { panic!("{hash}: {error:?}") };
            assert!(text.starts_with("bcrypt: "), "{text}");
            assert!(!text.contains("abcdefgh") && !text.contains("pepper") && !text.contains("horse"), "{text}");
        }
        assert!(!is_bcrypt("$argon2id$v=19$m=19456,t=2,p=1$AAAA$AAAA"));
    }
}
