//! The rest of a site: what else it lists, who sees what, who is called, restarts, its clock, thousands of tasks.

use std::time::{Duration, Instant};

use reqwest::Method;
use sense_butler::sense::simulator::{ServerCertificate, SiteSource, TlsChoices, TlsVersions};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

use crate::support::{KEY, NOBODY, SAMPLE, SLOW, Site, client, datagram, encode};

#[tokio::test]
async fn tags_properties_users_triggers_and_enumerations_are_listed() {
    let site = Site::start("subjects", |_| {}).await;
    let tags = site.filtered("/tag/full", "name sw 'director\\'s'").await;
    assert_eq!(tags.len(), 1);
    let task = site.filtered("/task/full", "tags.name eq 'Director\\'s'").await;
    assert_eq!(task[0]["tags"][0]["id"], tags[0]["id"]);
    let properties = site.filtered("/custompropertydefinition/full", "objectTypes eq 'ReloadTask'").await;
    let names: Vec<&str> = properties.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Department", "StartBy"]);
    assert!(properties[1]["choiceValues"].as_array().unwrap().contains(&json!("mqtt")));
    let users = site.filtered("/user/full", "userId eq 'editor'").await;
    assert_eq!(users[0]["roles"], json!(["ContentAdmin"]));
    let events = site.list("/event/full").await;
    let chained = events.iter().filter(|event| event["eventType"] == 1).count();
    assert_eq!((chained, site.list("/compositeevent/full").await.len()), (2, 2));
    assert_eq!(site.list("/schemaevent").await.len(), events.len() - 2);
    let rule = &site.filtered("/event/full", "compositeRules.ruleState eq TaskFail").await[0]["compositeRules"][0];
    assert_eq!(rule["reloadTask"]["name"], "Reload Finanzübersicht");
    let enums: Value = serde_json::from_str(&site.get("/about/api/enums").await.1).unwrap();
    assert_eq!(enums["StatusEnum"]["values"][10], "10: Retry");
    assert_eq!(site.filtered("/stream", "name eq 'plant'").await.len(), 1);
    assert_eq!(site.get("/license").await.0, 200);
    for path in ["/about/api/description", "/app/full", "/usersynctask/full", "/executionresult/count"] {
        assert_eq!(site.get(path).await.0, 200, "{path}");
    }
    let ordered = site.list("/task?orderby=taskType%20desc,name%20asc").await;
    assert_eq!((&ordered[0]["taskType"], &ordered[1]["taskType"]), (&json!(4), &json!(3)));
    site.finish().await;
}

#[tokio::test]
async fn the_triggers_of_a_task_are_read_by_a_selection() {
    let site = Site::start("selection", |_| {}).await;
    let chained = "5a1e5000-0000-4000-8000-000000000010";
    let items = json!({ "items": [{ "type": "ReloadTask", "objectID": chained }] }).to_string();
    let (status, body) = site.call_as("editor", Method::POST, "/selection", items.clone()).await;
    assert_eq!(status, 201, "{body}");
    let id = serde_json::from_str::<Value>(&body).unwrap()["id"].as_str().unwrap().to_owned();
    let triggers = site.list(&format!("/selection/{id}/Event/full")).await;
    assert_eq!((triggers.len(), &triggers[0]["reloadTask"]["id"]), (1, &json!(chained)));
    assert_eq!(site.list(&format!("/selection/{id}/ReloadTask/full")).await[0]["id"], chained);
    assert_eq!(site.call_as("reader", Method::POST, "/selection", items).await.0, 403);
    assert_eq!(site.call_as("goran", Method::POST, "/selection", "{}").await.0, 400);
    let path = format!("/selection/{id}");
    assert_eq!(site.call_as("goran", Method::DELETE, &path, "").await.0, 204);
    assert_eq!(site.call_as("goran", Method::DELETE, &path, "").await.0, 404);
    site.finish().await;
}

