//! The simulated Qlik Sense site from outside: over mutual TLS with the certificates it wrote, and over UDP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

mod faults;
mod following;
mod support;
mod whole_site;
mod wire;

use std::{collections::HashMap, time::Duration};

use reqwest::Client;
use sense_butler::sense::simulator::{Profile, Simulator, SimulatorError, SimulatorSettings, SiteSource, Transport};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::support::{
    DISABLED, DISTRIBUTE, FAILING, KEY, NOBODY, SAMPLE, SLOW, Site, ZERO, client, datagram, directory, encode, names,
    read,
};

#[tokio::test]
async fn lists_filters_and_single_objects() {
    let site = Site::start("lists", |_| {}).await;
    let about: Value = serde_json::from_str(&site.get("/about").await.1).unwrap();
    assert_eq!(about["schemaPath"], "About");
    let all = site.list("/task/full?orderby=name%20asc").await;
    assert!(all.len() >= 12);
    assert!(all.is_sorted_by_key(|task| task["name"].as_str().unwrap().to_lowercase()));
    assert_eq!(site.get("/task/count").await, (200, json!({ "value": all.len() }).to_string()));
    assert!(site.list("/task").await.iter().all(|task| task.get("tags").is_none() && task["name"].is_string()));
    let cases = [
        ("name eq 'RELOAD DIRECTOR\\'S COCKPIT'", vec!["Reload Director's cockpit"]),
        ("tags.name eq 'Director\\'s'", vec!["Reload Director's cockpit"]),
        ("name eq 'Reload C# \\\\ 日本 100%'", vec![r"Reload C# \ 日本 100%"]),
        ("name eq 'Reload Größe & Maß'", vec!["Reload Größe & Maß"]),
        ("enabled eq false or taskType eq UserSync", vec!["Reload archive (disabled)", "Synchronise users of LAB"]),
        (
            "customProperties.definition.name eq 'StartBy' and customProperties.value eq 'mqtt'",
            vec!["Reload Sales", "Reload Finanzübersicht"],
        ),
        ("name eq 'x\\' or name ne \\''", vec![]),
    ];
    assert_eq!(cases.len(), 7);
    for (filter, expected) in cases {
        assert_eq!(names(&site.filtered("/task/full", filter).await), expected, "{filter}");
    }
    assert_eq!(names(&site.filtered("/task/full", &format!("id eq {SAMPLE}")).await), ["Reload Sales"]);
    let one: Value = serde_json::from_str(&site.get(&format!("/reloadtask/{DISTRIBUTE}")).await.1).unwrap();
    assert_eq!((&one["taskType"], &one["app"]["name"]), (&json!(3), &json!("Sales")));
    assert_eq!(site.get(&format!("/ReloadTask/{SAMPLE}/full")).await.0, 200);
    assert_eq!(site.get(&format!("/reloadtask/{NOBODY}")).await.0, 404);
    assert_eq!(site.get("/reloadtask/nonsense").await.0, 400);
    assert!(names(&site.list("/app/full").await).contains(&"Finanzübersicht"));
    site.finish().await;
}

