//! `sense-butler doctor`: what is wrong with this installation, and what to do about it; with `--probe`, what a Qlik Sense site really answers.

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Args;

use super::{Exit, RunOptions, complain, in_runtime, refuse};
use crate::{
    config::{self, HostPort, LoadOptions, address::AddressError},
    doctor::{
        self,
        finding::Report,
        print,
        probe::{self, Wishes},
    },
    names::TaskId,
    sense::qrs::probe::Consent,
};

/// Options of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The same as for `run`.
    #[command(flatten)]
    pub run: RunOptions,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Ask Qlik Sense what no document tells, and write a report without secrets and names
    #[arg(long, conflicts_with = "json")]
    pub probe: bool,
    /// Where --probe writes its report
    #[arg(long, value_name = "FILE", default_value = "sense-butler-probe.txt", requires = "probe")]
    pub report: PathBuf,
    /// --probe may start and stop this task, which runs for some seconds and does no harm
    #[arg(long, value_name = "ID", requires = "probe")]
    pub task: Option<TaskId>,
    /// --probe may ask for the start of this disabled task
    #[arg(long, value_name = "ID", requires = "probe")]
    pub disabled_task: Option<TaskId>,
    /// --probe may have Qlik Sense call this machine, at http://HOST:PORT; the port must be free here
    #[arg(long, value_name = "URL", requires = "probe", value_parser = callback)]
    pub callback: Option<Callback>,
    /// How long --probe waits for notifications, seconds
    #[arg(long, value_name = "SECONDS", default_value = "90", requires = "probe")]
    pub patience: u64,
    /// How long --probe listens for datagrams at the end, seconds; the program itself must be stopped then
    #[arg(long, value_name = "SECONDS", default_value = "0", requires = "probe")]
    pub listen: u64,
}

/// Where Qlik Sense calls, and where it is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    url: String,
    listen: SocketAddr,
}

/// `http://host:port`; it is heard on that address where it is one, on all of this machine otherwise.
fn callback(text: &str) -> Result<Callback, String> {
    let url = text.trim_end_matches('/');
    let at = url
        .strip_prefix("http://")
        .ok_or("write http://HOST:PORT; Qlik Sense does not call https it does not trust")?;
    let at: HostPort = at.parse().map_err(|error: AddressError| error.to_string())?;
    let host = at.host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Ok(Callback { url: url.to_owned(), listen: SocketAddr::new(host, at.port) })
}

/// Looks at everything and prints what it finds. Exit code 1 if there is a problem; warnings are none.
pub fn run(options: &Options) -> Exit {
    let load = options.run.files.load_options(&options.run.addresses);
    if options.probe {
        return ask(options, &load);
    }
    in_runtime(async {
        let report = doctor::examine(&load).await;
        match show(&report, options.json, &mut io::stdout()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => complain(error),
            _ if report.problems > 0 => Exit::Failed,
            _ => Exit::Done,
        }
    })
}

/// Asks Qlik Sense and writes the report. Exit code 1 if nothing could be asked.
fn ask(options: &Options, load: &LoadOptions) -> Exit {
    let loaded = match config::load(load) {
        Ok(loaded) => loaded,
        Err(errors) => return refuse(&errors),
    };
    let seconds = |seconds: u64| Duration::from_secs(seconds.min(86_400));
    let consent = Consent {
        task: options.task,
        disabled: options.disabled_task,
        callback: options.callback.clone().map(|callback| (callback.listen, callback.url)),
        patience: seconds(options.patience),
    };
    let wishes = Wishes { consent, listen: seconds(options.listen) };
    in_runtime(async {
        let probed = match probe::run(&loaded, &wishes).await {
            Ok(probed) => probed,
            Err(why) => return complain(why),
        };
        if let Err(error) = probed.write(&options.report) {
            return complain(format_args!("the report {} cannot be written: {error}", options.report.display()));
        }
        let (told, all, report) = (probed.told(), probed.answers.len(), options.report.display());
        // A closed standard output is no failure of ours.
        drop(writeln!(
            io::stdout(),
            "{told} of {all} questions are answered; the report is {report}. Read it before you send it."
        ));
        Exit::Done
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
