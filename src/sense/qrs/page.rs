//! Telling a web page from an answer of QRS, and its words from its markup.
//!
//! QRS speaks JSON, and plain text where it refuses something. A web page in its place is of a proxy (a log-in, a refused host name) or of Windows
//! itself.

/// How much of somebody's words is kept, characters.
const MAX_WORDS: usize = 300;

/// Whether a text is a web page, or any other markup.
pub fn is_page(body: &[u8]) -> bool {
    body.trim_ascii_start().strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start().starts_with(b"<")
}

/// The beginning of an error's body as one line of text, without markup.
pub fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = if is_page(body) { without_markup(&text) } else { text.into_owned() };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() { "no further words".into() } else { text.chars().take(MAX_WORDS).collect() }
}

/// What stands outside `<…>`, and outside of style sheets and scripts.
fn without_markup(text: &str) -> String {
    let mut words = String::new();
    let mut hidden = false;
    for part in text.split('<') {
        let (tag, after) = part.split_once('>').unwrap_or(("", part));
        let name = tag.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        match name.as_str() {
            "style" | "script" => hidden = true,
            "/style" | "/script" => hidden = false,
            _ => {}
        }
        if !hidden {
            words.push(' ');
            words.push_str(after);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_one_short_line() {
        assert_eq!(words(b"XSRF  prevention\r\ncheck failed."), "XSRF prevention check failed.");
        assert_eq!(words(b""), "no further words");
        let page = "<html><head><title>Bad Request</title><style>p { x < y }</style></head>\r\n<body><p class=\"a\">The http request header is incorrect.</p></body>";
        assert!(is_page(page.as_bytes()) && !is_page(b"a < b") && !is_page(b"[]"));
        assert_eq!(words(page.as_bytes()), "Bad Request The http request header is incorrect.");
        assert_eq!(words("å".repeat(5_000).as_bytes()).chars().count(), MAX_WORDS);
    }
}
