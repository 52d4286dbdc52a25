//! Patterns of access rules: topic filters with `%u` (user) and `%c` (client id), and patterns of client ids with `*`.
//!
//! Invariant: a name never widens a pattern. One that is empty or contains `+`, `#` or `/`, or would make the filter begin with `$` where the
//! pattern does not, matches nothing; nor does a pattern that becomes a shared subscription or no filter at all.

use std::{fmt, sync::Arc};

use crate::names::{NameError, TopicFilter};

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is no topic filter, whatever the names are.
    #[error(transparent)]
    Filter(#[from] NameError),
    /// `$share/<group>/...`: rules are about topics.
    #[error(
        "rules are about topics: write the filter without `$share/<group>/`, it holds for shared subscriptions too"
    )]
    Shared,
    /// `%` and something else.
    #[error("after `%` comes `u` (the user), `c` (the client id), or another `%` (the character itself)")]
    Placeholder,
    /// An empty pattern of a client id.
    #[error("a client id pattern is not empty; `*` stands for any client id")]
    EmptyClient,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    User,
    Client,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// The same for everybody.
    Plain(TopicFilter),
    Filled(Box<[Piece]>),
}

/// A topic filter in which `%u` and `%c` stand for the user and the client id; `%%` is the character `%`.
#[derive(Clone, PartialEq, Eq)]
pub struct TopicPattern {
    text: Arc<str>,
    form: Form,
}

impl TopicPattern {
    /// Parses the text.
    ///
    /// # Errors
    /// Names the rule that is broken.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let pieces = pieces(text)?;
        // A name stands for a level or a part of one: with a harmless name the rest has to be a filter.
        let probe = TopicFilter::new(fill(&pieces, "x", "x"))?;
        if probe.shared().is_some() {
            return Err(PatternError::Shared);
        }
        let plain = pieces.iter().all(|piece| matches!(piece, Piece::Text(_)));
        let form = if plain { Form::Plain(probe) } else { Form::Filled(pieces.into()) };
        Ok(Self { text: text.into(), form })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The filter for one client; `None`: it matches nothing there.
    pub fn resolve(&self, user: Option<&str>, client: &str) -> Option<TopicFilter> {
        let pieces = match &self.form {
            Form::Plain(filter) => return Some(filter.clone()),
            Form::Filled(pieces) => pieces,
        };
        let missing = |piece: &Piece| match piece {
            Piece::Text(_) => false,
            Piece::User => !user.is_some_and(is_level),
            Piece::Client => !is_level(client),
        };
        if pieces.iter().any(missing) {
            return None;
        }
        let filled = fill(pieces, user.unwrap_or_default(), client);
        if filled.starts_with('$') && !self.text.starts_with('$') {
            return None;
        }
        TopicFilter::new(filled).ok().filter(|filter| filter.shared().is_none())
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// Whether a name can stand in a topic without changing its levels.
fn is_level(name: &str) -> bool {
    !name.is_empty() && !name.contains(['+', '#', '/'])
}

fn pieces(text: &str) -> Result<Vec<Piece>, PatternError> {
    let (mut pieces, mut plain) = (Vec::new(), String::new());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let piece = match (char, (char == '%').then(|| chars.next()).flatten()) {
            ('%', Some('u')) => Piece::User,
            ('%', Some('c')) => Piece::Client,
            ('%', Some('%')) => {
                plain.push('%');
                continue;
            }
            ('%', _) => return Err(PatternError::Placeholder),
            (char, _) => {
                plain.push(char);
                continue;
            }
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
        }
        pieces.push(piece);
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain.into()));
    }
    Ok(pieces)
}

fn fill(pieces: &[Piece], user: &str, client: &str) -> String {
    let mut filled = String::new();
    for piece in pieces {
        filled.push_str(match piece {
            Piece::Text(text) => text,
            Piece::User => user,
            Piece::Client => client,
        });
    }
    filled
}

/// Client ids, by a text in which `*` stands for any characters, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientPattern(Arc<str>);

