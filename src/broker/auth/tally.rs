//! How often somebody did something lately, for very many somebodies in little memory: a table of fixed size.
//!
//! Each entry is a moment: the time at which all its charges will be forgiven (GCRA). A key that finds its set full takes the place of the
//! one that is forgiven first, so that who fails most is remembered longest. Keys are kept as hashes under a key of the process: nobody can
//! choose one that pushes another out.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::{IpAddr, Ipv6Addr},
};

use parking_lot::Mutex;

/// The time over which charges are counted, nanoseconds: a minute.
const WINDOW: u64 = 60_000_000_000;
/// Places of a set.
const WAYS: usize = 8;
/// Sets; with 16 bytes a place the table takes 128 KiB.
const SETS: usize = 1_024;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    tag: u64,
    forgiven: u64,
}

/// See the module. Times are nanoseconds since any beginning.
#[derive(Debug)]
pub(super) struct Tally {
    /// What one charge weighs; 0: nothing is counted.
    interval: u64,
    hasher: RandomState,
    sets: Mutex<Vec<[Slot; WAYS]>>,
}

impl Tally {
    /// `allowed` charges a minute; 0: any number.
    pub(super) fn new(allowed: u32) -> Self {
        let interval = WINDOW.checked_div(u64::from(allowed)).unwrap_or(0);
        let sets = if interval > 0 { SETS } else { 0 };
        Self { interval, hasher: RandomState::new(), sets: Mutex::new(vec![[Slot::default(); WAYS]; sets]) }
    }

    /// Whether a key has no charge left.
    pub(super) fn is_spent(&self, key: &impl Hash, now: u64) -> bool {
        let tag = self.hasher.hash_one(key);
        let mut sets = self.sets.lock();
        let found = set_of(&mut sets, tag).and_then(|set| set.iter().find(|slot| slot.tag == tag));
        found.is_some_and(|slot| self.spent(slot, now))
    }

    fn spent(&self, slot: &Slot, now: u64) -> bool {
        slot.forgiven > now + (WINDOW - self.interval)
    }

    /// Charges a key. `false`: it had no charge left, and is not charged.
    pub(super) fn charge(&self, key: &impl Hash, now: u64) -> bool {
        let tag = self.hasher.hash_one(key);
        let mut sets = self.sets.lock();
        let Some(set) = set_of(&mut sets, tag) else { return true };
        let place = set.iter().position(|slot| slot.tag == tag);
        let place = place.or_else(|| (0..WAYS).min_by_key(|at| set.get(*at).map(|slot| slot.forgiven)));
        let Some(slot) = place.and_then(|place| set.get_mut(place)) else { return true };
        if slot.tag != tag {
            *slot = Slot { tag, forgiven: 0 };
        }
        if self.spent(slot, now) {
            return false;
        }
        slot.forgiven = slot.forgiven.max(now) + self.interval;
        true
    }
}

fn set_of(sets: &mut [[Slot; WAYS]], tag: u64) -> Option<&mut [Slot; WAYS]> {
    let count = u64::try_from(sets.len()).ok().filter(|count| *count > 0)?;
    sets.get_mut(usize::try_from(tag % count).ok()?)
}

/// Whom an address stands for: in IPv6 everybody has a network of 64 bits at least.
pub(super) fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn charges_are_spent_and_forgiven_one_by_one() {
        let tally = Tally::new(10);
        for at in 0..10 {
            assert!(!tally.is_spent(&"a", at) && tally.charge(&"a", at), "{at}");
        }
        assert!(tally.is_spent(&"a", SECOND) && !tally.charge(&"a", SECOND));
        assert!(!tally.is_spent(&"b", SECOND), "nobody else");
        // A tenth of the window later one is forgiven, and one only; refusals in between cost nothing.
        assert!(tally.charge(&"a", 6 * SECOND) && tally.is_spent(&"a", 6 * SECOND + 1));
        assert!((0..10).all(|_| tally.charge(&"a", 70 * SECOND)), "all of them after a minute");
        assert!(tally.is_spent(&"a", 70 * SECOND));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let tally = Tally::new(0);
        assert!((0..100_000).all(|_| tally.charge(&"a", 0)) && !tally.is_spent(&"a", 0));
    }

    #[test]
    fn memory_is_fixed_and_who_fails_most_stays() {
        let tally = Tally::new(10);
        while tally.charge(&"offender", 0) {}
        for other in 0..200_000_u32 {
            tally.charge(&other, 1);
        }
        assert_eq!(tally.sets.lock().len(), SETS);
        assert!(tally.is_spent(&"offender", 2));
    }

    #[test]
    fn neighbours() {
        let of = |text: &str| neighbourhood(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