#[tokio::test]
async fn each_role_sees_what_it_may() {
    let site = Site::start("roles", |_| {}).await;
    let count = |user: &'static str, path: &'static str| async {
        let (status, body) = site.call_as(user, Method::GET, path, "").await;
        let rows = serde_json::from_str::<Vec<Value>>(&body).map(|rows| rows.len()).ok();
        (status, rows)
    };
    let all = count("goran", "/task").await.1.unwrap();
    let cases = [
        ("editor", "/task", 200, Some(all - 3)),
        ("editor", "/externalprogramtask", 200, Some(0)),
        ("editor", "/user", 200, Some(0)),
        ("editor", "/license", 404, None),
        ("reader", "/task/full", 200, Some(0)),
        ("reader", "/executionsession", 200, Some(0)),
        ("left-company", "/task", 403, None),
        ("stranger", "/task", 403, None),
    ];
    assert_eq!(cases.len(), 8);
    for (user, path, status, rows) in cases {
        assert_eq!(count(user, path).await, (status, rows), "{user} {path}");
    }
    let one = format!("/reloadtask/{SAMPLE}");
    for (user, status) in [("goran", 200), ("editor", 200), ("reader", 404), ("left-company", 403)] {
        assert_eq!(site.call_as(user, Method::GET, &one, "").await.0, status, "{user}");
    }
    site.finish().await;
}

/// A receiver of change notifications: the arrays that come, one call after the other, each answered 200.
async fn receive(listener: &TcpListener) -> Vec<Value> {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut text = Vec::new();
    loop {
        let mut part = [0; 4_096];
        let length = stream.read(&mut part).await.unwrap();
        text.extend_from_slice(&part[..length]);
        let whole = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = whole.split_once("\r\n\r\n") else { continue };
        let length =
            head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned));
        if body.len() == length.unwrap().parse::<usize>().unwrap() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.unwrap();
            return serde_json::from_str(body).unwrap();
        }
    }
}

#[tokio::test]
async fn subscribers_are_called_until_a_restart() {
    let site = Site::start("notify", |settings| settings.speed = 50.0).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = json!(format!("http://{}/secret", listener.local_addr().unwrap())).to_string();
    let filter = encode("status eq FinishedSuccess");
    let path = format!("/notification?name=ExecutionResult&changetype=2&propertyName=status&filter={filter}");
    let (status, body) = site.call_as("goran", Method::POST, &path, url.clone()).await;
    assert_eq!(status, 201, "{body}");
    let handle = serde_json::from_str::<Value>(&body).unwrap()["value"].as_str().unwrap().to_owned();
    let refused = [
        ("/notification?name=ExecutionResult".to_owned(), url.clone()),
        ("/notification?name=Nothing&changetype=2".to_owned(), url.clone()),
        ("/notification?name=ExecutionResult&changetype=2&filter=x".to_owned(), url.clone()),
        ("/notification?name=ExecutionResult&changetype=2".to_owned(), "no address".to_owned()),
    ];
    assert_eq!(refused.len(), 4);
    for (path, body) in refused {
        assert_eq!(site.call_as("goran", Method::POST, &path, body).await.0, 400, "{path}");
    }
    let session = site.start_task(SAMPLE).await;
    let told = timeout(Duration::from_secs(10), receive(&listener)).await.expect("the subscriber is called");
    assert_eq!((told.len(), &told[0]["objectType"], &told[0]["changeType"]), (1, &json!("ExecutionResult"), &json!(2)));
    let result = site.get(&format!("/executionresult/{}", told[0]["objectID"].as_str().unwrap())).await;
    assert_eq!(serde_json::from_str::<Value>(&result.1).unwrap()["executionID"], session);
    let changes = site.list("/notification/changes?types=ExecutionSession").await;
    assert_eq!((changes.len(), &changes[0]["changeType"], &changes[1]["changeType"]), (2, &json!(1), &json!(3)));

    assert_eq!(site.control("/notifications").await["subscriptions"].as_array().unwrap().len(), 1);
    site.order("/restart", json!({ "downSeconds": 0, "initialisingSeconds": 0 })).await;
    assert_eq!(site.control("/notifications").await["subscriptions"], json!([]));
    let path = format!("/notification?handle={handle}");
    assert_eq!(site.call_as("goran", Method::DELETE, &path, "").await.0, 404, "the restart forgot it");
    site.finish().await;
}

