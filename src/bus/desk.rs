//! Looking at the built-in broker and steering it, for the rooms above. A broker elsewhere has no desk here: it knows its clients itself. And the
//! users of `broker.toml`, who log in to the console whichever broker carries the messages.

pub use crate::broker::seen::{
    Client, Connection, Cursor, Desk, DeskError, Glimpse, LARGEST_PAGE, Page, PageAsk, Parting, RetainedMessage, Room,
    SHOWN, Seen, Stats, Subscription, Tap, rfc3339,
};
pub use crate::broker::{LoginError, Logins, Member, NoRandom};
