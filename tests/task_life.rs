//! Start requests from their arrival to their last word, against the simulated site: every status, waiting, following, interruptions, faults.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "support/app.rs"]
mod app;
#[path = "support/site.rs"]
mod site;

use std::{collections::HashMap, path::Path, time::Duration};

use app::Dir;
use prometheus_client::registry::Registry;
use sense_butler::{
    config::settings::StartTaskFilter,
    keep::Keep,
    names::TaskId,
    sense::{
        qrs::Qrs,
        tasks::{
            Patience, Starter, Word,
            request::{OnRunning, StartRequest, StartStatus, StartTarget, Wait},
        },
    },
};
use serde_json::{Value, json};
use site::{Site, task};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

const QUICK: u128 = 1;
const FAILS: u128 = 2;
const ABORTED: u128 = 3;
const DISABLED: u128 = 4;
const SLOW: u128 = 5;
/// The first of those that the mass of requests starts.
const MANY: u128 = 0x100;
const TASKS: u128 = 40;

fn tasks() -> String {
    let line = |number: u128, more: &str| task(TaskId::from_u128(number), &format!("Task {number}"), more);
    let mut text = line(QUICK, "duration: 2, tags: [quick]");
    text += &line(FAILS, "duration: 1, outcome: fail, maxRetries: 1");
    text += &line(ABORTED, "duration: 4, outcome: abort");
    text += &line(DISABLED, "duration: 1, enabled: false");
    text += &line(SLOW, "duration: 60");
    (0..TASKS).for_each(|number| text += &line(MANY + number, "duration: 1"));
    text
}

/// One life of the part that starts tasks.
struct Life {
    starter: Starter,
    keep: Keep,
    stop: CancellationToken,
    following: JoinHandle<()>,
}

impl Life {
    fn begin(site: &Site, directory: Option<&Path>) -> Self {
        let keep = Keep::open(directory, &mut Registry::default()).unwrap();
        let patience =
            Patience { settle: Duration::from_secs(2), away: Duration::from_secs(30), look: Duration::from_millis(50) };
        let filter = StartTaskFilter::default();
        let starter = Starter::open(Qrs::new(&site.settings()), filter, keep.shelf("starts"), patience).unwrap();
        let stop = CancellationToken::new();
        let following = tokio::spawn(starter.follower().clone().run(stop.clone()));
        Self { starter, keep, stop, following }
    }

    /// It ends without waiting for anything.
    async fn end(self) {
        self.starter.stop(Duration::ZERO).await;
        self.stop.cancel();
        self.following.await.unwrap();
        let keep = self.keep.clone();
        tokio::task::spawn_blocking(move || keep.stop()).await.unwrap();
    }

    /// Everything that is said about a request.
    async fn words(&self, request: StartRequest) -> Vec<Word> {
        let mut ticket = self.starter.submit(request).await;
        let mut words = Vec::new();
        while let Some(word) = timeout(Duration::from_secs(60), ticket.next()).await.expect("a word in time") {
            words.push(word);
        }
        words
    }
}

fn request(task: u128) -> StartRequest {
    StartRequest::new(vec![StartTarget::Id(TaskId::from_u128(task))], "mqtt", "plc-7")
}

fn statuses(words: &[Word]) -> Vec<StartStatus> {
    words.iter().map(|word| word.outcome.status).collect()
}

#[tokio::test]
async fn executions_are_followed_to_each_end() {
    use StartStatus::{Aborted, Failed, Finished, Started};
    let (site, cases) =
        (Site::start(&tasks()).await, [(QUICK, Finished, 1), (FAILS, Failed, 2), (ABORTED, Aborted, 1)]);
    let life = Life::begin(&site, None);
    let mut ran = 0;
    for (task, end, attempts) in cases {
        let words = life.words(StartRequest { wait: Wait::Finished, ..request(task) }).await;
        assert_eq!(statuses(&words), [Started, end], "{task}");
        assert_eq!(words.iter().map(|word| word.last).collect::<Vec<_>>(), [false, true]);
        let last = &words[1].outcome;
        assert_eq!(last.execution_id, words[0].outcome.execution_id);
        let end = last.end.as_ref().unwrap();
        assert_eq!(end.attempts, attempts, "{end:?}");
        assert!(end.started_at.is_some() && end.stopped_at.is_some(), "{end:?}");
        assert_eq!(end.log_tail.is_empty(), task != FAILS, "{end:?}");
        ran += 1;
    }
    assert_eq!(ran, 3);
    assert_eq!(site.starts().await.values().sum::<usize>(), 3);
    let known = life.starter.follower().all();
    assert!(known.len() == 3 && known.iter().all(|execution| execution.over), "{known:?}");
    life.end().await;
    site.finish().await;
}

