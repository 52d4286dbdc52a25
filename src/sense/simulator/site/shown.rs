//! How an execution shows outside: the scheduler's log line, the execution session, what subscribers are told.

use serde_json::{Value, json};

use super::{
    Site, chains,
    execution::Execution,
    notifications::{ChangeType, Note, ObjectType},
    status::Status,
    timers::{Report, Timer},
};
use crate::{
    names::ExecutionId,
    sense::simulator::{
        clock::{Moment, NULL_DATE},
        datagram::{DatagramKind, TaskFields, task_datagram},
    },
};

impl Site {
    /// The scheduler's log line about an execution, now or a little later.
    pub(super) fn report(&mut self, id: ExecutionId, kind: DatagramKind, late: Moment) {
        let Some(execution) = self.executions.get(&id) else { return };
        let (node, task, user) = (execution.node, execution.task, execution.user.clone());
        let report = Report { kind, node, task, user, execution: id };
        if late == 0 {
            self.send_report(&report);
        } else {
            self.timers.add(self.now.saturating_add(late), Timer::Report(Box::new(report)));
        }
    }

    pub(super) fn send_report(&mut self, report: &Report) {
        let (Some(task), Some(node)) = (self.tasks.get(report.task), self.nodes.get(report.node)) else { return };
        let fields = TaskFields {
            host: &node.name,
            task: &task.plan.name,
            app: task.plan.app.as_deref().unwrap_or_default(),
            user: &report.user,
            task_id: &task.id_text,
            app_id: &task.app.map(|app| app.to_string()).unwrap_or_default(),
            date: &self.calendar.log(self.now),
            execution_id: &report.execution.to_string(),
        };
        if let Some(text) = task_datagram(self.profile, report.kind, &fields) {
            self.emit(report.node, report.kind, text);
        }
    }

    /// The execution session of a running execution.
    pub(super) fn session_json(&self, id: ExecutionId, execution: &Execution) -> Value {
        let node = self.nodes.get(execution.node);
        let task = self.tasks.get(execution.task);
        let mut value = json!({
            "id": id.to_string(),
            "createdDate": self.calendar.qrs(execution.began),
            "modifiedDate": self.calendar.qrs(execution.changed),
            "modifiedByUserName": r"INTERNAL\sa_scheduler",
            "executingNode": node.map(|node| json!({ "id": node.id.to_string(), "name": node.name, "privileges": null })),
            // Public clients read `Id`, the list's other objects have `id`.
            "executionResult": { "Id": execution.result_id.to_string(), "id": execution.result_id.to_string(),
                "status": execution.state.map_or(0, Status::number), "privileges": null },
            "abortAt": execution.abort_at.map_or(NULL_DATE.to_owned(), |at| self.calendar.qrs(at)),
            "abortReason": execution.abort_reason,
        });
        if let Value::Object(fields) = &mut value {
            fields.extend(chains::references(task));
            fields.insert("privileges".to_owned(), Value::Null);
            fields.insert("schemaPath".to_owned(), "ExecutionSession".into());
        }
        value
    }

    /// Tells of a change of an execution's result.
    pub(super) fn note_result(&mut self, id: ExecutionId, change: ChangeType, properties: &'static [&'static str]) {
        if let Some(execution) = self.executions.get(&id) {
            let id = execution.result_id.to_string();
            self.note(Note { object: ObjectType::ExecutionResult, id, change, properties });
        }
    }

    /// Tells that an execution session came or went.
    pub(super) fn note_session(&mut self, id: ExecutionId, change: ChangeType) {
        self.note(Note { object: ObjectType::ExecutionSession, id: id.to_string(), change, properties: &[] });
    }
}
