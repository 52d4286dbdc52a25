//! To which paths a fault applies: everything that begins so, or, with `*` in it, everything that looks so as a whole.

/// A pattern, lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Reads a pattern: `/qrs/task` is every path that begins so, `/qrs/task/*/start` stands for whole paths.
    pub fn new(text: &str) -> Self {
        Self(text.to_lowercase())
    }

    /// As it was written, in lower case.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether a path, in lower case, is meant.
    pub fn fits(&self, path: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return path.starts_with(&self.0) };
        let Some(mut left) = path.strip_prefix(first) else { return false };
        let mut parts = rest.split('*').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return left.ends_with(part);
            }
            // The earliest place leaves most for the parts behind it.
            let Some((_, after)) = left.split_once(part) else { return false };
            left = after;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_and_without_one_the_beginning_counts() {
        let cases = [
            ("/qrs/Task", "/qrs/task/x/start", true),
            ("/qrs/task", "/qrs/tas", false),
            ("/qrs/task/*/start", "/qrs/task/x/start", true),
            ("/qrs/task/*/start", "/qrs/task/x/start/synchronous", false),
            ("/qrs/task/*/start*", "/qrs/task/x/start/synchronous", true),
            ("*full", "/qrs/task/full", true),
            ("*full", "/qrs/task/full/more", false),
            ("*", "", true),
            ("/a*b*b", "/abb", true),
            ("/a*b*b", "/ab", false),
            ("/qrs/**/count", "/qrs/task/count", true),
        ];
        assert_eq!(cases.len(), 11);
        for (pattern, path, fits) in cases {
            assert_eq!(Pattern::new(pattern).fits(path), fits, "{pattern} {path}");
        }
    }
}
