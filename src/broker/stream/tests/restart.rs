//! The same histories on the real store, with a restart of the program as one of the operations: what was promised before it holds after it.
//!
//! A program that ends in order reports the end of its connections first; one that does not leaves them as they were, and its wills wait five
//! seconds for clients that come back. `RESTART_MODEL_CASES` sets the number of histories. Which messages were sent, the store learns with the
//! acknowledgements only: of what was under way DUP may be missing after a restart. Nor does it know who published what is retained, for No
//! Local. Once with shared groups and once without.

use std::time::Duration;

use super::{run::Run, *};
use crate::broker::store::{Group, Recovered};

/// Makes the store anew from what it holds.
type Opening = Box<dyn Fn() -> (Arc<Store>, Recovered)>;

/// What keeps what is promised.
pub(super) enum Keeper {
    Memory(MemoryStore),
    Store { open: Opening, store: Arc<Store> },
}

impl Keeper {
    fn real() -> Self {
        let open = Store::openings();
        let (store, nothing) = open();
        assert!(nothing.sessions.is_empty());
        Self::Store { open: Box::new(open), store }
    }

    pub fn submit(&self, group: Group) {
        match self {
            Self::Memory(store) => store.submit(group),
            Self::Store { store, .. } => store.submit_and_wait(group),
        }
    }

    pub fn touch(&self, session: &Arc<Session>) {
        match self {
            Self::Memory(store) => store.touch(session),
            Self::Store { store, .. } => store.touch(session),
        }
    }

    pub fn load(&self, session: &Arc<Session>) {
        match self {
            Self::Memory(store) => store.load(session),
            Self::Store { store, .. } => store.load_at_once(session),
        }
    }

    /// What is said once progress is written.
    pub fn answer(&self, replies: impl Fn() -> Vec<Reply>) -> Vec<Reply> {
        let began = Instant::now();
        loop {
            let found = replies();
            if !found.is_empty() || began.elapsed() > Duration::from_secs(20) || matches!(self, Self::Memory(_)) {
                return found;
            }
            std::thread::yield_now();
        }
    }
}

impl Model {
    /// The program is gone, and everything that is not kept with it.
    fn restart(&mut self, now: u64) {
        let mut left = Vec::new();
        for session in self.sessions.values_mut() {
            if session.online {
                session.leave();
                session.will_due = session.will.as_ref().map(|_| now + 5_000);
                session.ends_at =
                    if session.kept { Some(now + u64::from(KEPT) * 1000) } else { session.will_due.or(Some(now)) };
                (session.online, session.orphaned) = (false, true);
            } else {
                session.orphaned = false;
            }
            if !session.stored {
                left.extend(std::mem::take(&mut session.filters).into_keys());
                session.queue.clear();
            }
            session.unsure = session.queue.iter().take_while(|(_, again)| *again).count();
        }
        self.retained.values_mut().for_each(|(.., from)| *from = None);
        self.sessions.retain(|_, session| session.stored || session.will.is_some());
        self.left(left.into_iter());
    }
}

impl Run {
    pub fn restart(&mut self, in_order: bool) {
        if in_order {
            (0..CLIENTS).for_each(|client| self.close(client, true, false));
        }
        self.real.connections.clear();
        self.sent.clear();
        let Keeper::Store { open, store } = &mut self.real.store else { return };
        store.stop();
        let (opened, kept) = open();
        *store = opened;
        let now = self.real.now.ms;
        self.real.effects = Effects::starting_at(kept.next_batch);
        self.real.state = run::Real::empty();
        self.real.state.recover(kept, now, &mut self.real.effects);
        self.model.restart(now);
        self.tick();
    }
}

/// Histories with restarts, with or without shared groups.
fn restarting(groups: bool) -> impl Strategy<Value = Op> {
    let known = op().prop_map(move |op| match op {
        Op::Subscribe { client, filter, qos, published, handling } if shared(filter).is_some() && !groups => {
            Op::Subscribe { client, filter: filter - 8, qos, published, handling }
        }
        op => op,
    });
    let restart = any::<bool>().prop_map(move |in_order| Op::Restart { in_order });
    prop_oneof![30 => known, 1 => restart]
}

fn check(groups: bool) {
    let cases = std::env::var("RESTART_MODEL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let (steps, restarts) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let checked = TestRunner::new(config).run(&prop::collection::vec(restarting(groups), 1..160), |ops| {
        let mut run = Run::new(Keeper::real());
        ops.iter().for_each(|op| run.step(op));
        steps.set(steps.get() + run.steps);
        restarts.set(restarts.get() + ops.iter().filter(|op| matches!(op, Op::Restart { .. })).count());
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
    println!("{cases} histories, {} steps, {} restarts", steps.get(), restarts.get());
    assert!(restarts.get() > cases as usize, "{} restarts", restarts.get());
}

#[test]
fn restarts_keep_what_the_model_keeps() {
    check(false);
}

#[test]
fn restarts_keep_what_groups_are_owed() {
    check(true);
}
