//! What the system knows of this process, read when it is asked for: memory, threads, open files, processor time (Linux: `proc(5)`).

use std::fmt::Error;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// The unit of times in `/proc/self/stat`: a hundredth of a second, as `proc_pid_stat(5)` has it for every architecture this program is built for.
const TICKS: f64 = 100.0;

/// See the module.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let status = status();
        let of = |key| of_status(status.as_deref()?, key);
        let bytes = |key| of(key).and_then(|kilobytes| kilobytes.checked_mul(1024));
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory, bytes", bytes("VmRSS:")),
            ("process_virtual_memory_bytes", "Virtual memory, bytes", bytes("VmSize:")),
            ("process_threads", "Threads of the process", of("Threads:")),
            ("process_open_fds", "Open files and sockets of the process", open_files()),
            ("process_max_fds", "Files and sockets the process may open", most_files()),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let Some(seconds) = processor_seconds() else { return Ok(()) };
        let (counter, help) = (ConstCounter::new(seconds), "Processor time of the process, user and system, seconds");
        counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?)
    }
}

/// `/proc/self/status`, where there is one.
pub(super) fn status() -> Option<String> {
    std::fs::read_to_string("/proc/self/status").ok()
}

/// The first number behind a key.
pub(super) fn of_status(status: &str, key: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// The look itself opens one of them.
fn open_files() -> Option<u64> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(open.saturating_sub(1)).ok()
}

/// The soft limit; none where it is `unlimited`.
fn most_files() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

/// The fields 14 and 15 of the line; the second is the program's name in parentheses, which may hold anything.
fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    of_stat(&stat)
}

fn of_stat(stat: &str) -> Option<f64> {
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_system_are_read_by_their_fields() {
        let stat = "4711 (a) b (c) S 1 4711 4711 0 -1 4194560 2000 0 0 0 150 50 0 0 20 0 9 0 100 1 2 3";
        assert_eq!(of_stat(stat), Some(2.0));
        assert_eq!(of_stat("4711 (x"), None);
        let status = "Name:\tsense\nVmRSS:\t   20480 kB\nThreads:\t9\n";
        assert_eq!(
            (of_status(status, "VmRSS:"), of_status(status, "Threads:"), of_status(status, "x")),
            (Some(20_480), Some(9), None)
        );
    }
}
