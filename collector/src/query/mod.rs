//! PromQL: text -> [`parse`] -> [`plan::Expr`] -> column-wise evaluation over a [`crate::store::Source`].
//!
//! Every node of a query is evaluated once for all steps: its value is a set of columns with one cell per step. Selectors
//! fetch the samples of the whole span in one call; functions over ranges slide a window along them.

mod engine;
mod error;
mod exec;
mod functions;
mod histogram;
mod length;
mod parse;
mod plan;
mod value;

pub use engine::{Answer, Engine, Features, Limits, Output, Request, Span};
pub use error::QueryError;
pub use histogram::{Bucket, Histogram};
pub use parse::literal::{duration_ms as duration_text_ms, unquoted};
pub use parse::{format, parse, parse_selector, parse_selectors, tree};
pub use plan::{Expr, Kind};
pub use value::{Cell, Points, Row, Steps, float, is_absent};
