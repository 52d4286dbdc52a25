//! What is taken out of QRS's JSON objects: a task's id and name, tags and custom properties.
//!
//! Objects travel as [`Value`] in their original key order, because Butler hands them on whole; these functions only read. Invariant: a
//! missing or oddly typed field gives nothing, never an error: QRS versions differ.

use serde_json::Value;

use crate::names::TaskId;

/// A task as far as starting it needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Id.
    pub id: TaskId,
    /// Name as the QMC shows it.
    pub name: String,
}

impl Task {
    /// Reads a task object, condensed or full; `None` without a usable id.
    pub fn read(object: &Value) -> Option<Self> {
        let id = object.get("id")?.as_str()?.parse().ok()?;
        let name = object.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self { id, name })
    }
}

/// Names of an object's tags, in order.
pub fn tags(object: &Value) -> Vec<String> {
    let name = |tag: &Value| Some(tag.get("name")?.as_str()?.to_owned());
    items(object, "tags").filter_map(name).collect()
}

/// Names and values of an object's custom properties, in order.
pub fn custom_properties(object: &Value) -> Vec<(String, String)> {
    let pair = |property: &Value| {
        let name = property.get("definition")?.get("name")?.as_str()?;
        Some((name.to_owned(), property.get("value")?.as_str()?.to_owned()))
    };
    items(object, "customProperties").filter_map(pair).collect()
}

fn items<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    object.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_full_task_is_read() {
        let task = json!({
            "id": "0000AAAA-0000-4000-8000-000000000001", "name": "Sales; daily",
            "tags": [{"id": "x", "name": "Tag One"}, {"id": "y"}],
            "customProperties": [{"value": "night", "definition": {"name": "taskGroup"}}, {"value": 5}],
        });
        let read = Task::read(&task).unwrap();
        assert_eq!(
            (read.id.to_string().as_str(), read.name.as_str()),
            ("0000aaaa-0000-4000-8000-000000000001", "Sales; daily")
        );
        assert_eq!(tags(&task), ["Tag One"]);
        assert_eq!(custom_properties(&task), [("taskGroup".to_owned(), "night".to_owned())]);
    }

    #[test]
    fn odd_objects_give_nothing() {
        for odd in [json!(null), json!({"id": 5, "tags": "x"}), json!({"id": "abc", "customProperties": {}})] {
            assert_eq!(Task::read(&odd), None);
            assert!(tags(&odd).is_empty() && custom_properties(&odd).is_empty());
        }
    }
}
