//! Starting tasks through the starter against a fake repository service: at most once, duplicates, refusals, honest words on failures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/fake_qrs.rs"]
mod fake_qrs;

use fake_qrs::{FakeQrs, Mode, starter_of};
use sense_butler::{
    config::settings::StartTaskFilter,
    sense::{
        qrs::{Qrs, QrsError, QrsHealth},
        tasks::{
            Starter,
            request::{Redelivery, StartRequest, StartStatus, StartTarget},
        },
    },
};
use serde_json::json;

const ONE: &str = "0000aaaa-0000-4000-8000-000000000001";
const TWO: &str = "0000cccc-0000-4000-8000-000000000002";
const UNKNOWN: &str = "deadbeef-0000-4000-8000-000000000001";

fn ids(ids: &[&str]) -> Vec<StartTarget> {
    ids.iter().map(|id| StartTarget::Id(id.parse().unwrap())).collect()
}

fn request(targets: Vec<StartTarget>) -> StartRequest {
    StartRequest::new(targets, "mqtt", "plc-7")
}

async fn site() -> (FakeQrs, Starter) {
    let qrs = FakeQrs::start().await;
    let starter = starter_of(Qrs::new(&qrs.settings()), StartTaskFilter::default());
    (qrs, starter)
}

#[tokio::test]
async fn tasks_start_and_the_answer_names_them() {
    let (qrs, starter) = site().await;
    qrs.set(Mode::StartOk);
    let report = starter.start(request(ids(&[ONE, UNKNOWN, TWO, ONE]))).await;
    let words: Vec<_> = report.outcomes.iter().map(|o| (o.status, o.task_name.as_deref())).collect();
    assert_eq!(
        words,
        [
            (StartStatus::Started, Some("Reload task 0000aaaa")),
            (StartStatus::UnknownTask, None),
            (StartStatus::Started, Some("Reload task 0000cccc")),
        ]
    );
    assert!(report.outcomes[0].execution_id.is_some());
    let mut starts = qrs.starts();
    starts.sort();
    assert_eq!(starts, [ONE, TWO]);
    assert!(qrs.seen().iter().all(|seen| seen.user.as_deref() == Some("UserDirectory=Internal;UserId=sa_repository")));
}

#[tokio::test]
async fn tags_and_properties_are_checked_again_exactly() {
    let (qrs, starter) = site().await;
    let property = |name: &str, value: &str| StartTarget::CustomProperty { name: name.into(), value: value.into() };
    let report = starter.start(request(vec![StartTarget::Tag("Tag One".into()), property("taskGroup", "night")])).await;
    assert_eq!(report.outcomes.iter().filter(|o| o.status == StartStatus::Started).count(), 3);
    qrs.take_seen();
    // The fake, like the real service, finds these; they do not match exactly.
    for target in
        [StartTarget::Tag("tag one".into()), property("taskGroup", "x"), StartTarget::Tag("O'Hara & co? #1".into())]
    {
        let report = starter.start(request(vec![target])).await;
        let codes: Vec<_> = report.outcomes.iter().map(|o| o.error.as_ref().unwrap().code.clone()).collect();
        assert_eq!(codes, ["no_match"]);
    }
    assert!(qrs.starts().is_empty());
    assert_eq!(qrs.seen().len(), 3);
}

#[tokio::test]
async fn a_transaction_is_carried_out_once_also_when_it_comes_twice_at_a_time() {
    let (qrs, starter) = site().await;
    qrs.set(Mode::Slow);
    let wish = StartRequest { transaction: Some(json!({"order": 7})), ..request(ids(&[ONE])) };
    let (first, second) = tokio::join!(starter.start(wish.clone()), starter.start(wish.clone()));
    qrs.set(Mode::Well);
    let third = starter.start(wish.clone()).await;
    assert_eq!((first.duplicate, second.duplicate, third.duplicate), (false, true, true));
    assert!(first.outcomes == second.outcomes && first.outcomes == third.outcomes);
    assert_eq!(qrs.starts(), [ONE]);
    let other = StartRequest { requested_by: "plc-8".into(), ..wish };
    assert!(!starter.start(other).await.duplicate);
    assert_eq!(qrs.starts(), [ONE, ONE]);
}

#[tokio::test]
async fn a_redelivery_is_a_duplicate_only_when_the_network_says_so() {
    let (qrs, starter) = site().await;
    let mark = |repeated| Some(Redelivery { mark: "plc-7/5/x".into(), repeated });
    let wish = |repeated| StartRequest { redelivery: mark(repeated), ..request(ids(&[ONE])) };
    assert!(!starter.start(wish(true)).await.duplicate, "its first delivery was never seen");
    assert!(starter.start(wish(true)).await.duplicate);
    assert!(!starter.start(wish(false)).await.duplicate, "the packet id is used again");
    assert_eq!(qrs.starts().len(), 2);
}

#[tokio::test]
async fn an_answer_that_never_came_leaves_the_start_unknown_and_is_not_repeated() {
    let (qrs, starter) = site().await;
    qrs.set(Mode::BreakAfterStart);
    let report = starter.start(request(ids(&[ONE]))).await;
    assert_eq!(report.outcomes[0].status, StartStatus::Unknown);
    assert_eq!(report.outcomes[0].error.as_ref().unwrap().code, "undecided");
    assert_eq!(qrs.starts(), [ONE]);
}

