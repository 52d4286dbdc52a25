//! `sense-butler doctor`: what is wrong with this installation, and what to do about it.

use std::io::{self, IsTerminal as _};

use clap::Args;

use super::{Exit, RunOptions, complain, in_runtime};
use crate::doctor::{self, finding::Report, print};

/// Options of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The same as for `run`.
    #[command(flatten)]
    pub run: RunOptions,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Looks at everything and prints what it finds. Exit code 1 if there is a problem; warnings are none.
pub fn run(options: &Options) -> Exit {
    let load = options.run.files.load_options(&options.run.addresses);
    in_runtime(async {
        let report = doctor::examine(&load).await;
        match show(&report, options.json, &mut io::stdout()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => complain(error),
            _ if report.problems > 0 => Exit::Failed,
            _ => Exit::Done,
        }
    })
}

fn show(report: &Report, json: bool, out: &mut dyn io::Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(report)?);
    }
    // https://no-color.org
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    print::text(report, colours, out)
}
