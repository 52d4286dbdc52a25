//! The duty to report the end of a connection: held from the moment its session is asked for.
//!
//! Invariant: whatever becomes of the connection's task (it ends, it is refused at the last moment, it panics, it is dropped), the stream
//! hears of the end exactly once; otherwise the session would be taken for connected for ever.

use std::sync::Arc;

use super::End;
use crate::broker::{
    cargo::{Cargo, CloseCargo},
    engine::{Engine, Outgoing},
    envelope::Draft,
    peer::Peer,
};

/// See the module.
pub(super) struct Departure {
    engine: Arc<Engine>,
    peer: Arc<Peer>,
    /// What is reported if nobody says otherwise: an end that publishes the will.
    cargo: Option<CloseCargo>,
}

impl Departure {
    pub(super) fn new(engine: &Arc<Engine>, peer: &Arc<Peer>) -> Self {
        let cargo = Some(CloseCargo { with_will: true, expiry: None });
        Self { engine: Arc::clone(engine), peer: Arc::clone(peer), cargo }
    }

    /// How it ended; reported when this is dropped. `longest`: seconds a session may be kept.
    pub(super) fn ended(&mut self, end: End, longest: u32) {
        if let End::Disconnect { with_will, expiry } = end {
            self.cargo = Some(CloseCargo { with_will, expiry: expiry.map(|seconds| seconds.min(longest)) });
        }
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        if let Some(cargo) = self.cargo.take() {
            let outgoing = Outgoing { draft: Draft::control(), cost: 0, cargo: Cargo::Close(cargo) };
            // A stopping broker takes nothing more; then there are no sessions to tell either.
            let _ = self.engine.submit(Some(&self.peer), [outgoing]);
        }
    }
}
