//! Sends a scenario's requests to a fresh server and collects how its answers differ.
//!
//! The client of the replay does as the recorded one did, with the tokens that it was given: where the recorded client sent
//! the newest token that it held, so does this one, even if our server handed out a new token and the gem did not.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde_json::{Value, json};

use super::compare::{self, AuthNames, CUSTOM, USUAL};
use super::fill::{Names, email, placeholders};
use super::mailbox::Kind;
use super::recording::{Exchange, exchanges};
use super::scenarios;
use super::server::Server;
use crate::support::{Answer, Call};

/// What came of one exchange.
#[derive(Debug)]
pub struct Outcome {
    pub exchange: Exchange,
    pub request: String,
    /// How the answer differs; nothing if it does not.
    pub differences: Vec<String>,
}

/// Milliseconds between the registration that comes before a recording of rotations and its first request.
const HEAD_START: u64 = 60_000;
/// How long the slow requests take, in milliseconds.
const SLOW: u64 = 8_000;

pub fn replay(scenario: &str) -> Vec<Outcome> {
    let exchanges = exchanges(scenario);
    let mut replay = Replay {
        server: Server::start(&scenarios::settings(scenario)),
        names: Names::default(),
        auth: if scenario == "custom headers" { &CUSTOM } else { &USUAL },
        newest: BTreeMap::new(),
        issued: 0,
        mailed: String::new(),
        slow: None,
    };
    let times = scenarios::times(scenario);
    if exchanges[0].rotation {
        // The recording begins with the first sign-in.
        let body = json!({ "email": email("1"), "password": "secret123", "password_confirmation": "secret123" });
        let answer = Call::new("POST", format!("http://{}/auth", replay.server.address)).json(&body).send();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let slow = exchanges.iter().find(|exchange| exchange.path.starts_with("/demo/slow"));
    let mut outcomes = Vec::new();
    for exchange in &exchanges {
        let at = HEAD_START + times.as_ref().map_or(exchange.at, |times| times[exchange.index]);
        if let Some(slow) = slow.filter(|_| exchange.index == 1) {
            replay.begin_slow(slow, at);
        }
        replay.server.set_time(at);
        outcomes.push(replay.step(exchange));
    }
    outcomes
}

struct Replay {
    server: Server,
    names: Names,
    auth: &'static AuthNames,
    /// The newest token of each client, by their names in the recording.
    newest: BTreeMap<String, String>,
    /// How many tokens the gem has issued, where notes count them.
    issued: usize,
    /// Who was last written to.
    mailed: String,
    slow: Option<std::thread::JoinHandle<Answer>>,
}

impl Replay {
    /// The slow request is in the handler before the other ones come, and ends where the recording has it.
    fn begin_slow(&mut self, exchange: &Exchange, before: u64) {
        self.server.set_time(before - 500);
        let (call, _) = self.call(exchange);
        self.slow = Some(std::thread::spawn(move || call.send()));
        self.server.await_sleeper();
    }

    fn step(&mut self, exchange: &Exchange) -> Outcome {
        let (call, request) = self.call(exchange);
        let slow = self.slow.take_if(|_| exchange.path.starts_with("/demo/slow"));
        let answer = match slow {
            Some(slow) => {
                self.server.wake(Duration::from_millis(SLOW));
                slow.join().expect("the slow request is answered")
            }
            None => call.send(),
        };
        let mut differences = self.learn(exchange, &answer);
        let names = &mut self.names;
        let mut fill = |text: &str| {
            let known = placeholders(text).all(|name| names.get(name).is_some() || name.starts_with("email"));
            known.then(|| names.fill(text, 22))
        };
        let (_, with_body) = path(exchange);
        differences.extend(compare::differences(exchange, &answer, self.auth, &mut fill, with_body));
        differences.sort();
        Outcome { exchange: exchange.clone(), request, differences }
    }

    /// The request, and how to show it.
    fn call(&mut self, exchange: &Exchange) -> (Call, String) {
        // Notes tell of tokens of an unusual size.
        let size = match exchange.note.as_str() {
            "token 10kB" => 10_000,
            "client 1kB" => 1_000,
            _ => 22,
        };
        if exchange.rotation {
            self.name_by_note(exchange);
        }
        let (path, _) = path(exchange);
        let path = self.fill(exchange, &path, size);
        let mut call = Call::new(&exchange.method, format!("http://{}{path}", self.server.address));
        let mut shown = format!("{} {path}", exchange.method);
        let mut content_type = None;
        for (name, value) in &exchange.headers {
            let value = match value {
                Value::Object(fields) => {
                    let json = self.names.fill_json(&fields["bearer"], size);
                    bearer(&exchange.note, &json.to_string())
                }
                Value::String(text) if name == "Cookie" => self.cookie(text),
                Value::String(text) if name == "X-Authorization" => self.literal_bearer(text),
                value => self.fill(exchange, value.as_str().expect("a header is text"), size),
            };
            if name == "Content-Type" {
                content_type = Some(value);
            } else {
                shown.push_str(&format!(" {name}:{:.40}", value));
                call = call.header(name, value);
            }
        }
        let body = match &exchange.body {
            Value::Null => None,
            // Malformed JSON, or a form.
            Value::String(text) if text.starts_with('{') || content_type.as_deref() != Some("application/json") => {
                Some(self.fill(exchange, text, size))
            }
            value => Some(self.body(exchange, value).to_string()),
        };
        if let Some(body) = body {
            shown.push_str(&format!(" {body:.200}"));
            call = call.body(content_type.as_deref().unwrap_or("application/json"), body);
        }
        (call, shown)
    }

    /// Text with our values, and with tokens from mails.
    fn fill(&mut self, exchange: &Exchange, text: &str, size: usize) -> String {
        let names: Vec<String> = placeholders(text).map(str::to_owned).collect();
        let mut text = text.to_owned();
        for name in names {
            if let Some(kind) = Kind::of(&name) {
                let token = self.mail(exchange, kind).unwrap_or_default();
                text = text.replace(&format!("{{{name}}}"), &token);
            }
        }
        self.names.fill(&text, size)
    }

    fn body(&mut self, exchange: &Exchange, value: &Value) -> Value {
        let mut body = self.names.fill_json(value, 22);
        if value.get("id").is_some() {
            body["id"] = json!(1);
        }
        // Here the recording shows the token as it was.
        if let Some(token) = value["reset_password_token"].as_str().filter(|token| *token != "bad") {
            let mailed = self.mail(exchange, Kind::Reset);
            body["reset_password_token"] = json!(mailed.unwrap_or_else(|| token.to_owned()));
        }
        body
    }

    /// What stands for the token of a mail in this exchange.
    fn mail(&self, exchange: &Exchange, kind: Kind) -> Option<String> {
        let bad = ["bad", "not allowed"].iter().any(|word| exchange.note.contains(word));
        if bad {
            return Some("x".repeat(20));
        }
        self.server.mailed(kind, &self.mailed, usize::from(exchange.note.contains("superseded")))
    }

    /// In `rotation` scenarios a note begins with the number of the token that it is about.
    fn name_by_note(&mut self, exchange: &Exchange) {
        let Some(Value::String(placeholder)) = exchange.headers.get("access-token") else { return };
        let number = note_token(&exchange.note);
        let value = number.and_then(|number| self.names.get(&format!("generation{number}")).cloned());
        let name = placeholder.trim_matches(['{', '}']);
        self.names.learn(name, &value.unwrap_or_else(|| "x".repeat(22)));
        let client = self.names.get("generation client").cloned();
        if let (Some(client), Some(Value::String(name))) = (client, exchange.headers.get("client")) {
            self.names.learn(name.trim_matches(['{', '}']), &client);
        }
    }

    fn cookie(&mut self, text: &str) -> String {
        // The recorder took the `22` of the quotation mark before the address for a part of it.
        let uid = self.names.fill("{email1}", 22).replace('@', "%40");
        self.names.fill(&text.replace("%{email2}", &format!("%22{uid}")), 22)
    }

    /// A bearer value that the recording shows as it was.
    fn literal_bearer(&mut self, text: &str) -> String {
        let json = text.strip_prefix("Bearer ").and_then(|encoded| STANDARD.decode(encoded).ok());
        let json = json.and_then(|json| String::from_utf8(json).ok()).expect("base64 of JSON");
        format!("Bearer {}", STANDARD.encode(self.names.fill(&json, 22)))
    }

    /// Takes from the answer what the recording has names for. How the tokens differ.
    fn learn(&mut self, exchange: &Exchange, answer: &Answer) -> Vec<String> {
        if let Some(address) = exchange.body["email"].as_str().filter(|_| exchange.status == 200) {
            self.mailed = self.names.fill(address, 22).trim().to_lowercase();
        }
        self.learn_location(exchange, &answer.headers);
        for name in [self.auth.client, self.auth.expiry] {
            let theirs = compare::recorded(&exchange.answer_headers, name).unwrap_or_default();
            let ours = compare::ours(&answer.headers, name).unwrap_or_default();
            self.learn_value((name == self.auth.client).then_some("client"), theirs, ours);
        }
        if exchange.rotation { self.learn_generation(exchange, answer) } else { self.learn_token(exchange, answer) }
    }

    fn learn_value(&mut self, kind: Option<&'static str>, theirs: &str, ours: &str) {
        if theirs.is_empty() || ours.is_empty() {
            return;
        }
        match placeholders(theirs).next() {
            Some(name) if self.names.get(name).is_none() || kind.is_none() => self.names.learn(name, ours),
            Some(_) => {}
            None => self.names.learn_literal(kind, theirs, ours),
        }
    }

    fn learn_location(&mut self, exchange: &Exchange, ours: &HeaderMap) {
        let query = |location: Option<&str>| -> BTreeMap<String, String> {
            let query = location.and_then(|location| location.split_once('?')).map_or("", |(_, query)| query);
            let query = query.split('#').next().unwrap_or_default();
            form_urlencoded::parse(query.as_bytes()).into_owned().collect()
        };
        let (theirs, ours) =
            (query(compare::recorded(&exchange.answer_headers, "location")), query(compare::ours(ours, "location")));
        for (name, kind) in [(self.auth.token, "token"), (self.auth.client, "client")] {
            if let (Some(theirs), Some(ours)) = (theirs.get(name), ours.get(name)) {
                self.names.learn_literal(Some(kind), theirs, ours);
            }
        }
    }

    fn learn_token(&mut self, exchange: &Exchange, answer: &Answer) -> Vec<String> {
        let theirs = compare::recorded(&exchange.answer_headers, self.auth.token).unwrap_or_default();
        let ours = compare::ours(&answer.headers, self.auth.token).unwrap_or_default().to_owned();
        let client = compare::recorded(&exchange.answer_headers, self.auth.client).unwrap_or_default().to_owned();
        let presented = presented(exchange, self.auth);
        let mut found = Vec::new();
        match placeholders(theirs).next() {
            Some(name) => {
                let known = self.names.get(name).cloned();
                match known {
                    Some(known) if !ours.is_empty() && known != ours => {
                        found.push("token the same → a new one".to_owned())
                    }
                    Some(_) => {}
                    None if !ours.is_empty() => {
                        if presented.as_ref().and_then(|name| self.names.get(name)) == Some(&ours) {
                            found.push("token a new one → the same".to_owned());
                        }
                        self.names.learn(name, &ours);
                    }
                    // The client goes on with what it holds.
                    None => {
                        let held = self.newest.get(&client).and_then(|name| self.names.get(name)).cloned();
                        self.names.learn(name, &held.unwrap_or_default());
                    }
                }
                self.newest.insert(client, name.to_owned());
            }
            None if !theirs.is_empty() => self.names.learn_literal(Some("token"), theirs, &ours),
            None if !ours.is_empty() => {
                // The client takes the token that it is given, if what it sent was its newest.
                let presented = presented.filter(|name| self.newest.get(&client).is_none_or(|newest| newest == name));
                if let Some(name) = presented {
                    match placeholders(&format!("{{{name}}}")).next() {
                        Some(name) if self.names.get(name).is_some() => self.names.learn(name, &ours),
                        _ => self.names.learn_literal(Some("token"), &name, &ours),
                    }
                }
            }
            None => {}
        }
        found
    }

    fn learn_generation(&mut self, exchange: &Exchange, answer: &Answer) -> Vec<String> {
        let theirs = compare::recorded(&exchange.answer_headers, self.auth.token).unwrap_or_default();
        let ours = compare::ours(&answer.headers, self.auth.token).unwrap_or_default().to_owned();
        let name = |number: usize| format!("generation{number}");
        let newest = self.names.get(&name(self.issued)).cloned().unwrap_or_default();
        let mut found = Vec::new();
        if let Some(client) = compare::ours(&answer.headers, self.auth.client).filter(|client| !client.is_empty()) {
            self.names.learn("generation client", client);
        }
        if !theirs.is_empty() {
            self.issued += 1;
            if !ours.is_empty() && ours == newest {
                found.push("token a new one → the same".to_owned());
            }
            self.names.learn(&name(self.issued), if ours.is_empty() { &newest } else { &ours });
        } else if !ours.is_empty() && note_token(&exchange.note) == Some(self.issued) {
            self.names.learn(&name(self.issued), &ours);
        }
        found
    }
}

/// The path to ask for, and whether the body that comes back can be compared. Two resources of the gem's application have
/// only their likes here.
fn path(exchange: &Exchange) -> (String, bool) {
    match exchange.path.as_str() {
        "/demo/members_304" if exchange.headers.contains_key("If-None-Match") => ("/demo/status?code=304".into(), true),
        "/demo/members_304" => ("/demo/members_only".into(), false),
        "/demo/boom" => ("/demo/status?code=500".into(), false),
        other => (other.into(), true),
    }
}

/// The name of the token that a request carries, or its value where the recording shows that.
fn presented(exchange: &Exchange, auth: &AuthNames) -> Option<String> {
    let text = format!("{} {} {}", exchange.path, json!(exchange.headers), exchange.body);
    let named = placeholders(&text).find(|name| name.starts_with("token")).map(str::to_owned);
    named.or_else(|| exchange.headers.get(auth.token).and_then(Value::as_str).map(str::to_owned))
}

/// The number of the token that a note begins with: "T3 superseded" is about the third one issued.
fn note_token(note: &str) -> Option<usize> {
    note.split(' ').find_map(|word| word.strip_prefix('T')?.parse().ok())
}

/// The recording shows all of these decoded.
fn bearer(note: &str, json: &str) -> String {
    let encoded = STANDARD.encode(json);
    match note {
        "members bearer lower case" => format!("bearer {encoded}"),
        "members Authorization bare b64" => encoded,
        "members Authorization Basic-prefixed b64" => format!("Basic {encoded}"),
        "members Bearer without padding" => format!("Bearer {}", encoded.trim_end_matches('=')),
        _ => format!("Bearer {encoded}"),
    }
}
