//! What a query asks, as the evaluator walks it: our own tree, so that the parser behind it can change.

use crate::store::Matcher;

use super::functions::Function;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift {
    pub at: Option<At>,
    /// Into the past; negative looks ahead.
    pub offset_ms: i64,
}

#[derive(Debug, Clone)]
pub struct Selector {
    /// Lists of matchers of which any must hold; more than one only with `or` between the braces.
    pub any_of: Vec<Vec<Matcher>>,
    pub shift: Shift,
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
    And,
    Or,
    Unless,
}

impl BinaryOp {
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
            And => "and",
            Or => "or",
            Unless => "unless",
        }
    }

    pub fn is_comparison(self) -> bool {
        use BinaryOp::*;
        matches!(self, Equal | NotEqual | Greater | Less | GreaterEqual | LessEqual)
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

#[derive(Debug, Clone)]
pub enum Expr {
    Number(f64),
    Text(String),
    Selector(Selector),
    Range { selector: Selector, range_ms: i64 },
    Subquery { inner: Box<Expr>, range_ms: i64, step_ms: Option<i64>, shift: Shift },
    Call { function: &'static Function, args: Vec<Expr> },
    Aggregate { op: AggregateOp, param: Option<Box<Expr>>, inner: Box<Expr>, grouping: Grouping },
    Binary { op: BinaryOp, left: Box<Expr>, right: Box<Expr>, matching: Matching },
    Negate(Box<Expr>),
    Paren(Box<Expr>),
}

impl Expr {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Number(_) => Kind::Scalar,
            Self::Text(_) => Kind::Text,
            Self::Selector(_) | Self::Aggregate { .. } => Kind::Vector,
            Self::Range { .. } | Self::Subquery { .. } => Kind::Matrix,
            Self::Call { function, .. } => function.returns(),
            Self::Binary { left, right, .. } => match (left.kind(), right.kind()) {
                (Kind::Scalar, Kind::Scalar) => Kind::Scalar,
                _ => Kind::Vector,
            },
            Self::Negate(inner) | Self::Paren(inner) => inner.kind(),
        }
    }

    pub fn without_parens(&self) -> &Expr {
        match self {
            Self::Paren(inner) => inner.without_parens(),
            other => other,
        }
    }
}
