//! How many messages a caller may publish in a second (`restServerConfig.publishPerSecond`).
//!
//! Each caller has an allowance of one second's worth that fills itself up. Invariants: what is refused uses nothing up; a request of any size is
//! taken when the allowance is full, and paid for afterwards; memory is bounded: of callers whose allowance is not full at most [`KNOWN`], and
//! those beyond share one.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    answer::Request,
    fault::{Fault, Kind},
};

/// Callers that are counted each on his own.
const KNOWN: usize = 10_000;
/// The pause between two looks at who need not be known any more.
const SWEEP: Duration = Duration::from_secs(1);
/// As many as one request has at most, and more.
const MOST: u64 = 1_000_000;
/// What an allowance holds.
const BURST: Duration = Duration::from_secs(1);
/// MQTT 5: "Message rate too high".
const TOO_FAST: u8 = 0x96;

/// See the module.
#[derive(Debug)]
pub(super) struct Rate {
    /// `None`: as many as they like.
    limit: Option<u32>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When a caller's allowance is full again.
    full: HashMap<String, Instant>,
    others: Option<Instant>,
    swept: Option<Instant>,
}

impl Rate {
    /// So many in a second.
    pub(super) fn new(limit: Option<u32>) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// Takes messages of a caller.
    ///
    /// # Errors
    /// 429: they are too many now.
    pub(super) fn take(&self, request: &Request, messages: u64) -> Result<(), Fault> {
        let Some(limit) = self.limit else { return Ok(()) };
        self.take_at(limit, &request.requester(), messages, Instant::now()).map_err(|wait| {
            let seconds = wait.as_nanos().div_ceil(1_000_000_000).max(1);
            let message = format!(
                "more than {limit} messages of one caller in a second (`restServerConfig.publishPerSecond`); nothing was published, try again in \
                 {seconds} s"
            );
            Fault::new(Kind::TooFast(u64::try_from(seconds).unwrap_or(u64::MAX)), message).with_reason(TOO_FAST)
        })
    }

    /// `Err`: so long until they may be.
    fn take_at(&self, limit: u32, caller: &str, messages: u64, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock();
        state.sweep(now);
        let known = state.full.contains_key(caller) || state.full.len() < KNOWN;
        let full = if known { state.full.get(caller).copied() } else { state.others };
        let owed = full.map_or(Duration::ZERO, |full| full.saturating_duration_since(now));
        let cost = Duration::from_secs_f64(messages.min(MOST) as f64 / f64::from(limit.max(1)));
        // What is larger than the allowance needs all of it.
        let room = BURST.saturating_sub(cost);
        if owed > room {
            return Err(owed - room);
        }
        let full = now + owed + cost;
        if known {
            state.full.insert(caller.to_owned(), full);
        } else {
            state.others = Some(full);
        }
        Ok(())
    }
}

impl State {
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= SWEEP) {
            self.swept = Some(now);
            self.full.retain(|_, full| *full > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_fills_itself_up() {
        let (rate, start) = (Rate::new(Some(10)), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        let take = |caller: &str, messages, ms| rate.take_at(10, caller, messages, after(ms));
        for _ in 0..10 {
            assert_eq!(take("a", 1, 0), Ok(()));
        }
        assert_eq!(take("a", 1, 0), Err(Duration::from_millis(100)));
        assert_eq!(take("b", 1, 0), Ok(()), "everybody has his own");
        assert_eq!(take("a", 1, 100), Ok(()), "what was refused used nothing up");
        assert_eq!(take("a", 5, 500), Err(Duration::from_millis(100)));
        assert_eq!(take("a", 5, 600), Ok(()));
    }

    #[test]
    fn a_large_request_is_taken_and_paid_for() {
        let (rate, start) = (Rate::new(Some(10)), Instant::now());
        let take = |messages, seconds| rate.take_at(10, "a", messages, start + Duration::from_secs(seconds));
        assert_eq!(take(100, 0), Ok(()));
        assert_eq!(take(1, 5), Err(Duration::from_millis(4_100)));
        assert_eq!(take(100, 9), Err(Duration::from_secs(1)));
        assert_eq!(take(100, 10), Ok(()));
    }

    #[test]
    fn many_callers_share_one_and_are_forgotten() {
        let (rate, start) = (Rate::new(Some(1)), Instant::now());
        for number in 0..KNOWN {
            assert_eq!(rate.take_at(1, &number.to_string(), 1, start), Ok(()));
        }
        assert_eq!(rate.take_at(1, "x", 1, start), Ok(()));
        assert_eq!(rate.take_at(1, "y", 1, start), Err(Duration::from_secs(1)));
        assert_eq!(rate.take_at(1, "y", 1, start + Duration::from_secs(2)), Ok(()));
        assert_eq!(rate.state.lock().full.len(), 1);
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let request = Request {
            method: "POST".into(),
            path: "/".into(),
            query: String::new(),
            headers: Vec::new(),
            body: bytes::Bytes::new(),
            peer: ([127, 0, 0, 1], 1).into(),
            token: None,
            visit: None,
            lane: None,
        };
        let rate = Rate::new(None);
        assert!((0..100).all(|_| rate.take(&request, 1_000_000).is_ok()));
        let limited = Rate::new(Some(1));
        assert_eq!(limited.take(&request, 1), Ok(()));
        let fault = limited.take(&request, 1).unwrap_err();
        assert_eq!((fault.kind, fault.reason_code), (Kind::TooFast(1), Some(150)));
    }
}