#[tokio::test]
async fn refusals_carry_the_repository_s_words() {
    let site = Site::start("refusals", |_| {}).await;
    let xsrf = "XSRF prevention check failed. Possible XSRF discovered.";
    let bare = site.client.get(format!("{}/about", site.qrs)).send().await.unwrap();
    assert_eq!(read(bare).await, (403, xsrf.to_owned()));
    let other = site.client.get(format!("{}/about?xrfkey={KEY}", site.qrs)).header("X-Qlik-Xrfkey", "0123456789abcdeX");
    assert_eq!(read(other.send().await.unwrap()).await, (403, xsrf.to_owned()));
    let cases = [
        ("/nothing/at/all".to_owned(), 404, "No matching endpoint found"),
        (format!("/task?filter={}", encode("name eq 'Q1''25'")), 400, "Cannot parse the expression: name eq 'Q1''25'"),
        (format!("/task?filter={}", encode("name eq \"a\"")), 400, "Cannot parse the expression: name eq \"a\""),
        (format!("/task?filter={}", encode("()")), 400, "Invalid expression"),
        ("/task?filter=name%20eq%20'a&b'".to_owned(), 400, "Missing parameter value(s)"),
    ];
    assert_eq!(cases.len(), 5);
    for (path, status, text) in cases {
        assert_eq!(site.get(&path).await, (status, text.to_owned()), "{path}");
    }
    assert_eq!(site.get(&format!("/task?filter={}", encode("colour eq 'red'"))).await.0, 400);
    assert_eq!(site.post(&format!("/task/{NOBODY}/start")).await.0, 404);
    assert_eq!(site.post("/task/nonsense/start/synchronous").await.0, 400);
    for (user, status, length) in [("reader", 200, Some(0)), ("left-company", 403, None), ("stranger", 403, None)] {
        let request = site.client.get(format!("{}/task?xrfkey={KEY}", site.qrs)).header("X-Qlik-Xrfkey", KEY);
        let request = request.header("X-Qlik-User", format!("UserDirectory=LAB; UserId={user}"));
        let (found, body) = read(request.send().await.unwrap()).await;
        assert_eq!(found, status, "{user}");
        let rows = serde_json::from_str::<Vec<Value>>(&body).ok().map(|rows| rows.len());
        assert_eq!(rows, length, "{user}");
    }
    site.finish().await;
}

#[tokio::test]
async fn without_a_client_certificate_there_is_no_connection() {
    let site = Site::start("certificate", |_| {}).await;
    let stranger = client(&site.files, false);
    let refused = stranger.get(format!("{}/about?xrfkey={KEY}", site.qrs)).header("X-Qlik-Xrfkey", KEY).send().await;
    let error = refused.expect_err("the handshake fails");
    assert!(error.is_connect() || error.is_request(), "{error:?}");
    assert_eq!(site.control("/log").await["total"], 0, "nothing reached the repository");
    assert_eq!(site.get("/about").await.0, 200);
    site.finish().await;
}

#[tokio::test]
async fn a_task_runs_from_start_to_datagram() {
    let site = Site::start("run", |_| {}).await;
    let session = site.start_task(SAMPLE).await;
    let running: Value = serde_json::from_str(&site.get(&format!("/executionsession/{session}")).await.1).unwrap();
    assert_eq!(running["reloadTask"]["id"], SAMPLE);
    assert_eq!(site.filtered("/executionsession", &format!("reloadTask.id eq {SAMPLE}")).await.len(), 1);
    assert_eq!(site.start_task(SAMPLE).await, ZERO, "it runs already");
    site.until_done(&session).await;
    assert!(site.filtered("/executionsession", &format!("reloadTask.id eq {SAMPLE}")).await.is_empty());

    let results = site.filtered("/executionresult/full", &format!("ExecutionId eq {session}")).await;
    assert_eq!(results.len(), 1);
    let result = &results[0];
    assert_eq!((&result["status"], &result["taskID"]), (&json!(7), &json!(SAMPLE)));
    assert!((3_000..=4_600).contains(&result["duration"].as_u64().unwrap()), "{result}");
    let details: Vec<&str> =
        result["details"].as_array().unwrap().iter().map(|detail| detail["message"].as_str().unwrap()).collect();
    let expected = [
        "Changing task state to Triggered",
        "Trying to start task. Sending task to slave-node sense-1",
        "Changing task state from Triggered to Started",
        "Reference to scriptlog added",
        "Changing task state from Started to FinishedSuccess",
    ];
    assert_eq!(details, expected);
    let id = result["id"].as_str().unwrap();
    assert_eq!(site.get(&format!("/executionresult/{id}")).await.0, 200);
    let task: Value = serde_json::from_str(&site.get(&format!("/reloadtask/{SAMPLE}")).await.1).unwrap();
    assert_eq!(task["operational"]["lastExecutionResult"]["status"], 7);

    let text = datagram(&site.tasks).await;
    let fields: Vec<&str> = text.split(';').collect();
    assert_eq!(fields.len(), 11, "{text}");
    let app = "a9900000-0000-4000-8000-000000000001";
    assert_eq!(
        fields[..7],
        ["/scheduler-task-success//", "sense-1", "Reload Sales", "Sales", r"LAB\goran", SAMPLE, app]
    );
    assert_eq!(fields[8..], ["INFO", session.as_str(), "Execution State Change to FinishedSuccess"]);
    let date: String = fields[7].chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    assert_eq!(date, "0000-00-00 00:00:00,000");
    site.finish().await;
}

