//! The REST API from outside, over real sockets, with a broker double.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod rest_support;

use rest_support::{settings, start};
use sense_butler::config::settings::Generation;

#[tokio::test]
async fn a_publish_reaches_the_broker_and_is_echoed() {
    let server = start(Generation::Head, settings());
    let reply = server.put("/v4/mqttpublishmessage", r#"{"topic":"lab/t1","message":"hello"}"#).await;
    assert_eq!((reply.status, reply.text()), (201, r#"{"topic":"lab/t1","message":"hello"}"#));
    assert_eq!(reply.header("content-type"), Some("application/json; charset=utf-8"));
    let published = server.broker.take();
    assert_eq!(published.len(), 1);
    assert_eq!((published[0].topic.as_str(), &published[0].payload[..]), ("lab/t1", &b"hello"[..]));
}
