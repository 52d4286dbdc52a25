//! The one place where a QRS filter is written: every string of a caller is checked, escaped and encoded here, and nowhere else.
//!
//! The Qlik Sense Repository Service takes `filter=<expression>` with strings in single quotes. Its escape character is the backslash
//! (a doubled quote is a parse error there). Invariants: no character of a caller's text can end the quoted string; the whole
//! expression is percent-encoded but for RFC 3986's unreserved characters, so `& # + %` in a name cannot cut the query.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use time::{OffsetDateTime, UtcOffset, format_description::BorrowedFormatItem, macros::format_description};

use crate::names::{AppId, ExecutionId, TaskId};

/// Longest name of a tag or custom property, and longest value, in characters.
pub const MAX_TEXT: usize = 256;

/// Everything but `A-Z a-z 0-9 - . _ ~`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A moment as QRS writes it, in UTC. Cut to milliseconds, so that a filter from this moment on misses nothing of it.
const DATE: &[BorrowedFormatItem<'_>] =
    format_description!("'[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z'");

/// Why a text cannot stand in a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Nothing to compare with.
    #[error("the {what} is empty; write the name as the QMC shows it")]
    Empty {
        /// What was to be compared, e.g. `tag`.
        what: &'static str,
    },
    /// Longer than [`MAX_TEXT`].
    #[error("the {what} has {length} characters; at most {MAX_TEXT} are possible")]
    TooLong {
        /// What was to be compared.
        what: &'static str,
        /// Its length in characters.
        length: usize,
    },
    /// Tabs, line ends and the like.
    #[error("the {what} contains the control character U+{code:04X}; remove it")]
    Control {
        /// What was to be compared.
        what: &'static str,
        /// The character.
        code: u32,
    },
}

/// A filter expression of QRS, not yet percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(String);

impl Filter {
    /// The task with this id.
    pub fn task(id: TaskId) -> Self {
        Self(format!("id eq {id}"))
    }

    /// The app with this id.
    pub fn app(id: AppId) -> Self {
        Self(format!("id eq {id}"))
    }

    /// Tasks with a tag. QRS compares without regard to case: check again what it answers.
    ///
    /// # Errors
    /// If no tag can have that name.
    pub fn tag(name: &str) -> Result<Self, FilterError> {
        Ok(Self(format!("tags.name eq {}", quoted("tag", name)?)))
    }

    /// Tasks with a value of a custom property. QRS does not promise that name and value belong to the same property: check again what
    /// it answers.
    ///
    /// # Errors
    /// If no custom property can have that name or value.
    pub fn custom_property(name: &str, value: &str) -> Result<Self, FilterError> {
        let name = quoted("name of the custom property", name)?;
        let value = quoted("value of the custom property", value)?;
        let name = Self(format!("customProperties.definition.name eq {name}"));
        Ok(name.and(Self(format!("customProperties.value eq {value}"))))
    }

    /// Tasks whose name contains a text, whatever its case.
    ///
    /// # Errors
    /// If no name can contain it.
    pub fn name_part(part: &str) -> Result<Self, FilterError> {
        Ok(Self(format!("name so {}", quoted("part of the name", part)?)))
    }

    /// Any of these tasks; `None`: there are none.
    pub fn tasks(ids: &[TaskId]) -> Option<Self> {
        Self::any(ids.iter().map(|id| format!("id eq {id}")))
    }

