//! How much room the program's files take and how much is left, looked up when somebody asks.
//!
//! Nothing is shown of what is kept in memory, nor of a file that is not there.

use std::{
    fmt::Error,
    fs,
    path::{Path, PathBuf},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::{config::Loaded, telemetry::metrics::Registry};

/// The stores by name, each with its directory and its file there.
#[derive(Debug)]
struct Stores(Vec<(&'static str, PathBuf, &'static str)>);

/// Makes them visible.
pub(super) fn register(loaded: &Loaded, registry: &mut Registry) {
    let own = loaded.keep_dir().map(|directory| ("sense", directory.to_path_buf(), "sense.redb"));
    let broker = loaded.broker.storage.directory.clone().map(|directory| ("broker", directory, "broker.redb"));
    registry.register_collector(Box::new(Stores(own.into_iter().chain(broker).collect())));
}

impl Collector for Stores {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let help = "Size of a store's file, bytes";
        let size = |directory: &Path, file: &str| fs::metadata(directory.join(file)).map(|found| found.len()).ok();
        self.show(&mut encoder, "sense_butler_store_file_bytes", help, size)?;
        let help = "Room left on the disk a store's file is on, bytes";
        let left = |directory: &Path, _: &str| fs4::available_space(directory).ok();
        self.show(&mut encoder, "sense_butler_store_disk_free_bytes", help, left)
    }
}

impl Stores {
    fn show(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        look: impl Fn(&Path, &str) -> Option<u64>,
    ) -> Result<(), Error> {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (store, directory, file) in &self.0 {
            let Some(bytes) = look(directory, file) else { continue };
            ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX))
                .encode(family.encode_family(&[("store", *store)])?)?;
        }
        Ok(())
    }
}
