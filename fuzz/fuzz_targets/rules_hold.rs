//! What must hold for any rules and names. Shared by the fuzz target and by the unit test that replays its corpus; the parent module brings
//! the names into scope.
//!
//! The input is lines: user, client id, topic, filter; then rules, each `+` (allow) or `-` (deny), a digit (actions as bits), and patterns with
//! blanks between them; a pattern that begins with `@` is one of client ids.

use super::{Action, ClientPattern, Rule, Ruleset, Subject, TopicFilter, TopicPattern, matches};

/// Judges; gives the number of rules that were read.
pub fn judge(input: &[u8]) -> usize {
    let Ok(text) = std::str::from_utf8(input) else { return 0 };
    let mut lines = text.split('\n');
    let (Some(user), Some(client), Some(topic), Some(filter)) =
        (lines.next(), lines.next(), lines.next(), lines.next())
    else {
        return 0;
    };
    let rules: Vec<Rule> = lines.filter_map(rule).collect();
    let subject = Subject { user: Some(user), groups: &[], client, listener: None };
    for pattern in rules.iter().flat_map(|rule| &rule.topics) {
        never_wider(pattern, user, client);
    }
    let set = Ruleset::resolve(&rules, &subject);
    for action in Action::ALL {
        let said = set.topic(action, topic);
        // A rule that concerns nobody with this name changes nothing; the verdict is that of the first which matches.
        let decides = |rule: &&Rule| {
            let concerned = rule.actions.contains(action)
                && rule.clients.as_ref().is_none_or(|clients| clients.iter().any(|one| one.matches(client)));
            let hit = |pattern: &TopicPattern| {
                pattern.resolve(Some(user), client).is_some_and(|filter| matches(filter.as_str(), topic))
            };
            concerned && rule.topics.iter().any(hit)
        };
        assert_eq!(said, rules.iter().find(decides).map(|rule| rule.allow));
        let Ok(filter) = TopicFilter::new(filter) else { continue };
        let whole = set.filter(action, filter.pattern());
        if !topic.contains(['+', '#']) && !topic.is_empty() && filter.matches(topic) {
            assert!(whole != Some(true) || said == Some(true), "granted as a whole, denied in part");
            assert!(whole.is_some() || said != Some(false), "not denied as a whole, denied in part");
        }
    }
    rules.len()
}

fn rule(line: &str) -> Option<Rule> {
    let mut chars = line.chars();
    let allow = match chars.next()? {
        '+' => true,
        '-' => false,
        _ => return None,
    };
    let bits = chars.next()?.to_digit(16)?;
    let (clients, topics): (Vec<_>, Vec<_>) =
        chars.as_str().split(' ').filter(|word| !word.is_empty()).partition(|word| word.starts_with('@'));
    let clients: Vec<_> =
        clients.iter().filter_map(|word| ClientPattern::new(word.trim_start_matches('@')).ok()).collect();
    Some(Rule {
        allow,
        actions: Action::ALL.into_iter().filter(|action| bits & *action as u32 != 0).collect(),
        users: None,
        groups: None,
        clients: (!clients.is_empty()).then_some(clients),
        listeners: None,
        topics: topics.iter().filter_map(|word| TopicPattern::new(word).ok()).collect(),
    })
}

/// Filled in, a pattern has the levels and wildcards it was written with.
fn never_wider(pattern: &TopicPattern, user: &str, client: &str) {
    let Some(filter) = pattern.resolve(Some(user), client) else { return };
    let count = |text: &str, wanted: char| text.chars().filter(|char| *char == wanted).count();
    for wanted in ['+', '#', '/'] {
        assert_eq!(count(filter.as_str(), wanted), count(pattern.as_str(), wanted), "{pattern:?}");
    }
    assert!(filter.shared().is_none());
    assert!(pattern.as_str().starts_with('$') || !filter.as_str().starts_with('$'), "{pattern:?}");
}
