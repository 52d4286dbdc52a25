//! The state machine on a clock of its own: hours pass in no time, and the same seed gives the same hours.

use std::time::SystemTime;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const A: &str = "5a1e5000-0000-4000-8000-00000000000a";
const B: &str = "5a1e5000-0000-4000-8000-00000000000b";
const C: &str = "5a1e5000-0000-4000-8000-00000000000c";

fn id(text: &str) -> TaskId {
    text.parse().unwrap()
}

fn site_of(tasks: &str, slots: u32) -> Site {
    let text = format!("sampleTask: {A}\nnodes: [{{name: n, slots: {slots}}}]\nusers: []\ntasks:\n{tasks}");
    site(&text, 1.0, 1)
}

fn site(text: &str, rate: f64, seed: u64) -> Site {
    let plan = Plan::parse(text, "test").unwrap();
    let calendar = Calendar::new(SystemTime::UNIX_EPOCH);
    Site::new(&plan, SiteOptions { profile: Profile::Butler16, seed, rate, calendar })
}

/// Runs until nothing is planned any more; the states entered, with their moments, and the kinds of datagrams.
fn run_out(site: &mut Site) -> (Vec<Status>, Vec<DatagramKind>) {
    while let Some(due) = site.next_due() {
        site.advance(due);
    }
    seen(site)
}

fn seen(site: &mut Site) -> (Vec<Status>, Vec<DatagramKind>) {
    let (mut states, mut datagrams) = (Vec::new(), Vec::new());
    for effect in site.take_effects() {
        match effect {
            Effect::Changed(change) => states.push(change.to),
            Effect::Send { kind, .. } => datagrams.push(kind),
            Effect::Notify { .. } => {}
        }
    }
    (states, datagrams)
}

fn started(site: &mut Site, task: &str) -> ExecutionId {
    match site.start(id(task), r"LAB\goran", Origin::Control) {
        StartAnswer::Started(execution) => execution,
        other => panic!("{other:?}"),
    }
}

fn results(site: &Site, execution: ExecutionId) -> Vec<Arc<Value>> {
    site.results(&Wanted { executions: Some(vec![execution]), ..Wanted::default() })
}

#[test]
fn every_course_takes_its_states_and_says_so() {
    use DatagramKind as D;
    use Status::{
        AbortInitiated, Aborted, Aborting, DistributionQueue, DistributionRunning, FinishedFail, FinishedSuccess,
        Retry, Started, Triggered,
    };
    let cases: [(&str, Vec<Status>, Vec<D>); 7] = [
        ("duration: 3", vec![Triggered, Started, FinishedSuccess], vec![D::Success]),
        ("duration: 3, outcome: fail", vec![Triggered, Started, FinishedFail], vec![D::Failed]),
        ("duration: 3, outcome: abort", vec![Triggered, Started, AbortInitiated, Aborting, Aborted], vec![D::Aborted]),
        (
            "duration: 90, timeoutMinutes: 1",
            vec![Triggered, Started, AbortInitiated, Aborting, Aborted],
            vec![D::Aborted],
        ),
        (
            "duration: 3, maxRetries: 1, outcome: [fail, success]",
            vec![Triggered, Started, FinishedFail, Retry, Triggered, Started, FinishedSuccess],
            vec![D::Success],
        ),
        (
            "duration: 3, maxRetries: 1, outcome: fail",
            vec![Triggered, Started, FinishedFail, Retry, Triggered, Started, FinishedFail],
            vec![D::Failed],
        ),
        (
            "duration: 3, type: distribute, outcome: fail",
            vec![Triggered, Started, DistributionQueue, DistributionRunning, FinishedFail],
            vec![D::Distribute],
        ),
    ];
    assert_eq!(cases.len(), 7);
    for (task, states, datagrams) in cases {
        let mut site = site_of(&format!("  - {{id: {A}, name: a, {task}}}\n"), 2);
        started(&mut site, A);
        assert_eq!(run_out(&mut site), (states, datagrams), "{task}");
        assert!(site.executions.is_empty() && site.nodes[0].busy == 0, "{task}");
    }
}

#[test]
fn retries_share_the_execution_and_have_results_of_their_own() {
    let mut site = site_of(&format!("  - {{id: {A}, name: a, duration: 1, maxRetries: 2, outcome: fail}}\n"), 1);
    let execution = started(&mut site, A);
    run_out(&mut site);
    let rows = results(&site, execution);
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row["executionID"] == execution.to_string() && row["status"] == 8));
    assert!(rows[0]["id"] != rows[1]["id"] && rows[1]["id"] != rows[2]["id"]);
    assert_eq!(site.starts(0, None).json()["total"], 1);
}

