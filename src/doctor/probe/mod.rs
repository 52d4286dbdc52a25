//! `doctor --probe`: every open question about a real Qlik Sense site, asked of this one, in a report that can be sent away.
//!
//! Invariants: without the flags that consent to it nothing is started, stopped or subscribed to; the report holds no secret and no name of the
//! site; a question that could not be asked says what would let it.

mod datagrams;

use std::{fmt::Write as _, path::Path, time::Duration};

use time::OffsetDateTime;

use self::datagrams::Listening;
use crate::{
    config::Loaded,
    sense::qrs::{
        probe::{self, Answer, Consent, Question},
        steps::{self, Outcome},
    },
};

/// What may be done, and for how long.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// What QRS may be asked to do.
    pub consent: Consent,
    /// How long datagrams are listened for after everything else; zero: not at all.
    pub listen: Duration,
}

/// The answers, in the order of the questions.
#[derive(Debug, Clone)]
pub struct Probed {
    /// Every question once.
    pub answers: Vec<(Question, Answer)>,
}

/// Asks everything.
///
/// # Errors
/// What is wrong with the way to Qlik Sense; without it nothing can be asked.
pub async fn run(loaded: &Loaded, wishes: &Wishes) -> Result<Probed, String> {
    let settings = &loaded.settings.qrs;
    let walks = steps::walk(settings).await;
    let failed = walks.iter().flat_map(|walk| &walk.steps).find_map(|(_, outcome)| match outcome {
        Outcome::Failed(error) => Some(format!("{error}. {}", error.remedy().unwrap_or_default())),
        _ => None,
    });
    match failed {
        Some(failed) => return Err(failed),
        None if walks.is_empty() => {
            return Err("no Qlik Repository Service is configured: set `configQRS.host`".to_owned());
        }
        None => {}
    }
    let listening = Listening::begin(loaded, wishes.listen).await;
    let mut answers = probe::ask(settings, &wishes.consent).await;
    answers.extend(listening.gather(wishes.consent.task).await);
    answers.sort_by_key(|(question, _)| Question::ALL.iter().position(|known| known == question));
    Ok(Probed { answers })
}

impl Probed {
    /// How many questions were answered.
    pub fn told(&self) -> usize {
        self.answers.iter().filter(|(_, answer)| matches!(answer, Answer::Told(_))).count()
    }

    /// The report.
    pub fn report(&self) -> String {
        let today = OffsetDateTime::now_utc().date();
        let mut text = format!(
            "Report of `sense-butler doctor --probe`, version {}, {today}\n\nHow this Qlik Sense site answers where its documentation is silent. Names of hosts, \
             users, tasks\nand values are replaced by what they are; there is no secret in it.\n{} of {} questions are answered.\n",
            env!("CARGO_PKG_VERSION"),
            self.told(),
            self.answers.len()
        );
        for (number, (question, answer)) in self.answers.iter().enumerate() {
            let _ = write!(text, "\n{}. {}\n", number + 1, question.text());
            let lines = match answer {
                Answer::Told(lines) => lines.clone(),
                Answer::NotAsked(why) => vec![format!("not asked: {why}")],
            };
            for line in lines {
                let _ = writeln!(text, "   {line}");
            }
        }
        text
    }

    /// Writes the report.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, file: &Path) -> std::io::Result<()> {
        std::fs::write(file, self.report())
    }
}
