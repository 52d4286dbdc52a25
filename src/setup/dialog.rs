//! Questions and answers in plain lines: a terminal, a pipe and a test are the same to it.
//!
//! Invariants: an empty answer takes the proposal in brackets; an answer that cannot be right is explained and the question comes again;
//! the end of the input is an error, never an endless loop.

use std::io::{BufRead, Read as _, Write};

use super::SetupError;

/// Longest answer, bytes.
const LONGEST: u64 = 4_096;

/// Whom we talk to.
pub(super) struct Dialog<'a> {
    input: &'a mut dyn BufRead,
    out: &'a mut dyn Write,
}

impl<'a> Dialog<'a> {
    pub(super) fn new(input: &'a mut dyn BufRead, out: &'a mut dyn Write) -> Self {
        Self { input, out }
    }

    /// Says something.
    pub(super) fn say(&mut self, text: &str) -> Result<(), SetupError> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// Asks until the answer can be used. `judge` gives the value, or says why not.
    pub(super) fn ask<T>(
        &mut self,
        question: &str,
        proposal: &str,
        judge: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, SetupError> {
        writeln!(self.out, "\n{question}")?;
        loop {
            if proposal.is_empty() {
                write!(self.out, "> ")?;
            } else {
                write!(self.out, "[{proposal}] > ")?;
            }
            self.out.flush()?;
            let line = self.line()?;
            let answer = if line.is_empty() { proposal } else { line.as_str() };
            match judge(answer) {
                Ok(value) => return Ok(value),
                Err(why) => writeln!(self.out, "{why}")?,
            }
        }
    }

    /// Asks for yes or no; no is the proposal.
    pub(super) fn agree(&mut self, question: &str) -> Result<bool, SetupError> {
        self.ask(question, "no", |answer| match answer.to_lowercase().as_str() {
            "yes" | "y" => Ok(true),
            "no" | "n" => Ok(false),
            _ => Err("Please answer yes or no.".to_owned()),
        })
    }

    fn line(&mut self) -> Result<String, SetupError> {
        let mut line = String::new();
        if (&mut *self.input).take(LONGEST).read_line(&mut line)? == 0 {
            return Err(SetupError::NoMoreAnswers);
        }
        Ok(line.trim().to_owned())
    }
}
