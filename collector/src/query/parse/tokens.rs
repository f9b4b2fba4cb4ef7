//! The tokens of a query and how far they are read.

use super::super::Features;
use super::super::plan::{Expr, Place};
use super::ParseError;
use super::lex::{self, Kind, Token};
use super::regex::States;

pub type Parsed<T> = Result<T, ParseError>;

pub struct Tokens<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    /// What is wrong where the tokens end before the text does.
    broken: Option<ParseError>,
    pub features: Features,
    /// In what unexpected tokens stand where the rule that meets them has no name.
    pub context: &'static str,
    /// What the query's regular expressions may still come to.
    pub states: &'a mut States,
}

impl<'a> Tokens<'a> {
    pub fn new(text: &'a str, features: Features, states: &'a mut States) -> Self {
        let (tokens, broken) = lex::tokens(text);
        Self { tokens, at: 0, broken, features, context: "", states }
    }

    pub fn whole(mut self) -> Parsed<Expr> {
        if self.peek().kind == Kind::End {
            return Err(wrong(Place { line: 1, column: 1 }, "no expression found in input"));
        }
        let expr = self.expr(0)?;
        if self.peek().kind == Kind::End { self.checked_root(expr) } else { Err(self.unexpected("", "")) }
    }

    pub fn peek(&self) -> Token<'a> {
        self.tokens[self.at]
    }

    /// The token after the next one.
    pub fn peek_second(&self) -> Token<'a> {
        self.tokens[(self.at + 1).min(self.tokens.len() - 1)]
    }

    /// The end is never passed.
    pub fn take(&mut self) -> Token<'a> {
        let token = self.tokens[self.at];
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    pub fn place(&self) -> Place {
        self.peek().place
    }

    pub fn is_sign(&self, sign: &str) -> bool {
        self.peek().is_sign(sign)
    }

    pub fn is_word(&self, word: &str) -> bool {
        self.peek().is_word(word)
    }

    /// Takes the sign where it is next.
    pub fn accept(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        if found {
            self.take();
        }
        found
    }

    /// Takes the keyword, in any case, where it is next.
    pub fn accept_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.take();
        }
        found
    }

    pub fn expect(&mut self, sign: &str, context: &str, expected: &str) -> Parsed<()> {
        if self.accept(sign) { Ok(()) } else { Err(self.unexpected(context, expected)) }
    }

    /// An error at what comes next.
    pub fn wrong(&self, message: impl Into<String>) -> ParseError {
        match &self.broken {
            Some(broken) if self.peek().kind == Kind::Broken => broken.clone(),
            _ => wrong(self.place(), message),
        }
    }

    /// `unexpected "x" in context, expected this`; parts may be empty.
    pub fn unexpected(&self, context: &str, expected: &str) -> ParseError {
        let context = if context.is_empty() { self.context } else { context };
        let mut message = format!("unexpected {}", self.peek().described());
        if !context.is_empty() {
            message.push_str(&format!(" in {context}"));
        }
        if !expected.is_empty() {
            message.push_str(&format!(", expected {expected}"));
        }
        self.wrong(message)
    }
}

pub fn wrong(place: Place, message: impl Into<String>) -> ParseError {
    ParseError { place, message: message.into() }
}

impl Token<'_> {
    pub fn is_sign(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }

    pub fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// As Prometheus names tokens in its errors.
    fn described(&self) -> String {
        const OPERATORS: [&str; 14] = ["+", "-", "*", "/", "%", "^", "==", "!=", "<", "<=", ">", ">=", "=~", "!~"];
        let is_operator_word = ["and", "or", "unless", "atan2"].iter().any(|word| self.is_word(word));
        match self.kind {
            Kind::End | Kind::Broken => "end of input".to_owned(),
            Kind::Sign if OPERATORS.contains(&self.text) => format!("<op:{}>", self.text),
            Kind::Sign => format!("{:?}", self.text),
            Kind::Word if is_operator_word => format!("<op:{}>", self.text.to_ascii_lowercase()),
            Kind::Word if super::expression::aggregate_op(self.text).is_some() => {
                format!("<aggr:{}>", self.text.to_ascii_lowercase())
            }
            Kind::Word if super::expression::is_keyword(self.text) => format!("<{}>", self.text.to_ascii_lowercase()),
            Kind::Word => format!("identifier {:?}", self.text),
            Kind::Number => format!("number {:?}", self.text),
            Kind::Duration => format!("duration {:?}", self.text),
            Kind::Quoted => format!("string {:?}", self.text),
        }
    }
}
