//! Why a query has no answer, in Prometheus' classes.

use crate::store::SelectError;

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The request itself is wrong: status 400, `bad_data`.
    #[error("{0}")]
    Bad(String),
    /// It cannot be evaluated over this data: status 422, `execution`.
    #[error("{0}")]
    Execution(String),
    #[error("query timed out in expression evaluation")]
    TimedOut,
    #[error("query was canceled in expression evaluation")]
    Cancelled,
    /// All places are taken: status 503, `unavailable`.
    #[error("{0}")]
    Busy(String),
    #[error("{0}")]
    Internal(String),
}

impl QueryError {
    pub fn execution(message: impl Into<String>) -> Self {
        Self::Execution(message.into())
    }
}

impl From<SelectError> for QueryError {
    fn from(error: SelectError) -> Self {
        match error {
            SelectError::TooManySamples => {
                Self::Execution("query processing would load too many samples into memory in query execution".into())
            }
            SelectError::TooManySeries => {
                Self::Execution("query processing would select too many series; see --limit-query-series".into())
            }
            SelectError::TooMuchMemory => {
                Self::Execution("query processing would take too much memory; see --limit-query-bytes".into())
            }
            SelectError::Cancelled => Self::Cancelled,
            SelectError::TimedOut => Self::TimedOut,
            SelectError::Storage(reason) => Self::Internal(format!("the store cannot be read: {reason}")),
        }
    }
}
