//! Who may come in, decided before anything else is done with a request.
//!
//! Three rules (design, "Closed doors by default"): a web page of another origin gets 403 whatever it asks; on a loopback address the `Host` header
//! must name this machine (a name that an attacker's DNS points to 127.0.0.1 does not); publishing, starting and looking at users or metrics is for
//! loopback and `restServerConfig.allowedSources`. Programs (load scripts, curl) send no `Origin` and are judged by their address alone.
//!
//! Whether an address is loopback is asked of the accepted connection, not of the configuration: a listener on 0.0.0.0 has a loopback side too.

use std::net::{IpAddr, SocketAddr};

use super::fault::{Fault, Kind};
use crate::config::settings::{Network, RestSettings};

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Who called.
    pub peer: SocketAddr,
    /// The address of ours that was called.
    pub local: SocketAddr,
    /// Whether over TLS.
    pub tls: bool,
}

/// The rules, as configured.
#[derive(Debug, Clone)]
pub struct Doors {
    sources: Vec<Network>,
    origins: Vec<String>,
    hosts: Vec<String>,
    written_host: String,
}

/// What the headers of a request say about where it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Whence<'a> {
    /// `Origin`
    pub origin: Option<&'a str>,
    /// `Host`
    pub host: Option<&'a str>,
}

impl Doors {
    /// The rules of a configuration.
    pub fn new(settings: &RestSettings) -> Self {
        let tidy = |texts: &[String]| texts.iter().map(|text| text.trim_end_matches('/').to_owned()).collect();
        Self {
            sources: settings.allowed_sources.clone(),
            origins: tidy(&settings.allowed_origins),
            hosts: tidy(&settings.allowed_hosts),
            written_host: settings.host.clone(),
        }
    }

    /// Whether a peer may publish, start and look: loopback and `allowedSources`.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        peer.is_loopback() || self.sources.iter().any(|network| network.contains(peer))
    }

    /// The `Origin` and `Host` rules.
    ///
    /// # Errors
    /// 403, with what to write where if the refusal is not wanted.
    pub fn check(&self, caller: Caller, whence: Whence<'_>) -> Result<(), Fault> {
        if let Some(origin) = whence.origin
            && !self.origin_passes(caller, origin)
        {
            let shown: String = origin.chars().take(100).collect();
            return Err(Fault::new(
                Kind::Forbidden,
                format!(
                    "a web page of {shown} may not call this server; if it should, add its origin to restServerConfig.allowedOrigins"
                ),
            ));
        }
        if caller.local.ip().to_canonical().is_loopback()
            && !whence.host.is_some_and(|host| self.names_us(caller, host))
        {
            return Err(Fault::new(
                Kind::Forbidden,
                "the Host header names neither localhost nor this address; if that name is right, add it to restServerConfig.allowedHosts",
            ));
        }
        Ok(())
    }

    /// For routes that only trusted peers may use.
    ///
    /// # Errors
    /// 403, with the line to add.
    pub fn check_source(&self, caller: Caller) -> Result<(), Fault> {
        if self.trusts(caller.peer.ip()) {
            return Ok(());
        }
        let peer = caller.peer.ip().to_canonical();
        Err(Fault::new(
            Kind::Forbidden,
            format!("{peer} may not do this; if it should, add it to restServerConfig.allowedSources"),
        ))
    }

    /// Whether an origin was allowed by name (and gets the CORS headers a browser needs).
    pub fn origin_is_listed(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }

    fn origin_passes(&self, caller: Caller, origin: &str) -> bool {
        self.origin_is_listed(origin) || self.origin_is_own(caller, origin)
    }

    /// Our own origin: our scheme, a name of ours and the port called.
    fn origin_is_own(&self, caller: Caller, origin: &str) -> bool {
        let (scheme, default_port) = if caller.tls { ("https://", 443) } else { ("http://", 80) };
        let Some((head, rest)) = origin.split_at_checked(scheme.len()) else { return false };
        let (name, port) = split_port(rest);
        head.eq_ignore_ascii_case(scheme)
            && port.map_or(Some(default_port), |port| port.parse().ok()) == Some(caller.local.port())
            && self.names_us(caller, name)
    }

    /// Whether a name, with or without port, is one of this machine's for this connection.
    fn names_us(&self, caller: Caller, host: &str) -> bool {
        let (name, _) = split_port(host);
        let local = caller.local.ip().to_canonical();
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return address.to_canonical() == local || (local.is_loopback() && is_plain_loopback(address));
        }
        (local.is_loopback() && name.eq_ignore_ascii_case("localhost"))
            || name.eq_ignore_ascii_case(&self.written_host)
            || self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name) || allowed.eq_ignore_ascii_case(host))
    }
}

/// 127.0.0.1 and ::1, the two addresses `localhost` stands for.
fn is_plain_loopback(address: IpAddr) -> bool {
    address == IpAddr::from([127, 0, 0, 1]) || address == IpAddr::from(std::net::Ipv6Addr::LOCALHOST)
}

/// `name[:port]`, where a name may be `[v6]`.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::state::tests::rest_settings;

    fn caller(peer: &str, local: &str) -> Caller {
        Caller { peer: peer.parse().unwrap(), local: local.parse().unwrap(), tls: false }
    }

    #[test]
    fn origins() {
        let mut settings = rest_settings();
        settings.allowed_origins = vec!["https://sense.example.com/".into()];
        let doors = Doors::new(&settings);
        let local = caller("127.0.0.1:50000", "127.0.0.1:8080");
        for (origin, passes) in [
            ("http://localhost:8080", true),
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:8080", true),
            ("HTTP://LOCALHOST:8080", true),
            ("https://sense.example.com", true),
            ("https://localhost:8080", false),
            ("http://localhost:8081", false),
            ("http://localhost", false),
            ("http://evil.example:8080", false),
            ("http://localhost.evil.example:8080", false),
            ("null", false),
            ("", false),
            ("http://", false),
            ("é://é", false),
        ] {
            let whence = Whence { origin: Some(origin), host: Some("localhost:8080") };
            assert_eq!(doors.check(local, whence).is_ok(), passes, "{origin}");
        }
    }

    #[test]
    fn hosts_on_loopback() {
        let mut settings = rest_settings();
        settings.allowed_hosts = vec!["qlik1".into()];
        let doors = Doors::new(&settings);
        let local = caller("127.0.0.1:50000", "127.0.0.1:8080");
        for (host, passes) in [
            (Some("localhost"), true),
            (Some("LocalHost:8080"), true),
            (Some("127.0.0.1:8080"), true),
            (Some("[::1]:8080"), true),
            (Some("[::1]"), true),
            (Some("qlik1:8080"), true),
            (Some("evil.example:8080"), false),
            (Some("localhost.evil.example"), false),
            (Some("10.0.0.1"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(doors.check(local, Whence { origin: None, host }).is_ok(), passes, "{host:?}");
        }
        let far = caller("10.0.0.7:50000", "10.0.0.1:8080");
        assert!(doors.check(far, Whence { origin: None, host: Some("whatever") }).is_ok(), "no Host rule off loopback");
        let rebound = Whence { origin: Some("http://evil.example:8080"), host: Some("evil.example:8080") };
        assert!(doors.check(far, rebound).is_err(), "an origin is not ours because Host repeats it");
    }

    #[test]
    fn sources() {
        let mut settings = rest_settings();
        settings.allowed_sources = vec![Network { address: "10.1.0.0".parse().unwrap(), prefix: 16 }];
        let doors = Doors::new(&settings);
        for (peer, trusted) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(doors.trusts(peer.parse().unwrap()), trusted, "{peer}");
        }
    }
}
