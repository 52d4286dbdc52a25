//! The alarm when QRS saw tasks end and no datagram came for hours: log appenders are gone, or a firewall is in between.
//!
//! Only ends of a kind whose datagrams are expected count, and only those of which no datagram came at all. Invariant: reading it asks nobody;
//! the next datagram ends the alarm.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::sense::event::TaskEventKind;

#[derive(Debug)]
struct State {
    /// When a datagram came last; at first, when the program started.
    heard: Instant,
    /// Whether one ever came in this life.
    ever: bool,
    /// Ends since then that came without one.
    missed: u64,
    alarmed: bool,
}

/// Who listens for silence.
#[derive(Debug)]
pub struct Silence {
    after: Duration,
    expected: Vec<TaskEventKind>,
    state: Mutex<State>,
}

impl Silence {
    /// `after`: how long there may be no datagram. `expected`: the kinds of events that log appenders are set up for.
    pub fn new(after: Duration, expected: Vec<TaskEventKind>) -> Self {
        let state = State { heard: Instant::now(), ever: false, missed: 0, alarmed: false };
        Self { after, expected, state: Mutex::new(state) }
    }

    /// A datagram came.
    pub(super) fn heard(&self) {
        self.heard_at(Instant::now());
    }

    fn heard_at(&self, now: Instant) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.alarmed) {
            tracing::info!("datagrams of Qlik Sense come again");
        }
        (state.heard, state.ever, state.missed) = (now, true, 0);
    }

    /// Something ended without one.
    pub(super) fn missed(&self, kind: TaskEventKind) {
        if self.expected.contains(&kind) {
            self.state.lock().missed += 1;
        }
    }

    /// What is to be said, if something is; the beginning goes to the log.
    pub fn alarm(&self) -> Option<String> {
        self.alarm_at(Instant::now())
    }

    fn alarm_at(&self, now: Instant) -> Option<String> {
        let mut state = self.state.lock();
        let since = now.duration_since(state.heard);
        if state.missed == 0 || since < self.after {
            return None;
        }
        let hours = since.as_secs() / 3_600;
        let when = if state.ever { "for" } else { "since the program started," };
        let sentence = format!(
            "{} executions ended in Qlik Sense and no datagram came {when} {hours} hours: look whether the log appenders are still on every Sense \
             node (C:\\ProgramData\\Qlik\\Sense\\Scheduler\\LocalLogConfig.xml; an upgrade may remove them), whether they name this machine and \
             udpServerConfig.portTaskFailure, and whether a firewall lets UDP through. Without appenders on purpose, set \
             udpServerConfig.enable or eventSources.silenceAlarmHours to false or 0.",
            state.missed
        );
        if !std::mem::replace(&mut state.alarmed, true) {
            tracing::warn!(code = "appenders_silent", "{sentence}");
        }
        Some(sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_when_something_ended_and_until_the_next_datagram() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        let silence = Silence::new(hours(6), vec![TaskEventKind::Failed]);
        let start = Instant::now();
        assert_eq!(silence.alarm_at(start + hours(100)), None, "nothing ended");
        silence.missed(TaskEventKind::Succeeded);
        assert_eq!(silence.alarm_at(start + hours(100)), None, "no datagram is expected of that");
        silence.missed(TaskEventKind::Failed);
        assert_eq!(silence.alarm_at(start + hours(5)), None);
        let said = silence.alarm_at(start + hours(7)).unwrap();
        assert!(said.starts_with("1 executions ended") && said.contains("LocalLogConfig.xml"), "{said}");
        silence.heard_at(start + hours(8));
        assert_eq!(silence.alarm_at(start + hours(100)), None);
        silence.missed(TaskEventKind::Failed);
        assert_eq!(silence.alarm_at(start + hours(13)), None);
        assert!(silence.alarm_at(start + hours(14)).unwrap().contains("came for 6 hours"));
    }
}
