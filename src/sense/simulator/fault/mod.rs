//! Faults on demand: requests to some paths go wrong in the way asked for, by number, by chance, or for a while.
//!
//! Invariants: a fault is spent at most as often as it says; of those that fit, the first whose chance falls is taken, and only that.

mod pattern;

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use self::pattern::Pattern;
use super::rng::Rng;

/// Faults waiting at once.
const MOST_FAULTS: usize = 1_000;
/// Longest pause, milliseconds.
const LONGEST_MILLIS: u64 = 3_600_000;
/// Longest padded answer, bytes.
const MOST_BYTES: usize = 200_000_000;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum FaultKind {
    /// This status, text and content type instead of the answer; nothing is done.
    Status(u16, String, Option<String>),
    /// What was asked for is done, and answered with this status and text.
    StatusAfter(u16, String),
    /// The answer comes late.
    Delay(Duration),
    /// What was asked for is done, and the answer comes late.
    DelayAfter(Duration),
    /// The body comes in pieces of so many bytes with pauses between them.
    Drip(Duration, usize),
    /// No answer ever; nothing is done.
    Never,
    /// What was asked for is done, and there is no answer ever.
    NeverAfter,
    /// The connection is reset; nothing is done.
    CutBefore,
    /// What was asked for is done, and the connection is reset instead of answering.
    CutAfter,
    /// The connection is reset in the middle of the body.
    CutBody,
    /// The body ends in the middle as if that were all: broken JSON.
    Truncate,
    /// The answer has this content type.
    ContentType(String),
    /// 200 with the login page of a proxy instead of the answer; nothing is done.
    LoginPage,
    /// The answer is made so many bytes long: lists by repeating their rows.
    Huge(usize),
    /// Objects of the answer have other values, lack fields, or stand twice.
    Edit {
        /// Fields with their new values.
        set: Map<String, Value>,
        /// Fields that are left out.
        remove: Vec<String>,
        /// Every row of a list stands twice.
        twice: bool,
    },
    /// Rows that changed within the last so many milliseconds are not there yet.
    Late(u64),
}

impl FaultKind {
    /// The action as it is written.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Status(..) => "status",
            Self::StatusAfter(..) => "statusAfter",
            Self::Delay(_) => "delay",
            Self::DelayAfter(_) => "delayAfter",
            Self::Drip(..) => "drip",
            Self::Never => "never",
            Self::NeverAfter => "neverAfter",
            Self::CutBefore => "cutBefore",
            Self::CutAfter => "cutAfter",
            Self::CutBody => "cutBody",
            Self::Truncate => "truncate",
            Self::ContentType(_) => "contentType",
            Self::LoginPage => "loginPage",
            Self::Huge(_) => "huge",
            Self::Edit { .. } => "edit",
            Self::Late(_) => "late",
        }
    }
}

/// A fault as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    path: String,
    method: Option<String>,
    times: Option<u64>,
    probability: Option<f64>,
    after_seconds: Option<f64>,
    for_seconds: Option<f64>,
    action: String,
    status: Option<u16>,
    text: Option<String>,
    content_type: Option<String>,
    millis: Option<u64>,
    bytes: Option<usize>,
    #[serde(default)]
    set: Map<String, Value>,
    #[serde(default)]
    remove: Vec<String>,
    #[serde(default)]
    twice: bool,
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Fault {
    path: Pattern,
    method: Option<String>,
    /// How often it can still happen; `None`: without end.
    times: Option<u64>,
    probability: f64,
    after: Duration,
    lasts: Option<Duration>,
    kind: FaultKind,
}

/// Why a fault is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// It is not what is expected.
    #[error(
        "expected {{\"path\":\"/qrs/task/*/start\",\"action\":\"...\"}} with one of the actions status and statusAfter (\"status\":503,\
         \"text\":\"...\"), delay and delayAfter (\"millis\":1000), drip (\"millis\", \"bytes\"), never, neverAfter, cutBefore, cutAfter, \
         cutBody, truncate, contentType (\"contentType\"), loginPage, huge (\"bytes\"), edit (\"set\":{{}}, \"remove\":[], \"twice\"), late \
         (\"millis\"); optional: \"method\":\"POST\", \"times\":1, \"probability\":0.5, \"afterSeconds\":10, \"forSeconds\":60"
    )]
    Malformed,
    /// There are enough.
    #[error("{MOST_FAULTS} faults are waiting; DELETE /control/fault removes them")]
    TooMany,
}

