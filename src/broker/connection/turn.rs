//! A client's turn to come in: it waits outside while others are in the way.
//!
//! Invariants: whoever waits may go at any time, and is then in nobody's way; so many wait and no more; a storm that is over keeps nobody out.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, SemaphorePermit},
};

use super::{
    handshake::{CROWDED, GONE, OPEN_TIME, Refuse, UNAVAILABLE},
    wire::Wire,
};
use crate::broker::hub::Hub;

/// How long a client that may come in waits until there is little under way on the bus: those that are in go first.
const LULL: Duration = Duration::from_millis(20);
/// How long, and how often, a client waits for a place among those that wait for their turn.
const CROWD_TIME: Duration = Duration::from_millis(50);
const CROWD_TRIES: u32 = 5;
/// Bytes that are read of who waits for his turn, to hear whether he is still there.
const EARLY: usize = 4 << 10;

/// A client's turn to come in: not while many are still leaving, only so many at a time, and only some of them while those that are in fill the
/// bus. Whoever has closed his connection meanwhile, and has said nothing that somebody could miss, goes without one: a storm of connections
/// that are over already keeps nobody waiting.
pub(super) async fn turn<S: AsyncRead + AsyncWrite + Unpin>(
    hub: &Hub,
    wire: &mut Wire<S>,
) -> Result<OwnedSemaphorePermit, Refuse> {
    let turn = async {
        let _place = waiting_place(hub).await?;
        hub.departures.few().await;
        let turn = Arc::clone(&hub.entering).acquire_owned().await.map_err(|_| UNAVAILABLE)?;
        // Without one they come in slowly.
        let _ = tokio::time::timeout(LULL, hub.window.lull()).await;
        Ok(turn)
    };
    tokio::select! {
        biased;
        turn = tokio::time::timeout(OPEN_TIME, turn) => turn.unwrap_or(Err(UNAVAILABLE)),
        () = async {
            if wire.closed(EARLY).await {
                // It is let in all the same to be heard, unless others stand outside.
                hub.crowd.notified().await;
            }
        } => Err(GONE),
    }
}

/// A place to wait for the turn at. What they have sent already waits with them: there is room for so many and no more. Where it is full, those make
/// room who have closed their connections.
async fn waiting_place(hub: &Hub) -> Result<SemaphorePermit<'_>, Refuse> {
    if let Ok(place) = hub.waiting.try_acquire() {
        return Ok(place);
    }
    for _ in 0..CROWD_TRIES {
        hub.crowd.notify_waiters();
        if let Ok(place) = tokio::time::timeout(CROWD_TIME, hub.waiting.acquire()).await {
            return place.map_err(|_| UNAVAILABLE);
        }
    }
    Err(CROWDED)
}