#[tokio::test]
async fn each_end_has_its_datagram() {
    let site = Site::start("ends", |_| {}).await;
    let failed = site.start_task(FAILING).await;
    let text = datagram(&site.tasks).await;
    assert!(
        text.starts_with("/scheduler-task-failed/;sense-1;Reload of Test failing reloads 1 (emojis supported! 🤪);")
    );
    assert!(text.ends_with(&format!(";INFO;{failed};Max retries reached")), "{text}");

    let slow = site.start_task(SLOW).await;
    assert_eq!(site.post(&format!("/task/{SLOW}/stop")).await, (204, String::new()));
    let text = datagram(&site.tasks).await;
    assert!(text.starts_with("/scheduler-task-aborted/;"), "{text}");
    assert!(text.ends_with(&format!(";INFO;{slow};Execution State Change to Aborting")), "{text}");
    site.until_done(&slow).await;
    let results = site.filtered("/executionresult/full", &format!("executionid eq {slow} and status eq aborted")).await;
    assert_eq!(results.len(), 1);

    let distribute = site.start_task(DISTRIBUTE).await;
    let text = datagram(&site.tasks).await;
    assert!(text.starts_with("/scheduler-distribute/;sense-1;Distribute Sales;Sales;"), "{text}");
    assert!(text.ends_with(&format!(";INFO;{distribute};Exiting execute of Distribute task request.")), "{text}");

    let forced = site.start_task(SLOW).await;
    assert_eq!(
        site.order(&format!("/task/{SLOW}/finish"), json!({})).await,
        (200, json!({ "executions": 1 }).to_string())
    );
    assert!(datagram(&site.tasks).await.contains(&forced));
    let counts = site.control("/datagrams").await;
    assert_eq!(counts["sent"], json!({ "failed": 1, "aborted": 1, "success": 1, "distribute": 1, "proxy": 0 }));
    site.finish().await;
}

#[tokio::test]
async fn the_oracle_knows_every_start_and_only_those() {
    let site = Site::start("oracle", |_| {}).await;
    assert_eq!(site.start_task(DISABLED).await, ZERO);
    assert_eq!(site.post(&format!("/task/{DISABLED}/start")).await, (204, String::new()));
    let first = site.start_task(SAMPLE).await;
    assert_eq!(site.post(&format!("/task/{FAILING}/start")).await, (204, String::new()));
    assert_eq!(site.start_task(SAMPLE).await, ZERO);
    let truth = site.control("/starts").await;
    assert_eq!(truth["total"], 2);
    let starts = truth["starts"].as_array().unwrap();
    assert_eq!((&starts[0]["executionId"], &starts[0]["taskId"]), (&json!(first), &json!(SAMPLE)));
    assert_eq!((&starts[1]["taskId"], &starts[1]["user"]), (&json!(FAILING), &json!(r"LAB\goran")));
    let log = site.control("/log").await;
    assert_eq!(log["total"], 5);
    assert_eq!(log["requests"][0]["user"], r"LAB\goran");
    site.finish().await;
}

