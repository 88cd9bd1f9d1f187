//! Throw-away servers for tests: in folders of their own, on free ports, from the system's packages. They are ended with
//! whoever started them, also if that was killed. A program that is missing is a panic with the command that installs it.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub mod postgres;
pub mod redis;

/// A port on 127.0.0.1 that nobody listens on, and that no outgoing connection takes while what listened there is away.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Where the kernel takes the ports of outgoing connections from: the ones below are only taken by those who ask.
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let outgoing: u16 = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
    let first = 15_000.min(outgoing / 2);
    // Processes that look at the same time look in different places.
    let seed = std::process::id().wrapping_mul(7_919);
    for number in 0..u32::from(outgoing - first) {
        let at =
            seed.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)).wrapping_add(number) % u32::from(outgoing - first);
        let port = first + u16::try_from(at).expect("less than the range");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// The processes that this one has started.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| status(*id).is_some_and(|(_, of)| of == parent)).collect()
}

/// Ends processes at once and waits until they are gone.
pub fn kill_all(ids: &[u32]) {
    if ids.is_empty() {
        return;
    }
    // Some may be gone already, which is no failure.
    let _ = Command::new("kill").arg("-9").args(ids.iter().map(ToString::to_string)).stderr(Stdio::null()).status();
    while ids.iter().any(|id| status(*id).is_some_and(|(state, _)| state != "Z")) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The state of a process and its parent, from `/proc/ID/stat`: the fields after the name, which may hold anything.
fn status(id: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}
