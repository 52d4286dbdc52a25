//! `startTaskFilter` by every door that starts tasks, with names made to slip past it or to be more in a filter of QRS than a name.
//!
//! What is denied is not even looked for; what is allowed starts its own task and no other. Each text is asked for as a tag, as the value and as
//! the name of a custom property; the site has tasks that have it, and tasks that have it in other letters.
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
#[path = "support/mqtt.rs"]
mod mqtt;
#[path = "support/site.rs"]
mod site;

use std::{collections::HashMap, sync::Arc};

use app::{App, Dir};
use mqtt::Client;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rumqttc::QoS;
use sense_butler::names::TaskId;
use serde_json::{Value, json};
use site::{Site, task};
use tokio::task::JoinSet;

const START: &str = "qliksense/start_task";
/// A start topic of `startTask.topics` whose messages say what to start.
const JOBS: &str = "plant/jobs";
/// The tag and the value the filter of the first test allows.
const ALLOWED: &str = "nightly";
const PROPERTY: &str = "StartBy";

/// Texts that are not [`ALLOWED`]: syntax of filters, addresses and JSON, blanks, other letters, letters that look alike.
const TEXTS: [&str; 54] = [
    // Quotes.
    "nightly'",
    "'nightly",
    "night''ly",
    "O'Hara",
    "'",
    "nightly' or name ne '",
    "nightly' or tags.name eq 'nightly",
    "x') or (name ne '",
    "\"nightly\"",
    "nightly\"}",
    // Backslashes.
    "nightly\\",
    "night\\ly",
    "\\'nightly",
    "nightly\\\\",
    "nightly\\' or name ne \\'",
    "nightly\\\\' or name ne '",
    "\\",
    // What ends a value, a query or an escape in an address.
    "nightly&x",
    "nightly&filter=name ne 'x'",
    "&xrfkey=0123456789abcdef",
    "nightly#",
    "#nightly",
    "nightly?",
    "nightly%",
    "night%6cy",
    "nightly%27 or name ne %27",
    "nightly%00",
    "nightly%5c%27",
    "nightly+",
    "nightly/../x",
    "nightly;x",
    "nightly=",
    // What could be a pattern, or a word of the filter language.
    "*",
    "nightly*",
    "n_ghtly",
    "(nightly)",
    "nightly)",
    "$(nightly)",
    "nightly eq nightly",
    "true",
    // Blanks and control characters.
    " nightly",
    "nightly ",
    "nightly\n",
    "night\r\nly",
    "nightly\t",
    "nightly\0",
    // Other letters.
    "Nightly",
    "NIGHTLY",
    "n\u{456}ghtly",
    "\u{ff4e}ightly",
    "nightly\u{2019}",
    "nightly\u{ff07}",
    "nightly\u{200b}",
    "\u{202e}nightly",
];

/// A way to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Door {
    Mqtt,
    /// A start topic of its own.
    OwnTopic,
    /// A publish by REST to the start topic.
    Publish,
    Rest,
    /// `/v4/reloadtask/-/start`
    Butler,
    /// `/v4/reloadtask/<id>/start`; tags and properties stand in its body as in the other's.
    ButlerPath,
}

const DOORS: [Door; 6] = [Door::Mqtt, Door::OwnTopic, Door::Publish, Door::Rest, Door::Butler, Door::ButlerPath];

