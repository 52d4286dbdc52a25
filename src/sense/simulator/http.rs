//! A small HTTP server for the simulator's two doors: accepts, shakes hands, reads a whole request, asks the handler, answers.
//!
//! Invariants: connections are counted and bounded; a handshake or a request head that does not come ends the connection; bodies are bounded;
//! when the token is cancelled every connection ends and the tracker becomes empty.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

/// Connections at once, per door.
const MOST_CONNECTIONS: usize = 2_048;
/// For the TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// For the head of the next request, the idle time between requests included.
const HEAD_TIME: Duration = Duration::from_secs(180);
/// Longest body, bytes.
const MOST_BODY: usize = 1024 * 1024;

/// A request, read completely.
#[derive(Debug, Clone)]
pub struct Call {
    /// Method, upper case.
    pub method: String,
    /// Path as sent.
    pub path: String,
    /// Query as sent, without `?`.
    pub query: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Call {
    /// A header's value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Content type; `None` with an empty body.
    pub content_type: Option<&'static str>,
    /// Body.
    pub body: String,
}

impl Reply {
    /// A JSON answer.
    pub fn json(status: u16, body: String) -> Self {
        Self { status, content_type: Some("application/json;charset=utf-8"), body }
    }

    /// A plain text answer.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: Some("text/plain;charset=utf-8"), body: body.into() }
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, content_type: None, body: String::new() }
    }

    fn into_response(self) -> Response<String> {
        let mut response = Response::new(self.body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if let Some(kind) = self.content_type {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        response
    }
}

/// The connection is cut instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is cut, as asked for")]
pub struct Cut;

/// What answers.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request, or has the connection cut.
    fn handle(&self, call: Call) -> impl Future<Output = Result<Reply, Cut>> + Send;
}

/// A door: where to listen, with or without TLS.
pub struct Door<H> {
    /// Listens.
    pub listener: TcpListener,
    /// Shakes hands; `None`: plain HTTP.
    pub tls: Option<TlsAcceptor>,
    /// Answers.
    pub handler: Arc<H>,
}

impl<H: Handler> Door<H> {
    /// Serves until `stop`; connections are tasks of `tracker`.
    pub async fn serve(self, tracker: TaskTracker, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let mut pause = Duration::from_millis(5);
        loop {
            let next = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, self.listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                () = stop.cancelled() => return,
                next = next => next,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: wait, and longer each time, rather than spin.
                    debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                    continue;
                }
            };
            pause = Duration::from_millis(5);
            let (tls, handler, stop) = (self.tls.clone(), Arc::clone(&self.handler), stop.clone());
            tracker.spawn(async move {
                let _slot = slot;
                let ends = stop.clone();
                tokio::select! {
                    () = ends.cancelled() => {}
                    () = connection(stream, peer, tls, handler) => {}
                }
            });
        }
    }
}

async fn connection<H: Handler>(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, handler: Arc<H>) {
    // Answers are small and awaited: no reason to hold them back.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return exchange(stream, peer, handler).await };
    match timeout(HANDSHAKE_TIME, tls.accept(stream)).await {
        Ok(Ok(stream)) => exchange(stream, peer, handler).await,
        Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => debug!(%peer, "TLS handshake took too long"),
    }
}

async fn exchange<S, H>(stream: S, peer: SocketAddr, handler: Arc<H>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let handler = Arc::clone(&handler);
        async move {
            let (head, body) = request.into_parts();
            let Some(body) = read(body).await else { return Ok(Reply::empty(413).into_response()) };
            let call = Call {
                method: head.method.as_str().to_owned(),
                path: head.uri.path().to_owned(),
                query: head.uri.query().unwrap_or_default().to_owned(),
                headers: head.headers,
                body,
            };
            handler.handle(call).await.map(Reply::into_response)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    if let Err(error) = pin!(builder.serve_connection(TokioIo::new(stream), service)).await {
        debug!(%peer, %error, "connection ended");
    }
}

/// The whole body, or `None` when it is too long or does not come.
async fn read(mut body: Incoming) -> Option<Bytes> {
    let mut whole = BytesMut::new();
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(frame) = frame else { return Some(whole.freeze()) };
        let Ok(data) = frame.ok()?.into_data() else { continue };
        if whole.len() + data.len() > MOST_BODY {
            return None;
        }
        whole.extend_from_slice(&data);
    }
}
