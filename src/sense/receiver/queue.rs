//! The queue between the receiving threads and the task that makes events: bounded in bytes, cheap for the threads.
//!
//! Invariant: a datagram counts against the bound from `push` until the consumer is done with it.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::socket::Port;

/// A datagram as it came.
#[derive(Debug)]
pub(super) struct Datagram {
    pub bytes: Box<[u8]>,
    pub port: Port,
    pub from: IpAddr,
    pub received: SystemTime,
}

impl Datagram {
    /// Bytes it takes in memory.
    fn weight(&self) -> usize {
        size_of::<Self>() + 16 + self.bytes.len()
    }
}

/// The queue.
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Datagram>>,
    bytes: Arc<AtomicUsize>,
    max_bytes: usize,
    ready: Notify,
}

impl Queue {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { waiting: Mutex::default(), bytes: Arc::default(), max_bytes, ready: Notify::new() }
    }

    /// Bytes held; for the metric.
    pub(super) fn bytes(&self) -> Arc<AtomicUsize> {
        self.bytes.clone()
    }

    /// Puts a datagram in; `false` if there is no room for it.
    pub(super) fn push(&self, datagram: Datagram) -> bool {
        let weight = datagram.weight();
        // Several threads may overshoot by one datagram each; that is within what "bounded" means here.
        if self.bytes.load(Ordering::Relaxed) + weight > self.max_bytes {
            return false;
        }
        self.bytes.fetch_add(weight, Ordering::Relaxed);
        let mut waiting = self.waiting();
        let first = waiting.is_empty();
        waiting.push_back(datagram);
        drop(waiting);
        if first {
            self.ready.notify_one();
        }
        true
    }

    /// Waits for datagrams and takes all of them.
    pub(super) async fn take(&self) -> Batch<'_> {
        loop {
            let batch = self.take_now();
            if !batch.waiting.is_empty() {
                return batch;
            }
            self.ready.notified().await;
        }
    }

    /// Takes what is there.
    pub(super) fn take_now(&self) -> Batch<'_> {
        Batch { waiting: std::mem::take(&mut *self.waiting()), queue: self }
    }

    /// How many datagrams of a port nobody took.
    pub(super) fn left(&self, port: Port) -> u64 {
        self.waiting().iter().filter(|datagram| datagram.port == port).count() as u64
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Datagram>> {
        self.waiting.lock()
    }
}

/// Datagrams taken out; each gives its bytes back when the next one is asked for. Those left when it is dropped go back to the front.
pub(super) struct Batch<'a> {
    waiting: VecDeque<Datagram>,
    queue: &'a Queue,
}

impl Iterator for Batch<'_> {
    type Item = Datagram;

    fn next(&mut self) -> Option<Datagram> {
        let datagram = self.waiting.pop_front()?;
        self.queue.bytes.fetch_sub(datagram.weight(), Ordering::Relaxed);
        Some(datagram)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.waiting.is_empty() {
            let mut waiting = self.queue.waiting();
            let newer = std::mem::replace(&mut *waiting, std::mem::take(&mut self.waiting));
            waiting.extend(newer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn datagram(bytes: &[u8]) -> Datagram {
        let from = Ipv4Addr::LOCALHOST.into();
        Datagram { bytes: bytes.into(), port: Port::Task, from, received: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn the_bound_is_in_bytes_and_given_back() {
        let weight = datagram(&[0; 100]).weight();
        let queue = Queue::new(3 * weight);
        for _ in 0..3 {
            assert!(queue.push(datagram(&[0; 100])));
        }
        assert!(!queue.push(datagram(b"")));
        let mut batch = queue.take_now();
        assert!(batch.next().is_some() && queue.push(datagram(&[1; 100])));
        drop(batch);
        let order: Vec<u8> = queue.take_now().map(|datagram| datagram.bytes[0]).collect();
        assert_eq!(order, [0, 0, 1], "what a batch did not use comes first again");
        assert_eq!((queue.bytes.load(Ordering::Relaxed), queue.left(Port::Task)), (0, 0));
    }
}
