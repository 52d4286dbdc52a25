//! Script logs: their text, and the tickets by which they are fetched.
//!
//! A log is asked for in two steps: a call names the result (new generation) or its file (old generation) and gets a ticket; a download by the
//! ticket gives the text, but not before the log has been collected. Invariant: tickets are bounded, the oldest go first.

use std::{collections::VecDeque, fmt::Write as _};

use uuid::Uuid;

use super::{Site, records::ResultRow, status::Status, task::Task};
use crate::{
    names::TaskId,
    sense::simulator::clock::{Calendar, Moment},
};

/// Tickets that are kept.
const TICKETS_KEPT: usize = 5_000;

/// How a caller names a script log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKey {
    /// The old generation: `fileReferenceId`.
    File(Uuid),
    /// The new generation: `executionResultId`.
    Result(Uuid),
}

/// Tickets, oldest first: ticket and result.
#[derive(Debug, Default)]
pub struct Tickets(VecDeque<(Uuid, Uuid)>);

impl Tickets {
    fn add(&mut self, ticket: Uuid, result: Uuid) {
        if self.0.len() >= TICKETS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back((ticket, result));
    }

    fn find(&self, ticket: Uuid) -> Option<Uuid> {
        self.0.iter().rev().find(|(known, _)| *known == ticket).map(|(_, result)| *result)
    }
}

impl Site {
    /// A ticket for a script log of this task; `None`: there is no such log (yet).
    pub fn script_log_ticket(&mut self, task: TaskId, key: LogKey) -> Option<Uuid> {
        let row = match key {
            LogKey::Result(id) => self.results.with_id(id)?,
            LogKey::File(file) => {
                let wanted = super::records::Wanted { tasks: Some(vec![task]), ..Default::default() };
                self.results.select(&wanted).into_iter().find(|row| row.file == Some(file))?
            }
        };
        if row.task != task || row.log_size == 0 {
            return None;
        }
        let result = row.id;
        let ticket = self.rng.guid();
        self.tickets.add(ticket, result);
        Some(ticket)
    }

    /// The script log a ticket stands for.
    pub fn script_log(&self, ticket: Uuid) -> Option<String> {
        let row = self.results.with_id(self.tickets.find(ticket)?)?;
        let task = self.tasks.get(*self.by_id.get(&row.task)?)?;
        Some(text(row, task, self.calendar))
    }
}

/// The log of an attempt as the engine writes it, lines ended by CR LF. What it loads is invented.
pub fn text(row: &ResultRow, task: &Task, calendar: Calendar) -> String {
    let (began, ended) = (row.started.unwrap_or(row.created), row.stopped.unwrap_or(row.modified));
    let mut log = Log { text: String::new(), calendar, number: 0 };
    let app = row.app.unwrap_or_default();
    log.says(began, "     Execution started.");
    log.says(began, "     Qlik Sense Server (simulated)");
    log.says(began, &format!("     App ID       {app}"));
    log.says(began, &format!("     App          {}", task.plan.app.as_deref().unwrap_or_default()));
    log.says(began, &format!("     Reload task  {}", task.plan.name));
    log.statement(began, "SET DecimalSep='.'");
    log.statement(began, "LET vStart = Now()");
    log.statement(began, "LOAD * FROM [lib://Data/facts.qvd] (qvd)");
    match row.status {
        Status::FinishedSuccess => {
            log.says(ended, "     20,000 lines fetched");
            log.says(ended, "     Execution finished.");
        }
        Status::Aborted | Status::Reset => log.says(ended, "     Execution aborted."),
        _ => {
            log.says(ended, &format!("     Error: {}", task.plan.error));
            log.says(ended, "     General Script Error");
            log.says(ended, "     Execution Failed");
            log.says(ended, "     Execution finished.");
        }
    }
    log.text
}

struct Log {
    text: String,
    calendar: Calendar,
    number: u32,
}

impl Log {
    fn says(&mut self, at: Moment, line: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{} {line}\r\n", self.calendar.script_log(at));
    }

    fn statement(&mut self, at: Moment, statement: &str) {
        self.number += 1;
        let line = format!("     {:04}  {statement}", self.number);
        self.says(at, &line);
    }
}
