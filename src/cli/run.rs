//! `sense-butler run`: broker, bridge and REST until stopped.

use std::io::{self, Write as _};

use super::{Exit, NO_THREADS, RunOptions, on_runtime};
#[cfg(not(target_os = "linux"))]
use crate::service::attend::Nobody;
#[cfg(target_os = "linux")]
use crate::service::notify::Notify;
use crate::{
    app::{self, Addresses, App, BuildError, Fatal},
    config::{self, ConfigErrors, LoadOptions, Loaded},
    service::attend::{GivenUp, Manager, attend},
    telemetry::logging::{self, LogError},
};

/// Why it did not run, or no longer.
#[derive(Debug)]
pub(super) struct Failed {
    /// How the verb ends.
    pub exit: Exit,
    /// What to say: whole lines.
    pub text: String,
}

impl Failed {
    /// Exit code 1.
    fn because(why: impl std::fmt::Display) -> Self {
        Self { exit: Exit::Failed, text: format!("sense-butler: {why}\n") }
    }

    /// Says it on standard error.
    fn say(&self) -> Exit {
        // Nobody is left to tell when standard error is closed.
        drop(io::stderr().write_all(self.text.as_bytes()));
        self.exit
    }
}

impl From<ConfigErrors> for Failed {
    fn from(errors: ConfigErrors) -> Self {
        Self { exit: Exit::Usage, text: errors.to_string() }
    }
}

impl From<LogError> for Failed {
    fn from(error: LogError) -> Self {
        Self::because(error)
    }
}

impl From<Fatal> for Failed {
    fn from(fatal: Fatal) -> Self {
        Self::because(fatal)
    }
}

impl From<BuildError> for Failed {
    fn from(error: BuildError) -> Self {
        let exit = if error.is_configuration() { Exit::Usage } else { Exit::Failed };
        Self { exit, ..Self::because(error) }
    }
}

/// Runs until stopped.
pub fn run(options: &RunOptions) -> Exit {
    let load = options.files.load_options(&options.addresses);
    match foreground(&load) {
        Ok(()) => Exit::Done,
        Err(failed) => failed.say(),
    }
}

/// Runs until a signal comes.
fn foreground(load: &LoadOptions) -> Result<(), Failed> {
    // Before anything is bound: a signal that comes early stops in order, too.
    work(config::load(load).map_err(|errors| unreadable(&errors, load))?, manager(), app::signal)
}

/// The files cannot be used; where those lie that could.
fn unreadable(errors: &ConfigErrors, load: &LoadOptions) -> Failed {
    let good = load.last_good();
    let good = good.map(|place| format!("\nCopies of the files that were good last are in {}.\n", place.display()));
    Failed { exit: Exit::Usage, text: format!("{errors}{}", good.unwrap_or_default()) }
}

/// Runs until `asked` resolves. The order: log, then every socket, then work.
pub(super) fn work<F: Future<Output = &'static str>>(
    loaded: Loaded,
    manager: impl Manager,
    asked: impl FnOnce() -> F,
) -> Result<(), Failed> {
    let _log = logging::init(&loaded.settings.log)?;
    let served = on_runtime(async { serve(&loaded, manager, asked()).await });
    served.unwrap_or_else(|error| Err(Failed::because(format_args!("{NO_THREADS}: {error}"))))
}

#[cfg(target_os = "linux")]
fn manager() -> Option<Notify> {
    Notify::from_environment()
}

#[cfg(not(target_os = "linux"))]
fn manager() -> Nobody {
    Nobody
}

async fn serve(
    loaded: &Loaded,
    manager: impl Manager,
    asked: impl Future<Output = &'static str>,
) -> Result<(), Failed> {
    for warning in &loaded.warnings {
        tracing::warn!(code = "config_to_know", "{warning}");
    }
    let app = App::build(loaded)?;
    introduce(loaded, &app.addresses());
    let given_up = GivenUp::default();
    let attended = attend(manager, app.readiness(), given_up.clone(), asked);
    app.run(attended).await?;
    if given_up.is_so() {
        return Err(Failed::because(
            "it was not ready for too long and stopped so that it is started again; the log says which part",
        ));
    }
    Ok(())
}

fn introduce(loaded: &Loaded, addresses: &Addresses) {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "sense-butler starts");
    match &loaded.sources.butler {
        Some(file) => tracing::info!("configuration: {}", file.display()),
        None => tracing::info!("configuration: none found, built-in defaults"),
    }
    tracing::info!("broker: {}", loaded.settings.mqtt.broker_reason);
    for (name, address) in &addresses.mqtt {
        tracing::info!("MQTT on {address} (listener `{name}`)");
    }
    for address in &addresses.rest {
        tracing::info!("REST on http{}://{address}", if loaded.settings.rest.tls.is_some() { "s" } else { "" });
    }
    for door in &addresses.udp {
        tracing::info!("UDP on {} ({:?} events)", door.address, door.port);
    }
    for address in &addresses.notifications {
        tracing::info!("notifications of Qlik Sense on http://{address}");
    }
}
