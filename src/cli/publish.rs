//! `pub`: one message, and the broker's word on it.

use std::{io::Read as _, path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::Args;

use super::{Exit, complain, talk};
use crate::{
    bus::{
        Publication,
        wire::{self, Client, Event, Events, LinkError},
    },
    names::{QoS, TopicName},
};

/// Time for the broker's word.
const WORD: Duration = Duration::from_secs(10);

/// Shown under `pub --help`.
pub const EXAMPLES: &str = "With QoS 1 and 2 it waits for the broker's acknowledgement. Exit code 0: the broker has taken the message.\n\n\
    Examples:\n  sense-butler pub -t qliksense/start_task -m 0a1b2c3d-0000-4000-8000-000000000001\n  \
    sense-butler pub -t plant/line1/state --file state.json --retain --host broker.example.com --tls";

/// Options of `pub`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Topic
    #[arg(short, long, value_name = "TOPIC", value_parser = |text: &str| TopicName::publishable(text))]
    pub topic: TopicName,
    /// The message
    #[arg(short, long, value_name = "MESSAGE", required_unless_present = "file", conflicts_with = "file")]
    pub message: Option<String>,
    /// Send the content of a file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// 0 at most once, 1 at least once, 2 exactly once
    #[arg(short, long, value_name = "QOS", default_value = "1", value_parser = talk::parse_qos)]
    pub qos: QoS,
    /// Let the broker keep it as the topic's last message
    #[arg(short, long)]
    pub retain: bool,
    /// The broker.
    #[command(flatten)]
    pub connection: talk::Connection,
}

/// Publishes.
pub fn run(options: &Options) -> Exit {
    let prepared = payload(options).and_then(|payload| Ok((payload, options.connection.options("pub")?)));
    let (payload, settings) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return complain(error),
    };
    let mut publication = Publication::new(options.topic.clone(), payload).qos(options.qos);
    publication.retain = options.retain;
    talk::run(async {
        match publish(settings, &publication).await {
            Ok(None) => Exit::Done,
            Ok(Some(refusal)) => {
                complain(format!("the broker at {} refused the message: {refusal}", options.connection.address()))
            }
            Err(error) => options.connection.failed(&error),
        }
    })
}

fn payload(options: &Options) -> Result<Bytes, String> {
    let Some(path) = &options.file else {
        return Ok(Bytes::from(options.message.clone().unwrap_or_default()));
    };
    let mut content = Vec::new();
    let read = if path.as_os_str() == "-" {
        if options.connection.password_stdin {
            return Err("standard input cannot be both the message and the password".to_owned());
        }
        std::io::stdin().read_to_end(&mut content).map(drop)
    } else {
        std::fs::read(path).map(|bytes| content = bytes)
    };
    read.map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    Ok(Bytes::from(content))
}

/// The broker's refusal, if it refused.
async fn publish(settings: wire::Options, publication: &Publication) -> Result<Option<String>, LinkError> {
    let (client, mut events) = wire::open(settings);
    let terms = events.connect().await?;
    let size = wire::packet_size(publication);
    if size > terms.max_packet {
        return Ok(Some(format!("it needs {size} bytes, the limit there is {}", terms.max_packet)));
    }
    client.publish(publication, publication.qos).await?;
    let word = tokio::time::timeout(WORD, word(&mut events, publication.qos));
    let refusal = word.await.unwrap_or(Err(LinkError::Timeout(WORD)))?;
    goodbye(&client, &mut events).await;
    Ok(refusal)
}

async fn word(events: &mut Events, qos: QoS) -> Result<Option<String>, LinkError> {
    loop {
        match events.next().await? {
            Event::Sent(_) if qos == QoS::AtMostOnce => return Ok(None),
            Event::Acknowledged(_, refusal) => return Ok(refusal),
            _ => {}
        }
    }
}

/// Says DISCONNECT and sees it off; how that ends changes nothing.
pub(super) async fn goodbye(client: &Client, events: &mut Events) {
    let farewell = async {
        client.disconnect().await;
        while !matches!(events.next().await, Ok(Event::Disconnected) | Err(_)) {}
    };
    drop(tokio::time::timeout(Duration::from_secs(1), farewell).await);
}
