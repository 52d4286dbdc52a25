//! All TLS doors of the program: one task looks at their files every few seconds, metrics and health tell how they are.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio_util::sync::CancellationToken;

use super::{
    pem::FileError,
    tls::{Files, Look, TlsDoor},
};

/// How often the files are looked at. New ones are taken at the second look that finds them.
pub const EVERY: Duration = Duration::from_secs(2);
/// From when on a certificate that ends is worth a warning at every start and reload.
const SOON: i64 = 14 * 24 * 3600;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFile {
    file: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDoor {
    door: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    door: String,
    result: &'static str,
}

/// What is known of one certificate file of a door, for people and health.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CertificateState {
    /// The door's name.
    pub door: String,
    /// The file.
    pub file: PathBuf,
    /// The earliest end of validity in it, seconds since 1970 (UTC).
    pub expires: Option<i64>,
    /// Why the files as they are now are not in force, but older ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Debug, Default)]
struct Inner {
    doors: Mutex<Vec<Arc<TlsDoor>>>,
    expiry: Family<ByFile, Gauge>,
    reloads: Family<Reload, Counter>,
    failed: Family<ByDoor, Gauge>,
}

/// The TLS doors. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Certificates(Arc<Inner>);

impl Certificates {
    /// No doors yet.
    pub fn new(registry: &mut Registry) -> Self {
        let inner = Inner::default();
        registry.register(
            "sense_butler_tls_cert_expiry_timestamp_seconds",
            "Earliest end of validity of the certificates in a file in force, seconds since 1970 (UTC)",
            inner.expiry.clone(),
        );
        registry.register(
            "sense_butler_tls_reloads",
            "Times the changed files of a TLS door were taken or refused",
            inner.reloads.clone(),
        );
        registry.register(
            "sense_butler_tls_reload_failed",
            "1 while the files of a TLS door cannot be used and older ones stay in force",
            inner.failed.clone(),
        );
        Self(Arc::new(inner))
    }

    /// Adds a door. Blocks on the disk.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub fn door(&self, name: &str, files: Files) -> Result<Arc<TlsDoor>, FileError> {
        let door = Arc::new(TlsDoor::load(name, files)?);
        self.failed(&door, false);
        self.note(&door);
        self.0.doors.lock().push(Arc::clone(&door));
        Ok(door)
    }

    /// Tells the end of a certificate that belongs to no door (seconds since 1970, UTC), with the others in the metrics.
    pub fn note_end(&self, certificate: &str, end: i64) {
        self.0.expiry.get_or_create(&ByFile { file: certificate.to_owned() }).set(end);
    }

    /// How every certificate is.
    pub fn state(&self) -> Vec<CertificateState> {
        let of = |door: &Arc<TlsDoor>| {
            let problem = door.problem().map(|why| why.to_string());
            let name = door.name().to_owned();
            door.certificates().into_iter().map(move |certificate| CertificateState {
                door: name.clone(),
                file: certificate.file,
                expires: certificate.expires,
                problem: problem.clone(),
            })
        };
        self.0.doors.lock().iter().flat_map(of).collect()
    }

    /// Follows the files until the stop. All doors are added before.
    pub async fn watch(self, stop: CancellationToken) {
        if self.0.doors.lock().is_empty() {
            return stop.cancelled().await;
        }
        let mut interval = tokio::time::interval(EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            let certificates = self.clone();
            // A panic in there is counted by the hook, and the next look comes all the same.
            let _ = tokio::task::spawn_blocking(move || certificates.look()).await;
        }
    }

    fn look(&self) {
        let doors = self.0.doors.lock().clone();
        for door in doors {
            let look = door.look();
            self.tell(&door, &look);
        }
    }

    fn tell(&self, door: &TlsDoor, look: &Look) {
        let name = door.name();
        match look {
            Look::Same => return,
            Look::Renewed => {
                tracing::info!(door = name, "the new certificate is in force for new connections");
                self.note(door);
                self.count(door, "renewed");
            }
            Look::Restored => {
                tracing::info!(door = name, "the certificate files are those in force again");
                self.count(door, "restored");
            }
            Look::Refused(error) => {
                tracing::error!(
                    code = "tls_files_refused",
                    door = name,
                    "the changed certificate files are not taken: {error}. The ones read before stay in force; put \
                     a certificate and its key there that belong together, and they are taken within seconds"
                );
                self.count(door, "refused");
            }
        }
        self.failed(door, matches!(look, Look::Refused(_)));
    }

    fn count(&self, door: &TlsDoor, result: &'static str) {
        self.0.reloads.get_or_create(&Reload { door: door.name().to_owned(), result }).inc();
    }

    fn failed(&self, door: &TlsDoor, failed: bool) {
        self.0.failed.get_or_create(&ByDoor { door: door.name().to_owned() }).set(i64::from(failed));
    }

    /// Tells when the certificates of a door end.
    fn note(&self, door: &TlsDoor) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        for certificate in door.certificates() {
            let Some(expires) = certificate.expires else { continue };
            let file = certificate.file.display().to_string();
            self.0.expiry.get_or_create(&ByFile { file: file.clone() }).set(expires);
            let days = (expires - now) / (24 * 3600);
            if expires <= now {
                tracing::error!(
                    code = "certificate_expired",
                    door = door.name(),
                    file,
                    "a certificate in this file has expired and clients will refuse it; replace it, it is taken within seconds"
                );
            } else if expires - now < SOON {
                tracing::warn!(
                    code = "certificate_ends_soon",
                    door = door.name(),
                    file,
                    days,
                    "a certificate in this file ends soon; replace it, it is taken within seconds"
                );
            }
        }
    }
}
