//! `butler.yaml` changed while the program runs: what can be taken is in force at once, the rest is named, a broken file changes nothing, and
//! nobody who works with the program notices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/app.rs"]
mod app;
#[path = "support/mqtt.rs"]
mod mqtt;

use std::{
    fs,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use app::{App, Dir, PATIENCE, assert_refused, run_to_end, said};
use mqtt::Client;
use rumqttc::QoS;
use serde_json::Value;

const TASK: &str = "5a1e5000-0000-4000-8000-000000000001";

/// A file with these sections, and a start that is answered at once.
fn yaml(sections: &str, start: &str) -> String {
    format!("Butler:\n{sections}  startTask: {{deadlineSeconds: 0{start}}}\n")
}

async fn reload(app: &App) -> (u16, Value) {
    let (status, body) = app.call("POST", "/api/v1/reload", &[], "").await;
    (status, serde_json::from_str(&body).unwrap())
}

/// What a start by REST is answered: status and code.
async fn start(app: &App) -> String {
    let headers = [("content-type", "application/json")];
    let (_, body) = app.call("POST", "/api/v1/tasks/start", &headers, &format!("{{\"taskId\": \"{TASK}\"}}")).await;
    let answer: Value = serde_json::from_str(&body).unwrap();
    let first = answer["results"].as_array().map_or(&answer, |results| &results[0]);
    format!("{} {}", first["status"].as_str().unwrap_or_default(), first["error"]["code"].as_str().unwrap_or_default())
}

async fn part(app: &App, name: &str) -> Value {
    let parts = app.json("/readyz").await["parts"].clone();
    parts.as_array().unwrap().iter().find(|part| part["name"] == name).unwrap().clone()
}

#[tokio::test]
async fn what_can_be_taken_is_in_force_at_once_and_the_rest_is_named() {
    let dir = Dir::new();
    let listen = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = socket.local_addr().unwrap().port();
        (socket, port)
    };
    let ((one, first), (other, second)) = (listen(), listen());
    let forward = |port| format!("  udpServerConfig: {{forwardTo: ['127.0.0.1:{port}']}}\n");
    let before = yaml(&forward(first), ", limits: {atOncePerRequester: 9}");
    let app = App::configured(&dir, &before).await;
    assert_eq!(start(&app).await, " qrs_unreachable");
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = app.udp().await;
    let send = |text: &[u8]| assert_eq!(sender.send_to(text, ("127.0.0.1", udp)).unwrap(), text.len());
    send(b"/one");
    let heard = |socket: &UdpSocket| {
        let mut bytes = [0; 16];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert_eq!(heard(&one), "/one");

    // Everything at once: the log, where datagrams go, what may be started; and two things that wait.
    let filter = "  startTaskFilter: {enable: true, allowTask: {tag: [none]}}\n  logLevel: debug\n";
    let waits =
        "  restServerConfig: {maxBodyBytes: 4096}\n  mqttConfig: {taskFailureSendFull: false, restQosRetain: true}\n";
    dir.write(
        "butler.yaml",
        &yaml(&[&forward(second), filter, waits].concat(), ", limits: {atOncePerRequester: 9, perMinute: 60}"),
    );
    let (status, told) = reload(&app).await;
    assert_eq!(status, 200, "{told}");
    let keys = |name: &str| {
        told[name].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        keys("applied"),
        "Butler.logLevel Butler.mqttConfig.taskFailureSendFull Butler.startTask.limits.perMinute Butler.startTaskFilter.allowTask.tag Butler.startTaskFilter.enable Butler.udpServerConfig.forwardTo"
    );
    assert_eq!(keys("needsRestart"), "Butler.mqttConfig.restQosRetain Butler.restServerConfig.maxBodyBytes");
    assert_eq!(start(&app).await, "denied task_filter");
    send(b"/two");
    assert_eq!(heard(&other), "/two");
    app.printed(|text| text.contains("the configuration was read again").then_some(())).await;
    app.printed(|text| text.contains("DEBUG").then_some(())).await;
    let (_, metrics) = app.get("/metrics").await;
    assert!(metrics.contains("sense_butler_config_reloads_total{result=\"applied\"} 1"), "{metrics}");
    assert!(metrics.contains("sense_butler_config_keys_waiting 2"), "{metrics}");
    assert_eq!(
        fs::read_to_string(dir.0.join("data/last-good/butler.yaml")).unwrap(),
        fs::read_to_string(dir.0.join("butler.yaml")).unwrap()
    );

    // Broken: told to who asked, in the log, in health; and nothing has changed.
    dir.write("butler.yaml", &yaml("  logLevel: loud\n", ""));
    let (status, told) = reload(&app).await;
    assert_eq!((status, &told["error"]["code"]), (422, &Value::from("invalid_configuration")));
    let message = told["error"]["message"].as_str().unwrap();
    assert!(message.contains("butler.yaml:2:13: Butler.logLevel: \"loud\" is none of"), "{message}");
    assert_eq!(start(&app).await, "denied task_filter");
    let health = part(&app, "butler.yaml").await;
    assert_eq!((health["ready"].as_bool(), health["required"].as_bool()), (Some(false), Some(false)));
    let detail = health["detail"].as_str().unwrap();
    assert!(detail.contains("(line 2, column 13)") && !detail.contains("loud"), "{detail}");
    app.printed(|text| text.contains("the files that were good last are in").then_some(())).await;
    assert!(fs::read_to_string(dir.0.join("data/last-good/butler.yaml")).unwrap().contains("logLevel: debug"));

    dir.write("butler.yaml", &before);
    let (_, told) = reload(&app).await;
    assert_eq!(told["needsRestart"], Value::Array(Vec::new()), "{told}");
    assert_eq!(start(&app).await, " qrs_unreachable");
    assert_eq!(part(&app, "butler.yaml").await["ready"], true);
    send(b"/three");
    assert_eq!(heard(&one), "/three");
    app.stop().await;
}

/// What the REST server takes only at the start is named, as often as it is asked for.
#[tokio::test]
async fn tokens_and_limits_of_rest_wait_for_a_restart() {
    let dir = Dir::new();
    let app = App::configured(&dir, &yaml("", "")).await;
    dir.write(
        "butler.yaml",
        &yaml("  restServerConfig: {tokens: false, publishPerSecond: 7}\n  logFormat: json\n", ""),
    );
    for _ in 0..2 {
        let (status, told) = reload(&app).await;
        let keys = ["Butler.logFormat", "Butler.restServerConfig.publishPerSecond", "Butler.restServerConfig.tokens"];
        assert_eq!((status, &told["needsRestart"]), (200, &Value::from(keys.to_vec())), "{told}");
    }
    app.stop().await;
}

#[tokio::test]
async fn the_verb_asks_the_running_program_and_says_what_it_says() {
    let dir = Dir::new();
    let app = App::configured(&dir, &yaml("", "")).await;
    let rest = format!("127.0.0.1:{}", app.rest().await);
    let verb = ["reload", "-c", "butler.yaml", "--rest", &rest];
    let told = || {
        let output = run_to_end(&dir, &verb);
        let text = said(&output);
        // What is remarkable in the file was said by the start, too.
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("to know")).collect();
        (output.status.code(), lines.join("\n"))
    };
    assert_eq!(told(), (Some(0), "nothing has changed".to_owned()));
    dir.write(
        "butler.yaml",
        &yaml("  dockerHealthCheck: {port: 12399}\n  compatibility: '5.4'\n", ", limits: {perMinute: 9}"),
    );
    let expected = "in force now    Butler.startTask.limits.perMinute\nneeds a restart Butler.compatibility\nneeds a restart Butler.dockerHealthCheck.port";
    assert_eq!(told(), (Some(0), expected.to_owned()));
    dir.write("butler.yaml", "Butler: {logLevel: [}\n");
    assert_refused(&dir, &verb, 64, &["butler.yaml:1:", "was not asked, and nothing has changed"]);
    // Only the program knows its true port.
    let own = format!("  udpServerConfig: {{forwardTo: ['127.0.0.1:{}']}}\n", app.udp().await);
    dir.write("butler.yaml", &yaml(&own, ""));
    assert_refused(
        &dir,
        &verb,
        64,
        &["Butler.udpServerConfig.forwardTo", "come back for ever", "Nothing has changed."],
    );
    dir.write("butler.yaml", &yaml("", ""));
    app.stop().await;
    let text = assert_refused(&dir, &verb, 1, &["no running sense-butler answers at its REST address", &rest]);
    assert!(text.contains("--rest"), "{text}");
}

