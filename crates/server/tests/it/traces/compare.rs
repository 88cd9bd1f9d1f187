//! How an answer differs from the recorded one, as short phrases that `docs/compatibility.md` can list.
//!
//! Compared: the status; which auth headers there are and which are blank, and whose they are; `Authorization`;
//! `Content-Type` without parameters; `Cache-Control`; `WWW-Authenticate`; whether a cookie is set or cleared; where
//! `Location` leads and the names of its parameters; the keys and types of a JSON body, the lengths of its lists, and those
//! texts and numbers that are the same in each run. Not compared: sentences, times, ids, HTML. Where the status differs it is
//! another answer altogether, and the rest is not compared, except that auth headers may not come unexpectedly.

use http::HeaderMap;
use serde_json::{Map, Value};

use super::recording::Exchange;
use crate::support::Answer;

/// The auth headers, under the names of a scenario.
pub struct AuthNames {
    pub token: &'static str,
    pub kind: &'static str,
    pub client: &'static str,
    pub expiry: &'static str,
    pub uid: &'static str,
    pub authorization: &'static str,
}

pub const USUAL: AuthNames = AuthNames {
    token: "access-token",
    kind: "token-type",
    client: "client",
    expiry: "expiry",
    uid: "uid",
    authorization: "Authorization",
};

pub const CUSTOM: AuthNames = AuthNames {
    token: "X-Token",
    kind: "X-Token-Type",
    client: "X-Client",
    expiry: "X-Expiry",
    uid: "X-Uid",
    authorization: "X-Authorization",
};

/// A header of the recording; an `Authorization` that is shown decoded counts as a value.
pub fn recorded<'a>(headers: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    let value = headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name))?.1;
    Some(value.as_str().unwrap_or("(decoded)"))
}

/// A header of ours.
pub fn ours<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("(not text)"))
}

/// `fill` turns the recorded text into what ours should be; `None` if that is not known.
/// `with_body` is false where another resource than the gem's stands in.
pub fn differences(
    exchange: &Exchange,
    answer: &Answer,
    names: &AuthNames,
    fill: &mut dyn FnMut(&str) -> Option<String>,
    with_body: bool,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |what: &str, theirs: &str, ours: &str| {
        if theirs != ours {
            found.push(format!("{what} {theirs} → {ours}"));
        }
    };
    let (theirs_of, ours_of) = (|name| recorded(&exchange.answer_headers, name), |name| ours(&answer.headers, name));
    note("status", &exchange.status.to_string(), &answer.status.to_string());

    let (theirs, got) = (auth(names, theirs_of), auth(names, ours_of));
    let other_answer = exchange.status != answer.status;
    if !(other_answer && got == "none") {
        note("auth", &theirs, &got);
    }
    if other_answer {
        return found;
    }
    if theirs == got {
        note("authorization", presence(theirs_of(names.authorization)), presence(ours_of(names.authorization)));
        for name in [names.kind, names.client, names.uid] {
            let expected = theirs_of(name).and_then(&mut *fill);
            if let (Some(expected), Some(got)) = (expected, ours_of(name)) {
                note(name, &expected, got);
            }
        }
    }
    for name in ["content-type", "cache-control", "www-authenticate"] {
        if name == "content-type" && !with_body {
            continue;
        }
        let essence = |value: Option<&str>| value.unwrap_or("none").split(';').next().unwrap_or_default().to_owned();
        // The challenge's parameters say what the status says.
        let scheme = |value: String| if name == "www-authenticate" { first_word(&value) } else { value };
        note(name, &essence(theirs_of(name)), &scheme(essence(ours_of(name))));
    }
    note("set-cookie", cookie(theirs_of("set-cookie")), cookie(ours_of("set-cookie")));
    note("location", &location(theirs_of("location")), &location(ours_of("location")));

    if with_body {
        body(&exchange.answer_body, &answer.body, fill, &mut found);
    }
    found
}

