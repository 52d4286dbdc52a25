//! The filter language, by example and by chance.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Filter, FilterError, MOST_NESTING, schema};

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

proptest! {
    #[test]
    fn nothing_makes_it_panic(filter in ".{0,200}") {
        let _ = Filter::parse(&filter, schema::TASK).map(|filter| filter.matches(&task()));
    }

    #[test]
    fn nothing_that_looks_like_a_filter_makes_it_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "name", "id", "tags.name", "eq", "ne", "so", "and", "or", "(", ")", "'x'", "''", "'", "\\", "true", "7",
                "5a1e5000-0000-4000-8000-000000000001", "modifiedDate", "'9999-12-31T23:59:59-23:59'", "enabled",
            ]),
            0..40,
        )
    ) {
        let _ = Filter::parse(&words.join(" "), schema::TASK).map(|filter| filter.matches(&task()));
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