#[tokio::test]
async fn a_restart_takes_sessions_and_connections_with_it() {
    let site = Site::start("restart", |_| {}).await;
    let session = site.start_task(SLOW).await;
    let (status, body) = site.order("/restart", json!({ "downSeconds": 0.5, "initialisingSeconds": 0.5 })).await;
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()["executionsReset"].clone()), (200, json!(1)));
    let about = || site.client.get(format!("{}/about?xrfkey={KEY}", site.qrs)).header("X-Qlik-Xrfkey", KEY).send();
    let coming_back = async {
        let (mut refused, mut initialising) = (0, 0);
        loop {
            match about().await {
                Err(error) => {
                    assert_eq!(initialising, 0, "{error}");
                    refused += 1;
                }
                Ok(answer) if answer.status().as_u16() == 503 => initialising += 1,
                Ok(answer) => {
                    assert_eq!(answer.status().as_u16(), 200);
                    return (refused, initialising);
                }
            }
        }
    };
    let (refused, initialising) = timeout(Duration::from_secs(10), coming_back).await.expect("it comes back");
    assert!(refused > 0 && initialising > 0, "{refused} {initialising}");
    assert_eq!(site.get(&format!("/executionsession/{session}")).await.0, 404);
    let results = site.filtered("/executionresult/full", &format!("ExecutionId eq {session}")).await;
    assert_eq!(results[0]["status"], 12);
    site.finish().await;
}

#[tokio::test]
async fn the_clock_can_be_put_forward_and_skewed() {
    let site = Site::start("clock", |settings| settings.speed = 0.01).await;
    let session = site.start_task(SLOW).await;
    let (status, body) = site.order("/clock", json!({ "advanceSeconds": 3_600, "speed": 2 })).await;
    let clock: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &clock["speed"]), (200, &json!(2.0)));
    site.until_done(&session).await;
    assert!(datagram(&site.tasks).await.contains(&session));
    let sent = site.control("/datagrams").await;
    assert!(sent["list"][0]["text"].as_str().unwrap().contains(&session));
    let before = site.filtered("/executionresult/full", &format!("ExecutionId eq {session}")).await;
    site.order("/clock", json!({ "skewSeconds": -7_200 })).await;
    let after = site.filtered("/executionresult/full", &format!("ExecutionId eq {session}")).await;
    assert!(after[0]["stopTime"].as_str() < before[0]["stopTime"].as_str());
    for wrong in [json!({}), json!({ "speed": 0 }), json!({ "advanceSeconds": -1 })] {
        assert_eq!(site.order("/clock", wrong).await.0, 400);
    }
    site.finish().await;
}

#[tokio::test]
async fn tls_goes_wrong_as_asked() {
    use ServerCertificate::{Expired, NoNames, Sound, UnknownAuthority, WrongName};
    let cases = [
        (Expired, TlsVersions::Both, false),
        (WrongName, TlsVersions::Both, false),
        (NoNames, TlsVersions::Both, false),
        (UnknownAuthority, TlsVersions::Both, false),
        (Sound, TlsVersions::Only12, true),
        (Sound, TlsVersions::Only13, true),
    ];
    assert_eq!(cases.len(), 6);
    for (number, (certificate, versions, trusted)) in cases.into_iter().enumerate() {
        let tls = TlsChoices { certificate, versions, soft: false };
        let site = Site::start(&format!("tls-{number}"), |settings| settings.tls = tls).await;
        let about =
            site.client.get(format!("{}/about?xrfkey={KEY}", site.qrs)).header("X-Qlik-Xrfkey", KEY).send().await;
        assert_eq!(about.is_ok(), trusted, "{certificate:?} {versions:?}: {about:?}");
        site.finish().await;
    }
    let tls = TlsChoices { soft: true, ..TlsChoices::default() };
    let site = Site::start("tls-soft", |settings| settings.tls = tls).await;
    let url = format!("{}/task/{SAMPLE}/start?xrfkey={KEY}", site.qrs);
    let stranger = client(&site.files, false).post(url).header("X-Qlik-Xrfkey", KEY).send().await.unwrap();
    assert_eq!(stranger.status().as_u16(), 403);
    assert_eq!(site.control("/starts").await["notStarted"]["asked"][0]["reason"], "no certificate");
    assert_eq!(site.get("/about").await.0, 200);
    site.finish().await;
}

