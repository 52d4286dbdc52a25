//! The web console over HTTP: page, log-in, what a session opens, the live stream; with a broker of this program behind it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod rest_support;
mod support;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use argon2::{Argon2, Params, PasswordHasher};
use rest_support::{Reply, settings, start_with};
use sense_butler::{
    broker::settings::{Rights, User},
    bus::{Bus, Door, Publication, embedded::Embedded},
    config::settings::{Generation, RestSettings},
    console::{Console, Parts, live},
    names::{Secret, TopicFilter, TopicName},
};
use serde_json::{Value, json};
use support::{
    raw::{Hello, Raw},
    running::Running,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const MARK: (&str, &str) = ("x-sense-butler-console", "1");
const PATIENCE: Duration = Duration::from_secs(20);

struct House {
    broker: Running,
    rest: rest_support::Running,
    bus: Bus,
}

fn user(name: &str, console: bool, rights: Rights) -> User {
    let cheap = Params::new(8, 1, 1, None).unwrap();
    let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, cheap);
    let hash = argon2.hash_password(format!("{name}'s").as_bytes()).unwrap().to_string();
    User { console, rights, ..User::new(name, Secret::new(hash)) }
}

const ALL: Rights = Rights { publish: true, subscribe: true, start: true };
const NONE: Rights = Rights { publish: false, subscribe: false, start: false };

/// `admin` may do everything, `watcher` only look, `plc` has no business in the console.
fn users() -> Vec<User> {
    vec![user("admin", true, ALL), user("watcher", true, NONE), user("plc", false, ALL)]
}

impl House {
    fn start(users: Vec<User>) -> Self {
        Self::start_at(users, settings())
    }

    fn start_at(users: Vec<User>, rest: RestSettings) -> Self {
        let broker = Running::start(|settings| {
            settings.users = users;
            settings.limits.failed_logins = 5;
        });
        let handle = broker.handle.clone();
        let bus = Bus::new(Embedded::new(handle.clone(), Door::Rest));
        let own = Bus::new(Embedded::new(handle.clone(), Door::Internal));
        let parts = Parts {
            logins: handle.logins(),
            desk: Some(handle.desk()),
            bus: own.clone(),
            own_topics: TopicName::new("q/own").unwrap(),
            events: None,
        };
        let mut registry = prometheus_client::registry::Registry::default();
        let console = Arc::new(Console::new(parts, &mut registry));
        let rest = start_with(Generation::Head, rest, |setup| {
            setup.desk = Some(handle.desk());
            setup.bus = bus;
            setup.protected_topics = vec![TopicFilter::new("q/own/#").unwrap()];
            setup.start_topics = vec![TopicName::new("q/start").unwrap()];
            setup.console = Some(console);
        });
        Self { broker, rest, bus: own }
    }

    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Reply {
        self.rest.connect().await.send(method, path, headers, body.map(str::as_bytes)).await
    }

    async fn log_in(&self, name: &str, password: &str) -> Reply {
        let body = json!({"user": name, "password": password}).to_string();
        self.call("POST", "/console/session", &[MARK], Some(&body)).await
    }

    /// The cookie of somebody who logged in.
    async fn cookie(&self, name: &str) -> String {
        let reply = self.log_in(name, &format!("{name}'s")).await;
        assert_eq!(reply.status, 204, "{}", reply.text());
        let cookie = reply.header("set-cookie").unwrap();
        cookie.split_once(';').unwrap().0.to_owned()
    }

    /// As somebody who logged in.
    async fn as_visitor(&self, cookie: &str, method: &str, path: &str, body: Option<&str>) -> Reply {
        self.call(method, path, &[MARK, ("cookie", cookie)], body).await
    }

    async fn publish(&self, topic: &str, payload: &str) {
        self.bus.publish(Publication::new(TopicName::new(topic).unwrap(), payload.to_owned())).await.unwrap();
    }

    async fn stop(self) {
        self.rest.stop.cancel();
        self.rest.task.await.unwrap();
        self.broker.stop().await;
    }
}

fn code(reply: &Reply) -> (u16, String) {
    let body = reply.json();
    let code = body["error"]["code"].as_str().or_else(|| body["code"].as_str());
    (reply.status, code.unwrap_or_default().to_owned())
}

/// A reader of the live stream.
struct Reader {
    stream: TcpStream,
    text: String,
    head: String,
}