#[test]
fn what_finds_no_slot_waits_its_turn() {
    let tasks: String = [A, B].iter().map(|id| format!("  - {{id: {id}, name: t, duration: 10}}\n")).collect();
    let mut site = site_of(&tasks, 1);
    started(&mut site, A);
    let second = started(&mut site, B);
    site.advance(5_000);
    let state = |site: &Site| results(site, second)[0]["status"].clone();
    assert_eq!(state(&site), 3, "queued");
    assert_eq!(site.start(id(B), "u", Origin::Control), StartAnswer::Running(OnRunning::ZeroGuid), "queued is running");
    site.advance(11_000);
    assert_eq!(state(&site), 2, "started");
    let (states, datagrams) = run_out(&mut site);
    assert!(states.contains(&Status::Queued));
    assert_eq!(datagrams, [DatagramKind::Success, DatagramKind::Success]);
}

#[test]
fn a_queued_task_can_be_stopped_and_leaves_the_slot_alone() {
    let tasks: String = [A, B].iter().map(|id| format!("  - {{id: {id}, name: t, duration: 10}}\n")).collect();
    let mut site = site_of(&tasks, 1);
    started(&mut site, A);
    started(&mut site, B);
    assert_eq!(site.stop(id(B)), Some(1));
    assert_eq!(site.stop(id("5a1e5000-0000-4000-8000-0000000000ff")), None);
    let (_, datagrams) = run_out(&mut site);
    assert_eq!(datagrams, [DatagramKind::Aborted, DatagramKind::Success]);
    assert_eq!((site.nodes[0].busy, site.queue.len()), (0, 0));
    assert_eq!(site.stop(id(B)), Some(0), "nothing runs");
}

#[test]
fn the_session_exists_while_the_execution_runs() {
    let mut site = site_of(&format!("  - {{id: {A}, name: a, duration: 5}}\n"), 1);
    let execution = started(&mut site, A);
    assert!(site.session(execution).is_some());
    assert_eq!(site.sessions(Some(&[id(A)])).len(), 1);
    assert_eq!(site.sessions(Some(&[id(B)])).len(), 0);
    site.advance(5_099);
    assert!(site.session(execution).is_some());
    site.advance(5_100);
    assert!(site.session(execution).is_none());
    assert_eq!(site.tasks(|_| true, None)[0]["operational"]["lastExecutionResult"]["status"], 7);
}

#[test]
fn a_disabled_or_unknown_task_does_not_start() {
    let mut site = site_of(&format!("  - {{id: {A}, name: a, duration: 5, enabled: false, every: 1}}\n"), 1);
    assert_eq!(site.start(id(A), "u", Origin::Control), StartAnswer::Disabled);
    assert_eq!(site.start(id(B), "u", Origin::Control), StartAnswer::Unknown);
    site.advance(1_000_000);
    assert_eq!(site.starts(0, None).json()["total"], 0);
}

#[test]
fn a_chain_starts_what_follows_and_says_why() {
    let tasks = format!(
        "  - {{id: {A}, name: a, duration: 2, outcome: [success, fail]}}\n  - {{id: {B}, name: b, duration: 1, after: [{{success: [{A}]}}]}}\n  \
         - {{id: {C}, name: c, duration: 1, after: [{{fail: [{A}]}}, {{success: [{A}, {B}], withinMinutes: 1}}]}}\n"
    );
    let mut site = site_of(&tasks, 4);
    let first = started(&mut site, A);
    run_out(&mut site);
    let starts = site.starts(0, None).json();
    let list = starts["starts"].as_array().unwrap();
    let by: Vec<&str> = list.iter().map(|start| start["taskId"].as_str().unwrap()).collect();
    assert_eq!(by, [A, B, C]);
    assert_eq!((&list[1]["by"], &list[1]["chain"]["afterExecutionId"]), (&json!("chain"), &json!(first.to_string())));
    assert_eq!(list[2]["chain"]["afterExecutionId"], list[1]["executionId"], "its last rule was fulfilled by b");
    // The second run of a fails: only the first event of c fires. What was fulfilled before is forgotten.
    started(&mut site, A);
    run_out(&mut site);
    let list = site.starts(3, None).json()["starts"].clone();
    let by: Vec<&str> = list.as_array().unwrap().iter().map(|start| start["taskId"].as_str().unwrap()).collect();
    assert_eq!(by, [A, C]);
    let events = site.events();
    assert_eq!(events.len(), 3);
    let rules = events[2]["compositeRules"].as_array().unwrap();
    assert_eq!((rules.len(), &rules[1]["reloadTask"]["id"], &rules[1]["ruleState"]), (2, &json!(B), &json!(1)));
    assert_eq!(events[2]["reloadTask"]["id"], C);
}

