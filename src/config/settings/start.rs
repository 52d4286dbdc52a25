//! How tasks are started: `startTask` and `startTaskFilter`.

use std::time::Duration;

use crate::names::{TaskId, TopicName};

/// A further start topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartTopic {
    /// `topic`
    pub topic: TopicName,
    /// What every message there starts, whatever it says; `None`: what the message says.
    pub fixed: Option<FixedStart>,
    /// `allowTask`: what may be started from there, in addition to `startTaskFilter`.
    pub filter: StartTaskFilter,
}

/// What a start topic of its own starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FixedStart {
    /// `taskId`
    Task(TaskId),
    /// `tag`
    Tag(String),
    /// `customProperty`: name and value.
    CustomProperty(String, String),
}

/// What one user may start, at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFilter {
    /// `user`: the name in `broker.toml`, compared exactly.
    pub user: String,
    /// `allowTask`: what that user may start of what `startTaskFilter` lets everybody start.
    pub filter: StartTaskFilter,
}

/// `startTask.limits`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartLimits {
    /// `perMinute`: starts of all requesters; 0: as many as they like.
    pub per_minute: u32,
    /// `perRequesterPerMinute`: starts of one; 0: as many as it likes.
    pub per_requester_per_minute: u32,
    /// `atOncePerRequester`: requests of one that are under way or wait.
    pub at_once_per_requester: usize,
}

impl Default for StartLimits {
    fn default() -> Self {
        // A quarter of the places there are.
        Self { per_minute: 0, per_requester_per_minute: 0, at_once_per_requester: 2_500 }
    }
}

/// `startTask`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartSettings {
    /// `topics`: start topics beside `mqttConfig.taskStartTopic`.
    pub topics: Vec<StartTopic>,
    /// `users`: lists of single users.
    pub users: Vec<UserFilter>,
    /// `limits`: how much may be asked for.
    pub limits: StartLimits,
    /// `deadlineSeconds`: how long a start message waits for a Qlik Sense that cannot be reached, or for a running task to end, where the
    /// message does not say.
    pub deadline: Duration,
    /// `parametersTtlSeconds`: how long the parameters of a start can be read.
    pub parameters_ttl: Duration,
    /// `executionTopics`: whether the states of executions are published.
    pub execution_topics: bool,
    /// `auditLog`: whether every word on start requests is written to files in `logDirectory`; `None`: where the program keeps files at all
    /// and the directory can be made.
    pub audit_log: Option<bool>,
}

/// `startTaskFilter`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartTaskFilter {
    /// `enable`; false: every task may be started.
    pub enable: bool,
    /// `allowTask.taskId`
    pub task_ids: Vec<TaskId>,
    /// `allowTask.tag`, compared exactly.
    pub tags: Vec<String>,
    /// `allowTask.customProperty`, name and value, compared exactly.
    pub custom_properties: Vec<(String, String)>,
}