#[tokio::test]
async fn a_running_task_is_skipped_queued_or_left_to_qrs() {
    use StartStatus::{Accepted, Expired, NotStarted, Skipped, Started};
    let site = Site::start(&tasks()).await;
    let life = Life::begin(&site, None);
    let first = life.words(request(SLOW)).await;
    assert_eq!(statuses(&first), [Started]);
    let again = life.words(request(SLOW)).await;
    assert_eq!(statuses(&again), [Skipped]);
    assert_eq!(again[0].outcome.execution_id, first[0].outcome.execution_id);
    let asked = life.words(StartRequest { on_running: OnRunning::Start, ..request(SLOW) }).await;
    assert_eq!(statuses(&asked), [NotStarted], "the site's own answer to a second start");
    let queue = |seconds| StartRequest {
        on_running: OnRunning::Queue,
        patience: Duration::from_secs(seconds),
        ..request(SLOW)
    };
    let mut waiting = life.starter.submit(queue(60)).await;
    assert_eq!(waiting.next().await.unwrap().outcome.status, Accepted);
    let second = life.words(queue(60)).await;
    assert_eq!(
        (statuses(&second), &*second[0].outcome.error.as_ref().unwrap().code),
        (vec![Skipped], "already_queued")
    );
    site.end_execution(TaskId::from_u128(SLOW), "finish").await;
    assert_eq!(timeout(Duration::from_secs(20), waiting.finals()).await.unwrap()[0].status, Started);
    assert_eq!(statuses(&life.words(queue(1)).await), [Accepted, Expired]);
    assert_eq!(site.starts().await[&TaskId::from_u128(SLOW)], 2);
    assert_eq!(statuses(&life.words(request(DISABLED)).await), [NotStarted]);
    life.end().await;
    site.finish().await;
}

#[tokio::test]
async fn a_request_waits_for_a_qrs_that_is_away() {
    use StartStatus::{Accepted, Expired, Started, Unreachable};
    let site = Site::start(&tasks()).await;
    let life = Life::begin(&site, None);
    site.order("restart", json!({"downSeconds": 1, "initialisingSeconds": 1})).await;
    assert_eq!(statuses(&life.words(request(QUICK)).await), [Unreachable], "it was not to wait");
    let patient = |millis| StartRequest { patience: Duration::from_millis(millis), ..request(QUICK) };
    assert_eq!(statuses(&life.words(patient(300)).await), [Accepted, Expired]);
    assert_eq!(statuses(&life.words(patient(20_000)).await), [Accepted, Started]);
    assert_eq!(site.starts().await[&TaskId::from_u128(QUICK)], 1);
    life.end().await;
    site.finish().await;
}

#[tokio::test]
async fn what_became_of_an_unanswered_call_is_found_out() {
    use StartStatus::{Started, Unknown};
    let site = Site::start(&tasks()).await;
    let life = Life::begin(&site, None);
    let mut ran = 0;
    for action in [json!({"action": "cutAfter"}), json!({"action": "statusAfter", "status": 500, "text": "no"})] {
        site.fault("/qrs/task/*/start/synchronous", action.clone()).await;
        let words = life.words(request(MANY + ran)).await;
        assert_eq!(statuses(&words), [Started], "{action}");
        assert!(words[0].outcome.execution_id.is_some());
        ran += 1;
    }
    site.fault("/qrs/task/*/start/synchronous", json!({"action": "cutBefore"})).await;
    let words = life.words(request(MANY + ran)).await;
    assert_eq!(statuses(&words), [Unknown], "it cannot be known that it will not start any more");
    assert_eq!((ran, site.starts().await.values().sum::<usize>()), (2, 2));
    life.end().await;
    site.finish().await;
}

