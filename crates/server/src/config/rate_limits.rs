//! How often what may be tried.

use std::num::NonZeroU32;
use std::time::Duration;

use baton_axum::{Quota, Quotas, Scopes};

use super::reader::{Reader, shown};

/// The quotas, if there are to be any.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Quotas> {
    let enabled = reader.flag("rate_limits.enabled");
    let quotas = Quotas {
        sign_in: Scopes {
            per_address: quota(reader, "rate_limits.sign_in_per_address"),
            per_account: quota(reader, "rate_limits.sign_in_per_account"),
        },
        register: Scopes {
            per_address: quota(reader, "rate_limits.register_per_address"),
            per_account: quota(reader, "rate_limits.register_per_account"),
        },
        reset: Scopes {
            per_address: quota(reader, "rate_limits.reset_per_address"),
            per_account: quota(reader, "rate_limits.reset_per_account"),
        },
        confirm: Scopes {
            per_address: quota(reader, "rate_limits.confirm_per_address"),
            per_account: quota(reader, "rate_limits.confirm_per_account"),
        },
        unlock: Scopes {
            per_address: quota(reader, "rate_limits.unlock_per_address"),
            per_account: quota(reader, "rate_limits.unlock_per_account"),
        },
    };
    enabled.then_some(quotas)
}

/// `"30/1m"`, or `"off"`.
fn quota(reader: &mut Reader<'_>, key: &str) -> Option<Quota> {
    if reader.is(key, "off") {
        reader.text(key);
        return None;
    }
    match parse(&reader.text(key)) {
        Ok(quota) => Some(quota),
        Err(why) => {
            reader.refuse(key, why);
            None
        }
    }
}

fn parse(text: &str) -> Result<Quota, String> {
    const MAX_BURST: u32 = 1_000_000;
    const PERIODS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);
    let shape = || "has to be a number and a period, such as \"30/1m\", or \"off\"".to_owned();
    let (burst, period) = text.split_once('/').ok_or_else(shape)?;
    let burst: NonZeroU32 = burst.trim().parse().map_err(|_| shape())?;
    let period = humantime::parse_duration(period.trim()).map_err(|_| shape())?;
    if burst.get() > MAX_BURST {
        return Err(format!("the number has to be from 1 to {MAX_BURST}"));
    }
    if !PERIODS.contains(&period) {
        return Err(format!("the period has to be from {} to {}", shown(*PERIODS.start()), shown(*PERIODS.end())));
    }
    Ok(Quota { burst, period })
}
