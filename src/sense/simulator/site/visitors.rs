//! People who open an app and leave again: the source of session and connection events.

use uuid::Uuid;

use super::{Site, timers::Timer};
use crate::sense::simulator::{
    clock::Moment,
    datagram::{DatagramKind, ProxyCommand, ProxyFields, proxy_datagram},
    plan::millis,
};

/// Visitors on the site at once; who comes later turns back.
const MOST_VISITORS: usize = 500;

/// One stay of one person.
#[derive(Debug)]
pub struct Visit {
    person: usize,
    node: usize,
    app: Uuid,
    session: Uuid,
    next: ProxyCommand,
}

impl Site {
    /// Plans the next arrival: a Poisson process, so the pauses are exponential.
    pub(super) fn expect_visitor(&mut self) {
        let per_minute = self.visitors.per_minute * self.rate;
        if per_minute <= 0.0 || self.visitors.people.is_empty() {
            return;
        }
        let pause = -(1.0 - self.rng.unit()).ln() * 60.0 / per_minute;
        let at = self.now.saturating_add(millis(pause));
        self.timers.add(at, Timer::Arrival { epoch: self.rate_epoch });
    }

    pub(super) fn visitor_arrives(&mut self) {
        self.expect_visitor();
        if self.visits >= MOST_VISITORS {
            return;
        }
        self.visits += 1;
        let app = self.rng.below(self.apps.len());
        let visit = Visit {
            person: self.rng.below(self.visitors.people.len()),
            node: self.rng.below(self.nodes.len()),
            app: self.apps.get(app).map(|app| app.id).unwrap_or_default(),
            session: self.rng.guid(),
            next: ProxyCommand::StartSession,
        };
        self.visit(Box::new(visit));
    }

    /// A visitor does the next thing, and plans the one after it.
    pub(super) fn visit(&mut self, mut visit: Box<Visit>) {
        self.send_proxy(&visit);
        let (next, pause) = match visit.next {
            ProxyCommand::StartSession => (ProxyCommand::OpenConnection, 300),
            ProxyCommand::OpenConnection => (ProxyCommand::CloseConnection, self.visitors.stay.draw(&mut self.rng)),
            ProxyCommand::CloseConnection => (ProxyCommand::StopSession, 500),
            ProxyCommand::StopSession => {
                self.visits = self.visits.saturating_sub(1);
                return;
            }
        };
        visit.next = next;
        let at: Moment = self.now.saturating_add(pause);
        self.timers.add(at, Timer::Visit(visit));
    }

    fn send_proxy(&mut self, visit: &Visit) {
        let (Some(person), Some(node)) = (self.visitors.people.get(visit.person), self.nodes.get(visit.node)) else {
            return;
        };
        let fields = ProxyFields {
            host: &node.name,
            directory: &person.directory,
            user: &person.id,
            agent: &person.agent,
            app_id: &visit.app.to_string(),
            session: &visit.session.to_string(),
        };
        let text = proxy_datagram(self.profile, visit.next, &fields);
        self.emit(visit.node, DatagramKind::Proxy, text);
    }
}