impl TryFrom<Written> for Fault {
    type Error = FaultError;

    fn try_from(written: Written) -> Result<Self, FaultError> {
        let kind = written.kind().ok_or(FaultError::Malformed)?;
        let seconds = |given: Option<f64>| match given {
            Some(seconds) if (0.0..=1e7).contains(&seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
            Some(_) => Err(FaultError::Malformed),
            None => Ok(None),
        };
        let probability = written.probability.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&probability) {
            return Err(FaultError::Malformed);
        }
        // Who gives a chance or a time means all that falls into it; otherwise once.
        let bounded = written.probability.is_some() || written.for_seconds.is_some();
        Ok(Self {
            path: Pattern::new(&written.path),
            method: written.method.map(|method| method.to_uppercase()),
            times: written.times.or((!bounded).then_some(1)),
            probability,
            after: seconds(written.after_seconds)?.unwrap_or_default(),
            lasts: seconds(written.for_seconds)?,
            kind,
        })
    }
}

impl Written {
    fn kind(&self) -> Option<FaultKind> {
        let text = || self.text.clone().unwrap_or_default();
        let status = || self.status.filter(|status| (200..=599).contains(status));
        let millis = || self.millis.map(|millis| Duration::from_millis(millis.min(LONGEST_MILLIS)));
        let bytes = || self.bytes.filter(|bytes| (1..=MOST_BYTES).contains(bytes));
        Some(match self.action.as_str() {
            "status" => FaultKind::Status(status()?, text(), self.content_type.clone()),
            "statusAfter" => FaultKind::StatusAfter(status()?, text()),
            "delay" => FaultKind::Delay(millis()?),
            "delayAfter" => FaultKind::DelayAfter(millis()?),
            "drip" => FaultKind::Drip(millis()?, bytes()?),
            "never" => FaultKind::Never,
            "neverAfter" => FaultKind::NeverAfter,
            "cutBefore" => FaultKind::CutBefore,
            "cutAfter" => FaultKind::CutAfter,
            "cutBody" => FaultKind::CutBody,
            "truncate" => FaultKind::Truncate,
            "contentType" => FaultKind::ContentType(self.content_type.clone()?),
            "loginPage" => FaultKind::LoginPage,
            "huge" => FaultKind::Huge(bytes()?),
            "edit" => FaultKind::Edit { set: self.set.clone(), remove: self.remove.clone(), twice: self.twice },
            "late" => FaultKind::Late(self.millis?.min(LONGEST_MILLIS)),
            _ => return None,
        })
    }
}

impl Fault {
    /// Reads a fault as the control door takes it.
    pub fn read(body: &[u8]) -> Result<Self, FaultError> {
        serde_json::from_slice(body).map_err(|_| FaultError::Malformed)
    }
}

/// A fault that waits.
#[derive(Debug)]
struct Waiting {
    fault: Fault,
    since: Instant,
    happened: u64,
}

impl Waiting {
    fn fits(&self, method: &str, path: &str, now: Instant) -> bool {
        let fault = &self.fault;
        let age = now.saturating_duration_since(self.since);
        let window = age >= fault.after && fault.lasts.is_none_or(|lasts| age < fault.after + lasts);
        window && fault.path.fits(path) && fault.method.as_deref().is_none_or(|this| this == method)
    }

    fn is_over(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.since);
        self.fault.times == Some(0) || self.fault.lasts.is_some_and(|lasts| age >= self.fault.after + lasts)
    }

    fn json(&self) -> Value {
        let fault = &self.fault;
        json!({ "path": fault.path.text(), "method": fault.method, "times": fault.times,
            "probability": fault.probability, "happened": self.happened, "action": fault.kind.word() })
    }
}

#[derive(Debug)]
struct Inner {
    waiting: Vec<Waiting>,
    rng: Rng,
}

/// The faults that wait.
#[derive(Debug)]
pub struct Faults(Mutex<Inner>);

impl Faults {
    /// With some from the start.
    pub fn new(seed: u64, faults: &[Fault]) -> Self {
        let since = Instant::now();
        let waiting = faults.iter().take(MOST_FAULTS).map(|fault| Waiting { fault: fault.clone(), since, happened: 0 });
        Self(Mutex::new(Inner { waiting: waiting.collect(), rng: Rng::new(seed) }))
    }

