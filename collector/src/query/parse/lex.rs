//! Query text -> tokens with their places.
//!
//! Shape: one pass that knows whether it stands between braces, where every word is a label, or between brackets, where
//!        `:` parts range and step. Elsewhere a word may hold colons. Whitespace and `# comments` are left out.
//! Errors: what no token begins with, strings and brackets that do not end, in Prometheus' words.

use super::super::plan::Place;
use super::ParseError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Word,
    Number,
    Duration,
    /// With its quotes and escapes.
    Quoted,
    Sign,
    End,
}

#[derive(Debug, Clone, Copy)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    pub place: Place,
}

const SIGNS: [&str; 26] = [
    "==", "=~", "!=", "!~", "<=", ">=", "</", ">/", "<", ">", "=", "+", "-", "*", "/", "%", "^", "(", ")", "{", "}",
    "[", "]", ",", ":", "@",
];

pub fn tokens(text: &str) -> Result<Vec<Token<'_>>, ParseError> {
    let mut lexer = Lexer { rest: text, place: Place { line: 1, column: 1 }, open: Vec::new() };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank();
        let place = lexer.place;
        let (kind, length) = lexer.next()?;
        let text = lexer.take(length);
        tokens.push(Token { kind, text, place });
        if kind == Kind::End {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    rest: &'a str,
    place: Place,
    /// Brackets that are open, innermost last.
    open: Vec<char>,
}

impl<'a> Lexer<'a> {
    fn take(&mut self, length: usize) -> &'a str {
        let (text, rest) = self.rest.split_at(length);
        self.rest = rest;
        match text.rfind('\n') {
            Some(at) => {
                self.place.line += text.matches('\n').count() as u32;
                self.place.column = (text.len() - at) as u32;
            }
            None => self.place.column += text.len() as u32,
        }
        text
    }

    fn skip_blank(&mut self) {
        loop {
            let blank = self.rest.len() - self.rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
            let comment = match self.rest[blank..].starts_with('#') {
                true => self.rest[blank..].find('\n').unwrap_or(self.rest.len() - blank),
                false => 0,
            };
            if blank + comment == 0 {
                return;
            }
            self.take(blank + comment);
        }
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError { place: self.place, message: message.into() })
    }

    /// Kind and length of what comes next.
    fn next(&mut self) -> Result<(Kind, usize), ParseError> {
        let inside = self.open.last().copied();
        let Some(first) = self.rest.chars().next() else {
            return match inside {
                Some('(') => self.error("unclosed left parenthesis"),
                Some('[') => self.error("unclosed left bracket"),
                Some(_) => self.error("unexpected end of input inside braces"),
                None => Ok((Kind::End, 0)),
            };
        };
        if matches!(first, '"' | '\'' | '`') {
            return self.quoted(first);
        }
        if let Some(found) = number(self.rest).filter(|_| inside != Some('{')) {
            return Ok(found);
        }
        let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || (c == ':' && inside.is_none_or(|c| c == '('));
        if in_word(first) && !first.is_ascii_digit() {
            return Ok((Kind::Word, self.rest.find(|c| !in_word(c)).unwrap_or(self.rest.len())));
        }
        let Some(sign) = SIGNS.iter().find(|sign| self.rest.starts_with(**sign)) else {
            return match (inside, first) {
                (_, '!') => {
                    let inside = if inside == Some('{') { " inside braces" } else { "" };
                    let next = self.rest.chars().nth(1).map_or("end of input".to_owned(), |next| format!("{next:?}"));
                    self.error(format!("unexpected character after '!'{inside}: {next}"))
                }
                (Some('{'), _) => self.error(format!("unexpected character inside braces: {first:?}")),
                _ if first.is_ascii_digit() => {
                    let in_number = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
                    let end = self.rest.find(|c| !in_number(c)).unwrap_or(self.rest.len());
                    self.error(format!("bad number or duration syntax: {:?}", &self.rest[..end]))
                }
                _ => self.error(format!("unexpected character: {first:?}")),
            };
        };
        if inside == Some('{') && matches!(first, '(' | ')' | '[' | ']' | '{') {
            return self.error(format!("unexpected character inside braces: {first:?}"));
        }
        self.bracket(first)?;
        Ok((Kind::Sign, sign.len()))
    }

    /// Keeps count of open brackets.
    fn bracket(&mut self, sign: char) -> Result<(), ParseError> {
        let opens = match sign {
            '(' | '[' | '{' => {
                self.open.push(sign);
                return Ok(());
            }
            ')' => '(',
            ']' => '[',
            '}' => '{',
            _ => return Ok(()),
        };
        if self.open.pop() == Some(opens) {
            return Ok(());
        }
        match sign {
            // Behind it, and not at it as with the others.
            ')' => {
                let place = Place { column: self.place.column + 1, ..self.place };
                Err(ParseError { place, message: "unexpected right parenthesis ')'".to_owned() })
            }
            ']' => self.error("unexpected right bracket ']'"),
            _ => self.error("unexpected right brace '}'"),
        }
    }

    fn quoted(&self, quote: char) -> Result<(Kind, usize), ParseError> {
        let mut escaped = false;
        for (at, c) in self.rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' if quote != '`' => escaped = true,
                '\n' if quote != '`' => break,
                c if c == quote => return Ok((Kind::Quoted, at + 1)),
                _ => {}
            }
        }
        self.error(if quote == '`' { "unterminated raw string" } else { "unterminated quoted string" })
    }
}

/// A number or a duration at the beginning of the text; `None` where none stands there, or one that runs into a word.
fn number(text: &str) -> Option<(Kind, usize)> {
    let bytes = text.as_bytes();
    let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
    let begins = if at(0) == b'.' { at(1) } else { at(0) };
    if !begins.is_ascii_digit() {
        return None;
    }
    let is_hex = at(0) == b'0' && matches!(at(1), b'x' | b'X');
    let mut end = if is_hex { 2 } else { 0 };
    loop {
        match at(end) {
            b'e' | b'E' if !is_hex && matches!(at(end + 1), b'+' | b'-') && at(end + 2).is_ascii_digit() => end += 2,
            b'e' | b'E' if !is_hex && at(end + 1).is_ascii_digit() => end += 1,
            c if c.is_ascii_digit() || c == b'_' || c == b'.' || (is_hex && c.is_ascii_hexdigit()) => end += 1,
            _ => break,
        }
    }
    let in_word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    if !in_word(at(end)) {
        return Some((Kind::Number, end));
    }
    let end = bytes.iter().position(|c| !in_word(*c)).unwrap_or(bytes.len());
    // Whether its units are in order is told when it is read.
    let is_duration = end > 0 && text[..end].bytes().all(|c| c.is_ascii_digit() || b"smhdwy".contains(&c));
    is_duration.then_some((Kind::Duration, end))
}
