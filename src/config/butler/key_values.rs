//! `keyValueStore`

use crate::{config::walk::Section, keep::values::ValueSettings};

/// `offered`: whether its endpoint is on, which is what counts, as in Butler.
pub(super) fn decode(section: Section<'_>, offered: bool) -> ValueSettings {
    let default = ValueSettings::default();
    let values = ValueSettings {
        offered,
        durable: section.flag("durable", default.durable),
        max_namespaces: section.number("maxNamespaces", 1..=1_000_000, default.max_namespaces),
        max_keys: section.number("maxKeysPerNamespace", 1..=1_000_000, default.max_keys),
        max_value: section.number("maxValueBytes", 1..=32 << 20, default.max_value),
        max_bytes: section.number("maxBytes", 65_536..=1 << 30, default.max_bytes),
    };
    let enable = section.flag("enable", offered);
    if enable != offered && section.has("enable") {
        let message = match offered {
            true => {
                "`enable` has no effect, as in Butler: the store is on because `restServerEndpointsEnable.keyValueStore` is"
            }
            false => {
                "`enable` has no effect, as in Butler: `restServerEndpointsEnable.keyValueStore: true` switches the store on"
            }
        };
        section.report().warn(&section.path_of("enable"), message);
    }
    section.finish();
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        LoadOptions, Loaded, load,
        samples::{Dir, root},
    };

    fn loaded(text: &str) -> Loaded {
        let dir = Dir::new();
        load(&LoadOptions { config: Some(dir.write("butler.yaml", text)), ..dir.options() }).unwrap()
    }

    /// Whether it says that `enable` has no effect.
    fn speaks(loaded: &Loaded) -> bool {
        loaded.warnings.iter().any(|warning| warning.to_string().contains("`enable` has no effect, as in Butler"))
    }

    #[test]
    fn limits_and_the_switch() {
        let sample = std::fs::read_to_string(root().join("config/samples/valid/key-values.yaml")).unwrap();
        let small = loaded(&sample);
        let limits = ValueSettings {
            offered: true,
            durable: false,
            max_namespaces: 3,
            max_keys: 20,
            max_value: 4_096,
            max_bytes: 65_536,
        };
        assert_eq!(small.settings.values, limits);
        assert!(speaks(&small));
        let usual = loaded("Butler:\n  logLevel: info\n");
        assert_eq!(usual.settings.values, ValueSettings::default());
        assert!(!speaks(&usual), "{:?}", usual.warnings);
        let off =
            loaded("Butler:\n  restServerEndpointsEnable: {keyValueStore: false}\n  keyValueStore: {enable: true}\n");
        assert!(!off.settings.values.offered && speaks(&off));
        let closed = loaded("Butler:\n  restServerConfig: {enable: false}\n");
        assert!(!closed.settings.values.offered && !speaks(&closed), "{:?}", closed.warnings);
    }
}
