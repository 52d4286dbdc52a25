//! Answers of the two doors, and how their bodies go out: at once, in pieces with pauses, or cut off in the middle.

use std::{
    borrow::Cow,
    io::Write as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::{
    Response, StatusCode,
    body::{Body, Frame, SizeHint},
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
};
use tokio::time::Sleep;

/// So long the first half of a body has to leave before the connection is cut.
const BEFORE_CUT: Duration = Duration::from_millis(50);

/// How a body goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// At once.
    #[default]
    Whole,
    /// In pieces of so many bytes, with pauses between them.
    Drip(Duration, usize),
    /// The first half, then the connection is reset.
    Half,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Content type; `None` with an empty body.
    pub content_type: Option<Cow<'static, str>>,
    /// Body.
    pub body: String,
    /// How the body goes out.
    pub delivery: Delivery,
    /// The body as it goes out instead, compressed.
    gzipped: Option<Bytes>,
    /// The length of the body is not told in advance.
    chunked: bool,
}

impl Reply {
    fn new(status: u16, content_type: Option<&'static str>, body: String) -> Self {
        let content_type = content_type.map(Cow::Borrowed);
        Self { status, content_type, body, delivery: Delivery::Whole, gzipped: None, chunked: false }
    }

    /// The same, sent as asked for; an answer without a body stays as it is. Long bodies take a while.
    pub fn on_the_wire(mut self, gzip: bool, chunked: bool) -> Self {
        if !self.body.is_empty() {
            self.chunked = chunked;
            self.gzipped = gzip.then(|| gzipped(self.body.as_bytes())).flatten();
        }
        self
    }

    /// A JSON answer.
    pub fn json(status: u16, body: String) -> Self {
        Self::new(status, Some("application/json;charset=utf-8"), body)
    }

    /// A plain text answer.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self::new(status, Some("text/plain;charset=utf-8"), body.into())
    }

    /// A page.
    pub fn html(status: u16, body: impl Into<String>) -> Self {
        Self::new(status, Some("text/html;charset=utf-8"), body.into())
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self::new(status, None, String::new())
    }

    /// As HTTP; `cut` is set when the connection is to be reset.
    pub fn into_response(self, cut: Arc<AtomicBool>) -> Response<Paced> {
        let content_type = self.content_type.as_deref().and_then(|kind| HeaderValue::from_str(kind).ok());
        let is_gzipped = self.gzipped.is_some();
        let body = self.gzipped.unwrap_or_else(|| self.body.into());
        let mut response = Response::new(Paced::new(body, self.delivery, self.chunked, cut));
        if is_gzipped {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if let Some(kind) = content_type {
            response.headers_mut().insert(CONTENT_TYPE, kind);
        }
        response
    }
}

/// Compressed; `None` never happens, for nothing can fail in memory.
fn gzipped(body: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// The connection is cut instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is cut, as asked for")]
pub struct Cut;

/// A body that goes out as its delivery says.
#[derive(Debug)]
pub struct Paced {
    rest: Bytes,
    /// As it is told in advance, if it is.
    length: Option<u64>,
    piece: usize,
    pause: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    /// So many bytes may still go out before the connection is cut.
    until_cut: Option<usize>,
    cut: Arc<AtomicBool>,
}

impl Paced {
    fn new(body: Bytes, delivery: Delivery, chunked: bool, cut: Arc<AtomicBool>) -> Self {
        let length = body.len();
        let (piece, pause, until_cut) = match delivery {
            Delivery::Whole => (length, Duration::ZERO, None),
            Delivery::Drip(pause, piece) => (piece.max(1), pause, None),
            Delivery::Half => (length / 2, BEFORE_CUT, Some(length / 2)),
        };
        let told = (!chunked).then_some(length as u64);
        Self { rest: body, length: told, piece, pause, sleep: None, until_cut, cut }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        if let Some(sleep) = &mut this.sleep {
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            this.sleep = None;
        }
        if this.until_cut == Some(0) {
            this.cut.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(Cut)));
        }
        if this.rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece = this.rest.split_to(this.piece.min(this.rest.len()));
        this.until_cut = this.until_cut.map(|left| left.saturating_sub(piece.len()));
        if !this.rest.is_empty() && !this.pause.is_zero() {
            this.sleep = Some(Box::pin(tokio::time::sleep(this.pause)));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.until_cut.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
