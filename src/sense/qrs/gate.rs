//! Keeps calls from waiting for a QRS that is known not to answer: one of them finds out, the others hear at once.
//!
//! While QRS is down, whoever comes first asks it a short question; those who come meanwhile wait for what comes of that, at most
//! [`PATIENCE`]. So recovery is found by the first call after it, and no call waits for the same time-out as the one before it. Invariants: at
//! most one asks at a time; one who goes away while asking leaves room for the next; nobody waits for longer than [`PATIENCE`].

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::error::QrsError;

/// How long a call waits for what another finds out.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of QRS.
#[derive(Debug, Clone, Default)]
enum State {
    /// It answers, as far as anybody knows.
    #[default]
    Open,
    /// It does not; whether somebody is just asking it.
    Shut { error: Arc<QrsError>, asking: bool },
}

/// The gate before all calls.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    /// How many questions were answered, either way.
    answered: watch::Sender<u64>,
}

/// What a call does.
#[derive(Debug)]
pub enum Entry<'a> {
    /// It goes on.
    Open,
    /// It finds out whether QRS answers again, and says so.
    Ask(Asking<'a>),
    /// It ends, not sent.
    Shut(Arc<QrsError>),
}

/// The duty to find out; if it is dropped, the next call has it.
#[derive(Debug)]
pub struct Asking<'a>(&'a Gate);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let State::Shut { asking, .. } = &mut *self.0.state.lock() {
            *asking = false;
        }
        self.0.answered.send_modify(|count| *count += 1);
    }
}

impl Gate {
    pub fn new() -> Self {
        Self { state: Mutex::default(), answered: watch::channel(0).0 }
    }

    /// Whether QRS is known not to answer.
    pub fn is_shut(&self) -> bool {
        matches!(*self.state.lock(), State::Shut { .. })
    }

    /// What a call has to do.
    pub async fn enter(&self) -> Entry<'_> {
        if !self.is_shut() {
            return Entry::Open;
        }
        let mut answered = self.answered.subscribe();
        match self.look() {
            Ok(entry) => entry,
            Err(error) => {
                // Whoever asks says so in any case, also by going away; a failure just found is not asked again by all who waited.
                let _ = tokio::time::timeout(PATIENCE, answered.changed()).await;
                if self.is_shut() { Entry::Shut(error) } else { Entry::Open }
            }
        }
    }

    /// The error, if somebody else is asking.
    fn look(&self) -> Result<Entry<'_>, Arc<QrsError>> {
        match &mut *self.state.lock() {
            State::Open => Ok(Entry::Open),
            State::Shut { error, asking: true } => Err(error.clone()),
            State::Shut { asking, .. } => {
                *asking = true;
                Ok(Entry::Ask(Asking(self)))
            }
        }
    }

    /// QRS answered.
    pub fn open(&self) {
        let mut state = self.state.lock();
        if matches!(*state, State::Shut { .. }) {
            *state = State::Open;
            drop(state);
            self.answered.send_modify(|count| *count += 1);
        }
    }

    /// QRS did not answer.
    pub fn shut(&self, why: &QrsError) {
        let mut state = self.state.lock();
        let asking = matches!(*state, State::Shut { asking: true, .. });
        *state = State::Shut { error: Arc::new(why.clone()), asking };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> QrsError {
        QrsError::NoAnswer { at: "sense:4242".into(), cause: "nothing".into() }
    }

    #[tokio::test]
    async fn one_asks_and_the_others_hear_what_came_of_it() {
        let gate = Arc::new(Gate::new());
        assert!(matches!(gate.enter().await, Entry::Open));
        gate.shut(&silent());
        let Entry::Ask(asking) = gate.enter().await else { panic!("the first asks") };
        let others: Vec<_> = (0..100)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { matches!(gate.enter().await, Entry::Open) })
            })
            .collect();
        tokio::task::yield_now().await;
        gate.open();
        drop(asking);
        for other in others {
            assert!(other.await.unwrap());
        }
        assert!(!gate.is_shut());
    }

    #[tokio::test]
    async fn nobody_waits_long_and_nobody_repeats_a_question_that_just_failed() {
        let gate = Gate::new();
        gate.shut(&silent());
        let Entry::Ask(asking) = gate.enter().await else { panic!() };
        let begun = std::time::Instant::now();
        assert!(matches!(gate.enter().await, Entry::Shut(_)), "still nothing known");
        assert!((PATIENCE..PATIENCE * 3).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        let (waiting, ()) = tokio::join!(gate.enter(), async {
            gate.shut(&silent());
            drop(asking);
        });
        assert!(matches!(waiting, Entry::Shut(_)), "the failure is theirs, too");
        assert!(matches!(gate.enter().await, Entry::Ask(_)), "who comes later asks again");
    }

    #[tokio::test]
    async fn who_goes_away_while_asking_leaves_room() {
        let gate = Gate::new();
        gate.shut(&silent());
        let asking = gate.enter().await;
        drop(asking);
        assert!(matches!(gate.enter().await, Entry::Ask(_)));
    }
}