    /// Executions under way of a task, by the properties that may refer to it (`reloadTask`, …); `None`: there are none.
    pub fn sessions_of(task: TaskId, references: &[&'static str]) -> Option<Self> {
        Self::any(references.iter().map(|property| format!("{property}.id eq {task}")))
    }

    /// Any of these executions, as long as it is under way; `None`: there are none.
    pub fn executions_under_way(ids: &[ExecutionId]) -> Option<Self> {
        Self::any(ids.iter().map(|id| format!("id eq {id}")))
    }

    /// Attempts of any of these executions; `None`: there are none.
    pub fn attempts(ids: &[ExecutionId]) -> Option<Self> {
        Self::any(ids.iter().map(|id| format!("ExecutionId eq {id}")))
    }

    /// Attempts of a task created since a moment.
    pub fn attempts_of(task: TaskId, since: OffsetDateTime) -> Self {
        Self(format!("TaskId eq {task}")).and(Self(format!("createdDate ge {}", date(since))))
    }

    /// What changed after a moment, and up to another.
    pub fn modified(after: OffsetDateTime, until: Option<OffsetDateTime>) -> Self {
        let after = Self(format!("modifiedDate gt {}", date(after)));
        match until {
            None => after,
            Some(until) => after.and(Self(format!("modifiedDate le {}", date(until)))),
        }
    }

    /// What passes both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(format!("({}) and ({})", self.0, other.0))
    }

    fn any(comparisons: impl Iterator<Item = String>) -> Option<Self> {
        let all: Vec<String> = comparisons.collect();
        match all.as_slice() {
            // An empty group is an error there, and would have to find nothing anyway.
            [] => None,
            [only] => Some(Self(only.clone())),
            all => Some(Self(format!("({})", all.join(") or (")))),
        }
    }

    /// The expression, ready to stand in a query.
    pub fn encoded(&self) -> String {
        utf8_percent_encode(&self.0, ENCODED).to_string()
    }
}

/// The moment as a quoted date of QRS's filter language.
fn date(moment: OffsetDateTime) -> String {
    // Years no calendar of QRS has cannot be written; the beginning of its calendar leaves nothing out.
    moment.to_offset(UtcOffset::UTC).format(DATE).unwrap_or_else(|_| "'1753-01-01T00:00:00.000Z'".to_owned())
}

