//! A subscriber: keeps its session (or makes a fresh one each time), holds acknowledgements back at random, adds and ends subscriptions, and
//! keeps the QoS 2 ids it has seen across connections and lives of the broker.

use std::collections::HashSet;

use super::{
    chance::Chance,
    link::{Link, World},
    violation::Violation,
    wire::{Hello, Packet, ack, disconnect, subscribe, unsubscribe},
};

/// Where one subscription stands, as far as the client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    Asked(u16),
    On,
    Ending(u16),
}

#[derive(Debug)]
struct Filter {
    text: String,
    qos: u8,
    /// Ended and made again during the run.
    changes: bool,
    state: State,
}

pub struct Subscriber {
    hello: Hello,
    filters: Vec<Filter>,
    chance: Chance,
    world: World,
    /// QoS 2 ids received and not released.
    held: HashSet<u16>,
    /// Acknowledgements not yet sent.
    answers: Vec<u8>,
    last_id: u16,
}

impl Subscriber {
    /// A subscriber that keeps its session.
    pub fn kept(name: &str, version: u8, mut chance: Chance, world: World) -> Self {
        let mut hello = Hello::new(version, name, false);
        if version == super::wire::V5 && chance.once_in(2) {
            hello.receive_maximum = Some(chance.below(30) as u16 + 1);
        }
        Self { hello, filters: Vec::new(), chance, world, held: HashSet::new(), answers: Vec::new(), last_id: 0 }
    }

    /// One whose session ends with its connection.
    pub fn fresh(name: &str, version: u8, chance: Chance, world: World) -> Self {
        let mut subscriber = Self::kept(name, version, chance, world);
        subscriber.hello.clean = true;
        subscriber
    }

    pub fn filter(mut self, text: &str, qos: u8) -> Self {
        self.filters.push(Filter { text: text.to_owned(), qos, changes: false, state: State::Off });
        self
    }

    /// A filter that is ended and made again during the run.
    pub fn changing(mut self, text: &str, qos: u8) -> Self {
        self = self.filter(text, qos);
        self.filters.last_mut().unwrap().changes = true;
        self
    }

    pub async fn run(mut self) {
        let mut _overtaken = None;
        let hello = self.hello.clone();
        while let Some((mut link, anew)) = self.world.connect(&hello).await {
            self.answers.clear();
            if anew {
                self.held.clear();
                self.filters.iter_mut().for_each(|filter| filter.state = State::Off);
            }
            let mut link_kept = None;
            if self.ask(&mut link).await.is_some() {
                link_kept = self.talk(link).await;
            }
            if hello.clean {
                self.world.ledger.session_ends(&hello.id);
            }
            _overtaken = link_kept;
            if !self.world.now().end && self.world.now().restless && self.world.now().load {
                let away = self.chance.millis(120);
                tokio::time::sleep(away).await;
            }
        }
    }

    /// Asks for what is not yet acknowledged, and again for what was never answered.
    async fn ask(&mut self, link: &mut Link) -> Option<()> {
        for at in 0..self.filters.len() {
            match self.filters[at].state {
                State::Off if !self.filters[at].changes => self.begin(link, at).await?,
                State::Asked(_) => self.begin(link, at).await?,
                State::Ending(_) => self.end(link, at).await?,
                State::Off | State::On => {}
            }
        }
        Some(())
    }

    fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id % 60_000 + 1;
        self.last_id
    }

    async fn begin(&mut self, link: &mut Link, at: usize) -> Option<()> {
        let id = self.next_id();
        let filter = &mut self.filters[at];
        filter.state = State::Asked(id);
        self.world.ledger.subscribing(&self.hello.id, &filter.text, filter.qos);
        self.world.ledger.busy(&self.hello.id, true);
        link.send(&subscribe(self.hello.version, id, &filter.text, filter.qos)).await.ok()
    }

    async fn end(&mut self, link: &mut Link, at: usize) -> Option<()> {
        let id = self.next_id();
        let filter = &mut self.filters[at];
        filter.state = State::Ending(id);
        self.world.ledger.unsubscribing(&self.hello.id, &filter.text);
        self.world.ledger.busy(&self.hello.id, true);
        link.send(&unsubscribe(self.hello.version, id, &filter.text)).await.ok()
    }

    async fn talk(&mut self, mut link: Link) -> Option<Link> {
        loop {
            let phase = self.world.now();
            if phase.end {
                link.leave().await;
                return None;
            }
            // Held back only under load: a run is judged when everybody has answered.
            let hold = if phase.load { self.chance.millis(25) } else { std::time::Duration::ZERO };
            tokio::select! {
                packet = link.next() => {
                    self.heard(packet.ok()?)?;
                    if !phase.load || self.chance.once_in(4) {
                        self.answer(&mut link).await?;
                    }
                }
                () = tokio::time::sleep(hold), if phase.load || !self.answers.is_empty() => {
                    self.answer(&mut link).await?;
                }
                () = self.world.changed() => {}
            }
            if phase.load && self.chance.once_in(60) {
                self.change(&mut link).await?;
            }
            if phase.load && phase.restless && self.chance.once_in(250) {
                return self.part(link).await;
            }
        }
    }

    /// One of the ways a connection ends; answers it where it is to be taken over.
    async fn part(&mut self, mut link: Link) -> Option<Link> {
        match self.chance.below(3) {
            0 => link.cut(&self.answers, &mut self.chance).await,
            1 => {
                // Leaves in order, and does not wait.
                let _ = link.send(&[&self.answers[..], &disconnect()].concat()).await;
            }
            _ => return Some(link),
        }
        None
    }

    async fn answer(&mut self, link: &mut Link) -> Option<()> {
        let answers = std::mem::take(&mut self.answers);
        link.send(&answers).await.ok()
    }

    /// Ends or begins one of the changing subscriptions.
    async fn change(&mut self, link: &mut Link) -> Option<()> {
        let changing = |filter: &Filter| filter.changes && matches!(filter.state, State::On | State::Off);
        let all: Vec<usize> = (0..self.filters.len()).filter(|at| changing(&self.filters[*at])).collect();
        if all.is_empty() {
            return Some(());
        }
        let at = *self.chance.pick(&all);
        if self.filters[at].state == State::On { self.end(link, at).await } else { self.begin(link, at).await }
    }

    fn heard(&mut self, packet: Packet) -> Option<()> {
        match packet {
            Packet::Publish(publish) => {
                let (qos, id) = (publish.qos, publish.id);
                if qos != 2 || self.held.insert(id) {
                    self.world.ledger.arrived(&self.hello.id, &publish);
                }
                match qos {
                    0 => {}
                    1 => self.answers.extend(ack(0x40, id)),
                    _ => self.answers.extend(ack(0x50, id)),
                }
            }
            Packet::PubRel { id } => {
                self.held.remove(&id);
                self.answers.extend(ack(0x70, id));
            }
            Packet::SubAck { id, code } => self.stands(State::Asked(id), State::On, code),
            Packet::UnsubAck { id, code } => self.stands(State::Ending(id), State::Off, code),
            Packet::Disconnect { code } => {
                if !matches!(code, 0x8e | 0x8b) {
                    self.refused(format!("DISCONNECT {code:#04x}"));
                }
                return None;
            }
            other => self.refused(format!("an unexpected {other:?}")),
        }
        Some(())
    }

    fn refused(&self, what: String) {
        self.world.ledger.violation(Violation::Refused { client: self.hello.id.clone(), what });
    }

    /// A SUBACK or UNSUBACK; one for an earlier connection's packet cannot come.
    fn stands(&mut self, asked: State, now: State, code: u8) {
        let Some(filter) = self.filters.iter_mut().find(|filter| filter.state == asked) else { return };
        filter.state = now;
        let (text, granted) = (filter.text.clone(), filter.qos);
        match now {
            State::On if code == granted => self.world.ledger.subscribed(&self.hello.id, &text),
            State::Off if code < 0x80 => self.world.ledger.unsubscribed(&self.hello.id, &text),
            _ => self.refused(format!("{text} at QoS {granted} was answered with {code:#04x}")),
        }
        if !self.filters.iter().any(|filter| matches!(filter.state, State::Asked(_) | State::Ending(_))) {
            self.world.ledger.busy(&self.hello.id, false);
        }
    }
}
