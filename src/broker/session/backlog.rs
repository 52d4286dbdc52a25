//! What of a stored session's queue memory does not hold: the older part, which is read back from the store page by page.
//!
//! Memory holds the newest part without gaps; positions from `behind` to `skipped` are only in the store, or on a page that was read back and is
//! older than everything in memory. Nothing is both in a page and in memory. A page that was meant for an earlier connection is not taken.

use std::collections::VecDeque;

use super::{
    handshakes::{Handshakes, Standing, packet_id},
    outbox::{Entry, Owed, Parcel},
};
use crate::broker::store::{Page, Wanted};

/// What became of what a queue without a client handed over last.
#[derive(Debug, Default, PartialEq, Eq)]
enum Handing {
    /// It is committed, or there was nothing.
    #[default]
    Decided,
    /// Its commit is awaited.
    Undecided,
    /// It could not be committed: it is tried again after a while.
    Refused,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Read back.
    loaded: VecDeque<Entry>,
    /// The next position to be read back; `None`: everything unsent is in memory.
    behind: Option<u64>,
    /// The highest position that memory does not hold.
    skipped: u64,
    /// The highest position ever given to the session.
    last: u64,
    /// A page is on its way.
    loading: bool,
    /// Counts connections.
    turn: u64,
    handing: Handing,
}

impl Backlog {
    /// An earlier process gave positions below this one.
    pub(super) fn recover(&mut self, next: u64) {
        self.last = next.saturating_sub(1);
    }

    /// A position is given to the session.
    pub(super) fn given(&mut self, qseq: u64) {
        self.last = qseq;
    }

    /// Everything from `floor` on is to be read back.
    pub(super) fn begin(&mut self, floor: u64) {
        self.skipped = self.last;
        self.behind = Some(floor).filter(|floor| *floor <= self.last);
    }

    /// The connection is gone: what was read back for it is read again for the next.
    pub(super) fn forget(&mut self) {
        self.loaded = VecDeque::new();
        self.loading = false;
        self.turn += 1;
    }

    /// Memory let go of the positions from `oldest` to `newest`.
    pub(super) fn skip(&mut self, oldest: u64, newest: u64) {
        self.behind.get_or_insert(oldest);
        self.skipped = newest;
    }

    /// Whether memory does not hold everything that waits, pages included.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// Whether nothing waits here.
    pub(super) fn is_done(&self) -> bool {
        self.loaded.is_empty() && self.behind.is_none()
    }

    /// Positions from one on.
    pub(super) fn since(&self, floor: u64) -> usize {
        usize::try_from((self.last + 1).saturating_sub(floor)).unwrap_or(usize::MAX)
    }

    /// Messages that wait here (positions have gaps: at most so many), and bytes of those that were read back.
    pub(super) fn depth(&self) -> (usize, usize) {
        let behind = self.behind.map_or(0, |from| (self.skipped + 1).saturating_sub(from));
        let loaded = self.loaded.iter().map(|entry| entry.message.size()).sum();
        (self.loaded.len() + usize::try_from(behind).unwrap_or(usize::MAX), loaded)
    }

    /// The part of the queue that is to be read back; `committed`: no further than that.
    pub(super) fn wanted(&self, committed: u64) -> Option<Wanted> {
        let (from, to) = (self.behind?, self.skipped.min(committed));
        (from <= to).then_some(Wanted { from, to, turn: self.turn })
    }

    /// A page arrived (`None`: it could not be read and is asked for again); whether it was waited for.
    pub(super) fn page(&mut self, wanted: Wanted, page: Option<Page>) -> bool {
        if wanted.turn != self.turn {
            return false;
        }
        self.loading = false;
        if let Some(page) = page {
            self.loaded.extend(page.rows.into_iter().map(|(row, message)| Entry::read_back(row, message)));
            self.behind = Some(page.next).filter(|next| *next <= self.skipped);
        }
        true
    }

    /// Whether a page is to be read now; from here on it is on its way.
    pub(super) fn asks(&mut self, decided: u64) -> bool {
        let asks = self.loaded.is_empty() && !self.loading && self.wanted(decided).is_some();
        self.loading |= asks;
        asks
    }

    /// Takes what was read back and may be sent; returns its bytes, and whether something turned out to be settled already.
    pub(super) fn take(
        &mut self,
        budget: usize,
        handshakes: &mut Handshakes,
        receive_maximum: u16,
        out: &mut Vec<Parcel>,
    ) -> (usize, bool) {
        let (mut spent, mut settled) = (0, false);
        while let Some(front) = self.loaded.front() {
            let standing = handshakes.standing(front.qseq);
            let opens = matches!(standing, Standing::Fresh | Standing::Again);
            let waits = opens && (handshakes.window(receive_maximum) == 0 || front.qseq > handshakes.horizon());
            if spent >= budget || waits {
                break;
            }
            let Some(entry) = self.loaded.pop_front() else { break };
            match standing {
                Standing::Fresh | Standing::Again => {
                    handshakes.open(&entry);
                    spent += entry.message.size();
                    out.push(Parcel::Publish { entry, again: standing == Standing::Again });
                }
                Standing::Release => {
                    handshakes.release_again(entry.qseq);
                    out.push(Parcel::PubRel(packet_id(entry.qseq)));
                }
                Standing::Settled => {
                    handshakes.pass(entry.qseq);
                    settled = true;
                }
            }
        }
        (spent, settled)
    }

    /// Nobody can take what was next: it stays that.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.loaded.push_front(entry);
    }

    /// What was taken is on its way to others: nothing more is until that is decided. Who is second could else be kept where the first is not.
    pub(super) fn hands_over(&mut self) {
        self.handing = Handing::Undecided;
    }

    pub(super) fn handed_over(&mut self) {
        self.handing = Handing::Decided;
    }

    /// It was refused, and waits for [`Self::retry`].
    pub(super) fn take_back(&mut self) {
        self.handing = Handing::Refused;
    }

    /// What was refused is tried again; whether there is anything.
    pub(super) fn retry(&mut self) -> bool {
        let refused = self.handing == Handing::Refused;
        if refused {
            self.handing = Handing::Decided;
        }
        refused
    }

    /// The highest position ever given.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// What a queue without a client has next here; `None`: look in memory.
    pub(super) fn next_owed(&mut self, handshakes: &Handshakes, decided: u64) -> Option<Owed> {
        if self.handing != Handing::Decided {
            return Some(Owed::Later);
        }
        while let Some(entry) = self.loaded.pop_front() {
            match handshakes.standing(entry.qseq) {
                Standing::Fresh => return Some(Owed::Entry { entry, sent: false }),
                Standing::Again => return Some(Owed::Entry { entry, sent: true }),
                Standing::Release | Standing::Settled => {}
            }
        }
        self.behind?;
        Some(if self.asks(decided) { Owed::Page } else { Owed::Later })
    }
}
