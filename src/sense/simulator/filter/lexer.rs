//! Splits an expression into words, strings and parentheses.

/// A part of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// `(`
    Open,
    /// `)`
    Close,
    /// Everything without quotes: properties, operators, ids, numbers.
    Word(String),
    /// The content of single quotes, escapes resolved.
    Text(String),
}

/// The parts, or `None` when there is something that is none of them: a double quote, an open string, an unknown escape, two strings or a word
/// and a string with nothing between them (which is what a doubled quote looks like).
pub fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    // Whether a value ended right here, so that another may not begin right here.
    let mut adjoins = false;
    while let Some(&next) = rest.peek() {
        match next {
            '(' | ')' => {
                rest.next();
                found.push(if next == '(' { Token::Open } else { Token::Close });
                adjoins = false;
            }
            '\'' if adjoins => return None,
            '\'' => {
                rest.next();
                found.push(Token::Text(quoted(&mut rest)?));
                adjoins = true;
            }
            _ if next.is_whitespace() => {
                rest.next();
                adjoins = false;
            }
            _ if adjoins || !is_word(next) => return None,
            _ => {
                let mut word = String::new();
                while let Some(letter) = rest.next_if(|letter| is_word(*letter)) {
                    word.push(letter);
                }
                found.push(Token::Word(word));
                adjoins = true;
            }
        }
    }
    Some(found)
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_' | '@' | '+')
}

/// The rest of a string after its opening quote.
fn quoted(rest: &mut impl Iterator<Item = char>) -> Option<String> {
    let mut content = String::new();
    loop {
        match rest.next()? {
            '\'' => return Some(content),
            '\\' => content.push(rest.next().filter(|escaped| matches!(escaped, '\'' | '\\'))?),
            letter => content.push(letter),
        }
    }
}
