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
            true => "`enable` has no effect, as in Butler: the store is on because `restServerEndpointsEnable.keyValueStore` is",
            false => "`enable` has no effect, as in Butler: `restServerEndpointsEnable.keyValueStore: true` switches the store on",
        };
        section.report().warn(&section.path_of("enable"), message);
    }
    section.finish();
    values
}
