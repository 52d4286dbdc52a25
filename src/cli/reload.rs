//! `sense-butler reload`: has the running program read its configuration again, and says what became of it.
//!
//! The files are read here first, by the same reader: to know where the program is to be asked, and because a mistake can be told without it.

use std::io::{self, Write};

use serde::Deserialize;

use super::{Exit, RunOptions, complain, in_runtime, refuse, written};
use crate::{
    config::{self, LoadOptions, Loaded, reload::Reloaded},
    doctor::running::Running,
};

/// Where it is asked.
const PATH: &str = "/api/v1/reload";

/// The body of an error.
#[derive(Deserialize)]
struct Refused {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    message: String,
}

/// Exit code 64 if the files cannot be used, 1 if the program cannot be asked.
pub fn run(options: &RunOptions) -> Exit {
    with(&options.files.load_options(&options.addresses))
}

/// The same for files that were looked for elsewhere.
pub(super) fn with(load: &LoadOptions) -> Exit {
    let loaded = match config::load(load) {
        Ok(loaded) => loaded,
        Err(errors) => {
            let exit = refuse(&errors);
            drop(writeln!(io::stderr(), "\nThe running program was not asked, and nothing has changed."));
            return exit;
        }
    };
    in_runtime(ask(&loaded))
}

async fn ask(loaded: &Loaded) -> Exit {
    let rest = &loaded.settings.rest;
    let at = format!("{}:{}", rest.host, rest.port);
    let Some(running) = Running::find(loaded).await else {
        return complain(format_args!(
            "no running sense-butler answers at its REST address {at}; if it was started with another, name it with --rest. On Linux it can be told by \
             a signal, too: kill -HUP <process id>"
        ));
    };
    match running.post(loaded, PATH).await {
        Some((200, body)) => match serde_json::from_str(&body) {
            Ok(told) => written(tell(&told, &mut io::stdout())),
            Err(_) => {
                complain(format_args!("the program at {at} answered what cannot be understood; is it another version?"))
            }
        },
        Some((status, body)) => {
            let message = serde_json::from_str(&body).map_or(body, |Refused { error }| error.message);
            let exit = complain(format_args!("{message}\n\nNothing has changed."));
            if status == 422 { Exit::Usage } else { exit }
        }
        None => complain(format_args!("the program at {at} did not answer; its log says what became of it")),
    }
}

fn tell(told: &Reloaded, out: &mut dyn Write) -> io::Result<u8> {
    if told.applied.is_empty() && told.needs_restart.is_empty() && told.without_effect.is_empty() {
        writeln!(out, "nothing has changed")?;
    }
    let lists = [
        ("in force now", &told.applied),
        ("needs a restart", &told.needs_restart),
        ("without effect", &told.without_effect),
    ];
    for (what, keys) in lists {
        keys.iter().try_for_each(|key| writeln!(out, "{what:<16}{key}"))?;
    }
    told.warnings.iter().try_for_each(|warning| writeln!(out, "to know         {warning}"))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_told() {
        let text = |told: &Reloaded| {
            let mut out = Vec::new();
            assert_eq!(tell(told, &mut out).unwrap(), 0);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(&Reloaded::default()), "nothing has changed\n");
        let told = Reloaded {
            applied: vec!["a".into(), "b".into()],
            needs_restart: vec!["c".into()],
            without_effect: vec!["d".into()],
            warnings: vec!["e".into()],
        };
        let expected =
            "in force now    a\nin force now    b\nneeds a restart c\nwithout effect  d\nto know         e\n";
        assert_eq!(text(&told), expected);
    }
}
