//! Which resource a path means, which methods it has, and who may call it.
//!
//! Paths are compared as sent (percent-encoded, case-sensitive) after doubled and trailing slashes are gone. A resource that is switched off is
//! not found. POST is accepted wherever PUT is, HEAD wherever GET is, OPTIONS everywhere a path exists.

pub(super) mod table;

use std::{borrow::Cow, time::Duration};

use super::{
    active_users,
    answer::{Answer, Request},
    broker_clients, broker_retained, broker_stats, broker_subscriptions, butlerping,
    console::{self, Deed},
    endpoints_enabled, events,
    fault::{Fault, Kind},
    health, key_values, metrics, mqtt_publish, not_offered, openapi, publish, reload,
    state::{Limits, State},
    status, tasks,
};
use crate::{config::tokens::Right, console::page};

/// A resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Butlerping,
    EndpointsEnabled,
    MqttPublish,
    Publish,
    PublishBulk,
    StartTask,
    ActiveUsers,
    ActiveUserCount,
    KeyNamespaces,
    KeyList,
    KeyNamespace,
    KeyExists,
    Key,
    /// A route of Butler that is switched on in the file and not offered here; with its key.
    NotOffered(&'static str),
    Livez,
    Readyz,
    Metrics,
    Status,
    Reload,
    BrokerClients,
    BrokerClient,
    BrokerSubscriptions,
    BrokerRetained,
    BrokerRetainedTopic,
    BrokerStats,
    Tasks,
    Task,
    TasksStart,
    Executions,
    Execution,
    ExecutionStop,
    Events,
    OpenApi,
    Docs,
    DocsFile,
    ConsolePage,
    ConsoleSession,
    ConsoleLive,
    ConsoleTrial,
}

