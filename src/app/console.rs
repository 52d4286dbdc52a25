//! What the web console is given.

use std::sync::Arc;

use super::{BuildError, carrier::Carrier};
use crate::{
    bus::Bus,
    config::Loaded,
    console::{Console, Parts},
    sense::receiver::{Listening, Port, Receiver},
    telemetry::metrics::Registry,
};

/// The web console, unless it is switched off.
pub(super) fn build(
    loaded: &Loaded,
    carrier: &Carrier,
    bus: &Bus,
    receiver: Option<&Receiver>,
    registry: &mut Registry,
) -> Result<Option<Arc<Console>>, BuildError> {
    let rest = &loaded.settings.rest;
    if !rest.enable || !rest.endpoints.console {
        return Ok(None);
    }
    let task_port = |door: &Listening| (door.port == Port::Task).then_some(door.address);
    let parts = Parts {
        logins: carrier.logins(loaded)?,
        desk: carrier.desk(),
        bus: bus.clone(),
        own_topics: loaded.settings.mqtt.own_topics.clone(),
        events: receiver
            .filter(|_| loaded.settings.mqtt.enable)
            .and_then(|receiver| receiver.listening().iter().find_map(task_port)),
    };
    Ok(Some(Arc::new(Console::new(parts, registry))))
}
