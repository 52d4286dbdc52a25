//! Everything that can go wrong on demand.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{FAILING, KEY, SAMPLE, SLOW, Site, client, datagram};

impl Site {
    async fn fault(&self, fault: Value) {
        let (status, body) = self.order("/fault", fault).await;
        assert_eq!(status, 204, "{body}");
    }

    /// A call whose answer may not come whole.
    async fn attempt(&self, method: Method, path: &str) -> Result<(u16, String), reqwest::Error> {
        let url = format!("{}{path}?xrfkey={KEY}", self.qrs);
        let response = self.client.request(method, url).header("X-Qlik-Xrfkey", KEY).send().await?;
        let status = response.status().as_u16();
        Ok((status, response.text().await?))
    }

    async fn started(&self) -> u64 {
        self.control("/starts").await["total"].as_u64().unwrap()
    }
}

#[tokio::test]
async fn a_start_whose_answer_is_lost_took_effect_or_not_and_the_oracle_knows() {
    let site = Site::start("lost", |_| {}).await;
    let cases =
        [("cutBefore", 0), ("cutAfter", 1), ("status", 0), ("statusAfter", 1), ("loginPage", 0), ("delayAfter", 1)];
    assert_eq!(cases.len(), 6);
    for (action, starts) in cases {
        site.fault(
            json!({ "path": "/qrs/task/*/start", "action": action, "status": 500, "text": "broken", "millis": 20 }),
        )
        .await;
        let before = site.started().await;
        let answer = site.attempt(Method::POST, &format!("/task/{SLOW}/start")).await;
        match action {
            "cutBefore" | "cutAfter" => assert!(answer.is_err(), "{action}: {answer:?}"),
            "status" | "statusAfter" => assert_eq!(answer.unwrap(), (500, "broken".to_owned())),
            "loginPage" => assert!(answer.unwrap().1.contains("<html>")),
            _ => assert_eq!(answer.unwrap(), (204, String::new())),
        }
        assert_eq!(site.started().await - before, starts, "{action}");
        site.order(&format!("/task/{SLOW}/abort"), json!({})).await;
        site.order("/clock", json!({ "advanceSeconds": 5 })).await;
    }
    let not = site.control("/starts").await["notStarted"].clone();
    assert_eq!(not["total"], 3);
    assert!(not["asked"].as_array().unwrap().iter().all(|wish| wish["reason"] == "fault" && wish["task"] == SLOW));
    site.finish().await;
}

#[tokio::test]
async fn a_start_that_is_never_answered_took_effect_or_not() {
    let site = Site::start("silent", |_| {}).await;
    for (action, task, starts) in [("never", SAMPLE, 0), ("neverAfter", FAILING, 1)] {
        site.fault(json!({ "path": "/qrs/task", "method": "POST", "action": action })).await;
        let url = format!("{}/task/{task}/start?xrfkey={KEY}", site.qrs);
        let silent = site.client.post(url).header("X-Qlik-Xrfkey", KEY).timeout(Duration::from_secs(1)).send().await;
        assert!(silent.unwrap_err().is_timeout(), "{action}");
        assert_eq!(site.started().await, starts, "{action}");
    }
    site.finish().await;
}

#[tokio::test]
async fn bodies_come_in_pieces_or_not_whole() {
    let site = Site::start("bodies", |_| {}).await;
    let whole = site.attempt(Method::GET, "/about").await.unwrap().1;
    site.fault(json!({ "path": "/qrs/about", "action": "drip", "millis": 20, "bytes": 50 })).await;
    let began = Instant::now();
    assert_eq!(site.attempt(Method::GET, "/about").await.unwrap().1, whole);
    let pauses = u32::try_from(whole.len().div_ceil(50) - 1).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(20) * pauses, "{:?}", began.elapsed());

    site.fault(json!({ "path": "/qrs/about", "action": "cutBody" })).await;
    let half = site.attempt(Method::GET, "/about").await;
    assert!(half.is_err(), "the head came, the body did not: {half:?}");
    site.fault(json!({ "path": "/qrs/about", "action": "truncate" })).await;
    let (status, text) = site.attempt(Method::GET, "/about").await.unwrap();
    assert_eq!((status, text.as_str()), (200, &whole[..whole.len() / 2]));

    site.fault(json!({ "path": "/qrs/task/full", "action": "huge", "bytes": 5_000_000 })).await;
    let (_, text) = site.attempt(Method::GET, "/task/full").await.unwrap();
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(text.len() >= 5_000_000 && rows.len() > 1_000, "{}", rows.len());
    site.fault(json!({ "path": "/qrs/about", "action": "contentType", "contentType": "text/plain" })).await;
    let odd = site.call(Method::GET, "/about").await;
    assert_eq!(odd.headers()["content-type"], "text/plain");
    site.fault(
        json!({ "path": "*", "action": "status", "status": 400, "text": "<h1>400</h1>", "contentType": "text/html" }),
    )
    .await;
    let page = site.call(Method::GET, "/about").await;
    assert_eq!((page.status().as_u16(), &page.headers()["content-type"]), (400, &"text/html".parse().unwrap()));
    site.finish().await;
}

