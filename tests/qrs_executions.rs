//! Following executions, searching, chains, subscriptions and script logs: against the simulated site, and against answers made by hand where
//! servers of other versions (or faulty ones) answer otherwise.
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

use std::time::Duration;

use fake_qrs::{FakeQrs, Mode};
use sense_butler::{
    config::settings::{QrsSettings, QrsVerify},
    names::{ExecutionId, ResultId, TaskId},
    sense::{
        qrs::{Attempt, ChainOn, ChangeType, ExecutionStatus, Qrs, QrsError, StartReply, TaskSearch, TaskType},
        simulator::{Simulator, SimulatorError, SimulatorSettings, SiteSource, Transport},
    },
};
use serde_json::{Value, json};
use time::{OffsetDateTime, macros::datetime};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

const SALES: &str = "5a1e5000-0000-4000-8000-000000000001";
const RETRIED: &str = "5a1e5000-0000-4000-8000-00000000000d";
const SLOW: &str = "5a1e5000-0000-4000-8000-000000000007";
const ONE: &str = "0000aaaa-0000-4000-8000-000000000001";

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// A simulated site without TLS that does nothing by itself, and a client of it.
struct Site {
    qrs: Qrs,
    stop: CancellationToken,
    running: JoinHandle<Result<(), SimulatorError>>,
}

impl Site {
    async fn start(user: &str) -> Self {
        Self::of(SiteSource::default(), user).await
    }

    async fn of(site: SiteSource, user: &str) -> Self {
        let settings = SimulatorSettings {
            qrs: vec!["127.0.0.1:0".parse().unwrap()],
            control: None,
            seed: Some(1),
            speed: 20.0,
            rate: 0.0,
            transport: Transport::Plain,
            site,
            ..SimulatorSettings::new(std::env::temp_dir())
        };
        let simulator = Simulator::bind(settings).await.unwrap();
        let address = simulator.addresses().qrs[0];
        let stop = CancellationToken::new();
        let running = tokio::spawn(simulator.run(stop.clone()));
        let settings = QrsSettings {
            host: Some(address.ip().to_string()),
            port: address.port(),
            use_tls: false,
            headers: vec![("X-Qlik-User".into(), format!("UserDirectory=LAB; UserId={user}"))],
            client_cert: None,
            client_key: None,
            ca: None,
            verify: QrsVerify::Ca { name: None },
            further: Vec::new(),
        };
        Self { qrs: Qrs::new(&settings), stop, running }
    }

    async fn started(&self, task: &str) -> ExecutionId {
        match self.qrs.start(id(task)).await.unwrap() {
            StartReply::Started(Some(execution)) => execution,
            other => panic!("{other:?}"),
        }
    }

