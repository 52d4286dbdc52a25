//! One connection of an oracle client: whole packets in, bytes out, and the world it lives in.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::timeout,
};

use super::{
    chance::Chance,
    ledger::Ledger,
    violation::Violation,
    wire::{Hello, Packet, frame, parse},
};

/// Longest time for a CONNACK of a broker that accepted the connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause before the next attempt while the broker is not there.
const AGAIN: Duration = Duration::from_millis(5);

/// What all clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// Where the broker is, while it is.
    pub address: Option<SocketAddr>,
    /// Where its REST door is, if it has one.
    pub rest: Option<SocketAddr>,
    /// Whether there is new load; otherwise what is begun is brought to its end.
    pub load: bool,
    /// Whether clients cut and leave their connections by themselves.
    pub restless: bool,
    pub end: bool,
}

/// What every client holds.
#[derive(Clone)]
pub struct World {
    pub phase: watch::Receiver<Phase>,
    pub ledger: Ledger,
}

impl World {
    pub fn now(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The next phase; the end of the run is the end of waiting.
    pub async fn changed(&mut self) {
        if self.phase.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Where the broker is, as soon as it is there; `None` at the end.
    async fn address(&mut self) -> Option<SocketAddr> {
        let phase = self.phase.wait_for(|phase| phase.end || phase.address.is_some()).await.ok()?;
        if phase.end { None } else { phase.address }
    }

    /// Connects, again and again while the broker is away; the link and whether the client begins anew. `None` at the end of the run.
    pub async fn connect(&mut self, hello: &Hello) -> Option<(Link, bool)> {
        loop {
            let address = self.address().await?;
            let expected = self.ledger.connecting(&hello.id, !hello.clean);
            match timeout(PATIENCE, Link::open(address, self.phase.clone(), hello)).await {
                Ok(Ok((link, present, 0))) => {
                    let anew = self.ledger.connected(&hello.id, expected, present);
                    return Some((link, anew));
                }
                Ok(Ok((_, _, code))) => {
                    let what = format!("CONNACK {code:#04x}");
                    self.ledger.violation(Violation::Refused { client: hello.id.clone(), what });
                    tokio::time::sleep(PATIENCE / 30).await;
                }
                // Killed meanwhile, or not yet there.
                Ok(Err(_)) => tokio::time::sleep(AGAIN).await,
                Err(_) if self.now().address == Some(address) => {
                    let what = format!("{} connected and got no CONNACK in {PATIENCE:?}", hello.id);
                    self.ledger.violation(Violation::NoAnswer { what });
                }
                Err(_) => {}
            }
        }
    }
}

/// A connection that was accepted.
pub struct Link {
    address: SocketAddr,
    phase: watch::Receiver<Phase>,
    stream: TcpStream,
    buffer: Vec<u8>,
    version: u8,
}

impl Link {
    async fn open(address: SocketAddr, phase: watch::Receiver<Phase>, hello: &Hello) -> io::Result<(Self, bool, u8)> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&hello.bytes()).await?;
        let mut link = Self { address, phase, stream, buffer: Vec::new(), version: hello.version };
        match link.next().await? {
            Packet::ConnAck { present, code } => Ok((link, present, code)),
            other => Err(io::Error::other(format!("{other:?} instead of a CONNACK"))),
        }
    }

    /// Waits until the program that took the connection is dead. The connection is over with it, also where the system has not noticed: under
    /// Wine some sockets of a killed program stay open for as long as other programs run.
    async fn over(phase: &mut watch::Receiver<Phase>, address: SocketAddr) {
        if phase.wait_for(|phase| phase.address != Some(address)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        tokio::select! {
            // What it said before is heard.
            biased;
            count = self.stream.read_buf(&mut self.buffer) => count,
            () = Self::over(&mut self.phase, self.address) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// The next packet. Losing this future loses nothing.
    pub async fn next(&mut self) -> io::Result<Packet> {
        loop {
            if let Some((first, begin, end)) = frame(&self.buffer) {
                let packet = parse(self.version, first, &self.buffer[begin..end]);
                self.buffer.drain(..end);
                return packet.ok_or_else(|| io::Error::other(format!("no broker may send {first:#04x}")));
            }
            if self.read().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends a part of these bytes and is gone, without a word and without reading what waits.
    pub async fn cut(mut self, bytes: &[u8], chance: &mut Chance) {
        let part = chance.below(bytes.len() as u64 + 1) as usize;
        // Gone is gone, whichever side noticed first.
        let _ = self.stream.write_all(&bytes[..part]).await;
        let _ = self.stream.set_zero_linger();
    }

    /// Sends a DISCONNECT; answers whether the broker closed the connection, which it does once it has heard it.
    pub async fn leave(mut self) -> bool {
        if self.stream.write_all(&super::wire::disconnect()).await.is_err() {
            return false;
        }
        let closed = async {
            loop {
                match self.next().await {
                    Ok(_) => {}
                    Err(error) => return error.kind() == io::ErrorKind::UnexpectedEof,
                }
            }
        };
        timeout(PATIENCE, closed).await.unwrap_or(false)
    }
}
