//! What the gem was seen to answer: `tests/data/dta-traces.json`, exchange by exchange.
//!
//! Values that differ from run to run stand as `{token1}`, `{client1}`, `{email1}` and so on. In the scenarios of the set
//! "rotation", which ran side by side, these numbers and the times begin anew whenever another scenario comes between, so
//! there a note says which token was sent ("T3 superseded", the third one issued), and [`super::scenarios`] when.

use serde_json::{Map, Value};

const FILE: &str = include_str!("../../data/dta-traces.json");

/// One recorded request with its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub scenario: String,
    /// Its place within the scenario, from 0.
    pub index: usize,
    pub note: String,
    /// Whether its placeholders are numbered anew all the time, see above.
    pub rotation: bool,
    /// Milliseconds since the scenario began.
    pub at: u64,
    pub method: String,
    pub path: String,
    pub headers: Map<String, Value>,
    pub body: Value,
    pub status: u16,
    pub answer_headers: Map<String, Value>,
    pub answer_body: Value,
}

/// The scenarios in the order in which they began.
pub fn names() -> Vec<String> {
    let mut names = Vec::new();
    for exchange in all() {
        if !names.contains(&exchange.scenario) {
            names.push(exchange.scenario);
        }
    }
    names
}

/// The exchanges of one scenario.
pub fn exchanges(scenario: &str) -> Vec<Exchange> {
    let exchanges = all().into_iter().filter(|exchange| exchange.scenario == scenario);
    exchanges.enumerate().map(|(index, exchange)| Exchange { index, ..exchange }).collect()
}

fn all() -> Vec<Exchange> {
    let all: Vec<Value> = serde_json::from_str(FILE).expect("the recording is JSON");
    all.iter().map(exchange).collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few minutes at most, none negative")]
fn exchange(value: &Value) -> Exchange {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let headers = |value: &Value| value["headers"].as_object().cloned().unwrap_or_default();
    let (request, response) = (&value["request"], &value["response"]);
    Exchange {
        scenario: text(&value["scenario"]),
        index: 0,
        note: text(&value["note"]),
        rotation: value["set"] == "rotation",
        at: (value["at_s"].as_f64().expect("seconds") * 1_000.0).round() as u64,
        method: text(&request["method"]),
        path: text(&request["path"]),
        headers: headers(request),
        body: request["body"].clone(),
        status: response["status"].as_u64().and_then(|status| u16::try_from(status).ok()).expect("a status"),
        answer_headers: headers(response),
        answer_body: response["body"].clone(),
    }
}
