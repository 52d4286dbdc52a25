//! The recordings of starts by REST, replayed through the handler: equal in status, body and tasks started, or the difference is listed
//! here with its reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "support/fake_qrs.rs"]
mod fake_qrs;

use std::collections::BTreeMap;

use fake_qrs::{FakeQrs, Mode, start_of, starter_of};
use sense_butler::{
    api::{
        answer::{Answer, JSON, Request},
        start_task::{StartTaskState, handle},
    },
    config::settings::{Generation, StartTaskFilter},
    keep::{
        Keep,
        values::{ValueSettings, Values},
    },
    names::TaskId,
    sense::qrs::Qrs,
};
use serde_json::{Value, json};

const NO_BODY: &str = "a start without a body is a start";
const ANY_CASE: &str = "ids are compared in lower case";
const NEEDED: &str = "an empty or missing tag, property, value or payload is refused";
const ONCE: &str = "the same task twice in one request is started once";
const HONEST: &str = "what QRS did not do is told in `errors`";
const ROUTE: &str = "a doubled slash is one slash, and then there is no such path";

const HEAD: &[(&str, &str)] = &[
    ("by id, no body", NO_BODY),
    ("by id, empty body with content-type", NO_BODY),
    ("by id, empty object", NO_BODY),
    ("dash no body", NO_BODY),
    ("id upper case", ANY_CASE),
    ("empty id", ROUTE),
    ("tag missing", NEEDED),
    ("cp no value", NEEDED),
    ("payload missing", NEEDED),
    ("tag twice", ONCE),
    ("kv missing value", NEEDED),
    ("QRS 500", HONEST),
    ("QRS start answers 404", HONEST),
];

const ITEMS: &str =
    "the items of the body count (5.4 looked at the path only), and what did not start is told in `errors`";
const STRICT: &str = "allTaskIdsMustExist means something (5.4 did not know it): true or false";
const READABLE: &str = "a body that is no JSON array is 400";

const V5_4: &[(&str, &str)] = &[
    ("by id, POST", "POST is accepted wherever PUT is"),
    ("id invalid", HONEST),
    ("id unknown", HONEST),
    ("dash, two ids", ITEMS),
    ("mix valid, invalid, unknown", ITEMS),
    ("mix with ?allTaskIdsMustExist=true", ITEMS),
    ("mix with ?allTaskIdsMustExist=false", ITEMS),
    ("mix with ?allTaskIdsMustExist=TRUE", STRICT),
    ("mix with ?alltaskidsmustexist=true", ITEMS),
    ("mix with ?allTaskIdsMustExist=", STRICT),
    ("all exist with must-exist", ITEMS),
    ("url id unknown, body valid, must-exist", ITEMS),
    ("tag hit", ITEMS),
    ("tag miss", ITEMS),
    ("tag with quote", ITEMS),
    ("tag unicode", ITEMS),
    ("tag missing", NEEDED),
    ("tag twice", ITEMS),
    ("cp hit", ITEMS),
    ("cp miss", ITEMS),
    ("cp no value", NEEDED),
    ("payload missing", NEEDED),
    ("body object not array", READABLE),
    ("text/plain", READABLE),
    ("kv missing value", NEEDED),
    ("QRS 500", HONEST),
    ("QRS start answers 404", HONEST),
];

fn request(method: &str, path: &str, body: &str) -> Request {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    Request {
        method: method.into(),
        // As the router hands it over.
        path: path.replace("//", "/"),
        query: query.into(),
        headers: Vec::new(),
        body: body.to_owned().into(),
        peer: "127.0.0.1:5000".parse().unwrap(),
        token: None,
        visit: None,
        lane: None,
    }
}

fn state(qrs: &FakeQrs, generation: Generation, filter: StartTaskFilter) -> StartTaskState {
    let mut registry = prometheus_client::registry::Registry::default();
    let keep = Keep::open(None, &mut registry).unwrap();
    let values = Values::open(&keep, ValueSettings::default(), &mut registry).unwrap();
    StartTaskState { generation, starter: starter_of(Qrs::new(&qrs.settings()), filter), values }
}

/// Ids of the tasks that started, in order of their ids: requests of one batch are under way together.
fn starts<'a>(calls: impl Iterator<Item = (&'a str, &'a str, u64)>) -> Vec<String> {
    let successful = calls.filter(|(_, _, status)| *status < 300).filter_map(|(method, url, _)| start_of(method, url));
    let mut ids: Vec<_> = successful.filter(|id| id.parse::<TaskId>().is_ok()).collect();
    ids.sort();
    ids
}

