//! MQTT over WebSocket (RFC 6455; MQTT 5.0 and 3.1.1 section 6): the upgrade, and a stream of bytes that looks to the broker like any other.
//!
//! The upgrade is checked here ([`upgrade`]); keys, headers and the layout of frame headers are tungstenite's. Its message layer is not
//! used: it reserves the declared length of a frame and hands out whole messages, while MQTT only wants the bytes in order
//! (`[MQTT-6.0.0-2]`: packets need not align with frames). Here they are unmasked where they were read and go on at once, so that a
//! connection holds nothing but an unfinished frame header while it is idle, whatever length a peer declares.

mod frames;
mod stream;
#[cfg(test)]
mod tests;
mod upgrade;

use std::{io, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub(super) use self::stream::WebSocket;
pub use self::{
    frames::{Frames, Violation},
    upgrade::{Refusal, Rules, Verdict, examine},
};

/// Bytes read at a time during the upgrade.
const READ: usize = 1_024;
/// What a peer that was refused has to close.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why there is no WebSocket.
#[derive(Debug)]
pub(super) enum NoUpgrade {
    /// The peer closed, or the network failed.
    Gone,
    /// Answered; the sentence is for the log.
    Refused(Refusal),
}

impl From<io::Error> for NoUpgrade {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Reads the request and answers it. `limit`: bytes a frame and a message may have.
pub(super) async fn accept<S>(mut stream: S, rules: &Rules, limit: usize) -> Result<WebSocket<S>, NoUpgrade>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    loop {
        let searched = head.len();
        let mut read = [0; READ];
        let count = stream.read(&mut read).await?;
        if count == 0 {
            return Err(NoUpgrade::Gone);
        }
        head.extend_from_slice(read.get(..count).unwrap_or_default());
        if !upgrade::may_be_complete(&head, searched) {
            continue;
        }
        match examine(&head, rules) {
            Verdict::More => {}
            Verdict::Accept { response, consumed } => {
                stream.write_all(&response).await?;
                stream.flush().await?;
                return Ok(WebSocket::new(stream, head.split_off(consumed.min(head.len())), limit));
            }
            Verdict::Refuse(refusal) => {
                stream.write_all(&refusal.response()).await?;
                stream.shutdown().await?;
                // Closing on unread bytes would reset the connection, and the reset would overtake the answer.
                let _ = tokio::time::timeout(FAREWELL, async {
                    while stream.read(&mut read).await? > 0 {}
                    io::Result::Ok(())
                })
                .await;
                return Err(NoUpgrade::Refused(refusal));
            }
        }
    }
}
