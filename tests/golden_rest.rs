//! Replays the recordings of Butler's REST API (`tests/golden/rest_*.json`, 152 cases each, and the REST part of `variants_head.json`) over a real
//! socket, in order.
//!
//! Compared: the status; the media type of `Content-Type` (ours always adds `charset=utf-8`); that every method of a recorded `Allow` is in ours; a
//! successful body byte for byte (after our version is put in place of Butler's); of an error body the names and order of its fields and its
//! `statusCode`; and what was published, with payload, QoS and retain flag. Not compared: `Connection`, `Server`, `Content-Length`.
//!
//! A case that differs must stand in the list of its generation with its reason and our status; one that stands there and does not differ fails too.
//! Cases that start tasks are replayed up to the start handler's door here and judged where that handler is tested.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod rest_support;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use rest_support::{Client, Reply, Running, START_ANSWER, settings, start, start_with};
use sense_butler::{
    api::DockerHealth,
    config::settings::{DockerHealth as DockerHealthSettings, Generation, RestSettings},
    keep::{
        Keep,
        values::{ValueSettings, Values},
    },
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// A case in which we differ on purpose.
struct Difference {
    case: &'static str,
    /// Our status.
    status: u16,
    /// How many messages we publish.
    published: usize,
    reason: &'static str,
}

const fn differs(case: &'static str, status: u16, published: usize, reason: &'static str) -> Difference {
    Difference { case, status, published, reason }
}

const OWN_ERRORS: &str = "outside /v4 errors have the program's own form";
const FOREIGN_PAGE: &str = "a web page of another origin is refused";
const NO_VALUE: &str = "a value that is missing cannot be stored; Butler said yes and stored nothing";
const OWN_TTL: &str = "a key has its own time to live; Butler 5.4 told that of the namespace's last write";
const DELETED_OTHERS: &str = "deleting a namespace deletes it; Butler 5.4 deleted all the others";
const JSON_IS_JSON: &str = "JSON is sent as application/json; Butler called it text/plain";
const NO_DOCS: &str = "the OpenAPI document is at /openapi.json";
const OFFERED_ONLY: &str = "only what is offered is listed";
const GENEROUS: &str = "JSON is accepted under any content type";
const COERCED: &str = "numbers and booleans are published as text";
const BAD_TOPIC: &str = "a topic MQTT does not allow is refused; Butler said yes and lost its connection";
const NEVER_500: &str = "a mistake of the caller is never a 500";
const POST_TOO: &str = "POST is accepted wherever PUT is";
const OVERRIDE: &str = "a method override is PUT or DELETE, in any case, on POST only";

const V5_4: &[Difference] = &[
    differs("generic/root", 404, 0, OWN_ERRORS),
    differs("generic/OPTIONS with CORS headers", 403, 0, FOREIGN_PAGE),
    differs("generic/HEAD", 200, 0, "HEAD is accepted wherever GET is"),
    differs("generic/Origin header on GET", 403, 0, FOREIGN_PAGE),
    differs("generic/docs", 404, 0, NO_DOCS),
    differs("ping/endpointsenabled", 200, 0, OFFERED_ONLY),
    differs("mqttpublish/message true", 200, 1, COERCED),
    differs("mqttpublish/message null", 200, 1, "a null message is an empty one"),
    differs("mqttpublish/message object", 400, 0, NEVER_500),
    differs("mqttpublish/message array", 400, 0, NEVER_500),
    differs("mqttpublish/topic number", 200, 1, COERCED),
    differs("mqttpublish/topic empty", 400, 0, BAD_TOPIC),
    differs("mqttpublish/topic null", 400, 0, "a null topic is a wrong value, not a missing one"),
    differs("mqttpublish/no body no content-type", 400, 0, NEVER_500),
    differs("mqttpublish/empty body with json content-type", 400, 0, NEVER_500),
    differs("mqttpublish/text/plain", 400, 0, "a body that is not JSON is called so"),
    differs("mqttpublish/no content-type with JSON body", 200, 1, GENEROUS),
    differs("mqttpublish/octet-stream", 200, 1, GENEROUS),
    differs("mqttpublish/latin1 bytes", 400, 0, "bytes that are no UTF-8 are refused, not replaced"),
    differs("mqttpublish/BOM", 200, 1, "a byte order mark is skipped, as Butler 16 does"),
    differs("mqttpublish/1.1 MB message", 413, 0, "bodies have a limit, 1 MiB unless maxBodyBytes says otherwise"),
    differs("mqttpublish/topic $SYS/x", 400, 0, BAD_TOPIC),
    differs("mqttpublish/POST not allowed", 200, 1, POST_TOO),
    differs("mqttpublish/POST + override lower case put", 200, 1, OVERRIDE),
    differs("mqttpublish/POST + override bogus", 400, 0, OVERRIDE),
    differs("mqttpublish/PUT + override POST", 200, 1, OVERRIDE),
    differs("mqttpublish/POST butlerping + override GET", 400, 0, OVERRIDE),
    differs("mqttpublish/POST butlerping + override GET with JSON body", 400, 0, OVERRIDE),
    differs("mqttpublish/invalid topic \"lab/+/x\"", 400, 0, BAD_TOPIC),
    differs("mqttpublish/invalid topic \"#\"", 400, 0, BAD_TOPIC),
    differs("mqttpublish/invalid topic \"a\\u0000b\"", 400, 0, BAD_TOPIC),
    differs("kv/post ttl bad", 400, 0, "a time to live that is no number is refused"),
    differs("kv/post value missing", 409, 0, NO_VALUE),
    differs("kv/post no body", 400, 0, NEVER_500),
    differs("kv/get ttl key", 200, 0, OWN_TTL),
    differs("kv/keylist", 200, 0, "a key whose time is over, or that was never stored, is not listed"),
    differs("kv/delete ns again", 409, 0, DELETED_OTHERS),
    differs("kv/namespaces after", 200, 0, DELETED_OTHERS),
    differs("kv/ns2 survived?", 200, 0, DELETED_OTHERS),
    differs("kv/get after ns delete", 409, 0, DELETED_OTHERS),
    differs("kv/POST+override DELETE ns", 204, 0, DELETED_OTHERS),
    differs("kv/namespaces after override", 200, 0, DELETED_OTHERS),
];

const HEAD: &[Difference] = &[
    differs("generic/root", 404, 0, OWN_ERRORS),
    differs("generic/known path wrong method", 405, 0, "a wrong method is 405 with Allow"),
    differs("generic/PATCH", 405, 0, "a wrong method is 405 with Allow"),
    differs("generic/OPTIONS with CORS headers", 403, 0, FOREIGN_PAGE),
    differs("generic/trailing slash", 200, 0, "doubled and trailing slashes are accepted, as v5.4 did"),
    differs("generic/double slash", 200, 0, "doubled and trailing slashes are accepted, as v5.4 did"),
    differs("generic/Origin header on GET", 403, 0, FOREIGN_PAGE),
    differs("generic/docs", 404, 0, NO_DOCS),
    differs("ping/endpointsenabled", 200, 0, OFFERED_ONLY),
    differs("ping/activeusercount", 200, 0, "offered to this generation too, unless switched off"),
    differs("ping/activeusers", 200, 0, "offered to this generation too, unless switched off"),
    differs("mqttpublish/topic empty", 400, 0, BAD_TOPIC),
    differs("mqttpublish/topic null", 400, 0, BAD_TOPIC),
    differs("mqttpublish/vendor json", 201, 1, GENEROUS),
    differs("mqttpublish/no content-type with JSON body", 201, 1, GENEROUS),
    differs("mqttpublish/octet-stream", 201, 1, GENEROUS),
    differs("mqttpublish/__proto__ key", 201, 1, "a property of that name is one like any other here"),
    differs("mqttpublish/topic $SYS/x", 400, 0, BAD_TOPIC),
    differs("mqttpublish/POST not allowed", 201, 1, POST_TOO),
    differs("mqttpublish/POST butlerping + override GET", 400, 0, OVERRIDE),
    differs("mqttpublish/POST butlerping + override GET with JSON body", 400, 0, "Butler never answered"),
    differs("mqttpublish/invalid topic \"lab/+/x\"", 400, 0, BAD_TOPIC),
    differs("mqttpublish/invalid topic \"#\"", 400, 0, BAD_TOPIC),
    differs("mqttpublish/invalid topic \"a\\u0000b\"", 400, 0, BAD_TOPIC),
    differs("start/kv list", 200, 0, JSON_IS_JSON),
    differs("kv/post value missing", 400, 0, NO_VALUE),
    differs("kv/keylist", 200, 0, JSON_IS_JSON),
    differs(
        "kv/delete key with json content-type empty body",
        204,
        0,
        "a deletion needs no body, whatever its content type says",
    ),
];

/// Of these, how many are of the group `kv`, and how many of its cases there are.
const KEY_VALUE_CASES: usize = 44;

/// Time passes from case to case, milliseconds: what was to live 200 ms is over when it is asked for.
const TICK: u64 = 20;

/// Outcomes of a replay.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    ran: usize,
    equal: usize,
    listed: usize,
    /// Of all, of the group `kv`.
    key_values: usize,
    /// Start cases, judged elsewhere; of these, how many reached the start handler.
    elsewhere: usize,
    reached: usize,
}