    /// Polls until the session is gone; the states seen on the way.
    async fn until_done(&self, execution: ExecutionId) -> Vec<ExecutionStatus> {
        let mut seen = Vec::new();
        let polling = async {
            while let [session] = self.qrs.sessions(&[execution]).await.unwrap().as_slice() {
                assert_eq!(session.id, execution);
                if !seen.contains(&session.status.unwrap()) {
                    seen.push(session.status.unwrap());
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), polling).await.expect("the execution ends");
        seen
    }

    async fn finish(self) {
        self.stop.cancel();
        timeout(Duration::from_secs(5), self.running).await.expect("stops in time").unwrap().unwrap();
    }
}

#[tokio::test]
async fn executions_of_the_simulated_site_are_followed_to_their_end() {
    let site = Site::start("goran").await;
    let before = OffsetDateTime::now_utc() - Duration::from_secs(3600);
    let execution = site.started(SALES).await;
    let under_way = site.qrs.sessions_of(id(SALES)).await.unwrap();
    assert_eq!(under_way.iter().map(|session| session.id).collect::<Vec<_>>(), [execution]);
    assert_eq!((under_way[0].task, under_way[0].abort_reason), (Some(id(SALES)), 0));
    assert!(site.qrs.sessions_of(id(SLOW)).await.unwrap().is_empty());
    site.until_done(execution).await;
    assert!(site.qrs.sessions_of(id(SALES)).await.unwrap().is_empty());
    let attempts = site.qrs.attempts(&[execution]).await.unwrap();
    let attempt = attempts.last().unwrap();
    assert_eq!((attempt.execution, attempt.task), (Some(execution), Some(id(SALES))));
    assert_eq!(attempt.status, ExecutionStatus::FinishedSuccess);
    assert!(attempt.status.is_final() && attempt.started < attempt.stopped && attempt.duration_ms.unwrap() > 0);
    assert!(attempt.app.is_some() && attempt.node.is_some() && attempt.created <= attempt.modified);
    assert!(attempt.details.iter().any(|line| line.contains("FinishedSuccess")), "{:?}", attempt.details);
    assert_eq!(site.qrs.attempt(attempt.id).await.unwrap().as_ref(), Some(attempt));
    assert_eq!(site.qrs.attempt(ResultId::from_u128(7)).await.unwrap(), None);
    assert_eq!(site.qrs.attempts_of(id(SALES), before).await.unwrap(), attempts);
    let later = attempt.created.unwrap() + Duration::from_secs(1);
    assert!(site.qrs.attempts_of(id(SALES), later).await.unwrap().is_empty());
    site.finish().await;
}

#[tokio::test]
async fn retries_have_several_attempts_and_a_stopped_task_ends_as_aborted() {
    let site = Site::start("goran").await;
    let retried = site.started(RETRIED).await;
    let slow = site.started(SLOW).await;
    site.qrs.stop_task(id(SLOW)).await.unwrap();
    site.until_done(slow).await;
    site.until_done(retried).await;
    let attempts = site.qrs.attempts(&[retried, slow]).await.unwrap();
    assert!(attempts.is_sorted_by_key(|attempt| attempt.created), "oldest first");
    let of = |execution| {
        attempts
            .iter()
            .filter(move |attempt| attempt.execution == Some(execution))
            .map(|a| a.status)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(slow), [ExecutionStatus::Aborted]);
    let retried = of(retried);
    assert_eq!((retried.len(), retried.last()), (3, Some(&ExecutionStatus::FinishedSuccess)), "{retried:?}");

    // Polling, a few at a time, meets every attempt.
    let (mut since, mut met) = (OffsetDateTime::UNIX_EPOCH, Vec::new());
    loop {
        let some = site.qrs.attempts_modified_after(since, 2).await.unwrap();
        assert!(some.is_sorted_by_key(|attempt| attempt.modified));
        let Some(last) = some.last().and_then(|last| last.modified) else { break };
        assert!(last > since);
        since = last;
        met.extend(some.into_iter().map(|attempt| attempt.id));
    }
    met.sort();
    met.dedup();
    assert_eq!(met.len(), attempts.len());
    site.finish().await;
}

#[tokio::test]
async fn tasks_are_found_by_name_tag_and_property() {
    let site = Site::start("goran").await;
    let search = |name: Option<&str>, tag: Option<&str>, property: Option<(&str, &str)>| TaskSearch {
        name: name.map(str::to_owned),
        tag: tag.map(str::to_owned),
        property: property.map(|(name, value)| (name.to_owned(), value.to_owned())),
    };
    let all = site.qrs.search_tasks(&TaskSearch::default(), 1_000).await.unwrap();
    assert!(all.len() >= 12 && all.is_sorted_by_key(|task| task.name.to_lowercase()));
    assert_eq!(site.qrs.search_tasks(&TaskSearch::default(), 3).await.unwrap(), all[..3]);
    let cases = [
        (
            search(Some("SALES"), None, None),
            all.iter().filter(|task| task.name.to_lowercase().contains("sales")).count(),
        ),
        (search(Some("größe & m"), None, None), 1),
        (search(Some(r"C# \ 日本 100%"), None, None), 1),
        (search(None, Some("Director's"), None), 1),
        (search(None, Some("director's"), None), 0),
        (search(None, None, Some(("StartBy", "mqtt"))), 2),
        (search(None, None, Some(("StartBy", "MQTT"))), 0),
        (search(Some("sales"), None, Some(("StartBy", "mqtt"))), 1),
        (search(Some("' or name ne '"), None, None), 0),
        (search(None, Some(r"\' or name ne \'"), None), 0),
    ];
    assert_eq!(cases.len(), 10);
    for (wanted, expected) in cases {
        let found = site.qrs.search_tasks(&wanted, 100).await.unwrap();
        assert_eq!(found.len(), expected, "{wanted:?}: {found:?}");
    }
    let error = site.qrs.search_tasks(&search(Some("a\u{7}b"), None, None), 5).await.unwrap_err();
    assert!(matches!(error, QrsError::Filter(_)), "{error:?}");

    let sales = site.qrs.task_info(id(SALES)).await.unwrap().unwrap();
    assert_eq!((sales.name.as_str(), sales.enabled, sales.task_type), ("Reload Sales", true, TaskType::Reload));
    assert_eq!((sales.app.unwrap().name.as_str(), sales.last, sales.next_execution), ("Sales", None, None));
    let execution = site.started(SALES).await;
    site.until_done(execution).await;
    let last = site.qrs.task_info(id(SALES)).await.unwrap().unwrap().last.unwrap();
    assert_eq!(last.status, ExecutionStatus::FinishedSuccess);
    assert!(last.started < last.stopped && last.node.is_some());
    assert_eq!(site.qrs.task_info(id(ONE)).await.unwrap(), None);
    site.finish().await;
}

#[tokio::test]
async fn a_user_who_sees_no_task_is_a_standing_warning() {
    for (user, sees_nothing) in [("reader", true), ("goran", false)] {
        let site = Site::start(user).await;
        let stop = CancellationToken::new();
        let watching = tokio::spawn(site.qrs.clone().watch(stop.clone()));
        let asked = async {
            while site.qrs.metrics().calls("count", "ok") == 0 || (sees_nothing && site.qrs.warning().is_none()) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), asked).await.unwrap();
        stop.cancel();
        watching.await.unwrap();
        let warning = site.qrs.warning().unwrap_or_default();
        assert_eq!(warning.contains("not a single task"), sees_nothing, "{user}: {warning}");
        site.finish().await;
    }
}

