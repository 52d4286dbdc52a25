//! Bytes to text, and text to fields: encodings, byte order marks, control characters, backslashes.

use std::borrow::Cow;

use crate::config::settings::Generation;

/// Text of a datagram, never longer than the datagram: UTF-8 with U+FFFD for what is not, or UTF-16 where an appender's `encoding` says
/// `unicode` (recognised by its byte order mark, or by the zero bytes of two leading ASCII characters). A byte order mark is taken off.
/// In generation head control characters go, but for line breaks, which [`field`] and [`message`] treat.
pub(super) fn decode(bytes: &[u8], generation: Generation) -> Cow<'_, str> {
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => Cow::Owned(utf16(rest)),
        [first, 0, second, 0, ..] if *first != 0 && *second != 0 => Cow::Owned(utf16(bytes)),
        _ => String::from_utf8_lossy(bytes),
    };
    let text = match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Cow::Owned(text) => Cow::Owned(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
    };
    if generation == Generation::Head && text.bytes().any(|byte| is_removed(char::from(byte))) {
        return Cow::Owned(text.chars().filter(|c| !is_removed(*c)).collect());
    }
    text
}

fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).filter_map(|pair| Some(u16::from_le_bytes(pair.try_into().ok()?)));
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// U+0000-001F and U+007F, as Butler head removes them, without line breaks.
fn is_removed(c: char) -> bool {
    c.is_ascii_control() && !is_break(c)
}

fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

/// A field other than the message.
pub(super) fn field(text: &str, generation: Generation) -> String {
    owned_field(text.to_owned(), generation)
}

/// See [`field`].
pub(super) fn owned_field(mut text: String, generation: Generation) -> String {
    if generation == Generation::Head {
        text.retain(|c| !is_break(c));
    }
    text
}

/// The message: the fields that are left, joined again. In generation head a line break in it becomes one blank (log4net appends the
/// text of an exception on lines of their own), one at its end goes. `None` if there is no field left.
pub(super) fn message(fields: &[&str], generation: Generation) -> Option<String> {
    if fields.is_empty() {
        return None;
    }
    let text = fields.join(";");
    if generation == Generation::V5_4 || !text.contains(is_break) {
        return Some(text);
    }
    let lines: Vec<&str> = text.split(is_break).filter(|line| !line.is_empty()).collect();
    Some(lines.join(" "))
}

/// `DIR\\user` to `DIR\user`: each pair of backslashes becomes one, as Butler does it.
pub(super) fn single_backslashes(user: String) -> String {
    if user.contains("\\\\") { user.replace("\\\\", "\\") } else { user }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        let utf16_text = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        for generation in [Generation::Head, Generation::V5_4] {
            assert_eq!(decode("\u{feff}å;b".as_bytes(), generation), "å;b");
            assert_eq!(decode(b"a\xe5b", generation), "a\u{fffd}b");
            assert_eq!(decode(&utf16_text("/å;売🚀"), generation), "/å;売🚀".replace('\u{0}', ""));
            assert_eq!(decode(&utf16_text("\u{feff}/x;å"), generation), "/x;å");
            assert_eq!(decode(b"", generation), "");
        }
    }

    #[test]
    fn control_characters() {
        assert_eq!(decode(b"a\0\tb\x7f\r\n", Generation::Head), "ab\r\n");
        assert_eq!(decode(b"a\x01\tb\x7f\r\n", Generation::V5_4), "a\x01\tb\x7f\r\n");
        assert_eq!(field("a\r\nb", Generation::Head), "ab");
        assert_eq!(message(&["a\r\nb", "c\r\n"], Generation::Head).unwrap(), "a b;c");
        assert_eq!(message(&["a\r\n"], Generation::V5_4).unwrap(), "a\r\n");
        assert_eq!(message(&[], Generation::Head), None);
    }

    #[test]
    fn backslashes() {
        for (sent, kept) in [(r"a\b", r"a\b"), (r"a\\b", r"a\b"), (r"a\\\b", r"a\\b"), (r"a\\\\b", r"a\\b")] {
            assert_eq!(single_backslashes(sent.to_owned()), kept);
        }
    }
}
