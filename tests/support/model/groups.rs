//! Shared groups in the model: which member gets a message MQTT leaves open; that one of those who are there gets it, once, it does not.

use super::{
    FILTERS, matches, shared,
    spec::{Got, Model, Owed, Session, Shared},
};

/// What came to a client that it was not to get on its own account: client, place among what it has, message, packet id.
type Extra = (usize, usize, Got, u16);

impl Model {
    pub fn members(&self, at: usize) -> impl Iterator<Item = (&usize, &Session)> {
        self.sessions.iter().filter(move |(_, session)| session.filters.contains_key(&at))
    }

    fn era(&self, at: usize) -> u32 {
        self.eras.get(&at).copied().unwrap_or(0)
    }

    /// A group gets a message: a member that is there, else the group's queue if a member that is kept wants it.
    pub fn give(&mut self, at: usize, message: Shared) {
        let waiting = self.pools.get(&at).is_some_and(|pool| !pool.is_empty());
        if !waiting && self.members(at).any(|(_, session)| session.online) {
            self.groups.push((at, message));
        } else if message.qos > 0 && self.members(at).any(|(_, session)| session.stored && session.filters[&at].qos > 0)
        {
            self.pools.entry(at).or_default().push(message);
        }
    }

    /// A session may have left groups: those without members end.
    pub fn left(&mut self, groups: impl Iterator<Item = usize>) {
        for at in groups.filter(|at| shared(*at).is_some()) {
            if self.members(at).next().is_none() {
                *self.eras.entry(at).or_default() += 1;
                self.pools.remove(&at);
            }
        }
    }

    /// What waits goes to members that are there now; without members it is gone.
    pub fn drain_pools(&mut self) {
        for (at, mut pool) in std::mem::take(&mut self.pools) {
            if self.members(at).any(|(_, session)| session.online) {
                self.groups.extend(pool.drain(..).map(|message| (at, message)));
            }
            if self.members(at).next().is_some() {
                self.pools.insert(at, pool);
            }
        }
    }

    /// An ended session passes on what it owed groups; a QoS 2 message that was sent is gone.
    pub fn inherit(&mut self, owed: impl Iterator<Item = Owed>) {
        self.drain_pools();
        for owed in owed.filter(|owed| owed.got.qos == 1 || (owed.got.qos == 2 && !owed.got.dup)) {
            let Some((at, era)) = owed.group else { continue };
            if era == self.era(at) && self.members(at).next().is_some() {
                let (qos, retain) = owed.published;
                self.give(at, Shared { topic: owed.got.topic, payload: owed.got.payload, qos, retain });
            }
        }
    }

    /// Settles who of the groups got what.
    pub fn settle_groups(&mut self, extra: &[Extra]) -> Result<(), String> {
        let groups = std::mem::take(&mut self.groups);
        let mut takers = vec![None; groups.len()];
        if !self.assign(extra, &groups, &mut takers) {
            return Err(format!("{extra:?} is not what members of groups were to get: {groups:?}"));
        }
        // Nobody acknowledges QoS 0; while a group's queue is emptied, the broker may drop it.
        let lost = groups.iter().zip(&takers).find(|((_, message), taker)| taker.is_none() && message.qos > 0);
        if let Some((lost, _)) = lost {
            return Err(format!("no member got {lost:?}, but {extra:?}"));
        }
        for ((at, message), taker) in groups.iter().zip(takers) {
            let Some((client, place, got, _)) = taker.and_then(|taker: usize| extra.get(taker)) else { continue };
            let era = self.era(*at);
            if got.qos > 0 {
                let sent = &mut self.sessions.get_mut(client).unwrap().sent[*place];
                (sent.group, sent.published) = (Some((*at, era)), (message.qos, message.retain));
            }
        }
        Ok(())
    }

    /// Finds for each of what came a message it can be.
    fn assign(&self, extra: &[Extra], groups: &[(usize, Shared)], takers: &mut [Option<usize>]) -> bool {
        let Some(((client, _, got, _), rest)) = extra.split_last() else { return true };
        for (number, (at, message)) in groups.iter().enumerate() {
            if takers[number].is_none() && self.fits(*client, got, *at, message) {
                takers[number] = Some(rest.len());
                if self.assign(rest, groups, takers) {
                    return true;
                }
                takers[number] = None;
            }
        }
        false
    }

    fn fits(&self, client: usize, got: &Got, at: usize, message: &Shared) -> bool {
        let Some(session) = self.sessions.get(&client).filter(|session| session.online) else { return false };
        let Some(wish) = session.filters.get(&at) else { return false };
        debug_assert!(matches(shared(at).unwrap_or(FILTERS[at]), &message.topic));
        let (qos, retain) = (message.qos.min(wish.qos), message.retain && wish.published);
        let expected = Got::new(&message.topic, &message.payload, qos, retain, wish.id.into_iter().collect());
        expected.shown(session.version) == *got
    }
}
