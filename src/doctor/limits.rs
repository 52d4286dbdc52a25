//! What the operating system allows: open files, and the receive buffer of UDP ports.
//!
//! Linux tells it in `/proc` (`proc(5)`); Windows has no such limits that could be too small.

use super::{
    finding::{Finding, Section},
    running::Running,
};
use crate::config::Loaded;

const HERE: Section = Section::Limits;
/// Files and connections besides the clients of the broker: stores, logs, REST, QRS.
#[cfg(any(target_os = "linux", test))]
const OTHERS: u64 = 1_000;

/// Looks at them.
#[cfg(target_os = "linux")]
pub fn look(loaded: &Loaded, running: Option<&Running>) -> Vec<Finding> {
    let pid = running.and_then(Running::pid).map(|pid| pid.to_string());
    let read = |who: &str| std::fs::read_to_string(format!("/proc/{who}/limits")).ok().as_deref().and_then(open_files);
    // The program's own where it can be seen: a service has other limits than a terminal.
    let (files, whose) = match pid.as_deref().and_then(read) {
        Some(files) => (Some(files), "the running program"),
        None => (read("self"), "programs started from here"),
    };
    let files = files.map(|allowed| judge_files(allowed, whose, loaded.broker.limits.clients as u64));
    files.into_iter().chain(buffer(loaded)).collect()
}

/// Looks at them.
#[cfg(not(target_os = "linux"))]
pub fn look(_loaded: &Loaded, _running: Option<&Running>) -> Vec<Finding> {
    vec![HERE.ok("this system has none that are known to be too small")]
}

/// The soft limit in `/proc/<pid>/limits`; `None`: unlimited, or not there.
#[cfg(any(target_os = "linux", test))]
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(any(target_os = "linux", test))]
fn judge_files(allowed: u64, whose: &str, clients: u64) -> Finding {
    if allowed >= clients + OTHERS {
        return HERE.ok(format!("{allowed} open files are allowed to {whose}"));
    }
    HERE.warning(
        format!(
            "{allowed} open files are allowed to {whose}, and {clients} MQTT clients may connect (limits.clients in broker.toml): beyond about \
             {} clients nobody gets in",
            allowed.saturating_sub(100)
        ),
        "Under systemd: `LimitNOFILE=65536` in the unit; in a terminal: `ulimit -n 65536` before the start. Or lower limits.clients.",
    )
}

/// What the kernel grants at most for a receive buffer.
#[cfg(target_os = "linux")]
fn buffer(loaded: &Loaded) -> Option<Finding> {
    let udp = &loaded.settings.udp;
    let granted: usize = std::fs::read_to_string("/proc/sys/net/core/rmem_max").ok()?.trim().parse().ok()?;
    let asked = udp.receive_buffer;
    if !udp.enable || granted >= asked {
        return udp.enable.then(|| HERE.ok(format!("{asked} bytes of receive buffer are granted to each UDP port")));
    }
    Some(HERE.warning(
        format!("the system grants {granted} bytes of receive buffer to a UDP port, {asked} are asked for: bursts of datagrams may be lost"),
        format!("sysctl -w net.core.rmem_max={asked} (and in /etc/sysctl.d/), then restart the program"),
    ))
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn the_limit_of_open_files_is_read_and_judged() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max processes             100                  100                  processes \n\
            Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(open_files("Max open files unlimited unlimited files"), None);
        assert_eq!(judge_files(1024, "x", 20_000).level, Level::Warning);
        assert_eq!(judge_files(65_536, "x", 20_000).level, Level::Ok);
    }
}
