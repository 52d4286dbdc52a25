//! How much may be asked for: places for requests under way, of which one requester gets a share, and starts per minute.
//!
//! Invariants: what is refused uses nothing up; memory is bounded: a requester is known while something of it is under way, or while its
//! minute is not full again, and of the latter at most [`KNOWN`]; those beyond share one allowance, so nobody gets around it by many names.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    audit::Asker,
    memory::Key,
    request::{StartOutcome, StartRequest, StartStatus},
};
use crate::config::settings::StartLimits;

/// Requests under way at a time, the waiting ones included.
const OPEN: usize = 10_000;
/// Requesters whose starts per minute are counted each on its own.
const KNOWN: usize = 10_000;
/// The pause between two looks at who need not be known any more.
const SWEEP: Duration = Duration::from_secs(1);
/// The time the rates are given for.
const MINUTE: Duration = Duration::from_secs(60);

/// Why a request gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// All places are taken.
    Busy,
    /// This requester has its share of them.
    RequesterBusy { limit: usize },
    /// Too many starts per minute; how long it takes until as many as were asked for may be.
    Rate { limit: u32, wait: Duration },
    /// The same of this requester.
    RequesterRate { limit: u32, wait: Duration },
}

impl Refusal {
    /// The answer to a request that gets no place.
    pub(super) fn outcome(self) -> StartOutcome {
        let (code, why) = match self {
            Self::Busy => {
                ("busy", "too many start requests are waiting already; nothing was started, ask again later".to_owned())
            }
            Self::RequesterBusy { limit } => (
                "requester_busy",
                format!(
                    "{limit} start requests of this requester are under way already (`startTask.limits.atOncePerRequester`); nothing was \
                     started, ask again when one of them has ended"
                ),
            ),
            Self::Rate { limit, wait } => ("rate_limited", too_fast("perMinute", limit, wait)),
            Self::RequesterRate { limit, wait } => ("rate_limited", too_fast("perRequesterPerMinute", limit, wait)),
        };
        StartOutcome::failed(StartStatus::Denied, code, why)
    }

    /// The word in metrics and in the log.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::RequesterBusy { .. } => "requester_busy",
            Self::Rate { .. } => "rate",
            Self::RequesterRate { .. } => "requester_rate",
        }
    }
}

fn too_fast(key: &str, limit: u32, wait: Duration) -> String {
    let seconds = wait.as_nanos().div_ceil(1_000_000_000);
    let whose = if key == "perMinute" { "starts in a minute" } else { "starts of one requester in a minute" };
    let unit = if seconds == 1 { "second" } else { "seconds" };
    format!("more than {limit} {whose} (`startTask.limits.{key}`); nothing was started, ask again in {seconds} {unit}")
}