/// What differs between a recorded answer and ours. An error's wording is free; its fields are not.
fn difference(recorded: &Value, answer: &Answer) -> Option<String> {
    let body = std::str::from_utf8(&answer.body).unwrap();
    let (status, text) = (recorded["status"].as_u64().unwrap(), recorded["body"].as_str().unwrap());
    assert_eq!(answer.content_type, Some(JSON));
    if status != u64::from(answer.status) {
        return Some(format!("{status} became {}: {body}", answer.status));
    }
    let keys = |text: &str| -> Vec<String> {
        let object: Value = serde_json::from_str(text).unwrap();
        object.as_object().unwrap().keys().cloned().collect()
    };
    let equal = if status < 400 { text == body } else { keys(text) == keys(body) };
    (!equal).then(|| format!("{text} became {body}"))
}

fn agree(file: &str, differing: &BTreeMap<String, String>, listed: &[(&str, &str)]) {
    for (name, what) in differing {
        assert!(listed.iter().any(|(known, _)| known == name), "{file}: `{name}` differs and is not listed: {what}");
    }
    for (name, _) in listed {
        assert!(differing.contains_key(*name), "{file}: `{name}` is listed and does not differ");
    }
}

async fn replay(file: &str, text: &str, generation: Generation, listed: &[(&str, &str)], count: usize) {
    let recording: Value = serde_json::from_str(text).unwrap();
    let qrs = FakeQrs::start().await;
    let state = state(&qrs, generation, StartTaskFilter::default());
    let (mut ran, mut differing) = (0, BTreeMap::new());
    for case in recording["cases"].as_array().unwrap() {
        let (name, asked) = (case["name"].as_str().unwrap(), &case["request"]);
        let (method, path) = (asked["method"].as_str().unwrap(), asked["path"].as_str().unwrap());
        // GET never reaches the handler: the router's tests replay it.
        if case["group"] != "start" || !path.starts_with("/v4/reloadtask/") || method == "GET" {
            continue;
        }
        ran += 1;
        qrs.set(match name {
            "QRS 500" => Mode::AllFail,
            "QRS start answers 404" => Mode::StartNotFound,
            "QRS slow 800 ms" => Mode::Slow,
            _ => Mode::Well,
        });
        qrs.take_seen();
        let answer = handle(&state, &request(method, path, asked["body"].as_str().unwrap_or(""))).await;
        let seen = qrs.seen();
        let ours = starts(seen.iter().map(|seen| (&*seen.method, &*seen.url, u64::from(seen.status))));
        let recorded = case["qrs"].as_array().unwrap().iter();
        let theirs = starts(recorded.map(|call| {
            (call["method"].as_str().unwrap(), call["url"].as_str().unwrap(), call["status"].as_u64().unwrap())
        }));
        if let Some(what) = difference(&case["response"], &answer) {
            differing.insert(name.to_owned(), what);
        } else if ours != theirs {
            differing.insert(name.to_owned(), format!("starts {theirs:?} became {ours:?}"));
        }
    }
    assert_eq!(ran, count, "{file}");
    agree(file, &differing, listed);
}

#[tokio::test]
async fn recordings_of_head() {
    replay("head", include_str!("golden/rest_head.json"), Generation::Head, HEAD, 44).await;
}

#[tokio::test]
async fn recordings_of_v5_4() {
    replay("v5.4", include_str!("golden/rest_v540.json"), Generation::V5_4, V5_4, 44).await;
}

