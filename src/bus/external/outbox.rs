//! The outbox: every message that was accepted and is not yet acknowledged, oldest first. The one truth about what is to be sent.
//!
//! Invariants: a message leaves only by the broker's acknowledgement, by its refusal, or counted with a reason; messages are handed to a
//! connection in the order they came, and all that were unacknowledged again, in that order, to the next connection; bytes never exceed the
//! limit. Plain state machine: no clock, no I/O, no waiting.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use tokio::sync::oneshot;

use crate::bus::{Publication, PublishError, Receipt, Routed, wire};

/// What a message costs beside its packet: the entry itself, and the share of containers. Keeps empty messages from being free.
const OVERHEAD: usize = 192;

/// Why messages were dropped; the label `reason` of `sense_butler_external_dropped_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Drop {
    /// The outbox was full.
    Overflow,
    /// Larger than the broker accepts.
    TooLarge,
    /// The broker answered with a refusal.
    Refused,
    /// The broker ends the connection each time it gets this message.
    Poison,
    /// Its sender wanted an answer at once, and the connection was lost before there was one.
    Abandoned,
    /// The program stopped.
    Stopped,
}

impl Drop {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::Poison => "poison",
            Self::Abandoned => "abandoned",
            Self::Stopped => "stopped",
        }
    }
}

#[derive(Debug)]
struct Entry {
    number: u64,
    publication: Publication,
    size: usize,
    since: Instant,
    /// The submitter waits for an answer now: not worth sending once nobody waits any more.
    urgent: bool,
    word: oneshot::Sender<Result<Routed, PublishError>>,
}

/// How full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fill {
    /// Messages.
    pub messages: usize,
    /// Bytes.
    pub bytes: usize,
    /// When the oldest one came.
    pub oldest: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Outbox {
    limit: usize,
    entries: VecDeque<Entry>,
    bytes: usize,
    next_number: u64,
    /// How many entries, from the oldest, were handed to the present connection.
    handed: usize,
    /// Numbers handed over whose packet identifier is not known yet, in order.
    unnamed: VecDeque<u64>,
    /// Packet identifier to number.
    named: HashMap<u16, u64>,
    /// Terms of the present connection; `None`: there is none.
    terms: Option<Terms>,
    closed: bool,
}

/// How much may be under way at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Distance between the oldest unacknowledged message and the newest one under way.
    pub window: u64,
    /// What `window` becomes once the broker acknowledged something on this connection.
    pub widened: u64,
    /// Largest packet, bytes.
    pub max_packet: usize,
}

