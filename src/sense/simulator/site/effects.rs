//! What the outside should see of the site: steps of executions, datagrams, calls to subscribers.

use std::sync::Arc;

use serde_json::Value;

use super::status::Status;
use crate::{
    names::{ExecutionId, TaskId},
    sense::simulator::datagram::DatagramKind,
};

/// An execution took a step.
#[derive(Debug, Clone)]
pub struct Change {
    /// When, as log4net would write it.
    pub at: String,
    /// The task.
    pub task_id: TaskId,
    /// Its name.
    pub task_name: String,
    /// The execution.
    pub execution_id: ExecutionId,
    /// The state before; `None`: it was just started.
    pub from: Option<Status>,
    /// The state now.
    pub to: Status,
    /// The node, once one has it.
    pub node: Option<String>,
    /// `DIR\user` who started it.
    pub user: String,
}

/// What the outside should see.
#[derive(Debug, Clone)]
pub enum Effect {
    /// An execution took a step.
    Changed(Box<Change>),
    /// A datagram goes out.
    Send {
        /// Place of the sending node in the list.
        node: usize,
        /// What it reports.
        kind: DatagramKind,
        /// Its content.
        text: String,
    },
    /// A subscriber is to be told of a change.
    Notify {
        /// Where.
        url: Arc<str>,
        /// What, as it stands in the array that is sent.
        entry: Box<Value>,
    },
}
