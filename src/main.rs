//! Parse, run, exit code.
//!
//! Exit codes: 0 done or stopped in order; 1 failed to start or to do what was asked; 64 wrong usage or bad configuration.

use std::process::ExitCode;

use sense_butler::{cli, telemetry};

fn main() -> ExitCode {
    // Fails only if a provider is there already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    telemetry::panics::install();
    match cli::parse(std::env::args_os()) {
        Ok(command) => cli::run(command).into(),
        Err(exit) => exit.into(),
    }
}