/// Of the simulated site's description with one word replaced.
fn described(from: &str, to: &str) -> SiteSource {
    let text = include_str!("../config/simulator.yaml");
    assert!(text.contains(from), "{from}");
    SiteSource::Text(text.replace(from, to))
}

#[tokio::test]
async fn script_logs_of_the_simulated_site_come_by_whichever_interface_it_has() {
    for interface in ["old", "new", "both"] {
        let site = Site::of(described("api: both", &format!("api: {interface}")), "goran").await;
        let execution = site.started(SALES).await;
        site.until_done(execution).await;
        let attempt = site.qrs.attempts(&[execution]).await.unwrap().remove(0);
        let log = site.qrs.script_log(id(SALES), &attempt, 5).await.unwrap().expect(interface);
        assert!((1..=5).contains(&log.len()) && log.iter().all(|line| !line.is_empty()), "{interface}: {log:?}");
        site.finish().await;
    }
}

#[tokio::test]
async fn chains_of_the_simulated_site_are_told() {
    let site = Site::start("goran").await;
    let links = site.qrs.next_in_chain(id("5a1e5000-0000-4000-8000-000000000002")).await.unwrap();
    let told: Vec<_> = links.iter().map(|link| (link.name.as_str(), link.on)).collect();
    assert_eq!(
        told,
        [
            ("Clean up (after a failed Finanzübersicht)", ChainOn::Failure),
            ("Reload finance figures (after Finanzübersicht)", ChainOn::Success)
        ]
    );
    assert!(links.iter().all(|link| link.enabled && !link.trigger.is_empty()));
    assert!(site.qrs.next_in_chain(id(ONE)).await.unwrap().is_empty());
    let handle = site.qrs.subscribe_changes("http://127.0.0.1:9/qrs/secret", ChangeType::Update).await.unwrap();
    site.qrs.unsubscribe_changes(handle).await.unwrap();
    site.finish().await;
}

