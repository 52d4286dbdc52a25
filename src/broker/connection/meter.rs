//! How much a client sends: beyond its rate the socket rests, and the client is slowed by its own TCP window. Nothing is lost.
//!
//! A second's worth may come at once; then reading stops until a tenth of a second's worth is due again, so that a client at its limit costs
//! ten wakes a second and not one per message. Invariant: while the socket rests its client is not taken for silent.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use crate::broker::settings::Rate;

/// What may come at once.
const BURST: Duration = Duration::from_secs(1);
/// How much of it must be due again before reading goes on.
const PAUSE: Duration = Duration::from_millis(100);

/// One of the two rates: when all that was sent will have been due.
#[derive(Debug)]
struct Gauge {
    /// Nanoseconds of one unit; 0: any rate.
    unit: u64,
    paid: Instant,
}

impl Gauge {
    fn new(per_second: u32, now: Instant) -> Self {
        Self { unit: 1_000_000_000_u64.checked_div(u64::from(per_second)).unwrap_or(0), paid: now }
    }

    fn charge(&mut self, units: u64, now: Instant) {
        self.paid = self.paid.max(now) + Duration::from_nanos(self.unit.saturating_mul(units));
    }
}

/// Both rates of a client.
#[derive(Debug)]
struct Pace {
    messages: Gauge,
    bytes: Gauge,
}

impl Pace {
    fn new(rate: Rate, now: Instant) -> Self {
        Self { messages: Gauge::new(rate.messages, now), bytes: Gauge::new(rate.bytes, now) }
    }

    /// A packet was read; if it was more than a second's worth, until when to rest.
    fn count(&mut self, message: bool, bytes: usize, now: Instant) -> Option<Instant> {
        self.messages.charge(u64::from(message), now);
        self.bytes.charge(u64::try_from(bytes).unwrap_or(u64::MAX), now);
        let paid = self.messages.paid.max(self.bytes.paid);
        (paid > now + BURST).then(|| paid - (BURST - PAUSE))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Meter {
    pace: Pace,
    rest: Option<Pin<Box<Sleep>>>,
}

impl Meter {
    /// `None` where there is nothing to measure.
    pub(super) fn new(rate: Rate) -> Option<Box<Self>> {
        (rate != Rate::default()).then(|| Box::new(Self { pace: Pace::new(rate, Instant::now()), rest: None }))
    }

    /// A packet was read.
    pub(super) fn count(&mut self, message: bool, bytes: usize) {
        if let Some(until) = self.pace.count(message, bytes, Instant::now()) {
            self.rest = Some(Box::pin(tokio::time::sleep_until(until)));
        }
    }

    pub(super) fn rests(&self) -> bool {
        self.rest.is_some()
    }

    /// Whether a rest just ended; otherwise the task is woken when it does.
    pub(super) fn poll_rested(&mut self, cx: &mut Context<'_>) -> bool {
        let over = self.rest.as_mut().is_some_and(|rest| matches!(rest.as_mut().poll(cx), Poll::Ready(())));
        if over {
            self.rest = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends packets of 100 bytes as fast as the pace lets it; how long it takes, and how often it rests.
    fn time_of(packets: u32, rate: Rate) -> (Duration, u32) {
        let begun = Instant::now();
        let (mut pace, mut now, mut rests) = (Pace::new(rate, begun), begun, 0);
        for _ in 0..packets {
            if let Some(until) = pace.count(true, 100, now) {
                (now, rests) = (until, rests + 1);
            }
        }
        (now - begun, rests)
    }

    #[test]
    fn a_rate_is_kept_after_the_first_second() {
        let messages = Rate { messages: 50, bytes: 0 };
        assert_eq!(time_of(50, messages), (Duration::ZERO, 0));
        let cases = [
            (550, messages, 10),
            (550, Rate { messages: 0, bytes: 5_000 }, 10),
            (11_000, Rate { messages: 1_000, bytes: 10_000_000 }, 10),
            (40, Rate { messages: 50, bytes: 100 }, 39),
        ];
        for (packets, rate, seconds) in cases {
            let (took, rests) = time_of(packets, rate);
            let wanted = Duration::from_secs(seconds);
            assert!(took + PAUSE * 2 >= wanted && took <= wanted + PAUSE, "{packets} {rate:?}: {took:?}");
            assert!(rests <= 110, "{rests} rests");
        }
    }

    #[test]
    fn what_was_not_used_is_a_seconds_worth_later() {
        let begun = Instant::now();
        let mut pace = Pace::new(Rate { messages: 10, bytes: 0 }, begun);
        let later = begun + Duration::from_secs(3_600);
        assert_eq!((0..100).take_while(|_| pace.count(true, 1, later).is_none()).count(), 10);
    }

    #[test]
    fn no_limit_is_no_meter() {
        assert!(Meter::new(Rate::default()).is_none());
    }
}
