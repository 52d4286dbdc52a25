//! What a client that starts tasks and follows them to their end needs.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{DISABLED, FAILING, KEY, NOBODY, SAMPLE, SLOW, Site, ZERO, names};

const RETRIES: &str = "5a1e5000-0000-4000-8000-00000000000d";
const EXTERNAL: &str = "5a1e5000-0000-4000-8000-000000000008";
const USER_SYNC: &str = "5a1e5000-0000-4000-8000-00000000000b";
const LIMITED: &str = "5a1e5000-0000-4000-8000-00000000000e";

#[tokio::test]
async fn retries_have_results_of_their_own_and_one_session() {
    let site = Site::start("retries", |settings| settings.speed = 50.0).await;
    let session = site.start_task(RETRIES).await;
    site.until_done(&session).await;
    let of = format!("ExecutionId eq {session}");
    let results = site.filtered("/executionresult/full", &of).await;
    let statuses: Vec<i64> = results.iter().map(|row| row["status"].as_i64().unwrap()).collect();
    assert_eq!(statuses, [8, 8, 7]);
    assert!(results.iter().all(|row| row["executionID"] == session && row["taskID"] == RETRIES));
    let failed = format!("{of} and status eq FinishedFail");
    assert_eq!(site.filtered("/executionresult", &failed).await.len(), 2);
    let errors = results[0]["details"].as_array().unwrap().iter().filter(|detail| detail["detailsType"] == 0);
    assert_eq!(errors.count(), 1);
    assert_eq!(site.control("/starts").await["total"], 1);
    // By date, as a poller asks.
    let last = results[2]["modifiedDate"].as_str().unwrap();
    assert_eq!(site.filtered("/executionresult/full", &format!("modifiedDate ge '{last}'")).await.len(), 1);
    assert!(site.filtered("/executionresult/full", &format!("modifiedDate gt '{last}'")).await.is_empty());
    let first = results[0]["startTime"].as_str().unwrap();
    let range = format!("startTime ge '{first}' and createdDate lt '{last}' and taskID eq {RETRIES}");
    assert_eq!(site.filtered("/executionresult/full", &range).await.len(), 3);
    site.finish().await;
}

#[tokio::test]
async fn sessions_are_found_by_each_kind_of_task_and_end() {
    let site = Site::start("sessions", |_| {}).await;
    for (task, property) in [(EXTERNAL, "externalProgramTask"), (USER_SYNC, "userSyncTask"), (SAMPLE, "reloadTask")] {
        let session = site.start_task(task).await;
        for filter in [format!("{property}.id eq {task}"), format!("id eq {session}")] {
            let found = site.filtered("/executionsession/full", &filter).await;
            assert_eq!((found.len(), &found[0]["id"]), (1, &json!(session)), "{filter}");
            assert_eq!(found[0][property]["id"], task);
        }
        site.until_done(&session).await;
        assert_eq!(site.get(&format!("/executionsession/{session}")).await.0, 404);
    }
    // The time limit is a minute of the site's clock: no need to wait for it.
    let session = site.start_task(LIMITED).await;
    site.order("/clock", json!({ "advanceSeconds": 61 })).await;
    site.until_done(&session).await;
    let results = site.filtered("/executionresult", &format!("ExecutionId eq {session}")).await;
    assert_eq!(results[0]["status"], 6);
    site.finish().await;
}

