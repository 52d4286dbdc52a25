//! The built-in broker as a bus: in process, no socket.

use super::{
    BoxFuture, Bus, Door, KeptSubscription, Publication, PublishError, Receipt, Routed, Subscription, Transport,
};
use crate::{
    broker::{BrokerHandle, InternalError, Publisher},
    names::{TopicFilter, TopicName},
};

/// One publisher of the built-in broker, with a lane of its own onto it.
pub struct Embedded {
    broker: BrokerHandle,
    publisher: Publisher,
}

impl Embedded {
    /// A bus whose messages come by `door`.
    pub fn new(broker: BrokerHandle, door: Door) -> Self {
        let publisher = broker.publisher(door);
        Self { broker, publisher }
    }
}

impl From<InternalError> for PublishError {
    fn from(error: InternalError) -> Self {
        match error {
            InternalError::Stopping => Self::Unavailable(error.to_string()),
            InternalError::Full => Self::Full(error.to_string()),
            InternalError::TooLarge { size, limit } => Self::TooLarge { size, limit },
            InternalError::Property(_) => Self::Refused(error.to_string()),
        }
    }
}

impl Transport for Embedded {
    fn submit(&self, publication: Publication) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(async move {
            let pending = self.publisher.submit(&publication).await?;
            Ok(Receipt::new(async move {
                let taken = pending.taken().await?;
                Ok(Routed { matched: Some(taken.matched), stored: Some(taken.stored) })
            }))
        })
    }

    fn subscribe(&self, name: &str, filters: Vec<TopicFilter>) -> BoxFuture<'_, Result<Subscription, PublishError>> {
        let name = name.to_owned();
        Box::pin(async move { Ok(self.broker.subscribe(&name, filters).await?) })
    }

    fn subscribe_kept(
        &self,
        name: &str,
        filters: Vec<TopicFilter>,
    ) -> BoxFuture<'_, Result<KeptSubscription, PublishError>> {
        let name = name.to_owned();
        Box::pin(async move { Ok(KeptSubscription::new(self.broker.subscribe_kept(&name, filters).await?)) })
    }

    fn apart(&self) -> Option<Bus> {
        Some(Bus::new(Self { broker: self.broker.clone(), publisher: self.publisher.apart() }))
    }

    fn check(&self, publication: &Publication) -> Result<(), PublishError> {
        Ok(self.publisher.check(publication)?)
    }

    fn may_publish(&self, topic: &TopicName) -> bool {
        self.publisher.may_publish(topic)
    }

    fn is_up(&self) -> bool {
        self.broker.is_up()
    }
}
