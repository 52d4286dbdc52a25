//! Networks of addresses, as they stand in lists of who may call.

use std::net::IpAddr;

/// An address or a network in CIDR form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Its address.
    pub address: IpAddr,
    /// Length of the prefix, bits (32 or 128 for one address).
    pub prefix: u8,
}

impl Network {
    /// Whether it contains an address. IPv4-mapped IPv6 addresses count as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(addr)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                u32::from(net).checked_shr(shift).unwrap_or(0) == u32::from(addr).checked_shr(shift).unwrap_or(0)
            }
            (IpAddr::V6(net), IpAddr::V6(addr)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                u128::from(net).checked_shr(shift).unwrap_or(0) == u128::from(addr).checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_they_should() {
        let network = |address: &str, prefix| Network { address: address.parse().unwrap(), prefix };
        let inside = |net: Network, address: &str| net.contains(address.parse().unwrap());
        assert!(inside(network("10.1.0.0", 16), "10.1.255.1"));
        assert!(!inside(network("10.1.0.0", 16), "10.2.0.1"));
        assert!(inside(network("0.0.0.0", 0), "203.0.113.9"));
        assert!(inside(network("10.1.0.7", 32), "::ffff:10.1.0.7"));
        assert!(inside(network("fd00::", 8), "fd12::1"));
        assert!(!inside(network("fd00::", 8), "10.0.0.1"));
    }
}
