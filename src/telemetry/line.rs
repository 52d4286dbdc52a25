//! One log line: what an event says, collected once and written for people or for programs.
//!
//! Invariants: no control character of a peer reaches a terminal or a file (line breaks and tabs of texts excepted: errors have several lines); a line for
//! programs is one JSON object and one line, whatever it holds.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tracing::{
    Event, Level,
    field::{Field, Visit},
};

/// The fields with a meaning of their own.
const MESSAGE: &str = "message";
const CODE: &str = "code";
const SUPPRESSED: &str = "suppressed";

/// How lines are written (`logFormat`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people: `2026-11-22T16:08:01.123Z WARN  bus: message key=value code=word`.
    #[default]
    Text,
    /// For programs: one JSON object.
    Json,
}

/// What an event says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Said {
    /// The sentence.
    pub(super) message: String,
    /// Its entry in the catalogue ([`super::catalogue`]).
    pub(super) code: Option<String>,
    /// How many like it were not written before it.
    pub(super) suppressed: u64,
    /// Everything else, in its order, as text: what makes two lines identical.
    pub(super) values: String,
    /// The same for programs, where they are asked for.
    fields: Option<Map<String, Value>>,
}

impl Said {
    /// By an event.
    pub(super) fn by(event: &Event<'_>, format: Format) -> Self {
        let mut said = Self { fields: (format == Format::Json).then(Map::new), ..Self::default() };
        event.record(&mut said);
        // Texts of several lines end with a line break, and the line goes on.
        said.message.truncate(said.message.trim_end().len());
        said
    }

    /// By the log itself about lines it did not write.
    pub(super) fn of_itself(message: String, code: Option<String>, format: Format) -> Self {
        Self { message, code, fields: (format == Format::Json).then(Map::new), ..Self::default() }
    }

    fn value(&mut self, field: &Field, text: &dyn fmt::Debug, value: impl FnOnce() -> Value) {
        let name = field.name();
        // Writing to a string cannot fail; a value whose own `Debug` fails leaves what it wrote.
        let _ = write!(Clean(&mut self.values), " {name}={text:?}");
        if let Some(fields) = &mut self.fields {
            fields.insert(name.to_owned(), value());
        }
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            CODE => self.code = Some(value.to_owned()),
            MESSAGE => self.record_debug(field, &format_args!("{value}")),
            _ => self.value(field, &value, || value.into()),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == SUPPRESSED { self.suppressed = value } else { self.value(field, &value, || value.into()) }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, &value, || value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, &value, || value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            let _ = write!(Clean(&mut self.message), "{value:?}");
        } else {
            self.value(field, value, || format!("{value:?}").into());
        }
    }
}

/// A string that takes no control characters but line breaks and tabs: others are written as `\u{1b}`.
struct Clean<'a>(&'a mut String);

