//! The operating system's random source.

use baton_core::Random;
use baton_core::ports::RandomError;

/// Random bytes from the operating system. The only place that asks for them.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        #[expect(clippy::disallowed_methods, reason = "this is the source that everything else takes as an argument")]
        getrandom::fill(bytes).map_err(|error| RandomError(error.to_string()))
    }
}
