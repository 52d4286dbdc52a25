//! What answers look like: filters over custom properties, kinds of tasks, and the shape of a JSON value without its content.

use serde_json::{Map, Value};

use super::{Answer, Masks, Question};
use crate::sense::qrs::{filter::Filter, http::Http};

/// Values of custom properties that are looked at.
const MOST_VALUES: usize = 20;
/// Fields of an object that are shown.
const MOST_FIELDS: usize = 40;

/// The shape of a value: names of fields and what stands in them, never the content. Words of QRS's own (field names, types) are kept.
pub fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "true|false".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => kind(text),
        Value::Array(items) => match items.first() {
            None => "[]".to_owned(),
            Some(first) => format!("[{} of {}]", items.len(), shape(first)),
        },
        Value::Object(fields) => object(fields),
    }
}

fn object(fields: &Map<String, Value>) -> String {
    let field = |(name, value): (&String, &Value)| match (name.as_str(), value) {
        // Words of QRS, not of the site.
        ("objectType" | "schemaPath" | "buildVersion", Value::String(word)) => format!("{name}: \"{word}\""),
        ("changedProperties", Value::Array(_)) => format!("{name}: {value}"),
        _ => format!("{name}: {}", shape(value)),
    };
    format!("{{{}}}", fields.iter().take(MOST_FIELDS).map(field).collect::<Vec<_>>().join(", "))
}

fn kind(text: &str) -> String {
    match uuid::Uuid::try_parse(text) {
        Ok(id) if id.is_nil() => "<zero id>".to_owned(),
        Ok(_) => "<id>".to_owned(),
        Err(_) if text.is_empty() => "\"\"".to_owned(),
        Err(_) if text.len() > 18 && text.contains('T') && text.ends_with('Z') => "<time>".to_owned(),
        Err(_) => "<text>".to_owned(),
    }
}

/// A word, unless it is an id.
pub(super) fn without_id(word: &str) -> &str {
    let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if uuid::Uuid::try_parse(bare).is_ok() { "<id>" } else { word }
}

/// Asks both.
pub(super) async fn ask(http: &Http, masks: &Masks) -> Vec<(Question, Answer)> {
    vec![
        (Question::PropertyRows, rows(http).await.unwrap_or_else(|| Answer::NotAsked(NO_ROWS.to_owned()))),
        (Question::OtherKinds, kinds(http, masks).await),
    ]
}

const NO_ROWS: &str = "no task of this site has two custom properties whose values could be mixed up: give a task two of them, e.g. A = 1 and B = 2";

async fn list(http: &Http, path: &str) -> Option<Vec<Value>> {
    let raw = http.look_at(path).await.ok()?;
    serde_json::from_slice(http.sound(&raw).ok()?).ok()
}

/// Looks for a task with the rows (A, 1) and (B, 2) and without (A, 2), and asks for (A, 2).
async fn rows(http: &Http) -> Option<Answer> {
    let definitions = list(http, "custompropertydefinition/full").await?;
    let values = definitions.iter().flat_map(|definition| {
        let name = definition.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let values = definition.get("choiceValues").and_then(Value::as_array).cloned().unwrap_or_default();
        values.into_iter().filter_map(move |value| Some((name.clone(), value.as_str()?.to_owned())))
    });
    for (name, value) in values.take(MOST_VALUES) {
        let Ok(filter) = Filter::custom_property(&name, &value) else { continue };
        let found = list(http, &format!("task/full?filter={}", filter.encoded())).await?;
        for task in &found {
            let Some((name, mixed)) = mixed(task) else { continue };
            let Ok(filter) = Filter::custom_property(&name, &mixed) else { continue };
            let again = list(http, &format!("task/full?filter={}", filter.encoded())).await?;
            let same = again.iter().any(|other| other.get("id") == task.get("id"));
            let says = match same {
                true => {
                    "it matches a task that has the name in one row and the value in another: callers must look again themselves"
                }
                false => "it matches only where both stand in one row",
            };
            return Some(Answer::Told(vec![says.to_owned()]));
        }
    }
    None
}

/// A name of one row and the value of another that do not stand together in any.
fn mixed(task: &Value) -> Option<(String, String)> {
    let rows: Vec<(&str, &str)> = task
        .get("customProperties")?
        .as_array()?
        .iter()
        .filter_map(|row| Some((row.get("definition")?.get("name")?.as_str()?, row.get("value")?.as_str()?)))
        .collect();
    let pairs = rows.iter().flat_map(|(name, _)| rows.iter().map(move |(_, value)| (*name, *value)));
    pairs.into_iter().find(|pair| !rows.contains(pair)).map(|(name, value)| (name.to_owned(), value.to_owned()))
}

/// For each kind of task but reload: whether its id is one under `reloadtask`.
async fn kinds(http: &Http, masks: &Masks) -> Answer {
    let mut lines = Vec::new();
    for (number, name) in [(1, "external program"), (2, "user synchronisation"), (3, "distribute"), (4, "preload")] {
        let found = list(http, &format!("task?filter=taskType%20eq%20{number}")).await;
        let id =
            found.as_ref().and_then(|tasks| tasks.first()?.get("id")?.as_str()?.parse::<crate::names::TaskId>().ok());
        lines.push(match (found, id) {
            (None, _) => format!("{name} (taskType {number}): the filter is refused"),
            (_, None) => format!("{name} (taskType {number}): the site has none"),
            (_, Some(id)) => {
                let raw = http.look_at(&format!("reloadtask/{id}")).await;
                let status = raw.map_or_else(|error| masks.text(&error.to_string()), |raw| raw.status.to_string());
                format!("{name} (taskType {number}): GET reloadtask/{{id}}: {status}")
            }
        });
    }
    Answer::Told(lines)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_shape_tells_no_content() {
        let value = json!([{"objectType": "ExecutionResult", "objectID": "5a1e5000-0000-4000-8000-000000000001", "name": "Nightly of Goran",
            "changedProperties": ["status"], "value": "00000000-0000-0000-0000-000000000000", "createdDate": "2026-11-22T17:24:58.897Z"}]);
        let told = shape(&value);
        assert_eq!(
            told,
            "[1 of {objectType: \"ExecutionResult\", objectID: <id>, name: <text>, changedProperties: [\"status\"], value: <zero id>, createdDate: <time>}]"
        );
        assert_eq!(without_id("(5a1e5000-0000-4000-8000-000000000001)"), "<id>");
        assert_eq!(without_id("word"), "word");
    }

    #[test]
    fn rows_that_can_be_mixed_up_are_found() {
        let row = |name: &str, value: &str| json!({"definition": {"name": name}, "value": value});
        let task = json!({"customProperties": [row("A", "1"), row("B", "2")]});
        assert_eq!(mixed(&task), Some(("A".into(), "2".into())));
        assert_eq!(mixed(&json!({"customProperties": [row("A", "1"), row("A", "2")]})), None);
        assert_eq!(mixed(&json!({})), None);
    }
}
