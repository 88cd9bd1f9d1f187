//! Sessions in Redis, on real servers.

mod suite;

use std::sync::atomic::{AtomicU64, Ordering};

use baton_core::ports::{Random, RandomError};

/// Different bytes each time, in this process and in others.
struct Seeded(u64);

impl Seeded {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self((u64::from(std::process::id()) << 32) + NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        for (byte, seed) in bytes.iter_mut().zip(self.0.to_ne_bytes()) {
            *byte = seed;
        }
        Ok(())
    }
}
