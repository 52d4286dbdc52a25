//! A small HTTP server for the simulator's two doors: accepts, shakes hands, reads a whole request, asks the handler, answers.
//!
//! Invariants: connections are counted and bounded; a handshake or a request head that does not come ends the connection; bodies are bounded;
//! when the token is cancelled every connection ends and the tracker becomes empty. While the door is shut nothing listens, so that the system
//! itself refuses connections.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::{
    HeaderMap, Response,
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    line::Line,
    reply::{Cut, Paced, Reply},
};
use crate::net::bind::{self, V6};

/// Connections at once, per door.
const MOST_CONNECTIONS: usize = 2_048;
/// For the TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// For the head of the next request, the idle time between requests included.
const HEAD_TIME: Duration = Duration::from_secs(180);
/// Longest body, bytes.
const MOST_BODY: usize = 1024 * 1024;
/// Between two tries to listen again.
const LISTEN_AGAIN: Duration = Duration::from_millis(50);

/// By which connection a request came.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its number, from 1, over all doors.
    pub number: u64,
    /// The other end.
    pub peer: SocketAddr,
    /// Common name of the client's certificate.
    pub certificate: Option<Arc<str>>,
}

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

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
    /// Where it came by.
    pub connection: Connection,
}

impl Call {
    /// A header's value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What answers.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request, or has the connection cut.
    fn handle(&self, call: Call) -> impl Future<Output = Result<Reply, Cut>> + Send;

    /// Ends when a new connection may be spoken to.
    fn greet(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// A door: where to listen, with or without TLS.
pub struct Door<H> {
    /// Listens.
    pub listener: TcpListener,
    /// Shakes hands; `None`: plain HTTP.
    pub tls: Option<TlsAcceptor>,
    /// Answers.
    pub handler: Arc<H>,
    /// Whether the door is open; while it is not, nobody listens.
    pub open: watch::Receiver<bool>,
}

impl<H: Handler> Door<H> {
    /// Serves until `stop`; connections are tasks of `tracker`.
    pub async fn serve(self, tracker: TaskTracker, stop: CancellationToken) {
        let Self { listener, tls, handler, mut open } = self;
        let Ok(address) = listener.local_addr() else { return };
        let mut listener = Some(listener);
        let entrance = Entrance { tls, handler, tracker, slots: Arc::new(Semaphore::new(MOST_CONNECTIONS)) };
        loop {
            let listening = match listener.take() {
                Some(listener) => listener,
                None => match stop.run_until_cancelled(listen_again(address)).await {
                    Some(listener) => listener,
                    None => return,
                },
            };
            let connections = stop.child_token();
            tokio::select! {
                () = stop.cancelled() => return,
                () = entrance.admit(&listening, &connections) => {}
                () = shut(&mut open) => {}
            }
            drop(listening);
            connections.cancel();
            if stop.run_until_cancelled(opened(&mut open)).await != Some(true) {
                return;
            }
        }
    }
}

/// Until the door is to be shut, or nobody is left who could open it.
async fn shut(open: &mut watch::Receiver<bool>) {
    let _ = open.wait_for(|open| !open).await.is_ok();
}

/// Until the door is to be open; `false`: nobody is left who could open it.
async fn opened(open: &mut watch::Receiver<bool>) -> bool {
    open.wait_for(|open| *open).await.is_ok()
}

/// The same address, as soon as it can be had.
async fn listen_again(address: SocketAddr) -> TcpListener {
    loop {
        let listener = bind::tcp(&[address], V6::Only).ok().and_then(|mut open| open.pop());
        match listener.map(TcpListener::from_std) {
            Some(Ok(listener)) => return listener,
            _ => tokio::time::sleep(LISTEN_AGAIN).await,
        }
    }
}

/// What an open door needs.
struct Entrance<H> {
    tls: Option<TlsAcceptor>,
    handler: Arc<H>,
    tracker: TaskTracker,
    slots: Arc<Semaphore>,
}

impl<H: Handler> Entrance<H> {
    /// Lets connections in, for ever.
    async fn admit(&self, listener: &TcpListener, stop: &CancellationToken) {
        let mut pause = Duration::from_millis(5);
        loop {
            let slot = Arc::clone(&self.slots).acquire_owned().await;
            let (stream, peer) = match listener.accept().await {
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
            let (tls, handler, ends) = (self.tls.clone(), Arc::clone(&self.handler), stop.clone());
            self.tracker.spawn(async move {
                let _slot = slot;
                ends.run_until_cancelled(connection(stream, peer, tls, handler)).await;
            });
        }
    }
}

async fn connection<H: Handler>(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, handler: Arc<H>) {
    // Answers are small and awaited: no reason to hold them back.
    let _ = stream.set_nodelay(true);
    handler.greet().await;
    let cut = Arc::new(AtomicBool::new(false));
    let line = Line::new(stream, Arc::clone(&cut));
    let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let Some(tls) = tls else {
        return exchange(line, Connection { number, peer, certificate: None }, cut, handler).await;
    };
    match timeout(HANDSHAKE_TIME, tls.accept(line)).await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let certificate = shown.and_then(|shown| super::pki::common_name(shown)).map(Arc::from);
            exchange(stream, Connection { number, peer, certificate }, cut, handler).await;
        }
        Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => debug!(%peer, "TLS handshake took too long"),
    }
}

async fn exchange<S, H>(stream: S, connection: Connection, cut: Arc<AtomicBool>, handler: Arc<H>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let peer = connection.peer;
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (handler, connection, cut) = (Arc::clone(&handler), connection.clone(), Arc::clone(&cut));
        async move { answer(request, connection, cut, &*handler).await }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    if let Err(error) = pin!(builder.serve_connection(TokioIo::new(stream), service)).await {
        debug!(%peer, %error, "connection ended");
    }
}

async fn answer<H: Handler>(
    request: hyper::Request<Incoming>,
    connection: Connection,
    cut: Arc<AtomicBool>,
    handler: &H,
) -> Result<Response<Paced>, Cut> {
    let (head, body) = request.into_parts();
    let Some(body) = read(body).await else { return Ok(Reply::empty(413).into_response(cut)) };
    let call = Call {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
        connection,
    };
    match handler.handle(call).await {
        Ok(reply) => Ok(reply.into_response(cut)),
        Err(asked) => {
            cut.store(true, Ordering::Relaxed);
            Err(asked)
        }
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