#[tokio::test]
async fn a_start_with_a_broken_file_says_where_the_last_good_one_is() {
    let dir = Dir::new();
    let file = dir.write("butler.yaml", "Butler: {logLevel: [}\n");
    let arguments = ["run", "--data", "data", "--config", file.to_str().unwrap()];
    let text = assert_refused(&dir, &arguments, 64, &["butler.yaml:1:"]);
    assert!(!text.contains("good last"), "there is none yet: {text}");
    let good = yaml("", "");
    dir.write("broker.toml", "[limits]\nclients = 99\n");
    App::configured(&dir, &good).await.stop().await;
    dir.write("butler.yaml", "Butler: {logLevel: [}\n");
    assert_refused(
        &dir,
        &arguments,
        64,
        &["butler.yaml:1:", "Copies of the files that were good last are in", "last-good"],
    );
    let kept = |name: &str| fs::read_to_string(dir.0.join("data/last-good").join(name)).unwrap();
    assert_eq!((kept("butler.yaml"), kept("broker.toml").as_str()), (good, "[limits]\nclients = 99\n"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode =
            |name: &str| fs::metadata(dir.0.join("data/last-good").join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("butler.yaml"), mode("")), (0o600, 0o700), "it may hold passwords");
    }
}

/// The work that goes on while files change: publishers with acknowledgement, subscribers, datagrams.
struct Load {
    done: Arc<AtomicBool>,
    publishers: Vec<tokio::task::JoinHandle<usize>>,
    subscribers: Vec<Client>,
    datagrams: std::thread::JoinHandle<usize>,
}

