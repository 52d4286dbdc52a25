//! `doctor`: a look at everything the program depends on, one file per thing, each finding with what to do about it.
//!
//! Invariants: it changes nothing (a port is opened and closed at once, a file is made and removed); it needs no running program and
//! disturbs none; whatever it finds about Qlik Sense is said in the words of [`crate::sense::qrs`], so that log, health and doctor say the
//! same. No secret and no content of a secret file is in what it says.

mod certificates;
mod clock;
mod configuration;
mod disk;
mod events;
pub mod finding;
mod limits;
mod permissions;
pub mod ports;
pub mod print;
pub mod probe;
mod program;
mod qrs;
pub mod running;

use self::{finding::Report, running::Running};
use crate::config::{self, LoadOptions};

/// Looks at everything.
pub async fn examine(options: &LoadOptions) -> Report {
    let loaded = config::load(options);
    let mut findings = configuration::look(&loaded);
    if let Ok(loaded) = &loaded {
        let running = Running::find(loaded).await;
        findings.extend(program::look(loaded, running.as_ref()));
        findings.extend(ports::look(loaded, running.as_ref()));
        findings.extend(certificates::look(loaded));
        let walks = qrs::walk(loaded).await;
        findings.extend(qrs::look(loaded, &walks));
        findings.extend(events::look(loaded, running.as_ref()));
        findings.extend(clock::look(&walks));
        findings.extend(disk::look(loaded));
        findings.extend(permissions::look(loaded));
        findings.extend(limits::look(loaded, running.as_ref()));
    }
    Report::new(findings)
}
