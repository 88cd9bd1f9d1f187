//! From what Redis says to what the caller needs to know.
//!
//! | said | means |
//! | --- | --- |
//! | no answer in time, or the connection was lost | tried again once on another connection, which is harmless because each operation is known by its name; then uncertain for a write, else unavailable |
//! | refused, `LOADING`, `READONLY`, `CLUSTERDOWN`, `MASTERDOWN`, `TRYAGAIN`, `OOM`, `MISCONF`, `NOREPLICAS`, `NOPERM`, `NOAUTH` … | unavailable: nothing was changed |
//! | `WRONGTYPE`, an answer that this version cannot read | unusable |

use baton_core::error::StoreError;
use redis::{ErrorKind, RedisError};

/// Name of this store in errors.
pub(super) const NAME: &str = "redis";

/// What Redis said, and what the store was doing when it said it. The cause below a [`StoreError`] of this store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {message}")]
pub struct RedisStoreError {
    /// The operation.
    pub doing: &'static str,
    /// What was said.
    pub message: String,
}

/// What a failure means for the caller. `writes`: whether it may have changed anything before the connection was lost.
pub(super) fn failed(doing: &'static str, writes: bool, error: &RedisError) -> StoreError {
    let cause = Box::new(RedisStoreError { doing, message: error.to_string() });
    match error.kind() {
        ErrorKind::UnexpectedReturnType | ErrorKind::Parse => StoreError::Unusable { store: NAME, cause },
        _ if error.code() == Some("WRONGTYPE") => StoreError::Unusable { store: NAME, cause },
        _ if writes && is_in_doubt(error) => StoreError::Uncertain { store: NAME, cause },
        _ => StoreError::Unavailable { store: NAME, cause },
    }
}

/// Whether the connection was lost, or silent, after something may have been sent over it.
pub(super) fn is_in_doubt(error: &RedisError) -> bool {
    (error.is_io_error() || error.is_timeout() || error.is_connection_dropped()) && !error.is_connection_refusal()
}

pub(super) fn unavailable(why: impl Into<String>) -> StoreError {
    StoreError::Unavailable { store: NAME, cause: why.into().into() }
}

pub(super) fn uncertain(why: impl Into<String>) -> StoreError {
    StoreError::Uncertain { store: NAME, cause: why.into().into() }
}

pub(super) fn unusable(why: impl Into<String>) -> StoreError {
    StoreError::Unusable { store: NAME, cause: why.into().into() }
}
