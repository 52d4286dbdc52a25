//! What a starter obeys beside the requests: what may be started, by whom, how much of it, and where parameters go.

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
    /// Where a started load script finds the parameters of its request.
    pub parameters: Parameters,
}

impl From<StartTaskFilter> for Rules {
    fn from(filter: StartTaskFilter) -> Self {
        Self { filter, ..Self::default() }
    }
}
