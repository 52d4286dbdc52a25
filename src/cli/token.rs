//! `sense-butler token`: makes, shows and revokes the tokens that open the REST API.
//!
//! Invariant: the token itself goes to standard output once, alone on its line, when it is made, and nowhere else: not into the file, not into
//! a log. What there is to say about it goes to standard error.

use std::{io::Write as _, path::PathBuf};

use clap::{Args, Subcommand};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Exit, complain, written};
use crate::{
    config::{
        default_data_dir,
        tokens::{NewToken, Right, Token, TokenFile, TokenName},
    },
    names::TopicFilter,
};

/// Examples for the help.
pub const EXAMPLES: &str = "Examples:\n  \
    sense-butler token create 'load scripts' --rights publish,start --topic 'plant/#' --days 365\n  \
    sense-butler token list\n  \
    sense-butler token revoke 'load scripts'\n\n\
    A running program obeys at once. Name its data directory with --data.";

/// Options of `token`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Make a token and print it, once
    #[command(after_help = EXAMPLES)]
    Create(Create),
    /// Show all tokens, without their secrets
    List(Where),
    /// Revoke a token, at once and for good
    Revoke(Revoke),
}

#[derive(Debug, Clone, Args)]
struct Where {
    /// Data directory of the program [default: ./data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Where {
    fn file(&self) -> TokenFile {
        TokenFile::of(&self.data.clone().unwrap_or_else(|| default_data_dir(false)))
    }
}

#[derive(Debug, Clone, Args)]
struct Create {
    /// What answers and logs call it
    #[arg(value_parser = TokenName::new)]
    name: TokenName,
    /// What it opens: publish, start, read, values, manage
    #[arg(long, value_delimiter = ',', required = true)]
    rights: Vec<Right>,
    /// A topic filter it may publish to; several are possible [default: wherever anybody may by REST]
    #[arg(long = "topic", value_name = "FILTER", value_parser = filter)]
    topics: Vec<TopicFilter>,
    /// For how many days [default: for ever]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    days: Option<u16>,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Clone, Args)]
struct Revoke {
    /// Its name
    name: String,
    #[command(flatten)]
    place: Where,
}

fn filter(text: &str) -> Result<TopicFilter, String> {
    let filter = TopicFilter::new(text).map_err(|error| error.to_string())?;
    if filter.shared().is_some() { Err("a shared subscription is no place to publish to".into()) } else { Ok(filter) }
}

/// Does what was asked.
pub fn run(options: &Options) -> Exit {
    let now = OffsetDateTime::now_utc();
    // Nobody wants to read billionths.
    let now = now.replace_nanosecond(0).unwrap_or(now);
    match &options.verb {
        Verb::Create(asked) => create(asked, now),
        Verb::List(place) => list(place, now),
        Verb::Revoke(asked) => revoke(asked, now),
    }
}

fn create(asked: &Create, now: OffsetDateTime) -> Exit {
    let mut rights = Vec::new();
    for right in &asked.rights {
        if !rights.contains(right) {
            rights.push(*right);
        }
    }
    let topics = (!asked.topics.is_empty()).then(|| asked.topics.clone());
    let expires = asked.days.map(|days| now + Duration::days(days.into()));
    match asked.place.file().create(NewToken { name: asked.name.clone(), rights, topics, expires }, now) {
        Ok((token, secret)) => {
            let said = format!(
                "token `{}`: {}. It is shown this once; send it as `Authorization: Bearer <token>`.",
                token.name,
                allows(&token)
            );
            // Standard error may be closed; the token itself must not be lost without a word.
            drop(writeln!(std::io::stderr(), "{said}"));
            written(writeln!(std::io::stdout(), "{}", secret.expose()).map(|()| 0))
        }
        Err(error) => complain(error),
    }
}

fn list(place: &Where, now: OffsetDateTime) -> Exit {
    let tokens = match place.file().read() {
        Ok(tokens) => tokens,
        Err(error) => return complain(error),
    };
    let mut text = String::new();
    for token in &tokens {
        text.push_str(&format!("{}  {}  {}: {}\n", token.id, token.standing(now), token.name, allows(token)));
    }
    if tokens.is_empty() {
        text.push_str(&format!("there are no tokens in {}\n", place.file().path().display()));
    }
    written(std::io::stdout().write_all(text.as_bytes()).map(|()| 0))
}

fn revoke(asked: &Revoke, now: OffsetDateTime) -> Exit {
    match asked.place.file().revoke(&asked.name, now) {
        Ok(token) => {
            written(writeln!(std::io::stdout(), "the token `{}` opens nothing any more", token.name).map(|()| 0))
        }
        Err(error) => complain(error),
    }
}

/// What a token opens, and until when.
fn allows(token: &Token) -> String {
    let rights: Vec<&str> = token.rights.iter().map(|right| right.as_str()).collect();
    let topics = token.topics.iter().flatten().map(TopicFilter::as_str).collect::<Vec<_>>().join(", ");
    let topics = if topics.is_empty() { String::new() } else { format!("; publishes to {topics}") };
    let time = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
    let end = match (token.revoked, token.expires) {
        (Some(revoked), _) => format!("; revoked {}", time(revoked)),
        (None, Some(expires)) => format!("; until {}", time(expires)),
        (None, None) => "; does not expire".to_owned(),
    };
    format!("{}{topics}{end}", rights.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_opens_is_said_in_one_line() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let mut token = Token {
            name: TokenName::new("n").unwrap(),
            id: "i".into(),
            sha256: [0; 32],
            rights: vec![Right::Publish, Right::Start],
            topics: None,
            created: at(0),
            expires: None,
            revoked: None,
        };
        assert_eq!(allows(&token), "publish, start; does not expire");
        token.topics = Some(vec![filter("plant/#").unwrap(), filter("a").unwrap()]);
        token.expires = Some(at(60));
        assert_eq!(allows(&token), "publish, start; publishes to plant/#, a; until 1970-01-01T00:01:00Z");
        token.revoked = Some(at(30));
        assert!(allows(&token).ends_with("; revoked 1970-01-01T00:00:30Z"));
        assert!(filter("$share/g/a").is_err() && filter("a/#/b").is_err());
    }
}
