//! From what SQLite says to what the caller needs to know.

use std::sync::Arc;

use baton_core::error::StoreError;
use rusqlite::ErrorCode;

/// Name of this store in errors.
pub(super) const NAME: &str = "sqlite";

/// What SQLite said, and what the store was doing when it said it. The cause below a [`StoreError`] of this store.
///
/// Values go to SQLite as parameters and not within the statement, so no password hash and no address of a user can be in
/// its text.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct SqliteError {
    /// The operation.
    pub doing: &'static str,
    /// What SQLite said.
    #[source]
    pub source: Arc<rusqlite::Error>,
}

/// What a failure means for the caller.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    Unavailable(SqliteError),
    Uncertain(SqliteError),
    Unusable(SqliteError),
}

impl Failure {
    /// Of a statement inside a transaction, or of a read: nothing has been written.
    pub(super) fn of(doing: &'static str, source: rusqlite::Error) -> Self {
        let unusable = is_unusable(&source);
        let error = SqliteError { doing, source: Arc::new(source) };
        if unusable { Self::Unusable(error) } else { Self::Unavailable(error) }
    }

    /// Of a COMMIT. Most of the reasons come up before the last page of the transaction is in the log. After an I/O error,
    /// though, that page may be there although SQLite could not see to it that it is; a crash before the next commit could
    /// bring it back.
    pub(super) fn of_commit(source: rusqlite::Error) -> Self {
        let code = source.sqlite_error_code();
        let error = SqliteError { doing: "commit", source: Arc::new(source) };
        match code {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::ConstraintViolation
                | ErrorCode::ReadOnly,
            ) => Self::Unavailable(error),
            _ => Self::Uncertain(error),
        }
    }

    pub(super) fn error(&self) -> &SqliteError {
        match self {
            Self::Unavailable(error) | Self::Uncertain(error) | Self::Unusable(error) => error,
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(error) => Self::Unavailable { store: NAME, cause: Box::new(error) },
            Failure::Uncertain(error) => Self::Uncertain { store: NAME, cause: Box::new(error) },
            Failure::Unusable(error) => Self::Unusable { store: NAME, cause: Box::new(error) },
        }
    }
}

/// For `map_err`: a failure of this operation, before anything was written.
pub(super) fn doing(doing: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| Failure::of(doing, source).into()
}

pub(super) fn unavailable(why: impl Into<String>) -> StoreError {
    StoreError::Unavailable { store: NAME, cause: why.into().into() }
}

pub(super) fn uncertain(why: &'static str) -> StoreError {
    StoreError::Uncertain { store: NAME, cause: why.into() }
}

pub(super) fn unusable(why: impl Into<String>) -> StoreError {
    StoreError::Unusable { store: NAME, cause: why.into().into() }
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether the file holds what this version cannot read; trying again will not help.
fn is_unusable(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => true,
        // A table or a column that is not there.
        rusqlite::Error::SqlInputError { error, .. } => error.code == ErrorCode::Unknown,
        _ => matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)),
    }
}
