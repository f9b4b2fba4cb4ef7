//! What a query asks, as the evaluator walks it: our own tree, so that the parser behind it can change.

use std::fmt;

use crate::store::Matcher;

use super::functions::Function;
use super::length::Length;

/// Where in the text something begins: line and column from 1, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Scalar,
    Vector,
    Matrix,
    Text,
}

impl Kind {
    /// As Prometheus' messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            Self::Text => "string",
        }
    }
}

/// `@ start()`, `@ end()`, `@ 1.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Start,
    End,
    Ms(i64),
}

/// Where in time a selector or subquery looks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shift {
    pub at: Option<At>,
    /// Into the past; negative looks ahead.
    pub offset: Option<Length>,
}

impl Shift {
    pub fn is_none(&self) -> bool {
        self.at.is_none() && self.offset.is_none()
    }
}

/// What a selector does with the ends of its range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Edges {
    #[default]
    Plain,
    /// The last sample before the range counts as the value at its beginning.
    Anchored,
    /// Values at both ends lie on the line between the samples around them.
    Smoothed,
}

#[derive(Debug, Clone)]
pub struct Selector {
    /// The name that stands before the braces, or alone in quotes within; it is among the matchers too, first.
    pub name: Option<String>,
    pub matchers: Vec<Matcher>,
    pub shift: Shift,
    pub edges: Edges,
    pub place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterEqual,
    LessEqual,
    /// Cuts a histogram off above a value.
    TrimUpper,
    TrimLower,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    /// Longer symbols do not come after their beginnings.
    pub const ALL: [Self; 18] = {
        use BinaryOp::*;
        [
            Add,
            Sub,
            Mul,
            Div,
            Mod,
            Pow,
            Atan2,
            Equal,
            NotEqual,
            GreaterEqual,
            LessEqual,
            TrimUpper,
            TrimLower,
            Greater,
            Less,
            And,
            Or,
            Unless,
        ]
    };

    pub fn symbol(self) -> &'static str {
        use BinaryOp::*;
        match self {
            Add => "+",
            Sub => "-",
            Mul => "*",
            Div => "/",
            Mod => "%",
            Pow => "^",
            Atan2 => "atan2",
            Equal => "==",
            NotEqual => "!=",
            Greater => ">",
            Less => "<",
            GreaterEqual => ">=",
            LessEqual => "<=",
            TrimUpper => "</",
            TrimLower => ">/",
            And => "and",
            Or => "or",
            Unless => "unless",
        }
    }

    pub fn is_comparison(self) -> bool {
        use BinaryOp::*;
        matches!(self, Equal | NotEqual | Greater | Less | GreaterEqual | LessEqual)
    }

    /// What has a histogram on its left and a number on its right.
    pub fn is_trim(self) -> bool {
        matches!(self, Self::TrimUpper | Self::TrimLower)
    }

    /// The result is what was there, or a part of it, and keeps its name.
    pub fn keeps_name(self) -> bool {
        self.is_comparison() || self.is_trim()
    }

    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Quantile,
    CountValues,
    Limitk,
    LimitRatio,
}

impl AggregateOp {
    pub const ALL: [Self; 14] = {
        use AggregateOp::*;
        [Sum, Avg, Min, Max, Count, Group, Stddev, Stdvar, Topk, Bottomk, Quantile, CountValues, Limitk, LimitRatio]
    };

    pub fn has_param(self) -> bool {
        use AggregateOp::*;
        matches!(self, Topk | Bottomk | Quantile | CountValues | Limitk | LimitRatio)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Count => "count",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::Quantile => "quantile",
            Self::CountValues => "count_values",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }
}

/// `by (..)` or `without (..)`; also `on (..)` and `ignoring (..)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grouping {
    By(Vec<String>),
    Without(Vec<String>),
}

/// Which side of a binary operation may hold several series per match group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cardinality {
    OneToOne,
    /// `group_left`, with the labels to take from the one side.
    ManyToOne(Vec<String>),
    /// `group_right`.
    OneToMany(Vec<String>),
}

#[derive(Debug, Clone)]
pub struct Matching {
    pub keys: Grouping,
    pub cardinality: Cardinality,
    pub returns_bool: bool,
    pub fill_left: Option<f64>,
    pub fill_right: Option<f64>,
}

impl Default for Matching {
    fn default() -> Self {
        Self {
            keys: Grouping::Without(Vec::new()),
            cardinality: Cardinality::OneToOne,
            returns_bool: false,
            fill_left: None,
            fill_right: None,
        }
    }
}

impl Matching {
    /// Whether labels are named that do or do not count.
    pub fn is_explicit(&self) -> bool {
        match &self.keys {
            Grouping::By(names) | Grouping::Without(names) => !names.is_empty(),
        }
    }
}

