//! Arbitrary bytes as path, headers, body or whole request: always an answer or the end of the connection, never a 500, and the server lives on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod rest_support;

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};
use rest_support::{Client, Running, settings, start};
use sense_butler::config::settings::Generation;

const CASES: u32 = 256;

/// Runs a property against one server; asserts how many cases ran.
fn check<S: Strategy>(strategy: S, property: impl AsyncFn(&Running, S::Value) -> Result<(), TestCaseError>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(async { start(Generation::Head, settings()) });
    let ran = AtomicUsize::new(0);
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&strategy, |input| {
        ran.fetch_add(1, Ordering::Relaxed);
        runtime.block_on(property(&server, input))
    });
    outcome.unwrap();
    assert!(ran.into_inner() >= CASES as usize);
    assert_eq!(runtime.block_on(server.get("/livez")).status, 200);
}

fn method() -> impl Strategy<Value = &'static str> {
    select(vec!["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "M-SEARCH"])
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let known = select(vec![
        "/v4/mqttpublishmessage",
        "/v4/butlerping",
        "/v4/reloadtask/",
        "/readyz",
        "/metrics",
        "/",
        "/api/v1/publish",
        "/api/v1/publish?topic=",
        "/api/v1/publish/bulk?durability=stored&",
    ]);
    (known, vec(0x21_u8..0x7f, 0..20)).prop_map(|(known, rest)| [known.as_bytes(), &rest].concat())
}

fn header() -> impl Strategy<Value = (String, Vec<u8>)> {
    let name = prop_oneof![
        select(vec![
            "content-type",
            "origin",
            "host",
            "x-http-method-override",
            "accept",
            "idempotency-key",
            "authorization"
        ])
        .prop_map(str::to_owned),
        "[a-z-]{1,12}".prop_filter("framing is the client's", |name| {
            !matches!(
                name.as_str(),
                "connection" | "content-length" | "transfer-encoding" | "expect" | "upgrade" | "te"
            )
        }),
    ];
    let value = prop_oneof![vec(0x20_u8..0x7f, 0..30), vec(0x80_u8..=0xff, 0..30)];
    (name, value)
}

fn request(method: &str, path: &[u8], headers: &[(String, Vec<u8>)], body: &[u8]) -> Vec<u8> {
    let mut request = [method.as_bytes(), b" ", path, b" HTTP/1.1\r\n"].concat();
    if !headers.iter().any(|(name, _)| name == "host") {
        request.extend_from_slice(b"host: localhost\r\n");
    }
    for (name, value) in headers {
        request.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    request.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    request.extend_from_slice(body);
    request
}

#[test]
fn well_framed_requests_are_answered() {
    let body = prop_oneof![
        vec(any::<u8>(), 0..300),
        (any::<String>(), any::<String>())
            .prop_map(|pair| serde_json::json!({"topic": pair.0, "message": pair.1}).to_string().into_bytes()),
        "\\{\"topic\":[^\u{0}]{0,20},\"message\":[^\u{0}]{0,20}\\}".prop_map(String::into_bytes),
        "\\[?\\{\"topic\":\"[^\u{0}\"]{0,9}\",\"payload\":[^\u{0}]{0,20}\\}\\]?".prop_map(String::into_bytes),
    ];
    check((method(), path(), vec(header(), 0..6), body), async |server, (method, path, headers, body)| {
        let mut client = Client::connect(server.address).await;
        client.raw(&request(method, &path, &headers, &body)).await;
        let reply = client.reply(method == "HEAD").await;
        let Some(reply) = reply else { return Err(TestCaseError::fail("the connection ended without an answer")) };
        let unready = path.starts_with(b"/readyz") && reply.status == 503;
        prop_assert!((200..500).contains(&reply.status) || unready, "{:?}", reply);
        Ok(())
    });
}

#[test]
fn any_bytes_end_in_an_answer_or_a_closed_connection() {
    let garbage = prop_oneof![
        vec(any::<u8>(), 0..400),
        (vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..40)).prop_map(|(mut a, b)| {
            a.extend_from_slice(b" /v4/butlerping HTTP/1.1\r\nhost: localhost\r\n");
            a.extend_from_slice(&b);
            a.extend_from_slice(b"\r\n\r\n");
            a
        }),
    ];
    check(garbage, async |server, bytes| {
        let mut client = Client::connect(server.address).await;
        client.raw(&bytes).await;
        client.finish().await;
        if let Some(reply) = client.reply(false).await {
            prop_assert!((200..500).contains(&reply.status), "{:?}", reply);
        }
        Ok(())
    });
}
