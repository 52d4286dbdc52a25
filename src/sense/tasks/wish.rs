//! What stands in a start request, whichever door it comes by: a bare task id, as Butler takes it, or a JSON object.
//!
//! `{"taskId" | "taskIds" | "tag" | "customProperty": {"name", "value"}, "transaction": any, "wait": "started" | "finished",
//! "onRunning": "skip" | "queue" | "start", "deadlineSeconds": number, "parameters": {name: any}}`. Invariant: no field is ignored; one that is
//! unknown makes the whole message invalid and says so.

use std::time::Duration;

use serde_json::{Map, Value};

use super::request::{OnRunning, StartRequest, StartTarget, Wait};
use crate::{keep::values::MAX_NAME, names::TaskId};

/// Longest start message, bytes.
const MAX_BYTES: usize = 64 << 10;
/// Most ids in one message.
const MAX_IDS: usize = 1_000;
/// Longest deadline: a day.
const MAX_DEADLINE: u64 = 24 * 3_600;
/// Most parameters of one message.
const MAX_PARAMETERS: usize = 100;

/// What a message asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// What to start.
    pub targets: Vec<StartTarget>,
    /// Comes back in the answers; makes a repetition known.
    pub transaction: Option<Value>,
    /// What the final answer waits for.
    pub wait: Wait,
    /// What happens to a task that runs already.
    pub on_running: OnRunning,
    /// As far as the message says how long it may wait.
    pub deadline: Option<Duration>,
    /// What the started load script shall find.
    pub parameters: Option<Map<String, Value>>,
}

impl Wish {
    /// These targets, and nothing else said.
    pub fn of(targets: Vec<StartTarget>) -> Self {
        Self {
            targets,
            transaction: None,
            wait: Wait::default(),
            on_running: OnRunning::default(),
            deadline: None,
            parameters: None,
        }
    }

    /// The request of who asked. `deadline`: how long it waits where the wish does not say.
    pub fn into_request(self, door: &'static str, requested_by: impl Into<String>, deadline: Duration) -> StartRequest {
        StartRequest {
            transaction: self.transaction,
            wait: self.wait,
            on_running: self.on_running,
            patience: self.deadline.unwrap_or(deadline),
            parameters: self.parameters,
            ..StartRequest::new(self.targets, door, requested_by)
        }
    }
}

/// Why a message cannot be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Stable word for programs, e.g. `unknown_field`.
    pub code: &'static str,
    /// Sentence for people.
    pub message: String,
    /// Its transaction, where that could be read, so that the asker knows which message is meant.
    pub transaction: Option<Value>,
}

fn problem(code: &'static str, message: impl Into<String>) -> Problem {
    Problem { code, message: message.into(), transaction: None }
}

/// Reads a start message.
///
/// # Errors
/// What is wrong with it; nothing of it may be started then.
pub fn parse(payload: &[u8]) -> Result<Wish, Problem> {
    if payload.len() > MAX_BYTES {
        let message = format!("the start message has {} bytes; at most {MAX_BYTES} are read", payload.len());
        return Err(problem("too_large", message));
    }
    let text = str::from_utf8(payload).map_err(|_| problem("not_text", "the start message is no UTF-8 text"))?;
    let text = trim(text);
    if text.is_empty() {
        return Err(problem("empty", "the start message is empty; it should be the id of a task, or a JSON object"));
    }
    match task_id(text) {
        Ok(id) => Ok(Wish::of(vec![StartTarget::Id(id)])),
        Err(_) if text.starts_with('{') => json(text),
        Err(problem) => Err(problem),
    }
}

/// Without white space and byte order marks around it.
fn trim(text: &str) -> &str {
    text.trim_matches(|character: char| character.is_whitespace() || character == '\u{feff}')
}

/// A task id, white space and one pair of braces around it allowed.
fn task_id(text: &str) -> Result<TaskId, Problem> {
    let text = trim(text);
    let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).map_or(text, trim);
    inner.parse().map_err(|error: crate::names::GuidError| problem("not_an_id", error.to_string()))
}

fn json(text: &str) -> Result<Wish, Problem> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        problem("bad_json", format!("the start message begins like a JSON object but is none: {error}"))
    })?;
    let Value::Object(fields) = value else {
        return Err(problem("bad_json", "the start message is no JSON object"));
    };
    let transaction = fields.get("transaction").filter(|value| !value.is_null()).cloned();
    match wish(&fields) {
        Ok(wish) => Ok(Wish { transaction, ..wish }),
        Err(problem) => Err(Problem { transaction, ..problem }),
    }
}

