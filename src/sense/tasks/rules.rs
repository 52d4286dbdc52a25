//! What a starter obeys beside the requests: what may be started, by whom, how much of it, how long one waits, and where parameters go.

use std::time::Duration;

use super::parameters::Parameters;
use crate::config::settings::{StartLimits, StartTaskFilter, UserFilter};

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// `startTaskFilter`
    pub filter: StartTaskFilter,
    /// `startTask.users`
    pub users: Vec<UserFilter>,
    /// `startTask.limits`
    pub limits: StartLimits,
    /// `startTask.deadlineSeconds`: how long a request waits for Qlik Sense, or for a running task to end, that does not say.
    pub deadline: Duration,
    /// Where a started load script finds the parameters of its request.
    pub parameters: Parameters,
}

impl From<StartTaskFilter> for Rules {
    fn from(filter: StartTaskFilter) -> Self {
        Self { filter, ..Self::default() }
    }
}