fn result(number: u8, execution: &str, status: Value) -> Value {
    json!({
        "id": format!("5a1e5000-0000-4000-9000-0000000000{number:02x}"), "executionID": execution, "taskID": ONE,
        "status": status, "startTime": "2024-05-01T10:00:00.000Z", "stopTime": "1753-01-01T00:00:00.000Z", "duration": 1500,
        "createdDate": format!("2024-05-01T10:00:{number:02}.000Z"), "modifiedDate": format!("2024-05-01T10:00:{:02}.500Z", number / 2),
        "fileReferenceID": "00000000-0000-0000-0000-000000000000", "executingNodeName": "",
    })
}

#[tokio::test]
async fn what_a_list_has_too_little_or_too_much_costs_only_its_own_entry() {
    let fake = FakeQrs::start().await;
    let qrs = Qrs::new(&fake.settings());
    let execution = "5a1e5000-0000-4000-a000-000000000001";
    let strange = json!([
        result(9, execution, json!(99)),
        { "id": "no id", "status": 7 },
        { "id": "5a1e5000-0000-4000-9000-000000000070" },
        null,
        7,
        { "id": "5a1e5000-0000-4000-9000-000000000071", "status": 8, "details": "none", "duration": -5, "startTime": 7 },
        result(2, execution, json!(10)),
    ]);
    fake.script("GET", "/executionresult/full", 200, strange.to_string());
    let attempts = qrs.attempts(&[id(execution)]).await.unwrap();
    assert_eq!(attempts.len(), 3);
    assert_eq!(qrs.metrics().skipped("results"), 4);
    let bare = &attempts[0];
    assert_eq!((bare.created, bare.execution, bare.duration_ms, bare.started), (None, None, None, None));
    assert!(bare.details.is_empty() && !bare.script_log_available);
    let (retried, unknown) = (&attempts[1], &attempts[2]);
    assert_eq!((retried.status, unknown.status), (ExecutionStatus::Retry, ExecutionStatus::Other(99)));
    assert_eq!((retried.stopped, retried.file_reference.as_deref(), retried.node.as_deref()), (None, None, None));
    assert_eq!(retried.started, Some(datetime!(2024-05-01 10:00 UTC)));

    fake.script(
        "GET",
        "/executionsession",
        200,
        json!([{ "id": execution, "reloadTask": null }, { "id": 5 }]).to_string(),
    );
    let sessions = qrs.sessions(&[id(execution)]).await.unwrap();
    assert_eq!((sessions.len(), sessions[0].task, sessions[0].status), (1, None, None));
    assert_eq!(qrs.metrics().skipped("sessions"), 1);
}

#[tokio::test]
async fn many_ids_go_in_several_calls_and_none_in_none() {
    let fake = FakeQrs::start().await;
    let qrs = Qrs::new(&fake.settings());
    fake.script("GET", "/executionsession", 200, "[]");
    fake.script("GET", "/executionresult/full", 200, "[]");
    let ids: Vec<ExecutionId> = (1..=120).map(ExecutionId::from_u128).collect();
    assert!(qrs.sessions(&ids).await.unwrap().is_empty() && qrs.attempts(&ids).await.unwrap().is_empty());
    assert!(qrs.sessions(&[]).await.unwrap().is_empty() && qrs.attempts(&[]).await.unwrap().is_empty());
    let seen = fake.take_seen();
    let counts: Vec<usize> = seen.iter().map(|seen| seen.whole.matches(" eq ").count()).collect();
    assert_eq!(counts, [50, 50, 20, 50, 50, 20]);
    for id in &ids {
        assert_eq!(seen.iter().filter(|seen| seen.whole.contains(&id.to_string())).count(), 2, "{id}");
    }
}

