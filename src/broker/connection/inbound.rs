//! Packets from the client. Every effect on others is parked for the stream; only pings and the client's own acknowledgements are settled
//! here at once.

use std::borrow::Cow;

use bytes::BytesMut;

use super::{
    End,
    link::{Link, PACKETS},
};
use crate::{
    broker::{
        admission::{WINDOW, cost},
        cargo::{Ack as AckTo, Cargo, SubscribeCargo, UnsubscribeCargo},
        codec::{
            Ack, DecodeError, Disconnect, Framed, Packet, Publish, Subscribe, SubscribeFilter, Unsubscribe, Version,
            decode, frame, is_shortest, properties,
            write::{self, AckKind},
        },
        engine::Outgoing,
        envelope::{Draft, PublishDraft, now_ms},
        metrics::{Denied, Lost},
        peer::{Kick, Reply},
        session::{Incoming, Released, Stale},
        stream::Asked,
    },
    names::{QoS, TopicFilter},
};

const NOT_AUTHORIZED: u8 = 0x87;
const FILTER_INVALID: u8 = 0x8f;
const TOPIC_INVALID: u8 = 0x90;
const PACKET_ID_NOT_FOUND: u8 = 0x92;
const RECEIVE_MAXIMUM: u8 = 0x93;
const ALIAS_INVALID: u8 = 0x94;
const PROTOCOL: u8 = 0x82;
pub(super) const OVERLONG: DecodeError = DecodeError::Malformed("the length of a packet is longer than needed");

impl From<DecodeError> for End {
    fn from(error: DecodeError) -> Self {
        let why = match error {
            DecodeError::Malformed(why) | DecodeError::Protocol(why) | DecodeError::TopicName(why) => why,
            DecodeError::TooLarge { .. } => "a packet is larger than limits.packet_size in broker.toml allows",
            DecodeError::UnsupportedVersion(_) => "a second CONNECT",
            DecodeError::TopicAlias => "topic alias 0",
        };
        Self::Broken { code: error.reason_code(), why }
    }
}

impl From<Stale> for End {
    fn from(_: Stale) -> Self {
        Self::Kicked(Kick::SessionTakenOver)
    }
}

/// What the filters of a SUBSCRIBE or UNSUBSCRIBE occupy, bytes.
fn cargo_size(filters: usize, texts: usize) -> usize {
    filters * 64 + texts
}

fn broken(code: u8, why: &'static str) -> End {
    End::Broken { code, why }
}

impl Link {
    /// Handles the complete packets in `input`; returns how many bytes are done with.
    pub(super) fn handle(&mut self, input: &[u8], out: &mut BytesMut) -> Result<usize, End> {
        let now = now_ms();
        let (mut done, mut count) = (0, 0);
        while self.may_read(out.len()) {
            let rest = input.get(done..).unwrap_or_default();
            self.unread = !rest.is_empty() && count == PACKETS;
            if rest.is_empty() || self.unread {
                break;
            }
            count += 1;
            match frame(rest, self.hub.limits.packet_size)? {
                Framed::Complete { first, body, length } => {
                    if self.version == Version::V5 && !is_shortest(length, body.len()) {
                        return Err(OVERLONG.into());
                    }
                    let packet = decode(first, body, self.version)?;
                    self.packet(packet, now, out)?;
                    if let Some(meter) = &mut self.meter {
                        meter.count(first >> 4 == 3, length);
                    }
                    done += length;
                }
                Framed::Incomplete { .. } => break,
            }
        }
        Ok(done)
    }

