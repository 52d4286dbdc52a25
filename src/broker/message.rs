//! Messages as the rest of the house sees them: what an internal publisher hands in and what an internal subscriber gets.
//!
//! Client connections do not pass through these types; their bytes go straight into envelopes.

use std::sync::Arc;

use bytes::Bytes;

use crate::names::{ClientId, QoS, TopicName};

/// The MQTT 5 properties of a PUBLISH (MQTT 5.0 section 3.3.2.3) that travel end to end. All absent for an MQTT 3.1.1 publisher.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// Payload Format Indicator: the payload is UTF-8 text.
    pub payload_is_utf8: bool,
    /// Message Expiry Interval, seconds.
    pub message_expiry: Option<u32>,
    /// Response Topic.
    pub response_topic: Option<TopicName>,
    /// Correlation Data.
    pub correlation_data: Option<Bytes>,
    /// Content Type.
    pub content_type: Option<Arc<str>>,
    /// User Properties, in order.
    pub user: Vec<(String, String)>,
}

/// A message an internal publisher (bridge, REST) wants out.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Where to.
    pub topic: TopicName,
    /// What; at most the packet limit of the broker.
    pub payload: Bytes,
    /// Quality of service.
    pub qos: QoS,
    /// Whether the broker keeps it as the topic's last value.
    pub retain: bool,
    /// MQTT 5 properties.
    pub properties: Properties,
    /// On whose behalf, when somebody outside asked for it (REST); `None`: the program's own.
    pub origin: Option<Origin>,
}

impl Publication {
    /// QoS 0, not retained, no properties: what Butler sends.
    pub fn new(topic: TopicName, payload: impl Into<Bytes>) -> Self {
        Self {
            topic,
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::default(),
            origin: None,
        }
    }

    /// On behalf of somebody outside; deliveries of it carry this origin.
    #[must_use]
    pub fn from(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// With another quality of service.
    #[must_use]
    pub fn qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// As the topic's retained message.
    #[must_use]
    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }
}

/// The way a message or request came into the house.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// An MQTT client of the built-in broker.
    Mqtt,
    /// The REST API.
    Rest,
    /// Another part of this program.
    Internal,
    /// An external broker: who published there is not known.
    External,
}

impl Door {
    /// The word used in answers, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Rest => "rest",
            Self::Internal => "internal",
            Self::External => "external",
        }
    }
}

/// Who published a message, as far as the broker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Which way it came.
    pub door: Door,
    /// Client id, where there is one.
    pub client: Option<ClientId>,
    /// The user who was authenticated, if any; at the REST door, which has no users, the name of the token that was shown, or else the caller's
    /// address.
    pub user: Option<Arc<str>>,
    /// Whether the publisher holds the right `start`. Always true at the built-in broker's start topics (others are turned away at the
    /// door); for an external broker, true: its access rules decide.
    pub may_start: bool,
}

/// A message handed to an internal subscriber.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Topic it was published to.
    pub topic: TopicName,
    /// Payload.
    pub payload: Bytes,
    /// QoS it was published with.
    pub qos: QoS,
    /// Delivered as a retained message of the past (RETAIN = 1 on delivery), not live.
    pub retained: bool,
    /// MQTT 5 properties.
    pub properties: Properties,
    /// Who published it.
    pub origin: Origin,
    /// Packet id the publisher used, or, from a broker elsewhere, that broker (QoS 1 and 2): with `dup`, the mark of a redelivery.
    pub packet_id: Option<u16>,
    /// The publisher's DUP flag.
    pub dup: bool,
}

/// A message handed to a kept subscription.
///
/// Dropped without [`KeptDelivery::settle`], it stays with the broker, which hands it over again after a restart or to the next subscription
/// of this name.
pub struct KeptDelivery {
    /// The message.
    pub delivery: Delivery,
    /// The same whenever this message is handed over, and never that of another; `None` where the broker knows no such thing (QoS 0, a broker
    /// elsewhere).
    pub mark: Option<String>,
    /// It may have been handed over before, perhaps to an earlier life of the program.
    pub again: bool,
    settle: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl KeptDelivery {
    /// One that is settled by this.
    pub fn new(
        delivery: Delivery,
        mark: Option<String>,
        again: bool,
        settle: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        Self { delivery, mark, again, settle: Some(Box::new(settle)) }
    }

    /// One that nobody keeps.
    pub fn passing(delivery: Delivery) -> Self {
        Self { delivery, mark: None, again: false, settle: None }
    }

    /// Takes the message out; what is left settles it.
    pub fn split(self) -> (Delivery, Settlement) {
        (self.delivery, Settlement(self.settle))
    }

    /// The message is dealt with: the broker forgets it.
    pub fn settle(self) {
        self.split().1.settle();
    }
}

impl std::fmt::Debug for KeptDelivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { delivery, mark, again, settle: _ } = self;
        f.debug_struct("KeptDelivery").field("delivery", delivery).field("mark", mark).field("again", again).finish()
    }
}

/// What settles a [`KeptDelivery`] whose message was taken out.
#[must_use = "the broker keeps the message until it is settled"]
pub struct Settlement(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Settlement {
    /// See [`KeptDelivery::settle`].
    pub fn settle(self) {
        if let Some(settle) = self.0 {
            settle();
        }
    }
}
