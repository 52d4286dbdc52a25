//! Looking after the connection: is QRS there, does it show us any task, do certificates end soon, have their files changed.
//!
//! Invariant: everything here only looks; no call of anybody waits for it.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    certificate::{moment, now},
    client::{Purpose, Qrs},
    error::QrsError,
};

/// Pause between two looks at a QRS that answers.
const WATCH: Duration = Duration::from_secs(60);
/// Shortest and longest pause between two looks at one that does not.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Every so many looks, it is asked how many tasks there are; at every look while there are none.
const COUNT_EVERY: u32 = 10;
/// A certificate that ends within this time is a warning, seconds (30 days).
const SOON: i64 = 30 * 24 * 3600;

/// What is said while the server's certificate is not verified, and what to do.
pub(super) const INSECURE: [&str; 2] = [
    "The certificate of the Qlik Repository Service is not verified (`configQRS.rejectUnauthorized: false`): whoever answers at that address is \
     believed.",
    "Set it to true and let `cert.clientCertCA` name root.pem.",
];
/// What is said while our user sees no task, and what to do.
pub(super) const BLIND: [&str; 2] = [
    "Qlik Sense shows the user of `configQRS.headers.static` not a single task, so none can be found or started:",
    "give that user the right to read tasks in the QMC (or the site has no tasks at all).",
];

/// A certificate the connection to QRS depends on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CertificateEnd {
    /// The file, or `host:port` for the one the server showed last.
    pub certificate: String,
    /// End of its validity, seconds since 1970 (UTC).
    pub expires: i64,
}

/// How the looks went so far.
struct Course {
    /// The pause after the next one that fails.
    pause: Duration,
    /// How many were answered.
    answered: u32,
}

impl Qrs {
    /// Looks after the connection until told to stop: calls `about` at intervals, sooner while it fails, so that health is true without
    /// anybody starting a task.
    pub async fn watch(self, stop: CancellationToken) {
        let mut course = Course { pause: BACK_OFF.0, answered: 0 };
        while self.is_configured() {
            let look = async {
                let next = self.look(&mut course).await;
                tokio::time::sleep(next).await;
            };
            if stop.run_until_cancelled(look).await.is_none() {
                return;
            }
        }
        stop.cancelled().await;
    }

    /// One look at everything; the answer is the pause until the next.
    async fn look(&self, course: &mut Course) -> Duration {
        self.follow_files().await;
        let answer = self.about().await;
        self.tell_ends();
        if answer.is_err() {
            let longer = (course.pause * 2).min(BACK_OFF.1);
            return std::mem::replace(&mut course.pause, longer);
        }
        if course.answered.is_multiple_of(COUNT_EVERY) || self.sees_nothing().load(Ordering::Relaxed) {
            self.look_for_tasks().await;
        }
        *course = Course { pause: BACK_OFF.0, answered: course.answered.wrapping_add(1) };
        WATCH
    }

    /// What is to be said although QRS answers, for health; `None`: nothing.
    pub fn warning(&self) -> Option<String> {
        let insecure = self.is_insecure().then(|| INSECURE.join(" "));
        let blind = self.sees_nothing().load(Ordering::Relaxed).then(|| BLIND.join(" "));
        let ending = self.certificate_ends().into_iter().filter_map(|end| ending(&end, now()));
        let all: Vec<String> = insecure.into_iter().chain(blind).chain(ending).collect();
        (!all.is_empty()).then(|| all.join(" "))
    }

    /// The certificates the connection depends on, as far as they were read or seen.
    pub fn certificate_ends(&self) -> Vec<CertificateEnd> {
        let mut ends: Vec<CertificateEnd> = Vec::new();
        for (certificate, expires) in self.all_hosts().all().flat_map(super::http::Http::ends) {
            match ends.iter_mut().find(|known| known.certificate == certificate) {
                Some(known) => known.expires = expires,
                None => ends.push(CertificateEnd { certificate, expires }),
            }
        }
        ends
    }

    fn tell_ends(&self) {
        let Some(certificates) = self.certificates() else { return };
        for end in self.certificate_ends() {
            certificates.note_end(&end.certificate, end.expires);
        }
    }

    /// Takes up changed certificate files.
    async fn follow_files(&self) {
        for http in self.all_hosts().all() {
            match http.follow().await {
                Ok(false) => {}
                Ok(true) => tracing::info!(
                    host = http.at(),
                    "the changed certificates for the Qlik Repository Service are in force"
                ),
                Err(error) => tracing::warn!(
                    code = "qrs_certificates_refused",
                    host = http.at(),
                    "the changed certificate files for the Qlik Repository Service are not taken, the ones read before stay in force; put files there that belong together: {error}"
                ),
            }
        }
    }

    /// Asks how many tasks our user sees: none is either a site without tasks or, much more likely, a user without rights.
    async fn look_for_tasks(&self) {
        let Ok(none) = self.sees_no_task().await else { return };
        if self.sees_nothing().swap(none, Ordering::Relaxed) != none && none {
            tracing::warn!(code = "qrs_sees_no_task", "{}", self.warning().unwrap_or_default());
        }
    }

    async fn sees_no_task(&self) -> Result<bool, QrsError> {
        let answer = self.read("count", Purpose::Enrich, "task/count").await?;
        let count = self.parse(&answer)?.get("value").and_then(Value::as_u64);
        self.sensible(());
        Ok(count == Some(0))
    }
}

/// What is to be said about a certificate that ends soon.
pub(super) fn ending(end: &CertificateEnd, now: i64) -> Option<String> {
    let left = end.expires - now;
    let (certificate, until) = (&end.certificate, moment(end.expires));
    let remedy = "renew the certificates of the Sense site if need be, and export client.pem, client_key.pem and root.pem anew (QMC, Certificates)";
    if left < 0 {
        return Some(format!("The certificate {certificate} ended on {until}: {remedy}."));
    }
    (left < SOON)
        .then(|| format!("The certificate {certificate} ends on {until}, in {} days: {remedy}.", left / 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_spoken_of_in_its_last_thirty_days() {
        let end = CertificateEnd { certificate: "client.pem".into(), expires: 100 * 86_400 };
        let cases = [(69, None), (71, Some("in 29 days")), (99, Some("in 1 days")), (101, Some("ended on 1970-04-11"))];
        for (day, part) in cases {
            let said = ending(&end, day * 86_400);
            assert_eq!(said.is_some(), part.is_some(), "{day}");
            assert!(said.unwrap_or_default().contains(part.unwrap_or_default()), "{day}");
        }
    }
}