#[tokio::test]
async fn recordings_with_the_filter_on() {
    let recording: Value = serde_json::from_str(include_str!("golden/variants_head.json")).unwrap();
    let variants = recording["variants"].as_object().unwrap();
    let (_, cases) = variants.iter().find(|(name, _)| name.starts_with("startTaskFilter enabled")).unwrap();
    let filter = StartTaskFilter {
        enable: true,
        task_ids: vec!["0000aaaa-0000-4000-8000-000000000001".parse().unwrap()],
        tags: vec!["Tag One".into()],
        custom_properties: vec![("taskGroup".into(), "night".into())],
    };
    let qrs = FakeQrs::start().await;
    let state = state(&qrs, Generation::Head, filter);
    let (mut ran, mut differing) = (0, BTreeMap::new());
    // The last case is a start by MQTT, where Butler ignored the filter: see the tests of the action table.
    for case in cases.as_array().unwrap().iter().filter(|case| case["path"].is_string()) {
        ran += 1;
        let name = case["name"].as_str().unwrap();
        qrs.take_seen();
        let answer = handle(&state, &request("PUT", case["path"].as_str().unwrap(), &case["body"].to_string())).await;
        let mut theirs: Vec<_> = case["qrs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|call| call.as_str().unwrap().split_once(' ').unwrap())
            .filter_map(|(method, url)| start_of(method, url))
            .collect();
        theirs.sort();
        let mut ours = qrs.starts();
        ours.sort();
        if let Some(what) = difference(&case["response"], &answer) {
            differing.insert(name.to_owned(), what);
        } else if ours != theirs {
            differing.insert(name.to_owned(), format!("starts {theirs:?} became {ours:?}"));
        }
    }
    assert_eq!(ran, 11);
    agree("filter", &differing, &[]);
}

#[tokio::test]
async fn an_absent_qrs_is_503_with_the_fields_of_the_generation() {
    let qrs = FakeQrs::start().await;
    let states =
        [Generation::Head, Generation::V5_4].map(|generation| state(&qrs, generation, StartTaskFilter::default()));
    drop(qrs);
    let asked = request("PUT", "/v4/reloadtask/0000aaaa-0000-4000-8000-000000000001/start", "[]");
    for (state, expected) in
        states.iter().zip([vec!["statusCode", "code", "error", "message"], vec!["code", "message"]])
    {
        let answer = handle(state, &asked).await;
        assert_eq!(answer.status, 503);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), expected);
    }
    // Nothing is asked of QRS, so nothing fails.
    assert_eq!(handle(&states[0], &request("PUT", "/v4/reloadtask/-/start", "")).await.status, 200);
}

#[tokio::test]
async fn an_undecided_start_is_no_503_and_says_so() {
    let qrs = FakeQrs::start().await;
    qrs.set(Mode::BreakAfterStart);
    let state = state(&qrs, Generation::Head, StartTaskFilter::default());
    let id = "0000aaaa-0000-4000-8000-000000000001";
    let answer = handle(&state, &request("PUT", &format!("/v4/reloadtask/{id}/start"), "[]")).await;
    assert_eq!(answer.status, 200);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["tasksId"]["invalid"], json!([{"taskId": id}]));
    assert_eq!((&body["errors"][0]["taskId"], &body["errors"][0]["code"]), (&json!(id), &json!("undecided")));
    assert_eq!(body.as_object().unwrap().keys().next_back().unwrap(), "errors");
    assert_eq!(qrs.starts(), [id]);
}

#[tokio::test]
async fn pairs_are_stored_before_anything_starts_or_nothing_starts() {
    let qrs = FakeQrs::start().await;
    let id = "0000aaaa-0000-4000-8000-000000000001";
    let path = format!("/v4/reloadtask/{id}/start");
    let body = |value: &str| {
        json!([
            {"type": "keyvaluestore", "payload": {"namespace": "n", "key": "a", "value": "1", "ttl": 60_000}},
            {"type": "keyvaluestore", "payload": {"namespace": "n", "key": "b", "value": value}},
        ])
        .to_string()
    };
    let state = state(&qrs, Generation::Head, StartTaskFilter::default());
    assert_eq!(handle(&state, &request("PUT", &path, &body("2"))).await.status, 200);
    assert_eq!(qrs.starts(), [id]);
    assert_eq!(&*state.values.get("n", "b").unwrap().value, r#""2""#);
    assert_eq!(state.values.get("n", "a").unwrap().ttl, 60_000);
    qrs.take_seen();
    let large = "x".repeat(ValueSettings::default().max_value);
    let answer = handle(&state, &request("PUT", &path, &body(&large))).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert_eq!((qrs.starts().len(), &*state.values.get("n", "b").unwrap().value), (0, r#""2""#));
    let off = ValueSettings { offered: false, ..ValueSettings::default() };
    let mut registry = prometheus_client::registry::Registry::default();
    let values = Values::open(&Keep::open(None, &mut registry).unwrap(), off, &mut registry).unwrap();
    let answer = handle(&StartTaskState { values, ..state }, &request("PUT", &path, &body("2"))).await;
    assert_eq!((answer.status, qrs.starts().len()), (400, 0), "{answer:?}");
    assert!(str::from_utf8(&answer.body).unwrap().contains("restServerEndpointsEnable.keyValueStore"), "{answer:?}");
}