impl Reader {
    async fn open(address: SocketAddr, cookie: &str, filter: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "GET /console/live?filter={filter} HTTP/1.1\r\nhost: {address}\r\n{}: {}\r\ncookie: {cookie}\r\n\r\n",
            MARK.0, MARK.1
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut reader = Self { stream, text: String::new(), head: String::new() };
        reader.until(|text| text.contains("\r\n\r\n")).await;
        let (head, rest) = reader.text.split_once("\r\n\r\n").unwrap();
        (reader.head, reader.text) = (head.to_owned(), rest.to_owned());
        if reader.head.starts_with("HTTP/1.1 200") {
            // Whatever passes from now on is seen.
            reader.until(|text| text.contains(": \n\n")).await;
        }
        reader
    }

    /// Reads until the text fits; whether it does before the stream ends.
    async fn until(&mut self, fits: impl Fn(&str) -> bool) -> bool {
        let work = async {
            let mut chunk = [0; 64 << 10];
            while !fits(&self.text) {
                match self.stream.read(&mut chunk).await {
                    Ok(0) | Err(_) => return false,
                    Ok(count) => self.text.push_str(std::str::from_utf8(&chunk[..count]).unwrap()),
                }
            }
            true
        };
        tokio::time::timeout(PATIENCE, work).await.expect("the stream says what it should in time")
    }

    /// Reads until a word was said, and the event it is in to its end: each event is one chunk of HTTP.
    async fn until_said(&mut self, word: &str) -> bool {
        self.until(|text| text.contains(word) && text.ends_with("\n\n\r\n")).await
    }

