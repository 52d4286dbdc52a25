//! A request with an idempotency key is carried out once; who sends it again gets the first answer again.
//!
//! The key is the caller's own: another caller's key of the same name is another key. It is taken before anything is published and settled
//! before the answer leaves; what certainly published nothing lets go of it. Invariant: a caller who hangs up leaves no key behind that is
//! neither settled nor let go: the work goes on in a task of its own.

use std::time::Duration;

use super::told::{self, Told};
use crate::{
    api::{
        answer::Request,
        fault::{Fault, Kind},
        state::State,
    },
    bus::{PublishError, Routed},
    keep::keys::{Claim, Digest},
};

/// How long a request waits for another one with its key.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of all messages of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Something was published.
    Done,
    /// Certainly nothing was.
    Undone,
    /// That the broker did not say of one.
    Unknown,
}

impl Fate {
    pub(super) fn of(words: &[Result<Routed, PublishError>]) -> Self {
        if words.iter().any(|word| matches!(word, Err(PublishError::Timeout(_)))) {
            Self::Unknown
        } else if words.iter().any(Result::is_ok) {
            Self::Done
        } else {
            Self::Undone
        }
    }
}

/// Does `work` under a key, or says what was said of it; whether it was said before.
///
/// # Errors
/// 409, 422, and 503 where the key cannot be kept: nothing was published then.
pub(super) async fn carry_out(
    state: &State,
    request: &Request,
    key: &str,
    print: Digest,
    work: impl Future<Output = (Vec<Told>, Fate)> + Send + 'static,
) -> Result<(Vec<Told>, bool), Fault> {
    let caller = request.requester();
    let key = Digest::of([b"publish".as_slice(), caller.as_bytes(), key.as_bytes()]);
    // A bulk and a single publish never look alike.
    let print = Digest::of([request.path.as_bytes(), print.bytes()]);
    let keys = state.setup.keys.clone();
    let task = async move {
        let claim = keys.claim(key, print, PATIENCE).await;
        match claim.map_err(|error| Fault::new(Kind::NotStored, error.to_string()))? {
            Claim::Fresh(ticket) => {
                let (told, fate) = work.await;
                match fate {
                    Fate::Done => ticket.settle(told::kept(&told)).await,
                    Fate::Undone => ticket.release(),
                    // Dropped as it is, it stands for just that.
                    Fate::Unknown => drop(ticket),
                }
                Ok((told, false))
            }
            Claim::Known(kept) => told::remembered(&kept).map(|told| (told, true)).ok_or_else(unknown),
            Claim::Differs => Err(Fault::new(
                Kind::KeyReused,
                "this idempotency key was used for another message within the last 24 hours; nothing was published, another message needs \
                 another key",
            )),
            Claim::Unknown => Err(unknown()),
            Claim::Busy => Err(Fault::new(
                Kind::KeyInUse,
                "a request with this idempotency key is still being carried out; ask again to hear what became of it",
            )),
        }
    };
    state.background.spawn(task).await.unwrap_or_else(|_| {
        state.setup.counters.panics.inc();
        Err(Fault::new(Kind::Internal, "the request met a defect of sense-butler; its log says more"))
    })
}

fn unknown() -> Fault {
    Fault::new(
        Kind::OutcomeUnknown,
        "the first request with this idempotency key may have been carried out or not: the program ended meanwhile, or the broker did not say; \
         nothing was published now. To publish it, perhaps a second time, use another key",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_all() {
        let (taken, full) = (Ok(Routed::passing(true)), Err(PublishError::Full(String::new())));
        let late = Err(PublishError::Timeout(PATIENCE));
        for (words, fate) in [
            (vec![taken.clone()], Fate::Done),
            (vec![taken.clone(), full.clone()], Fate::Done),
            (vec![full.clone(), full.clone()], Fate::Undone),
            (vec![late.clone()], Fate::Unknown),
            (vec![taken, late], Fate::Unknown),
        ] {
            assert_eq!(Fate::of(&words), fate, "{words:?}");
        }
    }
}