#[tokio::test]
async fn answers_say_other_things_than_they_should() {
    let site = Site::start("edits", |_| {}).await;
    let session = site.start_task(SAMPLE).await;
    let results = || site.filtered("/executionresult/full", "status ne NeverStarted");
    site.fault(
        json!({ "path": "/qrs/executionresult*", "action": "edit", "set": { "status": 99 }, "remove": ["taskID"],
        "twice": true }),
    )
    .await;
    let odd = results().await;
    assert_eq!((odd.len(), &odd[0]["status"], odd[1].get("taskID")), (2, &json!(99), None));
    assert_eq!(results().await.len(), 1);

    // The session flaps: it is there, then 404, then there again.
    site.fault(json!({ "path": "/qrs/executionsession/*", "action": "status", "status": 404, "times": 2 })).await;
    let path = format!("/executionsession/{session}");
    let seen = [site.get(&path).await.0, site.get(&path).await.0, site.get(&path).await.0];
    assert_eq!(seen, [404, 404, 200]);

    // A result that appears late: for a second of ours it is not in the list.
    site.order(&format!("/task/{SAMPLE}/finish"), json!({})).await;
    site.fault(json!({ "path": "/qrs/executionresult*", "action": "late", "millis": 1_000, "forSeconds": 60 })).await;
    assert!(results().await.is_empty());
    let appears = async { while results().await.is_empty() {} };
    timeout(Duration::from_secs(10), appears).await.expect("the result appears");
    site.finish().await;
}

#[tokio::test]
async fn a_chance_falls_now_and_then_and_the_log_says_when() {
    let site = Site::start("chance", |_| {}).await;
    site.fault(json!({ "path": "/qrs/about", "action": "status", "status": 502, "probability": 0.5 })).await;
    let mut bad = 0;
    for _ in 0..60 {
        bad += usize::from(site.attempt(Method::GET, "/about").await.unwrap().0 == 502);
    }
    assert!((10..50).contains(&bad), "{bad}");
    let log = site.control("/log").await;
    let noted = log["requests"].as_array().unwrap().iter().filter(|request| request["fault"] == "status").count();
    assert_eq!(noted, bad);
    assert_eq!(site.control("/fault").await[0]["happened"], bad);
    let cleared = site.client.delete(format!("{}/fault", site.control)).send().await.unwrap();
    assert_eq!(cleared.status().as_u16(), 204);
    assert_eq!(site.control("/fault").await, json!([]));
    site.finish().await;
}

#[tokio::test]
async fn executions_end_in_states_they_never_reach_by_themselves() {
    let site = Site::start("odd-ends", |_| {}).await;
    for (verb, status) in [("skip", 9), ("error", 11), ("fail", 8)] {
        let session = site.start_task(SLOW).await;
        assert_eq!(site.order(&format!("/task/{SLOW}/{verb}"), json!({})).await.1, r#"{"executions":1}"#);
        assert_eq!(site.get(&format!("/executionsession/{session}")).await.0, 404);
        let results = site.filtered("/executionresult/full", &format!("ExecutionId eq {session}")).await;
        assert_eq!(results[0]["status"], status, "{verb}");
    }
    assert_eq!(site.order(&format!("/task/{SLOW}/explode"), json!({})).await.0, 404);
    site.finish().await;
}

#[tokio::test]
async fn a_handshake_can_stall() {
    let site = Site::start("stall", |_| {}).await;
    assert_eq!(site.order("/stall", json!({ "seconds": 60 })).await.0, 204);
    let stranger =
        client(&site.files, true).get(format!("{}/about?xrfkey={KEY}", site.qrs)).header("X-Qlik-Xrfkey", KEY);
    assert!(stranger.timeout(Duration::from_millis(300)).send().await.unwrap_err().is_timeout());
    assert_eq!(site.order("/stall", json!({ "seconds": 0 })).await.0, 204);
    assert_eq!(site.get("/about").await.0, 200);
    assert_eq!(site.order("/stall", json!({})).await.0, 400);
    site.finish().await;
}

#[tokio::test]
async fn any_bytes_leave_as_a_datagram() {
    let site = Site::start("raw", |_| {}).await;
    assert_eq!(site.order("/datagram", json!({ "text": "a;b\r\nException", "times": 2 })).await.0, 200);
    for _ in 0..2 {
        assert_eq!(datagram(&site.tasks).await, "a;b\r\nException");
    }
    assert_eq!(site.order("/datagram", json!({ "base64": "/wA=" })).await.0, 200);
    let mut buffer = [0; 16];
    let length = timeout(Duration::from_secs(10), site.tasks.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(&buffer[..length], [0xff, 0]);
    for wrong in [json!({}), json!({ "base64": "?" }), json!({ "text": "a", "base64": "YQ==" })] {
        assert_eq!(site.order("/datagram", wrong).await.0, 400);
    }
    site.finish().await;
}
