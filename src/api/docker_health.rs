//! Butler's Docker health check (`dockerHealthCheck`): a port of its own that says the process answers.
//!
//! Generation head: `GET /health` → `{"statusCode":200,"status":"ok"}`; v5.4: `GET /` → `0`. Bound to loopback, where a container's HEALTHCHECK
//! calls from. Whether the parts do their work is `/readyz`'s business.

use tokio_util::sync::CancellationToken;

use super::{
    answer::Answer,
    connection::Site,
    fault::{Fault, Kind, Space},
    server::{ApiError, Server},
};
use crate::config::settings::{DockerHealth as Settings, Generation};

/// The bound health port.
#[derive(Debug)]
pub struct DockerHealth(Server);

impl DockerHealth {
    /// Opens the port on both loopback addresses.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn bind(settings: Settings) -> Result<Self, ApiError> {
        Server::bind_to("localhost", settings.port).map(Self)
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<std::net::SocketAddr> {
        self.0.addresses()
    }

    /// Answers until `stop`.
    ///
    /// # Errors
    /// If a listener cannot be used.
    pub async fn run(self, generation: Generation, stop: CancellationToken) -> Result<(), ApiError> {
        self.0.run_site(Site::DockerHealth(generation), stop).await
    }
}

/// The answer to a request on the health port.
pub(super) fn answer(generation: Generation, method: &str, path: &str) -> Answer {
    match (generation, method, path) {
        (Generation::Head, "GET" | "HEAD", "/health") => Answer::json(200, r#"{"statusCode":200,"status":"ok"}"#),
        (Generation::V5_4, "GET" | "HEAD", "/") => Answer::json(200, "0"),
        _ => Fault::new(Kind::NotFound, "this port only answers the health check").answer(Space::V4(generation)),
    }
}