impl Door {
    const fn is_butlers(self) -> bool {
        matches!(self, Self::Butler | Self::ButlerPath)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Ask {
    /// As it is written.
    Id(String),
    Tag(String),
    Property(String, String),
}

impl Ask {
    /// A text in each place where one can stand.
    fn all(text: &str) -> [Self; 3] {
        let text = || text.to_owned();
        [Self::Tag(text()), Self::Property(PROPERTY.into(), text()), Self::Property(text(), ALLOWED.into())]
    }

    fn wish(&self) -> Value {
        match self {
            Self::Id(id) => json!({"taskId": id}),
            Self::Tag(tag) => json!({"tag": tag}),
            Self::Property(name, value) => json!({"customProperty": {"name": name, "value": value}}),
        }
    }

    /// An item of a body of Butler's.
    fn item(&self) -> Value {
        match self {
            Self::Id(id) => json!({"type": "starttaskid", "payload": {"taskId": id}}),
            Self::Tag(tag) => json!({"type": "starttasktag", "payload": {"tag": tag}}),
            Self::Property(name, value) => json!({"type": "starttaskcustomproperty",
                "payload": {"customPropertyName": name, "customPropertyValue": value}}),
        }
    }

    /// Keys of a task in the site's file that has it.
    fn of_a_task(&self) -> String {
        match self {
            Self::Id(_) => String::new(),
            Self::Tag(tag) => format!("tags: {}", json!([tag])),
            Self::Property(name, value) => format!("customProperties: {}", json!({name: [value]})),
        }
    }

    /// The same in capitals: QRS finds it, and it is another.
    fn in_capitals(&self) -> Self {
        match self {
            Self::Id(id) => Self::Id(id.to_uppercase()),
            Self::Tag(tag) => Self::Tag(tag.to_uppercase()),
            Self::Property(name, value) => Self::Property(name.to_uppercase(), value.to_uppercase()),
        }
    }

    fn has_control_characters(&self) -> bool {
        match self {
            Self::Id(text) | Self::Tag(text) => text.chars().any(char::is_control),
            Self::Property(name, value) => name.chars().chain(value.chars()).any(char::is_control),
        }
    }
}

/// What a door says: status, code, and the tasks it names.
type Told = (String, Option<String>, Vec<String>);

fn told(status: &str, code: Option<&str>, tasks: &[&str]) -> Told {
    (status.to_owned(), code.map(str::to_owned), tasks.iter().map(|task| (*task).to_owned()).collect())
}

/// Somebody who asks the program, by one door after the other, and hears its answers.
struct Asker {
    app: Arc<App>,
    client: Client,
    name: String,
    asked: usize,
}

impl Asker {
    async fn new(app: &Arc<App>, name: String) -> Self {
        let mut client = Client::connect(app.mqtt().await, &name).await;
        client.subscribe("+/+/response", QoS::AtLeastOnce).await;
        Self { app: Arc::clone(app), client, name, asked: 0 }
    }

    async fn ask(&mut self, door: Door, ask: &Ask) -> Told {
        self.asked += 1;
        let (mut wish, transaction) = (ask.wish(), json!([self.name, self.asked]));
        wish["transaction"] = transaction.clone();
        match door {
            Door::Mqtt => self.publish(START, wish.to_string()).await,
            Door::OwnTopic => self.publish(JOBS, wish.to_string()).await,
            Door::Publish => {
                let body = json!({"topic": START, "message": wish.to_string()}).to_string();
                let (status, answer) = self.app.put("/v4/mqttpublishmessage", &body).await;
                assert_eq!(status, 201, "{answer}");
            }
            Door::Rest => return self.by_rest(&wish).await,
            Door::Butler => return self.by_butler("-", ask, &json!([ask.item()])).await,
            Door::ButlerPath => {
                return match ask {
                    Ask::Id(id) => self.by_butler(id, ask, &json!([])).await,
                    _ => self.by_butler("-", ask, &json!([ask.item()])).await,
                };
            }
        }
        self.hears(|answer| answer["transaction"] == transaction).await
    }

    /// Publishes something without JSON around it, and hears the answer.
    async fn ask_bare(&mut self, topic: &str, payload: &str) -> Told {
        self.publish(topic, payload.to_owned()).await;
        let name = self.name.clone();
        self.hears(|answer| answer["requestedBy"] == name && answer["transaction"].is_null()).await
    }

    async fn publish(&mut self, topic: &str, payload: String) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await;
    }

    /// The next answer by MQTT that fits; others are for others.
    async fn hears(&mut self, mine: impl Fn(&Value) -> bool) -> Told {
        loop {
            let answer = serde_json::from_slice(&self.client.next().await.payload).unwrap();
            if mine(&answer) {
                return read(&answer);
            }
        }
    }

    async fn by_rest(&self, wish: &Value) -> Told {
        let (status, text) = self.app.call("POST", "/api/v1/tasks/start", &[], &wish.to_string()).await;
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status} {error}: {text}"));
        if status == 400 {
            return told("invalid", answer["error"]["code"].as_str(), &[]);
        }
        let results = answer["results"].as_array().unwrap_or_else(|| panic!("{status} {answer}"));
        assert_eq!((status, results.len()), (200, 1), "{answer}");
        read(&results[0])
    }

