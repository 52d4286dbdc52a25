//! The parameters of a start request, put where the load script it starts reads them.
//!
//! A load script knows the id of its app (`DocumentName()`) and nothing of tasks and executions, so the namespace is made of that. Invariants:
//! parameters are on disk before QRS is asked for the start; a load script finds those of the request that started it and none of an earlier
//! one; the namespaces belong to the starter alone, so what others keep in the store is never touched.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::{
    keep::values::{Values, ValuesError},
    names::{AppId, TaskId},
};

/// Where parameters go; the default: nowhere, and a request that has some is not started.
#[derive(Debug, Clone, Default)]
pub struct Parameters(Option<(Values, Duration)>);

impl Parameters {
    /// Into this store, for so long (`startTask.parametersTtlSeconds`).
    pub fn new(values: Values, ttl: Duration) -> Self {
        Self(Some((values, ttl)))
    }

    /// Puts a request's parameters, or none, in the place of those of an earlier one. To be called when nothing else is started of the task.
    ///
    /// # Errors
    /// [`ValuesError`]: they are not stored, and those of the earlier request are as they were.
    pub(super) async fn hand_over(
        &self,
        task: TaskId,
        app: Option<AppId>,
        parameters: Option<&Map<String, Value>>,
    ) -> Result<(), ValuesError> {
        let parameters = parameters.filter(|parameters| !parameters.is_empty());
        let Some((values, ttl)) = &self.0 else { return parameters.map_or(Ok(()), |_| Err(ValuesError::Off)) };
        let namespace = namespace(task, app);
        // Most starts have none and find none; they need not write.
        if parameters.is_none() && values.keys(&namespace).map_or(true, |keys| keys.is_empty()) {
            return Ok(());
        }
        let pairs = parameters.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone()));
        values.replace(&namespace, pairs.collect(), Some(*ttl)).await
    }
}

/// Where the parameters of a task are: by its app; a task without one runs no load script, and has its own id.
fn namespace(task: TaskId, app: Option<AppId>) -> String {
    app.map_or_else(|| format!("parameters-{task}"), |app| format!("parameters-{app}"))
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use serde_json::json;

    use super::*;
    use crate::keep::{Keep, values::ValueSettings};

    fn values(settings: ValueSettings) -> Values {
        let mut registry = Registry::default();
        let keep = Keep::open(None, &mut registry).unwrap();
        Values::open(&keep, settings, &mut registry).unwrap()
    }

    fn of(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[tokio::test]
    async fn a_script_finds_those_of_its_own_request_and_none_of_an_earlier_one() {
        let values = values(ValueSettings { max_keys: 2, ..ValueSettings::default() });
        let parameters = Parameters::new(values.clone(), Duration::from_secs(60));
        let (task, app) = (TaskId::from_u128(1), "0000aaaa-0000-4000-8000-00000000000a".parse::<AppId>().unwrap());
        let place = format!("parameters-{app}");
        let first = of(json!({"from": "2026-11-01", "to": {"day": 2}}));
        parameters.hand_over(task, Some(app), Some(&first)).await.unwrap();
        assert_eq!(&*values.get(&place, "from").unwrap().value, "\"2026-11-01\"");
        assert_eq!(&*values.get(&place, "to").unwrap().value, "{\"day\":2}");
        assert_eq!(values.get(&place, "to").unwrap().ttl, 60_000);
        // The limit of keys counts what will be there, not what goes.
        parameters.hand_over(task, Some(app), Some(&of(json!({"a": 1, "b": 2})))).await.unwrap();
        assert_eq!(values.keys(&place).unwrap().len(), 2);
        let many = of(json!({"a": 1, "c": 3, "d": 4}));
        let refused = parameters.hand_over(task, Some(app), Some(&many)).await;
        assert!(matches!(refused, Err(ValuesError::Full { .. })), "{refused:?}");
        assert_eq!(values.keys(&place).unwrap().iter().map(|key| &**key).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(&*values.get(&place, "a").unwrap().value, "1");
        for none in [None, Some(&Map::new())] {
            parameters.hand_over(task, Some(app), none).await.unwrap();
            assert!(values.keys(&place).unwrap().is_empty());
        }
        parameters.hand_over(task, None, Some(&of(json!({"x": null})))).await.unwrap();
        assert_eq!(&*values.get(&format!("parameters-{task}"), "x").unwrap().value, "null");
    }

    #[tokio::test]
    async fn where_nobody_could_read_them_only_requests_without_any_pass() {
        let off = ValueSettings { offered: false, ..ValueSettings::default() };
        let some = of(json!({"a": 1}));
        for parameters in [Parameters::default(), Parameters::new(values(off), Duration::from_secs(1))] {
            assert_eq!(parameters.hand_over(TaskId::ZERO, None, None).await, Ok(()));
            assert_eq!(parameters.hand_over(TaskId::ZERO, None, Some(&some)).await, Err(ValuesError::Off));
        }
    }
}
