//! Retained messages page by page, in the order of the tree: a topic before those below it, levels by their bytes.
//!
//! A page begins where the one before ended for want of room or patience; the place is a path, which need not hold a message (any more).
//! Depth is bounded by the limit on topic levels.

use std::{ops::Bound, sync::Arc};

use super::{Node, Retained};
use crate::broker::{
    envelope::Message,
    seen::{Cursor, Rows, SCAN},
};

/// A way through the tree.
struct Walk<'a> {
    rows: Rows<Arc<Message>>,
    limit: usize,
    /// Places that may still be looked at.
    patience: usize,
    now: u64,
    path: Vec<&'a str>,
}

impl Retained {
    /// Unexpired messages a filter matches, from a place on.
    pub(in crate::broker) fn page(
        &self,
        filter: &str,
        from: Option<&str>,
        limit: usize,
        now: u64,
    ) -> Rows<Arc<Message>> {
        let filter: Vec<&str> = filter.split('/').collect();
        let from: Vec<&str> = from.map(|from| from.split('/').collect()).unwrap_or_default();
        let mut walk = Walk { rows: Rows::default(), limit, patience: SCAN, now, path: Vec::new() };
        walk.node(&self.root, &filter, &from);
        walk.rows
    }
}

impl<'a> Walk<'a> {
    /// The part of a node's tree from a place on (no levels: all of it); whether to go on.
    fn node(&mut self, node: &'a Node, filter: &[&str], from: &[&str]) -> bool {
        // What lies on the way to the place was dealt with by the page before.
        let is_new = from.is_empty();
        match filter.split_first() {
            None => !is_new || self.visit(node),
            Some((&"#", _)) => (!is_new || self.visit(node)) && self.children(node, filter, from),
            Some((&"+", rest)) => self.children(node, rest, from),
            Some((level, rest)) => {
                let Some((name, child)) = node.children.get_key_value(*level) else { return true };
                match from.split_first() {
                    Some((first, _)) if *level < *first => true,
                    Some((first, from)) if *level == *first => self.child(name, child, rest, from),
                    _ => self.child(name, child, rest, &[]),
                }
            }
        }
    }

    fn children(&mut self, node: &'a Node, filter: &[&str], from: &[&str]) -> bool {
        let begin = from.first().map_or(Bound::Unbounded, |first| Bound::Included(*first));
        let at_root = self.path.is_empty();
        for (name, child) in node.children.range::<str, _>((begin, Bound::Unbounded)) {
            if at_root && name.starts_with('$') {
                continue;
            }
            let below = match from.split_first() {
                Some((first, below)) if **first == **name => below,
                _ => &[],
            };
            if !self.child(name, child, filter, below) {
                return false;
            }
        }
        true
    }

    fn child(&mut self, name: &'a str, child: &'a Node, filter: &[&str], from: &[&str]) -> bool {
        self.path.push(name);
        let room = self.look() && self.node(child, filter, from);
        self.path.pop();
        room
    }

    /// Looks at one more place, or ends the page before it.
    fn look(&mut self) -> bool {
        if self.patience == 0 {
            self.rows.next = Some(Cursor::new(self.path.join("/")));
            return false;
        }
        self.patience -= 1;
        true
    }

    fn visit(&mut self, node: &Node) -> bool {
        let Some(message) = node.message.as_ref().filter(|message| message.remaining(self.now).is_ok()) else {
            return true;
        };
        if self.rows.rows.len() == self.limit {
            self.rows.next = Some(Cursor::new(self.path.join("/")));
            return false;
        }
        self.rows.rows.push(Arc::clone(message));
        true
    }
}