/// What is interrupted goes on in the next life: a call is found out, an execution is followed, what waited waits on, and what was answered is
/// answered again.
#[tokio::test]
async fn the_next_life_of_the_program_goes_on() {
    let (site, dir) = (Site::start(&tasks()).await, Dir::new());
    let wish = |task, name: &str| StartRequest {
        transaction: Some(json!(name)),
        return_address: Some(json!({"for": name})),
        patience: Duration::from_secs(30),
        ..request(task)
    };
    let life = Life::begin(&site, Some(&dir.0));
    assert_eq!(statuses(&life.words(wish(QUICK, "answered")).await), [StartStatus::Started]);
    let mut followed = life.starter.submit(StartRequest { wait: Wait::Finished, ..wish(SLOW, "followed") }).await;
    assert_eq!(followed.next().await.unwrap().outcome.status, StartStatus::Started);
    let queue = StartRequest { on_running: OnRunning::Queue, ..wish(SLOW, "queued") };
    let mut queued = life.starter.submit(queue).await;
    assert_eq!(queued.next().await.unwrap().outcome.status, StartStatus::Accepted);
    site.fault("/qrs/task/*/start/synchronous", json!({"action": "delayAfter", "millis": 3_000})).await;
    let called = life.starter.submit(wish(MANY, "called")).await;
    let started = async {
        while !site.starts().await.contains_key(&TaskId::from_u128(MANY)) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), started).await.expect("the call arrives");
    let no_way_back = StartRequest { return_address: None, transaction: None, ..wish(SLOW, "gone") };
    let gone = life.starter.submit(StartRequest { on_running: OnRunning::Queue, ..no_way_back }).await;
    life.end().await;
    drop((followed, queued, called, gone));

    let life = Life::begin(&site, Some(&dir.0));
    // Whoever asks again before anything goes on hears what becomes of the first.
    let early = life.starter.submit(wish(MANY, "called")).await;
    assert!(early.duplicate);
    let resumed = life.starter.resume(|_| true);
    let mut names: Vec<_> = resumed.iter().map(|resumed| resumed.request.transaction.clone().unwrap()).collect();
    names.sort_by_key(Value::to_string);
    assert_eq!(names, ["called", "followed", "queued"]);
    assert!(resumed.iter().all(|resumed| resumed.request.return_address.is_some()));
    site.end_execution(TaskId::from_u128(SLOW), "finish").await;
    for resumed in resumed {
        let name = resumed.request.transaction.clone().unwrap();
        let last = timeout(Duration::from_secs(30), resumed.ticket.finals()).await.expect("a last word").remove(0);
        let expected = if name == "followed" { StartStatus::Finished } else { StartStatus::Started };
        assert_eq!(last.status, expected, "{name} {last:?}");
    }
    assert_eq!(early.finals().await[0].status, StartStatus::Started);
    let again = life.starter.start(wish(QUICK, "answered")).await;
    assert_eq!((again.duplicate, again.outcomes[0].status), (true, StartStatus::Started));
    let starts = site.starts().await;
    let count = |task| starts.get(&TaskId::from_u128(task)).copied().unwrap_or_default();
    assert_eq!((count(QUICK), count(SLOW), count(MANY)), (1, 2, 1));
    life.end().await;
    site.finish().await;
}