    fn packet(&mut self, packet: Packet<'_>, now: u64, out: &mut BytesMut) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.publish(publish, now, out),
            Packet::PubAck(ack) => self.puback(ack),
            Packet::PubRec(ack) => self.pubrec(ack, out),
            Packet::PubRel(ack) => self.pubrel(ack, out),
            Packet::PubComp(ack) => self.pubcomp(ack),
            Packet::Subscribe(subscribe) => self.subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe),
            Packet::PingReq => {
                write::pingresp(out);
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.disconnect(&disconnect),
            Packet::Connect(_) => Err(broken(PROTOCOL, "a second CONNECT")),
            Packet::Auth(_) => Err(broken(PROTOCOL, "AUTH without an authentication method")),
        }
    }

    fn publish(&mut self, publish: Publish<'_>, now: u64, out: &mut BytesMut) -> Result<(), End> {
        if self.is_client() {
            self.hub.metrics.received(publish.qos as u8);
        }
        let alias = self.resolve(&publish)?;
        let topic = alias.as_deref().unwrap_or(publish.topic);
        if !self.may_publish(topic) {
            return self.deny(&publish);
        }
        let properties = self.checked_properties(topic, &publish);
        // Counted first: an id that is noted in the session must be followed by its message.
        if publish.qos != QoS::AtMostOnce {
            self.count_inbound()?;
        }
        if publish.qos == QoS::ExactlyOnce && !self.is_new(&publish, out)? {
            self.inbound -= 1;
            return Ok(());
        }
        let draft = Draft::publish(&PublishDraft {
            topic: topic.as_bytes(),
            properties: &properties,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            packet_id: publish.packet_id,
            received: now,
            expires: publish.expiry.map_or(0, |seconds| now + u64::from(seconds) * 1000),
        });
        let ack = if publish.qos == QoS::AtMostOnce { AckTo::None } else { AckTo::Client };
        let keeps = publish.qos != QoS::AtMostOnce || publish.retain;
        self.park_costed(draft, keeps, Cargo::Publish(ack));
        Ok(())
    }

    fn park_costed(&mut self, draft: Draft, keeps: bool, cargo: Cargo) {
        let cost = cost(draft.len(), WINDOW);
        let stored = if keeps { cost } else { 0 };
        self.park(Outgoing { draft, cost, stored, cargo });
    }

    /// Parks what travels beside its envelope; `size` is what it occupies there, bytes.
    fn park_cargo(&mut self, size: usize, cargo: Cargo) {
        let draft = Draft::control();
        let cost = cost(draft.len() + size, WINDOW);
        self.park(Outgoing { draft, cost, stored: 0, cargo });
    }

    /// The properties that travel. The answer to a start is published by this program, which may publish everywhere; so a Response Topic on
    /// which the client itself may not publish is taken off, and the answer goes to the usual topic.
    fn checked_properties<'a>(&self, topic: &str, publish: &'a Publish<'_>) -> Cow<'a, [u8]> {
        let unchanged = Cow::Borrowed(publish.properties.as_ref());
        if publish.properties.is_empty() || !self.access.is_start(topic) {
            return unchanged;
        }
        let Ok(mut parsed) = properties::from_wire(&publish.properties, None) else { return unchanged };
        match &parsed.response_topic {
            Some(response) if !self.access.may_publish(response.as_str()) => {
                parsed.response_topic = None;
                properties::to_wire(&parsed).map_or(Cow::Borrowed(&[]), Cow::Owned)
            }
            _ => unchanged,
        }
    }

    /// The topic an alias stands for (`None`: the packet names it); remembers a new one (MQTT 5.0 section 3.3.2.3.4).
    fn resolve(&mut self, publish: &Publish<'_>) -> Result<Option<Box<str>>, End> {
        let Some(alias) = publish.topic_alias else { return Ok(None) };
        if alias > self.hub.limits.topic_aliases {
            return Err(broken(ALIAS_INVALID, "a topic alias above the maximum"));
        }
        let place = usize::from(alias);
        if publish.topic.is_empty() {
            let known = self.aliases.get(place).cloned().flatten();
            return known.map(Some).ok_or(broken(PROTOCOL, "a topic alias that was never set"));
        }
        if self.aliases.len() <= place {
            self.aliases.resize(place + 1, None);
        }
        if let Some(known) = self.aliases.get_mut(place) {
            *known = Some(publish.topic.into());
        }
        Ok(None)
    }

    /// A publish that is not allowed: 5.0 is told so; 3.1.1 has no word for it, so the message is acknowledged and goes nowhere
    /// (`[MQTT-3.3.5-2]` of 3.1.1). The answer keeps its place among those to earlier packets.
    fn deny(&mut self, publish: &Publish<'_>) -> Result<(), End> {
        self.hub.metrics.dropped(Lost::NotAuthorized, 1);
        self.hub.metrics.denied(Denied::Publish);
        let client = &self.session.client;
        tracing::debug!(%client, topic = self.verdicts.published(), "publish denied");
        let kind = match publish.qos {
            QoS::AtMostOnce => return Ok(()),
            QoS::AtLeastOnce => AckKind::PubAck,
            QoS::ExactlyOnce => AckKind::PubRec,
        };
        let too_deep = self.verdicts.published().split('/').count() > self.hub.limits.topic_levels;
        let reason = match self.version {
            Version::V3 => 0,
            Version::V5 if too_deep => TOPIC_INVALID,
            Version::V5 => NOT_AUTHORIZED,
        };
        self.count_inbound()?;
        let reply = Reply::Ack { kind, packet_id: publish.packet_id, reason };
        self.park_costed(Draft::control(), false, Cargo::Reply(reply));
        Ok(())
    }

    /// Whether a QoS 2 message is seen for the first time; one that was routed already is answered again.
    fn is_new(&mut self, publish: &Publish<'_>, out: &mut BytesMut) -> Result<bool, End> {
        let state = self.session.handshakes.lock().receive(self.peer.id, publish.packet_id)?;
        if state == Incoming::Received {
            write::ack(out, self.version, AckKind::PubRec, publish.packet_id, 0);
        }
        Ok(state == Incoming::New)
    }

    /// 5.0 clients were told how much they may have in flight (`[MQTT-3.3.4-7]`); 3.1.1 clients cannot be.
    fn count_inbound(&mut self) -> Result<(), End> {
        self.inbound += 1;
        if self.version == Version::V5 && self.inbound > usize::from(self.hub.limits.inflight) {
            return Err(broken(RECEIVE_MAXIMUM, "more unacknowledged messages than Receive Maximum allows"));
        }
        Ok(())
    }

    fn puback(&mut self, ack: Ack) -> Result<(), End> {
        // An unknown id is no reason to part: it may be late.
        self.session.handshakes.lock().puback(self.peer.id, ack.packet_id)?;
        self.touch();
        Ok(())
    }

    fn pubrec(&mut self, ack: Ack, out: &mut BytesMut) -> Result<(), End> {
        let released = self.session.handshakes.lock().pubrec(self.peer.id, ack.packet_id, ack.reason)?;
        match released {
            Released::Now => write::ack(out, self.version, AckKind::PubRel, ack.packet_id, 0),
            Released::Unknown => write::ack(out, self.version, AckKind::PubRel, ack.packet_id, PACKET_ID_NOT_FOUND),
            Released::Later | Released::Ended => self.touch(),
        }
        Ok(())
    }

    fn pubrel(&mut self, ack: Ack, out: &mut BytesMut) -> Result<(), End> {
        let released = self.session.handshakes.lock().pubrel(self.peer.id, ack.packet_id)?;
        match released {
            Released::Later => self.touch(),
            Released::Now => {
                self.inbound = self.inbound.saturating_sub(1);
                write::ack(out, self.version, AckKind::PubComp, ack.packet_id, 0);
            }
            _ => write::ack(out, self.version, AckKind::PubComp, ack.packet_id, PACKET_ID_NOT_FOUND),
        }
        Ok(())
    }

    fn pubcomp(&mut self, ack: Ack) -> Result<(), End> {
        self.session.handshakes.lock().pubcomp(self.peer.id, ack.packet_id)?;
        self.touch();
        Ok(())
    }

    fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), End> {
        let id = subscribe.subscription_id;
        let filters = subscribe.filters.into_iter().map(|filter| self.subscribe_filter(&filter, id));
        let filters = filters.collect::<Result<Vec<_>, End>>()?;
        let texts = filters.iter().flatten().map(|(filter, _)| filter.as_str().len()).sum();
        let size = cargo_size(filters.len(), texts);
        let cargo = SubscribeCargo { packet_id: subscribe.packet_id, filters, done: None, all: false };
        self.park_cargo(size, Cargo::Subscribe(Box::new(cargo)));
        Ok(())
    }

    fn subscribe_filter(
        &self,
        filter: &SubscribeFilter,
        id: Option<u32>,
    ) -> Result<Result<(TopicFilter, Asked), u8>, End> {
        let Ok(name) = TopicFilter::new(&filter.filter) else { return Ok(Err(FILTER_INVALID)) };
        if name.shared().is_some() && filter.options.no_local {
            return Err(broken(PROTOCOL, "No Local on a shared subscription"));
        }
        if name.pattern().split('/').count() > self.hub.limits.topic_levels {
            return Ok(Err(FILTER_INVALID));
        }
        if !self.access.may_subscribe(&name) {
            self.hub.metrics.denied(Denied::Subscribe);
            return Ok(Err(NOT_AUTHORIZED));
        }
        Ok(Ok((name, Asked { options: filter.options, id, internal: false })))
    }

    fn unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Result<(), End> {
        let size = cargo_size(unsubscribe.filters.len(), unsubscribe.filters.iter().map(|filter| filter.len()).sum());
        let filters =
            unsubscribe.filters.iter().map(|filter| TopicFilter::new(filter).map_err(|_| FILTER_INVALID)).collect();
        let cargo = UnsubscribeCargo { packet_id: unsubscribe.packet_id, filters };
        self.park_cargo(size, Cargo::Unsubscribe(Box::new(cargo)));
        Ok(())
    }

    fn disconnect(&mut self, disconnect: &Disconnect) -> Result<(), End> {
        if disconnect.session_expiry.is_some_and(|expiry| expiry > 0) && !self.terms.persistent {
            return Err(broken(PROTOCOL, "a session expiry in DISCONNECT where CONNECT had none"));
        }
        if disconnect.reason == 0 {
            self.peer.say_goodbye();
        }
        self.ending = Some(End::Disconnect { with_will: disconnect.reason != 0, expiry: disconnect.session_expiry });
        Ok(())
    }
}
