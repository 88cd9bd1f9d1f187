//! From what PostgreSQL says to what the caller needs to know.
//!
//! | said | means |
//! | --- | --- |
//! | 40001, 40P01 (serialisation, deadlock) | tried again a few times, then unavailable |
//! | 26000, 42P05, 0A000 "cached plan" | prepared anew and tried again, then unavailable |
//! | 57P01–57P03 and 08xxx (shutting down, crashed, connection lost), or no answer in time | uncertain for a write that was sent, else unavailable |
//! | 42xxx but for 42501 (something is not there, or is different), XX001, XX002 (damaged), a value that cannot be read | unusable |
//! | all others: 53xxx (full, too many connections), 57014 (took too long), 55P03 (locked), 25006 (read-only), 42501, 28xxx … | unavailable: PostgreSQL has undone the statement |

use baton_core::error::StoreError;
use tokio_postgres::error::SqlState;

/// Name of this store in errors.
pub(super) const NAME: &str = "postgres";

/// What PostgreSQL said, and what the store was doing when it said it. The cause below a [`StoreError`] of this store.
///
/// Values go to PostgreSQL as parameters, and the details of its errors, which repeat them, are left out: no password hash
/// and no address of a user can be in its text, nor the password of the database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {message}{}", code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
pub struct PostgresError {
    /// The operation.
    pub doing: &'static str,
    /// The SQLSTATE, if PostgreSQL answered.
    pub code: Option<String>,
    /// What was said.
    pub message: String,
}

impl PostgresError {
    pub(super) fn new(doing: &'static str, source: &tokio_postgres::Error) -> Self {
        if let Some(db) = source.as_db_error() {
            return Self { doing, code: Some(db.code().code().to_owned()), message: db.message().to_owned() };
        }
        let mut message = source.to_string();
        let mut cause = std::error::Error::source(source);
        while let Some(deeper) = cause {
            message = format!("{message}: {deeper}");
            cause = deeper.source();
        }
        Self { doing, code: None, message }
    }
}

/// What a failure means for the caller.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// Nothing was changed. Another attempt at once may succeed.
    Again(PostgresError),
    /// Nothing was changed, since PostgreSQL does not know the prepared statement (any more).
    Stale(PostgresError),
    Unavailable(PostgresError),
    Uncertain(PostgresError),
    Unusable(PostgresError),
}

impl Failure {
    /// Of a statement that was sent. `writes`: whether it may have changed anything before the connection was lost.
    pub(super) fn of(doing: &'static str, writes: bool, source: &tokio_postgres::Error) -> Self {
        let error = PostgresError::new(doing, source);
        let Some(code) = source.code() else {
            // The statement was not sent if a parameter could not be; anything else is about the connection.
            return if writes { Self::Uncertain(error) } else { Self::Unavailable(error) };
        };
        let class = code.code().get(..2).unwrap_or_default();
        match code {
            &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => Self::Again(error),
            &SqlState::INVALID_SQL_STATEMENT_NAME | &SqlState::DUPLICATE_PSTATEMENT => Self::Stale(error),
            &SqlState::FEATURE_NOT_SUPPORTED if error.message.contains("cached plan") => Self::Stale(error),
            &SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN | &SqlState::CANNOT_CONNECT_NOW if writes => {
                Self::Uncertain(error)
            }
            _ if class == "08" && writes => Self::Uncertain(error),
            &SqlState::INSUFFICIENT_PRIVILEGE => Self::Unavailable(error),
            &SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED => Self::Unusable(error),
            _ if class == "42" => Self::Unusable(error),
            _ => Self::Unavailable(error),
        }
    }

    /// No answer came, and the connection was given up.
    pub(super) fn no_answer(doing: &'static str, writes: bool) -> Self {
        let error = PostgresError { doing, code: None, message: "no answer in time".to_owned() };
        if writes { Self::Uncertain(error) } else { Self::Unavailable(error) }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Again(error) | Failure::Stale(error) | Failure::Unavailable(error) => {
                Self::Unavailable { store: NAME, cause: Box::new(error) }
            }
            Failure::Uncertain(error) => Self::Uncertain { store: NAME, cause: Box::new(error) },
            Failure::Unusable(error) => Self::Unusable { store: NAME, cause: Box::new(error) },
        }
    }
}

/// For `map_err`: a failure of this operation, before anything was written.
pub(super) fn doing(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> StoreError {
    move |source| Failure::of(doing, false, &source).into()
}

/// For `map_err`: a row that is not what this version wrote.
pub(super) fn unreadable(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> StoreError {
    move |source| StoreError::Unusable { store: NAME, cause: Box::new(PostgresError::new(doing, &source)) }
}

pub(super) fn unavailable(why: impl Into<String>) -> StoreError {
    StoreError::Unavailable { store: NAME, cause: why.into().into() }
}

pub(super) fn unusable(why: impl Into<String>) -> StoreError {
    StoreError::Unusable { store: NAME, cause: why.into().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_operation_and_the_code() {
        let error = PostgresError { doing: "swap", code: Some("57014".to_owned()), message: "too slow".to_owned() };
        assert_eq!(error.to_string(), "swap: too slow (57014)");
        let error = PostgresError { code: None, ..error };
        assert_eq!(error.to_string(), "swap: too slow");
    }

    #[test]
    fn what_is_not_known_is_said_of_writes_only() {
        assert!(matches!(Failure::no_answer("swap", true), Failure::Uncertain(_)));
        assert!(matches!(Failure::no_answer("find", false), Failure::Unavailable(_)));
    }
}
