//! Bytes in and out of one connection: reads go through a buffer of the thread, so that an idle connection holds none.
//!
//! Invariant: after a call that returns `Pending`, `inbox` holds only the beginning of an incomplete packet (or packets that were
//! deliberately left unread), and `out` only what the socket did not take.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::broker::seen::Meter;

/// Bytes read at a time.
const READ: usize = 64 << 10;
/// A write buffer larger than this is not kept while idle.
const KEEP: usize = 4 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// A stream with its two buffers.
pub(super) struct Wire<S> {
    stream: S,
    inbox: BytesMut,
    pub out: BytesMut,
    /// The stream still has something of what it took: TLS keeps what it encrypted until it is flushed.
    unflushed: bool,
    pub meter: Meter,
}

/// How many of the bytes it was shown a handler is done with.
pub(super) type Consumed = usize;

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S, meter: Meter) -> Self {
        Self { stream, inbox: BytesMut::new(), out: BytesMut::new(), unflushed: false, meter }
    }

    /// Shows what is there already to the handler. Returns whether it consumed anything.
    pub(super) fn again<E>(
        &mut self,
        handler: impl FnOnce(&[u8], &mut BytesMut) -> Result<Consumed, E>,
    ) -> Result<bool, E> {
        if self.inbox.is_empty() {
            return Ok(false);
        }
        let consumed = handler(&self.inbox, &mut self.out)?;
        self.consume(consumed);
        Ok(consumed > 0)
    }

    /// Reads once and shows the handler everything unread. `Ok(false)`: the peer closed.
    pub(super) fn poll_read<E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        handler: impl FnOnce(&[u8], &mut BytesMut) -> Result<Consumed, E>,
    ) -> Poll<Result<bool, E>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let fresh = buffer.filled();
            self.meter.read(fresh.len());
            if fresh.is_empty() {
                return Poll::Ready(Ok(false));
            }
            Poll::Ready(self.show(fresh, handler).map(|()| true))
        })
    }

    /// Waits until the peer has closed; whether it had said something that is unread. For ever, if that is more than `most` bytes.
    pub(super) async fn closed(&mut self, most: usize) -> bool {
        while self.inbox.len() <= most {
            match poll_fn(|cx| self.poll_read::<io::Error>(cx, |_, _| Ok(0))).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return !self.inbox.is_empty(),
            }
        }
        std::future::pending().await
    }

    fn show<E>(
        &mut self,
        fresh: &[u8],
        handler: impl FnOnce(&[u8], &mut BytesMut) -> Result<Consumed, E>,
    ) -> Result<(), E> {
        if self.inbox.is_empty() {
            let consumed = handler(fresh, &mut self.out)?;
            let (done, rest) = fresh.split_at_checked(consumed).unwrap_or((fresh, &[]));
            self.meter.heard(done);
            self.inbox.extend_from_slice(rest);
        } else {
            self.inbox.extend_from_slice(fresh);
            let consumed = handler(&self.inbox, &mut self.out)?;
            self.consume(consumed);
        }
        Ok(())
    }

    fn consume(&mut self, consumed: Consumed) {
        let consumed = consumed.min(self.inbox.len());
        self.meter.heard(self.inbox.get(..consumed).unwrap_or_default());
        self.inbox.advance(consumed);
        if self.inbox.is_empty() {
            self.inbox = BytesMut::new();
        }
    }

    /// Writes what the socket takes. Returns whether it took anything.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        self.meter.said(&self.out);
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => {
                    self.out.advance(count);
                    self.meter.written(count);
                }
                Poll::Pending => return Ok(moved),
            }
            (moved, self.unflushed) = (true, true);
        }
        if self.unflushed {
            self.unflushed = Pin::new(&mut self.stream).poll_flush(cx)?.is_pending();
        }
        Ok(moved)
    }

    /// Gives back a large write buffer; called when the connection goes idle.
    pub(super) fn rest(&mut self) {
        if self.out.is_empty() && self.out.capacity() > KEEP {
            self.out = BytesMut::new();
        }
    }

    /// Writes the rest and closes, for as long as the caller lets it. What the peer still sends is read and dropped: closing on unread
    /// bytes would reset the connection, and the reset would overtake the last words.
    pub(super) async fn finish(mut self) {
        self.meter.said(&self.out);
        let last = self.out.len();
        if self.stream.write_all(&self.out).await.is_err() || self.stream.shutdown().await.is_err() {
            // The peer is gone already; there is nothing left to tell it.
            return;
        }
        self.meter.written(last);
        self.out = BytesMut::new();
        while let Ok(true) = poll_fn(|cx| self.poll_read::<io::Error>(cx, |bytes, _| Ok(bytes.len()))).await {}
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// A stream that takes everything at once and lets it out only when it is flushed for the third time, as TLS over a full socket does.
    #[derive(Default)]
    struct Reluctant {
        kept: Vec<u8>,
        flushes: usize,
        sent: Vec<u8>,
    }

    impl AsyncRead for Reluctant {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Reluctant {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.kept.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if self.flushes < 3 {
                return Poll::Pending;
            }
            let kept = std::mem::take(&mut self.kept);
            self.sent.extend(kept);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_the_stream_took_is_flushed_until_it_is_out() {
        let mut wire = Wire::new(Reluctant::default(), Meter::new(&std::sync::Arc::default()));
        let mut cx = Context::from_waker(Waker::noop());
        wire.out.extend_from_slice(b"last words");
        assert!(wire.poll_flush(&mut cx).unwrap());
        for _ in 0..5 {
            assert!(!wire.poll_flush(&mut cx).unwrap());
        }
        assert_eq!((wire.stream.sent.as_slice(), wire.stream.flushes), (b"last words".as_slice(), 3));
    }

    #[tokio::test]
    async fn who_closes_is_gone_and_whether_something_was_said_is_known() {
        for (said, known) in [(&b""[..], Some(false)), (b"a packet", Some(true)), (b"more than is read", None)] {
            let (mut peer, stream) = tokio::io::duplex(64);
            let mut wire = Wire::new(stream, Meter::new(&std::sync::Arc::default()));
            let mut closed = std::pin::pin!(wire.closed(8));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(closed.as_mut().poll(&mut cx).is_pending(), "the peer is there");
            peer.write_all(said).await.unwrap();
            drop(peer);
            assert_eq!(closed.as_mut().poll(&mut cx), known.map_or(Poll::Pending, Poll::Ready));
        }
    }
}
