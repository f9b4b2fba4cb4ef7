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
    /// What is none: the text is not read any further.
    Broken,
}

#[derive(Debug, Clone, Copy)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    pub place: Place,
}

const SIGNS: [&str; 24] = [
    "==", "!=", "<=", ">=", "</", ">/", "<", ">", "=", "+", "-", "*", "/", "%", "^", "(", ")", "{", "}", "[", "]", ",",
    ":", "@",
];
const SIGNS_IN_BRACES: [&str; 6] = ["=~", "!=", "!~", "=", ",", "}"];

/// What a duration may begin with beside a number.
const LENGTH_SIGNS: &str = "+-*/%^()]:";
const LENGTH_WORDS: [&str; 6] = ["step", "range", "min_of", "max_of", "inf", "nan"];

/// The tokens of a text up to its end or to what is none, whichever comes first. A reader who finds nothing wrong before that
/// meets it last: an error is told where it is met, as Prometheus does.
pub fn tokens(text: &str) -> (Vec<Token<'_>>, Option<ParseError>) {
    let mut lexer = Lexer {
        rest: text,
        place: Place { line: 1, column: 1 },
        open: Vec::new(),
        parens: 0,
        brackets: 0,
        length: Length::Done,
    };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank();
        let place = lexer.place;
        let (kind, length, error) = match lexer.next() {
            Ok((kind, length)) => (kind, length, None),
            Err(error) => (Kind::Broken, 0, Some(error)),
        };
        let text = lexer.take(length);
        lexer.length = lexer.length_after(kind, text);
        tokens.push(Token { kind, text, place });
        if matches!(kind, Kind::End | Kind::Broken) {
            return (tokens, error);
        }
    }
}

/// How far what stands between brackets is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// A range is to come.
    First,
    /// More of it is, behind an operator.
    More,
    /// A step may be.
    Step,
    Done,
}

