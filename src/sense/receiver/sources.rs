//! `allowedSources`: which addresses may send datagrams, and which may call with notifications. Host names are resolved at start and every five minutes, never on the hot path.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{net::lookup_host, time::interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Time between two resolutions.
const PERIOD: Duration = Duration::from_secs(300);

/// The allow list; absent, everybody may send.
#[derive(Debug)]
pub(in crate::sense) struct Sources(Option<List>);

#[derive(Debug)]
struct List {
    /// The key of the list, for the log.
    key: &'static str,
    addresses: HashSet<IpAddr>,
    names: Vec<String>,
    admitted: ArcSwap<HashSet<IpAddr>>,
}

impl Sources {
    pub(in crate::sense) fn new(key: &'static str, allowed: Option<Vec<String>>) -> Self {
        Self(allowed.map(|entries| {
            let parse = |entry: &String| entry.trim().parse::<IpAddr>();
            let addresses: HashSet<IpAddr> =
                entries.iter().filter_map(|e| Some(parse(e).ok()?.to_canonical())).collect();
            let names = entries.into_iter().filter(|entry| parse(entry).is_err()).collect();
            let admitted = ArcSwap::from_pointee(addresses.clone());
            List { key, addresses, names, admitted }
        }))
    }

    /// Whether an address (IPv4 in its canonical form) may send.
    pub(in crate::sense) fn admits(&self, address: IpAddr) -> bool {
        self.0.as_ref().is_none_or(|list| list.admitted.load().contains(&address))
    }

    /// Resolves the names again and again until `stop`. A name that cannot be resolved keeps the addresses it had.
    pub(in crate::sense) async fn keep_resolved(&self, stop: CancellationToken) {
        let Some(list) = self.0.as_ref().filter(|list| !list.names.is_empty()) else { return };
        let mut known: HashMap<&str, Vec<IpAddr>> = HashMap::new();
        let mut tick = interval(PERIOD);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => list.resolve(&mut known).await,
            }
        }
    }
}

impl List {
    async fn resolve<'a>(&'a self, known: &mut HashMap<&'a str, Vec<IpAddr>>) {
        for name in &self.names {
            match lookup_host((name.trim(), 0)).await {
                Ok(found) => drop(known.insert(name, found.map(|address| address.ip().to_canonical()).collect())),
                Err(error) => warn!(
                    code = "udp_source_unresolved",
                    name,
                    %error,
                    "a name in {} cannot be resolved; what comes from it is dropped unless it was resolved before; correct it, or write the address",
                    self.key
                ),
            }
        }
        let resolved = known.values().flatten().copied();
        self.admitted.store(self.addresses.iter().copied().chain(resolved).collect::<HashSet<_>>().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_list_decides_and_an_empty_one_admits_nobody() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap().to_canonical();
        assert!(Sources::new("udpServerConfig.allowedSources", None).admits(ip("203.0.113.1")));
        assert!(!Sources::new("udpServerConfig.allowedSources", Some(Vec::new())).admits(ip("127.0.0.1")));
        let list = Sources::new(
            "udpServerConfig.allowedSources",
            Some(vec!["10.0.0.1".into(), " ::ffff:10.0.0.2 ".into(), "fd00::1".into()]),
        );
        for admitted in ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2", "fd00::1"] {
            assert!(list.admits(ip(admitted)), "{admitted}");
        }
        assert!(!list.admits(ip("10.0.0.3")));
    }

    #[tokio::test]
    async fn names_are_resolved_and_a_lost_name_keeps_its_addresses() {
        let sources = Sources::new(
            "udpServerConfig.allowedSources",
            Some(vec!["localhost".into(), "no.such.name.invalid".into()]),
        );
        let list = sources.0.as_ref().unwrap();
        let mut known = HashMap::from([("no.such.name.invalid", vec!["10.9.9.9".parse().unwrap()])]);
        assert!(!sources.admits("127.0.0.1".parse().unwrap()));
        list.resolve(&mut known).await;
        assert!(sources.admits("127.0.0.1".parse().unwrap()));
        assert!(sources.admits("10.9.9.9".parse().unwrap()));
    }
}
