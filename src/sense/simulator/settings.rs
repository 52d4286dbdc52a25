//! What can be chosen about the simulator.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    Profile, SimulatorError, Targets, TlsChoices,
    plan::{DEFAULT_SITE, Plan},
};

/// Port of the repository on a real site.
pub const QRS_PORT: u16 = 4242;
/// Port of the control door.
pub const CONTROL_PORT: u16 = 14_242;

/// How the repository is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// TLS with a client certificate, as on a real site; the certificates are in this directory, or will be.
    MutualTls {
        /// The directory.
        directory: PathBuf,
    },
    /// Plain HTTP, for measurements.
    Plain,
}

/// Where the site's description is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SiteSource {
    /// In the program; the text of `config/simulator.yaml`.
    #[default]
    BuiltIn,
    /// In a file.
    File(PathBuf),
    /// Here.
    Text(String),
}

impl SiteSource {
    /// Reads it.
    pub fn plan(&self) -> Result<Plan, SimulatorError> {
        match self {
            Self::BuiltIn => Plan::parse(DEFAULT_SITE, "the built-in description"),
            Self::File(path) => Plan::read(path),
            Self::Text(text) => Plan::parse(text, "the given text"),
        }
    }
}

/// Everything that can be chosen.
#[derive(Debug, Clone)]
pub struct SimulatorSettings {
    /// Where the repository listens; port 0: any free one.
    pub qrs: Vec<SocketAddr>,
    /// Where the control door listens, on the loopback; `None`: there is none.
    pub control: Option<SocketAddr>,
    /// With or without TLS.
    pub transport: Transport,
    /// Name in the server certificate; `None`: this machine's. `localhost` and both loopback addresses are always in it.
    pub host: Option<String>,
    /// What is odd about TLS, if anything.
    pub tls: TlsChoices,
    /// The site.
    pub site: SiteSource,
    /// Where datagrams go.
    pub targets: Targets,
    /// Which appenders are installed.
    pub profile: Profile,
    /// Seed of all chance; `None`: another one each time.
    pub seed: Option<u64>,
    /// How fast the site's clock runs, 0.001 to 10,000; 1: as fast as ours.
    pub speed: f64,
    /// Factor on how often things happen by themselves, 0 to 1,000; 0: never.
    pub rate: f64,
    /// Whether requests to the repository are events, too.
    pub show_requests: bool,
}

impl SimulatorSettings {
    /// The usual ports on the loopback, certificates in `directory`, the built-in site, nobody to send to.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let (v4, v6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        Self {
            qrs: vec![(v4, QRS_PORT).into(), (v6, QRS_PORT).into()],
            control: Some((v4, CONTROL_PORT).into()),
            transport: Transport::MutualTls { directory: directory.into() },
            host: None,
            tls: TlsChoices::default(),
            site: SiteSource::BuiltIn,
            targets: Targets::default(),
            profile: Profile::default(),
            seed: None,
            speed: 1.0,
            rate: 1.0,
            show_requests: false,
        }
    }

    pub(super) fn check(&self) -> Result<(), SimulatorError> {
        if self.qrs.is_empty() {
            return Err(SimulatorError::NoAddress);
        }
        if let Some(address) = self.control
            && !address.ip().is_loopback()
        {
            return Err(SimulatorError::ControlNotLocal(address));
        }
        range("speed", self.speed, 0.001..=10_000.0, "0.001 to 10000")?;
        range("rate", self.rate, 0.0..=1_000.0, "0 to 1000")
    }
}

fn range(
    option: &'static str,
    value: f64,
    allowed: std::ops::RangeInclusive<f64>,
    range: &'static str,
) -> Result<(), SimulatorError> {
    if allowed.contains(&value) { Ok(()) } else { Err(SimulatorError::Range { option, value, range }) }
}
