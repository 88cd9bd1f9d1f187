//! Names of the auth headers, and where else credentials are read from.

use baton_axum::HttpSettings;
use baton_core::wire::HeaderNames;
use http::HeaderName;

use super::reader::Reader;

const KEYS: [&str; 6] = [
    "headers_names.access-token",
    "headers_names.token-type",
    "headers_names.client",
    "headers_names.expiry",
    "headers_names.uid",
    "headers_names.authorization",
];

/// Headers with a meaning for HTTP itself: a token in their place would break the response or hide its own name.
const TAKEN: [&str; 19] = [
    "accept",
    "age",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expires",
    "host",
    "location",
    "origin",
    "set-cookie",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
];

pub(super) fn read(reader: &mut Reader<'_>) -> HttpSettings {
    let [access_token, token_type, client, expiry, uid, authorization] = KEYS.map(|key| name(reader, key));
    let names = HeaderNames { access_token, token_type, client, expiry, uid, authorization };
    let all = names.all();
    for (index, name) in all.iter().enumerate() {
        let taken = all[..index].iter().any(|other| other.eq_ignore_ascii_case(name));
        // One of the others may not have that name: then it has been told so.
        if taken && !name.eq_ignore_ascii_case("authorization") {
            reader.refuse(KEYS[index], "another of the six has this name already");
        }
    }
    HttpSettings {
        headers_names: names,
        credentials_in_params: reader.flag("credentials_in_params"),
        ..HttpSettings::default()
    }
}

fn name(reader: &mut Reader<'_>, key: &str) -> String {
    let name = reader.text(key);
    let lower = name.to_ascii_lowercase();
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        reader.refuse(key, "is not the name of a header");
    } else if TAKEN.contains(&lower.as_str()) || lower.starts_with("access-control-") {
        reader.refuse(key, "has a meaning for HTTP itself");
    } else if lower == "authorization" && key != KEYS[5] {
        reader.refuse(key, "Authorization is where the bearer value goes");
    }
    name
}