impl Resource {
    /// Its name in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Butlerping => "butlerping",
            Self::EndpointsEnabled => "endpointsenabled",
            Self::MqttPublish => "mqttpublishmessage",
            Self::Publish => "publish",
            Self::PublishBulk => "publish_bulk",
            Self::StartTask => "reloadtask",
            Self::ActiveUsers => "activeusers",
            Self::ActiveUserCount => "activeusercount",
            Self::KeyNamespaces => "keyvaluesnamespaces",
            Self::KeyList => "keylist",
            Self::KeyNamespace | Self::Key => "keyvalues",
            Self::KeyExists => "keyexists",
            Self::NotOffered(_) => "not_offered",
            Self::Livez => "livez",
            Self::Readyz => "readyz",
            Self::Metrics => "metrics",
            Self::Status => "status",
            Self::Reload => "reload",
            Self::BrokerClients => "broker_clients",
            Self::BrokerClient => "broker_client",
            Self::BrokerSubscriptions => "broker_subscriptions",
            Self::BrokerRetained => "broker_retained",
            Self::BrokerRetainedTopic => "broker_retained_topic",
            Self::BrokerStats => "broker_stats",
            Self::Tasks => "tasks",
            Self::Task => "task",
            Self::TasksStart => "tasks_start",
            Self::Executions => "executions",
            Self::Execution => "execution",
            Self::ExecutionStop => "execution_stop",
            Self::Events => "events",
            Self::OpenApi => "openapi",
            Self::Docs | Self::DocsFile => "docs",
            Self::ConsolePage => "console",
            Self::ConsoleSession => "console_session",
            Self::ConsoleLive => "console_live",
            Self::ConsoleTrial => "console_test_event",
        }
    }

    /// The value of `Allow`.
    pub(super) const fn allow(self) -> &'static str {
        match self {
            Self::MqttPublish | Self::StartTask => "PUT, POST",
            Self::Publish | Self::PublishBulk | Self::TasksStart | Self::ExecutionStop => "POST",
            Self::Reload | Self::ConsoleTrial => "POST",
            Self::ConsoleLive => "GET",
            Self::ConsoleSession => "GET, HEAD, POST, DELETE",
            Self::BrokerClient => "GET, HEAD, DELETE",
            Self::KeyNamespace => "GET, HEAD, POST, DELETE",
            // A key may be called so.
            Self::KeyExists => "GET, HEAD, DELETE",
            Self::BrokerRetainedTopic | Self::Key => "DELETE",
            _ => "GET, HEAD",
        }
    }

    fn has_method(self, method: &str) -> bool {
        match self {
            Self::NotOffered(_) => true,
            _ => self.allow().split(", ").any(|allowed| allowed == method),
        }
    }

    /// Whether only loopback, `allowedSources` and tokens may call it: what changes something, and what shows people or the inside.
    pub(super) const fn needs_trust(self) -> bool {
        matches!(
            self,
            Self::MqttPublish
                | Self::Publish
                | Self::PublishBulk
                | Self::StartTask
                | Self::ActiveUsers
                | Self::ActiveUserCount
                | Self::KeyNamespaces
                | Self::KeyList
                | Self::KeyNamespace
                | Self::KeyExists
                | Self::Key
                | Self::Metrics
                | Self::Status
                | Self::Reload
                | Self::BrokerClients
                | Self::BrokerClient
                | Self::BrokerSubscriptions
                | Self::BrokerRetained
                | Self::BrokerRetainedTopic
                | Self::BrokerStats
                | Self::Tasks
                | Self::Task
                | Self::TasksStart
                | Self::Executions
                | Self::Execution
                | Self::ExecutionStop
                | Self::Events
        )
    }

    /// The rights of a token of which one is needed. (Where a message may go, and whether it is a start, is seen when its topic is known.)
    pub(super) fn rights(self, method: &str) -> &'static [Right] {
        match self {
            Self::MqttPublish | Self::Publish | Self::PublishBulk => &[Right::Publish, Right::Start],
            Self::StartTask | Self::TasksStart | Self::ExecutionStop => &[Right::Start],
            Self::KeyNamespaces | Self::KeyList | Self::KeyNamespace | Self::KeyExists | Self::Key => &[Right::Values],
            Self::Reload => &[Right::Manage],
            _ if method == "DELETE" => &[Right::Manage],
            _ => &[Right::Read],
        }
    }

    /// What somebody who is logged in to the console must be allowed for it; `None`: a log-in opens nothing here.
    pub(super) const fn deed(self) -> Option<Deed> {
        match self {
            Self::Metrics
            | Self::Status
            | Self::BrokerClients
            | Self::BrokerClient
            | Self::BrokerSubscriptions
            | Self::BrokerRetained
            | Self::BrokerStats
            | Self::Tasks
            | Self::Task
            | Self::Executions
            | Self::Execution
            | Self::Events
            | Self::ConsoleLive => Some(Deed::Console),
            Self::MqttPublish | Self::Publish | Self::PublishBulk => Some(Deed::Publish),
            Self::BrokerRetainedTopic | Self::ConsoleTrial => Some(Deed::Publish),
            Self::TasksStart | Self::ExecutionStop => Some(Deed::Start),
            _ => None,
        }
    }

    /// Whether it is of the console alone: without a log-in there, nobody gets it.
    pub(super) const fn is_of_console(self) -> bool {
        matches!(self, Self::ConsoleLive | Self::ConsoleTrial)
    }

    /// Whether it is the console's page or its log-in, too: nothing of them crosses a network unencrypted.
    pub(super) const fn is_console(self) -> bool {
        self.is_of_console() || matches!(self, Self::ConsolePage | Self::ConsoleSession)
    }

    /// Whether it starts or stops tasks: a refusal is written down.
    pub(super) const fn is_audited(self) -> bool {
        matches!(self, Self::StartTask | Self::TasksStart | Self::ExecutionStop)
    }

    /// Whether it goes on when the caller has hung up. (A start of `/api/v1` is the starter's own work as soon as it is taken; one message is
    /// handed over as a whole or not at all.)
    pub(super) const fn outlives_caller(self) -> bool {
        matches!(self, Self::StartTask | Self::ExecutionStop | Self::PublishBulk | Self::Reload)
    }

    /// Bytes its body may have, of those that are allowed at most: a log-in comes from anybody.
    pub(super) fn largest_body(self, most: usize) -> usize {
        if self == Self::ConsoleSession { most.min(console::LARGEST_FORM) } else { most }
    }

    /// How long it may take.
    pub(super) const fn limit(self, limits: &Limits) -> Duration {
        match self {
            Self::StartTask | Self::ExecutionStop | Self::Tasks | Self::Task => limits.start,
            Self::TasksStart | Self::Execution => limits.wait,
            _ => limits.handler,
        }
    }
}

/// A path without doubled and trailing slashes.
pub(super) fn tidy(path: &str) -> Cow<'_, str> {
    if !path.contains("//") && (path.len() <= 1 || !path.ends_with('/')) {
        return Cow::Borrowed(path);
    }
    let mut tidy = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        tidy.push('/');
        tidy.push_str(segment);
    }
    if tidy.is_empty() {
        tidy.push('/');
    }
    Cow::Owned(tidy)
}

/// The resource at a tidy path, if there is one and it is switched on.
///
/// # Errors
/// 404.
pub(super) fn find(state: &State, path: &str) -> Result<Resource, Fault> {
    let rest = &state.setup.rest;
    let found = match table::at(path) {
        Some(route) if route.resource == Resource::Events && state.setup.journal.is_none() => None,
        Some(route) => (route.is_on)(&rest.endpoints).then_some(route.resource),
        None if state.setup.console.is_some() && path.starts_with(page::ROOT) => of_console(path),
        None => not_offered::find(path, &rest.endpoints_not_offered).map(Resource::NotOffered),
    };
    found.ok_or_else(|| Fault::new(Kind::NotFound, "there is nothing at this path; is the endpoint switched on?"))
}

