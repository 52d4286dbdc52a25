//! `/api/v1/broker` from outside: a broker and a REST server of this program, asked over HTTP and heard over MQTT.
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

use std::time::Duration;

use rest_support::{Reply, settings, start, start_with};
use sense_butler::{
    bus::{Bus, Door, embedded::Embedded},
    config::settings::Generation,
    names::TopicFilter,
};
use serde_json::{Value, json};
use support::{
    raw::{Hello, Raw},
    running::Running,
};

struct House {
    broker: Running,
    rest: rest_support::Running,
}

impl House {
    fn start() -> Self {
        let broker = Running::start(|_| {});
        let handle = broker.handle.clone();
        let rest = start_with(Generation::Head, settings(), |setup| {
            setup.desk = Some(handle.desk());
            setup.bus = Bus::new(Embedded::new(handle, Door::Rest));
            setup.protected_topics = vec![TopicFilter::new("q/own/#").unwrap()];
        });
        Self { broker, rest }
    }

    async fn call(&self, method: &str, path: &str) -> Reply {
        self.rest.connect().await.send(method, &format!("/api/v1/broker/{path}"), &[], None).await
    }

    async fn get(&self, path: &str) -> Value {
        let reply = self.call("GET", path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        reply.json()
    }

    /// Asks until the answer fits.
    async fn until(&self, path: &str, fits: impl Fn(&Reply) -> bool) -> Reply {
        for _ in 0..2_000 {
            let reply = self.call("GET", path).await;
            if fits(&reply) {
                return reply;
            }
            // The pause between two looks.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{path} does not become what it should");
    }

    async fn refused(&self, method: &str, path: &str, status: u16, code: &str) -> String {
        let reply = self.call(method, path).await;
        let body = reply.json();
        assert_eq!((reply.status, body["error"]["code"].as_str()), (status, Some(code)), "{method} {path}: {body}");
        assert!(body["error"]["request_id"].is_string(), "{body}");
        body["error"]["message"].as_str().unwrap().to_owned()
    }

    async fn stop(self) {
        self.rest.stop.cancel();
        self.rest.task.await.unwrap();
        self.broker.stop().await;
    }
}

fn fields(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_and_subscriptions_are_listed_and_found_by_their_encoded_names() {
    let house = House::start();
    let (mut raw, _) = Raw::connect(house.broker.address, &Hello::v5("plc/7 å+")).await;
    assert_eq!(raw.subscribe_with("plant/#", 2 | 4 | 8, &[0x0b, 42]).await, 2);
    let (kept, _) = Raw::connect(house.broker.address, &Hello::v3("a").kept()).await;
    drop(kept);
    let away = house.until("clients/a", |reply| reply.json()["connected"] == false).await.json();
    assert_eq!((&away["connection"], &away["session"]["persistent"]), (&Value::Null, &json!(true)));
    assert!(away["session"]["ends"].as_str().unwrap().ends_with('Z'), "{away}");

    let body = house.get("clients").await;
    assert_eq!(fields(&body), ["clients", "next"]);
    assert_eq!((body["clients"].as_array().unwrap().len(), &body["next"]), (2, &Value::Null));
    let client = &body["clients"][1];
    assert_eq!(
        fields(client),
        ["id", "user", "connected", "connection", "session", "subscriptions", "queue", "inFlight", "dropped"]
    );
    assert_eq!(
        fields(&client["connection"]),
        [
            "address",
            "listener",
            "protocol",
            "since",
            "keepAliveSeconds",
            "messagesIn",
            "messagesOut",
            "bytesIn",
            "bytesOut"
        ]
    );
    assert_eq!((&client["id"], &client["connection"]["protocol"]), (&json!("plc/7 å+"), &json!("5.0")));
    assert_eq!(client["session"], json!({"persistent": false, "expirySeconds": 0, "ends": null}));
    let one = house.get("clients/plc%2F7%20%C3%A5+").await;
    assert_eq!((&one["id"], &one["subscriptions"]), (&json!("plc/7 å+"), &json!(1)));

    let row = json!({
        "client": "plc/7 å+", "filter": "plant/#", "qos": 2, "noLocal": true, "retainAsPublished": true, "id": 42
    });
    let all = house.get("subscriptions").await;
    assert_eq!(all, json!({"subscriptions": [row], "next": null}));
    assert_eq!(house.get("subscriptions?client=plc%2F7+%C3%A5%2B").await, all);
    assert_eq!(house.get("subscriptions?client=a").await, json!({"subscriptions": [], "next": null}));

    // Page by page.
    let first = house.get("clients?limit=1").await;
    assert_eq!((first["clients"].as_array().unwrap().len(), &first["clients"][0]["id"]), (1, &json!("a")));
    let next = first["next"].as_str().unwrap();
    let second = house.get(&format!("clients?limit=1&from={next}")).await;
    assert_eq!((&second["clients"][0]["id"], &second["next"]), (&json!("plc/7 å+"), &Value::Null));

    let mut ran = 0;
    for (path, code) in [
        ("clients?limit=0", "invalid_value"),
        ("clients?limit=1001", "invalid_value"),
        ("retained?limit=201", "invalid_value"),
        ("clients?from=!", "invalid_value"),
        ("clients?lmit=5", "invalid_value"),
        ("clients/a?x=1", "invalid_value"),
        ("clients/%ff", "invalid_value"),
        ("clients/a%00", "invalid_value"),
        ("retained?filter=a%23", "invalid_value"),
        ("subscriptions?client=%00", "invalid_value"),
    ] {
        house.refused("GET", path, 400, code).await;
        ran += 1;
    }
    assert_eq!(ran, 10);
    assert!(house.refused("GET", "clients/nobody", 404, "not_found").await.contains("`nobody`"));
    house.refused("GET", "clients/a/b", 404, "not_found").await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_sent_away() {
    let house = House::start();
    let (mut raw, _) = Raw::connect(house.broker.address, &Hello::v5("plc/7").kept()).await;
    assert_eq!(house.call("DELETE", "clients/plc%2F7").await.status, 204);
    let (first, body) = raw.receive().await.unwrap();
    assert_eq!((first, body[0]), (0xe0, 0x98));
    assert!(raw.is_closed().await);
    house.until("clients/plc%2F7", |reply| reply.json()["connected"] == false).await;
    let message = house.refused("DELETE", "clients/plc%2F7", 409, "conflict").await;
    assert!(message.contains("?session=true"), "{message}");
    house.refused("DELETE", "clients/plc%2F7?session=yes", 400, "invalid_value").await;
    // As load scripts can send it.
    let headers = [("x-http-method-override", "DELETE")];
    let path = "/api/v1/broker/clients/plc%2F7?session=true";
    let reply = house.rest.connect().await.send("POST", path, &headers, Some(b"")).await;
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    house.refused("DELETE", "clients/plc%2F7?session=true", 404, "not_found").await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_messages_are_shown_and_removed() {
    let house = House::start();
    let (mut raw, _) = Raw::connect(house.broker.address, &Hello::v5("publisher")).await;
    let large = vec![b'x'; 5_000];
    let messages = [
        ("a/text", "grüße".as_bytes(), &[][..]),
        ("a/bytes", &[0xff, 0xfe], &[0x02, 0, 0, 0, 100]),
        ("a/large", &large, &[]),
        ("b", b"1", &[]),
    ];
    for (number, (topic, payload, properties)) in messages.iter().enumerate() {
        raw.publish_with(0x33, topic, number as u16 + 1, properties, payload).await;
        assert_eq!(raw.receive().await.unwrap().0, 0x40);
    }
    let body = house.get("retained").await;
    let topics: Vec<_> =
        body["retained"].as_array().unwrap().iter().map(|row| row["topic"].as_str().unwrap()).collect();
    assert_eq!(topics, ["a/bytes", "a/large", "a/text", "b"]);
    let (bytes, long, text) = (&body["retained"][0], &body["retained"][1], &body["retained"][2]);
    assert_eq!((&bytes["encoding"], &bytes["payload"], &bytes["size"]), (&json!("base64"), &json!("//4="), &json!(2)));
    assert!((90..=100).contains(&bytes["expiresInSeconds"].as_u64().unwrap()), "{bytes}");
    assert_eq!(
        (long["payload"].as_str().unwrap().len(), &long["cut"], &long["size"]),
        (4096, &json!(true), &json!(5000))
    );
    assert_eq!(
        *text,
        json!({
            "topic": "a/text", "qos": 1, "size": 7, "expiresInSeconds": null, "encoding": "text", "payload": "grüße",
            "cut": false
        })
    );
    let alone = house.get("retained?filter=a/large").await;
    assert_eq!(alone["retained"][0]["payload"].as_str().unwrap().len(), 5_000);
    let first = house.get("retained?filter=a/%2B&limit=2").await;
    let second = house.get(&format!("retained?filter=a/%2B&limit=2&from={}", first["next"].as_str().unwrap())).await;
    assert_eq!((&second["retained"][0]["topic"], &second["next"]), (&json!("a/text"), &Value::Null));

    // Who listens is told as by any publication that clears.
    let (mut watcher, _) = Raw::connect(house.broker.address, &Hello::v3("watcher")).await;
    assert_eq!(watcher.subscribe_with("a/text", 1, &[]).await, 1);
    assert_eq!(watcher.receive_publish().await.payload, "grüße".as_bytes());
    assert_eq!(house.call("DELETE", "retained/a%2Ftext").await.status, 204);
    let told = watcher.receive_publish().await;
    assert_eq!((told.topic.as_str(), told.payload.len(), told.retain), ("a/text", 0, false));
    house.refused("DELETE", "retained/a%2Ftext", 404, "not_found").await;
    assert_eq!(house.get("retained?filter=a/text").await["retained"], json!([]));

    // The program's own topics are the program's, and a start topic keeps nothing.
    house.refused("DELETE", "retained/q%2Fown%2Fstate", 403, "forbidden").await;
    house.refused("DELETE", "retained/q%2Fstart", 404, "not_found").await;
    house.refused("DELETE", "retained/%24SYS%2Fbroker%2Fuptime", 400, "invalid_value").await;
    house.refused("DELETE", "retained/a%2F%23", 400, "invalid_value").await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_in_numbers() {
    let house = House::start();
    let (mut raw, _) = Raw::connect(house.broker.address, &Hello::v3("one")).await;
    assert_eq!(raw.subscribe("$share/g/t", 1).await, 1);
    raw.publish_with(0x33, "kept", 1, &[], b"12345").await;
    assert_eq!(raw.receive().await.unwrap().0, 0x40);
    let body = house.until("stats", |reply| reply.json()["received"]["messages"] == 1).await.json();
    assert_eq!(
        fields(&body),
        [
            "since",
            "uptimeSeconds",
            "clients",
            "subscriptions",
            "retained",
            "queued",
            "inFlight",
            "received",
            "sent",
            "dropped",
            "unmatched",
            "perMinute"
        ]
    );
    assert_eq!(body["clients"], json!({"connected": 1, "disconnected": 0, "maximum": 1, "expired": 0}));
    assert_eq!(body["subscriptions"], json!({"count": 1, "shared": 1}));
    assert_eq!((&body["retained"]["messages"], &body["queued"]), (&json!(1), &json!({"messages": 0, "bytes": 0})));
    assert_eq!((&body["received"]["packets"], &body["received"]["payloadBytes"]), (&json!(3), &json!(5)));
    assert_eq!((&body["inFlight"], &body["dropped"]), (&json!(0), &json!(0)));
    assert_eq!(body["perMinute"].as_object().unwrap().len(), 9);
    assert_eq!(fields(&body["perMinute"]["bytes/sent"]), ["1min", "5min", "15min"]);
    house.stop().await;
}

const PATHS: [(&str, &str); 6] = [
    ("clients", "GET, HEAD"),
    ("clients/x", "GET, HEAD, DELETE"),
    ("subscriptions", "GET, HEAD"),
    ("retained", "GET, HEAD"),
    ("retained/x", "DELETE"),
    ("stats", "GET, HEAD"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_are_those_of_the_router() {
    let house = House::start();
    let mut ran = 0;
    for (path, allow) in PATHS {
        let options = house.call("OPTIONS", path).await;
        assert_eq!((options.status, options.header("allow")), (204, Some(&*format!("{allow}, OPTIONS"))), "{path}");
        let put = house.call("PUT", path).await;
        assert_eq!((put.status, put.header("allow")), (405, Some(allow)), "{path}");
        let head = house.call("HEAD", path).await;
        let expected = if !allow.contains("HEAD") {
            405
        } else if path == "clients/x" {
            404
        } else {
            200
        };
        assert_eq!((head.status, head.body.len()), (expected, 0), "{path}");
        ran += 1;
    }
    assert_eq!(ran, 6);
    house.stop().await;
}

#[tokio::test]
async fn a_broker_elsewhere_is_not_shown() {
    let server = start(Generation::Head, settings());
    let mut ran = 0;
    for (path, allow) in PATHS {
        let method = if allow.contains("GET") { "GET" } else { "DELETE" };
        let reply = server.connect().await.send(method, &format!("/api/v1/broker/{path}"), &[], None).await;
        let body = reply.json();
        assert_eq!((reply.status, &body["error"]["code"]), (501, &json!("not_offered")), "{path}");
        assert!(body["error"]["message"].as_str().unwrap().contains("only the built-in broker"), "{body}");
        ran += 1;
    }
    assert_eq!(ran, 6);
}