#[tokio::test]
async fn polling_loses_nothing_where_the_limit_falls_among_equals() {
    let fake = FakeQrs::start().await;
    let qrs = Qrs::new(&fake.settings());
    // Changes at 0, 1, 1, 2, 2, 3, 3, ... seconds.
    let rows: Vec<Value> = (1..=9).map(|number| result(number, ONE, json!(7))).collect();
    fake.script("GET", "/executionresult/full", 200, json!(rows).to_string());
    for (limit, expected) in [(0, 0), (1, 1), (2, 3), (3, 3), (4, 5), (100, 9)] {
        let found = qrs.attempts_modified_after(datetime!(2024-05-01 0:00 UTC), limit).await.unwrap();
        assert_eq!(found.len(), expected, "{limit}");
    }
}

/// More than one answer may hold: the time is halved until the oldest fit.
#[tokio::test]
async fn what_does_not_fit_into_one_answer_is_asked_for_in_parts() {
    let fake = FakeQrs::start().await;
    let qrs = Qrs::new(&fake.settings());
    let rows = json!([result(1, ONE, json!(7)), result(2, ONE, json!(7))]).to_string();
    fake.script_times("GET", "modifiedDate le ", 200, vec![b' '; (64 << 20) + 1], 1);
    fake.script("GET", "modifiedDate le ", 200, rows);
    fake.script("GET", "modifiedDate gt ", 200, vec![b' '; (64 << 20) + 1]);
    let found = qrs.attempts_modified_after(datetime!(2024-05-01 0:00 UTC), 10).await.unwrap();
    assert_eq!((found.len(), fake.seen().len()), (2, 3));
    // Still no span when the long answer has come, however long that takes.
    let soon = OffsetDateTime::now_utc() + Duration::from_secs(600);
    let error = qrs.attempts_modified_after(soon, 10).await.unwrap_err();
    assert!(matches!(error, QrsError::TooMuch { .. }), "what is shorter than a second is not halved: {error:?}");
}

#[tokio::test]
async fn a_task_that_was_looked_up_is_asked_for_by_its_kind() {
    let fake = FakeQrs::start().await;
    let qrs = Qrs::new(&fake.settings());
    assert!(qrs.sessions_of(id(ONE)).await.unwrap().is_empty());
    qrs.task(id(ONE)).await.unwrap().unwrap();
    assert!(qrs.sessions_of(id(ONE)).await.unwrap().is_empty());
    let asked: Vec<String> = fake.seen().into_iter().map(|seen| seen.url).collect();
    let three = format!(
        "/qrs/executionsession?filter=(reloadTask.id eq {ONE}) or (externalProgramTask.id eq {ONE}) or (userSyncTask.id eq {ONE})"
    );
    let one = format!("/qrs/executionsession?filter=reloadTask.id eq {ONE}");
    assert_eq!((&asked[0], &asked[2], asked.len()), (&three, &one, 3));
    let foreign = json!([{ "id": SALES, "reloadTask": { "id": SALES } }]);
    fake.script("GET", "/executionsession", 200, foreign.to_string());
    assert!(qrs.sessions_of(id(ONE)).await.unwrap().is_empty(), "another task's session is not taken for this one's");
}

