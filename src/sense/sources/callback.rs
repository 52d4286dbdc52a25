//! The door at which QRS tells of changes: `POST <path with a secret>` with a list of what changed.
//!
//! QRS does not say who it is, so three things guard the door: the caller's address, a path nobody can guess, and that nothing of what is said is
//! believed: each id is a reason to ask QRS, no more. Invariants: the answer is given at once, whatever happens behind it; connections, bodies
//! and what waits are bounded, and what does not fit is dropped and counted (polling finds it).

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::metrics::Metrics;
use crate::{
    names::ResultId,
    net::bind::{self, BindError, V6},
    sense::receiver::sources::Sources as Callers,
    telemetry::throttle::Throttle,
};

/// Connections at once: one per node of a site would do.
const CONNECTIONS: usize = 64;
/// For a request's head, the idle time before it included.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// For a request's body.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Most bytes of a body: some thousand changes.
const BODY: usize = 4 << 20;
/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// The bound door.
pub(super) struct Callback {
    listeners: Vec<StdListener>,
    shared: Arc<Shared>,
}

struct Shared {
    path: String,
    callers: Callers,
    ids: mpsc::Sender<ResultId>,
    metrics: Metrics,
}

impl Callback {
    /// Opens the door.
    ///
    /// # Errors
    /// Names the address that is taken or does not exist.
    pub(super) fn bind(
        addresses: &[SocketAddr],
        path: String,
        callers: Vec<String>,
        ids: mpsc::Sender<ResultId>,
        metrics: Metrics,
    ) -> Result<Self, BindError> {
        let callers = Callers::new("eventSources.notifications.allowedSources or configQRS", Some(callers));
        let listeners = bind::tcp(addresses, V6::Dual)?;
        Ok(Self { listeners, shared: Arc::new(Shared { path, callers, ids, metrics }) })
    }

    /// Where it listens.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Takes calls until `stop`.
    ///
    /// # Errors
    /// If a bound listener cannot be used.
    pub(super) async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let (tracker, room) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS)));
        let mut doors = JoinSet::new();
        for listener in self.listeners {
            let listener = TcpListener::from_std(listener)?;
            doors.spawn(accept(listener, self.shared.clone(), tracker.clone(), room.clone(), stop.clone()));
        }
        let shared = self.shared;
        let names = stop.clone();
        doors.spawn(async move {
            // A name service that does not answer must not hold the stop.
            let _ = names.run_until_cancelled(shared.callers.keep_resolved(names.clone())).await;
        });
        while doors.join_next().await.is_some() {}
        tracker.close();
        tracker.wait().await;
        Ok(())
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    tracker: TaskTracker,
    room: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let serve = async {
        loop {
            // The semaphore is never closed.
            let Ok(turn) = room.clone().acquire_owned().await else { return };
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let (shared, stop) = (shared.clone(), stop.clone());
            tracker.spawn(async move {
                let _turn = turn;
                stop.run_until_cancelled(shared.connection(stream, peer.ip().to_canonical())).await;
            });
        }
    };
    stop.run_until_cancelled(serve).await;
}