fn wish(fields: &Map<String, Value>) -> Result<Wish, Problem> {
    let (mut wish, mut found) = (Wish::of(Vec::new()), None);
    for (key, value) in fields {
        let targets = match key.as_str() {
            "taskId" => vec![id(key, value)?],
            "taskIds" => ids(key, value)?,
            "tag" => vec![StartTarget::Tag(text(key, value)?)],
            "customProperty" => vec![property(value)?],
            _ => {
                manner(&mut wish, key, value)?;
                continue;
            }
        };
        if found.replace(targets).is_some() {
            let why = "a start message has one of taskId, taskIds, tag and customProperty, not several";
            return Err(problem("bad_request", why));
        }
    }
    let targets = found.ok_or_else(|| {
        problem("bad_request", "the start message names no task: taskId, taskIds, tag or customProperty is needed")
    })?;
    Ok(Wish { targets, ..wish })
}

/// How it is to be done.
fn manner(wish: &mut Wish, key: &str, value: &Value) -> Result<(), Problem> {
    let one_of = |words: &str| problem("bad_request", format!("`{key}` may be {words}"));
    match (key, value.as_str()) {
        ("transaction", _) => {}
        ("wait", Some("started")) => wish.wait = Wait::Started,
        ("wait", Some("finished")) => wish.wait = Wait::Finished,
        ("wait", _) => return Err(one_of("\"started\" or \"finished\"")),
        ("onRunning", Some("skip")) => wish.on_running = OnRunning::Skip,
        ("onRunning", Some("queue")) => wish.on_running = OnRunning::Queue,
        ("onRunning", Some("start")) => wish.on_running = OnRunning::Start,
        ("onRunning", _) => return Err(one_of("\"skip\", \"queue\" or \"start\"")),
        ("deadlineSeconds", _) => {
            let seconds = value.as_u64().filter(|seconds| *seconds <= MAX_DEADLINE);
            let wrong = || one_of(&format!("a whole number of seconds from 0 (do not wait) to {MAX_DEADLINE}"));
            wish.deadline = Some(Duration::from_secs(seconds.ok_or_else(wrong)?));
        }
        ("parameters", _) => wish.parameters = Some(parameters(value)?),
        _ => {
            let why = format!("the start message has an unknown field `{}`", short(key));
            return Err(problem("unknown_field", why));
        }
    }
    Ok(())
}

fn parameters(value: &Value) -> Result<Map<String, Value>, Problem> {
    let wrong = |why: String| problem("bad_request", format!("`parameters` {why}"));
    let fields = value.as_object().filter(|fields| fields.len() <= MAX_PARAMETERS);
    let fields = fields
        .ok_or_else(|| wrong(format!("must be an object of at most {MAX_PARAMETERS} names with their values")))?;
    let is_name = |name: &&String| (1..=MAX_NAME).contains(&name.len()) && !name.chars().any(char::is_control);
    match fields.keys().find(|name| !is_name(name)) {
        Some(name) => Err(wrong(format!(
            "has the name `{}`; a name has 1 to {MAX_NAME} bytes and no control characters",
            short(&name.replace(char::is_control, "?"))
        ))),
        None => Ok(fields.clone()),
    }
}

fn id(key: &str, value: &Value) -> Result<StartTarget, Problem> {
    task_id(&text(key, value)?).map(StartTarget::Id)
}

fn ids(key: &str, value: &Value) -> Result<Vec<StartTarget>, Problem> {
    let list = value.as_array().filter(|list| !list.is_empty() && list.len() <= MAX_IDS);
    let list =
        list.ok_or_else(|| problem("bad_request", format!("`{key}` must be a list of 1 to {MAX_IDS} task ids")))?;
    list.iter().map(|value| id(key, value)).collect()
}

fn property(value: &Value) -> Result<StartTarget, Problem> {
    let wrong = || {
        problem("bad_request", "`customProperty` must be an object with the texts `name` and `value`, and nothing else")
    };
    let fields = value.as_object().filter(|fields| fields.len() == 2).ok_or_else(wrong)?;
    let (name, value) = (fields.get("name").ok_or_else(wrong)?, fields.get("value").ok_or_else(wrong)?);
    Ok(StartTarget::CustomProperty { name: text("name", name)?, value: text("value", value)? })
}

