//! Options that several verbs share, and the address they are written in.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::Args;

/// `HOST:PORT` as written on the command line: `localhost:1883`, `0.0.0.0:8080`, `[::1]:1883`, or a bare port (then on `localhost`).
/// `localhost` stands for both 127.0.0.1 and ::1; resolving is left to whoever opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address, without brackets.
    pub host: String,
    /// Port; 0 lets the system choose.
    pub port: u16,
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address: HOST:PORT is expected, e.g. localhost:1883, 0.0.0.0:8080 or [::1]:1883 (ports 0 to 65535)"
)]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.to_owned());
        let (host, port) = text.rsplit_once(':').unwrap_or(("localhost", text));
        let port = port.parse().map_err(|_| wrong())?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').filter(|inside| inside.contains(':')).ok_or_else(wrong)?,
            // Without brackets nobody knows where the address ends and the port begins.
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

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
    /// Qlik Sense Repository Service [default: as in the files, else localhost:4242]
    #[arg(long, value_name = "ADDR")]
    pub qrs: Option<Address>,
    /// Directory for what the program keeps [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Options of `simulate`.
#[derive(Debug, Clone, Args)]
pub struct SimulateOptions {
    /// Where the simulated repository service listens
    #[arg(long, value_name = "ADDR", default_value = "localhost:4242")]
    pub qrs: Address,
    /// Where task events are sent
    #[arg(long, value_name = "ADDR", default_value = "localhost:9998")]
    pub udp: Address,
    /// Where session and connection events are sent
    #[arg(long, value_name = "ADDR", default_value = "localhost:9997")]
    pub udp_sessions: Address,
    /// Tasks, durations and outcomes [default: a built-in sample site]
    #[arg(long, value_name = "FILE")]
    pub tasks: Option<PathBuf>,
    /// Directory the certificates are written to, as Qlik exports them (client.pem, client_key.pem, root.pem)
    #[arg(long, value_name = "DIR", default_value = "data/simulator")]
    pub certificates: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_the_same() {
        for good in ["localhost:1883", "0.0.0.0:8080", "[::1]:1883", "sense.example.com:4242", "localhost:0"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        assert_eq!("1883".parse::<Address>().unwrap().to_string(), "localhost:1883");
    }

    #[test]
    fn what_is_no_address_is_explained() {
        for bad in
            ["", "localhost", "localhost:", ":1883", "::1:1883", "[::1]", "[x]:1", "a b:1", "localhost:65536", "[::1:2"]
        {
            let error = bad.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("HOST:PORT is expected"), "{bad}: {error}");
        }
    }
}