/// The program may end between the last word and its leaving: the answer is given again, the same, until somebody has passed it on.
#[tokio::test]
async fn an_answer_that_had_not_left_is_given_again_in_the_next_life() {
    let (site, dir) = (Site::start(&tasks()).await, Dir::new());
    let wish = |task| StartRequest { return_address: Some(json!("somewhere")), ..request(task) };
    let life = Life::begin(&site, Some(&dir.0));
    let mut ticket = life.starter.submit(wish(QUICK)).await;
    let first = ticket.next().await.unwrap();
    assert_eq!((first.last, first.outcome.status), (true, StartStatus::Started));
    assert_eq!(statuses(&life.words(wish(SLOW)).await), [StartStatus::Started], "this one is heard to its end");
    life.end().await;
    drop(ticket);
    for lives_left in [1, 0] {
        let life = Life::begin(&site, Some(&dir.0));
        let mut resumed = life.starter.resume(|_| true);
        assert_eq!(resumed.len(), 1, "{resumed:?}");
        let mut ticket = resumed.remove(0).ticket;
        assert_eq!(ticket.next().await.unwrap().outcome, first.outcome);
        if lives_left == 0 {
            assert_eq!(ticket.next().await, None);
        }
        life.end().await;
    }
    let life = Life::begin(&site, Some(&dir.0));
    assert!(life.starter.resume(|_| true).is_empty());
    let starts = site.starts().await;
    assert_eq!((starts[&TaskId::from_u128(QUICK)], starts[&TaskId::from_u128(SLOW)]), (1, 1));
    life.end().await;
    site.finish().await;
}

/// Two thousand requests while the site fails in every way: nothing is started twice for one request, and every word is true.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_started_twice_whatever_fails() {
    const REQUESTS: u128 = 2_000;
    let site = Site::start(&tasks()).await;
    let life = Life::begin(&site, None);
    let start = "/qrs/task/*/start/synchronous";
    for (path, action, probability) in [
        (start, json!({"action": "cutAfter"}), 0.05),
        (start, json!({"action": "statusAfter", "status": 500, "text": "Internal"}), 0.05),
        (start, json!({"action": "status", "status": 500, "text": "Internal"}), 0.01),
        (start, json!({"action": "delayAfter", "millis": 200}), 0.05),
        (start, json!({"action": "cutBefore"}), 0.01),
        ("/qrs/execution", json!({"action": "cutAfter"}), 0.03),
        ("/qrs/execution", json!({"action": "status", "status": 503, "text": "Busy"}), 0.02),
        ("/qrs/task", json!({"action": "status", "status": 500, "text": "Internal", "method": "GET"}), 0.05),
    ] {
        let mut fault = action;
        fault["probability"] = json!(probability);
        site.fault(path, fault).await;
    }
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..REQUESTS {
        let starter = life.starter.clone();
        let request = StartRequest {
            transaction: Some(json!(number as u64)),
            patience: Duration::from_secs(120),
            on_running: if number % 2 == 0 { OnRunning::Skip } else { OnRunning::Queue },
            ..request(MANY + number % TASKS)
        };
        asking.spawn(async move { (number, starter.start(request).await) });
        if number == REQUESTS / 2 {
            site.order("restart", json!({"downSeconds": 1, "initialisingSeconds": 1})).await;
        }
    }
    let (mut started, mut unknown): (HashMap<TaskId, usize>, HashMap<TaskId, usize>) = Default::default();
    let (mut answers, mut words) = (0, HashMap::<&str, usize>::new());
    while let Some(answer) = timeout(Duration::from_secs(200), asking.join_next()).await.expect("an answer in time") {
        let (number, report) = answer.unwrap();
        assert_eq!((report.outcomes.len(), report.duplicate), (1, false));
        let outcome = &report.outcomes[0];
        let task = TaskId::from_u128(MANY + number % TASKS);
        *words.entry(outcome.status.as_str()).or_default() += 1;
        match outcome.status {
            StartStatus::Started => *started.entry(task).or_default() += 1,
            StartStatus::Unknown => *unknown.entry(task).or_default() += 1,
            _ => {}
        }
        answers += 1;
    }
    println!("{words:?}");
    assert_eq!(answers, REQUESTS);
    let oracle = site.starts().await;
    for task in (0..TASKS).map(|number| TaskId::from_u128(MANY + number)) {
        let of = |map: &HashMap<TaskId, usize>| map.get(&task).copied().unwrap_or_default();
        let (least, most) = (of(&started), of(&started) + of(&unknown));
        let really = of(&oracle);
        assert!((least..=most).contains(&really), "{task}: started {really} times, told {least} to {most}");
    }
    assert!(words["started"] > TASKS as usize, "{words:?}");
    life.end().await;
    site.finish().await;
}
