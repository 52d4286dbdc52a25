//! The door of the simulated repository (QRS): faults, gate, endpoints, journal.

mod collections;
mod gate;
mod logs;
mod notification;
mod query;
mod routes;
mod selection;
mod spoil;
mod starts;

use std::sync::Arc;

use self::query::{Query, xrfkey};
pub use self::{logs::LogDelays, selection::Selections};
use super::{
    Asked, Shared, SimulatorEvent,
    fault::FaultKind,
    http::{Call, Handler},
    journal::{Entry, micros_now},
    plan::WirePlan,
    reply::{Cut, Reply},
    site::{Origin, Request},
};

/// Answers as the repository does.
pub struct Repository(pub Arc<Shared>);

impl Handler for Repository {
    async fn greet(&self) {
        self.0.outage.stalled().await;
    }

    async fn handle(&self, call: Call) -> Result<Reply, Cut> {
        let request = Arc::new(Request {
            number: self.0.journal.next_number(),
            micros: micros_now(),
            method: call.method.clone(),
            path: call.path.clone(),
            connection: call.connection.number,
            user: call.header("x-qlik-user").map(str::to_owned),
            xrfkey: xrfkey(&call.query).map(str::to_owned),
        });
        let mut entry = Entry {
            request,
            query: Vec::new(),
            user: None,
            certificate: call.connection.certificate.clone(),
            peer: call.connection.peer.to_string(),
            fault: None,
            status: 0,
        };
        let answer = self.with_faults(&call, &mut entry).await;
        let answer = self.on_the_wire(&call, answer).await;
        entry.status = answer.as_ref().map_or(0, |reply| reply.status);
        self.show(&entry);
        self.0.journal.add(entry);
        answer
    }
}

impl Repository {
    async fn with_faults(&self, call: &Call, entry: &mut Entry) -> Result<Reply, Cut> {
        // Let in by the handshake for just this answer.
        if self.0.tls && call.connection.certificate.is_none() {
            self.nothing_done(call, entry, "no certificate");
            return Ok(Reply::text(403, "Forbidden: no client certificate"));
        }
        if self.0.outage.is_initialising() {
            self.nothing_done(call, entry, "initialising");
            return Ok(Reply::text(503, "Service Unavailable: the repository is initialising"));
        }
        let Some(fault) = self.0.faults.take(&call.method, &call.path) else { return Ok(self.answer(call, entry)) };
        entry.fault = Some(fault.word());
        match fault {
            FaultKind::Status(..) | FaultKind::LoginPage | FaultKind::CutBefore | FaultKind::Never => {
                self.nothing_done(call, entry, "fault");
            }
            FaultKind::Delay(pause) => tokio::time::sleep(pause).await,
            _ => {}
        }
        match fault {
            FaultKind::Status(status, text, kind) => Ok(spoil::with_type(Reply::text(status, text), kind)),
            FaultKind::LoginPage => Ok(spoil::login_page()),
            FaultKind::CutBefore => Err(Cut),
            FaultKind::CutAfter => {
                self.answer(call, entry);
                Err(Cut)
            }
            FaultKind::Never => self.silence(entry).await,
            FaultKind::NeverAfter => {
                self.answer(call, entry);
                self.silence(entry).await
            }
            FaultKind::DelayAfter(pause) => {
                let reply = self.answer(call, entry);
                tokio::time::sleep(pause).await;
                Ok(reply)
            }
            FaultKind::StatusAfter(status, text) => {
                self.answer(call, entry);
                Ok(Reply::text(status, text))
            }
            other => Ok(spoil::spoil(self.answer(call, entry), other, &self.0)),
        }
    }

    /// Compressed and in chunks, as it was asked for and as the client can take it.
    async fn on_the_wire(&self, call: &Call, answer: Result<Reply, Cut>) -> Result<Reply, Cut> {
        let WirePlan { gzip, chunked } = *self.0.wire.lock();
        let accepts = || call.header("accept-encoding").is_some_and(|accepted| accepted.contains("gzip"));
        match (answer, gzip && accepts()) {
            (Ok(reply), true) => {
                // Long bodies take a while, and other calls must not wait for them.
                tokio::task::spawn_blocking(move || reply.on_the_wire(true, chunked)).await.map_err(|_| Cut)
            }
            (answer, _) => answer.map(|reply| reply.on_the_wire(false, chunked)),
        }
    }

    /// For whoever watches.
    fn show(&self, entry: &Entry) {
        if !self.0.show_requests {
            return;
        }
        let query: Vec<String> = entry.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let asked = Asked {
            method: entry.request.method.clone(),
            path: entry.request.path.clone(),
            query: query.join("&"),
            user: entry.user.clone(),
            fault: entry.fault,
            status: Some(entry.status).filter(|status| *status > 0),
        };
        // Nobody may be listening.
        let _ = self.0.events.send(SimulatorEvent::Request(Box::new(asked)));
    }

    /// No answer, ever.
    async fn silence(&self, entry: &Entry) -> Result<Reply, Cut> {
        // Noted now: this future never comes back, it is dropped with its connection.
        self.show(entry);
        self.0.journal.add(entry.clone());
        std::future::pending().await
    }

    /// A start that was asked for and not even looked at is told by the oracle, too.
    fn nothing_done(&self, call: &Call, entry: &Entry, reason: &'static str) {
        if let Some(task) = starts::asked_for(call) {
            let by = Origin::Call(Arc::clone(&entry.request));
            self.0.with_site(|site| site.not_started(task, reason, by));
        }
    }

    fn answer(&self, call: &Call, entry: &mut Entry) -> Reply {
        let caller = match gate::admit(call, &self.0.plan) {
            Ok(caller) => caller,
            Err(reply) => {
                self.nothing_done(call, entry, "refused");
                return reply;
            }
        };
        entry.user = Some(caller.name.clone());
        let query = match Query::parse(&call.query) {
            Ok(query) => query,
            Err(error) => {
                self.nothing_done(call, entry, "malformed");
                return Reply::text(400, error.to_string());
            }
        };
        entry.query = query.0.iter().filter(|(name, _)| name != "xrfkey").cloned().collect();
        let context =
            routes::Context { shared: &self.0, call, query: &query, caller: &caller, request: &entry.request };
        routes::answer(&context)
    }
}
