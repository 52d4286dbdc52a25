//! Where events come from besides datagrams: QRS is asked what ended ([`polling`]), or tells ([`callback`], [`subscriber`]), or both.
//!
//! All sources meet in [`Once`], before anything is published: an event of one kind about one execution is told once, whoever brings it first,
//! over restarts, too. What QRS tells by notification is only a reason to ask it; what no call reached (QRS forgets its subscribers when it
//! restarts) is found by polling, which therefore goes on, slowly, beside notifications.
//!
//! Invariants: nothing here waits for a publication except by the bounded channel; an event is told before it counts as told; a source that is
//! away loses nothing that QRS still knows.

mod callback;
mod endings;
mod metrics;
mod once;
mod polling;
mod position;
mod silence;
mod subscriber;
mod words;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use self::{
    callback::Callback,
    metrics::Metrics,
    polling::{Poller, Pulse},
    subscriber::Subscriber,
};
pub use self::{once::Once, silence::Silence};
use super::{directory::Cache, event::SenseEvent, qrs::Qrs};
use crate::{
    config::settings::{EventSources, QrsSettings},
    keep::{Keep, KeepError},
    names::ResultId,
    net::bind::BindError,
};

/// The pause between two polls beside notifications, where polling itself is off.
const RECONCILE: Duration = Duration::from_secs(300);
/// Notifications that wait to be looked at.
const NOTIFICATIONS: usize = 10_000;

/// Why the sources cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// The address for notifications is not to be had.
    #[error("eventSources.notifications.listen: {0}")]
    Bind(#[from] BindError),
    /// What was told already cannot be read.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

/// The sources that ask QRS, bound and not yet running.
pub struct Sources {
    poller: Poller,
    notifications: mpsc::Receiver<ResultId>,
    callback: Option<(Callback, Subscriber)>,
}

/// Everything they need from outside.
pub struct Surroundings<'a> {
    /// Whom to ask.
    pub qrs: &'a Qrs,
    /// Its hosts, which may call.
    pub hosts: &'a QrsSettings,
    /// Where positions and secrets are kept.
    pub keep: &'a Keep,
    /// What is learnt about tasks goes here, too.
    pub cache: Arc<Cache>,
}

impl Sources {
    /// Binds the door for notifications, if they are on; `None`: neither they nor polling are.
    ///
    /// # Errors
    /// [`SourcesError`]
    pub fn build(
        settings: &EventSources,
        around: &Surroundings<'_>,
        registry: &mut Registry,
    ) -> Result<Option<Self>, SourcesError> {
        if settings.polling.is_none() && settings.notifications.is_none() {
            return Ok(None);
        }
        let (qrs, keep) = (around.qrs, around.keep);
        let metrics = Metrics::register(registry);
        let (sender, notifications) = mpsc::channel(NOTIFICATIONS);
        let (poll, renew) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let callback = match &settings.notifications {
            None => None,
            Some(wanted) => {
                let shelf = keep.shelf("notifications");
                let (secret, handles) = subscriber::kept(&shelf)?;
                let path = format!("/qrs-callback/{secret}");
                let subscriber = Subscriber {
                    qrs: qrs.clone(),
                    url: format!("{}{path}", wanted.callback),
                    shelf,
                    handles,
                    every: wanted.renew,
                    renew: Arc::clone(&renew),
                    poll: Arc::clone(&poll),
                    metrics: metrics.clone(),
                };
                let callers = callers(&wanted.allowed_sources, around.hosts);
                Some((Callback::bind(&wanted.listen, path, callers, sender, metrics.clone())?, subscriber))
            }
        };
        let pulse =
            Pulse { every: settings.polling.unwrap_or(RECONCILE), poll, renew: callback.is_some().then_some(renew) };
        let poller = Poller::open(qrs.clone(), keep.shelf("polling"), around.cache.clone(), pulse, metrics)?;
        Ok(Some(Self { poller, notifications, callback }))
    }

    /// Where QRS's calls are taken; the true port where 0 was asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.callback.as_ref().map(|(callback, _)| callback.addresses()).unwrap_or_default()
    }

    /// Sends what ended to `events` until `stop`; then ends the subscriptions, within half a second.
    ///
    /// # Errors
    /// If the bound door cannot be used.
    pub async fn run(self, events: mpsc::Sender<SenseEvent>, stop: CancellationToken) -> Result<(), std::io::Error> {
        let polling = self.poller.run(events, self.notifications, stop.clone());
        match self.callback {
            None => polling.await,
            Some((callback, subscriber)) => {
                let (_, _, door) = tokio::join!(polling, subscriber.run(stop.clone()), callback.run(stop));
                door?;
            }
        }
        Ok(())
    }
}

/// Who may call: those that are named, or the hosts of QRS.
fn callers(named: &[String], hosts: &QrsSettings) -> Vec<String> {
    if !named.is_empty() {
        return named.to_vec();
    }
    hosts.host.iter().cloned().chain(hosts.further.iter().map(|further| further.host.clone())).collect()
}
