//! The door of the simulated repository (QRS): faults, gate, endpoints, journal.

mod gate;
mod query;
mod routes;

use std::sync::Arc;

use self::query::Query;
use super::{
    Shared,
    fault::FaultKind,
    http::{Call, Cut, Handler, Reply},
    journal::{Entry, micros_now},
};

/// Answers as the repository does.
pub struct Repository(pub Arc<Shared>);

impl Handler for Repository {
    async fn handle(&self, call: Call) -> Result<Reply, Cut> {
        let mut entry = Entry {
            micros: micros_now(),
            method: call.method.clone(),
            path: call.path.clone(),
            query: Vec::new(),
            user: None,
            status: 0,
        };
        let answer = self.with_faults(&call, &mut entry).await;
        entry.status = answer.as_ref().map_or(0, |reply| reply.status);
        self.0.journal.add(entry);
        answer
    }
}

impl Repository {
    async fn with_faults(&self, call: &Call, entry: &mut Entry) -> Result<Reply, Cut> {
        match self.0.faults.take(&call.method, &call.path) {
            None => Ok(self.answer(call, entry)),
            Some(FaultKind::Status(status, text)) => Ok(Reply::text(status, text)),
            Some(FaultKind::Delay(pause)) => {
                tokio::time::sleep(pause).await;
                Ok(self.answer(call, entry))
            }
            Some(FaultKind::Never) => {
                // Noted now: this future never comes back, it is dropped with its connection.
                self.0.journal.add(entry.clone());
                std::future::pending().await
            }
            Some(FaultKind::CutBefore) => Err(Cut),
            Some(FaultKind::CutAfter) => {
                self.answer(call, entry);
                Err(Cut)
            }
        }
    }

    fn answer(&self, call: &Call, entry: &mut Entry) -> Reply {
        let caller = match gate::admit(call, &self.0.plan) {
            Ok(caller) => caller,
            Err(reply) => return reply,
        };
        entry.user = Some(caller.name.clone());
        let query = match Query::parse(&call.query) {
            Ok(query) => query,
            Err(error) => return Reply::text(400, error.to_string()),
        };
        entry.query = query.0.iter().filter(|(name, _)| name != "xrfkey").cloned().collect();
        routes::answer(&self.0, call, &query, &caller)
    }
}