#[tokio::test]
async fn faults_come_as_asked_and_go() {
    let site = Site::start("faults", |_| {}).await;
    let busy = json!({ "path": "/qrs/task", "times": 2, "action": "status", "status": 503, "text": "initialising" });
    assert_eq!(site.order("/fault", busy).await.0, 204);
    for _ in 0..2 {
        assert_eq!(site.get("/task").await, (503, "initialising".to_owned()));
    }
    assert_eq!(site.get("/task").await.0, 200);

    // The answer is lost after the start took effect: the client cannot know, the oracle does.
    assert_eq!(
        site.order("/fault", json!({ "path": "/qrs/task", "method": "POST", "action": "cutAfter" })).await.0,
        204
    );
    let url = format!("{}/task/{SAMPLE}/start?xrfkey={KEY}", site.qrs);
    let lost = site.client.post(url).header("X-Qlik-Xrfkey", KEY).send().await;
    assert!(lost.is_err());
    assert_eq!(site.control("/starts").await["total"], 1);

    assert_eq!(site.order("/fault", json!({ "path": "/qrs/about", "action": "never" })).await.0, 204);
    let silent = site.client.get(format!("{}/about?xrfkey={KEY}", site.qrs)).header("X-Qlik-Xrfkey", KEY);
    assert!(silent.timeout(Duration::from_secs(1)).send().await.unwrap_err().is_timeout());
    assert_eq!(site.get("/about").await.0, 200);
    assert_eq!(site.order("/fault", json!({ "path": "/", "action": "explode" })).await.0, 400);
    let page = site.client.post(format!("{}/fault", site.control)).header("Origin", "http://evil.example");
    assert_eq!(page.send().await.unwrap().status().as_u16(), 403);
    site.finish().await;
}

/// Also a measure: `cargo test --test simulator two_thousand -- --nocapture` prints the rate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_starts_over_kept_connections_are_all_different_and_all_known() {
    let policy = include_str!("../../config/simulator.yaml").replace("onRunning: zeroGuid", "onRunning: secondSession");
    let site = Site::start("starts", |settings| settings.site = SiteSource::Text(policy)).await;
    let began = std::time::Instant::now();
    let callers = (0..16).map(|_| async {
        let mut sessions = Vec::new();
        for _ in 0..125 {
            sessions.push(site.start_task(SAMPLE).await);
        }
        sessions
    });
    let sessions: Vec<String> = futures_all(callers).await.into_iter().flatten().collect();
    let seconds = began.elapsed().as_secs_f64();
    println!("{:.0} starts/s", sessions.len() as f64 / seconds);
    let truth = site.control("/starts").await;
    let known: std::collections::HashSet<&str> =
        truth["starts"].as_array().unwrap().iter().map(|start| start["executionId"].as_str().unwrap()).collect();
    assert_eq!((sessions.len(), known.len(), &truth["total"]), (2_000, 2_000, &json!(2_000)));
    assert!(sessions.iter().all(|session| known.contains(session.as_str())));
    site.finish().await;
}

/// Drives futures side by side in one task.
async fn futures_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        waiting.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => {
                done.push(output);
                false
            }
            std::task::Poll::Pending => true,
        });
        if waiting.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}

#[tokio::test]
async fn a_burst_sends_as_many_different_datagrams_as_asked() {
    let site = Site::start("burst", |_| {}).await;
    let receiving = async {
        let mut ids = std::collections::HashSet::new();
        for _ in 0..500 {
            let text = datagram(&site.tasks).await;
            ids.insert(text.split(';').nth(9).unwrap().to_owned());
        }
        ids.len()
    };
    let (answer, received) = tokio::join!(site.order("/burst", json!({ "count": 500, "rate": 5_000 })), receiving);
    let answer: Value = serde_json::from_str(&answer.1).unwrap();
    assert_eq!((&answer["sent"], &answer["failed"], received), (&json!(500), &json!(0), 500));
    assert!((0.08..2.0).contains(&answer["seconds"].as_f64().unwrap()), "{answer}");
    assert_eq!(site.order("/burst", json!({})).await.0, 400);
    site.finish().await;
}

