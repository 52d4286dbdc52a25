//! `startTaskFilter`: what may be started at all, whichever door the request comes by.
//!
//! Butler's meaning, kept: the item of the request is compared with the list of its kind, exactly and with regard to case; an allowed tag
//! or property starts tasks that are in no id list.

use super::request::{StartOutcome, StartStatus, StartTarget};
use crate::config::settings::StartTaskFilter;

/// The refusal, if the filter does not let this target pass.
pub fn refusal(filter: &StartTaskFilter, target: &StartTarget) -> Option<StartOutcome> {
    let (allowed, what, list) = match target {
        StartTarget::Id(id) => (filter.task_ids.contains(id), format!("the task {id}"), "taskId"),
        StartTarget::Tag(tag) => (filter.tags.contains(tag), format!("the tag `{tag}`"), "tag"),
        StartTarget::CustomProperty { name, value } => {
            let allowed = filter.custom_properties.iter().any(|(n, v)| n == name && v == value);
            (allowed, format!("the custom property `{name}` with the value `{value}`"), "customProperty")
        }
    };
    let message = format!("{what} is not in `startTaskFilter.allowTask.{list}`; nothing was started");
    let refused = filter.enable && !allowed;
    refused.then(|| StartOutcome::failed(StartStatus::Denied, "task_filter", message).of(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_compared_exactly_and_only_with_their_kind() {
        let id = "0000aaaa-0000-4000-8000-000000000001".parse().unwrap();
        let other = "0000cccc-0000-4000-8000-000000000002".parse().unwrap();
        let filter = StartTaskFilter {
            enable: true,
            task_ids: vec![id],
            tags: vec!["Tag One".into()],
            custom_properties: vec![("taskGroup".into(), "night".into())],
        };
        let property = |name: &str, value: &str| StartTarget::CustomProperty { name: name.into(), value: value.into() };
        let cases = [
            (StartTarget::Id(id), true),
            (StartTarget::Id(other), false),
            (StartTarget::Tag("Tag One".into()), true),
            (StartTarget::Tag("tag one".into()), false),
            (property("taskGroup", "night"), true),
            (property("taskGroup", "day"), false),
            (property("night", "taskGroup"), false),
        ];
        for (target, allowed) in cases {
            assert_eq!(refusal(&filter, &target).is_none(), allowed, "{target:?}");
            assert!(refusal(&StartTaskFilter { enable: false, ..filter.clone() }, &target).is_none());
        }
        assert!(refusal(&StartTaskFilter { enable: true, ..Default::default() }, &StartTarget::Id(id)).is_some());
    }
}
