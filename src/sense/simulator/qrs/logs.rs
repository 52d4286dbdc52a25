//! Script logs: the calls of both generations that name one, and the download.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::json;
use uuid::Uuid;

use super::{
    super::{plan::ScriptLogApi, reply::Reply, site::LogKey},
    gate::Rights,
    routes::{Context, malformed_id, no_endpoint, not_found},
};
use crate::names::TaskId;

/// Tickets whose time is remembered; older ones are ready.
const REMEMBERED: usize = 5_000;

/// When the log behind a ticket can be downloaded: it has to be collected from its node first.
#[derive(Debug, Default)]
pub struct LogDelays(Mutex<VecDeque<(Uuid, Instant)>>);

impl LogDelays {
    fn add(&self, ticket: Uuid, delay: Duration) {
        let mut waiting = self.0.lock();
        if waiting.len() >= REMEMBERED {
            waiting.pop_front();
        }
        waiting.push_back((ticket, Instant::now() + delay));
    }

    fn is_ready(&self, ticket: Uuid) -> bool {
        let waiting = self.0.lock();
        waiting.iter().rev().find(|(known, _)| *known == ticket).is_none_or(|(_, ready)| Instant::now() >= *ready)
    }
}

/// `GET reloadtask/{id}/scriptlog?fileReferenceId=`
pub fn by_file(context: &Context<'_>, task: &str) -> Reply {
    if context.shared.plan.script_log.api == ScriptLogApi::New {
        return no_endpoint();
    }
    ticket(context, task, "filereferenceid", LogKey::File)
}

/// `GET reloadtask/{id}/scriptlogfile?executionResultId=`
pub fn by_result(context: &Context<'_>, task: &str) -> Reply {
    if context.shared.plan.script_log.api == ScriptLogApi::Old {
        return no_endpoint();
    }
    ticket(context, task, "executionresultid", LogKey::Result)
}

fn ticket(context: &Context<'_>, task: &str, parameter: &str, key: fn(Uuid) -> LogKey) -> Reply {
    let Some(id) = context.query.get(parameter) else { return Reply::text(400, "Missing parameter value(s)") };
    let (Ok(task), Ok(id)) = (task.parse::<TaskId>(), Uuid::try_parse(id)) else { return malformed_id() };
    if context.caller.rights == Rights::None {
        return not_found();
    }
    let Some(ticket) = context.shared.with_site(|site| site.script_log_ticket(task, key(id))) else {
        return not_found();
    };
    let delay = Duration::from_millis(context.shared.plan.script_log.delay_millis);
    context.shared.log_delays.add(ticket, delay);
    Reply::json(200, json!({ "value": ticket.to_string() }).to_string())
}

/// `GET download/reloadtask/{ticket}/{any name}`
pub fn download(context: &Context<'_>, ticket: &str) -> Reply {
    let Ok(ticket) = Uuid::try_parse(ticket) else { return malformed_id() };
    if !context.shared.log_delays.is_ready(ticket) {
        return not_found();
    }
    context.shared.with_site(|site| site.script_log(ticket)).map_or_else(not_found, |text| Reply::text(200, text))
}
