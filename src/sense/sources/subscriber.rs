//! Keeps QRS telling: two subscriptions (results made, results changed), made anew at an interval and whenever QRS was away.
//!
//! QRS forgets its subscribers at a restart and would call twice whom it has twice, so an old subscription is ended before a new one is made; the
//! handles are kept, so that the next life ends those of one that was killed. Invariant: after every renewal a poll closes the gap.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::{
    keep::{Change, KeepError, Shelf},
    sense::qrs::{ChangeType, Handle, Qrs, QrsError, QrsHealth},
    telemetry::throttle::Throttle,
};

const SECRET: &[u8] = b"secret";
const HANDLES: &[u8] = b"handles";
/// After a renewal that failed.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two questions whether QRS is there: it takes longer to restart.
const LOOK: Duration = Duration::from_secs(5);
/// How long a stop waits for the end of the subscriptions.
const FAREWELL: Duration = Duration::from_millis(500);

/// Keeps the subscriptions.
pub(super) struct Subscriber {
    pub qrs: Qrs,
    /// The whole address QRS calls. It holds a secret.
    pub url: String,
    pub shelf: Shelf,
    /// Subscriptions that exist, as far as is known.
    pub handles: Vec<Handle>,
    /// The usual pause between two renewals.
    pub every: Duration,
    /// Somebody noticed that no notifications come.
    pub renew: Arc<Notify>,
    /// Whom to tell that a poll is due.
    pub poll: Arc<Notify>,
    pub metrics: Metrics,
}

/// The secret of the path, made at the first call, and the handles of the life before.
///
/// # Errors
/// If they cannot be read from disk.
pub(super) fn kept(shelf: &Shelf) -> Result<(String, Vec<Handle>), KeepError> {
    let pairs = shelf.read_all()?;
    let of = |wanted: &[u8]| pairs.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.clone());
    let handles = of(HANDLES).and_then(|value| serde_json::from_slice(&value).ok()).unwrap_or_default();
    let secret = of(SECRET).and_then(|value| String::from_utf8(value).ok()).unwrap_or_else(|| {
        let secret = uuid::Uuid::new_v4().simple().to_string();
        shelf.write_later(vec![Change::Put(SECRET.to_vec(), secret.clone().into_bytes())]);
        secret
    });
    Ok((secret, handles))
}

impl Subscriber {
    /// Until `stop`; then ends the subscriptions, for half a second at most.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        // A renewal that is cut off has written down what it made.
        let _ = stop.run_until_cancelled(self.keep_renewing()).await;
        let _ = tokio::time::timeout(FAREWELL, self.end()).await;
    }

    async fn keep_renewing(&mut self) {
        let mut told = false;
        loop {
            let renewed = self.renew().await;
            self.metrics.subscription(if renewed.is_ok() { "ok" } else { "failed" });
            let pause = match renewed {
                Ok(()) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!("Qlik Sense tells of changes of executions");
                    }
                    self.poll.notify_one();
                    self.every
                }
                Err(error) => {
                    complain(&error);
                    AGAIN
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.renew.notified() => {}
                () = returned(&self.qrs) => {}
            }
        }
    }

    async fn renew(&mut self) -> Result<(), QrsError> {
        self.end().await?;
        for change in [ChangeType::Add, ChangeType::Update] {
            let handle = self.qrs.subscribe_changes(&self.url, change).await?;
            self.handles.push(handle);
            self.write();
        }
        Ok(())
    }

    /// Ends what exists. An answer that refuses is an answer: QRS does not know the handle.
    async fn end(&mut self) -> Result<(), QrsError> {
        while let Some(handle) = self.handles.last().copied() {
            match self.qrs.unsubscribe_changes(handle).await {
                Ok(()) | Err(QrsError::Status { .. }) => {}
                Err(error) => return Err(error),
            }
            self.handles.pop();
            self.write();
        }
        Ok(())
    }

    fn write(&self) {
        // A list of ids always serialises.
        let value = serde_json::to_vec(&self.handles).unwrap_or_default();
        self.shelf.write_later(vec![Change::Put(HANDLES.to_vec(), value)]);
    }
}

/// Until QRS answers again after it did not. Asks it, because nobody else may for minutes; the call itself notes how QRS is.
async fn returned(qrs: &Qrs) {
    let since = |health: QrsHealth| match health {
        QrsHealth::Ok { since, .. } => Some(since),
        _ => None,
    };
    let before = since(qrs.health());
    loop {
        tokio::time::sleep(LOOK).await;
        let _ = qrs.about().await;
        let now = since(qrs.health());
        if now.is_some() && now != before {
            return;
        }
    }
}

fn complain(error: &QrsError) {
    static LINE: Throttle = Throttle::every(Duration::from_secs(60));
    if let Some(suppressed) = LINE.pass() {
        tracing::warn!(
            code = "notifications_not_asked",
            suppressed,
            "Qlik Sense cannot be asked to tell of changes, and is asked again; polling tells meanwhile where it is on: {error}"
        );
    }
}
