//! Options that several verbs share.

use std::path::PathBuf;

use clap::Args;

pub use crate::config::HostPort as Address;
use crate::config::{LoadOptions, Overrides};

/// Which files to read.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigFiles {
    /// Butler's configuration file [default: config/butler.yaml or config/production.yaml in the working directory, beside the program or
    /// in the data directory]
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Configuration of the built-in broker [default: broker.toml beside the configuration file; none: one listener at localhost:1883]
    #[arg(long, value_name = "FILE")]
    pub broker_config: Option<PathBuf>,
}

/// Addresses and the data directory; each overrides the files.
#[derive(Debug, Clone, Default, Args)]
pub struct Addresses {
    /// Listener of the built-in MQTT broker [default: as in the files, else localhost:1883]
    #[arg(long, value_name = "ADDR")]
    pub mqtt: Option<Address>,
    /// Listener of the REST API [default: as in the files, else localhost:8080]
    #[arg(long, value_name = "ADDR")]
    pub rest: Option<Address>,
    /// UDP port for task events of Sense [default: as in the files, else localhost:9998]
    #[arg(long, value_name = "ADDR")]
    pub udp: Option<Address>,
    /// UDP port for session and connection events of Sense [default: as in the files, else localhost:9997]
    #[arg(long, value_name = "ADDR")]
    pub udp_sessions: Option<Address>,
    /// Qlik Sense Repository Service [default: as in the files; `demo` simulates one at localhost:4242]
    #[arg(long, value_name = "ADDR")]
    pub qrs: Option<Address>,
    /// Directory for what the program keeps [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

impl Addresses {
    /// What overrides the files.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            mqtt: self.mqtt.clone(),
            rest: self.rest.clone(),
            udp: self.udp.clone(),
            udp_sessions: self.udp_sessions.clone(),
            qrs: self.qrs.clone(),
            data: self.data.clone(),
        }
    }
}

impl ConfigFiles {
    /// What to load, with these files and these overrides.
    pub fn load_options(&self, addresses: &Addresses) -> LoadOptions {
        let found = LoadOptions::from_environment(addresses.overrides(), false);
        LoadOptions { config: self.config.clone(), broker_config: self.broker_config.clone(), ..found }
    }
}
