//! What a broker can do wrong, and the report of it.

use std::{collections::BTreeMap, fmt};

/// One broken promise. `message` is what the ledger knows of a message, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A kept session was acknowledged and is not there any more.
    SessionLost { client: String, messages: usize },
    /// Session present where none can be.
    SessionUnexpected { client: String },
    /// Acknowledged to its publisher, and not at a session (or group) it had to be at.
    Lost { message: String, receiver: String },
    /// More often than its quality of service allows.
    Twice { message: String, receiver: String, count: u64, most: u64 },
    /// First deliveries of one topic and quality of service in another order than they were sent.
    OutOfOrder { message: String, after: String, receiver: String },
    /// Delivered with another quality of service than min(published, granted).
    WrongQos { message: String, receiver: String, qos: u8 },
    /// Something nobody published, or on another topic.
    Foreign { receiver: String, what: String },
    /// At a session that had no matching subscription when it was published.
    NotSubscribed { message: String, receiver: String },
    /// The retained value of a topic is older than one that was acknowledged, or there where it was removed, or absent.
    Retained { topic: String, found: String, expected: String },
    /// The will of a client that said goodbye.
    WillOfThePolite { message: String, receiver: String },
    /// A client was refused something it has a right to.
    Refused { client: String, what: String },
    /// Something that was asked for never came.
    NoAnswer { what: String },
    /// A file in the data directory that should not be so.
    Store { what: String },
}

impl Violation {
    /// The kind, for the summary and for tests.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SessionLost { .. } => "session lost",
            Self::SessionUnexpected { .. } => "session that cannot be",
            Self::Lost { .. } => "acknowledged message lost",
            Self::Twice { .. } => "message delivered too often",
            Self::OutOfOrder { .. } => "out of order",
            Self::WrongQos { .. } => "wrong quality of service",
            Self::Foreign { .. } => "message nobody sent",
            Self::NotSubscribed { .. } => "message nobody subscribed to",
            Self::Retained { .. } => "retained value wrong",
            Self::WillOfThePolite { .. } => "will of who said goodbye",
            Self::Refused { .. } => "refused",
            Self::NoAnswer { .. } => "no answer",
            Self::Store { .. } => "store",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionLost { client, messages } => {
                write!(
                    out,
                    "{client}: its session was acknowledged and is gone, with {messages} messages promised to it"
                )
            }
            Self::SessionUnexpected { client } => write!(out, "{client}: session present, though it has none"),
            Self::Lost { message, receiver } => {
                write!(out, "{message} was acknowledged and did not arrive at {receiver}")
            }
            Self::Twice { message, receiver, count, most } => {
                write!(out, "{message} arrived {count} times at {receiver}, {most} at most are right")
            }
            Self::OutOfOrder { message, after, receiver } => {
                write!(out, "{message} arrived at {receiver} for the first time after {after}")
            }
            Self::WrongQos { message, receiver, qos } => write!(out, "{message} arrived at {receiver} with QoS {qos}"),
            Self::Foreign { receiver, what } => write!(out, "{receiver} received what nobody sent: {what}"),
            Self::NotSubscribed { message, receiver } => {
                write!(out, "{message} arrived at {receiver}, whose subscription had been ended before")
            }
            Self::Retained { topic, found, expected } => {
                write!(out, "{topic} holds {found}; {expected}")
            }
            Self::WillOfThePolite { message, receiver } => {
                write!(out, "{message} arrived at {receiver}, though its client had said goodbye")
            }
            Self::Refused { client, what } => write!(out, "{client}: {what}"),
            Self::NoAnswer { what } => out.write_str(what),
            Self::Store { what } => out.write_str(what),
        }
    }
}

/// How many examples of a kind the report shows.
const EXAMPLES: usize = 4;

/// Number of each kind, then a few examples of each.
pub fn report(violations: &[Violation]) -> String {
    let mut kinds: BTreeMap<&str, Vec<&Violation>> = BTreeMap::new();
    let mut losers: BTreeMap<&str, u64> = BTreeMap::new();
    for violation in violations {
        kinds.entry(violation.kind()).or_default().push(violation);
        if let Violation::Lost { receiver, .. } = violation {
            *losers.entry(receiver).or_default() += 1;
        }
    }
    let mut text = format!("{} promises broken\n", violations.len());
    for (kind, all) in kinds {
        text += &format!("  {:>6} x {kind}\n", all.len());
        for violation in all.iter().take(EXAMPLES) {
            text += &format!("             {violation}\n");
        }
    }
    for (receiver, count) in losers {
        text += &format!("  {count:>6} missing at {receiver}\n");
    }
    text
}
