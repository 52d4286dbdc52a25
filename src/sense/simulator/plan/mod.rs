//! What the simulated site consists of: the YAML file, read and checked.
//!
//! Invariant: a [`Plan`] that exists can be run. Every task's app exists, ids and names of apps are unique, every number is within its range;
//! the rooms behind check nothing of it again.

mod check;

use serde::Deserialize;
use uuid::Uuid;

use super::rng::Rng;
use crate::names::TaskId;

/// The site that is used when no file is named; the same text as `config/simulator.yaml`.
pub const DEFAULT_SITE: &str = include_str!("../../../../config/simulator.yaml");

/// Longest time a file may ask for, seconds (30 days): keeps every sum of times far from overflow.
const LONGEST_SECONDS: f64 = 30.0 * 86_400.0;

/// A site.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Plan {
    /// `buildVersion` of `/qrs/about`.
    #[serde(default = "default_version")]
    pub version: String,
    /// What a start of a running task does.
    #[serde(default)]
    pub on_running: OnRunning,
    /// What a call without `X-Qlik-User` may do.
    #[serde(default)]
    pub on_missing_user: OnMissingUser,
    /// The task that is shown to newcomers.
    pub sample_task: TaskId,
    /// Scheduler nodes; the first is the central one.
    pub nodes: Vec<NodePlan>,
    /// Who may call.
    pub users: Vec<UserPlan>,
    /// Who opens apps; absent: nobody.
    #[serde(default)]
    pub visitors: VisitorsPlan,
    /// The apps.
    #[serde(default)]
    pub apps: Vec<AppPlan>,
    /// The tasks.
    pub tasks: Vec<TaskPlan>,
}

fn default_version() -> String {
    "31.37.0.0".to_owned()
}

/// What a start of a task that runs already does. What a real server does is not documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnRunning {
    /// Nothing: 204, or the zero GUID from the synchronous form.
    #[default]
    ZeroGuid,
    /// 409.
    Conflict,
    /// 400.
    BadRequest,
    /// A second execution beside the first.
    SecondSession,
}

/// What a call without `X-Qlik-User` may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnMissingUser {
    /// Everything: a client certificate alone carries full rights.
    #[default]
    Admin,
    /// 403.
    Forbidden,
}

/// A node with a scheduler.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePlan {
    /// Short machine name, as it stands in datagrams.
    pub name: String,
    /// Tasks it runs at once.
    pub slots: u32,
}

/// A user known to the repository.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserPlan {
    /// User directory.
    pub directory: String,
    /// User id.
    pub id: String,
    /// What the user may do.
    pub role: Role,
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Everything.
    Admin,
    /// Nothing: lists are empty, single objects are not found.
    None,
    /// Refused.
    Inactive,
}

/// The source of session and connection events.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VisitorsPlan {
    /// Arrivals a minute, on average; 0: nobody comes.
    #[serde(default)]
    pub per_minute: f64,
    /// How long an app stays open.
    #[serde(default)]
    pub stay: Seconds,
    /// Who comes.
    #[serde(default)]
    pub people: Vec<Visitor>,
}

/// A person with a browser.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Visitor {
    /// User directory.
    pub directory: String,
    /// User id.
    pub id: String,
    /// User agent of the browser.
    pub agent: String,
}

/// An app.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppPlan {
    /// Its id.
    #[serde(deserialize_with = "read_uuid")]
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The stream it is published to.
    pub stream: Option<String>,
}

fn read_uuid<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    let text = String::deserialize(deserializer)?;
    Uuid::try_parse(&text).map_err(|error| serde::de::Error::custom(format!("`{text}` is not a GUID: {error}")))
}

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
    pub custom_properties: std::collections::BTreeMap<String, Vec<String>>,
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
}

fn default_enabled() -> bool {
    true
}

fn default_timeout() -> u32 {
    1440
}

/// A time: fixed, or even between two bounds; seconds.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Seconds {
    /// Always the same.
    Fixed(f64),
    /// From, to.
    Range(f64, f64),
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
