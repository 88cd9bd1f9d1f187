//! What letters and their links are for: confirming addresses, resetting passwords, lifting locks.

use std::time::Duration;

use baton_engine::{Confirmation, Lockout, PasswordReset, Redirect, RedirectAllowlist, Redirects};

use super::reader::Reader;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn confirmation(reader: &mut Reader<'_>) -> Confirmation {
    const KEY: &str = "confirmable";
    let required = if reader.is(KEY, "auto") {
        reader.text(KEY);
        // Without somebody who sends the letters nobody could ever sign in.
        !reader.text("mail.url").is_empty()
    } else {
        reader.flag_or(KEY, "auto")
    };
    Confirmation {
        required,
        reconfirmable: reader.flag("reconfirmable"),
        lifetime: reader.duration("confirm_within", SECOND..=365 * DAY),
    }
}

pub(super) fn reset(reader: &mut Reader<'_>) -> PasswordReset {
    PasswordReset {
        lifetime: reader.duration("reset_password_within", SECOND..=7 * DAY),
        permit_lifetime: reader.duration("reset_password_session", SECOND..=DAY),
        require_client_token: reader.flag("require_client_password_reset_token"),
    }
}

pub(super) fn redirects(reader: &mut Reader<'_>) -> Redirects {
    Redirects {
        allowlist: allowlist(reader),
        default_confirm_success_url: default_url(reader, "default_confirm_success_url"),
        default_password_reset_url: default_url(reader, "default_password_reset_url"),
        default_unlock_success_url: default_url(reader, "default_unlock_success_url"),
    }
}

fn allowlist(reader: &mut Reader<'_>) -> RedirectAllowlist {
    const KEY: &str = "redirect_allowlist";
    let entries = reader.list(KEY);
    let localhost = reader.flag("redirect_allow_localhost");
    let list = RedirectAllowlist::parse(entries.iter().map(String::as_str)).unwrap_or_else(|error| {
        reader.refuse(KEY, error);
        RedirectAllowlist::default()
    });
    if localhost { list.with_localhost() } else { list }
}

fn default_url(reader: &mut Reader<'_>, key: &str) -> Option<Redirect> {
    let url = reader.text(key);
    if url.is_empty() {
        return None;
    }
    Redirect::parse(&url).map_err(|error| reader.refuse(key, error)).ok()
}

/// When sign-ins are locked, if they ever are.
pub(super) fn lockout(reader: &mut Reader<'_>) -> Option<Lockout> {
    const UNLOCK: &str = "lockable.unlock_after";
    let enabled = reader.flag("lockable.enabled");
    let lockout = Lockout {
        max_attempts: reader.number("lockable.max_attempts", 1..=1_000_000),
        unlock_after: if reader.is(UNLOCK, "never") {
            reader.text(UNLOCK);
            Duration::MAX
        } else {
            reader.duration(UNLOCK, SECOND..=30 * DAY)
        },
        forget_after: reader.duration("lockable.forget_after", SECOND..=365 * DAY),
        by_mail: reader.flag("lockable.by_mail"),
        link_lifetime: reader.duration("lockable.link_within", SECOND..=30 * DAY),
    };
    enabled.then_some(lockout)
}