impl fmt::Write for Clean<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() && !matches!(c, '\n' | '\t') {
                self.0.extend(c.escape_unicode());
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

/// A line with its end. `colour`: the level's, for a terminal.
pub(super) fn written(
    now: OffsetDateTime,
    level: Level,
    target: &str,
    said: &Said,
    format: Format,
    colour: bool,
) -> String {
    let format_of_time =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    // It fails for years of five digits only.
    let now = now.format(&format_of_time).unwrap_or_default();
    match format {
        Format::Text => text(&now, level, target, said, colour),
        Format::Json => object(&now, level, target, said),
    }
}

fn text(now: &str, level: Level, target: &str, said: &Said, colour: bool) -> String {
    let (on, off) = if colour { (paint(level), "\x1b[0m") } else { ("", "") };
    let mut line = String::with_capacity(64 + said.message.len() + said.values.len());
    // Writing to a string cannot fail.
    let _ = write!(line, "{now} {on}{level:<5}{off} {}: {}{}", part(target), said.message, said.values);
    if said.suppressed > 0 {
        let _ = write!(line, " {SUPPRESSED}={}", said.suppressed);
    }
    if let Some(code) = &said.code {
        let _ = write!(line, " {CODE}={code}");
    }
    line.push('\n');
    line
}

fn object(now: &str, level: Level, target: &str, said: &Said) -> String {
    let level = level.as_str().to_ascii_lowercase();
    let mut line = json!({ "time": now, "level": level, "part": part(target), MESSAGE: said.message });
    if let Some(object) = line.as_object_mut() {
        object.extend(said.code.as_ref().map(|code| (CODE.to_owned(), code.as_str().into())));
        if said.suppressed > 0 {
            object.insert(SUPPRESSED.to_owned(), said.suppressed.into());
        }
        if let Some(fields) = said.fields.as_ref().filter(|fields| !fields.is_empty()) {
            object.insert("fields".to_owned(), fields.clone().into());
        }
    }
    format!("{line}\n")
}

/// The room a line comes from: `sense_butler::bus::external::driver` is `bus`; of libraries, their name.
pub(super) fn part(target: &str) -> &str {
    let inside = target.strip_prefix("sense_butler::").unwrap_or(target);
    inside.split("::").next().unwrap_or(inside)
}

const fn paint(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG | Level::TRACE => "\x1b[2m",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::Subscriber;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    use super::*;

    /// Writes down what is said, both ways.
    #[derive(Clone, Default)]
    struct Witness(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Witness {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let metadata = event.metadata();
            let now = OffsetDateTime::UNIX_EPOCH;
            let line = |format| {
                let said = Said::by(event, format);
                written(now, *metadata.level(), metadata.target(), &said, format, false)
            };
            self.0.lock().extend([line(Format::Text), line(Format::Json)]);
        }
    }

    fn lines(of: impl FnOnce()) -> Vec<String> {
        let witness = Witness::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(witness.clone()), of);
        std::mem::take(&mut *witness.0.lock())
    }

    #[test]
    fn a_line_is_time_level_room_message_values_and_code() {
        let lines = lines(|| {
            tracing::warn!(
                code = "a_word",
                suppressed = 0_u64,
                waiting = 3,
                to = %"x y",
                name = "q\"",
                on = true,
                "the broker is away: {}",
                "gone"
            );
            tracing::info!(suppressed = 7_u64, "again");
        });
        assert_eq!(
            lines[0],
            "1970-01-01T00:00:00.000Z WARN  telemetry: the broker is away: gone waiting=3 to=x y name=\"q\\\"\" on=true code=a_word\n"
        );
        let object: Value = serde_json::from_str(&lines[1]).unwrap();
        let expected = json!({
            "time": "1970-01-01T00:00:00.000Z", "level": "warn", "part": "telemetry", "message": "the broker is away: gone",
            "code": "a_word", "fields": {"waiting": 3, "to": "x y", "name": "q\"", "on": true},
        });
        assert_eq!(object, expected);
        assert_eq!(lines[2], "1970-01-01T00:00:00.000Z INFO  telemetry: again suppressed=7\n");
        assert!(lines[3].contains("\"suppressed\":7") && !lines[3].contains("fields"), "{}", lines[3]);
    }

    #[test]
    fn nothing_of_a_peer_steers_a_terminal_and_json_is_one_line() {
        let evil = "a\x1b[2Jb\u{9b}c\rd\ne";
        let lines = lines(|| tracing::warn!(client = %evil, "from {evil}"));
        let clean = "a\\u{1b}[2Jb\\u{9b}c\\u{d}d\ne";
        assert_eq!(lines[0], format!("1970-01-01T00:00:00.000Z WARN  telemetry: from {clean} client={clean}\n"));
        assert_eq!(lines[1].lines().count(), 1);
        assert_eq!(serde_json::from_str::<Value>(&lines[1]).unwrap()["fields"]["client"], evil);
    }
}
