//! What was aimed at, and what was measured.

use super::{Spread, table};
use crate::load::Report;
use crate::suite::{Growth, Results, SignIns};

const MEMORY_MIB: f64 = 30.0;
const START_MS: f64 = 50.0;
const START_SESSIONS: u64 = 1_000_000;
const HALF_LOAD: f64 = 1.5;
const GROWTH: f64 = 1.2;
const SIGN_IN: f64 = 1.1;
const DISTURBANCE: f64 = 2.0;

/// A row: what, the bound, what was found, whether it is within.
struct Target {
    what: String,
    bound: String,
    found: String,
    met: bool,
}

pub(super) fn write(text: &mut String, results: &Results) {
    let targets = all(results);
    if targets.is_empty() {
        return;
    }
    text.push_str("## Targets\n\n");
    let rows = targets.into_iter().map(|target| {
        let met = if target.met { "yes" } else { "**no**" };
        vec![target.what, target.bound, target.found, met.to_owned()]
    });
    table(text, &["", "target", "measured", "met by the median"], rows);
    text.push('\n');
}

fn all(results: &Results) -> Vec<Target> {
    let mut targets = Vec::new();
    for measured in &results.throughput {
        let ratio = measured.ratio(|report| report.per_second);
        targets.extend(measured.target.map(|bound| at_least(format!("{}, by floor", measured.name), bound, ratio)));
    }
    for measured in &results.proxy {
        let ratio = measured.ratio(|report| report.per_second);
        targets.extend(measured.target.map(|bound| at_least(format!("{}, by nginx", measured.name), bound, ratio)));
    }
    if let Some(half) = &results.half_load {
        let ratio = half.ratio(|report| report.latency_us.p99);
        targets.push(at_most(format!("p99 at half load, {}, by floor", half.name), HALF_LOAD, ratio, ""));
    }
    if let Some(asked) = &results.asked {
        // Without commands for good tokens, none for forged ones would say nothing.
        targets.push(Target {
            what: "forged token, commands of the store".into(),
            bound: "0".into(),
            found: format!("**{}**", asked.while_refusing),
            met: asked.while_refusing == 0 && asked.while_serving >= asked.served,
        });
    }
    targets.extend(results.growth.iter().filter_map(growth));
    if let Some(idle) = &results.idle_kib {
        let idle = Spread::of(std::iter::once(idle.started / 1024.0));
        targets.push(at_most("memory, idle".into(), MEMORY_MIB, idle, " MiB"));
    }
    if let Some(starts) = &results.starts {
        let took = Spread::of(starts.milliseconds.iter().copied());
        let what = format!("start to first answer, {} sessions", starts.sessions);
        let target = at_most(what, START_MS, took, " ms");
        targets.push(Target { met: target.met && starts.sessions >= START_SESSIONS, ..target });
    }
    if let Some(measured) = &results.sign_ins {
        targets.extend(sign_ins(measured));
    }
    targets
}

fn growth(growth: &Growth) -> Option<Target> {
    let (smallest, largest) = growth.ends()?;
    let what = format!("{}, {} sessions, cost by that with {}", growth.store, largest.sessions, smallest.sessions);
    Some(at_most(what, GROWTH, largest.cost(smallest), ""))
}

fn sign_ins(measured: &SignIns) -> [Target; 2] {
    let rounds = measured.hashes.iter().zip(&measured.sign_ins);
    let slower = Spread::of(rounds.map(|(hashes, sign_ins)| hashes / sign_ins));
    let p99 = |report: &Report| report.latency_us.p99;
    let rounds = measured.undisturbed.iter().zip(&measured.disturbed);
    let disturbed = Spread::of(rounds.map(|(before, meanwhile)| p99(meanwhile) / p99(before)));
    [
        at_most("sign-in, by argon2id alone".into(), SIGN_IN, slower, ""),
        at_most("p99 of requests while people sign in, by that without".into(), DISTURBANCE, disturbed, ""),
    ]
}

fn at_least(what: String, bound: f64, found: Spread) -> Target {
    Target { what, bound: format!("≥ {bound:.2}"), found: format!("{found:.2}"), met: found.median >= bound }
}

fn at_most(what: String, bound: f64, found: Spread, unit: &str) -> Target {
    Target { what, bound: format!("≤ {bound}{unit}"), found: format!("{found:.2}{unit}"), met: found.median <= bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_by_the_median() {
        let spread = Spread { min: 0.5, median: 0.85, max: 0.9 };
        assert!(at_least(String::new(), 0.85, spread).met && !at_least(String::new(), 0.86, spread).met);
        assert!(at_most(String::new(), 0.85, spread, "").met && !at_most(String::new(), 0.84, spread, "").met);
    }

    #[test]
    fn nothing_measured_is_no_target_met() {
        let mut text = String::new();
        write(&mut text, &Results::default());
        assert_eq!(text, "");
    }
}
