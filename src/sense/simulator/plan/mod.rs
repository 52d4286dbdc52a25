//! What the simulated site consists of: the YAML file, read and checked.
//!
//! Invariant: a [`Plan`] that exists can be run. Every task's app exists, ids and names of apps are unique, every number is within its range;
//! the rooms behind check nothing of it again.

mod check;
mod task;

use serde::Deserialize;
use uuid::Uuid;

pub use self::task::{AfterPlan, Outcome, OutcomePlan, Seconds, TaskKind, TaskPlan, Weights, millis};
use super::fault::Fault;
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
    /// How script logs are fetched.
    #[serde(default)]
    pub script_log: ScriptLogPlan,
    /// How changes are announced.
    #[serde(default)]
    pub notifications: NotificationsPlan,
    /// How answers are sent.
    #[serde(default)]
    pub answers: WirePlan,
    /// Names calls may be addressed to (`Host`, without port); empty: any.
    #[serde(default)]
    pub allowed_hosts: Vec<String>,
    /// What goes wrong from the start, as at `/control/fault`.
    #[serde(default)]
    pub faults: Vec<Fault>,
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

/// How script logs are fetched.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ScriptLogPlan {
    /// Which calls there are.
    pub api: ScriptLogApi,
    /// So long after the call that names the log its download is 404, milliseconds of ours.
    pub delay_millis: u64,
}

impl Default for ScriptLogPlan {
    fn default() -> Self {
        Self { api: ScriptLogApi::Both, delay_millis: 400 }
    }
}

/// Generations of the calls that name a script log; the older was deprecated in May 2025.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ScriptLogApi {
    /// `scriptlog?fileReferenceId=`
    Old,
    /// `scriptlogfile?executionResultId=`
    New,
    /// Both.
    #[default]
    Both,
}

/// How changes are announced to subscribers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct NotificationsPlan {
    /// Most changes in one call.
    pub batch: usize,
    /// How likely a change is announced twice, 0 to 1.
    pub duplicates: f64,
}

impl Default for NotificationsPlan {
    fn default() -> Self {
        Self { batch: 5, duplicates: 0.0 }
    }
}

/// How answers of the repository are sent; both are within HTTP, and clients must read both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WirePlan {
    /// Compressed, to clients that accept it.
    pub gzip: bool,
    /// In chunks, without a length at the beginning.
    pub chunked: bool,
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
    /// Everything but users, licence, external programs and user synchronisations.
    ContentAdmin,
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
