//! What must hold for any text as a filter of the simulated repository, and for any name in a filter this program writes. Shared by the fuzz
//! target and by the unit tests; the parent module brings the names into scope.
//!
//! The first byte of the input chooses the kind of object, the rest is the filter, and a name of a tag.

use serde_json::{Value, json};

use super::{Filter, LONGEST, Schema, Written, percent_decode_str, schema, written};

const SCHEMAS: [&Schema; 9] = [
    schema::TASK,
    schema::APP,
    schema::RESULT,
    schema::SESSION,
    schema::TAG,
    schema::PROPERTY,
    schema::USER,
    schema::EVENT,
    schema::STREAM,
];

/// Judges; whether it is a filter.
pub fn judge(input: &[u8]) -> bool {
    let Some((kind, text)) = input.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(text) else { return false };
    name_is_only_itself(text);
    let schema = SCHEMAS.iter().cycle().nth(usize::from(*kind)).expect("a cycle");
    match Filter::parse(text, schema) {
        Ok(filter) => {
            again(&filter, schema);
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// Written and read again, a filter is the same, and lets the same pass.
fn again(filter: &Filter, schema: &Schema) {
    let text = filter.to_string();
    if text.len() > LONGEST {
        return;
    }
    let same = Filter::parse(&text, schema).unwrap_or_else(|error| panic!("`{text}` cannot be read: {error}"));
    assert_eq!(*filter, same, "`{text}`");
    assert_eq!(text, same.to_string());
    for object in [task(), Value::Null, json!([{}]), json!({ "tags": null, "name": ["a"], "app": { "id": 1 } })] {
        assert_eq!(filter.matches(&object), same.matches(&object), "`{text}` {object}");
    }
    let paths = ["id", "modifiedDate", "name"];
    assert_eq!(filter.among(&paths), same.among(&paths));
    assert_eq!(filter.not_before(&paths), same.not_before(&paths));
}

/// A filter for a tag this program writes finds that tag, and none that is called otherwise.
fn name_is_only_itself(name: &str) {
    let Ok(written) = Written::tag(name) else { return };
    let encoded = written.encoded();
    assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%-._~".contains(&byte)), "{encoded}");
    let text = percent_decode_str(&encoded).decode_utf8().expect("UTF-8");
    let filter = Filter::parse(&text, schema::TASK).expect("what this program writes can be read");
    let tagged = |name: &str| json!({ "tags": [{ "name": name }] });
    assert!(filter.matches(&tagged(name)));
    for other in [format!("{name}x"), format!("x{name}"), String::new(), "mqtt' or '".to_owned()] {
        let same = other.to_lowercase() == name.to_lowercase();
        assert_eq!(filter.matches(&tagged(&other)), same, "{name:?} finds {other:?}");
    }
    assert!(name.chars().count() <= written::MAX_TEXT);
}

fn task() -> Value {
    json!({
        "id": "5a1e5000-0000-4000-8000-000000000001",
        "name": "Reload O'Neill's \\ Größe",
        "enabled": true,
        "taskType": 0,
        "modifiedDate": "2024-05-01T10:00:00.000Z",
        "app": null,
        "tags": [{ "name": "mqtt" }, { "name": "Nightly" }],
    })
}
