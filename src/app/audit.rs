//! The audit log: who asked for a start or stop, and what became of it, as JSON lines in `<logDirectory>/start-audit.<day>.<part>.jsonl`.
//!
//! Invariants: a start never waits for the disk (the lines go to a thread of their own, and what does not fit is counted); who asked for the log
//! gets it or an error at the start, who did not ask gets it where the program keeps files at all, or a warning.

use std::io::Write as _;

use tracing_subscriber::fmt::MakeWriter as _;

use crate::{
    config::Loaded,
    sense::tasks::audit::{Audit, AuditLine, Witness},
    telemetry::{
        logfile::{Closer, FileError, Kind, LogFile},
        metrics::Registry,
    },
};

/// A year of days on which something was asked.
const FILES: Kind = Kind { name: "start-audit", ending: "jsonl", keep: 366 };

/// Writes lines.
struct Scribe(LogFile);

impl Witness for Scribe {
    fn note(&self, line: &AuditLine<'_>) {
        // Texts, ids and a value that was JSON: writing them as JSON cannot fail. One write is one line.
        let text = serde_json::to_string(line).unwrap_or_default() + "\n";
        let _ = self.0.make_writer().write_all(text.as_bytes());
    }
}

/// Opens the files, if there are to be any. What was told is in them when the closer is dropped.
pub(super) fn open(loaded: &Loaded, audit: &Audit, registry: &mut Registry) -> Result<Option<Closer>, FileError> {
    let (settings, log) = (&loaded.settings.start, &loaded.settings.log);
    let wanted = settings.audit_log.unwrap_or_else(|| log.to_file || loaded.keep_dir().is_some());
    if !wanted {
        return Ok(None);
    }
    match LogFile::open(&log.directory, FILES) {
        Ok((file, closer)) => {
            let help = "Lines of the audit log of starts that were not written: the disk was too slow or full";
            registry.register("sense_butler_start_audit_lines_lost", help, file.lost().clone());
            audit.hear(Scribe(file));
            Ok(Some(closer))
        }
        Err(error) if settings.audit_log == Some(true) => Err(error),
        Err(error) => {
            tracing::warn!(
                code = "audit_log_missing",
                %error,
                "there is no audit log of starts; make the directory writable, or say with `startTask.auditLog: false` that this is meant"
            );
            Ok(None)
        }
    }
}
