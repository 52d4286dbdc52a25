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

use super::{doors::Caller, entry, state::State};
use crate::config::settings::Generation;

/// How long a trusted peer may take for a request's head, idle time included: longer than .NET and Node keep their pooled connections, so that
/// the caller closes first and no request meets a closing connection.
const IDLE_LIMIT: Duration = Duration::from_secs(125);
/// The same for everybody else.
const STRANGER_IDLE_LIMIT: Duration = Duration::from_secs(10);
/// How long the request in hand may take after a stop.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(2);
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
pub(super) async fn serve<I>(io: I, site: Site, caller: Caller, stop: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(site.idle_limit(caller)).max_buf_size(HEAD_BYTES);
    let service = TowerToHyperService::new(warp::service(entry::filter(site, caller)));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        outcome = connection.as_mut() => {
            if let Err(error) = outcome {
                tracing::debug!(peer = %caller.peer, %error, "REST connection ended");
            }
            return;
        }
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    // A request that does not finish in time is cut: the stop has a limit.
    let _ = tokio::time::timeout(STOP_LIMIT, connection).await;
}
