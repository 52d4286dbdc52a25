//! Two thousand start requests while Qlik Sense fails in every way and the program is killed ten times: nothing is started twice for a request,
//! every request has one last answer, and `unknown` is said only where it is true.
//!
//! The site outlives the program and is the oracle. Each request has a task of its own, so whatever was started of that task was started for that
//! request. Requests come by MQTT with QoS 1 and 2 and by REST; whoever got no acknowledgement asks again with the same transaction, as clients do.
//! `START_FAULTS_REQUESTS` (default 2000), `START_FAULTS_SEED` (default: the clock's; printed).
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
#[path = "support/oracle/chance.rs"]
#[allow(dead_code)]
mod chance;
#[path = "support/mqtt.rs"]
mod mqtt;
#[path = "support/site.rs"]
mod site;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use app::{App, Dir};
use chance::Chance;
use mqtt::Client;
use rumqttc::QoS;
use sense_butler::names::TaskId;
use serde_json::{Value, json};
use site::{Site, task};
use tokio::task::JoinSet;

const START: &str = "qliksense/start_task";
const RESPONSE: &str = "qliksense/start_task/response";
const CALL: &str = "/qrs/task/*/start/synchronous";
const KILLS: u64 = 10;
/// How long the last request may take: a start that left no trace is looked for half a minute.
const LAST: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Door {
    Mqtt1,
    Mqtt2,
    Rest,
}

/// A request; its number is its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Request(u64);

impl Request {
    fn task(self) -> TaskId {
        TaskId::from_u128(u128::from(self.0) + 1)
    }

    const fn door(self) -> Door {
        match self.0 % 4 {
            0 | 1 => Door::Mqtt1,
            2 => Door::Mqtt2,
            _ => Door::Rest,
        }
    }

    /// Whether it waits for the end of its task.
    const fn follows(self) -> bool {
        self.0.is_multiple_of(5)
    }

    fn wish(self) -> Value {
        let wait = if self.follows() { "finished" } else { "started" };
        json!({"taskId": self.task().to_string(), "transaction": self.0, "wait": wait, "deadlineSeconds": 3_600})
    }

    /// Whether nothing more may be said after this.
    fn ends_with(self, answer: &Value) -> bool {
        !(answer["status"] == "accepted" || answer["status"] == "started" && self.follows())
    }
}

/// What was acknowledged and said so far.
#[derive(Default)]
struct Heard {
    acknowledged: Mutex<HashSet<Request>>,
    /// Last answers, without what differs between one and its repetition.
    finals: Mutex<HashMap<Request, Vec<Value>>>,
}

impl Heard {
    fn note(&self, request: Request, mut answer: Value) {
        assert_eq!(answer["transaction"], json!(request.0), "{answer}");
        if !request.ends_with(&answer) {
            assert!(["accepted", "started"].contains(&answer["status"].as_str().unwrap()), "{answer}");
            return;
        }
        let fields = answer.as_object_mut().unwrap();
        fields.shift_remove("at");
        fields.shift_remove("duplicate");
        self.finals.lock().unwrap().entry(request).or_default().push(answer);
    }

    fn is_answered(&self, request: Request) -> bool {
        self.finals.lock().unwrap().contains_key(&request)
    }

    fn answered(&self) -> usize {
        self.finals.lock().unwrap().len()
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }
}

/// Everybody who has to do with one life of the program. They end with it.
struct Crowd {
    people: JoinSet<()>,
}

