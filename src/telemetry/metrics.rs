//! The registry every room hangs its metrics into, and what is known of the process itself.
//!
//! Conventions: names begin with `sense_butler_` (the whole name is written where it is registered: it can be searched for), base units,
//! `_total` is added to counters by the encoder. The process's own follow the names every Prometheus client library uses; what a system does not tell is
//! not shown.

mod process;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::{
    encoding::text,
    metrics::{gauge::ConstGauge, info::Info},
};

pub use prometheus_client::registry::Registry;

/// `Content-Type` of what [`encode`] writes (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry with build info, start time and memory of the process, and the panic counter.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    let build =
        [("version", env!("CARGO_PKG_VERSION")), ("os", std::env::consts::OS), ("arch", std::env::consts::ARCH)];
    registry.register("sense_butler_build", "Version and target of the program", Info::new(Vec::from(build)));
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let started: ConstGauge<f64> = ConstGauge::new(started.as_secs_f64());
    registry.register("process_start_time_seconds", "Start time of the process, seconds since 1970 (UTC)", started);
    registry.register_collector(Box::new(process::Process));
    super::panics::register(&mut registry);
    super::logging::register(&mut registry);
    registry
}

/// All metrics as text. Empty if one of them cannot be written, which is logged: a monitoring system then alerts on absence.
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    match text::encode(&mut text, registry) {
        Ok(()) => text,
        Err(error) => {
            tracing::error!(code = "metrics_unwritable", %error, "the metrics cannot be written; this is a defect, please report it");
            String::new()
        }
    }
}

/// Resident memory of this process, bytes; `None` where the system has no `/proc/self/status`.
pub fn resident_bytes() -> Option<u64> {
    process::of_status(&process::status()?, "VmRSS:")?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_describes_itself() {
        let text = encode(&registry());
        let version = format!("sense_butler_build_info{{version=\"{}\"", env!("CARGO_PKG_VERSION"));
        assert!(text.contains(&version), "{text}");
        assert!(text.contains("process_start_time_seconds "), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_measured() {
        let bytes = resident_bytes().unwrap();
        assert!((1 << 20..1 << 34).contains(&bytes), "{bytes}");
        let text = encode(&registry());
        for name in
            ["resident_memory_bytes", "virtual_memory_bytes", "threads", "open_fds", "max_fds", "cpu_seconds_total"]
        {
            let value = text.lines().find_map(|line| line.strip_prefix(&format!("process_{name} ")));
            assert!(value.is_some_and(|value| value.parse::<f64>().unwrap() >= 0.0), "{name}: {text}");
        }
    }
}