/// "token", "blank" and "none" are the three that there should be.
fn auth<'a>(names: &AuthNames, header: impl Fn(&'static str) -> Option<&'a str>) -> String {
    let states = [names.token, names.kind, names.client, names.expiry, names.uid].map(|name| presence(header(name)));
    match states {
        ["value", "value", "value", "value", "value"] => "token".to_owned(),
        ["blank", "value", "value", "blank", "value"] => "blank".to_owned(),
        ["none", "none", "none", "none", "none"] => "none".to_owned(),
        other => other.join("/"),
    }
}

fn presence(value: Option<&str>) -> &'static str {
    match value.map(str::trim) {
        None => "none",
        Some("") => "blank",
        Some(_) => "value",
    }
}

fn first_word(text: &str) -> String {
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn cookie(header: Option<&str>) -> &'static str {
    match header.and_then(|header| header.split_once('=')) {
        None => "none",
        Some((_, rest)) if rest.starts_with(';') => "cleared",
        Some(_) => "set",
    }
}

/// The address without query and fragment, and the names of the query's parameters; those of the fragment behind `#`.
fn location(header: Option<&str>) -> String {
    let Some(header) = header else { return "none".to_owned() };
    let (rest, fragment) = header.split_once('#').map_or((header, None), |(rest, fragment)| (rest, Some(fragment)));
    let names = |query: &str| {
        let names: Vec<&str> = query.split('&').filter_map(|pair| pair.split('=').next()).collect();
        names.join("&")
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let fragment = fragment.map(|fragment| match fragment.split_once('?') {
        Some((fragment, query)) => format!("#{fragment}?{}", names(query)),
        None => format!("#{fragment}"),
    });
    format!("{path}?{}{}", names(query), fragment.unwrap_or_default())
}

fn body(theirs: &Value, ours: &str, fill: &mut dyn FnMut(&str) -> Option<String>, found: &mut Vec<String>) {
    let parsed = serde_json::from_str::<Value>(ours);
    match (theirs, parsed) {
        (Value::String(text), parsed) => {
            let theirs = if text.is_empty() { "empty" } else { "html" };
            let ours = match parsed {
                Ok(value) => type_of(&value),
                Err(_) if ours.is_empty() => "empty",
                Err(_) => "html",
            };
            if theirs != ours {
                found.push(format!("body {theirs} → {ours}"));
            }
        }
        (theirs, Ok(ours)) => value("", theirs, &ours, fill, found),
        (theirs, Err(_)) => found.push(format!("body {} → no JSON", type_of(theirs))),
    }
}

fn value(
    path: &str,
    theirs: &Value,
    ours: &Value,
    fill: &mut dyn FnMut(&str) -> Option<String>,
    found: &mut Vec<String>,
) {
    let place = if path.is_empty() { String::new() } else { format!(" {path}") };
    let is_id = theirs == "{id}";
    let types = (if is_id { "number" } else { type_of(theirs) }, type_of(ours));
    if types.0 != types.1 {
        return found.push(format!("body{place} {} → {}", types.0, types.1));
    }
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            for (key, field) in theirs {
                match ours.get(key) {
                    Some(other) => value(&below(key), field, other, fill, found),
                    None => found.push(format!("body -{}", below(key))),
                }
            }
            let more = ours.keys().filter(|key| !theirs.contains_key(*key));
            found.extend(more.map(|key| format!("body +{}", below(key))));
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            if theirs.len() != ours.len() {
                found.push(format!("body {path}[] {} → {}", theirs.len(), ours.len()));
            }
            for (theirs, ours) in theirs.iter().zip(ours) {
                value(&format!("{path}[]"), theirs, ours, fill, found);
            }
        }
        (Value::String(theirs), Value::String(ours)) => {
            // `{message}` and `{time}` are nothing that could be filled in.
            if let Some(expected) = fill(theirs).filter(|expected| expected != ours) {
                found.push(format!("body{place} {expected:?} → {ours:?}"));
            }
        }
        (theirs, ours) if !is_id && theirs != ours => found.push(format!("body{place} {theirs} → {ours}")),
        _ => {}
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}