impl Crowd {
    /// Asks for what was not acknowledged yet, and listens.
    async fn gather(app: &App, heard: &Arc<Heard>, asked: &[Request]) -> Self {
        let (mqtt, rest, mut people) = (app.mqtt().await, app.rest().await, JoinSet::new());
        let mut options = mqtt::options(mqtt, "watcher");
        options.set_clean_session(false);
        let (mut watcher, _) = Client::open(options).await.unwrap();
        watcher.subscribe(RESPONSE, QoS::AtLeastOnce).await;
        people.spawn({
            let heard = Arc::clone(heard);
            async move {
                while let Some(told) = watcher.next_or_end().await {
                    let answer: Value = serde_json::from_slice(&told.payload).unwrap();
                    heard.note(Request(answer["transaction"].as_u64().unwrap()), answer);
                }
            }
        });
        let open: Vec<Request> = {
            let acknowledged = heard.acknowledged.lock().unwrap();
            asked.iter().copied().filter(|request| !acknowledged.contains(request)).collect()
        };
        for (door, name, qos) in [(Door::Mqtt1, "plc-1", QoS::AtLeastOnce), (Door::Mqtt2, "plc-2", QoS::ExactlyOnce)] {
            let messages: Vec<_> = open.iter().filter(|request| request.door() == door).copied().collect();
            if messages.is_empty() {
                continue;
            }
            let mut options = mqtt::options(mqtt, name);
            options.set_inflight(50);
            let heard = Arc::clone(heard);
            let messages = messages.into_iter().map(|request| (request, request.wish().to_string()));
            people.spawn(async move {
                let note = |request| heard.acknowledged.lock().unwrap().extend([request]);
                mqtt::feed(options, START, qos, messages, note).await;
            });
        }
        for request in
            asked.iter().copied().filter(|request| request.door() == Door::Rest && !heard.is_answered(*request))
        {
            people.spawn(by_rest(rest, request, Arc::clone(heard)));
        }
        Self { people }
    }

    async fn disperse(mut self) {
        while let Some(ended) = self.people.join_next().await {
            ended.unwrap();
        }
    }
}

/// Asks by REST, and waits for the last word, or until the program dies.
async fn by_rest(port: u16, request: Request, heard: Arc<Heard>) {
    let path = "/api/v1/tasks/start?timeout=1000";
    let Ok((status, text)) = app::try_http(port, "POST", path, &[], &request.wish().to_string()).await else { return };
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status} {error}: {text}"));
    let results = answer["results"].as_array().unwrap_or_else(|| panic!("{status} {answer}"));
    assert_eq!((status, results.len()), (200, 1), "{answer}");
    heard.acknowledged.lock().unwrap().insert(request);
    heard.note(request, results[0].clone());
}

