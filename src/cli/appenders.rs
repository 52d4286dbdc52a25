//! `sense-butler appenders`: the log appenders of the Sense services for an address, merged into the files that are there.
//!
//! Invariant: a file that is there is replaced as a whole, after a copy of it was written beside it; where one file is not understood, none is
//! written.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;
use time::{OffsetDateTime, macros::format_description};

use super::{Exit, complain, options::Address, written};
use crate::setup::appenders::{Deed, Merged, Service, merge};

/// Examples for the help.
pub const EXAMPLES: &str = "Examples:\n  \
    sense-butler appenders --address 10.1.2.3:9998 --dry-run\n  \
    sense-butler appenders --address butler.example.com:9998 --sessions butler.example.com:9997\n\n\
    On every node that runs the service, as an administrator. What others have in the file stays; a copy of the file before is kept.";

/// The file of every service.
const FILE: &str = "LocalLogConfig.xml";
/// Where Qlik Sense keeps its files.
const SENSE: &str = r"C:\ProgramData\Qlik\Sense";

/// Options of `appenders`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Where task events go: the machine sense-butler runs on, as the node reaches it, and udpServerConfig.portTaskFailure
    #[arg(long, value_name = "ADDR", value_parser = target)]
    address: Address,
    /// Also tell of users (personal data): where their events go, with udpServerConfig.portSessionConnectionEvents
    #[arg(long, value_name = "ADDR", value_parser = target)]
    sessions: Option<Address>,
    /// The directory of Qlik Sense, with Scheduler and Proxy in it
    #[arg(long, value_name = "DIR", default_value = SENSE)]
    directory: PathBuf,
    /// Print the files and what would change; write nothing
    #[arg(long)]
    dry_run: bool,
}

fn target(text: &str) -> Result<Address, String> {
    let address: Address = text.parse().map_err(|error: crate::config::address::AddressError| error.to_string())?;
    if address.port == 0 {
        return Err("datagrams cannot be sent to port 0".into());
    }
    Ok(address)
}

/// A file that was read and merged.
struct Plan {
    file: PathBuf,
    before: Option<Vec<u8>>,
    merged: Merged,
}

/// Reads all files, then writes them.
pub fn run(options: &Options) -> Exit {
    let services = [(Service::Scheduler, Some(&options.address)), (Service::Proxy, options.sessions.as_ref())];
    let mut plans = Vec::new();
    for (service, target) in services.into_iter().filter_map(|(service, target)| Some((service, target?))) {
        match plan(service, target, options) {
            Ok(plan) => plans.push(plan),
            Err(why) => return complain(why),
        }
    }
    let mut out = io::stdout();
    for plan in &plans {
        let copy = match options.dry_run {
            true => Ok(None),
            false => place(plan),
        };
        let said = match copy {
            Ok(copy) => tell(plan, copy.as_deref(), options.dry_run, &mut out),
            Err(why) => return complain(format_args!("{} cannot be written: {why}", plan.file.display())),
        };
        if said.is_err() {
            // What is done is done; a reader who went away has seen enough.
            return written(said.map(|()| 0));
        }
    }
    Exit::Done
}

fn plan(service: Service, target: &Address, options: &Options) -> Result<Plan, String> {
    let directory = options.directory.join(service.directory());
    let file = directory.join(FILE);
    let before = match fs::read(&file) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("{} cannot be read: {error}", file.display())),
    };
    if before.is_none() && !options.dry_run && !directory.is_dir() {
        return Err(format!(
            "there is no directory {}: this machine does not run the {} service of Qlik Sense, or --directory must name another place. \
             --dry-run prints the file, to be copied there",
            directory.display(),
            service.directory()
        ));
    }
    let left =
        |why: &dyn std::fmt::Display| format!("{} was left as it is, and nothing was written: {why}", file.display());
    let text = before.as_deref().map(std::str::from_utf8).transpose();
    let text =
        text.map_err(|error| left(&format_args!("it is not UTF-8 ({error}); save it as UTF-8, or merge by hand")))?;
    let merged = merge(service, target, text).map_err(|error| left(&error))?;
    Ok(Plan { file, before, merged })
}

/// Writes a file, if it is another than before; the copy of the one before, if there was one.
fn place(plan: &Plan) -> io::Result<Option<PathBuf>> {
    if !plan.merged.is_changed() {
        return Ok(None);
    }
    let copy = plan.before.as_ref().map(|bytes| backup(&plan.file, bytes)).transpose()?;
    let staged = plan.file.with_extension("xml.new");
    let placed = fs::write(&staged, &plan.merged.text).and_then(|()| fs::rename(&staged, &plan.file));
    if placed.is_err() {
        // It is of no use to anybody.
        let _ = fs::remove_file(&staged);
    }
    placed.map(|()| copy)
}

/// A copy under a name of its own.
fn backup(file: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let form = format_description!("[year][month][day]-[hour][minute][second]");
    // All components exist in a date with time: formatting cannot fail.
    let time = OffsetDateTime::now_utc().format(form).unwrap_or_default();
    let mut number = 0;
    loop {
        let copy = match number {
            0 => file.with_extension(format!("xml.{time}.bak")),
            _ => file.with_extension(format!("xml.{time}-{number}.bak")),
        };
        match fs::OpenOptions::new().write(true).create_new(true).open(&copy) {
            Ok(mut opened) => return opened.write_all(bytes).map(|()| copy),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => number += 1,
            Err(error) => return Err(error),
        }
    }
}

fn tell(plan: &Plan, copy: Option<&Path>, dry_run: bool, out: &mut dyn Write) -> io::Result<()> {
    let Plan { file, before, merged } = plan;
    let shown = file.display();
    match (dry_run, merged.is_changed(), copy) {
        (true, true, _) => writeln!(out, "{shown} would be:\n\n{}", merged.text.trim_end())?,
        (_, false, _) => writeln!(out, "{shown} is as it should be; nothing was written")?,
        (false, true, Some(copy)) => writeln!(out, "{shown} was changed; the file before is {}", copy.display())?,
        (false, true, None) => writeln!(out, "{shown} was made")?,
    }
    if dry_run && merged.is_changed() {
        let what =
            if before.is_some() { "\nchanges of the file that is there:" } else { "\nthere is no such file yet:" };
        writeln!(out, "{what}")?;
    }
    for (deed, what) in &merged.deeds {
        writeln!(out, "  {deed:<9} {what}")?;
    }
    for name in &merged.also {
        writeln!(
            out,
            "  to know: the appender `{name}`, which is not ours, sends to the same place; what it tells twice is dropped as a repetition"
        )?;
    }
    if merged.deeds.iter().any(|(deed, _)| *deed != Deed::Unchanged) && !dry_run {
        writeln!(
            out,
            "  the service reads it within some minutes, or at its next start; a file it cannot use is told in its System log"
        )?;
    }
    Ok(())
}
