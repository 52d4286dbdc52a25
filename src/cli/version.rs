//! `version`: which program this is.

use std::io::Write as _;

use clap::Args;

use super::Exit;

/// Options of `version`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Prints name, version and target.
pub fn run(options: &Options) -> Exit {
    // A closed standard output is no failure of ours.
    drop(writeln!(std::io::stdout(), "{}", line(options.json)));
    Exit::Done
}

fn line(json: bool) -> String {
    let (version, os, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    if json {
        serde_json::json!({"name": "sense-butler", "version": version, "os": os, "arch": arch}).to_string()
    } else {
        format!("sense-butler {version} ({os}, {arch})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_the_version() {
        assert!(line(false).starts_with(concat!("sense-butler ", env!("CARGO_PKG_VERSION"))));
        let json: serde_json::Value = serde_json::from_str(&line(true)).unwrap();
        assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    }
}