    /// Adds one.
    pub fn add(&self, fault: Fault) -> Result<(), FaultError> {
        let mut inner = self.0.lock();
        let now = Instant::now();
        inner.waiting.retain(|waiting| !waiting.is_over(now));
        if inner.waiting.len() >= MOST_FAULTS {
            return Err(FaultError::TooMany);
        }
        if fault.times != Some(0) {
            inner.waiting.push(Waiting { fault, since: now, happened: 0 });
        }
        Ok(())
    }

    /// Removes all.
    pub fn clear(&self) {
        self.0.lock().waiting.clear();
    }

    /// What is wrong with this request, if anything; spends it once.
    pub fn take(&self, method: &str, path: &str) -> Option<FaultKind> {
        let mut guard = self.0.lock();
        let Inner { waiting, rng } = &mut *guard;
        if waiting.is_empty() {
            return None;
        }
        let (path, now) = (path.to_lowercase(), Instant::now());
        let falls = |rng: &mut Rng, fault: &Fault| fault.probability >= 1.0 || rng.unit() < fault.probability;
        let found = waiting.iter_mut().find(|each| each.fits(method, &path, now) && falls(rng, &each.fault))?;
        found.happened += 1;
        found.fault.times = found.fault.times.map(|times| times.saturating_sub(1));
        let kind = found.fault.kind.clone();
        waiting.retain(|waiting| !waiting.is_over(now));
        Some(kind)
    }

    /// What waits.
    pub fn json(&self) -> Value {
        self.0.lock().waiting.iter().map(Waiting::json).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(texts: &[&str]) -> Faults {
        let faults = Faults::new(1, &[]);
        for text in texts {
            faults.add(Fault::read(text.as_bytes()).unwrap()).unwrap();
        }
        faults
    }

    #[test]
    fn a_fault_is_spent_as_often_as_it_says_and_only_where_it_fits() {
        let faults =
            faults(&[r#"{"path":"/qrs/Task","method":"post","times":2,"action":"status","status":503,"text":"busy"}"#]);
        assert_eq!(faults.take("GET", "/qrs/task"), None);
        assert_eq!(faults.take("POST", "/qrs/about"), None);
        let expected = Some(FaultKind::Status(503, "busy".to_owned(), None));
        assert_eq!(faults.take("POST", "/QRS/task/x/start"), expected);
        assert_eq!(faults.take("POST", "/qrs/task"), expected);
        assert_eq!(faults.take("POST", "/qrs/task"), None);
    }

    #[test]
    fn a_chance_falls_as_often_as_it_says_and_the_same_for_the_same_seed() {
        let draw = || {
            let faults = faults(&[r#"{"path":"*","action":"never","probability":0.3}"#]);
            (0..1_000).map(|_| faults.take("GET", "/qrs/about").is_some()).collect::<Vec<_>>()
        };
        let first = draw();
        let fell = first.iter().filter(|fell| **fell).count();
        assert!((250..350).contains(&fell), "{fell}");
        assert_eq!(first, draw());
    }

    #[test]
    fn a_window_opens_and_closes() {
        let faults = faults(&[
            r#"{"path":"*","action":"never","afterSeconds":1000,"forSeconds":1}"#,
            r#"{"path":"*","action":"never","forSeconds":0}"#,
            r#"{"path":"*","action":"cutBody","forSeconds":1000}"#,
        ]);
        for _ in 0..3 {
            assert_eq!(faults.take("GET", "/"), Some(FaultKind::CutBody));
        }
        assert_eq!(faults.json().as_array().unwrap().len(), 2, "what is over is forgotten");
    }

    #[test]
    fn malformed_faults_are_refused() {
        let cases: [&[u8]; 10] = [
            b"",
            b"[]",
            br#"{"path":"/","action":"explode"}"#,
            br#"{"path":"/","action":"status","status":99}"#,
            br#"{"path":"/","action":"status"}"#,
            br#"{"path":"/","action":"drip","millis":1}"#,
            br#"{"path":"/","action":"huge","bytes":900000000}"#,
            br#"{"path":"/","action":"never","probability":2}"#,
            br#"{"path":"/","action":"never","typo":1}"#,
            br#"{"action":"never"}"#,
        ];
        for case in cases {
            assert_eq!(Fault::read(case), Err(FaultError::Malformed), "{}", String::from_utf8_lossy(case));
        }
    }
}
