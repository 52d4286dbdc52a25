//! The answer to a start request: Butler's lists, and what Butler did not tell.
//!
//! Invariant: every id asked for stands in exactly one of `started`, `invalid` and `denied`; what did not start for another reason than
//! that it does not exist or is not allowed also stands in `errors`.

use serde::Serialize;

use super::{Asked, AskedId};
use crate::{
    names::TaskId,
    sense::tasks::request::{StartOutcome, StartStatus, StartTarget},
};

/// What is told about a request.
pub(super) struct Told<'a> {
    asked: &'a Asked,
    outcomes: &'a [StartOutcome],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lists<'a> {
    tasks_id: Ids<'a>,
    tasks_tag: Vec<Started<'a>>,
    tasks_tag_denied: Vec<DeniedTag<'a>>,
    #[serde(rename = "tasksCP")]
    tasks_cp: Vec<Started<'a>>,
    #[serde(rename = "tasksCPDenied")]
    tasks_cp_denied: Vec<DeniedProperty<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Failed<'a>>,
}

#[derive(Serialize, Default)]
struct Ids<'a> {
    started: Vec<Started<'a>>,
    invalid: Vec<Id>,
    denied: Vec<Id>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Started<'a> {
    task_id: TaskId,
    task_name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Id {
    task_id: String,
}

#[derive(Serialize)]
struct DeniedTag<'a> {
    tag: &'a str,
}

#[derive(Serialize)]
struct DeniedProperty<'a> {
    name: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed<'a> {
    /// `null` for a tag or custom property that led to no task.
    task_id: Option<String>,
    code: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Short<'a> {
    task_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Failed<'a>>,
}

impl<'a> Told<'a> {
    pub(super) fn new(asked: &'a Asked, outcomes: &'a [StartOutcome]) -> Self {
        Self { asked, outcomes }
    }

    /// Generation head: all lists, with two blanks of indentation.
    pub(super) fn lists(&self) -> String {
        let tag = |target: &StartTarget| matches!(target, StartTarget::Tag(_));
        let property = |target: &StartTarget| matches!(target, StartTarget::CustomProperty { .. });
        let lists = Lists {
            tasks_id: self.ids(),
            tasks_tag: self.started(tag),
            tasks_tag_denied: self.denied().filter_map(denied_tag).collect(),
            tasks_cp: self.started(property),
            tasks_cp_denied: self.denied().filter_map(denied_property).collect(),
            errors: self.outcomes.iter().filter(|outcome| is_told(outcome)).filter_map(failed).collect(),
        };
        // Texts and ids: writing them as JSON cannot fail.
        serde_json::to_string_pretty(&lists).unwrap_or_default()
    }

    /// Generation 5.4: the id of the path as it was written, and everything that did not start.
    pub(super) fn short(&self, path_id: &str) -> String {
        let bad = self.asked.ids.iter().filter_map(|id| match id {
            AskedId::Bad(text) => Some(Failed {
                task_id: Some(text.clone()),
                code: "not_an_id",
                message: "this is no id of Qlik Sense: 8-4-4-4-12 hexadecimal digits are expected",
            }),
            AskedId::Good(_) => None,
        });
        let errors = bad.chain(self.outcomes.iter().filter_map(failed)).collect();
        serde_json::to_string(&Short { task_id: path_id, errors }).unwrap_or_default()
    }

    fn ids(&self) -> Ids<'a> {
        let mut lists = Ids::default();
        for id in &self.asked.ids {
            let good = match id {
                AskedId::Bad(text) => {
                    lists.invalid.push(Id { task_id: text.clone() });
                    continue;
                }
                AskedId::Good(id) => *id,
            };
            let asked = Some(StartTarget::Id(good));
            let outcome = self.outcomes.iter().find(|outcome| outcome.target == asked);
            match outcome.map(|outcome| (outcome.status, outcome)) {
                Some((StartStatus::Started, outcome)) => lists.started.extend(started(outcome)),
                Some((StartStatus::Denied, _)) => lists.denied.push(Id { task_id: good.to_string() }),
                _ => lists.invalid.push(Id { task_id: good.to_string() }),
            }
        }
        lists
    }

    fn started(&self, kind: impl Fn(&StartTarget) -> bool) -> Vec<Started<'a>> {
        let of_kind = |outcome: &&StartOutcome| outcome.target.as_ref().is_some_and(&kind);
        self.outcomes.iter().filter(of_kind).filter_map(started).collect()
    }

    fn denied(&self) -> impl Iterator<Item = &'a StartTarget> {
        let denied = self.outcomes.iter().filter(|outcome| outcome.status == StartStatus::Denied);
        denied.filter_map(|outcome| outcome.target.as_ref())
    }
}

fn started(outcome: &StartOutcome) -> Option<Started<'_>> {
    let task_id = outcome.task_id.filter(|_| outcome.status == StartStatus::Started)?;
    Some(Started { task_id, task_name: outcome.task_name.as_deref().unwrap_or_default() })
}

fn denied_tag(target: &StartTarget) -> Option<DeniedTag<'_>> {
    match target {
        StartTarget::Tag(tag) => Some(DeniedTag { tag }),
        _ => None,
    }
}

fn denied_property(target: &StartTarget) -> Option<DeniedProperty<'_>> {
    match target {
        StartTarget::CustomProperty { name, value } => Some(DeniedProperty { name, value }),
        _ => None,
    }
}

fn failed(outcome: &StartOutcome) -> Option<Failed<'_>> {
    let error = outcome.error.as_ref()?;
    let task_id = outcome.task_id.map(|id| id.to_string());
    Some(Failed { task_id, code: &error.code, message: &error.message })
}

/// Whether the lists alone would hide what happened: they already tell what does not exist and what is not allowed.
fn is_told(outcome: &StartOutcome) -> bool {
    let code = outcome.error.as_ref().map(|error| &*error.code);
    !matches!(code, Some("unknown_task" | "no_match" | "task_filter" | "user_filter" | "not_all_exist"))
}