impl Load {
    const PUBLISHERS: usize = 4;
    const SUBSCRIBERS: usize = 3;

    async fn begin(app: &App) -> Self {
        let (mqtt, udp, done) = (app.mqtt().await, app.udp().await, Arc::new(AtomicBool::new(false)));
        let mut subscribers = Vec::new();
        for number in 0..Self::SUBSCRIBERS {
            let mut client = Client::connect(mqtt, &format!("sub-{number}")).await;
            client.subscribe("load/#", QoS::AtLeastOnce).await;
            subscribers.push(client);
        }
        let mut publishers = Vec::new();
        for number in 0..Self::PUBLISHERS {
            let mut client = Client::connect(mqtt, &format!("pub-{number}")).await;
            let stop = Arc::clone(&done);
            publishers.push(tokio::spawn(async move {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.publish(&format!("load/{number}"), QoS::AtLeastOnce, false, sent.to_string()).await;
                    sent += 1;
                }
                sent
            }));
        }
        let stop = Arc::clone(&done);
        let datagrams = std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                let event = format!(
                    "/scheduler-task-failed/;h;t{sent};a;u;{TASK};;2026-05-04 10:00:01,234;INFO;ec000000-0000-4000-8000-{sent:012};m"
                );
                socket.send_to(event.as_bytes(), ("127.0.0.1", udp)).unwrap();
                sent += 1;
                // A pace at which nothing is lost in the kernel.
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        Self { done, publishers, subscribers, datagrams }
    }

    /// Ends it: every message is there, once, in order, on the connections of the beginning. Answers messages and datagrams.
    async fn end(mut self) -> (usize, usize) {
        self.done.store(true, Ordering::Relaxed);
        let mut sent = Vec::new();
        for publisher in self.publishers {
            sent.push(publisher.await.expect("no publisher lost its connection"));
        }
        let total: usize = sent.iter().sum();
        for subscriber in &mut self.subscribers {
            let mut next = [0; Self::PUBLISHERS];
            for _ in 0..total {
                let message = subscriber.next().await;
                let number: usize = message.topic.strip_prefix("load/").unwrap().parse().unwrap();
                let count: usize = std::str::from_utf8(&message.payload).unwrap().parse().unwrap();
                assert_eq!(count, next[number], "of {number}");
                next[number] += 1;
            }
            assert_eq!(next.as_slice(), sent.as_slice());
        }
        let datagrams = tokio::task::spawn_blocking(|| self.datagrams.join().unwrap()).await.unwrap();
        (total, datagrams)
    }
}

