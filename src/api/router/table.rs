//! The table of routes: which path leads to which resource, and what switches it on.
//!
//! Invariant: it is the only place where paths of the API are listed; the router finds resources by it and the OpenAPI document is made from it.
//! (The web console's paths are not in it: they are its page's own and no API.)

use super::Resource;
use crate::{
    api::{events, openapi, publish, reload, tasks},
    config::settings::Endpoints,
};

/// A path and what it leads to.
#[derive(Debug)]
pub(in crate::api) struct Route {
    /// `{name}` stands for one segment that is not empty.
    pub path: &'static str,
    pub resource: Resource,
    /// Whether it is switched on.
    pub is_on: fn(&Endpoints) -> bool,
}

const fn route(path: &'static str, resource: Resource, is_on: fn(&Endpoints) -> bool) -> Route {
    Route { path, resource, is_on }
}

/// Paths without names, those that are called most first.
const PLAIN: &[Route] = &[
    route(publish::PATH, Resource::Publish, |on| on.publish),
    route("/v4/mqttpublishmessage", Resource::MqttPublish, |on| on.mqtt_publish),
    route(publish::BULK, Resource::PublishBulk, |on| on.publish),
    route(tasks::START, Resource::TasksStart, |on| on.tasks_start),
    route("/api/v1/tasks", Resource::Tasks, |on| on.tasks_read),
    route(events::PATH, Resource::Events, always),
    route("/api/v1/executions", Resource::Executions, |on| on.tasks_read),
    route("/api/v1/broker/clients", Resource::BrokerClients, always),
    route("/api/v1/broker/subscriptions", Resource::BrokerSubscriptions, always),
    route("/api/v1/broker/retained", Resource::BrokerRetained, always),
    route("/api/v1/broker/stats", Resource::BrokerStats, always),
    route("/livez", Resource::Livez, always),
    route("/readyz", Resource::Readyz, always),
    route("/metrics", Resource::Metrics, always),
    route("/api/v1/status", Resource::Status, always),
    route(reload::PATH, Resource::Reload, always),
    route(openapi::DOCUMENT, Resource::OpenApi, always),
    route(openapi::SHORT, Resource::OpenApi, always),
    route(openapi::page::ROOT, Resource::Docs, always),
    route("/v4/butlerping", Resource::Butlerping, |on| on.butlerping),
    route("/v4/configfile/endpointsenabled", Resource::EndpointsEnabled, |on| on.list_endpoints),
    route("/v4/activeusers", Resource::ActiveUsers, |on| on.active_users),
    route("/v4/activeusercount", Resource::ActiveUserCount, |on| on.active_user_count),
    route("/v4/keyvaluesnamespaces", Resource::KeyNamespaces, |on| on.key_values),
];

/// Paths with names; the first that fits is meant.
const NAMED: &[Route] = &[
    route("/v4/reloadtask/{id}/start", Resource::StartTask, |on| on.start_task),
    route("/v4/keylist/{namespace}", Resource::KeyList, |on| on.key_values),
    route("/v4/keyvalues/{namespace}", Resource::KeyNamespace, |on| on.key_values),
    // A key may be called so, too.
    route("/v4/keyvalues/{namespace}/keyexists", Resource::KeyExists, |on| on.key_values),
    route("/v4/keyvalues/{namespace}/{key}", Resource::Key, |on| on.key_values),
    route("/api/v1/tasks/{id}", Resource::Task, |on| on.tasks_read),
    route("/api/v1/executions/{id}", Resource::Execution, |on| on.tasks_read),
    route("/api/v1/executions/{id}/stop", Resource::ExecutionStop, |on| on.tasks_stop),
    route("/api/v1/broker/clients/{id}", Resource::BrokerClient, always),
    route("/api/v1/broker/retained/{topic}", Resource::BrokerRetainedTopic, always),
    route("/docs/{file}", Resource::DocsFile, always),
];

const fn always(_: &Endpoints) -> bool {
    true
}

/// All routes.
pub(in crate::api) fn all() -> impl Iterator<Item = &'static Route> {
    PLAIN.iter().chain(NAMED)
}

/// The route of a tidy path, switched on or not.
pub(super) fn at(path: &str) -> Option<&'static Route> {
    let plain = PLAIN.iter().find(|route| route.path == path);
    plain.or_else(|| NAMED.iter().find(|route| fits(route.path, path)))
}

fn fits(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut found) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == found || (wanted.starts_with('{') && !found.is_empty()) => {}
            _ => return false,
        }
    }
}