/// Waits until something is true; whether it came to that.
async fn comes(limit: Duration, done: impl Fn() -> bool) -> bool {
    let reached = async {
        while !done() {
            // Between two looks.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(limit, reached).await.is_ok()
}

/// What goes wrong at the site, always with a chance.
async fn break_things(site: &Site) {
    let faults = [
        (CALL, json!({"action": "cutAfter"}), 0.04),
        (CALL, json!({"action": "statusAfter", "status": 500, "text": "Internal"}), 0.03),
        (CALL, json!({"action": "neverAfter"}), 0.005),
        (CALL, json!({"action": "delayAfter", "millis": 700}), 0.04),
        (CALL, json!({"action": "status", "status": 500, "text": "Internal"}), 0.01),
        (CALL, json!({"action": "cutBefore"}), 0.01),
        ("/qrs/execution", json!({"action": "cutAfter"}), 0.01),
        ("/qrs/execution", json!({"action": "status", "status": 503, "text": "Busy"}), 0.01),
        ("/qrs/task", json!({"action": "status", "status": 500, "text": "Internal", "method": "GET"}), 0.02),
        ("/qrs/task", json!({"action": "delay", "millis": 300, "method": "GET"}), 0.02),
    ];
    for (path, mut fault, probability) in faults {
        fault["probability"] = json!(probability);
        site.fault(path, fault).await;
    }
}

/// The last answers against what really happened; how often each status was said.
fn judge(
    all: &[Request],
    heard: &Heard,
    executions: &HashMap<TaskId, Vec<String>>,
    lost: &HashMap<String, String>,
) -> BTreeMap<String, usize> {
    let (finals, mut words) = (heard.finals.lock().unwrap(), BTreeMap::new());
    for request in all {
        let (answers, task) = (&finals[request], request.task().to_string());
        let (first, started) = (&answers[0], executions.get(&request.task()).map_or(&[][..], Vec::as_slice));
        assert!(answers.iter().all(|answer| answer == first), "{request:?} has several last answers: {answers:#?}");
        assert!(started.len() <= 1, "{request:?} started its task {} times; {first}", started.len());
        assert_eq!(first["taskId"], json!(task), "{first}");
        match first["status"].as_str().unwrap() {
            "started" | "finished" | "failed" | "aborted" => {
                assert_eq!(json!(started), json!([first["executionId"]]), "{request:?} {first}");
            }
            "unknown" => {
                // Either the call got no answer that says anything, and nothing came of it; or it may not have been made at all.
                let message = first["error"]["message"].as_str().unwrap();
                let true_word = lost.contains_key(&task) || message.contains("interrupted");
                assert!(started.is_empty() && true_word, "{request:?} really started {started:?}; {first}");
                assert_eq!(first["error"]["code"], "undecided", "{first}");
                let why = if lost.contains_key(&task) { "call lost" } else { "killed before the call" };
                *words.entry(why.to_owned()).or_default() += 1;
            }
            other => panic!("{request:?}: `{other}` cannot be: {first}; really started {started:?}"),
        }
        *words.entry(first["status"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    words
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_failed_no_request_starts_twice_and_each_has_one_answer() {
    let mut chance = Chance::new(app::seed("START_FAULTS_SEED"));
    let requests = app::variable("START_FAULTS_REQUESTS").unwrap_or(2_000);
    let all: Vec<Request> = (0..requests).map(Request).collect();
    let (first, copies) = (all[0].task(), format!("duration: 1, copies: {requests}"));
    let (site, dir, heard) = (Site::start(&task(first, "Task", &copies)).await, Dir::new(), Arc::<Heard>::default());
    break_things(&site).await;
    let (begun, yaml) = (Instant::now(), site.butler_yaml(""));
    let shares: Vec<_> = (1..=KILLS + 1).map(|life| (requests * life / (KILLS + 1)) as usize).collect();
    for (life, share) in shares[..KILLS as usize].iter().enumerate() {
        let app = App::configured(&dir, &yaml).await;
        let before = heard.acknowledged();
        let crowd = Crowd::gather(&app, &heard, &all[..*share]).await;
        assert!(comes(app::PATIENCE, || heard.acknowledged() > before).await, "nobody is acknowledged: {}", app.said());
        if life % 4 == 2 {
            site.order("restart", json!({"downSeconds": 0.5, "initialisingSeconds": 0.3})).await;
        }
        tokio::time::sleep(chance.millis(1_500)).await;
        // Dropped, it is killed.
        drop(app);
        crowd.disperse().await;
    }
    println!("{} of {requests} answered when it was killed for the last time, {:?}", heard.answered(), begun.elapsed());
    let app = App::configured(&dir, &yaml).await;
    let crowd = Crowd::gather(&app, &heard, &all).await;
    let answered = comes(LAST, || heard.answered() == all.len()).await;
    let silent: Vec<_> = all.iter().filter(|request| !heard.is_answered(**request)).collect();
    let executions = site.executions().await;
    let of = |request: &Request| {
        (*request, heard.acknowledged.lock().unwrap().contains(request), executions.get(&request.task()).cloned())
    };
    let shown: Vec<_> = silent.iter().take(20).map(|request| of(request)).collect();
    assert!(answered, "{} requests have no last answer: {shown:#?}\n{:.20000}", silent.len(), app.said());
    app.stop().await;
    crowd.disperse().await;

    let told = site.ask("starts").await;
    let lost = told["notStarted"]["asked"].as_array().unwrap().iter().map(|asked| {
        let (task, reason) = (asked["task"].as_str().unwrap(), asked["reason"].as_str().unwrap());
        (task.to_owned(), reason.to_owned())
    });
    let words = judge(&all, &heard, &site.executions().await, &lost.collect());
    // No more calls than these can be about to be made when it is killed.
    let about_to = words.get("killed before the call").copied().unwrap_or_default();
    assert!(about_to <= KILLS as usize * 32, "{words:?}");
    let repeated: usize = heard.finals.lock().unwrap().values().map(|answers| answers.len() - 1).sum();
    println!("{words:?}, {repeated} answers again, alike; {:?}", begun.elapsed());
    let faults = site.ask("fault").await;
    let happened: Vec<_> = faults.as_array().unwrap().iter().map(|fault| fault["happened"].as_u64().unwrap()).collect();
    println!("faults: {happened:?}");
    if requests >= 2_000 {
        assert!(happened.len() == 10 && happened.iter().all(|happened| *happened > 0), "no trial: {faults}");
        assert!(words["started"] > 1_000 && words.contains_key("unknown"), "no trial: {words:?}");
    }
    site.finish().await;
}
