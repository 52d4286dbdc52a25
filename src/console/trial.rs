//! The test event: a datagram as a Sense node sends it, to the program's own port, and whether it arrives as a message.
//!
//! It goes the whole way of an event of Qlik Sense (socket, parser, bridge, broker), so what arrives proves that way. Its task is called
//! [`TASK`] and does not exist. Invariants: one at a time; the answer comes within [`PATIENCE`]; nothing is sent anywhere but to this program.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use time::{OffsetDateTime, macros::format_description};
use tokio::{net::UdpSocket, sync::Mutex};

use crate::{
    bus::{Bus, PublishError, Subscription},
    names::TopicFilter,
    sense::simulator::datagram::{DatagramKind, Profile, TaskFields, task_datagram},
};

/// Name of the task, of its app, and of the node that seems to send.
pub const TASK: &str = "sense-butler test event";
/// How long the event may take.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// What the event reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A task ended well.
    Succeeded,
    /// A task failed: whatever listens for failures will act on it.
    Failed,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Where the datagram was sent to.
    pub to: SocketAddr,
    /// How long it took to arrive; `None`: it did not.
    pub took: Option<Duration>,
}

/// Why none was sent.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// Datagrams are not received at all.
    #[error("no datagrams are received: udpServerConfig.enable is false, or there is no MQTT (mqttConfig.enable)")]
    Deaf,
    /// Whether it arrives could not be seen.
    #[error("{0}")]
    Bus(#[from] PublishError),
    /// The system does not send.
    #[error("the datagram to {to} could not be sent: {source}; does a firewall keep this machine from itself?")]
    Send {
        /// Where to.
        to: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
}

/// See the module.
pub struct Trial {
    to: Option<SocketAddr>,
    bus: Bus,
    heard: Option<TopicFilter>,
    turn: Mutex<()>,
}

impl Trial {
    pub(super) fn new(bound: Option<SocketAddr>, bus: Bus, heard: Option<TopicFilter>) -> Self {
        Self { to: bound.map(reachable), bus, heard, turn: Mutex::default() }
    }

    /// Sends an event and waits for it.
    ///
    /// # Errors
    /// If none can be sent or seen.
    pub async fn send(&self, ending: Ending) -> Result<Report, TrialError> {
        let (Some(to), Some(filter)) = (self.to, self.heard.clone()) else { return Err(TrialError::Deaf) };
        let _turn = self.turn.lock().await;
        let arrivals = self.bus.subscribe("console test event", vec![filter]).await?;
        let execution = uuid::Uuid::new_v4().to_string();
        let begun = Instant::now();
        post(to, &text(ending, &execution)).await.map_err(|source| TrialError::Send { to, source })?;
        let arrived = tokio::time::timeout(PATIENCE, arrives(arrivals, &execution)).await;
        Ok(Report { to, took: arrived.is_ok_and(|arrived| arrived).then(|| begun.elapsed()) })
    }
}

/// Whether the event comes; ends when there will be no more.
async fn arrives(mut arrivals: Subscription, execution: &str) -> bool {
    while let Some(delivery) = arrivals.recv().await {
        if std::str::from_utf8(&delivery.payload).is_ok_and(|text| text.contains(execution)) {
            return true;
        }
    }
    false
}

async fn post(to: SocketAddr, text: &str) -> std::io::Result<()> {
    // From the very address that is called: it is this machine's, and no other is surely allowed to reach it.
    let socket = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).await?;
    socket.send_to(text.as_bytes(), to).await.map(drop)
}

fn text(ending: Ending, execution: &str) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second],[subsecond digits:3]");
    let now = OffsetDateTime::now_local().unwrap_or_else(|_| OffsetDateTime::now_utc());
    let task = uuid::Uuid::new_v4().to_string();
    let fields = TaskFields {
        host: "sense-butler-test",
        task: TASK,
        app: TASK,
        user: "SENSE-BUTLER\\test",
        task_id: &task,
        app_id: &task,
        date: &now.format(format).unwrap_or_default(),
        execution_id: execution,
    };
    let kind = match ending {
        Ending::Succeeded => DatagramKind::Success,
        Ending::Failed => DatagramKind::Failed,
    };
    // The appenders of this profile send both.
    task_datagram(Profile::Butler16, kind, &fields).unwrap_or_default()
}

/// Where a socket bound to every address is reached from this machine.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::settings::Generation,
        sense::{datagram::parse_task, event::TaskEventKind},
    };

    #[test]
    fn it_is_read_as_the_event_it_reports() {
        for (ending, expected) in
            [(Ending::Succeeded, TaskEventKind::Succeeded), (Ending::Failed, TaskEventKind::Failed)]
        {
            let text = text(ending, "6e0a8b4e-4b5c-4a1d-9d3e-0123456789ab");
            for generation in [Generation::Head, Generation::V5_4] {
                let event = parse_task(text.as_bytes(), generation, std::time::SystemTime::now()).unwrap();
                assert_eq!((event.kind, event.task_name.as_deref(), event.ambiguous), (expected, Some(TASK), false));
                assert!(event.execution_id().is_some() && event.task_id().is_some(), "{text}");
            }
        }
    }

    #[test]
    fn where_it_is_sent() {
        for (bound, expected) in [
            ("127.0.0.1:9998", "127.0.0.1:9998"),
            ("0.0.0.0:9998", "127.0.0.1:9998"),
            ("[::]:9998", "[::1]:9998"),
            ("10.0.0.5:9998", "10.0.0.5:9998"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()).to_string(), expected);
        }
    }
}