#[tokio::test]
async fn chains_and_subscriptions() {
    let fake = FakeQrs::start().await;
    let qrs = Qrs::new(&fake.settings());
    let next = "0000bbbb-0000-4000-8000-000000000001";
    let rule = |task: &str, state: i64| json!({ "ruleState": state, "reloadTask": { "id": task, "name": "rule" } });
    let events = json!([
        { "eventType": 0, "name": "nightly", "enabled": true, "reloadTask": { "id": ONE, "name": "head" } },
        { "eventType": 1, "name": "on failure", "enabled": false, "userSyncTask": { "id": next, "name": "z last", "enabled": true },
            "compositeRules": [rule(ONE, 2)] },
        { "eventType": 1, "name": "on success", "enabled": true, "reloadTask": { "id": next, "name": "A first", "enabled": true },
            "compositeRules": [rule(ONE, 1), rule(SALES, 1)] },
        { "eventType": 1, "name": "of another", "enabled": true, "reloadTask": { "id": ONE, "name": "head" }, "compositeRules": [rule(next, 1)] },
        "nonsense",
    ]);
    fake.script("GET", "/event/full", 200, events.to_string());
    let links = qrs.next_in_chain(id(ONE)).await.unwrap();
    let told: Vec<_> = links.iter().map(|link| (link.name.as_str(), link.on, link.enabled, link.also.len())).collect();
    assert_eq!(told, [("A first", ChainOn::Success, true, 1), ("z last", ChainOn::Failure, false, 0)]);
    assert_eq!(links[0].also[0].task, id::<TaskId>(SALES));

    fake.script("POST", "/notification?name=ExecutionResult&changetype=2", 201, format!(r#"{{"value":"{ONE}"}}"#));
    fake.script("DELETE", &format!("/notification?handle={ONE}"), 204, "");
    let callback = r#"http://butler:8080/qrs/"se\cret"#;
    let handle = qrs.subscribe_changes(callback, ChangeType::Update).await.unwrap();
    qrs.unsubscribe_changes(handle).await.unwrap();
    let seen = fake.take_seen();
    let body = &seen.iter().find(|seen| seen.method == "POST").unwrap().body;
    assert_eq!(serde_json::from_str::<String>(body).unwrap(), callback, "a JSON string");
    assert_eq!(seen.last().unwrap().method, "DELETE");
    // A handle QRS forgot at its restart is none.
    qrs.unsubscribe_changes("0000cccc-0000-4000-8000-000000000001".parse().unwrap()).await.unwrap();
    assert!(qrs.subscribe_changes(callback, ChangeType::Add).await.is_err());
    assert!(qrs.health().is_ok());
}

fn attempt(file: Option<&str>, available: bool) -> Attempt {
    Attempt {
        id: id("5a1e5000-0000-4000-9000-000000000001"),
        execution: None,
        task: Some(id(ONE)),
        app: None,
        status: ExecutionStatus::FinishedFail,
        started: None,
        stopped: None,
        duration_ms: None,
        node: None,
        modified: None,
        modified_by: None,
        created: None,
        script_log_available: available,
        file_reference: file.map(str::to_owned),
        details: Vec::new(),
    }
}

const FILE: &str = "0000ffff-0000-4000-8000-000000000001";
const TICKET: &str = r#"{"value":"0000dddd-0000-4000-8000-000000000001"}"#;
const DOWNLOAD: &str = "/download/reloadtask/0000dddd-0000-4000-8000-000000000001/scriptlog.txt";

#[tokio::test]
async fn both_interfaces_to_script_logs_are_used_and_the_one_that_works_is_remembered() {
    let log = "20240501T100000.000Z 0001  LET x = 1\r\n20240501T100001.000Z 0002  Error: Table not found\r\nExecution Failed\r\n";
    let last = ["20240501T100001.000Z 0002  Error: Table not found", "Execution Failed"];
    for (path, other) in
        [("scriptlogfile?executionResultId=", "scriptlog?"), ("scriptlog?fileReferenceId=", "scriptlogfile?")]
    {
        let fake = FakeQrs::start().await;
        let qrs = Qrs::new(&fake.settings());
        fake.script("GET", path, 200, TICKET);
        fake.script_times("GET", DOWNLOAD, 404, "Not found", 1);
        fake.script("GET", DOWNLOAD, 200, log);
        let attempt = attempt(Some(FILE), true);
        assert_eq!(qrs.script_log(id(ONE), &attempt, 2).await.unwrap().unwrap(), last, "{path}");
        fake.take_seen();
        assert_eq!(qrs.script_log(id(ONE), &attempt, 9).await.unwrap().unwrap().len(), 3);
        let seen = fake.take_seen();
        assert!(seen.iter().all(|seen| !seen.whole.contains(other)), "{seen:?}");
        assert!(qrs.health().is_ok(), "a log that is not there yet is no trouble");
    }
}

#[tokio::test]
async fn a_log_that_is_not_there_is_none_and_one_of_any_size_is_only_its_end() {
    let fake = FakeQrs::start().await;
    let qrs = Qrs::new(&fake.settings());
    // The first look came before the scheduler noted the log.
    let noted = json!({ "id": "5a1e5000-0000-4000-9000-000000000001", "status": 8, "fileReferenceID": FILE });
    fake.script("GET", "/executionresult/5a1e5000", 200, noted.to_string());
    fake.script("GET", "scriptlog?fileReferenceId=", 200, TICKET);
    let mut log: Vec<u8> = (0..400_000).flat_map(|line| format!("line {line}\r\n").into_bytes()).collect();
    log.extend_from_slice(b"caf\xe9\r\n");
    assert!(log.len() > 4 << 20);
    fake.script("GET", DOWNLOAD, 200, log);
    let lines = qrs.script_log(id(ONE), &attempt(None, false), 3).await.unwrap().unwrap();
    assert_eq!(lines, ["line 399998", "line 399999", "caf\u{fffd}"]);
    let many = qrs.script_log(id(ONE), &attempt(None, false), usize::MAX).await.unwrap().unwrap();
    assert!(many.len() > 10_000 && many.len() < 30_000, "{}", many.len());
    assert!(many.iter().all(|line| line.starts_with("line ") || line.starts_with("caf")), "no half lines");

    let none = FakeQrs::start().await;
    let qrs = Qrs::new(&none.settings());
    assert_eq!(qrs.script_log(id(ONE), &attempt(None, false), 3).await.unwrap(), None, "the result is gone");
    none.script("GET", "scriptlog", 200, r#"{"value":"../../app/x"}"#);
    let error = qrs.script_log(id(ONE), &attempt(Some(FILE), true), 3).await.unwrap_err();
    assert!(matches!(error, QrsError::BadAnswer { .. }), "{error:?}");
    assert!(none.seen().iter().all(|seen| !seen.whole.contains("app/x")), "only ids get into an address");
}

#[tokio::test]
async fn a_stop_is_sent_once() {
    let fake = FakeQrs::start().await;
    let qrs = Qrs::new(&fake.settings());
    let path = format!("/task/{ONE}/stop");
    fake.script_times("POST", &path, 204, "", 1);
    fake.script_times("POST", &path, 404, "not found", 1);
    qrs.stop_task(id(ONE)).await.unwrap();
    assert!(matches!(qrs.stop_task(id(ONE)).await.unwrap_err(), QrsError::Status { status: 404, .. }));
    fake.set(Mode::BreakAfterStart);
    assert!(qrs.stop_task(id(ONE)).await.unwrap_err().may_have_arrived());
    assert_eq!(fake.seen().iter().filter(|seen| seen.method == "POST").count(), 3);
    assert!(fake.seen().iter().all(|seen| seen.body.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_following_nor_enriching_delays_a_start() {
    let fake = FakeQrs::start().await;
    let qrs = Qrs::new(&fake.settings());
    fake.set(Mode::Slow);
    let mut busy = tokio::task::JoinSet::new();
    for number in 1..=100 {
        let (following, enriching) = (qrs.clone(), qrs.clone());
        busy.spawn(async move { drop(following.sessions(&[ExecutionId::from_u128(number)]).await) });
        busy.spawn(async move { drop(enriching.task_full(TaskId::from_u128(number)).await) });
    }
    while fake.seen().len() < 64 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.seen().len(), 64, "32 of each at a time");
    fake.set(Mode::StartOk);
    let begun = std::time::Instant::now();
    qrs.start(id(ONE)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
}