fn text(key: &str, value: &Value) -> Result<String, Problem> {
    let text = value.as_str().filter(|text| !text.is_empty());
    text.map(str::to_owned).ok_or_else(|| problem("bad_request", format!("`{key}` must be a text that is not empty")))
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "0000aaaa-0000-4000-8000-000000000001";

    fn target(text: &str) -> StartTarget {
        StartTarget::Id(text.parse().unwrap())
    }

    #[test]
    fn bare_ids() {
        let upper = ID.to_uppercase();
        let forms = [ID.to_owned(), upper, format!("\u{feff}{ID}\r\n"), format!(" {{{ID}}}\n"), format!("{{ {ID} }}")];
        for form in forms {
            assert_eq!(parse(form.as_bytes()), Ok(Wish::of(vec![target(ID)])), "{form:?}");
        }
    }

    #[test]
    fn objects() {
        let other = "0000cccc-0000-4000-8000-000000000002";
        let property = StartTarget::CustomProperty { name: "taskGroup".into(), value: "night".into() };
        let cases = [
            (json!({"taskId": ID}), vec![target(ID)], None),
            (json!({"taskIds": [ID, other], "transaction": 5}), vec![target(ID), target(other)], Some(json!(5))),
            (json!({"tag": "Tag One", "transaction": null}), vec![StartTarget::Tag("Tag One".into())], None),
            (
                json!({"customProperty": {"name": "taskGroup", "value": "night"}, "wait": "started"}),
                vec![property],
                None,
            ),
        ];
        for (object, targets, transaction) in cases {
            let wish = Wish { transaction, ..Wish::of(targets) };
            assert_eq!(parse(object.to_string().as_bytes()), Ok(wish), "{object}");
        }
    }

    #[test]
    fn how_it_is_to_be_done() {
        let object = json!({"taskId": ID, "wait": "finished", "onRunning": "queue", "deadlineSeconds": 5});
        let wish = parse(object.to_string().as_bytes()).unwrap();
        let deadline = Some(Duration::from_secs(5));
        assert_eq!((wish.wait, wish.on_running, wish.deadline), (Wait::Finished, OnRunning::Queue, deadline));
        assert_eq!(wish.parameters, None);
    }

    /// So many parameters.
    fn many(count: usize) -> Value {
        (0..count).map(|number| (number.to_string(), json!(number))).collect::<Map<_, _>>().into()
    }

    #[test]
    fn parameters_are_taken_as_they_are() {
        let several = json!({"from": "2026-11-01", "Größe": 7, "list": [1, {"a": null}], " ": "", "keyexists": true});
        let mut ran = 0;
        for parameters in [json!({}), several, json!({"n".repeat(MAX_NAME): 1}), many(MAX_PARAMETERS)] {
            let wish = parse(json!({"taskId": ID, "parameters": parameters}).to_string().as_bytes()).unwrap();
            let request = wish.into_request("mqtt", "plc", Duration::ZERO);
            assert_eq!(request.parameters.map(Value::Object), Some(parameters));
            ran += 1;
        }
        assert_eq!(ran, 4);
    }

    #[test]
    fn everything_else_says_what_is_wrong_and_keeps_the_transaction() {
        let cases = [
            (String::new(), "empty"),
            ("\u{feff} \n".into(), "empty"),
            ("abc".into(), "not_an_id"),
            (format!("{ID},{ID}"), "not_an_id"),
            (format!("{{{{{ID}}}}}"), "bad_json"),
            (format!("\"{ID}\""), "not_an_id"),
            (format!("[\"{ID}\"]"), "not_an_id"),
            ("{\"taskId\":".into(), "bad_json"),
            (json!({}).to_string(), "bad_request"),
            (json!({"taskId": 5}).to_string(), "bad_request"),
            (json!({"taskId": "x"}).to_string(), "not_an_id"),
            (json!({"taskIds": []}).to_string(), "bad_request"),
            (json!({"taskId": ID, "tag": "a"}).to_string(), "bad_request"),
            (json!({"customProperty": {"name": "a"}}).to_string(), "bad_request"),
            (json!({"customProperty": {"name": "a", "value": "b", "c": 1}}).to_string(), "bad_request"),
            (json!({"taskId": ID, "tsak": 1}).to_string(), "unknown_field"),
            (json!({"taskId": ID, "wait": 1}).to_string(), "bad_request"),
            (json!({"taskId": ID, "onRunning": "wait"}).to_string(), "bad_request"),
            (json!({"taskId": ID, "deadlineSeconds": -1}).to_string(), "bad_request"),
            (json!({"taskId": ID, "deadlineSeconds": MAX_DEADLINE + 1}).to_string(), "bad_request"),
            (json!({"taskId": ID, "deadlineSeconds": 0.5}).to_string(), "bad_request"),
            (json!({"taskId": ID, "parameters": null}).to_string(), "bad_request"),
            (json!({"taskId": ID, "parameters": ["a"]}).to_string(), "bad_request"),
            (json!({"taskId": ID, "parameters": {"": 1}}).to_string(), "bad_request"),
            (json!({"taskId": ID, "parameters": {"a\n": 1}}).to_string(), "bad_request"),
            (json!({"taskId": ID, "parameters": {"n".repeat(MAX_NAME + 1): 1}}).to_string(), "bad_request"),
            (json!({"taskId": ID, "parameters": many(MAX_PARAMETERS + 1)}).to_string(), "bad_request"),
            (json!({"parameters": {"a": 1}}).to_string(), "bad_request"),
            ("x".repeat(MAX_BYTES + 1), "too_large"),
        ];
        for (payload, code) in cases {
            assert_eq!(parse(payload.as_bytes()).unwrap_err().code, code, "{payload:.80}");
        }
        assert_eq!(parse(&[0xff, 0xfe, 0]).unwrap_err().code, "not_text");
        let wish = json!({"transaction": {"n": 1}, "taskId": ID, "onRunning": "sk"}).to_string();
        assert_eq!(parse(wish.as_bytes()).unwrap_err().transaction, Some(json!({"n": 1})));
    }
}
