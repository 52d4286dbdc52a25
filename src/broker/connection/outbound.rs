//! Packets to the client: replies from the stream, messages from the outbox, what is sent again after a reconnect.

use bytes::BytesMut;

use super::{
    End,
    link::{Link, OUT},
};
use crate::{
    broker::{
        codec::{
            Version,
            write::{self, AckKind, PublishOut},
        },
        envelope::now_ms,
        metrics::Lost,
        peer::{Kick, Reply},
        promise::UNSTORED,
        session::{Entry, Parcel, packet_id},
    },
    names::QoS,
};

/// Whether a reply says that the store could not take what the client sent.
fn is_unstored(reply: &Reply) -> bool {
    match reply {
        Reply::Ack { kind: AckKind::PubAck | AckKind::PubRec, reason, .. } => *reason >= 0x80,
        Reply::UnsubAck { codes, .. } => codes.contains(&UNSTORED),
        _ => false,
    }
}

impl Link {
    /// Writes the replies that wait; ends when the connection was kicked.
    pub(super) fn take_replies(&mut self, out: &mut BytesMut) -> Result<bool, End> {
        let mut replies = std::mem::take(&mut self.replies);
        let kick = self.peer.take(&mut replies);
        let moved = !replies.is_empty();
        for reply in replies.drain(..) {
            if self.version == Version::V3 && is_unstored(&reply) {
                // 3.1.1 has no word for "not taken" but the end of the connection.
                return Err(End::Kicked(Kick::Unstored));
            }
            let before = out.len();
            self.reply(&reply, out);
            self.check_size(before, out)?;
        }
        self.replies = replies;
        kick.map_or(Ok(moved), |kick| Err(End::Kicked(kick)))
    }

    fn reply(&mut self, reply: &Reply, out: &mut BytesMut) {
        match reply {
            Reply::Ack { kind, packet_id, reason } => {
                if matches!(kind, AckKind::PubAck | AckKind::PubComp) || *reason >= 0x80 {
                    self.inbound = self.inbound.saturating_sub(1);
                }
                write::ack(out, self.version, *kind, *packet_id, *reason);
            }
            Reply::SubAck { packet_id, codes } => match self.version {
                Version::V5 => write::suback(out, Version::V5, *packet_id, codes),
                Version::V3 => {
                    // 3.1.1 knows one code for every refusal.
                    let codes: Vec<u8> = codes.iter().map(|code| if *code >= 0x80 { 0x80 } else { *code }).collect();
                    write::suback(out, Version::V3, *packet_id, &codes);
                }
            },
            Reply::UnsubAck { packet_id, codes } => write::unsuback(out, self.version, *packet_id, codes),
        }
    }

    /// Writes messages while the write buffer has room. Returns whether any moved.
    ///
    /// # Errors
    /// If the connection was kicked meanwhile.
    pub(super) fn fill(&mut self, out: &mut BytesMut) -> Result<bool, End> {
        let mut moved = false;
        while out.len() < OUT && self.send_more(out)? {
            moved = true;
        }
        Ok(moved)
    }

    /// What an earlier connection left unacknowledged comes first, then what is new.
    fn send_more(&mut self, out: &mut BytesMut) -> Result<bool, End> {
        let mut parcels = std::mem::take(&mut self.parcels);
        let budget = OUT - out.len().min(OUT);
        // Taken over: the kick is on its way.
        if let Ok(taken) = self.session.take(self.peer.id, budget, self.terms.receive_maximum, &mut parcels) {
            if taken.nudge {
                self.hub.attention.notify_one();
            }
            if taken.page {
                self.hub.store.load(&self.session);
            }
            if taken.settled {
                self.hub.store.touch(&self.session);
            }
        }
        let moved = !parcels.is_empty();
        // A SUBACK was there before the retained messages that follow it, perhaps since the replies were looked at.
        let kicked = if moved { self.take_replies(out).err() } else { None };
        self.send(&mut parcels, out);
        self.parcels = parcels;
        kicked.map_or(Ok(moved), Err)
    }

    fn send(&mut self, parcels: &mut Vec<Parcel>, out: &mut BytesMut) {
        if parcels.is_empty() {
            return;
        }
        let (now, mut counts) = (now_ms(), [0; 3]);
        for parcel in parcels.drain(..) {
            match parcel {
                Parcel::PubRel(id) => write::ack(out, self.version, AckKind::PubRel, id, 0),
                Parcel::Publish { entry, again } => {
                    let id = if entry.qos == QoS::AtMostOnce { 0 } else { packet_id(entry.qseq) };
                    if self.write_timely(out, &entry, id, again, now) {
                        if let Some(count) = counts.get_mut(entry.qos as usize) {
                            *count += 1;
                        }
                    } else if entry.qos != QoS::AtMostOnce {
                        self.settle(id);
                    }
                }
            }
        }
        if self.is_client() {
            self.hub.metrics.sent(counts);
        }
    }

    /// Whether a message may not be delivered; then it is counted.
    fn is_denied(&mut self, entry: &Entry) -> bool {
        let denied = self.sieves() && !self.may_receive(entry.message.topic_str());
        if denied {
            self.hub.metrics.dropped(Lost::NotReceivable, 1);
            self.session.count_dropped(1);
        }
        denied
    }

    fn write_timely(&mut self, out: &mut BytesMut, entry: &Entry, id: u16, again: bool, now: u64) -> bool {
        if self.is_denied(entry) {
            return false;
        }
        if !again && entry.message.remaining(now).is_err() {
            self.hub.metrics.dropped(Lost::Expired, 1);
            self.session.count_dropped(1);
            return false;
        }
        self.write(out, entry, id, again, now)
    }

    /// A message that cannot be sent counts as delivered (`[MQTT-3.1.2-25]`, `[MQTT-3.3.2-5]`).
    fn settle(&self, id: u16) {
        // Taken over: the next connection settles it.
        let _ = self.session.handshakes.lock().forget(self.peer.id, id);
        self.touch();
    }

    /// The client acknowledged something: a stored session's progress is to be written.
    pub(super) fn touch(&self) {
        if self.session.kept().is_some() {
            self.hub.store.touch(&self.session);
        }
    }

    /// Writes one PUBLISH; `false`: it is larger than the client takes, and dropped (`[MQTT-3.1.2-24]`).
    fn write(&mut self, out: &mut BytesMut, entry: &Entry, packet_id: u16, dup: bool, now: u64) -> bool {
        let message = &entry.message;
        let (topic, topic_alias) = self.spoken.say(message.topic());
        let mut packet = PublishOut {
            dup: dup && entry.qos != QoS::AtMostOnce,
            qos: entry.qos,
            retain: entry.retain,
            packet_id,
            topic,
            topic_alias,
            // What was sent before it expired is sent again with a second left rather than withdrawn.
            expiry: message.remaining(now).unwrap_or(Some(1)),
            subscription_ids: entry.ids.as_deref().unwrap_or_default(),
            properties: message.properties(),
            payload: message.payload(),
        };
        let largest = self.terms.largest_packet;
        let fits =
            |packet: &PublishOut<'_>| largest == usize::MAX || write::publish_size(self.version, packet) <= largest;
        if !packet.topic.is_empty() && !fits(&packet) {
            packet.topic_alias = None;
        }
        if !fits(&packet) {
            self.hub.metrics.dropped(Lost::TooLargeForClient, 1);
            self.session.count_dropped(1);
            return false;
        }
        write::publish(out, self.version, &packet);
        let topic_alias = packet.topic_alias;
        self.spoken.said(message.topic(), topic_alias);
        true
    }
}
