//! A connection, with TLS or without.
//!
//! An address that begins with `tls:` means TLS; the environment's `BENCH_CA` names the PEM file of the authority that is trusted then. No
//! session is ever resumed: every connection pays for its whole handshake.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        client::Resumption,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::Fallible;

/// What MQTT is spoken over.
pub enum Stream {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Connects to `IP:PORT`, or to `tls:IP:PORT`, handshake included.
    pub async fn open(address: &str) -> Fallible<Self> {
        let (secure, plain) = match address.strip_prefix("tls:") {
            Some(rest) => (true, rest),
            None => (false, address),
        };
        let told = |error: io::Error| format!("{address}: {error}");
        let stream = TcpStream::connect(plain).await.map_err(told)?;
        stream.set_nodelay(true)?;
        if !secure {
            return Ok(Self::Plain(stream));
        }
        let name = ServerName::from(plain.parse::<SocketAddr>()?.ip());
        let stream = TlsConnector::from(client()?).connect(name, stream).await.map_err(told)?;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Writes all of it, down to the socket.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).await?;
        self.flush().await
    }

    /// For two tasks.
    pub fn into_split(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        tokio::io::split(self)
    }
}

/// The client's side of TLS; made once.
fn client() -> Fallible<Arc<ClientConfig>> {
    static CLIENT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CLIENT.get() {
        return Ok(config.clone());
    }
    let path = std::env::var("BENCH_CA").map_err(|_| "BENCH_CA names no file: the authority of the TLS address")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&path)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config = config.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(CLIENT.get_or_init(|| Arc::new(config)).clone())
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