#[derive(Debug, Clone)]
pub enum Expr {
    Number {
        value: f64,
        is_duration: bool,
        place: Place,
    },
    /// Mostly UTF-8, yet any bytes can be written.
    Text {
        value: Vec<u8>,
        place: Place,
    },
    Selector(Selector),
    Range {
        selector: Selector,
        range: Length,
    },
    Subquery {
        inner: Box<Expr>,
        range: Length,
        step: Option<Length>,
        shift: Shift,
    },
    Call {
        function: &'static Function,
        args: Vec<Expr>,
        place: Place,
    },
    Aggregate {
        op: AggregateOp,
        param: Option<Box<Expr>>,
        inner: Box<Expr>,
        grouping: Grouping,
        place: Place,
    },
    Binary {
        op: BinaryOp,
        left: Box<Expr>,
        right: Box<Expr>,
        matching: Matching,
    },
    Unary {
        negative: bool,
        inner: Box<Expr>,
        place: Place,
    },
    Paren {
        inner: Box<Expr>,
        place: Place,
    },
}

/// Functions that give something else at each step, whatever their arguments.
const OF_THE_STEP: [&str; 11] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "time",
    "timestamp",
];

impl Expr {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Number { .. } => Kind::Scalar,
            Self::Text { .. } => Kind::Text,
            Self::Selector(_) | Self::Aggregate { .. } => Kind::Vector,
            Self::Range { .. } | Self::Subquery { .. } => Kind::Matrix,
            Self::Call { function, .. } => function.returns(),
            Self::Binary { left, right, .. } => match (left.kind(), right.kind()) {
                (Kind::Scalar, Kind::Scalar) => Kind::Scalar,
                _ => Kind::Vector,
            },
            Self::Unary { inner, .. } | Self::Paren { inner, .. } => inner.kind(),
        }
    }

    /// Where it begins.
    pub fn place(&self) -> Place {
        match self {
            Self::Selector(selector) | Self::Range { selector, .. } => selector.place,
            Self::Subquery { inner, .. } => inner.place(),
            Self::Binary { left, .. } => left.place(),
            Self::Number { place, .. }
            | Self::Text { place, .. }
            | Self::Call { place, .. }
            | Self::Aggregate { place, .. }
            | Self::Unary { place, .. }
            | Self::Paren { place, .. } => *place,
        }
    }

    /// Shows every selector of it.
    pub fn each_selector(&self, visit: &mut impl FnMut(&Selector)) {
        match self {
            Self::Selector(selector) | Self::Range { selector, .. } => visit(selector),
            Self::Subquery { inner, .. } | Self::Unary { inner, .. } | Self::Paren { inner, .. } => {
                inner.each_selector(visit);
            }
            Self::Call { args, .. } => args.iter().for_each(|arg| arg.each_selector(visit)),
            Self::Aggregate { param, inner, .. } => {
                param.iter().for_each(|param| param.each_selector(visit));
                inner.each_selector(visit);
            }
            Self::Binary { left, right, .. } => {
                left.each_selector(visit);
                right.each_selector(visit);
            }
            Self::Number { .. } | Self::Text { .. } => {}
        }
    }

    /// Whether something in it gives an order to its rows.
    pub fn orders(&self) -> bool {
        match self {
            Self::Call { function, args, .. } => function.name.starts_with("sort") || args.iter().any(Self::orders),
            Self::Aggregate { op: AggregateOp::Topk | AggregateOp::Bottomk, .. } => true,
            Self::Aggregate { inner, .. }
            | Self::Unary { inner, .. }
            | Self::Paren { inner, .. }
            | Self::Subquery { inner, .. } => inner.orders(),
            Self::Binary { left, right, .. } => left.orders() || right.orders(),
            Self::Number { .. } | Self::Text { .. } | Self::Selector(_) | Self::Range { .. } => false,
        }
    }

    /// Whether it has one value for all steps.
    pub fn is_fixed(&self) -> bool {
        match self {
            Self::Number { .. } | Self::Text { .. } => true,
            Self::Selector(Selector { shift, .. })
            | Self::Range { selector: Selector { shift, .. }, .. }
            | Self::Subquery { shift, .. } => shift.at.is_some(),
            Self::Call { function, args, .. } => {
                !OF_THE_STEP.contains(&function.name) && args.iter().all(Self::is_fixed)
            }
            Self::Aggregate { inner, .. } | Self::Unary { inner, .. } | Self::Paren { inner, .. } => inner.is_fixed(),
            Self::Binary { left, right, .. } => left.is_fixed() && right.is_fixed(),
        }
    }

    /// Where remarks on one of a call's arguments point to: into its parentheses. What is fixed beside others that are not is
    /// evaluated by itself in Prometheus, parentheses and all.
    pub fn place_among(&self, args: &[Expr]) -> Place {
        match self.is_fixed() && !args.iter().all(Self::is_fixed) {
            true => self.place(),
            false => self.without_parens().place(),
        }
    }

    pub fn without_parens(&self) -> &Expr {
        match self {
            Self::Paren { inner, .. } => inner.without_parens(),
            other => other,
        }
    }
}
