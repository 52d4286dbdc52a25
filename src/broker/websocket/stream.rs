//! A WebSocket as a stream of bytes: [`Frames`] on the way in, binary frames on the way out.
//!
//! Invariants: at rest it holds no buffer larger than 4 KiB; a peer that sends pings and reads nothing costs one pong; what the caller wrote
//! is in frames that are whole, so that a pong or the Close frame never falls into the middle of one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use super::frames::{Frames, Over};

/// Payload of an outgoing frame at most, bytes.
const CHUNK: usize = 64 << 10;
/// A write buffer larger than this is not kept.
const KEEP: usize = 4 << 10;

/// The stream.
#[derive(Debug)]
pub(in crate::broker) struct WebSocket<S> {
    stream: S,
    frames: Frames,
    /// What came together with the request.
    early: Vec<u8>,
    out: BytesMut,
    /// The stream below still has something of what it took.
    unflushed: bool,
    /// The broken rule was told to the caller; what still comes is dropped.
    told: bool,
    closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    pub(super) fn new(stream: S, early: Vec<u8>, limit: usize) -> Self {
        let frames = Frames::new(limit);
        Self { stream, frames, early, out: BytesMut::new(), unflushed: false, told: false, closed: false }
    }

    fn frame(&mut self, opcode: OpCode, payload: &[u8]) -> io::Result<()> {
        let header = FrameHeader { opcode, ..FrameHeader::default() };
        header.format(payload.len() as u64, &mut (&mut self.out).writer()).map_err(io::Error::other)?;
        self.out.extend_from_slice(payload);
        Ok(())
    }

    /// Answers the latest ping, when there is room.
    fn answer_ping(&mut self) -> io::Result<()> {
        if self.out.len() < KEEP
            && !self.closed
            && let Some(payload) = self.frames.ping()
        {
            self.frame(OpCode::Control(Control::Pong), &payload)?;
        }
        Ok(())
    }

    /// Everything that waits goes down, through whatever buffers below.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.out.advance(count),
            }
            self.unflushed = true;
        }
        if self.out.capacity() > KEEP {
            self.out = BytesMut::new();
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what it can; what does not go now goes later.
    fn push_out(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.poll_out(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Bytes from the wire, as they are.
    fn poll_raw(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.early.is_empty() {
            let mut raw = ReadBuf::new(space);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut raw))?;
            return Poll::Ready(Ok(raw.filled().len()));
        }
        let count = space.len().min(self.early.len());
        let rest = self.early.split_off(count);
        for (to, from) in space.iter_mut().zip(std::mem::replace(&mut self.early, rest)) {
            *to = from;
        }
        Poll::Ready(Ok(count))
    }

    /// After the end of the frames: a broken rule is told once; who was told may wait for the peer to close.
    fn poll_over(&mut self, cx: &mut Context<'_>, over: Over, space: &mut [u8]) -> Poll<io::Result<()>> {
        match over {
            Over::Closed(_) => Poll::Ready(Ok(())),
            Over::Broken(violation) if !self.told => {
                self.told = true;
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)))
            }
            Over::Broken(_) => {
                while ready!(self.poll_raw(cx, space))? > 0 {}
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            this.answer_ping()?;
            this.push_out(cx)?;
            let space = buf.initialize_unfilled();
            if space.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let Some(over) = this.frames.over() {
                return this.poll_over(cx, over, space);
            }
            let count = ready!(this.poll_raw(cx, space))?;
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            let kept = this.frames.take(space.get_mut(..count).unwrap_or_default());
            if kept > 0 {
                buf.advance(kept);
                this.answer_ping()?;
                this.push_out(cx)?;
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let chunk = bytes.get(..CHUNK).unwrap_or(bytes);
        if chunk.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.frame(OpCode::Data(Data::Binary), chunk)?;
        this.push_out(cx)?;
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_out(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            this.closed = true;
            let code: u16 = match this.frames.over() {
                Some(Over::Closed(code)) => code,
                Some(Over::Broken(violation)) => violation.code,
                None => 1000,
            };
            this.frame(OpCode::Control(Control::Close), &code.to_be_bytes())?;
        }
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend(payload);
        frame
    }

    #[tokio::test]
    async fn both_ways_with_pings_in_between() {
        let (near, mut far) = tokio::io::duplex(256);
        let early = masked(0x82, b"early");
        let (begun, rest) = early.split_at(3);
        far.write_all(&[rest, &masked(0x89, b"one"), &masked(0x89, b"two"), &masked(0x82, b" bird")].concat())
            .await
            .unwrap();
        let mut socket = WebSocket::new(near, begun.to_vec(), 1_000);
        let mut read = [0; 64];
        assert_eq!(socket.read(&mut read).await.unwrap(), 10);
        assert_eq!(&read[..10], b"early bird");
        socket.write_all(b"answer").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut out = Vec::new();
        far.read_to_end(&mut out).await.unwrap();
        // Of the pings that came together the latest is answered.
        assert_eq!(out, b"\x8a\x03two\x82\x06answer\x88\x02\x03\xe8");
        assert!(socket.out.capacity() <= KEEP);
    }

    #[tokio::test]
    async fn large_writes_are_whole_frames_and_leave_no_buffer() {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let mut socket = WebSocket::new(near, Vec::new(), 1_000);
        let sent: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            socket.write_all(&sent).await.unwrap();
            socket.flush().await.unwrap();
            assert!(socket.out.capacity() <= KEEP);
        });
        let mut got = Vec::new();
        while got.len() < expected.len() {
            let mut header = [0; 10];
            far.read_exact(&mut header[..2]).await.unwrap();
            assert_eq!(header[0], 0x82);
            let length = match header[1] {
                127 => far.read_u64().await.unwrap() as usize,
                126 => usize::from(far.read_u16().await.unwrap()),
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            far.read_exact(&mut payload).await.unwrap();
            got.extend(payload);
        }
        assert_eq!(got, expected);
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn a_broken_rule_is_told_once_and_answered_with_its_code() {
        let (near, mut far) = tokio::io::duplex(256);
        let mut socket = WebSocket::new(near, Vec::new(), 1_000);
        far.write_all(&[masked(0x82, b"ok"), masked(0x81, b"text"), masked(0x82, b"no")].concat()).await.unwrap();
        let mut read = [0; 64];
        assert_eq!(socket.read(&mut read).await.unwrap(), 2);
        let error = socket.read(&mut read).await.unwrap_err();
        assert_eq!(super::super::Violation::of(&error).map(|violation| violation.code), Some(1003));
        socket.shutdown().await.unwrap();
        let mut answer = [0; 4];
        far.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0x88, 2, 0x03, 0xeb]);
        drop(far);
        assert_eq!(socket.read(&mut read).await.unwrap(), 0);
    }
}
