//! Which machines a firewall lets in: `--node`.

use std::{fmt, io, str::FromStr};

use crate::config::{
    address::{self, AddressError},
    settings::Network,
};

/// One value of `--node`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// `any`: every machine.
    Any,
    /// `localsubnet`: the machines of this one's own network.
    LocalSubnet,
    /// An address or a network.
    Network(Network),
    /// A name; firewalls know addresses only, so it is looked up when the rules are made.
    Name(String),
}

impl FromStr for Node {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let network = text.parse().map(Self::Network);
        match text.to_ascii_lowercase().as_str() {
            "any" => Ok(Self::Any),
            "localsubnet" => Ok(Self::LocalSubnet),
            // What looks like a network and is none is a slip, not a name.
            _ if text.contains('/') => network,
            _ => network.or_else(|_| address::check_host(text).map(|()| Self::Name(text.to_owned()))),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::LocalSubnet => f.write_str("localsubnet"),
            Self::Network(network) => f.write_str(&shown(*network)),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Node {
    /// What `netsh advfirewall` calls it. May block on a name service.
    ///
    /// # Errors
    /// If the name stands for no address.
    pub fn remote_ip(&self) -> io::Result<Vec<String>> {
        match self {
            Self::Name(name) => Ok(address::look_up(name)?.into_iter().map(|address| address.to_string()).collect()),
            other => Ok(vec![other.to_string()]),
        }
    }
}

/// One address without the length of its prefix.
fn shown(network: Network) -> String {
    let whole = if network.address.is_ipv4() { 32 } else { 128 };
    if network.prefix == whole { network.address.to_string() } else { network.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_and_shown_as_the_firewall_wants_them() {
        let cases = [
            ("any", "any"),
            ("ANY", "any"),
            ("LocalSubnet", "localsubnet"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("fd00::7", "fd00::7"),
            ("localhost", "127.0.0.1,::1"),
        ];
        for (text, shown) in cases {
            assert_eq!(text.parse::<Node>().unwrap().remote_ip().unwrap().join(","), shown, "{text}");
        }
        for wrong in ["", "10.0.0.0/33", "a b", "mqtt://x", "x\" dir=out"] {
            assert!(wrong.parse::<Node>().is_err(), "{wrong}");
        }
        assert!("no.such.name.invalid".parse::<Node>().unwrap().remote_ip().is_err());
    }
}
