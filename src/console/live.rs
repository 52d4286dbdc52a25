//! The live stream: what passes through the broker, as server-sent events (WHATWG HTML, section 9.2), for whoever has a console open.
//!
//! Each stream has a task that looks ten times a second and sends what its tap has seen as one event. Invariants: a stream costs the broker what
//! [`crate::bus::desk::Tap`] says, and this program at most [`MORE`] ten times a second; messages beyond it are counted and their number is told;
//! a reader who stands still gives no new room, so from then on nothing is copied, and is hung up on after [`STILL`]; there are at most [`MOST`]
//! streams; a stream ends with the session of who opened it.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::metrics::Metrics;
use crate::{
    bus::desk::{Desk, Glimpse, Room, Seen, Tap, rfc3339},
    names::TopicFilter,
};

/// Streams at a time.
pub const MOST: usize = 8;
/// Between two looks at the tap.
const LOOK: Duration = Duration::from_millis(100);
/// Room a look gives, for the program's own messages and for others each: 100 messages and 320 KiB a second.
const MORE: Room = Room { messages: 10, bytes: 32 << 10 };
/// Room that adds up while little passes, so that a burst is shown whole.
const ROOM: Room = Room { messages: 100, bytes: 256 << 10 };
/// Looks between two words to a reader while nothing passes: 15 seconds.
const QUIET: u32 = 150;
/// Looks between two looks at the session: a second.
const SESSION: u32 = 10;
/// Looks after which a reader who takes nothing is hung up on: a minute.
pub const STILL: u32 = 600;

/// Why there is no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    /// The messages are not carried here.
    #[error(
        "only what passes through the built-in broker can be shown, and it is not in use; `sense-butler sub` listens to a broker elsewhere"
    )]
    Elsewhere,
    /// No place.
    #[error("{MOST} live streams are open already; close one of the other consoles")]
    Full,
}

/// What a stream is bound to.
pub struct Ties {
    /// Whether who opened it may still look on.
    pub is_open: Box<dyn Fn() -> bool + Send + Sync>,
    /// The program stops.
    pub stop: CancellationToken,
    /// Cancelled when the reader stands still: whoever holds the connection closes it.
    pub hang_up: CancellationToken,
}

/// See the module.
pub struct Live {
    desk: Option<Desk>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    metrics: Metrics,
}

impl Live {
    pub(super) fn new(desk: Option<Desk>, metrics: Metrics) -> Self {
        Self { desk, places: Arc::new(Semaphore::new(MOST)), tasks: TaskTracker::new(), metrics }
    }

    /// Whether there can be streams.
    pub fn is_here(&self) -> bool {
        self.desk.is_some()
    }

    /// Opens a stream of what a filter matches. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// If there is nothing to show or no place.
    pub fn open(&self, filter: TopicFilter, ties: Ties) -> Result<Flow, LiveError> {
        let desk = self.desk.as_ref().ok_or(LiveError::Elsewhere)?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| LiveError::Full)?;
        let (sender, receiver) = mpsc::channel(1);
        let watcher = Watcher { tap: desk.tap(filter), sender, ties, metrics: self.metrics.clone(), _place: place };
        self.metrics.streams.inc();
        self.tasks.spawn(watcher.run());
        Ok(Flow(receiver))
    }
}

/// The text of a stream, piece by piece.
#[derive(Debug)]
pub struct Flow(mpsc::Receiver<Bytes>);

impl Flow {
    /// The next piece; `None`: the stream has ended.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_recv(context)
    }
}

struct Watcher {
    tap: Tap,
    sender: mpsc::Sender<Bytes>,
    ties: Ties,
    metrics: Metrics,
    _place: OwnedSemaphorePermit,
}

/// What to do at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing: the reader has not taken what was sent last.
    Wait,
    /// Send what was seen; `must`: also if it is nothing.
    Send { must: bool },
    /// Say that it is over.
    End,
    /// Close the connection without a word: nobody would read it.
    HangUp,
}

/// How long nothing was sent, and nothing taken, in looks.
#[derive(Debug, Default)]
struct Pace {
    quiet: u32,
    still: u32,
}

impl Pace {
    /// `has_room`: the reader has taken what was sent last; `is_over`: the session is.
    const fn step(&mut self, has_room: bool, is_over: bool) -> Step {
        if !has_room {
            self.still += 1;
            return if is_over || self.still >= STILL { Step::HangUp } else { Step::Wait };
        }
        (self.still, self.quiet) = (0, self.quiet + 1);
        if is_over { Step::End } else { Step::Send { must: self.quiet > QUIET } }
    }
}

