//! Who may come in, decided before anything else is done with a request.
//!
//! Three rules (design, "Closed doors by default"): a web page of another origin gets 403 whatever it asks; on a loopback address the `Host` header
//! must name this machine (a name that an attacker's DNS points to 127.0.0.1 does not); publishing, starting and looking at users or metrics is for
//! loopback and `restServerConfig.allowedSources`. Programs (load scripts, curl) send no `Origin` and are judged by their address alone.
//! The rules for `Origin` and `Host` themselves are those of [`crate::net::origin`].

use std::net::{IpAddr, SocketAddr};

use super::fault::{Fault, Kind};
use crate::{
    config::settings::{Network, RestSettings},
    net::origin::{Allowed, Here},
};

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
    allowed: Allowed,
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
        Self {
            sources: settings.allowed_sources.clone(),
            allowed: Allowed::new(&settings.allowed_origins, &settings.allowed_hosts, &settings.host),
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
        let here = Here { local: caller.local, tls: caller.tls };
        if let Some(origin) = whence.origin
            && !self.allowed.passes_origin(here, origin)
        {
            let shown: String = origin.chars().take(100).collect();
            return Err(Fault::new(
                Kind::Forbidden,
                format!(
                    "a web page of {shown} may not call this server; if it should, add its origin to restServerConfig.allowedOrigins"
                ),
            ));
        }
        if !self.allowed.passes_host(here, whence.host) {
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
        self.allowed.lists_origin(origin)
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
