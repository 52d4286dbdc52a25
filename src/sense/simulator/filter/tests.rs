//! The filter language, by example and by chance.

use percent_encoding::percent_decode_str;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Filter, FilterError, LONGEST, MOST_NESTING, Schema, schema};
use crate::sense::qrs::filter::{self as written, Filter as Written};

// The fuzz target and these tests ask for the same.
#[path = "../../../../fuzz/fuzz_targets/filter_holds.rs"]
mod filter_holds;

fn task() -> Value {
    json!({
        "id": "5a1e5000-0000-4000-8000-000000000001",
        "name": "Reload O'Neill's \\ Größe",
        "enabled": true,
        "maxRetries": 2,
        "taskType": 0,
        "modifiedDate": "2024-05-01T10:00:00.000Z",
        "app": null,
        "tags": [{ "name": "mqtt" }, { "name": "Nightly" }],
        "customProperties": [{ "value": "yes", "definition": { "name": "Start" } }],
    })
}

fn passes(filter: &str) -> bool {
    Filter::parse(filter, schema::TASK).unwrap_or_else(|error| panic!("{filter}: {error}")).matches(&task())
}

#[test]
fn expressions_mean_what_they_say() {
    let cases = [
        ("name eq 'reload o\\'neill\\'s \\\\ GRÖSSE'", false),
        ("name eq 'reload o\\'neill\\'s \\\\ GRÖßE'", true),
        ("name sw 'reload'", true),
        ("name ew 'größe'", true),
        ("name so 'NEILL'", true),
        ("name so ''", true),
        ("name eq ''", false),
        ("name ne 'x'", true),
        ("NAME gt 'r' and name lt 's'", true),
        ("Tags.Name eq 'NIGHTLY'", true),
        ("tags.name eq 'x'", false),
        ("customProperties.definition.name eq 'start' and customProperties.value eq 'YES'", true),
        ("id eq 5A1E5000-0000-4000-8000-000000000001", true),
        ("id ne 5a1e5000-0000-4000-8000-000000000001", false),
        ("enabled eq true", true),
        ("enabled EQ False", false),
        ("maxRetries ge 2 and maxRetries le 2", true),
        ("maxRetries gt 2", false),
        ("taskType eq Reload", true),
        ("taskType eq 3", false),
        ("modifiedDate gt '2024-05-01T09:59:59.999Z'", true),
        ("modifiedDate gt '2024-05-01'", true),
        ("modifiedDate lt '2024-05-01T12:00:00+02:00'", false),
        ("app.id eq 5a1e5000-0000-4000-8000-000000000001", false),
        ("app.id ne 5a1e5000-0000-4000-8000-000000000001", false),
        ("enabled eq false and enabled eq false or enabled eq true", true),
        ("enabled eq false and (enabled eq false or enabled eq true)", false),
        ("((enabled eq true))", true),
    ];
    assert_eq!(cases.len(), 28);
    for (filter, expected) in cases {
        assert_eq!(passes(filter), expected, "{filter}");
    }
}

#[test]
fn what_is_no_expression_is_refused() {
    let cannot = [
        "",
        "name",
        "name eq",
        "name eq x",
        "name eq 'x",
        "name eq 'Q1''25'",
        "name eq \"x\"",
        "name eq 'x' y",
        "name eq 'x' and",
        "name eq 'trailing\\'",
        "name eq 'a\\b'",
        "(name eq 'x'",
        "name eq 'x')",
        "id eq '5a1e5000-0000-4000-8000-000000000001'",
        "id eq 5a1e5000",
        "id sw 5a1e5000-0000-4000-8000-000000000001",
        "enabled eq 'true'",
        "enabled gt true",
        "maxRetries eq two",
        "taskType eq Nothing",
        "modifiedDate gt 'yesterday'",
        "name eq 'x'and enabled eq true",
        "name like 'x'",
    ];
    assert_eq!(cannot.len(), 23);
    for filter in cannot {
        let expected = Err(FilterError::CannotParse(filter.to_owned()));
        assert_eq!(Filter::parse(filter, schema::TASK), expected, "{filter}");
    }
    assert_eq!(Filter::parse("()", schema::TASK).unwrap_err().to_string(), "Invalid expression");
    assert_eq!(Filter::parse("enabled eq true and ()", schema::TASK), Err(FilterError::EmptyGroup));
    let unknown = Filter::parse("colour eq 'red'", schema::TASK);
    assert_eq!(unknown, Err(FilterError::UnknownProperty("colour".to_owned())));
}