#[tokio::test]
async fn a_living_site_sends_events_by_itself() {
    let life = |settings: &mut SimulatorSettings| {
        settings.speed = 100.0;
        settings.rate = 1.0;
        settings.profile = Profile::Butler54;
    };
    let site = Site::start("life", life).await;
    let task = datagram(&site.tasks).await;
    assert!(
        task.starts_with("/scheduler-reload-failed/;") || task.starts_with("/scheduler-reload-aborted/;"),
        "{task}"
    );
    let mut seen: HashMap<String, usize> = HashMap::new();
    while seen.len() < 4 {
        let text = datagram(&site.sessions).await;
        let fields: Vec<&str> = text.splitn(8, ';').collect();
        assert_eq!(fields.len(), 8, "{text}");
        *seen.entry(format!("{} {}", fields[0], fields[2])).or_default() += 1;
    }
    for kind in ["/proxy-session/ Start session", "/proxy-connection/ Open connection", "/proxy-session/ Stop session"]
    {
        assert!(seen.contains_key(kind), "{seen:?}");
    }
    let starts = site.control("/starts").await;
    let by = |start: &Value| start["by"] == "schedule" || start["by"] == "chain";
    assert!(starts["starts"].as_array().unwrap().iter().all(by), "{starts}");
    site.finish().await;
}

#[tokio::test]
async fn a_plain_site_of_one_s_own() {
    let text = format!(
        "sampleTask: {SAMPLE}\nonRunning: secondSession\nonMissingUser: forbidden\nnodes: [{{name: n, slots: 1}}]\n\
         users: [{{directory: A, id: b, role: admin}}]\ntasks: [{{id: {SAMPLE}, name: only, duration: 60}}]\n"
    );
    let settings = SimulatorSettings {
        qrs: vec!["127.0.0.1:0".parse().unwrap()],
        control: None,
        transport: Transport::Plain,
        site: SiteSource::Text(text),
        ..SimulatorSettings::new(directory("plain"))
    };
    let simulator = Simulator::bind(settings).await.unwrap();
    assert!(simulator.pki().is_none() && simulator.addresses().control.is_none());
    let base = format!("http://{}/qrs", simulator.addresses().qrs[0]);
    let stop = CancellationToken::new();
    let running = tokio::spawn(simulator.run(stop.clone()));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let url = format!("{base}/task/{SAMPLE}/start/synchronous?xrfkey={KEY}");
    let call = |user: Option<&'static str>| {
        let request = client.post(&url).header("X-Qlik-Xrfkey", KEY);
        user.map(|user| ("X-Qlik-User", user))
            .into_iter()
            .fold(request, |request, (name, value)| request.header(name, value))
    };
    assert_eq!(read(call(None).send().await.unwrap()).await.0, 403);
    let user = Some("UserDirectory=A; UserId=b");
    let first = read(call(user).send().await.unwrap()).await;
    let second = read(call(user).send().await.unwrap()).await;
    assert_eq!((first.0, second.0), (201, 201));
    assert!(first.1 != second.1 && !second.1.contains(ZERO), "two sessions");
    let sessions = client.get(format!("{base}/executionsession/count?xrfkey={KEY}")).header("X-Qlik-Xrfkey", KEY);
    let sessions = sessions.header("X-Qlik-User", "UserDirectory=A; UserId=b").send().await.unwrap();
    assert_eq!(read(sessions).await.1, json!({ "value": 2 }).to_string());
    stop.cancel();
    timeout(Duration::from_secs(5), running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_taken_port_and_an_open_control_door_are_refused_in_words() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = SimulatorSettings {
        qrs: vec![taken.local_addr().unwrap()],
        control: None,
        transport: Transport::Plain,
        ..SimulatorSettings::new(directory("taken"))
    };
    let error = Simulator::bind(settings.clone()).await.unwrap_err();
    assert!(matches!(error, SimulatorError::Listen { .. }) && error.to_string().contains("--qrs"), "{error}");
    let open = SimulatorSettings { control: Some("0.0.0.0:0".parse().unwrap()), ..settings };
    assert!(matches!(Simulator::bind(open).await, Err(SimulatorError::ControlNotLocal(_))));
}
