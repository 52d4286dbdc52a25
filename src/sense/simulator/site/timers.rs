//! What will happen when: a heap of moments, in order of moment and then of arrival.

use std::{cmp::Ordering, collections::BinaryHeap};

use super::visitors::Visit;
use crate::{
    names::ExecutionId,
    sense::simulator::{clock::Moment, datagram::DatagramKind},
};

/// Something that will happen. The epochs tell whether it still should: each is compared with its owner's when the moment comes.
#[derive(Debug)]
pub enum Timer {
    /// An execution takes its next step.
    Step {
        /// Which execution.
        execution: ExecutionId,
        /// Its epoch when the step was planned.
        epoch: u32,
    },
    /// A task starts by itself.
    Schedule {
        /// Place of the task in the list.
        task: usize,
        /// The epoch of the rate.
        epoch: u32,
    },
    /// A visitor comes.
    Arrival {
        /// The epoch of the rate.
        epoch: u32,
    },
    /// A visitor does the next thing.
    Visit(Box<Visit>),
    /// A datagram that the scheduler sends late.
    Report(Box<Report>),
}

/// What a task datagram will say.
#[derive(Debug, Clone)]
pub struct Report {
    /// What.
    pub kind: DatagramKind,
    /// Place of the node in the list.
    pub node: usize,
    /// Place of the task in the list.
    pub task: usize,
    /// `DIR\user`
    pub user: String,
    /// The execution.
    pub execution: ExecutionId,
}

#[derive(Debug)]
struct Due {
    at: Moment,
    order: u64,
    timer: Timer,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    /// The earliest is the greatest: the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// All that is planned.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Due>,
    order: u64,
}

impl Timers {
    /// Plans something.
    pub fn add(&mut self, at: Moment, timer: Timer) {
        self.order += 1;
        self.heap.push(Due { at, order: self.order, timer });
    }

    /// When the next thing happens.
    pub fn next(&self) -> Option<Moment> {
        self.heap.peek().map(|due| due.at)
    }

    /// The next thing, if its moment is not after `now`, and its moment.
    pub fn pop_due(&mut self, now: Moment) -> Option<(Moment, Timer)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|due| (due.at, due.timer))
    }
}
