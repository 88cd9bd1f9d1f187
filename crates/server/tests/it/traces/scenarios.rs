//! The settings with which each scenario is replayed, and its times.
//!
//! Where a setting brings the gem's behaviour back, it is set: what differs then is what no setting can make the same.

/// Everywhere.
const BASE: &[(&str, &str)] = &[
    // There is no setting of the gem for these.
    ("rate_limits.enabled", "false"),
    ("password.min_score", "0"),
    // What the gem has, by default or always.
    ("password.min_length", "6"),
    ("check_current_password_before_update", "false"),
    ("remove_tokens_after_password_reset", "false"),
    ("credentials_in_params", "true"),
    ("confirmable", "false"),
    ("lockable.enabled", "false"),
    ("paranoid", "false"),
    ("reconfirmable", "false"),
    ("redirect_allowlist", "http://x.example,http://y.example,http://d.example"),
];

/// The settings that a scenario's name stands for.
fn own(scenario: &str) -> &'static [(&'static str, &'static str)] {
    match scenario {
        "check_current_password=attributes" => &[("check_current_password_before_update", "attributes")],
        "redirect_whitelist" => &[("redirect_allowlist", "http://ok.example,https://a.good.example/cb")],
        "confirmable" => &[("confirmable", "true")],
        "confirmable+default_url+send_email+reconfirmable" => {
            &[("confirmable", "true"), ("reconfirmable", "true"), ("default_confirm_success_url", "http://d.example/c")]
        }
        "lockable" => &[
            ("lockable.enabled", "true"),
            ("lockable.max_attempts", "3"),
            ("default_unlock_success_url", "http://x.example/"),
            // It was locked at 1.28 s and open again at 7.49 s.
            ("lockable.unlock_after", "6s"),
        ],
        "paranoid" => &[("paranoid", "true"), ("lockable.enabled", "true"), ("lockable.max_attempts", "3")],
        "cookie" => &[
            ("cookie_enabled", "true"),
            ("cookie_name", "auth_cookie"),
            ("cookie_only", "false"),
            ("cookie_attributes.secure", "false"),
            ("cookie_attributes.http_only", "false"),
        ],
        "custom headers" => &[
            ("headers_names.access-token", "X-Token"),
            ("headers_names.token-type", "X-Token-Type"),
            ("headers_names.client", "X-Client"),
            ("headers_names.expiry", "X-Expiry"),
            ("headers_names.uid", "X-Uid"),
            ("headers_names.authorization", "X-Authorization"),
        ],
        "change_headers=false" => &[("change_headers_on_each_request", "false")],
        "lifespan 8s" => &[("token_lifespan", "8")],
        "require_client_password_reset_token" => &[("require_client_password_reset_token", "true")],
        "default_password_reset_url" => &[("default_password_reset_url", "http://d.example/reset")],
        // Where superseded tokens come back later; not where `unbatch` is tried, which this setting has no use for.
        _ if ["a-", "b-batch-", "c-", "h-"].iter().any(|kind| scenario.starts_with(kind)) => {
            &[("forgive_lost_responses", "true")]
        }
        _ => &[],
    }
}

/// Names and values; a later one wins.
pub fn settings(scenario: &str) -> Vec<(&'static str, String)> {
    let all = BASE.iter().chain(own(scenario));
    all.map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// When each exchange took place, in milliseconds since the first. Only for the scenarios whose times the recording lost:
/// from their names, their notes and how they were run.
pub fn times(scenario: &str) -> Option<Vec<u64>> {
    let gap = |prefix: &str| {
        let gap = scenario.strip_prefix(prefix)?;
        seconds(gap.strip_suffix('s').unwrap_or(gap))
    };
    let gaps = match scenario {
        "a-diagram" => vec![0, 6_000, 6_000, 6_000, 200, 6_000, 200, 200, 6_000, 130, 200],
        "h-lost-2s" => vec![0, 6_000, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000, 200],
        "h-lost-6-6" => vec![0, 6_000, 6_000, 6_000, 200],
        "h-lost-12" => vec![0, 6_000, 12_000, 12_000, 200],
        "h-lost-6-2-2-2" => vec![0, 6_000, 6_000, 2_000, 2_000, 2_000, 6_000, 200],
        "h-lost-30" => vec![0, 6_000, 30_000, 370],
        // Those with a slow request: it ends 8 s after it began, which was half a second before the second exchange.
        "e-slow-fresh" => vec![0, 1_000, 200, 200, 7_100, 90, 210],
        "e-slow-aged" => vec![0, 6_500, 200, 200, 7_100, 90, 680],
        "e-slow-rot2" => vec![0, 6_500, 710, 200, 200, 6_390, 90, 200],
        "e-slow-rotnatural" => vec![0, 6_500, 6_500, 1_000, 90, 200],
        "e-slow-signout" => vec![0, 6_500, 7_500, 460, 10],
        "f-unbatch" => vec![0, 6_000, 200, 200, 200, 200, 200, 200, 200, 120, 100, 20],
        "g-misc" => vec![0, 6_000, 370, 6_000, 6_000, 100, 180, 300, 270, 150],
        "g-validate_token" => vec![0, 6_000, 200, 6_000],
        "b-batch-extends" => vec![0, 6_000, 3_000, 3_000, 3_000, 3_000, 200, 6_000, 230, 220],
        "c-two-old-extends" => vec![0, 6_000, 6_000, 3_000, 3_000, 3_000, 3_000, 3_000, 6_000, 190],
        "c-signout-with-previous" => vec![0, 6_000, 500, 80],
        _ if scenario.starts_with("a-T3-after-") => vec![0, 6_000, 6_000, 6_000, gap("a-T3-after-")?],
        _ if scenario.starts_with("c-one-old-") => vec![0, 6_000, gap("c-one-old-")?, 200],
        _ if scenario.starts_with("c-two-old-") => vec![0, 6_000, 6_000, gap("c-two-old-")?, 150, 150],
        _ if scenario.starts_with("c-three-old-") => vec![0, 6_000, 6_000, 6_000, gap("c-three-old-")?, 170],
        _ if scenario.starts_with("b-every-") => {
            let gap = gap("b-every-")?;
            [0, 200].into_iter().chain(std::iter::repeat_n(gap, 15)).collect()
        }
        _ if scenario.starts_with("s-first-request-") => {
            vec![0, seconds(scenario.strip_prefix("s-first-request-")?.strip_suffix("s-after-sign_in")?)?]
        }
        _ if scenario.starts_with("w-phase-") => {
            let (phase, gap) = scenario.strip_prefix("w-phase-")?.split_once("-gap-")?;
            vec![0, 6_000 + seconds(phase)?, seconds(gap)?]
        }
        _ => return None,
    };
    let ascending = gaps.into_iter().scan(0, |now, gap| {
        *now += gap;
        Some(*now)
    });
    Some(ascending.collect())
}

/// `"4.5"` is 4500 ms.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few minutes at most, none negative")]
fn seconds(text: &str) -> Option<u64> {
    Some((text.parse::<f64>().ok()? * 1_000.0).round() as u64)
}
