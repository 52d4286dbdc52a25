//! Filters compared with filters: whether one matches everything another matches, and whether any topic is matched by both.
//!
//! `#` and `+` at the first level do not reach topics that begin with `$` (`[MQTT-4.7.2-1]`), in either direction.

/// Whether every topic `asked` matches is matched by `allowed` too. A `false` may be too careful (`+/#` and `#`); a `true` never is.
pub(super) fn covers(allowed: &str, asked: &str) -> bool {
    if asked.starts_with('$') && begins_wild(allowed) {
        return false;
    }
    let mut wanted = asked.split('/');
    for level in allowed.split('/') {
        match (level, wanted.next()) {
            ("#", _) => return true,
            ("+", Some(asked)) if asked != "#" => {}
            (level, Some(asked)) if level == asked && asked != "#" => {}
            _ => return false,
        }
    }
    wanted.next().is_none()
}

/// Whether any topic is matched by both.
pub(super) fn overlaps(one: &str, other: &str) -> bool {
    if (one.starts_with('$') && begins_wild(other)) || (other.starts_with('$') && begins_wild(one)) {
        return false;
    }
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "+" || b == "+" => {}
            _ => return false,
        }
    }
}

fn begins_wild(filter: &str) -> bool {
    filter.starts_with(['#', '+'])
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::matches;

    #[test]
    fn covering() {
        let cases = [
            ("#", "a/b", true),
            ("#", "#", true),
            ("a/#", "a/+/c", true),
            ("a/#", "a", true),
            ("a/#", "#", false),
            ("a/+", "a/b", true),
            ("a/+", "a/#", false),
            ("a/b", "a/+", false),
            ("+/b", "a/b", true),
            ("#", "$SYS/#", false),
            ("$SYS/#", "$SYS/a", true),
        ];
        for (allowed, asked, expected) in cases {
            assert_eq!(covers(allowed, asked), expected, "{allowed} {asked}");
        }
    }

    #[test]
    fn overlapping() {
        let cases = [
            ("a/#", "a", true),
            ("a/+", "a", false),
            ("a/+/c", "+/b/+", true),
            ("a/b/#", "a/+", true),
            ("a/b", "a/c", false),
            ("#", "$SYS/a", false),
            ("$SYS/#", "+/a", false),
            ("$SYS/#", "$SYS/+", true),
            ("a", "a/b", false),
        ];
        for (one, other, expected) in cases {
            assert_eq!((overlaps(one, other), overlaps(other, one)), (expected, expected), "{one} {other}");
        }
    }

    /// Filters of up to three levels, and perhaps `#`.
    pub(in crate::broker::access) fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just("+"), Just("$s")];
        (prop::collection::vec(level, 0..4), any::<bool>()).prop_filter_map("a filter", |(mut levels, hash)| {
            if hash {
                levels.push("#");
            }
            (!levels.is_empty()).then(|| levels.join("/"))
        })
    }

    /// Every topic of up to four levels made of `a`, `b`, a word no filter has, and `$s`.
    pub(in crate::broker::access) fn topics() -> Vec<String> {
        let mut all = vec![Vec::new()];
        let mut longest = all.clone();
        for _ in 0..4 {
            longest = longest
                .iter()
                .flat_map(|topic: &Vec<&str>| {
                    ["a", "b", "c", "$s"].map(|level| topic.iter().copied().chain([level]).collect::<Vec<_>>())
                })
                .collect();
            all.extend(longest.iter().cloned());
        }
        all.iter().skip(1).map(|levels| levels.join("/")).collect()
    }

    #[test]
    fn both_are_what_looking_at_every_topic_says() {
        let topics = topics();
        assert_eq!(topics.len(), 340);
        let mut runner = proptest::test_runner::TestRunner::default();
        runner
            .run(&(filter(), filter()), |(one, other)| {
                let both = topics.iter().any(|topic| matches(&one, topic) && matches(&other, topic));
                prop_assert_eq!(overlaps(&one, &other), both, "{} {}", one, other);
                let within = topics.iter().all(|topic| !matches(&other, topic) || matches(&one, topic));
                prop_assert!(!covers(&one, &other) || within, "{one} does not cover {other}");
                // Too careful only where `+` and `#` together say the same as `#` alone.
                prop_assert!(covers(&one, &other) || !within || one.contains('+'), "{one} covers {other}");
                Ok(())
            })
            .unwrap();
    }
}
