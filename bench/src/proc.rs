//! What the kernel knows of a process and of this machine (Linux).

use std::fs;
use std::io;
use std::time::Duration;

use crate::Failure;

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// Resident memory now, and the most there was, in KiB.
    pub(crate) resident_kib: u64,
    pub(crate) peak_kib: u64,
}

/// Of a process that runs, and of the processes that it has started.
pub(crate) fn usage_of_family(pid: u32) -> Result<Usage, Failure> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(&path).map_err(|error| Failure::Io(path, error))?;
    let mut all = usage(pid)?;
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        let Usage { cpu, resident_kib, peak_kib } = usage(child)?;
        all.cpu += cpu;
        all.resident_kib += resident_kib;
        all.peak_kib += peak_kib;
    }
    Ok(all)
}

/// Of a process that runs.
pub(crate) fn usage(pid: u32) -> Result<Usage, Failure> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).map_err(|error| Failure::Io(path, error))
    };
    let (stat, status) = (read("stat")?, read("status")?);
    let unreadable = || Failure::Io(format!("/proc/{pid}"), io::ErrorKind::InvalidData.into());
    let ticks = ticks(&stat).ok_or_else(unreadable)?;
    let cpu = Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
    let memory = |name| field(&status, name).ok_or_else(unreadable);
    Ok(Usage { cpu, resident_kib: memory("VmRSS")?, peak_kib: memory("VmHWM")? })
}

/// User and system time from `/proc/PID/stat` (proc(5)): fields 14 and 15, counted after the name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

/// A line `Name:   123 kB`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What was measured on: nothing that names the machine or its owner.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    /// The load average of the last minute: whether something else was running.
    pub(crate) load: String,
}

impl Machine {
    pub(crate) fn describe() -> Self {
        // What cannot be read is left blank: it is a description, and no reason to throw measurements away.
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let load = read("/proc/loadavg");
        Self {
            cpu: model.map_or_else(String::new, |(_, model)| model.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: field(&read("/proc/meminfo"), "MemTotal").unwrap_or(0) as f64 / (1024.0 * 1024.0),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: load.split_whitespace().next().unwrap_or_default().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_past_any_name() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 10 0";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("42 (name) S 1"), None);
    }

    #[test]
    fn memory_is_read_by_name() {
        let status = "VmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(
            (field(status, "VmRSS"), field(status, "VmHWM"), field(status, "VmSwap")),
            (Some(1_024), Some(2_048), None)
        );
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(usage(std::process::id()).unwrap().resident_kib > 0);
    }
}
