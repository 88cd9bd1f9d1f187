//! Tokens and sessions.

use std::time::Duration;

use baton_core::{BatchResponse, OnReuse, Rules};

use super::reader::Reader;

const HOUR: Duration = Duration::from_secs(60 * 60);
const YEARS: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

pub(super) fn read(reader: &mut Reader<'_>) -> Rules {
    let lifetimes = Duration::from_secs(1)..=YEARS;
    Rules {
        change_headers_on_each_request: reader.flag("change_headers_on_each_request"),
        token_lifespan: reader.duration("token_lifespan", lifetimes.clone()),
        session_max_lifetime: reader.duration("session_max_lifetime", lifetimes),
        batch_request_buffer_throttle: reader.duration("batch_request_buffer_throttle", Duration::ZERO..=HOUR),
        forgive_lost_responses: reader.flag("forgive_lost_responses"),
        on_reuse: reader.choice("on_reuse", [("reject", OnReuse::Reject), ("revoke", OnReuse::Revoke)]),
        batch_response: reader.choice(
            "batch_response",
            [("blank", BatchResponse::Blank), ("omit", BatchResponse::Omit), ("repeat", BatchResponse::Repeat)],
        ),
    }
}
