//! Subscriptions to changes of execution results (`/qrs/notification`): QRS then calls an address of ours with the ids that changed.
//!
//! They are transient: a restart of the repository service forgets them all, so whoever subscribes renews now and then. One subscription is
//! for one kind of change.

use reqwest::Method;
use serde_json::Value;

use super::{
    client::{Purpose, Qrs},
    error::QrsError,
};
pub use crate::names::SubscriptionHandle as Handle;

/// What happened to an object (`ChangeType` of QRS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeType {
    /// 1: it was made.
    Add,
    /// 2: it changed.
    Update,
    /// 3: it was deleted.
    Delete,
}

impl ChangeType {
    /// QRS's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Add => 1,
            Self::Update => 2,
            Self::Delete => 3,
        }
    }

    /// The change with this number.
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::Add),
            2 => Some(Self::Update),
            3 => Some(Self::Delete),
            _ => None,
        }
    }
}

impl Qrs {
    /// Has QRS call `callback` (a whole address, `http://…`) after every such change of an execution result.
    /// `POST /qrs/notification?name=ExecutionResult&changetype=<n>`
    ///
    /// # Errors
    /// If QRS refuses or gives no usable answer; after [`QrsError::may_have_arrived`] a subscription may exist whose handle nobody has.
    pub async fn subscribe_changes(&self, callback: &str, change: ChangeType) -> Result<Handle, QrsError> {
        let path = format!("notification?name=ExecutionResult&changetype={}", change.number());
        let body = Value::from(callback).to_string();
        let answer = self.act("subscribe", Purpose::Follow, Method::POST, &path, body).await?;
        self.value_of(&answer)
    }

    /// Ends a subscription; one that QRS has forgotten is ended, too. `DELETE /qrs/notification?handle=<id>`
    ///
    /// # Errors
    /// If QRS gives no usable answer.
    pub async fn unsubscribe_changes(&self, handle: Handle) -> Result<(), QrsError> {
        let path = format!("notification?handle={handle}");
        match self.act("unsubscribe", Purpose::Follow, Method::DELETE, &path, "").await {
            Ok(_) | Err(QrsError::Status { status: 404, .. }) => {
                self.sensible(());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
