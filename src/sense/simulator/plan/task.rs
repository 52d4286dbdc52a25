//! What a task of the site does: its kind, how long it runs, how it ends, what starts it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::LONGEST_SECONDS;
use crate::{names::TaskId, sense::simulator::rng::Rng};

/// The kinds of task of the repository; the numbers are `taskType` in its JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TaskKind {
    /// 0
    #[default]
    Reload,
    /// 1
    ExternalProgram,
    /// 2
    UserSync,
    /// 3
    Distribute,
    /// 4
    Preload,
}

impl TaskKind {
    /// `taskType`
    pub fn number(self) -> u8 {
        match self {
            Self::Reload => 0,
            Self::ExternalProgram => 1,
            Self::UserSync => 2,
            Self::Distribute => 3,
            Self::Preload => 4,
        }
    }

    /// Whether such a task belongs to an app.
    pub fn has_app(self) -> bool {
        !matches!(self, Self::ExternalProgram | Self::UserSync)
    }

    /// `schemaPath`; distribute and preload are served as reload tasks.
    pub fn schema_path(self) -> &'static str {
        match self {
            Self::Reload | Self::Distribute | Self::Preload => "ReloadTask",
            Self::ExternalProgram => "ExternalProgramTask",
            Self::UserSync => "UserSyncTask",
        }
    }
}

/// A task.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TaskPlan {
    /// Its id.
    pub id: TaskId,
    /// Its name: free text, not unique.
    pub name: String,
    /// Its kind.
    #[serde(default, rename = "type")]
    pub kind: TaskKind,
    /// Name of its app; external programs and user synchronisations have none.
    pub app: Option<String>,
    /// Whether it can be started.
    #[serde(default = "default_enabled")]
    pub enabled: bool,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Custom properties with their values.
    #[serde(default)]
    pub custom_properties: BTreeMap<String, Vec<String>>,
    /// Starts by itself every so many seconds; absent: never.
    pub every: Option<f64>,
    /// How long a run takes.
    pub duration: Seconds,
    /// How a run ends.
    #[serde(default)]
    pub outcome: OutcomePlan,
    /// `maxRetries`, 0 to 20.
    #[serde(default)]
    pub max_retries: u32,
    /// `taskSessionTimeout`, minutes.
    #[serde(default = "default_timeout")]
    pub timeout_minutes: u32,
    /// What its script log says when it fails.
    #[serde(default = "default_error")]
    pub error: String,
    /// Composite events: what starts it after other tasks.
    #[serde(default)]
    pub after: Vec<AfterPlan>,
    /// So many tasks like it, with ids counting up and numbers behind their names; for sites with thousands of tasks.
    #[serde(default = "default_copies")]
    pub copies: u32,
}

/// A composite event: the task starts when all of these have ended so, within a time.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AfterPlan {
    /// These have succeeded.
    #[serde(default)]
    pub success: Vec<TaskId>,
    /// These have failed.
    #[serde(default)]
    pub fail: Vec<TaskId>,
    /// Within so many minutes.
    #[serde(default = "default_within")]
    pub within_minutes: u32,
    /// Whether it starts anything.
    #[serde(default = "default_enabled")]
    pub enabled: bool,
}

fn default_within() -> u32 {
    360
}

fn default_error() -> String {
    "Field 'Amount' not found".to_owned()
}

fn default_copies() -> u32 {
    1
}

impl TaskPlan {
    /// A task with everything else as it is when nothing is said.
    pub fn named(id: TaskId, name: &str) -> Self {
        Self {
            id,
            name: name.to_owned(),
            kind: TaskKind::Reload,
            app: None,
            enabled: true,
            tags: Vec::new(),
            custom_properties: BTreeMap::new(),
            every: None,
            duration: Seconds::default(),
            outcome: OutcomePlan::default(),
            max_retries: 0,
            timeout_minutes: default_timeout(),
            error: default_error(),
            after: Vec::new(),
            copies: 1,
        }
    }
}

fn default_enabled() -> bool {
    true
}

fn default_timeout() -> u32 {
    1440
}

/// A time: fixed, even between two bounds, or with a long tail; seconds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Seconds {
    /// Always the same.
    Fixed(f64),
    /// From, to.
    Range(f64, f64),
    /// As reloads really take: mostly about the median, now and then much longer (log-normal).
    Tail {
        /// Half of them take longer.
        median: f64,
        /// How long the tail is; 0.5: one in forty takes more than two and a half times the median.
        sigma: f64,
    },
}

impl Default for Seconds {
    fn default() -> Self {
        Self::Fixed(1.0)
    }
}

impl Seconds {
    /// One draw, milliseconds.
    pub fn draw(self, rng: &mut Rng) -> u64 {
        let seconds = match self {
            Self::Fixed(seconds) => seconds,
            Self::Range(from, to) => from + (to - from) * rng.unit(),
            Self::Tail { median, sigma } => {
                // Box and Muller: two even draws make a normal one.
                let radius = (-2.0 * (1.0 - rng.unit()).ln()).sqrt();
                median * (sigma * radius * (std::f64::consts::TAU * rng.unit()).cos()).exp()
            }
        };
        millis(seconds)
    }
}

/// Seconds as whole milliseconds; negative and absurd values become 0 and the longest time.
pub fn millis(seconds: f64) -> u64 {
    // In range by the clamp, so the cast only cuts the fraction.
    (seconds.clamp(0.0, LONGEST_SECONDS) * 1000.0) as u64
}

/// How a run of a task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// `FinishedSuccess`
    #[default]
    Success,
    /// `FinishedFail`
    Fail,
    /// Somebody stops it.
    Abort,
}

/// How the runs of a task end.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum OutcomePlan {
    /// Always the same.
    Always(Outcome),
    /// One after the other, from the start again at the end; every attempt of a retried run counts.
    Script(Vec<Outcome>),
    /// By chance.
    Weights(Weights),
}

/// Weights of the outcomes.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Of success.
    #[serde(default)]
    pub success: f64,
    /// Of failure.
    #[serde(default)]
    pub fail: f64,
    /// Of being stopped.
    #[serde(default)]
    pub abort: f64,
}

impl Default for OutcomePlan {
    fn default() -> Self {
        Self::Always(Outcome::Success)
    }
}

impl OutcomePlan {
    /// How run number `turn` (from 0) ends.
    pub fn draw(&self, turn: usize, rng: &mut Rng) -> Outcome {
        match self {
            Self::Always(outcome) => *outcome,
            Self::Script(script) => {
                turn.checked_rem(script.len()).and_then(|at| script.get(at)).copied().unwrap_or_default()
            }
            Self::Weights(weights) => weights.draw(rng),
        }
    }
}

impl Weights {
    fn draw(&self, rng: &mut Rng) -> Outcome {
        let mark = rng.unit() * (self.success + self.fail + self.abort);
        if mark < self.success {
            Outcome::Success
        } else if mark < self.success + self.fail {
            Outcome::Fail
        } else {
            Outcome::Abort
        }
    }
}