#[tokio::test]
async fn recordings_of_v5_4() {
    let tally = replay(include_str!("golden/rest_v540.json"), Generation::V5_4, V5_4).await;
    let expected =
        Tally { ran: 152, equal: 65, listed: V5_4.len(), key_values: KEY_VALUE_CASES, elsewhere: 45, reached: 43 };
    assert_eq!((tally, V5_4.len()), (expected, 42));
}

#[tokio::test]
async fn recordings_of_head() {
    let tally = replay(include_str!("golden/rest_head.json"), Generation::Head, HEAD).await;
    let expected =
        Tally { ran: 152, equal: 79, listed: HEAD.len(), key_values: KEY_VALUE_CASES, elsewhere: 45, reached: 43 };
    assert_eq!((tally, HEAD.len()), (expected, 28));
}

/// Settings as the reference had them: everything on, what we offer and what we do not.
fn reference_settings() -> RestSettings {
    let not_offered = [
        "base62ToBase16",
        "base16ToBase62",
        "createDir",
        "createDirQVD",
        "fileDelete",
        "fileMove",
        "fileCopy",
        "senseAppReload",
        "senseAppDump",
        "senseListApps",
        "slackPostMessage",
        "scheduler.getSchedule",
    ];
    RestSettings { endpoints_not_offered: not_offered.map(str::to_owned).to_vec(), ..settings() }
}