    /// The events with messages so far.
    fn events(&self) -> Vec<Value> {
        let lines = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn messages(&self) -> Vec<Value> {
        self.events().iter().flat_map(|event| event["messages"].as_array().unwrap().clone()).collect()
    }

    fn not_shown(&self) -> u64 {
        self.events().iter().map(|event| event["notShown"].as_u64().unwrap()).sum()
    }
}

fn topics(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["topic"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_served_whole_and_locked_down() {
    let house = House::start(users());
    let mut ran = 0;
    for (path, kind) in [
        ("/console", "text/html; charset=utf-8"),
        ("/console/", "text/html; charset=utf-8"),
        ("/console/style.css", "text/css; charset=utf-8"),
        ("/console/main.js", "text/javascript; charset=utf-8"),
        ("/console/icon.svg", "image/svg+xml"),
    ] {
        let reply = house.call("GET", path, &[], None).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)), "{path}");
        let policy = reply.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "connect-src 'self'"] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{path}");
        }
        assert!(reply.header("set-cookie").is_none() && !reply.body.is_empty());
        ran += 1;
    }
    assert_eq!(ran, 5);
    for path in ["/console/nothing", "/console/../main.js", "/consolemain.js", "/console/page/main.js"] {
        assert_eq!(code(&house.call("GET", path, &[], None).await), (404, "not_found".into()), "{path}");
    }
    assert_eq!(house.call("POST", "/console", &[], Some("x")).await.status, 405);
    house.stop().await;
    let off = start_with(Generation::Head, settings(), |_| {});
    for path in ["/console", "/console/session", "/console/live"] {
        assert_eq!(off.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_in_and_out() {
    let house = House::start(users());
    let none = house.call("GET", "/console/session", &[MARK], None).await;
    assert_eq!(code(&none), (401, "log_in".into()));
    assert_eq!(code(&house.call("GET", "/console/session", &[], None).await), (400, "missing_value".into()));
    for (name, password, status, expected) in
        [("admin", "wrong", 401, "wrong"), ("nobody", "admin's", 401, "wrong"), ("plc", "plc's", 403, "no_right")]
    {
        let reply = house.log_in(name, password).await;
        assert_eq!(code(&reply), (status, expected.into()), "{name}");
        assert!(reply.header("set-cookie").is_none());
    }
    for body in ["", "{}", "[]", r#"{"user":"admin"}"#, r#"{"user":"admin","password":"x","more":1}"#] {
        assert_eq!(house.call("POST", "/console/session", &[MARK], Some(body)).await.status, 400, "{body}");
    }
    let reply = house.log_in("admin", "admin's").await;
    let cookie = reply.header("set-cookie").unwrap().to_owned();
    let name = format!("sense_butler_console_{}=", house.rest.address.port());
    assert!(cookie.starts_with(&name), "{cookie}");
    for part in ["; Path=/", "; HttpOnly", "; SameSite=Strict", "; Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "that would keep it from this machine's own plain port: {cookie}");
    let cookie = cookie.split_once(';').unwrap().0.to_owned();
    let known = house.as_visitor(&cookie, "GET", "/console/session", None).await.json();
    assert_eq!((&known["user"], &known["may"]["start"], &known["live"]), (&json!("admin"), &json!(true), &json!(true)));
    assert_eq!(known["ownTopics"], "q/own");
    let watcher = house.cookie("watcher").await;
    let known = house.as_visitor(&watcher, "GET", "/console/session", None).await.json();
    assert_eq!((&known["may"]["publish"], &known["may"]["start"]), (&json!(false), &json!(false)));

    let out = house.as_visitor(&cookie, "DELETE", "/console/session", None).await;
    assert_eq!(out.status, 204);
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    let late = house.as_visitor(&cookie, "GET", "/api/v1/status", None).await;
    assert_eq!(code(&late), (401, "session_ended".into()), "also on this machine, where a script needs no log-in");
    assert_eq!(house.call("GET", "/api/v1/status", &[], None).await.status, 200);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_guesses_is_refused_and_an_old_session_goes_on() {
    let house = House::start(users());
    let cookie = house.cookie("watcher").await;
    for _ in 0..5 {
        assert_eq!(house.log_in("admin", "guess").await.status, 401);
    }
    let refused = house.log_in("admin", "admin's").await;
    assert_eq!((code(&refused), refused.header("retry-after")), ((429, "login_rate".into()), Some("60")));
    assert_eq!(house.as_visitor(&cookie, "GET", "/api/v1/status", None).await.status, 200);
    // The broker's own log-in counts with it.
    let hello = Hello::v5("x").user("admin", "admin's");
    let (_, connack) = Raw::connect(house.broker.address, &hello).await;
    assert_eq!(connack.get(1), Some(&0x9f), "{connack:?}");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_opens_what_its_user_may() {
    let house = House::start(users());
    let (admin, watcher) = (house.cookie("admin").await, house.cookie("watcher").await);
    let publish = |topic: &str| json!({"topic": topic, "message": "m"}).to_string();
    let (open, start, own) = (publish("a/b"), publish("q/start"), publish("q/own/x"));
    let task = json!({"taskId": "5a1e5000-0000-4000-8000-000000000001", "deadlineSeconds": 0}).to_string();
    let stop = "/api/v1/executions/5a1e5000-0000-4000-8000-000000000001/stop";
    let mut ran = 0;
    for (method, path, body, for_admin, for_watcher) in [
        ("GET", "/api/v1/status", None, 200, 200),
        ("GET", "/metrics", None, 200, 200),
        ("GET", "/api/v1/broker/clients", None, 200, 200),
        ("GET", "/api/v1/broker/retained", None, 200, 200),
        ("GET", "/api/v1/broker/stats", None, 200, 200),
        ("GET", "/api/v1/executions", None, 200, 200),
        ("GET", "/api/v1/tasks", None, 503, 503),
        ("DELETE", "/api/v1/broker/clients/nobody", None, 404, 404),
        ("PUT", "/v4/mqttpublishmessage", Some(&open), 201, 403),
        ("PUT", "/v4/mqttpublishmessage", Some(&start), 201, 403),
        ("PUT", "/v4/mqttpublishmessage", Some(&own), 403, 403),
        ("DELETE", "/api/v1/broker/retained/a%2Fb", None, 404, 403),
        ("POST", "/api/v1/tasks/start", Some(&task), 503, 403),
        ("POST", stop, Some(&task), 503, 403),
        ("POST", "/console/test-event", Some(&task), 400, 403),
    ] {
        for (cookie, expected) in [(&admin, for_admin), (&watcher, for_watcher)] {
            let reply = house.as_visitor(cookie, method, path, body.map(String::as_str)).await;
            assert_eq!(reply.status, expected, "{method} {path}: {}", reply.text());
            ran += 1;
        }
        let nobody = house.call(method, path, &[MARK, ("cookie", "x=y")], body.map(String::as_str)).await;
        assert_eq!(code(&nobody), (401, "log_in".into()), "{path}");
    }
    assert_eq!(ran, 30);
    // Key-value pairs are not the console's: whoever is logged in gets no further than this machine does anyway.
    assert_eq!(house.as_visitor(&watcher, "GET", "/v4/keyvaluesnamespaces", None).await.status, 200);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_rules_hold_for_what_is_published() {
    let listed = User { publish: Some(vec![TopicFilter::new("plant/#").unwrap()]), ..user("admin", true, ALL) };
    let house = House::start(vec![listed]);
    let cookie = house.cookie("admin").await;
    for (topic, expected) in [("plant/x", 201), ("other", 403)] {
        let body = json!({"topic": topic, "message": "m"}).to_string();
        let reply = house.as_visitor(&cookie, "PUT", "/v4/mqttpublishmessage", Some(&body)).await;
        assert_eq!(reply.status, expected, "{topic}: {}", reply.text());
        // Under /api/v1, too; of several messages, one is enough for all to be refused.
        let (message, good) = (json!({"topic": topic, "payload": "m"}), json!({"topic": "plant/y", "payload": "m"}));
        for (path, body) in [("/api/v1/publish", message.clone()), ("/api/v1/publish/bulk", json!([good, message]))] {
            let reply = house.as_visitor(&cookie, "POST", path, Some(&body.to_string())).await;
            assert_eq!(reply.status == 403, expected == 403, "{path} {topic}: {}", reply.text());
            assert!(expected == 403 || reply.status < 300, "{path} {topic}: {}", reply.text());
        }
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_alone_is_nothing_and_other_pages_are_kept_out() {
    let house = House::start(users());
    let cookie = house.cookie("admin").await;
    let cookie = ("cookie", cookie.as_str());
    for (method, path) in [("GET", "/console/live"), ("POST", "/console/test-event"), ("DELETE", "/console/session")] {
        let reply = house.call(method, path, &[cookie], Some("")).await;
        assert_eq!(code(&reply), (400, "missing_value".into()), "{path}");
    }
    for (method, path) in
        [("GET", "/console"), ("GET", "/console/session"), ("POST", "/console/session"), ("GET", "/console/live")]
    {
        let origin = ("origin", "https://evil.example");
        let reply = house.call(method, path, &[cookie, MARK, origin], Some("")).await;
        assert_eq!(code(&reply), (403, "forbidden".into()), "{path}");
        let reply = house.call(method, path, &[cookie, MARK, ("host", "evil.example")], Some("")).await;
        assert_eq!(code(&reply), (403, "forbidden".into()), "{path}");
    }
    // A page whose origin is listed may use the REST API, and is not told that it may send the console's header.
    house.stop().await;
    let rest = RestSettings { allowed_origins: vec!["https://panel.example".into()], ..settings() };
    let house = House::start_at(users(), rest);
    let asked = [("origin", "https://panel.example"), ("access-control-request-headers", MARK.0)];
    let preflight = house.call("OPTIONS", "/console/session", &asked, None).await;
    assert!(!preflight.header("access-control-allow-headers").unwrap().contains(MARK.0));
    assert!(preflight.header("access-control-allow-credentials").is_none());
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_users_this_machine_needs_no_log_in() {
    let house = House::start(vec![]);
    let known = house.call("GET", "/console/session", &[MARK], None).await.json();
    assert_eq!((&known["user"], &known["may"]["publish"]), (&Value::Null, &json!(true)));
    let reader = Reader::open(house.rest.address, "", "%23").await;
    assert!(reader.head.starts_with("HTTP/1.1 200"), "{}", reader.head);
    house.stop().await;
    let house = House::start(vec![user("plc", false, ALL)]);
    let reply = house.call("GET", "/console/session", &[MARK], None).await;
    assert_eq!(code(&reply), (401, "no_member".into()), "as soon as there is a user, nobody comes in without");
    assert_eq!(code(&house.log_in("plc", "plc's").await), (401, "no_member".into()));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_seen_within_a_second_by_who_asked_for_its_topic() {
    let house = House::start(users());
    let cookie = house.cookie("watcher").await;
    let (mut all, mut some) = (
        Reader::open(house.rest.address, &cookie, "%23").await,
        Reader::open(house.rest.address, &cookie, "plant/%2B").await,
    );
    assert!(all.head.contains("content-type: text/event-stream") && all.head.contains("cache-control: no-store"));
    let begun = Instant::now();
    house.publish("q/own/event", "{}").await;
    let (mut client, _) = Raw::connect(house.broker.address, &Hello::v3("plc \"7\"")).await;
    let mut packet = Vec::new();
    support::raw::text(&mut packet, b"plant/line");
    packet.extend_from_slice("<b>å</b>\n\n".as_bytes());
    client.send(0x30, &packet).await;
    assert!(some.until_said("plant/line").await);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(all.until_said("plant/line").await);
    assert_eq!(topics(&all.messages()), ["q/own/event", "plant/line"]);
    let message = &some.messages()[0];
    assert_eq!(message["payload"], "<b>å</b>\n\n");
    assert_eq!(
        (&message["client"], &message["door"], &message["cut"]),
        (&json!("plc \"7\""), &json!("mqtt"), &json!(false))
    );
    assert_eq!((some.messages().len(), some.not_shown()), (1, 0));
    for (filter, status) in [("a%23", "400"), ("%2B", "200")] {
        let reader = Reader::open(house.rest.address, &cookie, filter).await;
        assert!(reader.head.starts_with(&format!("HTTP/1.1 {status}")), "{filter}: {}", reader.head);
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_sampled_counted_and_hides_no_event() {
    const FLOOD: u64 = 20_000;
    let house = House::start(users());
    let cookie = house.cookie("watcher").await;
    let mut reader = Reader::open(house.rest.address, &cookie, "%23").await;
    let begun = Instant::now();
    let flood = Bus::new(Embedded::new(house.broker.handle.clone(), Door::Rest));
    let topic = TopicName::new("flood").unwrap();
    let mut last = None;
    for _ in 0..FLOOD {
        last = Some(flood.submit(Publication::new(topic.clone(), "x")).await.unwrap());
    }
    last.unwrap().wait(PATIENCE).await.unwrap();
    house.publish("q/own/event", "{}").await;
    assert!(reader.until_said("q/own/event").await);
    let took = begun.elapsed().as_secs_f64();
    let all = || reader.messages().len() as u64 + reader.not_shown();
    assert_eq!(all(), FLOOD + 1, "every message is shown or counted");
    let most = 100.0 + 100.0 * (took + 1.0);
    assert!((reader.messages().len() as f64) <= most, "{} in {took} s", reader.messages().len());
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_few_and_give_their_place_back() {
    let house = House::start(users());
    let cookie = house.cookie("watcher").await;
    let mut readers = Vec::new();
    for _ in 0..live::MOST {
        let reader = Reader::open(house.rest.address, &cookie, "%23").await;
        assert!(reader.head.starts_with("HTTP/1.1 200"), "{}", reader.head);
        readers.push(reader);
    }
    let refused = Reader::open(house.rest.address, &cookie, "%23").await;
    assert!(refused.head.starts_with("HTTP/1.1 503"), "{}", refused.head);
    readers.pop();
    let begun = Instant::now();
    while !Reader::open(house.rest.address, &cookie, "%23").await.head.starts_with("HTTP/1.1 200") {
        assert!(begun.elapsed() < PATIENCE, "the place of a closed stream is not given back");
        // The pause between two looks.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_session_and_with_the_program() {
    let house = House::start(users());
    let (one, other) = (house.cookie("watcher").await, house.cookie("admin").await);
    let mut ending = Reader::open(house.rest.address, &one, "%23").await;
    let mut staying = Reader::open(house.rest.address, &other, "%23").await;
    house.as_visitor(&one, "DELETE", "/console/session", None).await;
    assert!(ending.until(|text| text.contains("event: end\n")).await);
    // Who loses the right in broker.toml is out as well.
    let mut changed = Running::settings();
    changed.users =
        users().into_iter().map(|user| User { console: user.console && &*user.name != "admin", ..user }).collect();
    house.broker.handle.reload(&changed);
    assert!(staying.until(|text| text.contains("event: end\n")).await);
    let cookie = house.cookie("watcher").await;
    let mut last = Reader::open(house.rest.address, &cookie, "%23").await;
    let begun = Instant::now();
    house.stop().await;
    assert!(!last.until(|_| false).await, "the stream ends");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_disconnected_by_who_is_logged_in() {
    let house = House::start(users());
    let cookie = house.cookie("watcher").await;
    let hello = Hello::v5("press").user("plc", "plc's");
    let (mut press, connack) = Raw::connect(house.broker.address, &hello).await;
    assert_eq!(connack.get(1), Some(&0), "{connack:?}");
    let reply = house.as_visitor(&cookie, "DELETE", "/api/v1/broker/clients/press", None).await;
    assert_eq!(reply.status, 204);
    let mut end = Vec::new();
    press.stream.read_to_end(&mut end).await.unwrap();
    assert_eq!(end.first(), Some(&0xe0), "{end:?}");
    house.stop().await;
}
