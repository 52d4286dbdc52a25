//! The vocabulary: names that are parsed once, at the door, and travel as proof.
//!
//! The lowest room of the house; everybody may import it and it imports nobody. Invariant: a value of one of these types satisfies the
//! rules its constructor names, so no room behind the door checks again. A `String` that holds one of these past the door is a defect.

mod mqtt;
mod qlik;
mod secret;

pub use mqtt::{ClientId, NameError, QoS, TopicFilter, TopicName, matches};
pub use qlik::{AppId, ExecutionId, GuidError, ResultId, SubscriptionHandle, TaskId};
pub use secret::Secret;
