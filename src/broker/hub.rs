//! What every connection and internal client of the broker shares.

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    access::Policies, admission::Window, auth::Authenticator, departures::Departures, doorstep::Doorstep,
    engine::Engine, metrics::Metrics, seen::Taps, session::Marks, settings::Limits, store::Store,
};

/// Shared, immutable after start.
#[derive(Clone)]
pub(super) struct Hub {
    pub engine: Arc<Engine>,
    pub window: Window,
    pub store_window: Window,
    pub store: Arc<Store>,
    pub limits: Arc<Limits>,
    pub policies: Arc<Policies>,
    pub auth: Arc<Authenticator>,
    pub metrics: Arc<Metrics>,
    /// Wakes the dispatcher, see there.
    pub attention: Arc<Notify>,
    /// Places for connected clients.
    pub places: Arc<Semaphore>,
    /// Places for connections that have not sent their CONNECT.
    pub doorstep: Doorstep,
    pub departures: Arc<Departures>,
    /// Who looks on at what passes.
    pub taps: Arc<Taps>,
    /// Turns for clients that are let in: until each has had its first round of service, so many at a time. A storm of them would else lie between
    /// everybody else and the processor.
    pub entering: Arc<Semaphore>,
    /// Places for clients that wait for their turn.
    pub waiting: Arc<Semaphore>,
    /// Says that somebody waits for one of these places: who has closed his connection gives it up.
    pub crowd: Arc<Notify>,
    /// Everything that runs for the broker.
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

impl Hub {
    /// Queue marks of a client's session.
    pub(super) fn marks(&self) -> Marks {
        Marks::of(self.limits.queue_bytes, self.limits.queue_messages)
    }
}
