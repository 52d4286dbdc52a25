//! The state machine on a clock of its own: hours pass in no time, and the same seed gives the same hours.

use std::time::SystemTime;

use proptest::prelude::*;

use super::*;

const A: &str = "5a1e5000-0000-4000-8000-00000000000a";
const B: &str = "5a1e5000-0000-4000-8000-00000000000b";

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
        }
    }
    (states, datagrams)
}

fn started(site: &mut Site, task: &str) -> ExecutionId {
    match site.start(id(task), r"LAB\goran") {
        StartAnswer::Started(execution) => execution,
        other => panic!("{other:?}"),
    }
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
    let rows: Vec<Value> = site.results(Some(execution)).cloned().collect();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row["executionID"] == execution.to_string() && row["status"] == 8));
    assert!(rows[0]["id"] != rows[1]["id"] && rows[1]["id"] != rows[2]["id"]);
    assert_eq!(site.starts_json()["total"], 1);
}

#[test]
fn what_finds_no_slot_waits_its_turn() {
    let tasks: String = [A, B].iter().map(|id| format!("  - {{id: {id}, name: t, duration: 10}}\n")).collect();
    let mut site = site_of(&tasks, 1);
    started(&mut site, A);
    let second = started(&mut site, B);
    site.advance(5_000);
    let state = |site: &mut Site| site.results(Some(second)).next().unwrap()["status"].clone();
    assert_eq!(state(&mut site), 3, "queued");
    assert_eq!(site.start(id(B), "u"), StartAnswer::Running(OnRunning::ZeroGuid), "queued is running");
    site.advance(11_000);
    assert_eq!(state(&mut site), 2, "started");
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
    assert_eq!(site.sessions(Some(id(A))).count(), 1);
    assert_eq!(site.sessions(Some(id(B))).count(), 0);
    site.advance(5_099);
    assert!(site.session(execution).is_some());
    site.advance(5_100);
    assert!(site.session(execution).is_none());
    assert_eq!(site.tasks(|_| true, None).next().unwrap()["operational"]["lastExecutionResult"]["status"], 7);
}

#[test]
fn a_disabled_or_unknown_task_does_not_start() {
    let mut site = site_of(&format!("  - {{id: {A}, name: a, duration: 5, enabled: false, every: 1}}\n"), 1);
    assert_eq!(site.start(id(A), "u"), StartAnswer::Disabled);
    assert_eq!(site.start(id(B), "u"), StartAnswer::Unknown);
    site.advance(1_000_000);
    assert_eq!(site.starts_json()["total"], 0);
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
        site.starts_json()["total"].as_u64().unwrap()
    };
    assert_eq!(starts(0.0), 0);
    assert!((90..=110).contains(&starts(1.0)), "{}", starts(1.0));
    assert!((180..=220).contains(&starts(2.0)), "{}", starts(2.0));
    let mut site = site(&text, 1.0, 3);
    site.set_rate(0.0);
    site.advance(1_000_000);
    assert_eq!(site.starts_json()["total"], 0, "what was planned before is forgotten");
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
                    prop_assert!(matches!(site.start(task, "u"), StartAnswer::Started(_)));
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
        prop_assert!(site.tasks.iter().all(|task| task.running == 0));
        prop_assert_eq!(datagrams.len(), starts, "each execution is reported once");
    }
}