/// The text as a quoted string of QRS's filter language.
fn quoted(what: &'static str, text: &str) -> Result<String, FilterError> {
    let length = text.chars().count();
    if length == 0 {
        return Err(FilterError::Empty { what });
    }
    if length > MAX_TEXT {
        return Err(FilterError::TooLong { what, length });
    }
    if let Some(control) = text.chars().find(|character| character.is_control()) {
        return Err(FilterError::Control { what, code: u32::from(control) });
    }
    // The backslash first: the other way round, `\'` of the caller would become an escaped backslash and a closing quote.
    Ok(format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'")))
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;
    use crate::sense::simulator::filter as simulator;

    /// QRS's side: the text of a quoted string and what follows it.
    fn read_quoted(input: &str) -> Option<(String, &str)> {
        let mut text = String::new();
        let mut rest = input.strip_prefix('\'')?.chars();
        loop {
            match rest.next()? {
                '\'' => return Some((text, rest.as_str())),
                '\\' => text.push(rest.next()?),
                other => text.push(other),
            }
        }
    }

    #[test]
    fn names_with_syntax_in_them() {
        let filter = Filter::tag(r"O'Hara & co? #1 \ + %41").unwrap();
        assert_eq!(filter.0, r"tags.name eq 'O\'Hara & co? #1 \\ + %41'");
        assert_eq!(filter.encoded(), "tags.name%20eq%20%27O%5C%27Hara%20%26%20co%3F%20%231%20%5C%5C%20%2B%20%2541%27");
        let id: TaskId = "0000AAAA-0000-4000-8000-000000000001".parse().unwrap();
        assert_eq!(Filter::task(id).encoded(), "id%20eq%200000aaaa-0000-4000-8000-000000000001");
    }

    #[test]
    fn texts_that_cannot_be_names_are_refused() {
        assert_eq!(Filter::tag(""), Err(FilterError::Empty { what: "tag" }));
        assert_eq!(Filter::tag("a\nb"), Err(FilterError::Control { what: "tag", code: 10 }));
        assert_eq!(Filter::tag("\u{85}"), Err(FilterError::Control { what: "tag", code: 0x85 }));
        assert!(Filter::tag(&"å".repeat(256)).is_ok());
        assert_eq!(Filter::tag(&"å".repeat(257)), Err(FilterError::TooLong { what: "tag", length: 257 }));
        assert!(Filter::custom_property("group", "").is_err());
        assert!(Filter::custom_property("", "night").is_err());
    }

    #[test]
    fn lists_of_ids_and_spans_of_time() {
        use time::macros::datetime;

        let (one, other) = (ExecutionId::from_u128(1), ExecutionId::from_u128(2));
        let text = |filter: Option<Filter>| filter.unwrap().0;
        assert_eq!(
            text(Filter::attempts(&[one, other])),
            "(ExecutionId eq 00000000-0000-0000-0000-000000000001) or (ExecutionId eq 00000000-0000-0000-0000-000000000002)"
        );
        assert!(
            Filter::attempts(&[]).is_none()
                && Filter::tasks(&[]).is_none()
                && Filter::executions_under_way(&[]).is_none()
        );
        let (after, until) = (datetime!(2024-05-01 12:00:00.123_456 +02:00), datetime!(2024-05-02 00:00 UTC));
        assert_eq!(
            Filter::modified(after, Some(until)).0,
            "(modifiedDate gt '2024-05-01T10:00:00.123Z') and (modifiedDate le '2024-05-02T00:00:00.000Z')"
        );
        assert_eq!(
            Filter::modified(datetime!(-9000-01-01 0:00 UTC), None).0.len(),
            "modifiedDate gt '-9000-01-01T00:00:00.000Z'".len()
        );
    }

    /// Texts with everything that means something on the way: quotes, escapes, separators of addresses, words of the language.
    fn hostile() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "'",
            "\\",
            "\\'",
            "''",
            "&",
            "#",
            "%",
            "%27",
            "%5c",
            "%00",
            "+",
            "=",
            "?",
            "/",
            ";",
            ",",
            "(",
            ")",
            "()",
            "\"",
            " ",
            "  ",
            " or ",
            " and ",
            "name",
            " ne ",
            "' or name ne '",
            "\\' or name ne \\'",
            "') or (name ne '",
            "x",
            "Nightly",
            "Größe",
            "日本",
            "🤪",
            "ſ",
            "K",
            "\u{feff}",
            "\u{2028}",
            "\u{202e}",
            "<",
            ">",
            "{",
            "}",
            "|",
            "^",
            "~",
            "`",
            "xrfkey=0123456789abcdef",
        ]);
        prop_oneof![
            prop::collection::vec(pieces, 1..12).prop_map(|pieces| pieces.concat()),
            any::<String>(),
            "\\PC{1,40}"
        ]
    }

    /// What the simulated repository makes of a query: the expression after it was decoded and understood.
    fn understood(filter: &Filter, schema: &simulator::Schema) -> simulator::Filter {
        let query = format!("filter={}&xrfkey=0123456789abcdef", filter.encoded());
        // Nothing of the text may look like another parameter, a fragment or an escape of its own.
        let (name, value) = query.split_once('&').unwrap().0.split_once('=').unwrap();
        assert_eq!((name, query.matches(['&', '#']).count()), ("filter", 1));
        let decoded = percent_decode_str(value).decode_utf8().unwrap();
        assert_eq!(decoded, filter.0);
        simulator::Filter::parse(&decoded, schema).unwrap_or_else(|error| panic!("{decoded}: {error}"))
    }

    fn tagged(tag: &str) -> serde_json::Value {
        serde_json::json!({ "id": "5a1e5000-0000-4000-8000-000000000001", "name": tag, "tags": [{ "name": tag }],
            "customProperties": [{ "value": tag, "definition": { "name": tag } }] })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// The promise: whatever a caller writes, it finds what bears exactly that name (in any case) and nothing else, or is refused.
        #[test]
        fn no_text_widens_a_filter(text in hostile(), other in hostile()) {
            let may_stand = !text.is_empty() && text.chars().count() <= MAX_TEXT && !text.chars().any(char::is_control);
            let filters = [Filter::tag(&text), Filter::custom_property(&text, &text), Filter::name_part(&text)];
            prop_assert!(filters.iter().all(|filter| filter.is_ok() == may_stand));
            let same = text.to_lowercase() == other.to_lowercase();
            for (number, filter) in filters.into_iter().flatten().enumerate() {
                let understood = understood(&filter, simulator::schema::TASK);
                prop_assert!(understood.matches(&tagged(&text)));
                let expected = if number < 2 { same } else { other.to_lowercase().contains(&text.to_lowercase()) };
                prop_assert_eq!(understood.matches(&tagged(&other)), expected);
            }
        }

        #[test]
        fn no_text_reaches_out_of_its_part_of_a_conjunction(name in hostile(), tag in hostile(), property in hostile()) {
            let parts = [Filter::name_part(&name), Filter::tag(&tag), Filter::custom_property(&property, &property)];
            let Ok(parts) = parts.into_iter().collect::<Result<Vec<_>, _>>() else { return Ok(()) };
            let all = parts.into_iter().reduce(Filter::and).unwrap();
            let nobody = serde_json::json!({ "name": "", "tags": [], "customProperties": [] });
            prop_assert!(!understood(&all, simulator::schema::TASK).matches(&nobody));
        }

        #[test]
        fn ids_and_dates_are_understood(number in any::<u128>(), more in prop::collection::vec(any::<u128>(), 1..50), millis in 0i64..4_000_000_000_000) {
            let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000 + 999_999).unwrap();
            let ids: Vec<ExecutionId> = more.iter().map(|number| ExecutionId::from_u128(*number)).collect();
            let task = TaskId::from_u128(number);
            understood(&Filter::sessions_of(task, &crate::sense::qrs::kinds::REFERENCES).unwrap(), simulator::schema::SESSION);
            understood(&Filter::executions_under_way(&ids).unwrap(), simulator::schema::SESSION);
            let attempts = understood(&Filter::attempts(&ids).unwrap(), simulator::schema::RESULT);
            for id in &ids {
                let row = serde_json::json!({ "executionID": id.to_string() });
                prop_assert!(attempts.matches(&row));
            }
            let row = serde_json::json!({ "taskID": task.to_string(), "createdDate": at.format(DATE).unwrap().trim_matches('\'') });
            prop_assert!(understood(&Filter::attempts_of(task, at), simulator::schema::RESULT).matches(&row), "what is created in this millisecond is found");
            understood(&Filter::modified(at, Some(at)), simulator::schema::RESULT);
        }

        #[test]
        fn any_name_comes_back_as_it_was(name in "\\PC{1,60}") {
            prop_assume!(!name.chars().any(char::is_control));
            let encoded = Filter::tag(&name).unwrap().encoded();
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
            let decoded = percent_decode_str(&encoded).decode_utf8().unwrap().into_owned();
            let (text, rest) = read_quoted(decoded.strip_prefix("tags.name eq ").unwrap()).unwrap();
            prop_assert_eq!(text, name);
            prop_assert_eq!(rest, "");
        }

        #[test]
        fn no_name_or_value_reaches_into_the_other(name in "[\\\\' a)(=]{1,20}", value in "[\\\\' a)(=]{1,20}") {
            let filter = Filter::custom_property(&name, &value).unwrap().0;
            let (first, rest) = read_quoted(filter.strip_prefix("(customProperties.definition.name eq ").unwrap()).unwrap();
            let (second, end) = read_quoted(rest.strip_prefix(") and (customProperties.value eq ").unwrap()).unwrap();
            prop_assert_eq!((first, second, end), (name, value, ")"));
        }
    }
}
