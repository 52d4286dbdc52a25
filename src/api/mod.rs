//! The REST API: one file per resource, served by warp over listeners of our own.
//!
//! A request's way: `server` (accept) → `connection` (TLS, HTTP/1.1 by hyper) → `entry` (the one warp filter: reads the request, bounds it in size
//! and time, confines panics) → `doors` and `bearer` (may it come in?) → `router` (which resource, which method) → the resource's file. `answer` holds what a
//! resource gets and gives; no warp type passes that line. Invariant: every request that was read is answered.
//!
//! What a request of the web console's page may do, `console` decides.
//!
//! A new resource is one file with a `handle`, one line in the router's table, one arm in its `dispatch`, and its description in `openapi`.

pub mod answer;
pub mod counters;
pub mod doors;
pub mod fault;
pub mod server;
pub mod state;

mod active_users;
mod bearer;
mod body;
mod broker_clients;
mod broker_desk;
mod broker_retained;
mod broker_stats;
mod broker_subscriptions;
mod butlerping;
mod catalogue;
mod connection;
pub mod console;
mod docker_health;
mod endpoints_enabled;
mod entry;
mod events;
mod form;
mod health;
mod idle;
mod js_number;
mod json_object;
mod key_values;
mod metrics;
mod mqtt_publish;
mod not_offered;
mod openapi;
mod publish;
mod rate;
mod reload;
mod router;
mod status;

pub use docker_health::DockerHealth;
pub use server::{ApiError, Server};
pub use state::{ActiveUsers, ReloadHandler, Setup, StartHandler, State};
pub mod start_task;
pub mod tasks;
