//! What is said about a request while it is carried out, and who listens: the asker, and the askers of the same once more.
//!
//! Invariants: words are only added; a listener who comes late hears all of them; a story whose teller is gone without an end (the work
//! panicked) ends with a word that says so; the first asker's ticket tells whether everything was heard, i.e. whether nobody is to be told
//! again after a crash.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{oneshot, watch};

use super::request::{StartOutcome, StartStatus};

/// One thing said about one task of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// Its place among the tasks of the request.
    pub place: usize,
    /// Whether nothing more will be said about that task.
    pub last: bool,
    /// What.
    pub outcome: StartOutcome,
}

/// Everything said so far.
#[derive(Debug, Default)]
pub(super) struct Story {
    words: Vec<Word>,
    done: bool,
}

/// Who tells. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Teller(Arc<watch::Sender<Story>>);

/// Where it can be heard.
pub(super) type Listener = watch::Receiver<Story>;

impl Teller {
    pub(super) fn new() -> (Self, Listener) {
        let (sender, listener) = watch::channel(Story::default());
        (Self(Arc::new(sender)), listener)
    }

    pub(super) fn say(&self, word: Word) {
        self.0.send_modify(|story| story.words.push(word));
    }

    /// The last word on every task was said.
    pub(super) fn done(&self) {
        self.0.send_modify(|story| story.done = true);
    }

    /// The last words, by place.
    pub(super) fn finals(&self) -> Vec<Word> {
        finals(&self.0.borrow().words)
    }
}

fn finals(words: &[Word]) -> Vec<Word> {
    let mut finals: Vec<Word> = words.iter().filter(|word| word.last).cloned().collect();
    finals.sort_by_key(|word| word.place);
    finals
}

/// A story that was told in an earlier life of the program.
pub(super) fn told(words: Vec<Word>) -> Listener {
    watch::channel(Story { words, done: true }).1
}

/// What the asker of a request listens to.
#[derive(Debug)]
pub struct Ticket {
    story: Listener,
    read: usize,
    /// To whom it is told that everything was heard.
    heard: Option<oneshot::Sender<()>>,
    /// The request was one that came before: only its last words are heard.
    pub duplicate: bool,
}

impl Ticket {
    /// Of who asks for what was asked before.
    pub(super) fn again(story: Listener) -> Self {
        Self { story, read: 0, heard: None, duplicate: true }
    }

    /// Of the first asker; with what tells that everything was heard. An error there: it went away before.
    pub(super) fn first(story: Listener) -> (Self, oneshot::Receiver<()>) {
        let (heard, is_heard) = oneshot::channel();
        (Self { story, read: 0, heard: Some(heard), duplicate: false }, is_heard)
    }

    /// The next word; `None` when everything was said. Who asks for the next has passed on the one before.
    pub async fn next(&mut self) -> Option<Word> {
        loop {
            if let Some(word) = self.unread() {
                if word.is_none()
                    && let Some(heard) = self.heard.take()
                {
                    // Where nobody listens for that, nobody needs it.
                    let _ = heard.send(());
                }
                return word;
            }
            if self.story.changed().await.is_err() && self.unread().is_none() {
                self.story = told(Vec::new());
                return Some(Word { place: 0, last: true, outcome: lost() });
            }
        }
    }

    /// Waits until everything was said.
    pub async fn all_said(&mut self) {
        // An error: the teller is gone, and nothing more will come.
        let _ = self.story.wait_for(|story| story.done).await;
    }

    /// What was said last about each task so far, in the order of the request, and whether that is everything. Waits for nothing.
    pub fn latest(&self) -> (Vec<StartOutcome>, bool) {
        let gone = self.story.has_changed().is_err();
        let story = self.story.borrow();
        let mut latest: BTreeMap<usize, &Word> = BTreeMap::new();
        for word in story.words.iter() {
            latest.insert(word.place, word);
        }
        let torn = gone && !story.done;
        let said = |word: &&Word| if torn && !word.last { lost() } else { word.outcome.clone() };
        let mut outcomes: Vec<_> = latest.values().map(said).collect();
        if torn && outcomes.is_empty() {
            outcomes.push(lost());
        }
        (outcomes, story.done || torn)
    }

