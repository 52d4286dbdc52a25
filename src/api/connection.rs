//! One connection: TLS where asked for, then HTTP/1.1 by hyper with warp's filter as its service.
//!
//! Bounds: the handshake, and the wait for a request's head (which is also how long an idle connection is kept). A stop lets the request in hand
//! finish and closes the connection.

use std::{pin::pin, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{doors::Caller, entry, idle::Seat, state::State};
use crate::config::settings::Generation;

/// How long a trusted peer may take for a request's head, idle time included: longer than .NET and Node keep their pooled connections, so that
/// the caller closes first and no request meets a closing connection.
const IDLE_LIMIT: Duration = Duration::from_secs(125);
/// The same for everybody else.
const STRANGER_IDLE_LIMIT: Duration = Duration::from_secs(10);
/// How long the request in hand may take after a stop.
pub(super) const STOP_LIMIT: Duration = Duration::from_millis(1_500);
/// How long a connection that makes room may take to send what it has.
const LEAVING: Duration = Duration::from_millis(100);
/// Most bytes of a request's head.
const HEAD_BYTES: usize = 64 << 10;

/// What a server serves.
#[derive(Clone)]
pub(super) enum Site {
    /// The REST API.
    Api(Arc<State>),
    /// Butler's health port.
    DockerHealth(Generation),
}

impl Site {
    fn idle_limit(&self, caller: Caller) -> Duration {
        match self {
            Self::Api(state) if state.doors.trusts(caller.peer.ip()) => IDLE_LIMIT,
            _ => STRANGER_IDLE_LIMIT,
        }
    }
}

/// Serves one connection until either side closes it or the program stops.
pub(super) async fn serve<I>(io: I, site: Site, caller: Caller, seat: Seat, stop: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(site.idle_limit(caller)).max_buf_size(HEAD_BYTES);
    let hang_up = CancellationToken::new();
    let filter = entry::filter(site, caller, (seat.clone(), hang_up.clone()));
    let service = TowerToHyperService::new(warp::service(filter));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut leaves = false;
    loop {
        tokio::select! {
            outcome = connection.as_mut() => {
                if let Err(error) = outcome {
                    tracing::debug!(peer = %caller.peer, %error, "REST connection ended");
                }
                return;
            }
            // It makes room when the request it may have in hand is answered.
            () = seat.told_to_leave(), if !leaves => {
                if seat.is_new() {
                    return;
                }
                leaves = true;
                connection.as_mut().graceful_shutdown();
            }
            // Half a request is none; what is left of an answer goes out in this time.
            () = tokio::time::sleep(LEAVING), if leaves && !seat.is_at_work() => return,
            // Whoever is to read what is being sent stands still: there is nobody to say goodbye to.
            () = hang_up.cancelled() => return,
            () = stop.cancelled() => break,
        }
    }
    connection.as_mut().graceful_shutdown();
    // A request that does not finish in time is cut: the stop has a limit.
    let _ = tokio::time::timeout(STOP_LIMIT, connection).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{
        api::{
            idle::Idle,
            state::{
                Limits,
                tests::{rest_settings, state},
            },
        },
        bus::{BoxFuture, Bus, Publication, PublishError, Receipt, Routed, Subscription, Transport},
        config::settings::{Network, RestSettings},
        names::TopicFilter,
        sense::tasks::audit::{AuditLine, Witness},
    };

    type Sender = tokio::sync::oneshot::Sender<Result<Routed, PublishError>>;

    /// Takes messages; says so at once, or never.
    struct Double {
        silent: bool,
        kept: Mutex<Vec<Sender>>,
    }

    impl Transport for Double {
        fn submit(&self, _: Publication) -> BoxFuture<'_, Result<Receipt, PublishError>> {
            let (sender, receipt) = Receipt::channel();
            if self.silent {
                self.kept.lock().unwrap().push(sender);
            } else {
                sender.send(Ok(Routed::UNTOLD)).unwrap();
            }
            Box::pin(async { Ok(receipt) })
        }

        fn subscribe(&self, _: &str, _: Vec<TopicFilter>) -> BoxFuture<'_, Result<Subscription, PublishError>> {
            Box::pin(async { Err(PublishError::Unavailable(String::new())) })
        }

        fn is_up(&self) -> bool {
            true
        }
    }

    fn bus(silent: bool) -> Bus {
        Bus::new(Double { silent, kept: Mutex::default() })
    }

    /// Sends bytes over an in-memory connection from `peer` to 10.0.0.1 and gives back all that is answered.
    async fn exchange(state: State, peer: &str, request: &str) -> String {
        let (mut ours, theirs) = tokio::io::duplex(64 << 10);
        let caller = Caller { peer: peer.parse().unwrap(), local: "10.0.0.1:8080".parse().unwrap(), tls: false };
        let site = Site::Api(Arc::new(state));
        let seat = Arc::new(Idle::default()).seat();
        let served = tokio::spawn(serve(theirs, site, caller, seat, CancellationToken::new()));
        ours.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        ours.read_to_string(&mut answer).await.unwrap();
        served.await.unwrap();
        answer
    }

    fn request(method: &str, path: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nhost: sense\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    }

    #[tokio::test]
    async fn strangers_may_only_knock() {
        let hello = r#"{"topic":"a","message":"b"}"#;
        let mut ran = 0;
        for (method, path, body, open) in [
            ("PUT", "/v4/mqttpublishmessage", hello, false),
            ("POST", "/v4/mqttpublishmessage", hello, false),
            ("POST", "/api/v1/publish", "", false),
            ("POST", "/api/v1/publish/bulk", "[]", false),
            ("PUT", "/v4/reloadtask/x/start", "[]", false),
            ("GET", "/v4/activeusers", "", false),
            ("GET", "/v4/activeusercount", "", false),
            ("GET", "/metrics", "", false),
            ("GET", "/api/v1/status", "", false),
            ("GET", "/api/v1/broker/clients", "", false),
            ("GET", "/api/v1/broker/clients/x", "", false),
            ("DELETE", "/api/v1/broker/clients/x", "", false),
            ("GET", "/api/v1/broker/subscriptions", "", false),
            ("GET", "/api/v1/broker/retained", "", false),
            ("DELETE", "/api/v1/broker/retained/x", "", false),
            ("GET", "/api/v1/broker/stats", "", false),
            ("GET", "/api/v1/tasks", "", false),
            ("GET", "/api/v1/tasks/x", "", false),
            ("POST", "/api/v1/tasks/start", "x", false),
            ("GET", "/api/v1/executions", "", false),
            ("GET", "/api/v1/executions/x", "", false),
            ("POST", "/api/v1/executions/x/stop", "", false),
            ("GET", "/v4/butlerping", "", true),
            ("GET", "/v4/configfile/endpointsenabled", "", true),
            ("GET", "/livez", "", true),
            ("GET", "/openapi.json", "", true),
            ("GET", "/docs", "", true),
        ] {
            for (peer, trusted) in [("10.0.0.7:5000", false), ("10.1.0.7:5000", true), ("[::ffff:10.1.0.7]:5000", true)]
            {
                let sources = vec![Network { address: "10.1.0.0".parse().unwrap(), prefix: 16 }];
                let rest = RestSettings { allowed_sources: sources, ..rest_settings() };
                let answer = exchange(state(rest, bus(false)), peer, &request(method, path, body)).await;
                // 501, 400, 503: that there is no built-in broker here, no such id, no Qlik Sense, is told only to who is let in.
                let let_in =
                    ["20", "400", "501", "503"].iter().any(|status| answer.starts_with(&format!("HTTP/1.1 {status}")));
                assert_eq!(let_in, open || trusted, "{peer} {path}: {answer}");
                let refused = answer.starts_with("HTTP/1.1 403") && answer.contains("10.0.0.7 may not");
                assert_eq!(refused, !let_in, "{peer} {path}: {answer}");
                ran += 1;
            }
        }
        assert_eq!(ran, 81);
    }

    #[tokio::test]
    async fn to_reload_from_elsewhere_is_a_right_of_its_own() {
        let mut ran = 0;
        for (peer, configured, expected) in [
            ("127.0.0.1:5000", false, "HTTP/1.1 200"),
            ("10.1.0.7:5000", false, "HTTP/1.1 403"),
            ("10.1.0.7:5000", true, "HTTP/1.1 200"),
            ("10.0.0.7:5000", true, "HTTP/1.1 403"),
        ] {
            let sources = vec![Network { address: "10.1.0.0".parse().unwrap(), prefix: 16 }];
            let mut rest = RestSettings { allowed_sources: sources, ..rest_settings() };
            rest.endpoints.config_reload = configured;
            let answer = exchange(state(rest, bus(false)), peer, &request("POST", "/api/v1/reload", "")).await;
            assert!(answer.starts_with(expected), "{peer} {configured}: {answer}");
            ran += 1;
        }
        assert_eq!(ran, 4);
        let look = request("GET", "/api/v1/reload", "");
        let looked = exchange(state(rest_settings(), bus(false)), "127.0.0.1:1", &look).await;
        assert!(looked.starts_with("HTTP/1.1 405"), "to look changes nothing");
    }

    /// Keeps what is written down.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl Witness for Notes {
        fn note(&self, line: &AuditLine<'_>) {
            self.0.lock().unwrap().push(serde_json::to_string(line).unwrap());
        }
    }

    #[tokio::test]
    async fn a_stranger_who_would_start_or_stop_is_written_down() {
        let notes = Notes::default();
        let (start, stop) = ("/v4/reloadtask/x/start", "/api/v1/executions/x/stop");
        for (method, path) in
            [("PUT", start), ("POST", "/api/v1/tasks/start"), ("POST", stop), ("GET", "/api/v1/tasks")]
        {
            let state = state(rest_settings(), bus(false));
            state.setup.tasks.starter.audit().hear(notes.clone());
            let answer = exchange(state, "10.0.0.7:5000", &request(method, path, "{}")).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        }
        let notes = notes.0.lock().unwrap();
        let told = |line: &&String| {
            line.contains(r#""address":"10.0.0.7""#)
                && line.contains(r#""status":"denied","final":true,"code":"forbidden""#)
        };
        assert_eq!((notes.len(), notes.iter().filter(told).count()), (3, 3), "{notes:?}");
    }

    #[tokio::test]
    async fn everything_has_its_time() {
        let mut state = state(rest_settings(), bus(true));
        let short = Duration::from_millis(20);
        state.limits = Limits { handler: short, ..Limits::default() };
        let hello = request("PUT", "/v4/mqttpublishmessage", r#"{"topic":"a","message":"b"}"#);
        let answer = exchange(state, "127.0.0.1:5000", &hello).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("retry-after: 1") && answer.contains("outcome is unknown"), "{answer}");
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_a_408() {
        let mut state = state(rest_settings(), bus(false));
        state.limits = Limits { body: Duration::from_millis(20), ..Limits::default() };
        let half = "PUT /v4/mqttpublishmessage HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n{\"topic";
        let answer = exchange(state, "127.0.0.1:5000", half).await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("connection: close"), "{answer}");
    }

    #[tokio::test]
    async fn a_start_that_takes_too_long_is_told_so() {
        let mut state = state(rest_settings(), bus(false));
        state.limits = Limits { start: Duration::from_millis(20), ..Limits::default() };
        state.setup.start_task = Arc::new(|_| Box::pin(std::future::pending()));
        let answer = exchange(state, "127.0.0.1:5000", &request("PUT", "/v4/reloadtask/x/start", "[]")).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    }
}