impl ClientPattern {
    /// Parses the text.
    ///
    /// # Errors
    /// If it is empty.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() { Err(PatternError::EmptyClient) } else { Ok(Self(text.into())) }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a client id matches. Takes time in proportion to both lengths, whatever they hold.
    pub fn matches(&self, client: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return *self.0 == *client };
        let Some(mut left) = client.strip_prefix(first) else { return false };
        let (middle, last) = rest.rsplit_once('*').map_or((None, rest), |(middle, last)| (Some(middle), last));
        // The leftmost place is as good as any other: what follows a `*` may begin anywhere behind it.
        for part in middle.into_iter().flat_map(|middle| middle.split('*')) {
            let Some((_, behind)) = left.split_once(part) else { return false };
            left = behind;
        }
        left.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_fill_patterns_and_never_widen_them() {
        let cases = [
            ("plant/%u/#", "anna", "c1", Some("plant/anna/#")),
            ("%u/%c", "anna", "c1", Some("anna/c1")),
            ("d/%c-state", "", "c1", Some("d/c1-state")),
            ("100%%/x", "", "", Some("100%/x")),
            ("plant/%u/#", "", "c1", None),
            ("plant/%u", "+", "c1", None),
            ("plant/%u", "#", "c1", None),
            ("plant/%u", "a/b", "c1", None),
            ("plant/%c", "anna", "a+b", None),
            ("plant/%c", "anna", "/", None),
            ("plant/%c", "anna", "", None),
            ("%u/#", "$SYS", "c1", None),
            ("x/%u/#", "$SYS", "c1", Some("x/$SYS/#")),
            ("$%u/g/a", "share", "c1", None),
            ("%u/g/a", "$share", "c1", None),
            ("%c%u", "%u", "%c", Some("%c%u")),
        ];
        for (pattern, user, client, expected) in cases {
            let found = TopicPattern::new(pattern).unwrap().resolve(Some(user), client);
            assert_eq!(found.as_ref().map(TopicFilter::as_str), expected, "{pattern} {user} {client}");
        }
        assert_eq!(TopicPattern::new("a/%u").unwrap().resolve(None, "c"), None, "nobody has no topics of their own");
        let long = "x".repeat(65_530);
        assert_eq!(TopicPattern::new("a/%u/%c").unwrap().resolve(Some(&long), "client"), None);
    }

    #[test]
    fn what_is_no_pattern() {
        for (text, why) in [
            ("", PatternError::Filter(NameError::Empty)),
            ("a/#/b", PatternError::Filter(NameError::MisplacedWildcard)),
            ("a/#%u", PatternError::Filter(NameError::MisplacedWildcard)),
            ("+%c/a", PatternError::Filter(NameError::MisplacedWildcard)),
            ("a/%x", PatternError::Placeholder),
            ("a/%", PatternError::Placeholder),
            ("$share/g/a", PatternError::Shared),
        ] {
            assert_eq!(TopicPattern::new(text), Err(why), "{text}");
        }
        assert_eq!(ClientPattern::new(""), Err(PatternError::EmptyClient));
    }

    #[test]
    fn client_ids() {
        let cases = [
            ("plc-7", "plc-7", true),
            ("plc-7", "plc-77", false),
            ("plc-*", "plc-", true),
            ("plc-*", "plc7", false),
            ("*", "", true),
            ("*-test", "a-test", true),
            ("*-test", "-test-", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("**å**", "xåx", true),
        ];
        for (pattern, client, expected) in cases {
            assert_eq!(ClientPattern::new(pattern).unwrap().matches(client), expected, "{pattern} {client}");
        }
    }

    /// By definition: what `*` stands for is tried out.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len()).any(|skipped| naive(rest, &text[skipped..])),
            [first, rest @ ..] => text.first() == Some(first) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn client_patterns_are_what_trying_says(pattern in "[ab*]{1,6}", client in "[ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(
                ClientPattern::new(&pattern).unwrap().matches(&client),
                naive(&chars(&pattern), &chars(&client))
            );
        }
    }
}