#[test]
fn a_rule_is_forgotten_after_its_time() {
    let tasks = format!(
        "  - {{id: {A}, name: a, duration: 1}}\n  - {{id: {B}, name: b, duration: 1}}\n  \
         - {{id: {C}, name: c, duration: 1, after: [{{success: [{A}, {B}], withinMinutes: 1}}]}}\n"
    );
    for (pause, starts) in [(30_000, 3), (90_000, 2)] {
        let mut site = site_of(&tasks, 4);
        started(&mut site, A);
        site.advance(pause);
        started(&mut site, B);
        run_out(&mut site);
        assert_eq!(site.starts(0, None).json()["total"], starts, "{pause}");
    }
}

#[test]
fn a_restart_resets_what_runs_and_forgets_subscriptions() {
    let tasks: String = [A, B].iter().map(|id| format!("  - {{id: {id}, name: t, duration: 10}}\n")).collect();
    let mut site = site_of(&tasks, 1);
    let (running, queued) = (started(&mut site, A), started(&mut site, B));
    let handle = site.subscribe(subscription(ObjectType::ExecutionResult, ChangeType::Update)).unwrap();
    site.advance(1_000);
    assert_eq!(site.restart(), 2);
    for execution in [running, queued] {
        assert!(site.session(execution).is_none());
        assert_eq!(results(&site, execution)[0]["status"], 12);
    }
    assert!(!site.unsubscribe(handle));
    assert_eq!(site.nodes[0].busy, 0);
    started(&mut site, A);
    let (states, _) = run_out(&mut site);
    assert_eq!(states.last(), Some(&Status::FinishedSuccess));
}

fn subscription(object: ObjectType, change: ChangeType) -> Subscription {
    Subscription { object, change, filter: None, property: None, id: None, url: "http://127.0.0.1:1/x".into() }
}

#[test]
fn subscribers_hear_what_they_asked_for() {
    use crate::sense::simulator::filter::{Filter, schema};
    let mut site = site_of(&format!("  - {{id: {A}, name: a, duration: 1, maxRetries: 1, outcome: fail}}\n"), 1);
    let heard = |site: &mut Site| -> Vec<Value> {
        let effects = site.take_effects().into_iter();
        effects
            .filter_map(|effect| if let Effect::Notify { entry, .. } = effect { Some(*entry) } else { None })
            .collect()
    };
    let failed = Filter::parse("status eq FinishedFail", schema::RESULT).unwrap();
    let failed = Subscription {
        filter: Some(failed),
        property: Some("Status".to_owned()),
        ..subscription(ObjectType::ExecutionResult, ChangeType::Update)
    };
    let cases = [
        (failed, 2),
        (subscription(ObjectType::ExecutionResult, ChangeType::Add), 2),
        (subscription(ObjectType::ExecutionSession, ChangeType::Delete), 1),
        (subscription(ObjectType::ReloadTask, ChangeType::Update), 0),
        (
            Subscription {
                property: Some("!status".to_owned()),
                ..subscription(ObjectType::ExecutionResult, ChangeType::Update)
            },
            7,
        ),
    ];
    assert_eq!(cases.len(), 5);
    for (number, (subscription, expected)) in cases.into_iter().enumerate() {
        let handle = site.subscribe(subscription).unwrap();
        let execution = started(&mut site, A);
        while let Some(due) = site.next_due() {
            site.advance(due);
        }
        let heard = heard(&mut site);
        assert_eq!(heard.len(), expected, "case {number}: {heard:?}");
        if number == 0 {
            let ids: Vec<Value> = results(&site, execution).iter().map(|row| row["id"].clone()).collect();
            assert_eq!(vec![heard[0]["objectID"].clone(), heard[1]["objectID"].clone()], ids);
            assert_eq!((&heard[0]["changeType"], &heard[0]["schemaPath"]), (&json!(2), &json!("ExternalChangeInfo")));
        }
        assert!(site.unsubscribe(handle));
    }
    let sessions = site.changes("", &[ObjectType::ExecutionSession]);
    assert_eq!(sessions.len(), 10, "five came and went");
    site.duplicate_notifications = 1.0;
    site.subscribe(subscription(ObjectType::ExecutionSession, ChangeType::Add)).unwrap();
    started(&mut site, A);
    assert_eq!(heard(&mut site).len(), 2, "announced twice");
}

