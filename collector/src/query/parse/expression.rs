//! Operators, calls and aggregations.

use super::super::functions;
use super::super::plan::{AggregateOp, BinaryOp, Cardinality, Expr, Grouping, Matching, Place};
use super::lex::Kind;
use super::literal;
use super::tokens::{Parsed, Tokens, wrong};

/// How tightly a unary sign binds: `-a ^ b` is `-(a ^ b)`, `-a * b` is `(-a) * b`.
const SIGN_BINDS: u8 = 6;

/// Words that no metric or function may bear where an expression begins.
const RESERVED: [&str; 6] = ["on", "ignoring", "bool", "group_left", "group_right", "atan2"];
const KEYWORDS: [&str; 14] = [
    "offset",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "smoothed",
    "anchored",
    "fill",
    "fill_left",
    "fill_right",
    "atan2",
];

pub fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

impl Tokens<'_> {
    /// An expression of operators that bind at least as tightly as this.
    pub fn expr(&mut self, binds: u8) -> Parsed<Expr> {
        let mut left = self.signed()?;
        while let Some((op, level)) = binary_op(self.peek()).filter(|(_, level)| *level >= binds) {
            let at_op = self.take().place;
            let matching = self.matching(op, left.place())?;
            // Powers group to the right.
            let right = self.expr(if op == BinaryOp::Pow { level } else { level + 1 })?;
            left = self.binary((op, at_op), left, right, matching)?;
        }
        Ok(left)
    }

    fn signed(&mut self) -> Parsed<Expr> {
        let sign = self.peek();
        if !sign.is_sign("+") && !sign.is_sign("-") {
            return self.modified();
        }
        self.take();
        let negative = sign.text == "-";
        match self.expr(SIGN_BINDS)? {
            Expr::Number { value, is_duration, .. } => {
                Ok(Expr::Number { value: if negative { -value } else { value }, is_duration, place: sign.place })
            }
            inner => self.unary(negative, inner, sign.place),
        }
    }

    /// What an expression begins with, without what may follow it.
    pub fn primary(&mut self) -> Parsed<Expr> {
        let token = self.peek();
        match token.kind {
            Kind::Number | Kind::Duration => {
                let value = self.number_literal()?;
                Ok(Expr::Number { value, is_duration: token.kind == Kind::Duration, place: token.place })
            }
            Kind::Quoted => Ok(Expr::Text { value: self.text_literal()?, place: token.place }),
            Kind::Sign if token.text == "(" => {
                self.take();
                let inner = Box::new(self.expr(0)?);
                self.expect(")", "", "")?;
                Ok(Expr::Paren { inner, place: token.place })
            }
            Kind::Sign if token.text == "{" => self.selector(None),
            Kind::Word => self.word(),
            _ => Err(self.unexpected("", "")),
        }
    }

    fn word(&mut self) -> Parsed<Expr> {
        let token = self.peek();
        let word = token.text;
        let second = self.peek_second();
        if let Some(op) = aggregate_op(word)
            && (second.is_sign("(") || second.is_word("by") || second.is_word("without"))
        {
            return self.aggregate(op);
        }
        if word.eq_ignore_ascii_case("inf") || word.eq_ignore_ascii_case("nan") {
            self.take();
            let value = if word.eq_ignore_ascii_case("inf") { f64::INFINITY } else { f64::NAN };
            return Ok(Expr::Number { value, is_duration: false, place: token.place });
        }
        if RESERVED.iter().any(|reserved| word.eq_ignore_ascii_case(reserved)) {
            return Err(self.unexpected("", ""));
        }
        if second.is_sign("(") && !is_keyword(word) && binary_op(token).is_none() {
            return self.call();
        }
        self.take();
        self.selector(Some(token))
    }

    /// A number or a duration, in seconds.
    pub fn number_literal(&mut self) -> Parsed<f64> {
        let token = self.peek();
        let value = match token.kind {
            Kind::Number => literal::number(token.text).map_err(|reason| {
                self.wrong(format!("error parsing number: strconv.ParseFloat: parsing {:?}: {reason}", token.text))
            })?,
            Kind::Duration => literal::duration(token.text).map_err(|reason| self.wrong(reason))?,
            Kind::Word if token.is_word("inf") => f64::INFINITY,
            Kind::Word if token.is_word("nan") => f64::NAN,
            _ => return Err(self.unexpected("", "number")),
        };
        self.take();
        Ok(value)
    }

    pub fn text_literal(&mut self) -> Parsed<Vec<u8>> {
        let token = self.peek();
        if token.kind != Kind::Quoted {
            return Err(self.unexpected("", "string"));
        }
        let text = literal::unquoted(token.text).map_err(|reason| self.wrong(reason))?;
        self.take();
        Ok(text)
    }

    fn call(&mut self) -> Parsed<Expr> {
        let name = self.take();
        // What is wrong between the brackets is told first.
        let args = self.args()?;
        let Some(function) = functions::lookup(name.text) else {
            return Err(wrong(name.place, format!("unknown function with name {:?}", name.text)));
        };
        if function.experimental && !self.features.experimental_functions {
            let text = name.text;
            return Err(wrong(
                name.place,
                format!("function {text:?} is not enabled; switch on --enable-feature=promql-experimental-functions"),
            ));
        }
        self.checked_call(function, args, name.place)
    }

    fn args(&mut self) -> Parsed<Vec<Expr>> {
        self.expect("(", "", "")?;
        let mut args = Vec::new();
        if self.accept(")") {
            return Ok(args);
        }
        loop {
            args.push(self.expr(0)?);
            if self.accept(")") {
                return Ok(args);
            }
            let comma = self.place();
            self.expect(",", "", "")?;
            if self.is_sign(")") {
                return Err(wrong(comma, "trailing commas not allowed in function call args"));
            }
        }
    }

    fn aggregate(&mut self, op: AggregateOp) -> Parsed<Expr> {
        let name = self.take();
        if matches!(op, AggregateOp::Limitk | AggregateOp::LimitRatio) && !self.features.experimental_functions {
            let op = op.name();
            return Err(wrong(
                name.place,
                format!(
                    "{op}() is experimental and must be enabled with --enable-feature=promql-experimental-functions"
                ),
            ));
        }
        let before = self.aggregate_grouping()?;
        if !self.is_sign("(") {
            return Err(self.unexpected("aggregation", ""));
        }
        let args = self.within_aggregation(Self::args)?;
        let grouping = match before {
            Some(grouping) => grouping,
            None => self.aggregate_grouping()?.unwrap_or(Grouping::By(Vec::new())),
        };
        self.checked_aggregate(op, args, grouping, name.place)
    }

    /// What is unexpected there, and nothing nearer says where, is unexpected in the aggregation.
    fn within_aggregation<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let outer = std::mem::replace(&mut self.context, "aggregation");
        let read = read(self);
        self.context = outer;
        read
    }

    fn aggregate_grouping(&mut self) -> Parsed<Option<Grouping>> {
        if self.accept_word("by") {
            return Ok(Some(Grouping::By(self.labels()?)));
        }
        if self.accept_word("without") {
            return Ok(Some(Grouping::Without(self.labels()?)));
        }
        Ok(None)
    }

    /// `(a, b, "c d")`
    fn labels(&mut self) -> Parsed<Vec<String>> {
        const CONTEXT: &str = "grouping opts";
        self.expect("(", CONTEXT, "\"(\"")?;
        let mut labels = Vec::new();
        loop {
            if self.accept(")") {
                return Ok(labels);
            }
            let token = self.peek();
            let label = match token.kind {
                Kind::Word => {
                    self.take();
                    token.text.to_owned()
                }
                Kind::Quoted => {
                    let text = self.text_literal()?;
                    let quoted = literal::quoted(&text);
                    let label = String::from_utf8(text).ok().filter(|label| !label.is_empty());
                    label.ok_or_else(|| wrong(token.place, format!("invalid label name for grouping: {quoted}")))?
                }
                _ => return Err(self.unexpected(CONTEXT, "label")),
            };
            labels.push(label);
            if !self.is_sign(")") {
                self.expect(",", CONTEXT, "\",\" or \")\"")?;
            }
        }
    }

    /// `bool on (a) group_left (b) fill (0)`
    fn matching(&mut self, op: BinaryOp, at_left: Place) -> Parsed<Matching> {
        let mut matching = Matching { returns_bool: self.accept_word("bool"), ..Matching::default() };
        if self.accept_word("on") {
            matching.keys = Grouping::By(self.labels()?);
        } else if self.accept_word("ignoring") {
            matching.keys = Grouping::Without(self.labels()?);
        } else {
            self.fill(&mut matching)?;
            return Ok(matching);
        }
        for side in ["group_left", "group_right"] {
            if !self.is_word(side) {
                continue;
            }
            if op.is_set() {
                return Err(wrong(at_left, format!("no grouping allowed for {:?} operation", op.symbol())));
            }
            self.take();
            let include = if self.is_sign("(") { self.labels()? } else { Vec::new() };
            matching.cardinality = match side {
                "group_left" => Cardinality::ManyToOne(include),
                _ => Cardinality::OneToMany(include),
            };
            break;
        }
        self.fill(&mut matching)?;
        Ok(matching)
    }

    fn fill(&mut self, matching: &mut Matching) -> Parsed<()> {
        while let Some(side) = ["fill", "fill_left", "fill_right"].into_iter().find(|side| self.is_word(side)) {
            // Without a value it is a metric of that name.
            if !self.peek_second().is_sign("(") {
                return Ok(());
            }
            let place = self.place();
            if !self.features.binop_fill {
                return Err(wrong(
                    place,
                    "binop fill modifiers are experimental; switch on --enable-feature=promql-binop-fill-modifiers",
                ));
            }
            self.take();
            self.expect("(", side, "\"(\"")?;
            let negative = self.is_sign("-");
            if negative || self.is_sign("+") {
                self.take();
            }
            let number = self.number_literal()?;
            let number = Some(if negative { -number } else { number });
            self.expect(")", side, "\")\"")?;
            let (left, right) = (&mut matching.fill_left, &mut matching.fill_right);
            if (side != "fill_right" && left.is_some()) || (side != "fill_left" && right.is_some()) {
                return Err(wrong(place, format!("{side} may not be set multiple times")));
            }
            if side != "fill_right" {
                *left = number;
            }
            if side != "fill_left" {
                *right = number;
            }
        }
        Ok(())
    }
}

pub fn aggregate_op(name: &str) -> Option<AggregateOp> {
    AggregateOp::ALL.into_iter().find(|op| name.eq_ignore_ascii_case(op.name()))
}

/// The operator and how tightly it binds.
fn binary_op(token: super::lex::Token<'_>) -> Option<(BinaryOp, u8)> {
    let op = BinaryOp::ALL.into_iter().find(|op| match token.kind {
        Kind::Sign => token.text == op.symbol(),
        Kind::Word => token.is_word(op.symbol()),
        _ => false,
    })?;
    let level = match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        op if op.keeps_name() => 3,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Pow => 6,
        _ => 5,
    };
    Some((op, level))
}

/// The same for durations, which know arithmetic only.
pub fn length_op(token: super::lex::Token<'_>) -> Option<(BinaryOp, u8)> {
    binary_op(token).filter(|(op, level)| token.kind == Kind::Sign && *level > 3 && *op != BinaryOp::Atan2)
}

pub const LENGTH_SIGN_BINDS: u8 = SIGN_BINDS;