struct Lexer<'a> {
    rest: &'a str,
    place: Place,
    /// Brackets that are open, innermost last.
    open: Vec<char>,
    /// How many of them are `(`, and how many `[`: a text may have a great many.
    parens: usize,
    brackets: usize,
    length: Length,
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

    /// Behind the next character, and not at it as with most.
    fn error_behind<T>(&self, message: impl Into<String>) -> Result<T, ParseError> {
        let place = Place { column: self.place.column + 1, ..self.place };
        Err(ParseError { place, message: message.into() })
    }

    /// Kind and length of what comes next.
    fn next(&mut self) -> Result<(Kind, usize), ParseError> {
        let inside = self.open.last().copied();
        let Some(first) = self.rest.chars().next() else { return self.end(inside) };
        if self.length == Length::First || self.length == Length::More {
            self.begin_length(first)?;
        }
        if matches!(first, '"' | '\'' | '`') {
            return self.quoted(first);
        }
        if inside == Some('{') {
            return self.in_braces(first);
        }
        if let Some((kind, length)) = number(self.rest) {
            let text = &self.rest[..length];
            return match kind {
                Kind::Broken => self.error(format!("bad number or duration syntax: {text:?}")),
                kind => Ok((kind, length)),
            };
        }
        if first.is_ascii_alphabetic() || first == '_' || (first == ':' && inside != Some('[')) {
            let in_word = |c: char| is_in_word(c) || (c == ':' && inside != Some('['));
            return Ok((Kind::Word, self.rest.find(|c| !in_word(c)).unwrap_or(self.rest.len())));
        }
        self.sign(first, inside)
    }

    fn end(&self, inside: Option<char>) -> Result<(Kind, usize), ParseError> {
        match inside {
            Some('(') => self.error("unclosed left parenthesis"),
            Some('[') if self.length == Length::First => self.error("unexpected end of input in duration expression"),
            Some('[') => self.error("unclosed left bracket"),
            Some(_) => self.error("unexpected end of input inside braces"),
            None => Ok((Kind::End, 0)),
        }
    }

    /// A label, an operator between it and its value, or the end of them all.
    fn in_braces(&mut self, first: char) -> Result<(Kind, usize), ParseError> {
        if first.is_ascii_alphabetic() || first == '_' {
            return Ok((Kind::Word, self.rest.find(|c| !is_in_word(c)).unwrap_or(self.rest.len())));
        }
        let Some(sign) = SIGNS_IN_BRACES.iter().find(|sign| self.rest.starts_with(**sign)) else {
            return match first {
                '!' => self.error(format!("unexpected character after '!' inside braces: {:?}", self.second())),
                '{' => self.error("unexpected left brace '{'"),
                _ => self.error(format!("unexpected character inside braces: {first:?}")),
            };
        };
        self.bracket(first)?;
        Ok((Kind::Sign, sign.len()))
    }

    fn sign(&mut self, first: char, inside: Option<char>) -> Result<(Kind, usize), ParseError> {
        let sign = SIGNS.iter().find(|sign| self.rest.starts_with(**sign));
        match (sign, first) {
            (None, '!') => return self.error(format!("unexpected character after '!': {:?}", self.second())),
            (Some(_), '=') if self.second() == '~' => return self.error("unexpected character after '=': '~'"),
            (Some(_), '[') if inside == Some('[') => return self.error("unexpected left bracket '['"),
            (Some(_), ':') if self.length != Length::Step => return self.error("unexpected colon ':'"),
            _ => {}
        }
        let Some(sign) = sign else { return self.error(format!("unexpected character: {first:?}")) };
        self.bracket(first)?;
        Ok((Kind::Sign, sign.len()))
    }

    /// The character after the next one, as Go shows it where there is none.
    fn second(&self) -> char {
        self.rest.chars().nth(1).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    fn begin_length(&self, first: char) -> Result<(), ParseError> {
        let word = &self.rest[..self.rest.find(|c| !is_in_word(c)).unwrap_or(self.rest.len())];
        if first == ':' && self.length == Length::First {
            return self.error_behind("unexpected colon before duration in duration expression");
        }
        let begins = LENGTH_SIGNS.contains(first)
            || number(self.rest).is_some()
            || LENGTH_WORDS.iter().any(|known| word.eq_ignore_ascii_case(known));
        if begins { Ok(()) } else { self.error(format!("unexpected character in duration expression: {first:?}")) }
    }

    /// What is to come of a range when this was read.
    fn length_after(&self, kind: Kind, text: &str) -> Length {
        match (kind, text) {
            (Kind::Sign, "[") => Length::First,
            _ if self.brackets == 0 => Length::Done,
            (Kind::Sign, ":") => Length::Done,
            (Kind::Sign, "(" | "+" | "-" | "*" | "/" | "%" | "^") if self.length != Length::Done => Length::More,
            _ if self.length != Length::Done => Length::Step,
            _ => Length::Done,
        }
    }

    /// Keeps count of open brackets.
    fn bracket(&mut self, sign: char) -> Result<(), ParseError> {
        let opens = match sign {
            '(' | '[' | '{' => {
                self.open.push(sign);
                self.parens += usize::from(sign == '(');
                self.brackets += usize::from(sign == '[');
                return Ok(());
            }
            ')' => '(',
            ']' => '[',
            '}' => '{',
            _ => return Ok(()),
        };
        if self.open.last() == Some(&opens) {
            self.open.pop();
            self.parens -= usize::from(sign == ')');
            self.brackets -= usize::from(sign == ']');
            return Ok(());
        }
        match sign {
            // Of another kind of bracket it is a token like others, and the reader says what it should have been.
            ')' if self.parens > 0 => Ok(()),
            ')' => self.error_behind("unexpected right parenthesis ')'"),
            ']' if self.brackets > 0 => Ok(()),
            ']' => self.error("unexpected right bracket ']'"),
            _ => self.error("unexpected character: '}'"),
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

fn is_in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// A number or a duration at the beginning of the text, or as much of it as tells that it is neither; `None` where none begins.
fn number(text: &str) -> Option<(Kind, usize)> {
    let mut digits = Digits { text: text.as_bytes(), at: 0 };
    let begins = if digits.peek() == Some(b'.') { digits.text.get(1) } else { digits.text.first() };
    begins.filter(|c| c.is_ascii_digit())?;
    let kind = if digits.number() {
        Kind::Number
    } else if digits.units() {
        // Whether they are in order is told when they are read.
        Kind::Duration
    } else {
        Kind::Broken
    };
    // What is beyond ASCII ends a number and is none of its bytes.
    Some((kind, digits.at))
}

/// Reads numbers as Prometheus does, step by step: where it stops is what its errors show.
struct Digits<'a> {
    text: &'a [u8],
    at: usize,
}

impl Digits<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn accept(&mut self, any_of: &[u8]) -> bool {
        let found = self.peek().is_some_and(|c| any_of.contains(&c));
        self.at += usize::from(found);
        found
    }

    fn accept_all(&mut self, any_of: &[u8]) {
        while self.accept(any_of) {}
    }

    fn at_word(&self) -> bool {
        self.peek().is_some_and(|c| is_in_word(char::from(c)))
    }

    fn number(&mut self) -> bool {
        let mut digits: &[u8] = b"0123456789";
        if self.accept(b"0") && self.accept(b"xX") {
            self.accept(b"_");
            digits = b"0123456789abcdefABCDEF";
        }
        let is_hex = digits.len() > 10;
        self.accept(b".");
        self.accept(digits);
        let (mut dotted, mut raised) = (false, false);
        let any = [digits, b"._eE"].concat();
        while self.peek().is_some_and(|c| any.contains(&c)) {
            if (dotted && self.accept(b".")) || (raised && self.accept(b"eE")) {
                return false;
            }
            if self.accept(b".") {
                dotted = true;
                if self.accept(b"_.") || is_hex {
                    return false;
                }
            } else if !is_hex && self.accept(b"eE") {
                raised = true;
                self.accept(b"+-");
                if self.accept(b"._eE") || self.peek().is_none() {
                    return false;
                }
            } else if self.accept(b"_") {
                if self.accept(b"._eE") || self.peek().is_none() {
                    return false;
                }
            } else {
                self.accept_all(digits);
            }
        }
        !self.at_word()
    }

    /// The rest of a duration: a unit, then numbers and units in turn.
    fn units(&mut self) -> bool {
        if !self.accept(b"smhdwy") {
            return false;
        }
        self.accept(b"s");
        while self.accept(b"0123456789") {
            self.accept_all(b"0123456789");
            if !self.accept(b"smhdw") {
                return false;
            }
            self.accept(b"s");
        }
        let runs_on = self.at_word();
        self.at += usize::from(runs_on);
        !runs_on
    }
}
