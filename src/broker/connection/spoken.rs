//! Topic aliases towards the client (MQTT 5.0 section 3.3.2.3.4): a topic that comes again is said by a number.
//!
//! Invariants: no number above the client's Topic Alias Maximum (`[MQTT-3.1.2-26]`); a number stands for one topic as long as the connection
//! lasts, and for none before a message with both was written; memory is bounded by [`MOST`] topics of [`LONGEST`] bytes, twice.

use std::collections::{HashMap, HashSet};

/// Aliases used at most, whatever the client takes.
const MOST: u16 = 64;
/// Topics shorter than this gain nothing: an alias takes three bytes.
const SHORTEST: usize = 4;
/// Topics longer than this are not remembered.
const LONGEST: usize = 512;

/// What the client was told.
#[derive(Debug, Default)]
pub(super) struct Spoken {
    most: u16,
    known: HashMap<Box<[u8]>, u16>,
    /// Topics that came once and may come again.
    once: HashSet<Box<[u8]>>,
}

impl Spoken {
    /// For a client with this Topic Alias Maximum; 0: it takes none.
    pub(super) fn new(maximum: u16) -> Self {
        Self { most: maximum.min(MOST), ..Self::default() }
    }

    fn remembers(&self, topic: &[u8]) -> bool {
        self.most > 0 && (SHORTEST..=LONGEST).contains(&topic.len())
    }

    /// Topic and alias of the next message: the topic may be empty, where its alias is known.
    pub(super) fn say<'a>(&self, topic: &'a [u8]) -> (&'a [u8], Option<u16>) {
        if !self.remembers(topic) {
            return (topic, None);
        }
        if let Some(alias) = self.known.get(topic) {
            return (&[], Some(*alias));
        }
        let next = u16::try_from(self.known.len() + 1).unwrap_or(u16::MAX);
        (topic, (next <= self.most && self.once.contains(topic)).then_some(next))
    }

    /// A message was written, with its topic and this alias.
    pub(super) fn said(&mut self, topic: &[u8], alias: Option<u16>) {
        if !self.remembers(topic) || self.known.len() >= usize::from(self.most) || self.known.contains_key(topic) {
            return;
        }
        match alias {
            Some(alias) => {
                self.once.remove(topic);
                self.known.insert(topic.into(), alias);
            }
            None => {
                if self.once.len() >= usize::from(MOST) {
                    self.once.clear();
                }
                self.once.insert(topic.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says a topic in a message that is written.
    fn send(spoken: &mut Spoken, topic: &'static str) -> (&'static str, Option<u16>) {
        let (said, alias) = spoken.say(topic.as_bytes());
        spoken.said(topic.as_bytes(), alias);
        (std::str::from_utf8(said).unwrap(), alias)
    }

    #[test]
    fn a_topic_that_comes_again_gets_a_number() {
        let mut spoken = Spoken::new(2);
        assert_eq!(send(&mut spoken, "a/long/topic"), ("a/long/topic", None));
        // Named with its number, and not written: it is not known yet.
        assert_eq!(spoken.say(b"a/long/topic"), (&b"a/long/topic"[..], Some(1)));
        assert_eq!(send(&mut spoken, "a/long/topic"), ("a/long/topic", Some(1)));
        assert_eq!(send(&mut spoken, "a/long/topic"), ("", Some(1)));
        for _ in 0..3 {
            assert_eq!(send(&mut spoken, "abc"), ("abc", None));
        }
        for expected in [("another", None), ("another", Some(2)), ("", Some(2))] {
            assert_eq!(send(&mut spoken, "another"), expected);
        }
        for _ in 0..3 {
            assert_eq!(send(&mut spoken, "one too many"), ("one too many", None));
        }
        assert_eq!(send(&mut spoken, "a/long/topic"), ("", Some(1)));
        assert_eq!(send(&mut Spoken::new(0), "a/long/topic"), ("a/long/topic", None));
    }

    #[test]
    fn memory_is_bounded() {
        let mut spoken = Spoken::new(u16::MAX);
        for round in 0..2 {
            for number in 0..1_000 {
                let topic = format!("topic/{number}");
                for _ in 0..=round {
                    let (_, alias) = spoken.say(topic.as_bytes());
                    assert!(alias.is_none_or(|alias| (1..=MOST).contains(&alias)));
                    spoken.said(topic.as_bytes(), alias);
                }
                assert!(spoken.known.len() <= usize::from(MOST) && spoken.once.len() <= usize::from(MOST));
            }
        }
        assert_eq!(spoken.known.len(), usize::from(MOST));
        let long = vec![b'x'; LONGEST + 1];
        spoken.said(&long, None);
        assert!(!spoken.once.contains(long.as_slice()));
    }
}
