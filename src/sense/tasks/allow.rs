//! `startTaskFilter`: what may be started at all, whichever door the request comes by; and what one user may start of it.
//!
//! Butler's meaning, kept: the item of the request is compared with the list of its kind, exactly and with regard to case; an allowed tag
//! or property starts tasks that are in no id list. Invariant: a user's own list takes away and never gives.

use super::{
    audit::Asker,
    request::{StartOutcome, StartStatus, StartTarget},
    rules::Rules,
};
use crate::config::settings::StartTaskFilter;

impl Rules {
    /// The refusal, if who asks may not start this: by the filter for everybody, or by his own list.
    pub(super) fn refusal(&self, asker: &Asker, target: &StartTarget) -> Option<StartOutcome> {
        refusal(&self.filter, target).or_else(|| {
            let user = asker.user.as_deref()?;
            let own = self.users.iter().find(|own| own.user == user)?;
            let (what, list) = not_listed(&own.filter, target)?;
            let message = format!(
                "{what} is not in `allowTask.{list}` of the user `{user}` in `startTask.users`; nothing was started"
            );
            Some(StartOutcome::failed(StartStatus::Denied, "user_filter", message).of(target))
        })
    }
}

/// The refusal, if the filter does not let this target pass.
pub fn refusal(filter: &StartTaskFilter, target: &StartTarget) -> Option<StartOutcome> {
    let (what, list) = not_listed(filter, target)?;
    let message = format!("{what} is not in `startTaskFilter.allowTask.{list}`; nothing was started");
    Some(StartOutcome::failed(StartStatus::Denied, "task_filter", message).of(target))
}

/// What stands in no list, and in which it would have to stand.
fn not_listed(filter: &StartTaskFilter, target: &StartTarget) -> Option<(String, &'static str)> {
    let (allowed, what, list) = match target {
        StartTarget::Id(id) => (filter.task_ids.contains(id), format!("the task {id}"), "taskId"),
        StartTarget::Tag(tag) => (filter.tags.contains(tag), format!("the tag `{tag}`"), "tag"),
        StartTarget::CustomProperty { name, value } => {
            let allowed = filter.custom_properties.iter().any(|(n, v)| n == name && v == value);
            (allowed, format!("the custom property `{name}` with the value `{value}`"), "customProperty")
        }
    };
    (filter.enable && !allowed).then_some((what, list))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::UserFilter;

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

    #[test]
    fn a_user_may_start_what_both_the_filter_and_his_own_list_allow() {
        let tag = |name: &str| StartTarget::Tag(name.into());
        let tags = |enable, names: &[&str]| StartTaskFilter {
            enable,
            tags: names.iter().map(|name| (*name).to_owned()).collect(),
            ..StartTaskFilter::default()
        };
        let rules = |general| Rules {
            filter: general,
            users: vec![UserFilter { user: "plc".into(), filter: tags(true, &["a", "b"]) }],
            ..Rules::default()
        };
        let (open, bounded) = (rules(tags(false, &[])), rules(tags(true, &["b", "c"])));
        let cases = [
            (&open, Some("plc"), "a", None),
            (&open, Some("plc"), "c", Some("user_filter")),
            (&open, Some("PLC"), "c", None),
            (&open, None, "c", None),
            (&bounded, Some("plc"), "a", Some("task_filter")),
            (&bounded, Some("plc"), "b", None),
            (&bounded, Some("plc"), "c", Some("user_filter")),
            (&bounded, Some("other"), "c", None),
            (&bounded, Some("other"), "a", Some("task_filter")),
        ];
        let mut ran = 0;
        for (rules, user, name, code) in cases {
            let asker = Asker { user: user.map(str::to_owned), client: Some("plc".into()), address: None };
            let refused = rules.refusal(&asker, &tag(name)).and_then(|outcome| outcome.error);
            assert_eq!(refused.as_ref().map(|error| &*error.code), code, "{user:?} {name}");
            ran += 1;
        }
        assert_eq!(ran, 9);
    }
}