    /// Butler's lists, each of which is exactly as it should be or empty.
    async fn by_butler(&self, path_id: &str, ask: &Ask, body: &Value) -> Told {
        let path = format!("/v4/reloadtask/{}/start", utf8_percent_encode(path_id, NON_ALPHANUMERIC));
        let (status, text) = self.app.put(&path, &body.to_string()).await;
        assert_eq!(status, 200, "{text}");
        let mut lists: Value = serde_json::from_str(&text).unwrap();
        let mut take = |path: &str| lists.pointer_mut(path).map_or(Value::Null, Value::take);
        let errors = take("/errors");
        let (started, denied, echo) = match ask {
            Ask::Id(id) => {
                let invalid = take("/tasksId/invalid");
                if invalid != json!([]) {
                    assert_eq!(invalid, json!([{"taskId": id}]));
                    return told("invalid", Some("not_an_id"), &[]);
                }
                let canonical = json!({"taskId": id.to_lowercase()});
                (take("/tasksId/started"), take("/tasksId/denied"), canonical)
            }
            Ask::Tag(tag) => (take("/tasksTag"), take("/tasksTagDenied"), json!({"tag": tag})),
            Ask::Property(name, value) => {
                (take("/tasksCP"), take("/tasksCPDenied"), json!({"name": name, "value": value}))
            }
        };
        let started: Vec<_> = started.as_array().unwrap().iter().map(|task| task["taskId"].as_str().unwrap()).collect();
        if denied != json!([]) {
            assert_eq!((denied, &errors), (json!([echo]), &Value::Null), "{text}");
            let task = if let Ask::Id(id) = ask { vec![id.to_lowercase()] } else { Vec::new() };
            assert!(started.is_empty(), "{text}");
            return ("denied".into(), Some("task_filter".into()), task);
        }
        match errors.as_array() {
            None => told("started", None, &started),
            Some(errors) => {
                assert_eq!((errors.len(), started.len()), (1, 0), "{text}");
                told("invalid", errors[0]["code"].as_str(), &[])
            }
        }
    }
}

/// An answer by MQTT or REST.
fn read(answer: &Value) -> Told {
    let (status, code) = (answer["status"].as_str().unwrap(), answer["error"]["code"].as_str());
    assert_eq!(answer["executionId"].is_string(), status == "started", "{answer}");
    told(status, code, answer["taskId"].as_str().as_slice())
}

/// A filter of the configuration, with start topics beside the usual one.
fn filter(ids: &Value, tags: &Value, properties: &Value, topics: &Value) -> String {
    format!(
        "  startTaskFilter:\n    enable: true\n    allowTask: {{ taskId: {ids}, tag: {tags}, customProperty: {properties} }}\n  startTask: {{ topics: \
         {topics} }}\n"
    )
}

/// Asks for everything by the doors it is meant for, the doors side by side.
async fn ask_all(app: &Arc<App>, cases: impl IntoIterator<Item = (Door, Ask)>) -> Vec<(Door, Ask, Told)> {
    let mut by_door: HashMap<Door, Vec<Ask>> = HashMap::new();
    cases.into_iter().for_each(|(door, ask)| by_door.entry(door).or_default().push(ask));
    let mut asking = JoinSet::new();
    for (door, asks) in by_door {
        let mut asker = Asker::new(app, format!("{door:?}")).await;
        asking.spawn(async move {
            let mut answers = Vec::new();
            for ask in asks {
                answers.push((door, ask.clone(), asker.ask(door, &ask).await));
            }
            answers
        });
    }
    asking.join_all().await.concat()
}