impl Shared {
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: IpAddr) {
        if !self.callers.admits(peer) {
            static LINE: Throttle = Throttle::every(Duration::from_secs(60));
            self.metrics.notification("refused_source", 1);
            if let Some(suppressed) = LINE.pass() {
                tracing::warn!(
                    code = "notification_refused",
                    suppressed,
                    %peer,
                    "a call to eventSources.notifications.listen is refused: {peer} is none of its allowedSources, or of the hosts of configQRS; add it to allowedSources if it is a node of the site"
                );
            }
            return;
        }
        let service = service_fn(|request| {
            let shared = self.clone();
            async move { Ok::<_, std::convert::Infallible>(shared.answer(request).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
        if let Err(error) = pin!(builder.serve_connection(TokioIo::new(stream), service)).await {
            tracing::debug!(%peer, %error, "a connection for notifications ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<String> {
        if request.uri().path() != self.path || request.method() != Method::POST {
            self.metrics.notification("refused_path", 1);
            return plain(StatusCode::NOT_FOUND);
        }
        match tokio::time::timeout(BODY_TIME, read(request.into_body())).await {
            Ok(Some(body)) => self.take(&body),
            _ => {
                self.metrics.notification("unreadable", 1);
                plain(StatusCode::PAYLOAD_TOO_LARGE)
            }
        }
    }

    fn take(&self, body: &[u8]) -> Response<String> {
        let Ok(Value::Array(changes)) = serde_json::from_slice::<Value>(body) else {
            self.metrics.notification("unreadable", 1);
            return plain(StatusCode::BAD_REQUEST);
        };
        let (mut taken, mut dropped) = (0, 0);
        for id in changes.iter().filter_map(changed) {
            match self.ids.try_send(id) {
                Ok(()) => taken += 1,
                Err(_) => dropped += 1,
            }
        }
        for (result, times) in [("accepted", taken), ("queue_full", dropped)] {
            if times > 0 {
                self.metrics.notification(result, times);
            }
        }
        plain(StatusCode::OK)
    }
}

/// The execution result that was made or changed.
fn changed(change: &Value) -> Option<ResultId> {
    let of_results = change
        .get("objectType")
        .and_then(Value::as_str)
        .is_none_or(|kind| kind.eq_ignore_ascii_case("ExecutionResult"));
    let id = change.get("objectID").or_else(|| change.get("objectId"))?;
    id.as_str()?.parse().ok().filter(|_| of_results)
}

fn plain(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response
}

/// The whole body; `None`: it is too long or broke off.
async fn read(mut body: Incoming) -> Option<Bytes> {
    let mut whole = BytesMut::new();
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(frame) = frame else { return Some(whole.freeze()) };
        let Ok(data) = frame.ok()?.into_data() else { continue };
        if whole.len() + data.len() > BODY {
            return None;
        }
        whole.extend_from_slice(&data);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::telemetry::metrics::encode;

    const ONE: &str =
        r#"{"changeType":2,"objectType":"ExecutionResult","objectID":"5A1E5000-0000-4000-9000-000000000001"}"#;

    struct Door {
        address: SocketAddr,
        ids: mpsc::Receiver<ResultId>,
        registry: Registry,
        stop: CancellationToken,
        running: tokio::task::JoinHandle<io::Result<()>>,
    }

    impl Door {
        fn open(callers: &[&str], room: usize) -> Self {
            let mut registry = Registry::default();
            let (sender, ids) = mpsc::channel(room);
            let callers = callers.iter().map(ToString::to_string).collect();
            let any = ["127.0.0.1:0".parse().unwrap()];
            let metrics = Metrics::register(&mut registry);
            let callback = Callback::bind(&any, "/secret".into(), callers, sender, metrics).unwrap();
            let (address, stop) = (callback.addresses()[0], CancellationToken::new());
            let running = tokio::spawn(callback.run(stop.clone()));
            Self { address, ids, registry, stop, running }
        }

        async fn post(&self, path: &str, body: &str) -> Option<u16> {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let url = format!("http://{}{path}", self.address);
            let answer = reqwest::Client::new().post(url).body(body.to_owned()).send().await;
            answer.ok().map(|answer| answer.status().as_u16())
        }

        async fn close(self) -> String {
            self.stop.cancel();
            self.running.await.unwrap().unwrap();
            encode(&self.registry)
        }
    }

    #[tokio::test]
    async fn only_the_secret_path_is_answered_and_only_results_are_taken() {
        let mut door = Door::open(&["127.0.0.1"], 2);
        let other = ONE.replace("ExecutionResult", "ReloadTask");
        let bodies = [
            ("/secret", format!("[{ONE},{other},{{}},7]"), 200),
            ("/secret", "[]".to_owned(), 200),
            ("/secret", format!("[{ONE},{ONE}]"), 200),
            ("/secret", "{".to_owned(), 400),
            ("/secre", format!("[{ONE}]"), 404),
            ("/secret", "x".repeat(BODY + 1), 413),
        ];
        for (path, body, status) in &bodies {
            assert_eq!(door.post(path, body).await, Some(*status), "{body:.80}");
        }
        let id = "5a1e5000-0000-4000-9000-000000000001".parse().unwrap();
        assert_eq!((door.ids.recv().await, door.ids.recv().await), (Some(id), Some(id)));
        let counters = door.close().await;
        for (result, times) in [("accepted", 2), ("queue_full", 1), ("unreadable", 2), ("refused_path", 1)] {
            assert!(counters.contains(&format!("{{result=\"{result}\"}} {times}")), "{result} {counters}");
        }
    }

    #[tokio::test]
    async fn a_stranger_is_not_heard() {
        let mut door = Door::open(&["192.0.2.1"], 2);
        assert_eq!(door.post("/secret", &format!("[{ONE}]")).await, None);
        assert!(door.ids.try_recv().is_err());
        assert!(door.close().await.contains("{result=\"refused_source\"} 1"));
    }
}
