//! The dispatcher: one thread, one order. It takes what the engine carried, applies it to the stream, and carries out the effects.
//!
//! It has a thread of its own: on one of the runtime's, it would stand in one queue with the connections, and whatever makes many of these ready at once
//! would delay everybody's messages.
//!
//! A round: at most [`ROUND`](super::engine::ROUND) envelopes, then messages into outboxes, the commit, acknowledgements, room on the bus,
//! and a yield. It awaits nothing else: no outbox, no permit, no socket. An engine that dies, skips or falls silent is replaced here; three
//! times in a minute ends the program, because then the fault is not the engine's.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    admission::{Room, Window},
    cargo::Flight,
    engine::{Egress, Engine, EngineError, Sick},
    envelope::now_ms,
    store::Store,
    stream::{Effects, Now, State},
};

/// So many engine deaths ...
const DEATHS: usize = 3;
/// ... within this time are too many.
const DEATH_WINDOW: Duration = Duration::from_secs(60);

/// Why the dispatcher ended.
#[derive(Debug, thiserror::Error)]
pub enum DispatcherError {
    /// See [`DEATHS`].
    #[error(
        "the routing engine died {DEATHS} times within {DEATH_WINDOW:?}; the program ends so that it can be restarted"
    )]
    EngineKeepsDying,
    /// A new one could not be built.
    #[error("{0}")]
    Engine(String),
}

impl From<EngineError> for DispatcherError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error.to_string())
    }
}

/// See the module.
pub(super) struct Dispatcher {
    pub engine: Arc<Engine>,
    pub egress: Egress,
    pub state: State,
    /// What the start has staged.
    pub effects: Effects,
    pub store: Arc<Store>,
    pub window: Window,
    pub store_window: Window,
    /// Somebody wants the dispatcher's attention: an outbox has room for retained messages again, or the engine is deaf.
    pub attention: Arc<Notify>,
    pub deaths: VecDeque<Instant>,
    /// How many engine deaths are tolerated; tests that kill it on purpose raise it.
    pub patience: usize,
}

/// A dispatcher at work, and how it ended; nothing comes if it panicked.
pub(super) type Dispatching = oneshot::Receiver<Result<State, DispatcherError>>;

impl Dispatcher {
    /// Runs on a thread of its own until the engine was stopped and everything in flight is dispatched.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(self, stopped: CancellationToken) -> Result<Dispatching, DispatcherError> {
        let no_thread = |error| DispatcherError::Engine(format!("the dispatcher's thread does not start: {error}"));
        // It waits for wakers only: neither sockets nor time.
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(no_thread)?;
        let (ended, dispatching) = oneshot::channel();
        let work = move || {
            // Nobody may wait for it any more.
            let _ = ended.send(runtime.block_on(self.run(stopped)));
        };
        std::thread::Builder::new().name("dispatcher".into()).spawn(work).map_err(no_thread)?;
        Ok(dispatching)
    }

    async fn run(mut self, stopped: CancellationToken) -> Result<State, DispatcherError> {
        let (mut flights, mut effects) = (Vec::new(), std::mem::take(&mut self.effects));
        let mut stopping = false;
        // Nothing is submitted any more once it stops: what is under way then is the last.
        while !(stopping && self.engine.is_empty()) {
            let attention = Arc::clone(&self.attention);
            tokio::select! {
                biased;
                round = self.egress.round(&mut flights) => if let Err(sick) = round { self.replace(sick)?; },
                () = attention.notified() => if self.engine.is_deaf() { self.replace(Sick::Dead)?; },
                () = stopped.cancelled(), if !stopping => stopping = true,
            }
            self.dispatch(&mut flights, &mut effects);
            tokio::task::yield_now().await;
        }
        Ok(self.state)
    }

    fn dispatch(&mut self, flights: &mut Vec<Flight>, effects: &mut Effects) {
        let now = Now { ms: now_ms(), instant: Instant::now() };
        let (mut bus, mut store) = (Room::default(), Room::default());
        for flight in flights.drain(..) {
            let (peer, cost, stored) = (flight.peer.clone(), flight.cost, flight.stored);
            let promised = self.state.apply(flight, now, effects);
            let Some(peer) = peer.filter(|_| cost > 0) else { continue };
            let mut room = Some(&mut bus);
            if peer.lane.is_some() {
                // A lane serves for both.
                room = room.filter(|_| !promised);
            } else if stored > 0 && !promised {
                store.add(&peer, stored);
            }
            if let Some(room) = room {
                room.add(&peer, cost);
            }
            if promised {
                effects.owe(&peer, if peer.lane.is_some() { cost } else { stored });
            }
        }
        if self.state.has_bulk() && self.state.advance_bulk(effects) {
            // There may be more: come back after this round.
            self.attention.notify_one();
        }
        if self.state.sweep(now, effects) {
            self.attention.notify_one();
        }
        if self.state.has_pools() && self.state.advance_pools(effects) {
            self.attention.notify_one();
        }
        if let Some(group) = self.state.finish(effects, now) {
            self.store.submit(group);
        }
        for session in effects.take_pages() {
            self.store.load(&session);
        }
        bus.give_back(&self.window);
        store.give_back_stored(&self.store_window);
    }

    fn replace(&mut self, why: Sick) -> Result<(), DispatcherError> {
        let now = Instant::now();
        self.deaths.retain(|death| now.duration_since(*death) < DEATH_WINDOW);
        self.deaths.push_back(now);
        if self.deaths.len() > self.patience {
            return Err(DispatcherError::EngineKeepsDying);
        }
        tracing::error!(
            code = "engine_replaced",
            ?why,
            "the routing engine failed and is replaced; what was in flight is sent again; nothing needs to be done, but report it"
        );
        self.state.metrics.engine_restarted();
        Ok(self.egress.restart()?)
    }
}

pub(super) const PATIENCE: usize = DEATHS;
