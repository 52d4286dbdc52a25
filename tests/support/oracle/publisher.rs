//! A publisher: QoS 0, 1 and 2, retained values and removals, with its own packet ids and QoS 2 states, which it keeps whatever happens to
//! its connections and to the broker.

use std::collections::{BTreeMap, VecDeque};

use super::{
    chance::Chance,
    ledger::{Id, Kind, payload},
    link::{Link, World},
    violation::Violation,
    wire::{Hello, Packet, Publish, ack},
};

/// Unacknowledged messages at most.
const WINDOW: usize = 40;
/// Of so many messages one is a retained one, of these one removes.
const RETAINED_EACH: u64 = 12;
const REMOVAL_EACH: u64 = 5;

#[derive(Debug)]
enum Stage {
    Sent(Publish, Id),
    Released(Id),
}

pub struct Publisher {
    pub name: String,
    pub version: u8,
    /// Topics for messages of any QoS.
    pub topics: Vec<String>,
    /// Topics for retained values; each has one QoS, by its place in the list.
    pub retained: Vec<String>,
    pub chance: Chance,
    /// Whether PUBREC is the promise; otherwise PUBCOMP is.
    pub received_is_promised: bool,
    world: World,
    in_flight: BTreeMap<u16, Stage>,
    /// Packet ids in the order of first sending.
    order: VecDeque<u16>,
    last_id: u16,
}

impl Publisher {
    pub fn new(
        name: &str,
        version: u8,
        topics: Vec<String>,
        retained: Vec<String>,
        chance: Chance,
        world: World,
    ) -> Self {
        let (in_flight, order) = (BTreeMap::new(), VecDeque::new());
        Self {
            name: name.to_owned(),
            version,
            topics,
            retained,
            chance,
            received_is_promised: true,
            world,
            in_flight,
            order,
            last_id: 0,
        }
    }

    /// Until the end of the run.
    pub async fn run(mut self) {
        let hello = Hello::new(self.version, &self.name, false);
        // The connection that the next one takes over, and that nobody reads any more.
        let mut _overtaken = None;
        while let Some((mut link, anew)) = self.world.connect(&hello).await {
            if anew {
                self.forget();
            }
            if self.repeat(&mut link).await.is_some() {
                _overtaken = self.talk(link).await;
            }
        }
    }

    /// The session is not there: ids and states mean nothing to this broker.
    fn forget(&mut self) {
        self.in_flight.clear();
        self.order.clear();
        self.world.ledger.busy(&self.name, false);
    }

    /// Everything unacknowledged again, in the order of first sending.
    async fn repeat(&mut self, link: &mut Link) -> Option<()> {
        for id in &self.order {
            let bytes = match self.in_flight.get_mut(id) {
                Some(Stage::Sent(publish, number)) => {
                    self.world.ledger.sent_again(*number);
                    publish.dup = true;
                    publish.bytes(self.version)
                }
                Some(Stage::Released(_)) => ack(0x62, *id),
                None => continue,
            };
            link.send(&bytes).await.ok()?;
        }
        Some(())
    }

    /// Talks until the connection ends; answers it where it is to be taken over.
    async fn talk(&mut self, mut link: Link) -> Option<Link> {
        loop {
            let phase = self.world.now();
            if phase.end {
                link.leave().await;
                return None;
            }
            let may_send = phase.load && self.in_flight.len() < WINDOW;
            let pause = self.chance.millis(4);
            tokio::select! {
                packet = link.next() => self.heard(&mut link, packet.ok()?).await?,
                () = tokio::time::sleep(pause), if may_send => {
                    for _ in 0..=self.chance.below(12) {
                        let bytes = self.message();
                        if phase.restless && self.chance.once_in(500) {
                            link.cut(&bytes, &mut self.chance).await;
                            return None;
                        }
                        link.send(&bytes).await.ok()?;
                    }
                    if phase.restless && self.chance.once_in(150) {
                        return Some(link);
                    }
                }
                () = self.world.changed() => {}
            }
        }
    }

    async fn heard(&mut self, link: &mut Link, packet: Packet) -> Option<()> {
        match packet {
            Packet::PubAck { id, code } => self.taken(id, code, 1),
            Packet::PubRec { id, code } => {
                self.taken(id, code, 2);
                if code < 0x80 {
                    link.send(&ack(0x62, id)).await.ok()?;
                }
            }
            Packet::PubComp { id } => {
                if let Some(Stage::Released(number)) = self.in_flight.get(&id) {
                    self.world.ledger.acknowledged(*number);
                }
                self.done(id);
            }
            Packet::Disconnect { code } if code != 0x8e && code != 0x8b => {
                self.refused(format!("DISCONNECT {code:#04x}"));
                return None;
            }
            Packet::Disconnect { .. } => return None,
            other => self.refused(format!("an unexpected {other:?}")),
        }
        Some(())
    }

    fn refused(&self, what: String) {
        self.world.ledger.violation(Violation::Refused { client: self.name.clone(), what });
    }

    fn taken(&mut self, id: u16, code: u8, qos: u8) {
        match self.in_flight.get_mut(&id) {
            Some(Stage::Sent(publish, number)) if publish.qos == qos => {
                if code >= 0x80 {
                    let what = format!("message {number} was refused with {code:#04x}");
                    self.refused(what);
                    self.done(id);
                    return;
                }
                let number = *number;
                if qos == 1 || self.received_is_promised {
                    self.world.ledger.acknowledged(number);
                }
                if qos == 2 {
                    self.in_flight.insert(id, Stage::Released(number));
                } else {
                    self.done(id);
                }
            }
            // A PUBREC for a repeated PUBLISH whose first one was answered, too.
            Some(Stage::Released(_)) if qos == 2 => {}
            _ => self.refused(format!("an acknowledgement of QoS {qos} for packet id {id}, which has none")),
        }
    }

    fn done(&mut self, id: u16) {
        self.in_flight.remove(&id);
        self.order.retain(|one| *one != id);
        if self.in_flight.is_empty() {
            self.world.ledger.busy(&self.name, false);
        }
    }

    /// The bytes of a new message, written down before they are sent.
    fn message(&mut self) -> Vec<u8> {
        let keeps = !self.retained.is_empty() && self.chance.once_in(RETAINED_EACH);
        let (topic, qos, kind) = if keeps {
            let at = self.chance.below(self.retained.len() as u64) as usize;
            let kind = if self.chance.once_in(REMOVAL_EACH) { Kind::Removal } else { Kind::Retained };
            (self.retained[at].clone(), (at % 3) as u8, kind)
        } else {
            (self.chance.pick(&self.topics).clone(), self.chance.below(3) as u8, Kind::Plain)
        };
        let number = self.world.ledger.sending(&self.name, &topic, qos, kind);
        let filling = self.chance.below(120) as usize;
        let payload = if kind == Kind::Removal { Vec::new() } else { payload(number, filling) };
        let id = if qos == 0 { 0 } else { self.free_id() };
        let publish = Publish { topic, payload, qos, retain: keeps, dup: false, id };
        let bytes = publish.bytes(self.version);
        if qos > 0 {
            self.in_flight.insert(id, Stage::Sent(publish, number));
            self.order.push_back(id);
            self.world.ledger.busy(&self.name, true);
        }
        bytes
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.in_flight.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }
}
