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
        peer::Reply,
        session::{Entry, Resend, packet_id},
    },
    names::QoS,
};

impl Link {
    /// Writes the replies that wait; ends when the connection was kicked.
    pub(super) fn take_replies(&mut self, out: &mut BytesMut) -> Result<bool, End> {
        let mut replies = std::mem::take(&mut self.replies);
        let kick = self.peer.take(&mut replies);
        let moved = !replies.is_empty();
        for reply in replies.drain(..) {
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
                if *kind == AckKind::PubAck || *reason >= 0x80 {
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
    pub(super) fn fill(&mut self, out: &mut BytesMut) -> bool {
        let mut moved = false;
        while out.len() < OUT {
            let sent = if self.resend.is_empty() { self.send_fresh(out) } else { self.send_again(out) };
            if !sent {
                break;
            }
            moved = true;
        }
        moved
    }

    /// What an earlier connection left unacknowledged, one by one; fresh messages wait behind it.
    fn send_again(&mut self, out: &mut BytesMut) -> bool {
        let Some(next) = self.resend.front() else { return false };
        let may = self.session.handshakes.lock().may_resend(
            self.peer.id,
            next,
            self.resend.len(),
            self.terms.receive_maximum,
        );
        let Ok(Some(open)) = may else { return false };
        match self.resend.pop_front().filter(|_| open) {
            Some(Resend::Publish(id, entry)) if !self.write(out, &entry, id, true, now_ms()) => self.settle(id),
            Some(Resend::PubRel(id)) => write::ack(out, self.version, AckKind::PubRel, id, 0),
            Some(Resend::Publish(..)) | None => {}
        }
        true
    }

    fn send_fresh(&mut self, out: &mut BytesMut) -> bool {
        let mut entries = std::mem::take(&mut self.entries);
        let budget = OUT - out.len().min(OUT);
        // Taken over: the kick is on its way.
        let taken = self.session.take(self.peer.id, budget, self.terms.receive_maximum, &mut entries);
        if taken.is_ok_and(|taken| taken.nudge) {
            self.hub.attention.notify_one();
        }
        let moved = !entries.is_empty();
        self.send(&mut entries, out);
        self.entries = entries;
        moved
    }

    fn send(&mut self, entries: &mut Vec<Entry>, out: &mut BytesMut) {
        if entries.is_empty() {
            return;
        }
        let (now, mut counts) = (now_ms(), [0; 3]);
        for entry in entries.drain(..) {
            let id = if entry.qos == QoS::AtMostOnce { 0 } else { packet_id(entry.qseq) };
            if self.write_fresh(out, &entry, id, now) {
                if let Some(count) = counts.get_mut(entry.qos as usize) {
                    *count += 1;
                }
            } else if entry.qos != QoS::AtMostOnce {
                self.settle(id);
            }
        }
        self.hub.metrics.sent(counts);
    }

    fn write_fresh(&mut self, out: &mut BytesMut, entry: &Entry, id: u16, now: u64) -> bool {
        if entry.message.remaining(now).is_err() {
            self.hub.metrics.dropped(Lost::Expired, 1);
            return false;
        }
        self.write(out, entry, id, false, now)
    }

    /// A message that cannot be sent counts as delivered (`[MQTT-3.1.2-25]`, `[MQTT-3.3.2-5]`).
    fn settle(&self, id: u16) {
        let mut handshakes = self.session.handshakes.lock();
        let _ = handshakes.forget(self.peer.id, id);
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
            return false;
        }
        write::publish(out, self.version, &packet);
        let topic_alias = packet.topic_alias;
        self.spoken.said(message.topic(), topic_alias);
        true
    }
}