/// `/console` and what is below it
fn of_console(path: &str) -> Option<Resource> {
    match path {
        console::SESSION => Some(Resource::ConsoleSession),
        console::LIVE => Some(Resource::ConsoleLive),
        console::TRIAL => Some(Resource::ConsoleTrial),
        other => console::is_page(other).then_some(Resource::ConsolePage),
    }
}

/// The method after `X-HTTP-Method-Override`, which counts on POST only (load scripts can send nothing but GET and POST).
///
/// # Errors
/// 400 for anything but PUT and DELETE.
pub(super) fn effective_method(method: &str, wanted: Option<&str>) -> Result<Option<&'static str>, Fault> {
    let Some(wanted) = wanted.filter(|_| method == "POST") else { return Ok(None) };
    let wanted = wanted.trim();
    let known = ["PUT", "DELETE"].into_iter().find(|known| wanted.eq_ignore_ascii_case(known));
    known.map(Some).ok_or_else(|| {
        let shown: String = wanted.chars().take(40).collect();
        Fault::new(Kind::Override, format!("X-HTTP-Method-Override may be PUT or DELETE, not `{shown}`"))
    })
}

/// Whether the resource has the method; for OPTIONS, the answer.
///
/// # Errors
/// 405 with `Allow`.
pub(super) fn check_method(resource: Resource, method: &str) -> Result<Option<Answer>, Fault> {
    if method == "OPTIONS" && !matches!(resource, Resource::NotOffered(_)) {
        return Ok(Some(Answer::empty(204).with("allow", format!("{}, OPTIONS", resource.allow()))));
    }
    if resource.has_method(method) {
        return Ok(None);
    }
    let message = format!("this path answers {}", resource.allow());
    Err(Fault::new(Kind::Method(resource.allow()), message))
}

/// Hands a request to its resource.
///
/// # Errors
/// What the resource says.
pub(super) async fn dispatch(state: &State, resource: Resource, request: Request) -> Result<Answer, Fault> {
    match resource {
        Resource::MqttPublish => mqtt_publish::handle(state, &request).await,
        Resource::Publish => publish::one(state, &request).await,
        Resource::PublishBulk => publish::bulk(state, &request).await,
        Resource::StartTask => Ok((state.setup.start_task)(request).await),
        Resource::Butlerping => Ok(butlerping::handle(state)),
        Resource::EndpointsEnabled => Ok(endpoints_enabled::handle(state)),
        Resource::ActiveUsers => Ok(active_users::names(state, &request)),
        Resource::ActiveUserCount => Ok(active_users::count(state, &request)),
        Resource::KeyNamespaces => Ok(key_values::namespaces(state)),
        Resource::KeyList => key_values::list(state, &request),
        Resource::KeyNamespace if request.method == "POST" => key_values::post(state, &request).await,
        Resource::KeyNamespace if request.method == "DELETE" => key_values::delete_namespace(state, &request).await,
        Resource::KeyNamespace => key_values::get(state, &request),
        Resource::Key => key_values::delete(state, &request).await,
        Resource::KeyExists if request.method == "DELETE" => key_values::delete(state, &request).await,
        Resource::KeyExists => key_values::exists(state, &request),
        Resource::NotOffered(key) => Err(not_offered::fault(key)),
        Resource::Livez => Ok(health::livez()),
        Resource::Readyz => Ok(health::readyz(state)),
        Resource::Metrics => metrics::handle(state),
        Resource::Status => Ok(status::handle(state)),
        Resource::Reload => reload::handle(state, &request).await,
        Resource::BrokerClients => broker_clients::list(state, &request).await,
        Resource::BrokerClient if request.method == "DELETE" => broker_clients::disconnect(state, &request).await,
        Resource::BrokerClient => broker_clients::one(state, &request).await,
        Resource::BrokerSubscriptions => broker_subscriptions::handle(state, &request).await,
        Resource::BrokerRetained => broker_retained::list(state, &request).await,
        Resource::BrokerRetainedTopic => broker_retained::clear(state, &request).await,
        Resource::BrokerStats => broker_stats::handle(state).await,
        Resource::Tasks => tasks::list(state, &request).await,
        Resource::Task => tasks::one(state, &request).await,
        Resource::TasksStart => tasks::start(state, &request).await,
        Resource::Executions => tasks::executions(state, &request),
        Resource::Execution => tasks::execution(state, &request).await,
        Resource::ExecutionStop => tasks::stop(state, &request).await,
        Resource::Events => events::list(state, &request).await,
        Resource::OpenApi => openapi::handle(state),
        Resource::Docs | Resource::DocsFile => openapi::page::handle(&request),
        Resource::ConsolePage => console::page(&request),
        Resource::ConsoleSession => console::session(state, &request).await,
        Resource::ConsoleTrial => console::trial(state, &request).await,
        // Its answer has no end; `entry` gives it.
        Resource::ConsoleLive => Err(Fault::new(Kind::Internal, "the live stream was asked for as a whole")),
    }
}

#[cfg(test)]
mod tests;
