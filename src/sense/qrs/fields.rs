//! Reading single fields of QRS's JSON objects.
//!
//! Invariant: a field that is missing, oddly typed, or holds QRS's word for "none" (the zero id, the years 1753 and 9999) is `None`, never an
//! error. Names are compared without regard to case: versions write `executionID` and `executionId`.

use std::str::FromStr;

use serde_json::Value;
use time::{OffsetDateTime, PrimitiveDateTime, format_description::well_known::Rfc3339, macros::format_description};
use uuid::Uuid;

/// A date before this year is QRS's "no date" (1753-01-01), one from the next on "never" (9999-…).
const NONE_UNTIL: i32 = 1753;
const NEVER_FROM: i32 = 9999;

/// The value of a field.
pub fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.get(name).or_else(|| {
        let mut fields = object.as_object()?.iter();
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    })
}

/// A text; an empty one is `None`.
pub fn text(object: &Value, name: &str) -> Option<String> {
    field(object, name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// An id; the zero id is `None`.
pub fn id<T: FromStr>(object: &Value, name: &str) -> Option<T> {
    let text = field(object, name)?.as_str()?;
    Uuid::try_parse(text).ok().filter(|id| !id.is_nil())?;
    text.parse().ok()
}

/// A whole number.
pub fn number(object: &Value, name: &str) -> Option<i64> {
    field(object, name)?.as_i64()
}

/// `true` or `false`.
pub fn flag(object: &Value, name: &str) -> Option<bool> {
    field(object, name)?.as_bool()
}

/// A moment, UTC.
pub fn date(object: &Value, name: &str) -> Option<OffsetDateTime> {
    let text = field(object, name)?.as_str()?;
    let without_zone = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok().or_else(|| {
        let whole_seconds = text.split('.').next()?;
        PrimitiveDateTime::parse(whole_seconds, without_zone).ok().map(PrimitiveDateTime::assume_utc)
    })?;
    (NONE_UNTIL + 1..NEVER_FROM).contains(&moment.year()).then_some(moment)
}

/// The members of a list.
pub fn items<'a>(object: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    field(object, name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::names::TaskId;

    #[test]
    fn dates_and_their_absence() {
        let cases = [
            (json!("2024-05-01T10:00:00.123Z"), Some(datetime!(2024-05-01 10:00:00.123 UTC))),
            (json!("2024-05-01T12:00:00+02:00"), Some(datetime!(2024-05-01 10:00:00 UTC))),
            (json!("2024-05-01T10:00:00.123"), Some(datetime!(2024-05-01 10:00:00 UTC))),
            (json!("1753-01-01T00:00:00.000Z"), None),
            (json!("0001-01-01T00:00:00.000Z"), None),
            (json!("9999-12-31T23:59:59.999Z"), None),
            (json!("9999-01-01T00:00:00.000Z"), None),
            (json!("yesterday"), None),
            (json!(""), None),
            (json!(5), None),
            (json!(null), None),
        ];
        assert_eq!(cases.len(), 11);
        for (value, expected) in cases {
            assert_eq!(date(&json!({ "at": value }), "at"), expected, "{value}");
        }
        assert_eq!(date(&json!({}), "at"), None);
    }

    #[test]
    fn names_match_in_any_case_and_none_is_none() {
        let object = json!({
            "taskID": "5A1E5000-0000-4000-8000-000000000001", "appID": "00000000-0000-0000-0000-000000000000",
            "name": "", "enabled": "true", "duration": 12.5, "list": [1, 2],
        });
        let task: Option<TaskId> = id(&object, "taskId");
        assert_eq!(task.map(|id| id.to_string()).as_deref(), Some("5a1e5000-0000-4000-8000-000000000001"));
        assert_eq!(id::<TaskId>(&object, "appID"), None);
        assert_eq!((text(&object, "name"), flag(&object, "enabled"), number(&object, "duration")), (None, None, None));
        assert_eq!(
            (items(&object, "list").count(), items(&object, "name").count(), items(&json!(7), "x").count()),
            (2, 0, 0)
        );
    }
}