    /// What can be said without waiting: a word, or that there are none left.
    fn unread(&mut self) -> Option<Option<Word>> {
        let story = self.story.borrow_and_update();
        while let Some(word) = story.words.get(self.read) {
            self.read += 1;
            if word.last || !self.duplicate {
                return Some(Some(word.clone()));
            }
        }
        story.done.then_some(None)
    }

    /// The last word on every task, in the order of the request.
    pub async fn finals(mut self) -> Vec<StartOutcome> {
        let mut words = Vec::new();
        while let Some(word) = self.next().await {
            words.push(word);
        }
        finals(&words).into_iter().map(|word| word.outcome).collect()
    }
}

/// The outcome when the work ended without one.
pub(super) fn lost() -> StartOutcome {
    let why = "the work on this request ended without a result; look in the QMC whether the task runs before starting it again";
    StartOutcome::failed(StartStatus::Unknown, "interrupted", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(place: usize, last: bool, status: StartStatus) -> Word {
        Word { place, last, outcome: StartOutcome::of_status(status) }
    }

    #[tokio::test]
    async fn a_late_listener_hears_everything_and_a_duplicate_the_last_words() {
        let (teller, listener) = Teller::new();
        let ((mut first, mut heard), mut again) = (Ticket::first(listener.clone()), Ticket::again(listener));
        teller.say(word(1, true, StartStatus::Denied));
        teller.say(word(0, false, StartStatus::Accepted));
        assert_eq!(first.next().await.unwrap().outcome.status, StartStatus::Denied);
        teller.say(word(0, true, StartStatus::Started));
        teller.done();
        assert_eq!(first.next().await.unwrap().outcome.status, StartStatus::Accepted);
        assert_eq!(first.next().await.unwrap().outcome.status, StartStatus::Started);
        assert!(heard.try_recv().is_err(), "the last word may still be on its way");
        assert_eq!(first.next().await, None);
        assert_eq!(heard.await, Ok(()));
        assert_eq!(again.next().await.unwrap().outcome.status, StartStatus::Denied);
        let rest = again.finals().await;
        assert_eq!(rest.iter().map(|outcome| outcome.status).collect::<Vec<_>>(), [StartStatus::Started]);
        assert_eq!(teller.finals().iter().map(|word| word.place).collect::<Vec<_>>(), [0, 1]);
    }

    #[tokio::test]
    async fn what_is_known_so_far_is_told_without_waiting() {
        let (teller, listener) = Teller::new();
        let mut ticket = Ticket::again(listener.clone());
        let known = |ticket: &Ticket| {
            let (outcomes, done) = ticket.latest();
            (outcomes.iter().map(|outcome| outcome.status).collect::<Vec<_>>(), done)
        };
        assert_eq!(known(&ticket), (vec![], false));
        teller.say(word(1, false, StartStatus::Accepted));
        teller.say(word(0, true, StartStatus::Denied));
        assert_eq!(known(&ticket), (vec![StartStatus::Denied, StartStatus::Accepted], false));
        let (torn, _) = Ticket::first(listener);
        teller.say(word(1, true, StartStatus::Started));
        teller.done();
        ticket.all_said().await;
        drop(teller);
        assert_eq!(known(&torn), (vec![StartStatus::Denied, StartStatus::Started], true));
        let (teller, listener) = Teller::new();
        teller.say(word(0, false, StartStatus::Accepted));
        drop(teller);
        assert_eq!(known(&Ticket::first(listener).0), (vec![StartStatus::Unknown], true));
    }

    #[tokio::test]
    async fn a_teller_that_is_gone_leaves_a_word_once() {
        let (teller, listener) = Teller::new();
        teller.say(word(0, false, StartStatus::Accepted));
        drop(teller);
        let (mut ticket, _) = Ticket::first(listener);
        assert_eq!(ticket.next().await.unwrap().outcome.status, StartStatus::Accepted);
        assert_eq!(ticket.next().await.unwrap().outcome.error.unwrap().code, "interrupted");
        assert_eq!(ticket.next().await, None);
    }
}