#[test]
fn nesting_and_length_are_bounded() {
    let nested = |depth: usize| format!("{}enabled eq true{}", "(".repeat(depth), ")".repeat(depth));
    assert!(passes(&nested(MOST_NESTING)));
    assert!(Filter::parse(&nested(MOST_NESTING + 1), schema::TASK).is_err());
    assert!(Filter::parse(&"(".repeat(60_000), schema::TASK).is_err());
    let long = vec!["enabled eq true"; 3_000].join(" and ");
    assert!(passes(&long));
    assert!(Filter::parse(&vec!["enabled eq true"; 10_000].join(" and "), schema::TASK).is_err());
}

#[test]
fn ids_are_pinned_only_where_nothing_else_can_pass() {
    let pin = |filter: &str| {
        let filter = Filter::parse(filter, schema::TASK).unwrap();
        filter.among(&["id", "app.id"]).map(|ids| ids.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let (id, other) = ("5a1e5000-0000-4000-8000-000000000001", "5a1e5000-0000-4000-8000-000000000002");
    let one = Some(vec![id.to_owned()]);
    assert_eq!(pin(&format!("id eq {id}")), one);
    assert_eq!(pin(&format!("enabled eq true and ID eq {}", id.to_uppercase())), one);
    assert_eq!(pin(&format!("id eq {id} or id eq {other}")), Some(vec![id.to_owned(), other.to_owned()]));
    assert_eq!(pin(&format!("(id eq {id}) or (app.id eq {other})")), Some(vec![id.to_owned(), other.to_owned()]));
    assert_eq!(pin(&format!("(id eq {id} or enabled eq true) and id eq {id}")), one);
    assert_eq!(pin(&format!("id eq {id} or enabled eq true")), None);
    assert_eq!(pin(&format!("id ne {id}")), None);
    assert_eq!(pin("name eq 'id'"), None);
}

#[test]
fn the_earliest_date_that_can_pass_is_known() {
    let bound = |filter: &str| {
        let filter = Filter::parse(filter, schema::TASK).unwrap();
        filter.not_before(&["modifiedDate", "createdDate"]).map(str::to_owned)
    };
    let (may, june) = ("2024-05-01T00:00:00.000Z", "2024-06-01T00:00:00.000Z");
    assert_eq!(bound("modifiedDate gt '2024-05-01'").as_deref(), Some(may));
    assert_eq!(bound("modifiedDate ge '2024-05-01' and createdDate ge '2024-06-01'").as_deref(), Some(june));
    assert_eq!(bound("modifiedDate ge '2024-05-01' or createdDate ge '2024-06-01'").as_deref(), Some(may));
    assert_eq!(bound("modifiedDate ge '2024-05-01' or enabled eq true"), None);
    assert_eq!(bound("modifiedDate lt '2024-05-01'"), None);
}

/// As a careful client writes a string: backslash first, then the quote.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

#[test]
fn a_filter_is_written_with_no_more_parentheses_than_it_needs() {
    let cases = [
        ("((enabled eq TRUE))", "enabled eq true"),
        ("NAME eq 'O\\'Neill'  and(maxRetries ge +2)", "name eq 'o\\'neill' and maxRetries ge 2"),
        ("enabled eq true and (name eq '\\\\' or name eq '')", "enabled eq true and (name eq '\\\\' or name eq '')"),
        ("(enabled eq true and name so 'a') or taskType eq Reload", "enabled eq true and name so 'a' or taskType eq 0"),
        ("(name sw 'a' or name ew 'b') or name ne 'c'", "(name sw 'a' or name ew 'b') or name ne 'c'"),
        ("modifiedDate lt '2024-05-01T12:00:00+02:00'", "modifiedDate lt '2024-05-01T10:00:00.000Z'"),
    ];
    assert_eq!(cases.len(), 6);
    for (filter, expected) in cases {
        assert_eq!(Filter::parse(filter, schema::TASK).unwrap().to_string(), expected);
    }
    assert!(Filter::parse("modifiedDate gt '0000-01-01T00:00:00+23:59'", schema::TASK).is_err(), "before year 0");
}

#[test]
fn the_seeds_of_the_fuzz_target_hold() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/filters");
    let seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let filters = seeds.iter().filter(|seed| filter_holds::judge(&std::fs::read(seed).unwrap())).count();
    assert_eq!((seeds.len(), filters), (16, 12));
}

proptest! {
    #[test]
    fn any_text_holds(kind in 0_u8..9, text in ".{0,200}") {
        filter_holds::judge(&[&[kind], text.as_bytes()].concat());
    }

    #[test]
    fn whatever_looks_like_a_filter_holds(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "name", "id", "tags.name", "eq", "ne", "so", "and", "or", "(", ")", "'x'", "''", "'", "\\", "true", "7",
                "5a1e5000-0000-4000-8000-000000000001", "modifiedDate", "'9999-12-31T23:59:59-23:59'", "enabled",
            ]),
            0..40,
        )
    ) {
        filter_holds::judge(format!("\0{}", words.join(" ")).as_bytes());
    }

    #[test]
    fn every_filter_is_read_again_as_it_was_written(
        comparisons in prop::collection::vec(
            prop_oneof![
                r"name (eq|ne|gt|ge|lt|le|sw|ew|so) '([^'\\]|\\'|\\\\){0,8}'",
                "(id|app\\.id|tags\\.ID) (eq|NE) [0-9a-fA-F]{8}(-[0-9a-f]{4}){3}-[0-9A-F]{12}",
                "modifiedDate (gt|le) '[0-9]{4}-(0[1-9]|1[0-2])-[0-2][0-9](T[01][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,9})?(Z|[+-][0-2][0-9]:00)?)?'",
                "maxRetries (eq|lt) [+-]?[0-9]{1,19}",
                "(enabled|isPartialReload) (eq|ne) (true|FALSE)",
            ],
            1..12,
        ),
        groups in prop::collection::vec((0_usize..12, 0_usize..12), 0..6),
        any in prop::collection::vec(any::<bool>(), 12),
    ) {
        let mut parts = comparisons;
        for (from, length) in groups {
            if from + length < parts.len() {
                let inner: Vec<String> = parts.splice(from..=from + length, ["".to_owned()]).collect();
                parts[from] = format!("({})", inner.join(if length % 2 == 0 { " and " } else { " or " }));
            }
        }
        let joined = parts.iter().zip(any).map(|(part, any)| format!("{part} {} ", if any { "or" } else { "and" }));
        let text: String = joined.collect();
        let text = text.trim_end_matches(" or ").trim_end_matches(" and ");
        filter_holds::judge(format!("\0{text}").as_bytes());
    }

    #[test]
    fn any_string_comes_through_escaped(name in any::<String>()) {
        let filter = Filter::parse(&format!("name eq '{}'", escaped(&name)), schema::TASK).unwrap();
        let object = json!({ "name": name });
        prop_assert!(filter.matches(&object));
    }

    #[test]
    fn no_escaped_string_widens_a_filter(name in any::<String>()) {
        let filter = Filter::parse(&format!("name eq '{}'", escaped(&name)), schema::TASK).unwrap();
        let object = json!({ "name": format!("{name}x") });
        prop_assert!(!filter.matches(&object));
    }
}
