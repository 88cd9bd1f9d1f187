//! The password policy.

use baton_core::password::{PasswordFault, PasswordPolicy};
use proptest::prelude::*;

use crate::common::cases;

#[test]
fn length_is_counted_in_characters_and_both_bounds_are_allowed() {
    let policy = PasswordPolicy::default();
    assert_eq!(policy.check(""), Err(PasswordFault::Blank));
    assert_eq!(policy.check("1234567"), Err(PasswordFault::TooShort(8)));
    assert_eq!(policy.check("12345678"), Ok(()));
    assert_eq!(policy.check("пароль12"), Ok(()), "8 characters, 14 bytes");
    assert_eq!(policy.check("        "), Ok(()), "blanks are characters");
    assert_eq!(policy.check(&"ü".repeat(128)), Ok(()));
    assert_eq!(policy.check(&"ü".repeat(129)), Err(PasswordFault::TooLong(128)));
}

#[test]
fn nothing_is_asked_of_the_kinds_of_characters() {
    assert_eq!(PasswordPolicy::default().check("aaaaaaaa"), Ok(()));
}

#[test]
fn a_policy_without_a_minimum_still_wants_a_password() {
    let policy = PasswordPolicy { min_length: 0, max_length: 4 };
    assert_eq!(policy.check(""), Err(PasswordFault::Blank));
    assert_eq!(policy.check("a"), Ok(()));
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn only_the_number_of_characters_counts(password in ".{0,20}", min_length in 0usize..12, max_length in 12usize..20) {
        let n = password.chars().count();
        let ok = n > 0 && n >= min_length && n <= max_length;
        prop_assert_eq!(PasswordPolicy { min_length, max_length }.check(&password).is_ok(), ok);
    }
}
