//! Places for connections that have not sent their CONNECT yet: bounded in number, for all and for one address.
//!
//! Who comes is always let onto the doorstep; when it is full, whoever has waited longest makes room: of the same address if that address
//! has its share, else of the address with the most places. So silent connections, however many, keep nobody out who introduces himself
//! in time, and one address does not crowd out the others.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The doorstep. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Doorstep(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    per_address: usize,
    crowd: Mutex<Crowd>,
}

#[derive(Debug, Default)]
struct Crowd {
    next: u64,
    waiting: usize,
    by: HashMap<IpAddr, VecDeque<(u64, CancellationToken)>>,
}

/// Who had to go for a new place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crowded {
    /// The longest waiting of the same address.
    Address,
    /// The longest waiting of the address with the most places.
    All,
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    doorstep: Doorstep,
    address: IpAddr,
    id: u64,
    /// Cancelled when somebody else needs the place.
    pub evicted: CancellationToken,
}

impl Doorstep {
    /// `limit`: places in all; `per_address`: places of one address (for IPv6: of one /64 network, which one machine has to itself).
    pub(super) fn new(limit: usize, per_address: usize) -> Self {
        Self(Arc::new(Inner { limit, per_address, crowd: Mutex::default() }))
    }

    /// A place, and whether somebody had to make room.
    pub(super) fn enter(&self, ip: IpAddr) -> (Place, Option<Crowded>) {
        let address = network(ip);
        let mut crowd = self.0.crowd.lock();
        let crowded = if crowd.by.get(&address).is_some_and(|waiting| waiting.len() >= self.0.per_address) {
            crowd.evict(address);
            Some(Crowded::Address)
        } else if crowd.waiting >= self.0.limit {
            let most = crowd.by.iter().max_by_key(|(_, waiting)| waiting.len()).map(|(address, _)| *address);
            most.into_iter().for_each(|address| crowd.evict(address));
            Some(Crowded::All)
        } else {
            None
        };
        let evicted = CancellationToken::new();
        let id = crowd.next;
        crowd.next += 1;
        crowd.waiting += 1;
        crowd.by.entry(address).or_default().push_back((id, evicted.clone()));
        (Place { doorstep: self.clone(), address, id, evicted }, crowded)
    }
}

impl Crowd {
    fn evict(&mut self, address: IpAddr) {
        if let Some((id, token)) = self.by.get(&address).and_then(|waiting| waiting.front()).cloned() {
            self.leave(address, id);
            token.cancel();
        }
    }

    fn leave(&mut self, address: IpAddr, id: u64) {
        let Some(waiting) = self.by.get_mut(&address) else { return };
        if let Some(at) = waiting.iter().position(|(known, _)| *known == id) {
            waiting.remove(at);
            self.waiting -= 1;
        }
        if waiting.is_empty() {
            self.by.remove(&address);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.doorstep.0.crowd.lock().leave(self.address, self.id);
    }
}

fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_waiting_makes_room() {
        let doorstep = Doorstep::new(5, 3);
        let (honest, crowded) = doorstep.enter(ip("10.0.0.1"));
        assert_eq!(crowded, None);
        let flood: Vec<_> = (0..3).map(|_| doorstep.enter(ip("10.0.0.2"))).collect();
        assert!(flood.iter().all(|(_, crowded)| crowded.is_none()));
        let (fourth, crowded) = doorstep.enter(ip("::ffff:10.0.0.2"));
        assert_eq!(crowded, Some(Crowded::Address), "an IPv4 address in IPv6 form is the same one");
        let evicted = |place: &Place| place.evicted.is_cancelled();
        assert!(evicted(&flood[0].0) && !evicted(&flood[1].0) && !evicted(&fourth) && !evicted(&honest));
        // The fifth place, and then nobody is left but the flood to make room.
        let (other, crowded) = doorstep.enter(ip("10.0.0.3"));
        assert_eq!(crowded, None);
        let (_newcomer, crowded) = doorstep.enter(ip("10.0.0.4"));
        assert_eq!(crowded, Some(Crowded::All));
        assert!(evicted(&flood[1].0) && !evicted(&flood[2].0) && !evicted(&honest) && !evicted(&other));
        drop((flood, fourth));
        assert_eq!(doorstep.0.crowd.lock().waiting, 3);
        drop((honest, other, _newcomer));
        let crowd = doorstep.0.crowd.lock();
        assert_eq!((crowd.waiting, crowd.by.len()), (0, 0));
    }

    #[test]
    fn one_machine_has_a_whole_network_of_ipv6() {
        assert_eq!(network(ip("2001:db8::1")), network(ip("2001:db8::ffff:1")));
        assert_ne!(network(ip("2001:db8::1")), network(ip("2001:db8:0:1::1")));
        assert_ne!(network(ip("::1")), network(ip("127.0.0.1")));
    }
}
