//! `sense-butler run`: broker, bridge and REST until stopped.

use std::io::{self, Write as _};

use super::{Exit, RunOptions, complain, in_runtime, not_built, refuse};
use crate::{
    app::{self, Addresses, App},
    config::{self, Loaded},
    telemetry::logging,
};

/// Runs until stopped. The order: configuration without touching the network, then every socket, then work.
pub fn run(options: &RunOptions) -> Exit {
    let load = options.files.load_options(&options.addresses);
    let loaded = match config::load(&load) {
        Ok(loaded) => loaded,
        Err(errors) => {
            let exit = refuse(&errors);
            if let Some(directory) = load.last_good() {
                // Nobody is left to tell when standard error is closed.
                drop(writeln!(
                    io::stderr(),
                    "\nCopies of the files that were good last are in {}.",
                    directory.display()
                ));
            }
            return exit;
        }
    };
    let _log = match logging::init(&loaded.settings.log) {
        Ok(guard) => guard,
        Err(error) => return complain(error),
    };
    in_runtime(serve(loaded))
}

async fn serve(loaded: Loaded) -> Exit {
    // Before anything is bound: a signal that comes early stops in order, too.
    let asked = app::signal();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let app = match App::build(&loaded) {
        Ok(app) => app,
        Err(error) => return not_built(&error),
    };
    introduce(&loaded, &app.addresses());
    match app.run(asked).await {
        Ok(()) => Exit::Done,
        Err(fatal) => complain(fatal),
    }
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
