//! The real program beside the real simulator, without a single datagram: events come by polling, then by notification.
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

use app::{App, Dir, PATIENCE, http};
use mqtt::Client;
use rumqttc::QoS;
use serde_json::Value;

/// A task of the built-in site that ends well.
const TASK: &str = "5a1e5000-0000-4000-8000-000000000001";

struct Site {
    app: App,
    qrs: u16,
    control: u16,
}

impl Site {
    async fn start(dir: &Dir) -> Self {
        let arguments = [
            "simulate",
            "--plain",
            "--qrs",
            "127.0.0.1:0",
            "--control",
            "127.0.0.1:0",
            "--send-to",
            "127.0.0.1:1",
            "--sessions-to",
            "127.0.0.1:1",
            "--rate",
            "0",
            "--speed",
            "50",
            "--seed",
            "1",
        ];
        let app = App::start(dir, &arguments);
        let port = |text: &str, marker: &str| {
            let rest = text.split_once(marker)?.1;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let (qrs, control) = app
            .printed(|text| {
                Some((port(text, "http://127.0.0.1:")?, port(text.split_once("control ")?.1, "127.0.0.1:")?))
            })
            .await;
        Self { app, qrs, control }
    }

    /// Starts the task as a schedule does; the execution.
    async fn run_task(&self) -> String {
        let (status, body) = http(self.control, "POST", &format!("/control/task/{TASK}/start"), &[], "{}").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["executionId"].as_str().unwrap().to_owned()
    }
}

fn configuration(qrs: u16, sources: &str) -> String {
    format!(
        "Butler:\n  mqttConfig: {{enable: true, taskSuccessSend: true, taskSuccessSendFull: true, qrsEnrichmentWaitMs: 5000}}\n  \
         configQRS: {{host: 127.0.0.1, port: {qrs}, useSSL: false}}\n  eventSources:\n{sources}"
    )
}

async fn event_of(client: &mut Client, execution: &str) -> Value {
    loop {
        let event = client.json("qliksense/butler/event").await;
        if event["data"]["executionId"] == execution {
            return event;
        }
    }
}

#[tokio::test]
async fn events_come_without_datagrams() {
    let dir = Dir::new();
    let site = Site::start(&dir).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let slow = format!(
        "    notifications: {{enable: true, listen: '127.0.0.1:{port}', callback: 'http://127.0.0.1:{port}'}}\n"
    );
    let mut ran = 0;
    for (sources, origin) in
        [("    polling: {enable: true, intervalSeconds: 1}\n", "polling"), (slow.as_str(), "notification")]
    {
        let file = dir.write("butler.yaml", &configuration(site.qrs, sources));
        let app = App::run(&dir, &["-c", file.to_str().unwrap()]).await;
        let mut client = Client::connect(app.mqtt().await, "watcher").await;
        client.subscribe("qliksense/#", QoS::AtLeastOnce).await;
        if origin == "notification" {
            app.printed(|text| text.contains("tells of changes").then_some(())).await;
        }
        let execution = site.run_task().await;
        let full = client.json("qliksense/task_success_full").await;
        assert_eq!((full["executionId"].as_str(), full["taskId"].as_str()), (Some(&*execution), Some(TASK)), "{full}");
        assert!(full["qs_taskTags"].is_array() && full.get("eventSource").is_none(), "{full}");
        let event = event_of(&mut client, &execution).await;
        assert_eq!(
            (event["type"].as_str(), event["data"]["eventSource"].as_str()),
            (Some("sense.task.succeeded"), Some(origin)),
            "{event}"
        );
        assert!(event["data"]["qs_appOwner"]["userId"].is_string(), "{event}");
        // The broker's word on the last message may come behind the message.
        let accepted = async {
            while !app.get("/metrics").await.1.contains("sense_butler_events_accepted_total 1\n") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, accepted).await.expect("one event, and no other");
        app.stop().await;
        ran += 1;
    }
    assert_eq!(ran, 2);
    site.app.stop().await;
}