impl Watcher {
    async fn run(self) {
        // The first look says that the stream has begun.
        let mut pace = Pace { quiet: QUIET, still: 0 };
        let mut age = 0_u32;
        let mut every = tokio::time::interval(LOOK);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = self.ties.stop.cancelled() => return,
                () = self.sender.closed() => return,
            }
            age = age.wrapping_add(1);
            let is_over = age.is_multiple_of(SESSION) && !(self.ties.is_open)();
            if !self.look(&mut pace, is_over) {
                return;
            }
        }
    }

    /// Whether it goes on.
    fn look(&self, pace: &mut Pace, is_over: bool) -> bool {
        let place = self.sender.try_reserve();
        match (pace.step(place.is_ok(), is_over), place) {
            (Step::Send { must }, Ok(place)) => {
                let seen = self.tap.take(MORE, ROOM);
                let is_empty = seen.glimpses.is_empty() && seen.missed == 0;
                if is_empty && !must {
                    return true;
                }
                pace.quiet = 0;
                self.metrics.passed(seen.glimpses.len(), seen.missed);
                // A comment: proxies and browsers see that the stream is alive.
                place.send(if is_empty { Bytes::from_static(b": \n\n") } else { event(&seen) });
                true
            }
            (Step::End, Ok(place)) => {
                place.send(Bytes::from_static(b"event: end\ndata: {}\n\n"));
                false
            }
            (Step::HangUp, _) => {
                self.ties.hang_up.cancel();
                false
            }
            _ => true,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.metrics.streams.dec();
    }
}

fn event(seen: &Seen) -> Bytes {
    let messages: Vec<_> = seen.glimpses.iter().map(message).collect();
    format!("data: {}\n\n", json!({"messages": messages, "notShown": seen.missed})).into()
}

fn message(glimpse: &Glimpse) -> Value {
    let is_cut = glimpse.payload.len() < glimpse.size;
    let (encoding, payload) = text(&glimpse.payload, is_cut);
    json!({
        "at": rfc3339(glimpse.at),
        "topic": glimpse.topic,
        "qos": glimpse.qos as u8,
        "retain": glimpse.retain,
        "size": glimpse.size,
        "encoding": encoding,
        "payload": payload,
        "cut": is_cut,
        "door": glimpse.door.as_str(),
        "client": glimpse.client.as_ref().map(|client| client.as_str()),
        "user": glimpse.user.as_deref(),
    })
}

/// A payload as text where it is UTF-8 (as far as it is there), else in base64.
fn text(payload: &[u8], is_cut: bool) -> (&'static str, String) {
    match std::str::from_utf8(payload) {
        Ok(text) => ("text", text.to_owned()),
        Err(error) if is_cut && error.error_len().is_none() => {
            let whole = payload.split_at_checked(error.valid_up_to()).map_or(payload, |(whole, _)| whole);
            ("text", String::from_utf8_lossy(whole).into_owned())
        }
        Err(_) => ("base64", STANDARD.encode(payload)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_is_waited_for_and_hung_up_on() {
        let mut pace = Pace::default();
        assert_eq!(pace.step(true, false), Step::Send { must: false });
        for _ in 1..STILL {
            assert_eq!(pace.step(false, false), Step::Wait);
        }
        assert_eq!(pace.step(true, false), Step::Send { must: false }, "who reads on is no longer still");
        for _ in 1..STILL {
            assert_eq!(pace.step(false, false), Step::Wait);
        }
        assert_eq!(pace.step(false, false), Step::HangUp);
        assert_eq!(Pace::default().step(false, true), Step::HangUp, "nobody would read the word");
        assert_eq!(Pace::default().step(true, true), Step::End);
        let mut pace = Pace::default();
        let words = (0..=QUIET).filter(|_| pace.step(true, false) == Step::Send { must: true }).count();
        assert_eq!(words, 1);
    }

    #[test]
    fn payloads_are_text_or_base64() {
        for (payload, is_cut, expected) in [
            (&b"abc"[..], false, ("text", "abc")),
            (b"abc\xc3", true, ("text", "abc")),
            (b"abc\xc3", false, ("base64", "YWJjww==")),
            (b"\xffabc", true, ("base64", "/2FiYw==")),
            (b"", false, ("text", "")),
        ] {
            let (encoding, shown) = text(payload, is_cut);
            assert_eq!((encoding, shown.as_str()), expected, "{payload:?} {is_cut}");
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let glimpse = Glimpse {
            at: 1_700_000_000_000,
            topic: "a/\u{2028}b".into(),
            qos: crate::names::QoS::AtMostOnce,
            retain: false,
            size: 6,
            payload: Bytes::from_static(b"x\ny\r\nz"),
            door: crate::bus::Door::Mqtt,
            client: None,
            user: None,
        };
        let text = event(&Seen { glimpses: vec![glimpse], missed: 3 });
        let text = std::str::from_utf8(&text).unwrap();
        let line = text.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
        assert!(!line.contains(['\n', '\r']), "{line}");
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&value["notShown"], &value["messages"][0]["payload"]), (&json!(3), &json!("x\ny\r\nz")));
        assert_eq!(value["messages"][0]["at"], "2023-11-14T22:13:20Z");
    }
}