#[tokio::test]
async fn every_form_of_start_is_told_by_the_oracle() {
    let site = Site::start("forms", |_| {}).await;
    assert_eq!(site.post("/task/start?name=reload%20sales").await, (204, String::new()));
    assert_eq!(site.post("/task/start/synchronous?name=nobody").await.0, 404);
    assert_eq!(site.post("/task/start").await.0, 400);
    let many = json!([FAILING, SLOW, DISABLED, NOBODY]).to_string();
    assert_eq!(site.call_as("goran", Method::POST, "/task/start/many", many).await, (204, String::new()));
    assert_eq!(site.call_as("goran", Method::POST, "/task/start/many", "[\"x\"]").await.0, 400);
    assert_eq!(site.call_as("reader", Method::POST, &format!("/task/{SAMPLE}/start"), "").await.0, 403);
    assert_eq!(site.call_as("editor", Method::POST, &format!("/task/{EXTERNAL}/start"), "").await.0, 403);
    assert_eq!(site.call_as("left-company", Method::POST, &format!("/task/{SLOW}/start"), "").await.0, 403);
    assert_eq!(site.start_task(SLOW).await, ZERO);

    let truth = site.control("/starts").await;
    let started: Vec<&str> =
        truth["starts"].as_array().unwrap().iter().map(|start| start["taskId"].as_str().unwrap()).collect();
    assert_eq!(started, [SAMPLE, FAILING, SLOW]);
    let request = &truth["starts"][1]["request"];
    assert_eq!((&request["method"], &request["path"]), (&json!("POST"), &json!("/qrs/task/start/many")));
    assert_eq!((&request["xQlikUser"], &request["xrfkey"]), (&json!("UserDirectory=LAB; UserId=goran"), &json!(KEY)));
    assert!(request["connection"].as_u64().unwrap() > 0 && request["micros"].as_u64().unwrap() > 0);
    assert_eq!(request["number"], truth["starts"][2]["request"]["number"], "one request started both");
    assert_ne!(request["number"], truth["starts"][0]["request"]["number"]);
    assert_eq!((&truth["total"], &truth["complete"]), (&json!(3), &json!(true)));

    let not: Vec<(String, String)> = truth["notStarted"]["asked"]
        .as_array()
        .unwrap()
        .iter()
        .map(|wish| (wish["task"].as_str().unwrap().to_owned(), wish["reason"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        ("nobody", "unknown"),
        ("", "malformed"),
        (DISABLED, "disabled"),
        (NOBODY, "unknown"),
        ("x", "malformed"),
        (SAMPLE, "forbidden"),
        (EXTERNAL, "forbidden"),
        (SLOW, "refused"),
        (SLOW, "running"),
    ];
    assert_eq!(not, expected.map(|(task, reason)| (task.to_owned(), reason.to_owned())));
    // The log knows the same request by its number.
    let number = request["number"].as_u64().unwrap();
    let log = site.control(&format!("/log?from={number}")).await;
    assert_eq!(log["requests"][0]["path"], "/qrs/task/start/many");
    assert_eq!(log["requests"][0]["certificate"], "QlikClient");
    let of_one = site.control(&format!("/starts?task={SLOW}")).await;
    assert_eq!((&of_one["listed"], &of_one["notStarted"]["listed"]), (&json!(1), &json!(2)));
    site.finish().await;
}

#[tokio::test]
async fn script_logs_are_fetched_in_two_steps_by_both_generations() {
    let site = Site::start("logs", |settings| settings.speed = 50.0).await;
    let session = site.start_task(FAILING).await;
    site.until_done(&session).await;
    let result = site.filtered("/executionresult/full", &format!("ExecutionId eq {session}")).await.remove(0);
    assert_eq!(result["scriptLogAvailable"], true);
    let (id, file) = (result["id"].as_str().unwrap(), result["fileReferenceID"].as_str().unwrap());
    for call in [format!("scriptlog?fileReferenceId={file}"), format!("scriptlogfile?executionResultId={id}")] {
        let (status, body) = site.get(&format!("/ReloadTask/{FAILING}/{call}")).await;
        assert_eq!(status, 200, "{body}");
        let ticket: Value = serde_json::from_str(&body).unwrap();
        let download = format!("/download/reloadtask/{}/any%20name.log", ticket["value"].as_str().unwrap());
        assert_eq!(site.get(&download).await.0, 404, "it is still being collected");
        let fetching = async {
            loop {
                match site.get(&download).await {
                    (200, text) => return text,
                    (status, _) => assert_eq!(status, 404),
                }
            }
        };
        let text = timeout(Duration::from_secs(10), fetching).await.expect("the log comes");
        assert!(
            text.contains("Error: Field 'Amount' not found\r\n") && text.ends_with("Execution finished.\r\n"),
            "{text}"
        );
    }
    assert_eq!(site.get(&format!("/reloadtask/{FAILING}/scriptlogfile?executionResultId={ZERO}")).await.0, 404);
    assert_eq!(site.get(&format!("/reloadtask/{FAILING}/scriptlogfile")).await.0, 400);
    site.finish().await;
}

#[tokio::test]
async fn a_task_is_changed_once_and_only_from_its_latest_version() {
    let site = Site::start("put", |_| {}).await;
    let path = format!("/reloadtask/{SAMPLE}");
    let mut task: Value = serde_json::from_str(&site.get(&path).await.1).unwrap();
    task["enabled"] = json!(false);
    let (status, body) = site.call_as("goran", Method::PUT, &path, task.to_string()).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["enabled"], false);
    assert_eq!(site.call_as("goran", Method::PUT, &path, task.to_string()).await.0, 409);
    assert_eq!(site.call_as("goran", Method::PUT, &path, "no json").await.0, 400);
    assert_eq!(site.start_task(SAMPLE).await, ZERO);
    assert_eq!(site.call_as("goran", Method::DELETE, &path, "").await.0, 204);
    assert_eq!(site.get(&path).await.0, 404);
    site.finish().await;
}

#[tokio::test]
async fn a_reload_of_an_app_is_a_task_like_any_other() {
    let site = Site::start("app-reload", |_| {}).await;
    let app = "a9900000-0000-4000-8000-000000000001";
    assert_eq!(site.post(&format!("/app/{app}/reload")).await, (204, String::new()));
    assert_eq!(site.post(&format!("/app/{ZERO}/reload")).await.0, 404);
    let manual = site.filtered("/reloadtask/full", "isManuallyTriggered eq true").await;
    assert_eq!(names(&manual), ["Manually triggered reload of Sales"]);
    let filter = format!("reloadTask.id eq {}", manual[0]["id"].as_str().unwrap());
    assert_eq!(site.filtered("/executionsession", &filter).await.len(), 1);
    site.finish().await;
}