async fn replay(recording: &str, generation: Generation, list: &[Difference]) -> Tally {
    let recording: Value = serde_json::from_str(recording).unwrap();
    let now = Arc::new(AtomicU64::new(1_000));
    let server = start_with(generation, reference_settings(), |setup| setup.values = ticking(&now));
    let mut tally = Tally::default();
    let mut problems = Vec::new();
    for case in recording["cases"].as_array().unwrap() {
        tally.ran += 1;
        now.fetch_add(TICK, Ordering::SeqCst);
        let name = format!("{}/{}", case["group"].as_str().unwrap(), case["name"].as_str().unwrap());
        let reply = ask(&server, &case["request"]).await;
        let published = server.broker.take();
        if case["request"]["path"].as_str().unwrap().starts_with("/v4/reloadtask/") {
            tally.elsewhere += 1;
            tally.reached += usize::from(reached_the_handler(&server, case, &reply));
            store_pairs(&server, &case["request"]).await;
            continue;
        }
        let mismatches = compare(case, &reply, &published);
        tally.key_values += usize::from(case["group"] == "kv");
        match (list.iter().find(|difference| difference.case == name), mismatches.is_empty()) {
            (None, true) => tally.equal += 1,
            (None, false) => problems.push(format!("{name}: {}", mismatches.join("; "))),
            (Some(listed), true) => problems.push(format!("{name}: listed ({}), but equal", listed.reason)),
            (Some(listed), false) => {
                tally.listed += 1;
                if (reply.status, published.len()) != (listed.status, listed.published) {
                    problems.push(format!("{name}: listed as {}, {reply:?}, {published:?}", listed.status));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    tally
}

/// A key-value store with a clock that is set by hand.
fn ticking(now: &Arc<AtomicU64>) -> Values {
    let (clock, mut registry) = (now.clone(), prometheus_client::registry::Registry::default());
    let keep = Keep::open(None, &mut registry).unwrap();
    let clock = Arc::new(move || clock.load(Ordering::SeqCst));
    Values::with_clock(&keep, ValueSettings::default(), clock, &mut registry).unwrap()
}

/// The start handler is a double here: the pairs the real one would have stored are stored by their own route.
async fn store_pairs(server: &Running, request: &Value) {
    let body: Value = request["body"].as_str().and_then(|body| serde_json::from_str(body).ok()).unwrap_or_default();
    for item in body.as_array().map(Vec::as_slice).unwrap_or_default() {
        let payload = &item["payload"];
        if item["type"] == "keyvaluestore" && payload["value"] != Value::Null {
            let path = format!("/v4/keyvalues/{}", payload["namespace"].as_str().unwrap());
            let reply = server.connect().await.send("POST", &path, &[], Some(payload.to_string().as_bytes())).await;
            assert_eq!(reply.status, 201, "{reply:?}");
        }
    }
}

async fn ask(server: &Running, request: &Value) -> Reply {
    let headers: Vec<(String, String)> = request["headers"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let (method, path) = (request["method"].as_str().unwrap(), request["path"].as_str().unwrap());
    let body = body_of(request);
    Client::connect(server.address).await.send(method, path, &headers, body.as_deref()).await
}

/// `body`, `body_hex`, or `body_note`: the beginning of a body to be filled with `x` up to its length.
fn body_of(request: &Value) -> Option<Vec<u8>> {
    if let Some(hex) = request["body_hex"].as_str() {
        return Some((0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect());
    }
    if let Some(note) = request["body_note"].as_str() {
        let (begin, total) = note.split_once("… total bytes ").unwrap();
        let mut body = begin.trim_end_matches('x').as_bytes().to_vec();
        body.resize(total.parse::<usize>().unwrap() - 2, b'x');
        body.extend_from_slice(b"\"}");
        return Some(body);
    }
    request["body"].as_str().map(|body| body.as_bytes().to_vec())
}

/// Whether a start request came through to the handler as it was sent; where it did not, it must have been refused by the router.
fn reached_the_handler(server: &Running, case: &Value, reply: &Reply) -> bool {
    let seen = std::mem::take(&mut *server.starts.lock().unwrap());
    let Some(request) = seen.first() else {
        assert!(matches!(reply.status, 404 | 405), "{}: {reply:?}", case["name"]);
        return false;
    };
    assert_eq!((seen.len(), reply.status, reply.text()), (1, 200, START_ANSWER), "{}", case["name"]);
    assert_eq!(request.body, body_of(&case["request"]).unwrap_or_default(), "{}", case["name"]);
    let (path, query) =
        case["request"]["path"].as_str().map(|path| path.split_once('?').unwrap_or((path, ""))).unwrap();
    assert_eq!((request.path.as_str(), request.query.as_str()), (path, query), "{}", case["name"]);
    true
}

fn compare(case: &Value, reply: &Reply, published: &[sense_butler::bus::Publication]) -> Vec<String> {
    let recorded = &case["response"];
    let mut wrong = Vec::new();
    if recorded["status"] != reply.status {
        wrong.push(format!("status {} instead of {}", reply.status, recorded["status"]));
        return wrong;
    }
    let media = |text: &str| text.split(';').next().unwrap().trim().to_owned();
    if let Some(kind) = recorded["headers"]["content-type"].as_str()
        && reply.header("content-type").map(media) != Some(media(kind))
    {
        wrong.push(format!("content type {:?} instead of {kind}", reply.header("content-type")));
    }
    if let Some(kind) = reply.header("content-type")
        && kind.starts_with("application/json")
        && kind != "application/json; charset=utf-8"
    {
        wrong.push(format!("content type {kind}"));
    }
    if let Some(allow) = recorded["headers"]["allow"].as_str() {
        let ours = reply.header("allow").unwrap_or_default();
        if !allow.split(", ").all(|method| ours.split(", ").any(|other| other == method)) {
            wrong.push(format!("Allow {ours} instead of {allow}"));
        }
    }
    wrong.extend(compare_body(&case["request"], recorded, reply));
    wrong.extend(compare_published(case, published));
    wrong
}

fn compare_body(request: &Value, recorded: &Value, reply: &Reply) -> Option<String> {
    if reply.status >= 400 {
        let noted = recorded["body_note"].as_str().map(|note| note.rsplit_once('…').unwrap().0);
        let expected = recorded["body"].as_str().or(noted).unwrap();
        return if expected.is_empty() { None } else { compare_error(expected, reply) };
    }
    let expected = match recorded["body"].as_str() {
        Some(body) => body.replace("16.0.4", concat!("sense-butler ", env!("CARGO_PKG_VERSION"))).into_bytes(),
        // Too long to be kept: an echo.
        None => body_of(request).unwrap(),
    };
    (reply.body != expected)
        .then(|| format!("body {:?} instead of {:?}", reply.body, String::from_utf8_lossy(&expected)))
}

/// Same fields in the same order; `statusCode` the same; `code` present (its text may be ours).
fn compare_error(expected: &str, reply: &Reply) -> Option<String> {
    let (expected, ours): (Value, Value) = (serde_json::from_str(expected).unwrap(), reply.json());
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    if fields(&expected) != fields(&ours) {
        return Some(format!("fields {:?} instead of {:?}", fields(&ours), fields(&expected)));
    }
    let texts = ours.as_object().unwrap().iter().filter(|(key, _)| *key != "statusCode");
    if expected["statusCode"] != ours["statusCode"] || texts.into_iter().any(|(_, text)| text.as_str() == Some("")) {
        return Some(format!("error body {ours}"));
    }
    None
}

fn compare_published(case: &Value, published: &[sense_butler::bus::Publication]) -> Option<String> {
    let expected: Vec<_> = case["published"].as_array().map(Vec::as_slice).unwrap_or_default().iter().collect();
    let same = expected.len() == published.len()
        && expected.iter().zip(published).all(|(expected, ours)| {
            let payload = match expected["payload"].as_str() {
                Some(payload) => ours.payload == payload.as_bytes(),
                None => expected["payload_len"] == ours.payload.len(),
            };
            // Deliberately different: a start message is sent so that the broker keeps it until it is dealt with.
            let qos =
                if ours.topic.as_str() == "qliksense/start_task" { Value::from(1) } else { expected["qos"].clone() };
            payload
                && expected["topic"] == ours.topic.as_str()
                && qos == ours.qos as u8
                && expected["retain"] == ours.retain
        });
    (!same).then(|| format!("published {published:?}"))
}

#[tokio::test]
async fn switched_off_endpoints() {
    let recording: Value = serde_json::from_str(include_str!("golden/variants_head.json")).unwrap();
    let recording = &recording["variants"]["endpoints disabled"];
    let mut rest = settings();
    rest.endpoints.mqtt_publish = false;
    rest.endpoints.start_task = false;
    rest.endpoints.active_users = false;
    rest.endpoints.active_user_count = false;
    rest.endpoints.key_values = false;
    let server = start(Generation::Head, rest);
    let mut ran = 0;
    for (case, method, path) in [
        ("mqttpublishmessage", "PUT", "/v4/mqttpublishmessage"),
        ("start", "PUT", "/v4/reloadtask/0000aaaa-0000-4000-8000-000000000001/start"),
        ("kv", "GET", "/v4/keyvaluesnamespaces"),
    ] {
        let headers = [("content-type", "application/json")];
        let reply = server.connect().await.send(method, path, &headers, Some(b"[]")).await;
        let case = serde_json::json!({"request": {}, "response": recording[case]});
        assert_eq!(compare(&case, &reply, &server.broker.take()), Vec::<String>::new(), "{path}");
        ran += 1;
    }
    assert_eq!((ran, server.starts.lock().unwrap().len()), (3, 0));
    // Deliberately different: only what is offered is listed.
    let listed = server.get("/v4/configfile/endpointsenabled").await;
    assert_eq!((listed.status, listed.text()), (200, r#"["apiListEnabledEndpoints","butlerping"]"#));
}

#[tokio::test]
async fn docker_health() {
    let recording: Value = serde_json::from_str(include_str!("golden/variants_head.json")).unwrap();
    let recording = &recording["variants"]["docker healthcheck"];
    let mut ran = 0;
    for (generation, path, expected) in [
        (Generation::Head, "/health", recording["GET /health"].clone()),
        (Generation::Head, "/", recording["GET /"].clone()),
        (Generation::V5_4, "/", serde_json::json!({"status": 200, "body": "0"})),
    ] {
        let port = DockerHealth::bind(DockerHealthSettings { enable: true, port: 0 }).unwrap();
        let address = port.addresses()[0];
        let stop = CancellationToken::new();
        let task = tokio::spawn(port.run(generation, stop.clone()));
        let reply = Client::connect(address).await.send("GET", path, &[], None).await;
        let case = serde_json::json!({"request": {}, "response": expected});
        assert_eq!(compare(&case, &reply, &[]), Vec::<String>::new(), "{path}");
        stop.cancel();
        task.await.unwrap().unwrap();
        ran += 1;
    }
    assert_eq!(ran, 3);
}
