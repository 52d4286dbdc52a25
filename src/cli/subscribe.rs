//! `sub`: prints what comes, until stopped or counted out.

use std::io::{self, Write};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Args;
use serde_json::{Value, json};

use super::{Exit, complain, publish::goodbye, talk};
use crate::{
    app,
    bus::{
        Delivery,
        wire::{self, Client, Event, Events, LinkError},
    },
    names::{QoS, TopicFilter},
};

/// Shown under `sub --help`.
pub const EXAMPLES: &str = "Stops with Ctrl-C, or after --count messages.\n\n\
    Examples:\n  sense-butler sub -v -t 'qliksense/#'\n  \
    sense-butler sub -t qliksense/task_failure_full --count 1 --json";

/// Options of `sub`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Topic filter; may be given several times
    #[arg(short, long = "topic", value_name = "FILTER", required = true)]
    pub topics: Vec<TopicFilter>,
    /// Print the topic before each message
    #[arg(short, long)]
    pub verbose: bool,
    /// Stop after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Print one JSON object per message
    #[arg(long)]
    pub json: bool,
    /// 0 at most once, 1 at least once, 2 exactly once
    #[arg(short, long, value_name = "QOS", default_value = "1", value_parser = talk::parse_qos)]
    pub qos: QoS,
    /// The broker.
    #[command(flatten)]
    pub connection: talk::Connection,
}

/// How listening ended.
enum End {
    Enough,
    Stopped,
    /// Nobody reads our output any more.
    Closed,
    Refused(String),
}

/// Subscribes and prints.
pub fn run(options: &Options) -> Exit {
    let settings = match options.connection.options("sub") {
        Ok(settings) => settings,
        Err(error) => return complain(error),
    };
    talk::run(async {
        let (client, mut events) = wire::open(settings);
        match listen(options, &client, &mut events).await {
            Ok(End::Refused(why)) => {
                complain(format!("the broker at {} refused the subscription: {why}", options.connection.address()))
            }
            Ok(_) => {
                goodbye(&client, &mut events).await;
                Exit::Done
            }
            Err(error) => options.connection.failed(&error),
        }
    })
}

async fn listen(options: &Options, client: &Client, events: &mut Events) -> Result<End, LinkError> {
    let mut stopped = std::pin::pin!(app::signal());
    tokio::select! {
        connected = events.connect() => drop(connected?),
        _ = &mut stopped => return Ok(End::Stopped),
    }
    client.subscribe(&options.topics, options.qos).await?;
    tokio::select! {
        end = print_all(options, events) => end,
        // The half-read packet that is given up here is of no use to anybody.
        _ = &mut stopped => Ok(End::Stopped),
    }
}

async fn print_all(options: &Options, events: &mut Events) -> Result<End, LinkError> {
    let mut left = options.count;
    loop {
        match events.next().await? {
            Event::Subscribed(answers) => {
                if let Some(why) = answers.into_iter().flatten().next() {
                    return Ok(End::Refused(why));
                }
            }
            Event::Delivery(delivery) => {
                if print(&mut io::stdout().lock(), options, &delivery).is_err() {
                    return Ok(End::Closed);
                }
                left = left.map(|left| left - 1);
                if left == Some(0) {
                    return Ok(End::Enough);
                }
            }
            _ => {}
        }
    }
}

/// One line per message, bytes as they are unless JSON is wanted.
fn print(out: &mut impl Write, options: &Options, delivery: &Delivery) -> io::Result<()> {
    if options.json {
        writeln!(out, "{}", to_json(delivery))?;
        return out.flush();
    }
    if options.verbose {
        write!(out, "{} ", delivery.topic)?;
    }
    out.write_all(&delivery.payload)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// `payload` for text, `payload_base64` for anything else; MQTT 5 properties only where there are some.
fn to_json(delivery: &Delivery) -> Value {
    let mut object = json!({"topic": delivery.topic, "qos": delivery.qos as u8, "retain": delivery.retained});
    match std::str::from_utf8(&delivery.payload) {
        Ok(text) => put(&mut object, "payload", json!(text)),
        Err(_) => put(&mut object, "payload_base64", json!(BASE64_STANDARD.encode(&delivery.payload))),
    }
    let properties = &delivery.properties;
    if let Some(topic) = &properties.response_topic {
        put(&mut object, "response_topic", json!(topic));
    }
    if let Some(data) = &properties.correlation_data {
        put(&mut object, "correlation_data_base64", json!(BASE64_STANDARD.encode(data)));
    }
    if let Some(text) = &properties.content_type {
        put(&mut object, "content_type", json!(&**text));
    }
    if !properties.user.is_empty() {
        put(&mut object, "user_properties", json!(properties.user));
    }
    object
}

fn put(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bus::{Door, Origin, Properties},
        names::TopicName,
    };

    fn delivery(payload: &'static [u8], properties: Properties) -> Delivery {
        Delivery {
            topic: TopicName::new("å/b").unwrap(),
            payload: payload.into(),
            qos: QoS::AtLeastOnce,
            retained: true,
            properties,
            origin: Origin { door: Door::External, client: None, user: None, may_start: true },
            packet_id: None,
            dup: false,
        }
    }

    #[test]
    fn json_holds_text_as_text_and_bytes_as_base64() {
        let text = to_json(&delivery("grüße".as_bytes(), Properties::default())).to_string();
        assert_eq!(text, r#"{"topic":"å/b","qos":1,"retain":true,"payload":"grüße"}"#);
        let properties = Properties {
            correlation_data: Some(b"\x01".as_slice().into()),
            user: vec![("k".into(), "v".into())],
            ..Properties::default()
        };
        let bytes = to_json(&delivery(b"\xff\x00", properties)).to_string();
        assert_eq!(
            bytes,
            r#"{"topic":"å/b","qos":1,"retain":true,"payload_base64":"/wA=","correlation_data_base64":"AQ==","user_properties":[["k","v"]]}"#
        );
    }
}
