//! The end of a reload's script log.
//!
//! Since May 2025 QRS hands out script logs by the id of the execution result (`scriptlogfile`), before by the id of the file (`scriptlog`); the
//! one that worked last is asked first. Either answers a ticket, with which the text is fetched. Both need patience: the log is noted a moment
//! after the reload has ended, and after the ticket was given it is collected from the node that ran it. Invariants: of a log of any size only
//! the last [`KEPT`] bytes are held; the waiting is bounded ([`NOTED`], [`COLLECTED`]); what the server answers gets into an address only as an
//! id.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    client::{LogInterface, Purpose, Qrs},
    error::QrsError,
    executions::Attempt,
};
use crate::names::TaskId;

/// Pauses before the tries to get a ticket.
const NOTED: [Duration; 3] = [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(2)];
/// Pauses before the tries to fetch the text.
const COLLECTED: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(2)];
/// How much of the end of a log is kept, bytes.
const KEPT: usize = 256 * 1024;

impl Qrs {
    /// The last `lines` lines of an attempt's script log; `None`: there is none, or it did not come within nine seconds.
    ///
    /// # Errors
    /// If QRS gives no usable answer.
    pub async fn script_log(
        &self,
        task: TaskId,
        attempt: &Attempt,
        lines: usize,
    ) -> Result<Option<Vec<String>>, QrsError> {
        let Some(ticket) = self.patient_ticket(task, attempt).await? else { return Ok(None) };
        let path = format!("download/reloadtask/{ticket}/scriptlog.txt");
        for wait in COLLECTED {
            tokio::time::sleep(wait).await;
            if let Some((end, is_cut)) = absent(self.read_end("script_log", &path, KEPT).await)? {
                return Ok(Some(last_lines(&end, is_cut, lines)));
            }
        }
        Ok(None)
    }

    async fn patient_ticket(&self, task: TaskId, attempt: &Attempt) -> Result<Option<Uuid>, QrsError> {
        let has_log = |attempt: &Attempt| attempt.script_log_available || attempt.file_reference.is_some();
        let mut attempt = Cow::Borrowed(attempt);
        for wait in NOTED {
            tokio::time::sleep(wait).await;
            if !has_log(&attempt) {
                // The reference to the log is noted after the state: what was read earlier may be too early.
                match self.attempt(attempt.id).await? {
                    Some(newer) => attempt = Cow::Owned(newer),
                    None => return Ok(None),
                }
            }
            if has_log(&attempt)
                && let Some(ticket) = self.ticket(task, &attempt).await?
            {
                return Ok(Some(ticket));
            }
        }
        Ok(None)
    }

    /// What the log is fetched with, from the interface this server has.
    async fn ticket(&self, task: TaskId, attempt: &Attempt) -> Result<Option<Uuid>, QrsError> {
        for interface in self.log_interfaces() {
            let path = match (interface, &attempt.file_reference) {
                (LogInterface::ByResult, _) => {
                    format!("reloadtask/{task}/scriptlogfile?executionResultId={}", attempt.id)
                }
                (LogInterface::ByFile, Some(file)) => format!("reloadtask/{task}/scriptlog?fileReferenceId={file}"),
                (LogInterface::ByFile, None) => continue,
            };
            if let Some(answer) = absent(self.read("script_log_ticket", Purpose::Log, &path).await)? {
                let ticket: Uuid = self.value_of(&answer)?;
                self.prefer(interface);
                return Ok(Some(ticket).filter(|ticket| !ticket.is_nil()));
            }
        }
        Ok(None)
    }
}

/// `None` for an answer that says: no such thing here (yet).
fn absent<T>(answer: Result<T, QrsError>) -> Result<Option<T>, QrsError> {
    match answer {
        Err(QrsError::Status { status: 400 | 404 | 405 | 410, .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

/// The last lines of a text, whose beginning may have been cut off in the middle of a line.
fn last_lines(end: &Bytes, is_cut: bool, lines: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(end);
    let text = text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
    let whole = match text.split_once('\n') {
        Some((_partial, whole)) if is_cut => whole,
        _ => text,
    };
    let mut last: Vec<String> =
        whole.rsplit('\n').take(lines).map(|line| line.trim_end_matches('\r').to_owned()).collect();
    last.reverse();
    if text.is_empty() { Vec::new() } else { last }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_whole() {
        let cases: [(&str, bool, usize, &[&str]); 8] = [
            ("a\r\nb\r\nc\r\n", false, 2, &["b", "c"]),
            ("a\r\nb\r\nc", false, 5, &["a", "b", "c"]),
            ("alf a line\r\nb\r\nc\r\n", true, 5, &["b", "c"]),
            ("\u{feff}a\r\n", false, 5, &["a"]),
            ("a\r\n\r\nb\r\n\r\n", false, 3, &["a", "", "b"]),
            ("one long line without an end", true, 3, &["one long line without an end"]),
            ("", false, 3, &[]),
            ("a\nb", false, 0, &[]),
        ];
        assert_eq!(cases.len(), 8);
        for (text, is_cut, lines, expected) in cases {
            assert_eq!(last_lines(&Bytes::from(text), is_cut, lines), expected, "{text:?}");
        }
        assert_eq!(last_lines(&Bytes::from_static(b"caf\xe9\r\n"), false, 1), ["caf\u{fffd}"]);
    }
}