async fn stop(app: Arc<App>, site: Site) {
    Arc::into_inner(app).expect("nobody asks any more").stop().await;
    site.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_allowed_is_denied_by_every_door_and_not_even_looked_for() {
    let (allowed, denied) = (TaskId::from_u128(0xa11), TaskId::from_u128(0xabc_def0_0000_0000_0000_0000_def0_abcd));
    let texts: Vec<Ask> = TEXTS.iter().flat_map(|text| Ask::all(text)).collect();
    let mut tasks = task(allowed, "Allowed", "duration: 1, tags: [nightly], customProperties: { StartBy: [nightly] }");
    tasks += &task(denied, "Denied", "duration: 1, tags: [denied], customProperties: { StartBy: [denied] }");
    for (ask, number) in texts.iter().zip(10_000..) {
        tasks += &task(TaskId::from_u128(number), "Of a name", &format!("duration: 1, {}", ask.of_a_task()));
    }
    let topics = json!([
        {"topic": JOBS},
        {"topic": "plant/id", "taskId": denied.to_string()},
        {"topic": "plant/tag", "tag": "denied"},
        {"topic": "plant/property", "customProperty": {"name": PROPERTY, "value": "denied"}},
    ]);
    let properties = json!([{"name": PROPERTY, "value": ALLOWED}]);
    let more = filter(&json!([allowed.to_string()]), &json!([ALLOWED]), &properties, &topics);
    let (site, dir) = (Site::start(&tasks).await, Dir::new());
    let app = Arc::new(App::configured(&dir, &site.butler_yaml(&more)).await);

    let (id, ok) = (denied.to_string(), allowed.to_string());
    let upper = id.to_uppercase();
    let plain = [id.clone(), upper.clone(), format!("{}{}", &upper[..18], &id[18..])];
    let dressed = [format!("{{{id}}}"), format!("{{{upper}}}"), format!(" {id}\n"), format!("\u{feff}{id}")];
    let none = [format!("{ok}'"), format!("{ok}' or id ne '{ok}"), format!("{ok}&{ok}"), ok.replace('0', "\u{ff10}")];
    let ids = plain.iter().chain(&dressed).chain(&none).map(|form| Ask::Id(form.clone()));
    let asks: Vec<Ask> = texts.iter().cloned().chain(ids).collect();
    let cases = asks.iter().flat_map(|ask| DOORS.map(|door| (door, ask.clone())));
    let mut ran = 0;
    for (door, ask, found) in ask_all(&app, cases).await {
        let expected = match &ask {
            Ask::Id(form) if none.contains(form) => told("invalid", Some("not_an_id"), &[]),
            // Butler's routes take an id as it is, and nothing around it.
            Ask::Id(form) if dressed.contains(form) && door.is_butlers() => told("invalid", Some("not_an_id"), &[]),
            Ask::Id(_) => told("denied", Some("task_filter"), &[&id]),
            Ask::Tag(_) | Ask::Property(..) => told("denied", Some("task_filter"), &[]),
        };
        assert_eq!(found, expected, "{door:?} {ask:?}");
        ran += 1;
    }
    assert_eq!(ran, (54 * 3 + 3 + 4 + 4) * 6);
    // Ids without JSON around them, and topics that start always the same.
    let mut asker = Asker::new(&app, "plc-7".into()).await;
    let bare = plain.iter().chain(&dressed).flat_map(|form| [START, JOBS].map(|topic| (topic, form.as_str(), true)));
    let fixed = [("plant/id", "1", true), ("plant/tag", "1", false), ("plant/property", "1", false)];
    let mut ran = 0;
    for (topic, payload, named) in bare.chain(fixed) {
        let task = named.then_some(&*id);
        let found = asker.ask_bare(topic, payload).await;
        assert_eq!(found, told("denied", Some("task_filter"), task.as_slice()), "{topic} {payload:?}");
        ran += 1;
    }
    assert_eq!(ran, 7 * 2 + 3);
    drop(asker);

    let oracle = site.ask("starts").await;
    assert_eq!((&oracle["total"], &oracle["notStarted"]["total"]), (&json!(0), &json!(0)), "{oracle}");
    // The program looks by itself whether QRS is there, and how many tasks it shows; nothing was looked for.
    let log = site.ask("log").await;
    let looked = |asked: &&Value| asked["method"] != "GET" || asked["query"] != json!({});
    assert_eq!(log["requests"].as_array().unwrap().iter().filter(looked).count(), 0, "{log}");
    stop(app, site).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_allowed_starts_its_own_task_and_no_other_whatever_its_name() {
    // The others read their messages as one of these does.
    let doors = [(Door::Mqtt, 'm'), (Door::Rest, 'r'), (Door::Butler, 'b')];
    // A text of its own for each door, so that each task is started once.
    let each = TEXTS.iter().flat_map(|text| doors.map(|(door, letter)| (door, format!("{letter}{text}"))));
    let cases: Vec<(Door, Ask)> = each.flat_map(|(door, text)| Ask::all(&text).map(|ask| (door, ask))).collect();
    let id = |number: usize| TaskId::from_u128(number as u128 + 1);
    let (mut tasks, mut own) = (String::new(), HashMap::new());
    for (number, (_, ask)) in cases.iter().enumerate() {
        let of = |ask: &Ask| format!("duration: 4000, {}", ask.of_a_task());
        tasks += &task(id(number), "Its own", &of(ask));
        tasks += &task(id(number + cases.len()), "In capitals", &of(&ask.in_capitals()));
        own.insert(ask.clone(), id(number));
    }
    let (mut tags, mut properties) = (Vec::new(), Vec::new());
    for (_, ask) in &cases {
        match ask {
            Ask::Id(_) => {}
            Ask::Tag(tag) => tags.push(tag),
            Ask::Property(name, value) => properties.push(json!({"name": name, "value": value})),
        }
    }
    let more = filter(&json!([]), &json!(tags), &json!(properties), &json!([]));
    let (site, dir) = (Site::start(&tasks).await, Dir::new());
    let app = Arc::new(App::configured(&dir, &site.butler_yaml(&more)).await);
    let (mut expected, mut refused) = (HashMap::new(), 0);
    for (door, ask, found) in ask_all(&app, cases).await {
        if ask.has_control_characters() {
            // Nothing in Qlik Sense can be called so; QRS is not asked.
            assert_eq!(found, told("invalid", Some("bad_name"), &[]), "{door:?} {ask:?}");
            refused += 1;
            continue;
        }
        assert_eq!(found, told("started", None, &[&own[&ask].to_string()]), "{door:?} {ask:?}");
        expected.insert(own[&ask], 1);
    }
    assert_eq!((expected.len(), refused), (50 * 3 * 3, 4 * 3 * 3));
    assert_eq!(site.starts().await, expected);
    assert_eq!(site.ask("starts").await["notStarted"]["total"], json!(0));
    stop(app, site).await;
}
