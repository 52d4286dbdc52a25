//! Faults on demand: the next so many requests to a path go wrong in the way asked for.
//!
//! Invariant: a fault is spent at most as often as it says; the first that fits is taken.

use std::{collections::VecDeque, time::Duration};

use parking_lot::Mutex;
use serde_json::{Value, json};

/// Faults waiting at once.
const MOST_FAULTS: usize = 1_000;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// This status and text instead of the answer; nothing is done.
    Status(u16, String),
    /// The answer comes late.
    Delay(Duration),
    /// No answer ever; nothing is done.
    Never,
    /// The connection is cut; nothing is done.
    CutBefore,
    /// What was asked for is done, and the connection is cut instead of answering.
    CutAfter,
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    path: String,
    method: Option<String>,
    times: u64,
    kind: FaultKind,
}

/// Why a fault is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// It is not what is expected.
    #[error(
        "expected {{\"path\":\"/qrs/task\",\"times\":1,\"action\":\"status\"|\"delay\"|\"never\"|\"cutBefore\"|\"cutAfter\", \
         with status: \"status\":503,\"text\":\"...\", with delay: \"millis\":1000, optional: \"method\":\"POST\"}}"
    )]
    Malformed,
    /// There are enough.
    #[error("{MOST_FAULTS} faults are waiting; DELETE /control/fault removes them")]
    TooMany,
}

impl Fault {
    /// Reads a fault as the control door takes it.
    pub fn read(body: &[u8]) -> Result<Self, FaultError> {
        let value: Value = serde_json::from_slice(body).map_err(|_| FaultError::Malformed)?;
        Self::from_json(&value).ok_or(FaultError::Malformed)
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let number = |key: &str| value.get(key).and_then(Value::as_u64);
        let kind = match text("action")? {
            "status" => {
                let status = u16::try_from(number("status")?).ok().filter(|status| (200..=599).contains(status))?;
                FaultKind::Status(status, text("text").unwrap_or_default().to_owned())
            }
            "delay" => FaultKind::Delay(Duration::from_millis(number("millis")?.min(3_600_000))),
            "never" => FaultKind::Never,
            "cutBefore" => FaultKind::CutBefore,
            "cutAfter" => FaultKind::CutAfter,
            _ => return None,
        };
        Some(Self {
            path: text("path")?.to_lowercase(),
            method: text("method").map(str::to_uppercase),
            times: number("times").unwrap_or(1),
            kind,
        })
    }

    fn fits(&self, method: &str, path: &str) -> bool {
        path.starts_with(&self.path) && self.method.as_deref().is_none_or(|this| this == method)
    }

    fn json(&self) -> Value {
        let kind = format!("{:?}", self.kind);
        json!({ "path": self.path, "method": self.method, "times": self.times, "kind": kind })
    }
}

/// The faults that wait.
#[derive(Debug, Default)]
pub struct Faults(Mutex<VecDeque<Fault>>);

impl Faults {
    /// Adds one.
    pub fn add(&self, fault: Fault) -> Result<(), FaultError> {
        let mut waiting = self.0.lock();
        if waiting.len() >= MOST_FAULTS {
            return Err(FaultError::TooMany);
        }
        if fault.times > 0 {
            waiting.push_back(fault);
        }
        Ok(())
    }

    /// Removes all.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// What is wrong with this request, if anything; spends it once.
    pub fn take(&self, method: &str, path: &str) -> Option<FaultKind> {
        let path = path.to_lowercase();
        let mut waiting = self.0.lock();
        let place = waiting.iter().position(|fault| fault.fits(method, &path))?;
        let fault = waiting.get_mut(place)?;
        fault.times -= 1;
        let kind = fault.kind.clone();
        if fault.times == 0 {
            waiting.remove(place);
        }
        Some(kind)
    }

    /// What waits.
    pub fn json(&self) -> Value {
        self.0.lock().iter().map(Fault::json).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_spent_as_often_as_it_says_and_only_where_it_fits() {
        let faults = Faults::default();
        let text = br#"{"path":"/qrs/Task","method":"post","times":2,"action":"status","status":503,"text":"busy"}"#;
        faults.add(Fault::read(text).unwrap()).unwrap();
        assert_eq!(faults.take("GET", "/qrs/task"), None);
        assert_eq!(faults.take("POST", "/qrs/about"), None);
        let expected = Some(FaultKind::Status(503, "busy".to_owned()));
        assert_eq!(faults.take("POST", "/QRS/task/x/start"), expected);
        assert_eq!(faults.take("POST", "/qrs/task"), expected);
        assert_eq!(faults.take("POST", "/qrs/task"), None);
    }

    #[test]
    fn malformed_faults_are_refused() {
        let cases: [&[u8]; 5] = [
            b"",
            b"[]",
            br#"{"path":"/","action":"explode"}"#,
            br#"{"path":"/","action":"status","status":99}"#,
            br#"{"action":"never"}"#,
        ];
        for case in cases {
            assert_eq!(Fault::read(case), Err(FaultError::Malformed), "{}", String::from_utf8_lossy(case));
        }
    }
}