async fn counter(app: &App, name: &str) -> u64 {
    let (_, text) = app.get("/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

/// Show 6 of the issue: no connection and no message lost, a broken file changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_nobody_notices_and_a_broken_file_changes_nothing() {
    const ROUNDS: usize = 12;
    let dir = Dir::new();
    let listener = "[[listeners]]\nname = \"local\"\naddress = \"127.0.0.1:0\"\nallow_anonymous = true\n";
    let user = "[[users]]\nname = \"x\"\npassword_hash = \"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$WHgXdLzGYQzM5OY8nXrwVaYqE9NQbyyHQDf6gG1+mDE\"\n";
    let broker = format!("{listener}{user}");
    dir.write("broker.toml", &broker);
    let filter = |on: bool| {
        format!(
            "  startTaskFilter: {{enable: {on}, allowTask: {{tag: [none]}}}}\n  logLevel: {}\n",
            if on { "warn" } else { "info" }
        )
    };
    let file = dir.write("butler.yaml", &yaml(&filter(false), ""));
    let arguments = ["--data", "data", "--config", file.to_str().unwrap()];
    let app = App::run_at(&dir, &app::FREE_PORTS[2..], &arguments).await;
    let load = Load::begin(&app).await;
    let opened = counter(&app, "sense_butler_mqtt_connections_opened_total").await;
    let (mut good, mut bad) = (0, 0);
    for round in 0..ROUNDS {
        let on = round % 2 == 0;
        dir.write("butler.yaml", &yaml(&filter(on), ""));
        let (status, told) = reload(&app).await;
        assert_eq!(status, 200, "{told}");
        assert_eq!(told["needsRestart"], Value::Array(Vec::new()), "{told}");
        assert!(!told["applied"].as_array().unwrap().is_empty(), "{told}");
        good += 1;
        let answers = if on { "denied task_filter" } else { " qrs_unreachable" };
        assert_eq!(start(&app).await, answers, "round {round}");
        let broken = [
            ("butler.yaml", "Butler:\n  logLevel: [\n".to_owned()),
            ("butler.yaml", yaml(&filter(!on), ", limits: {perMinute: x}")),
            ("butler.yaml", yaml(&filter(!on).replace("startTaskFilter", "startTaskFiltre"), "")),
            ("broker.toml", format!("{listener}[[users]]\nname = x\n")),
        ];
        for (name, text) in broken {
            let intact = fs::read_to_string(dir.0.join(name)).unwrap();
            if name == "broker.toml" {
                // The other file asks for a change, which must not be taken alone.
                dir.write("butler.yaml", &yaml(&filter(!on), ""));
            }
            dir.write(name, &text);
            assert_eq!(reload(&app).await.0, 422, "{name}: {text}");
            assert_eq!(start(&app).await, answers, "{name}: {text}");
            dir.write(name, &intact);
            dir.write("butler.yaml", &yaml(&filter(on), ""));
            bad += 1;
        }
        #[cfg(unix)]
        {
            app.signal("HUP");
            let unchanged = format!("sense_butler_config_reloads_total{{result=\"unchanged\"}} {}", round + 1);
            let seen = async {
                while !app.get("/metrics").await.1.contains(&unchanged) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, seen).await.expect("a SIGHUP is a reload");
        }
    }
    let (messages, datagrams) = load.end().await;
    assert_eq!((good, bad), (ROUNDS, 4 * ROUNDS));
    assert!(messages > 100 && datagrams > 100, "{messages} messages, {datagrams} datagrams");
    let accepted = async { while counter(&app, "sense_butler_events_accepted_total").await < datagrams as u64 {} };
    tokio::time::timeout(PATIENCE, accepted).await.expect("every datagram became an event");
    assert_eq!(counter(&app, "sense_butler_mqtt_connections_opened_total").await, opened, "nobody had to come again");
    app.stop().await;
    println!("{good} reloads, {bad} refused, {messages} messages and {datagrams} datagrams meanwhile");
}

/// What the program wrote to its log file, as soon as that yields something.
#[cfg(unix)]
async fn logged<T>(dir: &Dir, find: impl Fn(&str) -> Option<T>) -> T {
    let read = || {
        let files = fs::read_dir(dir.0.join("log")).into_iter().flatten().flatten();
        let texts = files.filter_map(|entry| fs::read_to_string(entry.path()).ok());
        texts.collect::<String>()
    };
    let look = async {
        loop {
            if let Some(found) = find(&read()) {
                return found;
            }
            // The pause between two looks, not what the test relies on.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(found) => found,
        Err(_) => panic!("the log says only\n{}", read()),
    }
}

/// SIGHUP is a reload, unless it comes because the terminal has gone.
#[cfg(unix)]
#[tokio::test]
async fn with_its_terminal_the_program_goes() {
    use std::process::{Command, Stdio};
    if !app::has_program("script", "--version", "with_its_terminal_the_program_goes") {
        return;
    }
    let dir = Dir::new();
    dir.write("butler.yaml", &yaml("  fileLogging: true\n  logDirectory: log\n", ""));
    let words = ["run", "--data", "data", "--config", "butler.yaml"];
    // Whoever runs the tests may have them ignore SIGHUP, as nohup does; programs inherit that.
    let program = ["exec", "env", "--default-signal=HUP", env!("CARGO_BIN_EXE_sense-butler")];
    let line = [&program[..], &words[..], &app::FREE_PORTS[..]].concat().join(" ");
    let mut terminal = Command::new("script")
        .args(["--quiet", "--command", &line, "/dev/null"])
        .current_dir(&dir.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    logged(&dir, |text| text.contains(": ready\n").then_some(())).await;
    let port: u16 =
        logged(&dir, |text| text.split_once("REST on http://127.0.0.1:")?.1.split('\n').next()?.parse().ok()).await;
    // The terminal is `script`; nobody gets a chance to say goodbye.
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    logged(&dir, |text| text.contains("stopping: closing of the terminal").then_some(())).await;
    let gone = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it has ended");
}