#[tokio::test]
async fn connections_that_went_stale_cost_no_start_and_repeat_none() {
    let (qrs, starter) = site().await;
    qrs.set(Mode::CloseAfterAnswer);
    for round in 1..=20 {
        let report = starter.start(request(ids(&[ONE]))).await;
        let status = report.outcomes[0].status;
        // The POST may meet the connection that closes under it: then it is honest about it.
        assert!(matches!(status, StartStatus::Started | StartStatus::Unknown), "{report:?}");
        assert!(qrs.starts().len() <= round);
    }
}

#[tokio::test]
async fn what_qrs_says_decides_the_word() {
    let cases = [
        (Mode::ZeroId, StartStatus::NotStarted, "not_started", true),
        (Mode::StartNotFound, StartStatus::UnknownTask, "qrs_refused", true),
        (Mode::AllFail, StartStatus::Unreachable, "qrs_refused", false),
        (Mode::Refuse, StartStatus::Unreachable, "qrs_refused", false),
        (Mode::LoginPage, StartStatus::Unreachable, "qrs_unreachable", false),
    ];
    for (mode, status, code, healthy) in cases {
        let qrs = FakeQrs::start().await;
        qrs.set(mode);
        let client = Qrs::new(&qrs.settings());
        let starter = starter_of(client.clone(), StartTaskFilter::default());
        let outcome = starter.start(request(ids(&[ONE]))).await.outcomes.remove(0);
        assert_eq!((outcome.status, &*outcome.error.unwrap().code), (status, code), "{mode:?}");
        assert_eq!(client.health().is_ok(), healthy, "{mode:?}: {}", client.health().sentence());
    }
}

#[tokio::test]
async fn an_absent_qrs_is_unreachable_and_found_again_when_it_is_there() {
    let (qrs, _) = site().await;
    let mut settings = qrs.settings();
    drop(qrs);
    let client = Qrs::new(&settings);
    assert_eq!(client.health(), QrsHealth::Untried);
    let starter = starter_of(client.clone(), StartTaskFilter::default());
    let outcome = starter.start(request(ids(&[ONE]))).await.outcomes.remove(0);
    assert_eq!(outcome.status, StartStatus::Unreachable);
    assert!(
        matches!(client.health(), QrsHealth::Failing { error: QrsError::Connect { .. }, .. }),
        "{:?}",
        client.health()
    );
    settings.host = None;
    let outcome = starter_of(Qrs::new(&settings), StartTaskFilter::default()).start(request(ids(&[ONE]))).await;
    assert!(outcome.outcomes[0].error.as_ref().unwrap().message.contains("configQRS.host"));
}

#[tokio::test]
async fn stopping_ends_what_is_under_way_and_refuses_the_rest() {
    let (qrs, starter) = site().await;
    qrs.set(Mode::Slow);
    let asking = starter.clone();
    let under_way = tokio::spawn(async move { asking.start(request(ids(&[ONE]))).await });
    while qrs.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(starter.stop(std::time::Duration::from_secs(5)).await);
    assert_eq!(under_way.await.unwrap().outcomes[0].status, StartStatus::Started);
    let late = starter.start(request(ids(&[TWO]))).await;
    assert_eq!(late.outcomes[0].error.as_ref().unwrap().code, "stopping");
    assert_eq!(qrs.starts(), [ONE]);
}

#[tokio::test]
async fn the_watch_finds_an_answering_qrs_and_ends_when_told() {
    let qrs = FakeQrs::start().await;
    let (client, stop) = (Qrs::new(&qrs.settings()), tokio_util::sync::CancellationToken::new());
    let watching = tokio::spawn(client.clone().watch(stop.clone()));
    while !client.health().is_ok() {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    watching.await.unwrap();
    assert_eq!(qrs.seen().first().map(|seen| seen.url.clone()).as_deref(), Some("/qrs/about"));
}

#[tokio::test]
async fn what_happens_is_counted_under_its_names() {
    let qrs = FakeQrs::start().await;
    let client = Qrs::new(&qrs.settings());
    let starter = starter_of(client.clone(), StartTaskFilter::default());
    let wish = StartRequest { transaction: Some(json!(1)), ..request(ids(&[ONE, UNKNOWN])) };
    starter.start(wish.clone()).await;
    starter.start(wish).await;
    let mut registry = prometheus_client::registry::Registry::default();
    client.metrics().register(&mut registry);
    starter.metrics().register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        r#"sense_butler_qrs_requests_total{op="find_task",result="ok"} 2"#,
        r#"sense_butler_qrs_requests_total{op="start",result="ok"} 1"#,
        r#"sense_butler_qrs_request_duration_seconds_count{op="start"} 1"#,
        r#"sense_butler_task_starts_total{door="mqtt",status="started"} 1"#,
        r#"sense_butler_task_starts_total{door="mqtt",status="unknown_task"} 1"#,
        "sense_butler_task_start_duplicates_total 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}
