//! `name{label="value", other=~"re.*"}` and `{"any name", "any label"="value"}`.

use crate::store::{METRIC_NAME, MatchOp, Matcher};

use super::super::plan::{Edges, Expr, Selector, Shift};
use super::lex::{Kind, Token};
use super::literal;
use super::regex::{States, anchored};
use super::tokens::{Parsed, Tokens, wrong};

const CONTEXT: &str = "label matching";

impl Tokens<'_> {
    /// From the braces on, where there are any; `name` was read before.
    pub fn selector(&mut self, name: Option<Token<'_>>) -> Parsed<Expr> {
        let place = name.map_or(self.place(), |name| name.place);
        let mut selector = Selector {
            name: name.map(|name| name.text.to_owned()),
            matchers: name.map(|name| named(name.text)).into_iter().collect(),
            shift: Shift::default(),
            edges: Edges::Plain,
            place,
        };
        if self.accept("{") {
            self.matchers(&mut selector)?;
        }
        let mut names = selector.matchers.iter().filter(|matcher| matcher.name == METRIC_NAME);
        if let (Some(name), Some(other), Some(_)) = (names.next(), names.next(), &selector.name) {
            let message = format!("metric name must not be set twice: {:?} or {:?}", name.value, other.value);
            return Err(wrong(place, message));
        }
        Ok(Expr::Selector(selector))
    }

    fn matchers(&mut self, selector: &mut Selector) -> Parsed<()> {
        loop {
            if self.accept("}") {
                return Ok(());
            }
            let token = self.peek();
            let label = match token.kind {
                Kind::Word => {
                    self.take();
                    token.text.to_owned()
                }
                Kind::Quoted => self.utf8("label name")?,
                _ => return Err(self.unexpected(CONTEXT, "identifier or \"}\"")),
            };
            let op = self.peek();
            if ["=", "!=", "=~", "!~"].iter().any(|sign| op.is_sign(sign)) {
                self.take();
                if self.peek().kind != Kind::Quoted {
                    return Err(self.unexpected(CONTEXT, "string"));
                }
                // No stored value is anything but UTF-8, so that what is not matches none.
                let value = String::from_utf8_lossy(&self.text_literal()?).into_owned();
                let made = matcher(label, op, value, self.states);
                selector.matchers.push(made.map_err(|reason| wrong(token.place, reason))?);
            } else if token.kind == Kind::Quoted {
                if let Some(name) = &selector.name {
                    let message = format!("metric name must not be set twice: {name:?} or {label:?}");
                    return Err(wrong(selector.place, message));
                }
                selector.matchers.insert(0, named(&label));
                selector.name = Some(label);
            } else {
                return Err(self.unexpected(CONTEXT, "label matching operator"));
            }
            if !self.is_sign("}") {
                self.expect(",", CONTEXT, "\",\" or \"}\"")?;
            }
        }
    }

    fn utf8(&mut self, what: &str) -> Parsed<String> {
        let place = self.place();
        let text = self.text_literal()?;
        let quoted = literal::quoted(&text);
        String::from_utf8(text).map_err(|_| wrong(place, format!("invalid {what} {quoted}")))
    }
}

fn named(name: &str) -> Matcher {
    Matcher { name: METRIC_NAME.to_owned(), op: MatchOp::Equal, value: name.to_owned() }
}

fn matcher(name: String, op: Token<'_>, value: String, states: &mut States) -> Result<Matcher, String> {
    let mut regex = || anchored(&value, states);
    let op = match op.text {
        "=" => MatchOp::Equal,
        "!=" => MatchOp::NotEqual,
        "=~" => MatchOp::Match(regex()?),
        _ => MatchOp::NoMatch(regex()?),
    };
    Ok(Matcher { name, op, value })
}