#[test]
fn script_logs_are_told_by_both_generations() {
    let mut site = site_of(
        &format!("  - {{id: {A}, name: a, duration: 5, outcome: [fail, success], error: \"No such table\"}}\n"),
        1,
    );
    let execution = started(&mut site, A);
    site.advance(1_000);
    let running = results(&site, execution)[0].clone();
    assert_eq!((&running["scriptLogAvailable"], &running["scriptLogSize"]), (&json!(false), &json!(0)));
    let key = |row: &Value, name: &str| Uuid::try_parse(row[name].as_str().unwrap()).unwrap();
    assert_eq!(site.script_log_ticket(id(A), LogKey::Result(key(&running, "id"))), None, "it is still written");
    run_out(&mut site);
    let done = results(&site, execution)[0].clone();
    for key in [LogKey::Result(key(&done, "id")), LogKey::File(key(&done, "fileReferenceID"))] {
        assert_eq!(site.script_log_ticket(id(B), key), None, "of another task");
        let ticket = site.script_log_ticket(id(A), key).unwrap();
        let text = site.script_log(ticket).unwrap();
        assert_eq!(json!(text.len()), done["scriptLogSize"]);
        let last: Vec<&str> = text.lines().rev().take(4).map(|line| line.split_at(30).1).collect();
        assert_eq!(last, ["Execution finished.", "Execution Failed", "General Script Error", "Error: No such table"]);
        assert!(text.lines().count() * 2 == text.matches(['\r', '\n']).count());
    }
    assert_eq!(site.script_log(Uuid::nil()), None);
    started(&mut site, A);
    run_out(&mut site);
    let log = site.results(&Wanted::default()).pop().unwrap();
    let ticket = site.script_log_ticket(id(A), LogKey::Result(key(&log, "id"))).unwrap();
    assert!(!site.script_log(ticket).unwrap().contains("Error"));
}

#[test]
fn tasks_are_changed_only_by_who_saw_them_last() {
    let mut site = site_of(&format!("  - {{id: {A}, name: a, duration: 5}}\n"), 1);
    let mut seen = (*site.task(id(A)).unwrap()).clone();
    seen["enabled"] = json!(false);
    seen["tags"] = json!([{ "name": "new" }]);
    assert_eq!(site.change_task(id(A), r"LAB\goran", &seen), Ok(()));
    assert_eq!(site.change_task(id(A), r"LAB\goran", &seen), Err(EditError::Conflict), "it is another by now");
    assert_eq!(site.change_task(id(B), r"LAB\goran", &seen), Err(EditError::Unknown));
    assert_eq!(site.change_task(id(A), r"LAB\goran", &json!({})), Err(EditError::Malformed));
    let now = site.task(id(A)).unwrap();
    assert_eq!((&now["enabled"], &now["tags"][0]["name"]), (&json!(false), &json!("new")));
    assert_eq!(now["modifiedByUserName"], r"LAB\goran");
    assert_eq!(site.start(id(A), "u", Origin::Control), StartAnswer::Disabled);
    assert_eq!(site.delete_task(id(A)), Ok(()));
    assert!(site.task(id(A)).is_none() && site.tasks(|_| true, None).is_empty());
    assert_eq!(site.start(id(A), "u", Origin::Control), StartAnswer::Unknown);
    assert_eq!(site.starts(0, None).json()["notStarted"]["total"], 2);
}

#[test]
fn deleting_a_running_task_stops_it() {
    let mut site = site_of(&format!("  - {{id: {A}, name: a, duration: 50}}\n"), 1);
    let execution = started(&mut site, A);
    site.advance(1_000);
    site.delete_task(id(A)).unwrap();
    assert_eq!(site.session(execution).unwrap()["abortReason"], 3);
    let (states, _) = run_out(&mut site);
    assert_eq!(states.last(), Some(&Status::Aborted));
}

