//! How far a store's schema is.

/// The migrations of a store's schema: how many have been made, and how many this version of baton knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrations {
    /// Those that have been made; the schema's version. 0 if there is no schema yet.
    pub made: usize,
    /// Those that there are; the version that this version of baton works with.
    pub known: usize,
}

impl Migrations {
    /// Whether nothing is left to be done.
    #[must_use]
    pub const fn are_complete(self) -> bool {
        self.made == self.known
    }

    /// What to tell somebody whose schema may not be changed in passing. `what`: the file, or the schema's name.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn missing(self, what: impl std::fmt::Display) -> String {
        let Self { made, known } = self;
        format!("{what} has schema version {made}, and this version of baton needs {known}; run `baton migrate`")
    }
}
