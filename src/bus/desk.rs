//! Looking at the built-in broker and steering it, for the rooms above. A broker elsewhere has no desk here: it knows its clients itself.

pub use crate::broker::seen::{
    Client, Connection, Cursor, Desk, DeskError, LARGEST_PAGE, Page, PageAsk, Parting, RetainedMessage, Stats,
    Subscription, rfc3339,
};