#[test]
fn a_reload_of_an_app_makes_its_task_once() {
    let text = format!(
        "sampleTask: {A}\nnodes: [{{name: n, slots: 1}}]\nusers: []\napps: [{{id: {B}, name: Sales}}]\n\
         tasks: [{{id: {A}, name: a, app: Sales, duration: 2}}]\n"
    );
    let mut site = site(&text, 1.0, 1);
    let app = Uuid::try_parse(B).unwrap();
    for _ in 0..2 {
        assert!(matches!(site.reload_app(app, "u", Origin::Control), Some(StartAnswer::Started(_))));
        run_out(&mut site);
    }
    let tasks = site.tasks(|_| true, None);
    assert_eq!(tasks.len(), 2);
    assert_eq!(tasks[1]["name"], "Manually triggered reload of Sales");
    assert_eq!((&tasks[1]["isManuallyTriggered"], &tasks[0]["isManuallyTriggered"]), (&json!(true), &json!(false)));
    assert_eq!(tasks[1]["operational"]["lastExecutionResult"]["status"], 7);
    assert_eq!(site.reload_app(Uuid::nil(), "u", Origin::Control), None);
}

#[test]
fn the_rate_says_how_often_things_happen() {
    let text = format!(
        "sampleTask: {A}\nnodes: [{{name: n, slots: 9}}]\nusers: []\n\
         tasks: [{{id: {A}, name: a, duration: 0.1, every: 10}}]\n"
    );
    let starts = |rate: f64| {
        let mut site = site(&text, rate, 3);
        site.advance(1_000_000);
        site.starts(0, None).json()["total"].as_u64().unwrap()
    };
    assert_eq!(starts(0.0), 0);
    assert!((90..=110).contains(&starts(1.0)), "{}", starts(1.0));
    assert!((180..=220).contains(&starts(2.0)), "{}", starts(2.0));
    let mut site = site(&text, 1.0, 3);
    site.set_rate(0.0);
    site.advance(1_000_000);
    assert_eq!(site.starts(0, None).json()["total"], 0, "what was planned before is forgotten");
}

#[test]
fn one_seed_one_day() {
    let day = |seed| {
        let mut site = site(crate::sense::simulator::plan::DEFAULT_SITE, 1.0, seed);
        site.advance(24 * 3_600_000);
        let texts: Vec<String> = site
            .take_effects()
            .into_iter()
            .filter_map(|effect| if let Effect::Send { text, .. } = effect { Some(text) } else { None })
            .collect();
        assert_eq!(site.effects_dropped(), 0);
        texts
    };
    let first = day(5);
    assert!(first.len() > 10_000, "{}", first.len());
    assert_eq!(first, day(5));
    assert_ne!(first, day(6));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is done in whatever order: slots are never overdrawn, and in the end everything has ended and every slot is free.
    #[test]
    fn slots_come_back(seed in any::<u64>(), deeds in prop::collection::vec((0..6u8, 0..2usize, 0..4_000u64), 1..60)) {
        let kinds = ["duration: [0, 4], maxRetries: 2, outcome: {success: 1, fail: 1, abort: 1}",
            "duration: 2, type: distribute, outcome: {success: 1, fail: 1, abort: 1}"];
        let ids = [A, B];
        let tasks: String =
            ids.iter().zip(kinds).map(|(id, kind)| format!("  - {{id: {id}, name: t, {kind}}}\n")).collect();
        let text = format!("sampleTask: {A}\nonRunning: secondSession\nnodes: [{{name: n, slots: 2}}]\nusers: []\ntasks:\n{tasks}");
        let mut site = site(&text, 1.0, seed);
        let mut now = 0;
        let mut starts = 0;
        for (deed, task, pause) in deeds {
            let task = id(ids[task]);
            match deed {
                0..=2 => {
                    prop_assert!(matches!(site.start(task, "u", Origin::Control), StartAnswer::Started(_)));
                    starts += 1;
                }
                3 => { site.force(task, Outcome::Success); }
                4 => { site.force(task, Outcome::Fail); }
                _ => { site.stop(task); }
            }
            now += pause;
            site.advance(now);
            prop_assert!(site.nodes[0].busy <= 2);
        }
        let (_, datagrams) = run_out(&mut site);
        prop_assert_eq!(site.nodes[0].busy, 0);
        prop_assert!(site.executions.is_empty() && site.queue.is_empty());
        prop_assert!(site.tasks.iter().all(|task| task.executions.is_empty()));
        prop_assert_eq!(datagrams.len(), starts, "each execution is reported once");
    }
}