#[tokio::test]
async fn datagrams_are_lost_and_doubled_as_asked() {
    let site = Site::start("mishaps", |settings| settings.speed = 100.0).await;
    for wrong in [json!({ "loss": 2 }), json!({ "typo": 1 }), json!([])] {
        assert_eq!(site.order("/datagrams", wrong).await.0, 400);
    }
    assert_eq!(site.order("/datagrams", json!({ "loss": 1 })).await.0, 204);
    let lost = site.start_task(SAMPLE).await;
    site.until_done(&lost).await;
    // The session ends before the datagram leaves.
    let leaves = async { while site.control("/datagrams").await["list"] == json!([]) {} };
    timeout(Duration::from_secs(10), leaves).await.expect("the datagram is lost");
    assert_eq!(site.order("/datagrams", json!({ "duplicate": 1 })).await.0, 204);
    let doubled = site.start_task(SAMPLE).await;
    for _ in 0..2 {
        assert!(datagram(&site.tasks).await.contains(&doubled));
    }
    let sent = site.control("/datagrams").await;
    assert_eq!(
        (&sent["list"][0]["times"], &sent["list"][1]["times"], &sent["total"]),
        (&json!(0), &json!(2), &json!(2))
    );
    site.finish().await;
}

/// Also a measure: `cargo test --test simulator ten_thousand -- --nocapture` prints the rates.
#[tokio::test]
async fn ten_thousand_tasks_are_no_burden() {
    let text = format!(
        "sampleTask: {SAMPLE}\nnodes: [{{name: n, slots: 100000}}]\nusers: [{{directory: LAB, id: goran, role: admin}}]\n\
         tasks: [{{id: {SAMPLE}, name: many, tags: [all], duration: 3600, copies: 10000}}]\n"
    );
    let site = Site::start("many", |settings| settings.site = SiteSource::Text(text)).await;
    assert_eq!(site.get("/task/count").await.1, json!({ "value": 10_000 }).to_string());
    let id = |number: u128| {
        let id = format!("{:032x}", 0x5a1e_5000_0000_4000_8000_0000_0000_0001_u128 + number);
        format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..])
    };
    let began = Instant::now();
    for number in 0..300 {
        let found = site.filtered("/task/full", &format!("id eq {}", id(number * 33))).await;
        assert_eq!(found.len(), 1);
    }
    println!("{:.0} tasks by id per second", 300.0 / began.elapsed().as_secs_f64());
    let began = Instant::now();
    for number in 0..300 {
        let session = site.start_task(&id(number * 33)).await;
        let filter = format!("ExecutionId eq {session}");
        assert_eq!(site.filtered("/executionresult/full", &filter).await.len(), 1);
        // Whoever does not know the kind of a task asks for all three.
        let task = id(number * 33);
        let kinds = ["reloadTask", "externalProgramTask", "userSyncTask"].map(|kind| format!("({kind}.id eq {task})"));
        let running = site.filtered("/executionsession", &kinds.join(" or ")).await;
        assert_eq!((running.len(), &running[0]["id"]), (1, &json!(session)));
    }
    println!("{:.0} starts with their results and sessions per second", 300.0 / began.elapsed().as_secs_f64());
    let several = format!("id eq {} or id eq {} or id eq {NOBODY}", id(5), id(9_999));
    assert_eq!(site.filtered("/task", &several).await.len(), 2);
    site.finish().await;
}
