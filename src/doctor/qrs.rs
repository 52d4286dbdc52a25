//! The way to the Qlik Sense Repository Service, step by step, in the words of [`crate::sense::qrs`].

use super::finding::{Finding, Section};
use crate::{
    config::Loaded,
    sense::qrs::steps::{self, Outcome, Walk},
};

const HERE: Section = Section::Qrs;

/// Walks to every host of the configuration.
pub async fn walk(loaded: &Loaded) -> Vec<Walk> {
    steps::walk(&loaded.settings.qrs).await
}

/// What the walks found.
pub fn look(loaded: &Loaded, walks: &[Walk]) -> Vec<Finding> {
    if walks.is_empty() {
        return vec![HERE.warning(
            "no Qlik Repository Service is configured: tasks cannot be started, and events go out without tags and custom properties",
            "Set `configQRS.host` to the central node, or let `sense-butler init` write the configuration.",
        )];
    }
    let is_well = |walk: &Walk| !walk.steps.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
    let site = Site { is_several: walks.len() > 1, is_reached: walks.iter().any(is_well) };
    let steps = walks.iter().flat_map(|walk| walk.steps.iter().map(move |(_, outcome)| finding(walk, outcome, site)));
    steps.chain(too_powerful(loaded)).collect()
}

/// What is known of all hosts together.
#[derive(Clone, Copy)]
struct Site {
    is_several: bool,
    /// One of them is as it should be; then another that is not is no problem yet.
    is_reached: bool,
}

fn finding(walk: &Walk, outcome: &Outcome, site: Site) -> Finding {
    let told = |text: &str| if site.is_several { format!("{}: {text}", walk.at) } else { text.to_owned() };
    match outcome {
        Outcome::Well(sentence) => HERE.ok(told(sentence)),
        Outcome::Remarkable(what, remedy) => HERE.warning(told(what), remedy),
        Outcome::Failed(error) => {
            let (what, remedy) = (capital(&error.to_string()), error.remedy().unwrap_or_default());
            if site.is_reached { HERE.warning(what, remedy) } else { HERE.problem(what, remedy) }
        }
    }
}

/// A sentence begins with a capital letter.
fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

/// Qlik's own service user may do everything.
fn too_powerful(loaded: &Loaded) -> Option<Finding> {
    let user = steps::user(&loaded.settings.qrs)?;
    let id = user.split(';').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("UserId").then_some(value.trim())
    })?;
    id.eq_ignore_ascii_case("sa_repository").then(|| {
        HERE.warning(
            "the calls are made as sa_repository, who may do everything on the site; every start looks in Qlik's audit log as if the site itself \
             had made it",
            "Give the program a user of its own: take one of your directory nobody logs in with; in QMC, Security rules, create a rule with the \
             actions Read and Update for it on `App_*, ReloadTask_*, ExecutionResult_*, ExecutionSession_*`; name it in butler.yaml:\n    \
             configQRS:\n      headers:\n        static:\n          - name: X-Qlik-User\n            value: UserDirectory=LAB; UserId=svc-butler\n\
             docs/security.md, \"A user of less power\", says more.",
        )
    })
}