/// Who asks: the user, where the door knows users, so that one with many connections is still one; else the address, or the client. `None`: a
/// broker elsewhere names nobody, and behind it may be many; they are bounded together with everybody.
fn requester(request: &StartRequest) -> Option<Key> {
    let Asker { user, client, address } = &request.asker;
    let (kind, name) = match (user, address, client) {
        (Some(user), ..) => ("user", user),
        (_, Some(address), _) => ("address", address),
        (.., Some(client)) => ("client", client),
        _ => return None,
    };
    Some(Key::of(&["requester", kind, name]))
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _open: OwnedSemaphorePermit,
    state: Arc<Mutex<State>>,
    who: Option<Key>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(who) = self.who else { return };
        let mut state = self.state.lock();
        if let Some(held) = state.held.get_mut(&who) {
            *held -= 1;
            if *held == 0 {
                state.held.remove(&who);
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Quota {
    limits: Mutex<StartLimits>,
    open: Arc<Semaphore>,
    state: Arc<Mutex<State>>,
}

/// An allowance that fills itself up: the moment at which it is full again. `None`: it is.
type Full = Option<Instant>;

#[derive(Debug, Default)]
struct State {
    /// Requests under way, by requester.
    held: HashMap<Key, usize>,
    everybody: Full,
    each: HashMap<Key, Instant>,
    swept: Option<Instant>,
    /// Of requesters beyond [`KNOWN`].
    others: Full,
}

impl Quota {
    pub(super) fn new(limits: StartLimits) -> Self {
        Self { limits: Mutex::new(limits), open: Arc::new(Semaphore::new(OPEN)), state: Arc::default() }
    }

    /// From now on these limits hold; what was used up stays used up.
    pub(super) fn limit(&self, limits: StartLimits) {
        *self.limits.lock() = limits;
    }

    /// A place for a request; each of its targets counts as a start.
    pub(super) fn take(&self, request: &StartRequest, now: Instant) -> Result<Place, Refusal> {
        let (who, starts, limits) = (requester(request), request.targets.len(), *self.limits.lock());
        let open = Arc::clone(&self.open).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let mut state = self.state.lock();
        let limit = limits.at_once_per_requester;
        if who.and_then(|who| state.held.get(&who)).is_some_and(|held| *held >= limit) {
            return Err(Refusal::RequesterBusy { limit });
        }
        state.spend(who, starts, &limits, now)?;
        if let Some(who) = who {
            *state.held.entry(who).or_default() += 1;
        }
        drop(state);
        Ok(Place { _open: open, state: Arc::clone(&self.state), who })
    }
}

impl State {
    /// Takes starts off the allowances, or off none.
    fn spend(&mut self, who: Option<Key>, starts: usize, limits: &StartLimits, now: Instant) -> Result<(), Refusal> {
        let (all, one) = (limits.per_minute, limits.per_requester_per_minute);
        let everybody = spent(self.everybody, starts, all, now).map_err(|wait| Refusal::Rate { limit: all, wait })?;
        if let Some(who) = who.filter(|_| one > 0) {
            let own = self.has_own(who, now);
            let before = if own { self.each.get(&who).copied() } else { self.others };
            let after = spent(before, starts, one, now).map_err(|wait| Refusal::RequesterRate { limit: one, wait })?;
            match after.filter(|_| own) {
                Some(full) => drop(self.each.insert(who, full)),
                None => self.others = after,
            }
        }
        self.everybody = everybody;
        Ok(())
    }

    /// Whether a requester is counted on its own; forgets those whose allowance is full again when there are too many.
    fn has_own(&mut self, who: Key, now: Instant) -> bool {
        let is_due = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP);
        if self.each.len() >= KNOWN && is_due {
            self.swept = Some(now);
            self.each.retain(|_, full| *full > now);
        }
        self.each.len() < KNOWN || self.each.contains_key(&who)
    }
}

/// When an allowance of so many per minute is full again after these starts; an error: how long until there is enough for them. More starts
/// than a minute allows take the whole of it. A limit of 0 is none.
fn spent(full: Full, starts: usize, per_minute: u32, now: Instant) -> Result<Full, Duration> {
    if per_minute == 0 {
        return Ok(None);
    }
    let starts = u32::try_from(starts).unwrap_or(u32::MAX).clamp(1, per_minute);
    let cost = MINUTE * starts / per_minute;
    let after = full.filter(|full| *full > now).unwrap_or(now) + cost;
    match after.saturating_duration_since(now).checked_sub(MINUTE) {
        Some(wait) if wait > Duration::ZERO => Err(wait),
        _ => Ok(Some(after)),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::request::StartTarget, *};

    fn quota(per_minute: u32, per_requester_per_minute: u32, at_once_per_requester: usize) -> Quota {
        Quota::new(StartLimits { per_minute, per_requester_per_minute, at_once_per_requester })
    }

    fn of(who: &str, starts: usize) -> StartRequest {
        let asker = Asker { client: Some(who.to_owned()), ..Asker::default() };
        StartRequest { asker, ..StartRequest::new(vec![StartTarget::Tag("a".into()); starts], "mqtt", who) }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// How many of so many requests of one start each get through at this moment.
    fn burst(quota: &Quota, who: &str, requests: usize, now: Instant) -> usize {
        (0..requests).filter(|_| quota.take(&of(who, 1), now).is_ok()).count()
    }

    #[test]
    fn a_minute_of_starts_at_once_and_then_one_by_one() {
        let (quota, start) = (quota(0, 60, 100), Instant::now());
        assert_eq!(burst(&quota, "a", 80, start), 60);
        let refused = quota.take(&of("a", 1), start).unwrap_err();
        assert_eq!(refused, Refusal::RequesterRate { limit: 60, wait: seconds(1) });
        assert_eq!(
            quota.take(&of("a", 30), start).unwrap_err(),
            Refusal::RequesterRate { limit: 60, wait: seconds(30) }
        );
        assert_eq!(burst(&quota, "b", 80, start), 60, "another requester is not touched");
        assert_eq!(burst(&quota, "a", 5, start + seconds(3)), 3);
        assert_eq!(burst(&quota, "a", 80, start + seconds(600)), 60, "it never fills up beyond a minute's worth");
        let all = start + seconds(1_200);
        assert!(quota.take(&of("a", 1_000), all).is_ok(), "more than a minute allows takes the whole of it");
        assert_eq!(
            quota.take(&of("a", 1_000), all).unwrap_err(),
            Refusal::RequesterRate { limit: 60, wait: seconds(60) }
        );
    }

    #[test]
    fn limits_change_and_what_was_used_up_stays_so() {
        let (quota, now) = (quota(0, 60, 2), Instant::now());
        assert_eq!(burst(&quota, "a", 80, now), 60);
        quota.limit(StartLimits { per_minute: 0, per_requester_per_minute: 6, at_once_per_requester: 1 });
        assert!(matches!(quota.take(&of("a", 1), now), Err(Refusal::RequesterRate { limit: 6, .. })));
        assert_eq!(burst(&quota, "b", 80, now), 6);
        let _place = quota.take(&of("c", 1), now).unwrap();
        assert_eq!(quota.take(&of("c", 1), now).unwrap_err(), Refusal::RequesterBusy { limit: 1 });
        quota.limit(StartLimits { per_minute: 0, per_requester_per_minute: 0, at_once_per_requester: 5 });
        assert!(quota.take(&of("a", 1), now).is_ok());
    }

    #[test]
    fn what_is_refused_uses_nothing_up() {
        let (quota, now) = (quota(100, 60, 2), Instant::now());
        assert_eq!(burst(&quota, "a", 80, now), 60);
        assert_eq!(burst(&quota, "b", 80, now), 40);
        assert!(matches!(quota.take(&of("b", 1), now), Err(Refusal::Rate { limit: 100, .. })));
        assert!(quota.take(&of("a", 1), now + seconds(6)).is_ok(), "ten of all, six of its own are back");
        let (one, two) =
            (quota.take(&of("b", 1), now + seconds(6)).unwrap(), quota.take(&of("b", 1), now + seconds(6)).unwrap());
        for _ in 0..50 {
            assert_eq!(quota.take(&of("b", 1), now + seconds(6)).unwrap_err(), Refusal::RequesterBusy { limit: 2 });
        }
        assert_eq!(burst(&quota, "c", 80, now + seconds(6)), 7);
        drop((one, two));
        assert!(quota.state.lock().held.is_empty());
        assert_eq!(quota.open.available_permits(), OPEN);
    }

    #[test]
    fn one_requester_has_its_share_and_all_together_the_places_there_are() {
        let (quota, now) = (quota(0, 0, 2_500), Instant::now());
        let mut places = Vec::new();
        for who in 0..4 {
            let taken = std::iter::from_fn(|| quota.take(&of(&who.to_string(), 1), now).ok());
            let before = places.len();
            places.extend(taken.take(3_000));
            assert_eq!(places.len() - before, 2_500, "{who}");
        }
        assert_eq!(quota.take(&of("4", 1), now).unwrap_err(), Refusal::Busy);
        assert!(quota.state.lock().each.is_empty(), "without a rate nobody is remembered for one");
        places.truncate(5_000);
        let nobody = StartRequest::new(Vec::new(), "external", "unknown");
        let unnamed: Vec<_> = std::iter::from_fn(|| quota.take(&nobody, now).ok()).collect();
        assert_eq!(unnamed.len(), 5_000, "behind a broker elsewhere may be many");
        places.clear();
        assert!(quota.take(&of("4", 1), now).is_ok());
    }

    #[test]
    fn many_names_are_no_way_around_and_take_no_memory() {
        let (quota, now) = (quota(0, 1, 10), Instant::now());
        let passed = (0..2 * KNOWN).filter(|name| quota.take(&of(&name.to_string(), 1), now).is_ok()).count();
        assert_eq!(passed, KNOWN + 1, "those beyond share one allowance");
        assert_eq!(quota.state.lock().each.len(), KNOWN);
        assert!(quota.take(&of("new", 1), now + seconds(61)).is_ok());
        assert!(quota.state.lock().each.len() <= 2, "whose minute is full again is forgotten");
    }

    #[test]
    fn a_requester_is_its_user_or_else_its_address_or_its_client() {
        let asked = |user: Option<&str>, client: Option<&str>, address: Option<&str>| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let asker = Asker { user: owned(user), client: owned(client), address: owned(address) };
            requester(&StartRequest { asker, ..StartRequest::new(Vec::new(), "mqtt", client.unwrap_or("x")) })
        };
        assert_eq!(asked(Some("u"), Some("one"), None), asked(Some("u"), Some("two"), None));
        assert_eq!(asked(None, None, Some("10.0.0.1")), asked(None, Some("c"), Some("10.0.0.1")));
        let different = [asked(Some("a"), None, None), asked(None, Some("a"), None), asked(None, None, Some("a"))];
        assert_eq!(different.iter().flatten().collect::<std::collections::HashSet<_>>().len(), 3);
        assert_eq!(asked(None, None, None), None);
    }

    #[test]
    fn refusals_say_when_to_ask_again() {
        let wait = Duration::from_millis(2_001);
        let cases = [
            (Refusal::Busy, "busy", "ask again later"),
            (Refusal::RequesterBusy { limit: 7 }, "requester_busy", "7 start requests of this requester"),
            (
                Refusal::Rate { limit: 600, wait },
                "rate_limited",
                "600 starts in a minute (`startTask.limits.perMinute`)",
            ),
            (Refusal::RequesterRate { limit: 60, wait }, "rate_limited", "ask again in 3 seconds"),
            (Refusal::Rate { limit: 60, wait: Duration::from_nanos(1) }, "rate_limited", "ask again in 1 second"),
        ];
        let mut ran = 0;
        for (refusal, code, part) in cases {
            let outcome = refusal.outcome();
            let error = outcome.error.unwrap();
            assert_eq!((outcome.status, &*error.code), (StartStatus::Denied, code));
            assert!(error.message.contains(part) && error.message.contains("nothing was started"), "{}", error.message);
            ran += 1;
        }
        assert_eq!(ran, 5);
    }
}
