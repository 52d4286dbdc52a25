//! Reading a site's description, and every check that makes a [`Plan`] one that can be run.

use std::{collections::HashSet, path::Path};

use uuid::Uuid;

use super::{AppPlan, LONGEST_SECONDS, OutcomePlan, Plan, Seconds, TaskPlan, Weights};
use crate::{names::TaskId, sense::simulator::SimulatorError};

/// Most tasks of a site.
const MOST_TASKS: u64 = 200_000;

impl Plan {
    /// Reads and checks a site. `origin` names it in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Self, SimulatorError> {
        let wrong = |reason: String| SimulatorError::Site { origin: origin.to_owned(), reason };
        let mut plan: Self = serde_yaml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        plan.multiply().map_err(wrong)?;
        plan.check().map_err(wrong)?;
        Ok(plan)
    }

    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, SimulatorError> {
        let text = std::fs::read_to_string(path).map_err(|source| SimulatorError::File {
            path: path.to_owned(),
            deed: "read",
            source,
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// The app a task's `app` names.
    pub fn app(&self, name: &str) -> Option<&AppPlan> {
        self.apps.iter().find(|app| app.name == name)
    }

    /// The app of a task.
    pub fn app_of(&self, task: &TaskPlan) -> Option<&AppPlan> {
        task.app.as_deref().and_then(|name| self.app(name))
    }

    /// Puts so many copies of a task in its place as it says.
    fn multiply(&mut self) -> Result<(), String> {
        let total: u64 = self.tasks.iter().map(|task| u64::from(task.copies)).sum();
        if total > MOST_TASKS || self.tasks.iter().any(|task| task.copies == 0) {
            return Err(format!("copies: at least 1, and together at most {MOST_TASKS}"));
        }
        self.tasks = std::mem::take(&mut self.tasks).into_iter().flat_map(TaskPlan::copies).collect();
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        self.check_nodes()?;
        self.check_apps()?;
        if !(0.0..=1.0).contains(&self.notifications.duplicates) || !(1..=1_000).contains(&self.notifications.batch) {
            return Err("notifications: duplicates must be 0 to 1, batch 1 to 1000".to_owned());
        }
        let mut ids = HashSet::new();
        for task in &self.tasks {
            task.check(self).map_err(|reason| format!("task `{}`: {reason}", task.name))?;
            if !ids.insert(task.id) {
                return Err(format!("task `{}`: the id {} stands twice", task.name, task.id));
            }
        }
        let links = self.tasks.iter().flat_map(|task| task.after.iter().map(move |after| (task, after)));
        for (task, after) in links {
            let named = || after.success.iter().chain(&after.fail);
            if named().next().is_none() {
                return Err(format!("task `{}`: after: `success` or `fail` must name a task", task.name));
            }
            if let Some(missing) = named().find(|id| !ids.contains(id)) {
                return Err(format!("task `{}`: after: no task has the id {missing}", task.name));
            }
        }
        if !ids.contains(&self.sample_task) {
            return Err(format!("sampleTask: no task has the id {}", self.sample_task));
        }
        if !(0.0..=60_000.0).contains(&self.visitors.per_minute) || !self.visitors.stay.is_sound() {
            return Err("visitors: perMinute must be 0 to 60000, stay 0 to 30 days".to_owned());
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), String> {
        if self.nodes.is_empty() {
            return Err("nodes: at least one is needed".to_owned());
        }
        match self.nodes.iter().find(|node| node.slots == 0 || node.name.is_empty()) {
            Some(node) => Err(format!("node `{}`: a node needs a name and at least one slot", node.name)),
            None => Ok(()),
        }
    }

    fn check_apps(&self) -> Result<(), String> {
        let (mut ids, mut names) = (HashSet::new(), HashSet::new());
        match self.apps.iter().find(|app| !ids.insert(app.id) || !names.insert(app.name.as_str())) {
            Some(app) => Err(format!("app `{}`: its name or id stands twice", app.name)),
            None => Ok(()),
        }
    }
}

impl Seconds {
    fn is_sound(self) -> bool {
        let within = |seconds: f64| (0.0..=LONGEST_SECONDS).contains(&seconds);
        match self {
            Self::Fixed(seconds) => within(seconds),
            Self::Range(from, to) => within(from) && within(to) && from <= to,
            Self::Tail { median, sigma } => within(median) && (0.0..=5.0).contains(&sigma),
        }
    }
}

impl OutcomePlan {
    fn is_sound(&self) -> bool {
        match self {
            Self::Always(_) => true,
            Self::Script(script) => !script.is_empty(),
            Self::Weights(Weights { success, fail, abort }) => {
                let all = [success, fail, abort];
                all.iter().all(|weight| (0.0..=1e9).contains(*weight)) && all.iter().any(|weight| **weight > 0.0)
            }
        }
    }
}

impl TaskPlan {
    /// As many as it says; the first is itself.
    fn copies(self) -> impl Iterator<Item = Self> {
        let first = Uuid::try_parse(&self.id.to_string()).map_or(0, |id| id.as_u128());
        (0..self.copies).map(move |number| {
            let mut copy = Self { copies: 1, ..self.clone() };
            if number > 0 {
                copy.id = TaskId::from_u128(first.wrapping_add(number.into()));
                copy.name = format!("{} {}", self.name, number + 1);
            }
            copy
        })
    }

    fn check(&self, plan: &Plan) -> Result<(), String> {
        if let Some(app) = &self.app
            && plan.app(app).is_none()
        {
            return Err(format!("there is no app `{app}`"));
        }
        if self.id.is_zero() || self.name.is_empty() {
            return Err("a task needs a name and an id other than zero".to_owned());
        }
        if !self.duration.is_sound() {
            return Err("duration: 0 to 30 days in seconds, as `4`, `[3, 5]` or `{median: 30, sigma: 0.5}`".to_owned());
        }
        if !self.outcome.is_sound() {
            return Err("outcome: a script needs an entry, weights must be 0 or more and not all 0".to_owned());
        }
        if self.every.is_some_and(|every| !(0.01..=LONGEST_SECONDS).contains(&every)) {
            return Err("every: 0.01 seconds to 30 days".to_owned());
        }
        if self.max_retries > 20 || !(1..=43_200).contains(&self.timeout_minutes) {
            return Err("maxRetries must be 0 to 20, timeoutMinutes 1 to 43200".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;

    #[test]
    fn the_sample_site_has_what_it_promises() {
        let plan = Plan::parse(DEFAULT_SITE, "built in").unwrap();
        assert!(plan.tasks.len() >= 12 && plan.nodes.len() == 2);
        let sample = plan.tasks.iter().find(|task| task.id == plan.sample_task).unwrap();
        assert!(sample.enabled && sample.every.is_none());
        assert_eq!(sample.duration, Seconds::Range(3.0, 4.5));
        assert!(matches!(sample.outcome, OutcomePlan::Always(Outcome::Success)));
        for part in ["ü", "🤪", ";", "'", "\\", "#"] {
            assert!(plan.tasks.iter().any(|task| task.name.contains(part)), "no task name with {part}");
        }
        for kind in [TaskKind::ExternalProgram, TaskKind::UserSync, TaskKind::Distribute, TaskKind::Preload] {
            assert!(plan.tasks.iter().any(|task| task.kind == kind), "{kind:?}");
        }
    }

    const NOBODY: &str = "5a1e5000-0000-4000-8000-00000000bad0";

    #[test]
    fn times_with_a_tail_are_mostly_about_their_median() {
        let tail: Seconds = serde_yaml::from_str("{ median: 10, sigma: 0.5 }").unwrap();
        let mut rng = crate::sense::simulator::rng::Rng::new(1);
        let mut draws: Vec<u64> = (0..10_001).map(|_| tail.draw(&mut rng)).collect();
        draws.sort_unstable();
        assert!((9_700..10_300).contains(&draws[5_000]), "{}", draws[5_000]);
        let long = draws.iter().filter(|draw| **draw > 25_000).count();
        assert!((200..500).contains(&long), "{long}");
    }

    #[test]
    fn a_task_can_stand_for_thousands() {
        let text = "sampleTask: 5a1e5000-0000-4000-8000-000000000001\nnodes: [{name: n, slots: 1}]\nusers: []\ntasks:\n  \
                    - {id: 5a1e5000-0000-4000-8000-000000000001, name: a, duration: 1, copies: 10000}\n";
        let plan = Plan::parse(text, "x").unwrap();
        let last = plan.tasks.last().unwrap();
        assert_eq!((plan.tasks.len(), last.name.as_str()), (10_000, "a 10000"));
        assert_eq!(last.id.to_string(), "5a1e5000-0000-4000-8000-000000002710");
    }

    #[test]
    fn a_wrong_site_is_refused_with_its_place() {
        let base =
            "sampleTask: 5a1e5000-0000-4000-8000-000000000001\nnodes: [{name: n, slots: 1}]\nusers: []\ntasks:\n";
        let task = "  - {id: 5a1e5000-0000-4000-8000-000000000001, name: a, duration: 1}\n";
        assert!(Plan::parse(&format!("{base}{task}"), "x").is_ok());
        let cases = [
            (format!("{base}{task}{task}"), "stands twice"),
            (format!("{base}{}", task.replace("duration: 1", "duration: -1")), "duration"),
            (format!("{base}{}", task.replace("duration: 1", "duration: [5, 3]")), "duration"),
            (format!("{base}{}", task.replace("duration: 1", "duration: 1, app: none")), "no app `none`"),
            (format!("{base}{}", task.replace("duration: 1", "duration: 1, outcome: []")), "outcome"),
            (format!("{base}{}", task.replace("duration: 1", "duration: 1, every: 0")), "every"),
            (format!("{base}{}", task.replace("0001,", "0002,")), "sampleTask"),
            (format!("{base}{task}").replace("slots: 1", "slots: 0"), "slot"),
            (format!("{base}{task}typo: 1\n"), "typo"),
            (format!("{base}{}", task.replace("duration: 1", "duration: 1, copies: 0")), "copies"),
            (format!("{base}{}", task.replace("duration: 1", "duration: 1, after: [{}]")), "after"),
            (
                format!(
                    "{base}{}",
                    task.replace("duration: 1", &format!("duration: 1, after: [{{fail: [{}]}}]", NOBODY))
                ),
                NOBODY,
            ),
            (format!("{base}{task}notifications: {{duplicates: 2}}\n"), "notifications"),
            (format!("{base}{task}faults: [{{path: /qrs, action: explode}}]\n"), "action"),
        ];
        let count = cases.len();
        for (text, part) in cases {
            let error = Plan::parse(&text, "site.yaml").unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("site.yaml"), "{error}");
        }
        assert_eq!(count, 14);
    }
}
