//! Errors of the ports. What the log gets is here; what the client sees is decided at the edge.

/// The cause below a [`StoreError`]: whatever the driver said.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A store could not do what it was asked. Not one of these says anything about the caller's credentials: a client must
/// not lose its session because a store is away.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store could not be reached, is full, locked or overloaded. **Nothing was changed.** Worth trying again.
    #[error("{store}: {cause}")]
    Unavailable {
        /// Which store, for the log.
        store: &'static str,
        /// What the driver said.
        #[source]
        cause: Cause,
    },
    /// The connection ended between the write and its acknowledgement: the change **may or may not** have been made.
    #[error("{store}: outcome unknown: {cause}")]
    Uncertain {
        /// Which store, for the log.
        store: &'static str,
        /// What the driver said.
        #[source]
        cause: Cause,
    },
    /// The store holds something that this version cannot read: a newer schema, a damaged file, another application's data.
    #[error("{store}: unusable: {cause}")]
    Unusable {
        /// Which store, for the log.
        store: &'static str,
        /// What is wrong with it.
        #[source]
        cause: Cause,
    },
}

/// Why an account was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateAccountError {
    /// The realm already has an account with this uid and provider.
    #[error("an account with this uid exists")]
    Taken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a session was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateSessionError {
    /// The account is gone, or has another password than the one that was checked.
    #[error("the account is gone or its password was changed")]
    NoAccount,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an account was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateAccountError {
    /// There is no such account (any more).
    #[error("there is no such account")]
    Gone,
    /// Its password is not the one that was checked (any more).
    #[error("the password was changed meanwhile")]
    Overtaken,
    /// The realm already has an account with the new uid.
    #[error("an account with this uid exists")]
    Taken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a one-time token was not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// It was redeemed already, has expired or become void, or its account is gone.
    #[error("the token is not good any more")]
    Gone,
    /// The realm already has an account with the new uid. The token stays good.
    #[error("an account with this uid exists")]
    Taken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