impl Outbox {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            entries: VecDeque::new(),
            bytes: 0,
            next_number: 0,
            handed: 0,
            unnamed: VecDeque::new(),
            named: HashMap::new(),
            terms: None,
            closed: false,
        }
    }

    /// Takes a message, or says why not; a refusal for lack of room or size is to be counted.
    pub(super) fn push(
        &mut self,
        publication: Publication,
        urgent: bool,
    ) -> Result<Receipt, (PublishError, Option<Drop>)> {
        if self.closed {
            return Err((PublishError::Unavailable("the program is stopping".into()), None));
        }
        if urgent && self.terms.is_none() {
            return Err((
                PublishError::Unavailable("there is no connection; it is tried again and again".into()),
                None,
            ));
        }
        let size = wire::packet_size(&publication);
        let limit = self.terms.map_or(wire::MAX_PACKET, |terms| terms.max_packet);
        if size > limit {
            return Err((PublishError::TooLarge { size, limit }, Some(Drop::TooLarge)));
        }
        if self.bytes + size + OVERHEAD > self.limit {
            let full = format!("{} messages wait already, {} bytes is the limit", self.entries.len(), self.limit);
            return Err((PublishError::Refused(full), Some(Drop::Overflow)));
        }
        let (word, receipt) = Receipt::channel();
        let (number, size) = (self.next_number, size + OVERHEAD);
        self.next_number += 1;
        self.bytes += size;
        self.entries.push_back(Entry { number, publication, size, since: Instant::now(), urgent, word });
        Ok(receipt)
    }

    /// A connection stands: everything not acknowledged is to be sent on it. Returns how many urgent ones nobody waits for any more went.
    pub(super) fn connected(&mut self, terms: Terms) -> usize {
        self.terms = Some(terms);
        self.discard(|entry| entry.urgent && entry.word.is_closed(), |_| None)
    }

    /// The connection is gone. Urgent messages that were not sent are answered; returns how many.
    pub(super) fn lost(&mut self) -> usize {
        self.terms = None;
        self.unnamed.clear();
        self.named.clear();
        let first_unsent = self.entries.get(self.handed).map_or(u64::MAX, |entry| entry.number);
        self.handed = 0;
        let why = || Some(PublishError::Unavailable("the connection was lost before the message was sent".into()));
        self.discard(|entry| entry.urgent && (entry.number >= first_unsent || entry.word.is_closed()), |_| why())
    }

    /// The next message to hand to the connection, and its number; it counts as handed over from now on.
    pub(super) fn next(&mut self) -> Option<(u64, Publication)> {
        let terms = self.terms?;
        let oldest = self.entries.front()?.number;
        let entry = self.entries.get(self.handed)?;
        if entry.number - oldest >= terms.window {
            return None;
        }
        let handed = (entry.number, entry.publication.clone());
        self.handed += 1;
        self.unnamed.push_back(handed.0);
        Some(handed)
    }

    /// The oldest message handed over and not yet named was written with this packet identifier.
    pub(super) fn sent(&mut self, identifier: u16) {
        if let Some(number) = self.unnamed.pop_front() {
            self.named.insert(identifier, number);
        }
    }

    /// The broker answered. Returns the topic if it refused.
    pub(super) fn acknowledged(&mut self, identifier: u16, refusal: Option<String>) -> Option<Publication> {
        let number = self.named.remove(&identifier)?;
        if let Some(terms) = &mut self.terms {
            terms.window = terms.widened;
        }
        let word = match &refusal {
            None => Ok(Routed::UNTOLD),
            Some(reason) => Err(PublishError::Refused(reason.clone())),
        };
        let publication = self.take(number, word)?;
        refusal.is_some().then_some(publication)
    }

    /// Takes one message out and answers its submitter.
    pub(super) fn take(&mut self, number: u64, word: Result<Routed, PublishError>) -> Option<Publication> {
        let position = self.entries.binary_search_by_key(&number, |entry| entry.number).ok()?;
        let entry = self.entries.remove(position)?;
        self.bytes -= entry.size;
        if position < self.handed {
            self.handed -= 1;
        }
        // A submitter that does not wait (events) has dropped its receipt.
        let _ = entry.word.send(word);
        Some(entry.publication)
    }

    /// Number of the oldest message.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.number)
    }

    /// The oldest message that is larger than the present broker accepts and was not handed over yet.
    pub(super) fn oversized(&self) -> Option<(u64, usize, usize)> {
        let limit = self.terms?.max_packet;
        let entry = self.entries.get(self.handed)?;
        let size = wire::packet_size(&entry.publication);
        (size > limit).then_some((entry.number, size, limit))
    }

    /// Nothing is taken any more; what is left is answered. Returns how much that was.
    pub(super) fn close(&mut self) -> usize {
        self.closed = true;
        self.lost();
        self.discard(|_| true, |_| Some(PublishError::Unavailable("the program is stopping".into())))
    }

    pub(super) fn fill(&self) -> Fill {
        let oldest = self.entries.front().map(|entry| entry.since);
        Fill { messages: self.entries.len(), bytes: self.bytes, oldest }
    }

    /// Whether messages are under way on the present connection.
    pub(super) fn has_handed(&self) -> bool {
        self.handed > 0
    }

    pub(super) fn is_connected(&self) -> bool {
        self.terms.is_some()
    }

    fn discard(&mut self, which: impl Fn(&Entry) -> bool, why: impl Fn(&Entry) -> Option<PublishError>) -> usize {
        if !self.entries.iter().any(&which) {
            return 0;
        }
        let before = self.entries.len();
        let (gone, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.entries).into_iter().partition(which);
        self.entries = kept;
        for entry in gone {
            self.bytes -= entry.size;
            if let Some(error) = why(&entry) {
                let _ = entry.word.send(Err(error));
            }
        }
        before - self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::TopicName;

    const OPEN: Terms = Terms { window: 3, widened: 3, max_packet: 1_000 };

    fn message(text: &str) -> Publication {
        Publication::new(TopicName::new("a/b").unwrap(), text.to_owned())
    }

    fn handed(outbox: &mut Outbox) -> Vec<u64> {
        std::iter::from_fn(|| outbox.next().map(|(number, _)| number)).collect()
    }

    fn filled(count: usize) -> (Outbox, Vec<Receipt>) {
        let mut outbox = Outbox::new(1 << 20);
        let receipts = (0..count).map(|n| outbox.push(message(&n.to_string()), false).unwrap()).collect();
        (outbox, receipts)
    }

    #[tokio::test]
    async fn the_window_holds_and_acknowledgements_in_any_order_move_it() {
        let (mut outbox, mut receipts) = filled(6);
        assert!(outbox.next().is_none(), "nothing goes without a connection");
        outbox.connected(OPEN);
        assert_eq!(handed(&mut outbox), [0, 1, 2]);
        (1..=3).for_each(|identifier| outbox.sent(identifier));
        outbox.acknowledged(2, None);
        assert_eq!(handed(&mut outbox), [0u64; 0], "the oldest one holds the window");
        outbox.acknowledged(1, None);
        assert_eq!(handed(&mut outbox), [3, 4]);
        let first = receipts.remove(0).wait(crate::bus::PUBLISH_TIMEOUT).await;
        assert_eq!(first, Ok(Routed::UNTOLD));
    }

    #[test]
    fn one_at_a_time_until_the_first_acknowledgement() {
        let (mut outbox, _receipts) = filled(5);
        outbox.connected(Terms { window: 1, ..OPEN });
        assert_eq!(handed(&mut outbox), [0]);
        outbox.sent(1);
        outbox.acknowledged(1, None);
        assert_eq!(handed(&mut outbox), [1, 2, 3]);
    }

    #[test]
    fn after_a_loss_everything_unacknowledged_goes_again_in_order() {
        let (mut outbox, _receipts) = filled(5);
        outbox.connected(OPEN);
        assert_eq!(handed(&mut outbox), [0, 1, 2]);
        (1..=2).for_each(|identifier| outbox.sent(identifier));
        outbox.acknowledged(2, None);
        outbox.lost();
        outbox.sent(3);
        assert_eq!(outbox.acknowledged(1, Some("late".into())).map(|_| ()), None, "of the lost connection");
        outbox.connected(Terms { window: 10, ..OPEN });
        assert_eq!(handed(&mut outbox), [0, 2, 3, 4]);
    }

    #[tokio::test]
    async fn who_wants_an_answer_now_is_not_kept_waiting() {
        let (mut outbox, _receipts) = filled(1);
        assert!(matches!(outbox.push(message("x"), true), Err((PublishError::Unavailable(_), None))));
        outbox.connected(Terms { window: 2, ..OPEN });
        let sent = outbox.push(message("sent"), true).unwrap();
        let unsent = outbox.push(message("unsent"), true).unwrap();
        assert_eq!(handed(&mut outbox), [0, 1]);
        assert_eq!(outbox.lost(), 1);
        let word = unsent.wait(crate::bus::PUBLISH_TIMEOUT).await;
        assert!(matches!(word, Err(PublishError::Unavailable(_))), "{word:?}");
        assert_eq!(outbox.fill().messages, 2, "the one that may have been taken is sent again while somebody waits");
        drop(sent);
        assert_eq!(outbox.connected(OPEN), 1);
        assert_eq!(handed(&mut outbox), [0]);
    }

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let mut outbox = Outbox::new(1_000);
        let mut accepted = 0;
        let refused = loop {
            match outbox.push(message("0123456789"), false) {
                Ok(_) => accepted += 1,
                Err(refused) => break refused,
            }
        };
        assert!((3..=5).contains(&accepted), "{accepted}");
        assert!(matches!(refused, (PublishError::Refused(_), Some(Drop::Overflow))), "{refused:?}");
        assert!(outbox.fill().bytes <= 1_000 && outbox.fill().oldest.is_some());
        assert_eq!(outbox.close(), accepted);
        assert_eq!(outbox.fill(), Fill::default());
        assert!(matches!(outbox.push(message(""), false), Err((PublishError::Unavailable(_), None))));
    }

    #[tokio::test]
    async fn refusals_and_oversized_messages_are_answered() {
        let mut outbox = Outbox::new(1 << 20);
        let big = outbox.push(message(&"x".repeat(2_000)), false).unwrap();
        let denied = outbox.push(message("denied"), false).unwrap();
        outbox.connected(OPEN);
        assert!(matches!(outbox.push(message(&"x".repeat(2_000)), true), Err((PublishError::TooLarge { .. }, _))));
        let (number, size, limit) = outbox.oversized().unwrap();
        outbox.take(number, Err(PublishError::TooLarge { size, limit }));
        assert!(matches!(big.wait(crate::bus::PUBLISH_TIMEOUT).await, Err(PublishError::TooLarge { .. })));
        assert_eq!(handed(&mut outbox), [1]);
        outbox.sent(7);
        assert!(outbox.acknowledged(7, Some("NotAuthorized".into())).is_some());
        let word = denied.wait(crate::bus::PUBLISH_TIMEOUT).await;
        assert_eq!(word, Err(PublishError::Refused("NotAuthorized".into())));
    }
}
