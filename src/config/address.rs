//! Addresses as people write them: `localhost:1883`, `0.0.0.0:8883`, `[::1]:1883`, networks `10.0.0.0/8`.
//!
//! Invariant: only [`look_up`] asks the system for a name, and nothing that reads the configuration calls it.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    str::FromStr,
};

use super::settings::Network;

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `:port`.
    #[error("`{0}` has no port; write `host:port`, e.g. `localhost:1883` or `[::1]:1883`")]
    NoPort(String),
    /// The port is no number up to 65535.
    #[error("`{0}` is not a port (0 to 65535)")]
    Port(String),
    /// The host is neither an address nor a possible name.
    #[error("`{0}` is neither an address nor a host name; write the host alone, without `//` or a path")]
    Host(String),
    /// A name where an address is needed.
    #[error(
        "`{0}` is a name; a listener needs an address, because names are not looked up at start: `localhost`, `0.0.0.0`, or an address of this machine"
    )]
    Name(String),
    /// No network.
    #[error("`{0}` is no address or network; write e.g. `10.1.2.3` or `10.0.0.0/8`")]
    Network(String),
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Address or name, without brackets.
    pub host: String,
    /// Port; 0 lets the system choose.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
        let host = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
            Some(inner) if inner.parse::<Ipv6Addr>().is_ok() => inner,
            Some(_) => return Err(AddressError::Host(host.to_owned())),
            None if host.contains(':') => return Err(AddressError::NoPort(text.to_owned())),
            None => host,
        };
        check_host(host)?;
        let port = port.parse().map_err(|_| AddressError::Port(port.to_owned()))?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl HostPort {
    /// The addresses to bind: both loopbacks for `localhost`, one otherwise.
    ///
    /// # Errors
    /// For any other name.
    pub fn bind_addresses(&self) -> Result<Vec<SocketAddr>, AddressError> {
        let addresses = addresses_of(&self.host).ok_or_else(|| AddressError::Name(self.host.clone()))?;
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, self.port)).collect())
    }
}

/// The addresses a host stands for without looking a name up: `localhost` is both loopbacks; `None` for other names.
pub fn addresses_of(host: &str) -> Option<Vec<IpAddr>> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    host.trim_start_matches('[').trim_end_matches(']').parse().ok().map(|address| vec![address])
}

/// The addresses to bind for a host: as [`addresses_of`], and for any other name what the system says, IPv4 first, at least one.
///
/// # Errors
/// What the system says. May block on a name service.
pub fn look_up(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Some(known) = addresses_of(host) {
        return Ok(known);
    }
    let mut found: Vec<IpAddr> = (host, 0).to_socket_addrs()?.map(|address| address.ip()).collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() { Err(io::ErrorKind::AddrNotAvailable.into()) } else { Ok(found) }
}

/// Whether a host can only be reached from this machine. A name other than `localhost` is not known to be.
pub fn is_loopback(host: &str) -> bool {
    addresses_of(host).is_some_and(|addresses| addresses.iter().all(|address| address.to_canonical().is_loopback()))
}

/// Whether a host means this machine: loopback, every address (`0.0.0.0`, `::`), one of its own, or its name, with or without a domain.
pub fn is_this_machine(host: &str, own_name: &str, own_addresses: &[IpAddr]) -> bool {
    let own = |address: IpAddr| address.is_unspecified() || own_addresses.contains(&address.to_canonical());
    let address = host.parse::<IpAddr>();
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_lowercase();
    let bare = !host.contains('.') || !own_name.contains('.');
    let named = address.is_err()
        && !own_name.is_empty()
        && (host.eq_ignore_ascii_case(own_name) || (bare && first(host) == first(own_name)));
    is_loopback(host) || address.is_ok_and(own) || named
}

/// A possible host: an address, or letters, digits, `.`, `-`, `_` (Windows has names with `_`).
///
/// # Errors
/// Anything else, e.g. `mqtt://host` or a text with blanks.
pub fn check_host(host: &str) -> Result<(), AddressError> {
    let plausible = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.parse::<IpAddr>().is_ok() || (!host.is_empty() && host.len() <= 253 && host.chars().all(plausible)) {
        Ok(())
    } else {
        Err(AddressError::Host(host.to_owned()))
    }
}

impl FromStr for Network {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Network(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|bits| *bits <= longest).ok_or_else(wrong)?,
            None => longest,
        };
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port() {
        let good = [("localhost:1883", 2), ("127.0.0.1:0", 1), ("[::1]:1883", 1), ("0.0.0.0:8883", 1), ("[::]:1", 1)];
        for (text, addresses) in good {
            let parsed: HostPort = text.parse().unwrap();
            assert_eq!(parsed.bind_addresses().unwrap().len(), addresses, "{text}");
            assert_eq!(parsed.to_string(), text);
        }
        for bad in ["", "localhost", "::1:1883", "[::1]", "a b:1", "mqtt://x:1", ":1", "x:65536", "x:", "[x]:1"] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
        assert!("sense:1".parse::<HostPort>().unwrap().bind_addresses().is_err());
    }

    #[test]
    fn hosts_to_bind() {
        let v4: IpAddr = Ipv4Addr::LOCALHOST.into();
        let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
        assert_eq!(look_up("LocalHost").unwrap(), [v4, v6]);
        assert_eq!(look_up("[::1]").unwrap(), [v6]);
        assert!(look_up("no.such.name.invalid").is_err());
    }

    #[test]
    fn this_machine_or_another() {
        for host in
            ["localhost", "LOCALHOST", "127.0.0.1", "::1", "0.0.0.0", "::", "sense1", "SENSE1", "sense1.corp.example"]
        {
            assert!(is_this_machine(host, "Sense1", &[]), "{host}");
        }
        for host in ["sense2", "10.0.0.1", "broker.corp.example", "sense1x"] {
            assert!(!is_this_machine(host, "Sense1", &["10.0.0.2".parse().unwrap()]), "{host}");
        }
        assert!(is_this_machine("10.0.0.2", "", &["10.0.0.2".parse().unwrap()]));
        assert!(!is_this_machine("mqtt.plant.example", "mqtt.office.example", &[]));
        assert!(!is_this_machine("sense1", "", &[]));
        assert!(!is_loopback("0.0.0.0") && !is_loopback("sense1") && is_loopback("127.0.0.2"));
    }

    #[test]
    fn networks() {
        for (text, prefix) in [("10.0.0.0/8", 8), ("10.1.2.3", 32), ("fd00::/8", 8), ("::1", 128)] {
            assert_eq!(text.parse::<Network>().unwrap().prefix, prefix, "{text}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "sense1", "10.0.0.0/", "::/129"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
