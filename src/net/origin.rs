//! Web pages: which of them may call a door of this program (design, "Closed doors by default").
//!
//! A browser sends `Origin`, and a page cannot change it; programs send none. On a loopback address `Host` must name this machine, because a
//! name that an attacker's DNS points to 127.0.0.1 does not. Whether an address is loopback is asked of the accepted connection, not of the
//! configuration: a door on 0.0.0.0 has a loopback side too.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Our end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Here {
    /// The address of ours that was called.
    pub local: SocketAddr,
    /// Whether over TLS.
    pub tls: bool,
}

/// What is allowed beyond the door's own names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowed {
    origins: Vec<String>,
    hosts: Vec<String>,
    written_host: String,
}

impl Allowed {
    /// `origins`: scheme, host and port of web pages; `hosts`: further names of this machine; `written_host`: the door's host as the
    /// administrator wrote it.
    pub fn new(origins: &[String], hosts: &[String], written_host: &str) -> Self {
        let tidy = |texts: &[String]| texts.iter().map(|text| text.trim_end_matches('/').to_owned()).collect();
        Self { origins: tidy(origins), hosts: tidy(hosts), written_host: written_host.to_owned() }
    }

    /// Whether an origin was allowed by name (and gets the CORS headers a browser needs).
    pub fn lists_origin(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }

    /// Whether a page of this origin may call.
    pub fn passes_origin(&self, here: Here, origin: &str) -> bool {
        self.lists_origin(origin) || self.is_own_origin(here, origin)
    }

    /// Whether a request with this `Host` may have been meant for us.
    pub fn passes_host(&self, here: Here, host: Option<&str>) -> bool {
        !here.local.ip().to_canonical().is_loopback() || host.is_some_and(|host| self.names_us(here, host))
    }

    /// Our own origin: our scheme, a name of ours and the port called.
    fn is_own_origin(&self, here: Here, origin: &str) -> bool {
        let (scheme, default_port) = if here.tls { ("https://", 443) } else { ("http://", 80) };
        let Some((head, rest)) = origin.split_at_checked(scheme.len()) else { return false };
        let (name, port) = split_port(rest);
        head.eq_ignore_ascii_case(scheme)
            && port.map_or(Some(default_port), |port| port.parse().ok()) == Some(here.local.port())
            && self.names_us(here, name)
    }

    /// Whether a name, with or without port, is one of this machine's for this connection.
    fn names_us(&self, here: Here, host: &str) -> bool {
        let (name, _) = split_port(host);
        let local = here.local.ip().to_canonical();
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return address.to_canonical() == local || (local.is_loopback() && is_plain_loopback(address));
        }
        (local.is_loopback() && name.eq_ignore_ascii_case("localhost"))
            || (!name.is_empty() && name.eq_ignore_ascii_case(&self.written_host))
            || self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name) || allowed.eq_ignore_ascii_case(host))
    }
}

/// 127.0.0.1 and ::1, the two addresses `localhost` stands for.
fn is_plain_loopback(address: IpAddr) -> bool {
    address == IpAddr::from([127, 0, 0, 1]) || address == IpAddr::from(Ipv6Addr::LOCALHOST)
}

/// `name[:port]`, where a name may be `[v6]`.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    }
}
