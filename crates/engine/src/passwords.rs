//! Password hashing: argon2id off the async threads and bounded in number, so that sign-ins cannot starve token requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use argon2::password_hash::phc::PasswordHash as Phc;
use argon2::password_hash::{Error as PhcError, PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use baton_core::Random;
use baton_core::session::PasswordHash;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{Semaphore, oneshot};

use crate::devise;

/// Cost of a password hash. The defaults are OWASP's minimum for argon2id; lower ones are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashing {
    /// Memory in KiB; at least 19456 (19 MiB).
    pub memory_kib: u32,
    /// Passes over it; at least 2.
    pub iterations: u32,
    /// Lanes; at least 1.
    pub parallelism: u32,
    /// How many hashes are computed at once; at least 1. Each takes `memory_kib` while it runs.
    pub concurrent: usize,
    /// How many more may wait for their turn; beyond it sign-ins are answered 503 at once.
    pub waiting: usize,
}

impl Default for Hashing {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // One core stays free for the requests that carry a token.
        Self { memory_kib: 19 * 1024, iterations: 2, parallelism: 1, concurrent: cores.div_ceil(2), waiting: 256 }
    }
}

/// The parameters of the password hash are out of range.
#[derive(Debug, thiserror::Error)]
pub enum HashingError {
    /// Below what is safe.
    #[error("argon2id needs at least 19456 KiB, 2 iterations, 1 lane and 1 hash at once")]
    TooWeak,
    /// Beyond what the algorithm takes.
    #[error("argon2id parameters: {0}")]
    OutOfRange(String),
}

/// A password could not be checked or hashed. Says nothing about whether it is right.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many checks are waiting already; try again.
    #[error("too many password checks are waiting")]
    Overloaded,
    /// The hash in the store cannot be read, or the random source or a thread failed.
    #[error("password hashing failed: {0}")]
    Failed(String),
}

/// How busy the password checks are: for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashingLoad {
    /// Hashes computed so far, for new passwords and for checks alike.
    pub computed: u64,
    /// Computations that run or wait for their turn.
    pub in_line: usize,
}

/// Hashes and checks passwords.
pub(crate) struct Passwords {
    argon2: Argon2<'static>,
    turns: Arc<Semaphore>,
    computed: Arc<AtomicU64>,
    in_line: Arc<AtomicUsize>,
    capacity: usize,
    random: Arc<dyn Random>,
    /// What Devise appended to each password; empty if nothing.
    bcrypt_pepper: SecretString,
    /// What the password of an unknown account is checked against, so that it takes as long as that of a known one.
    nobody: PasswordHash,
}

impl Passwords {
    pub(crate) fn new(
        hashing: &Hashing,
        bcrypt_pepper: SecretString,
        random: Arc<dyn Random>,
    ) -> Result<Self, HashingError> {
        let Hashing { memory_kib, iterations, parallelism, concurrent, waiting } = *hashing;
        if memory_kib < 19 * 1024 || iterations < 2 || parallelism < 1 || concurrent < 1 {
            return Err(HashingError::TooWeak);
        }
        let params = Params::new(memory_kib, iterations, parallelism, None)
            .map_err(|error| HashingError::OutOfRange(error.to_string()))?;
        // The costs are in the text and its output is all zeroes, which no password is known to give.
        let nobody = PasswordHash::new(format!(
            "$argon2id$v=19$m={memory_kib},t={iterations},p={parallelism}$AAAAAAAAAAAAAAAAAAAAAA${}",
            "A".repeat(43)
        ));
        Ok(Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            turns: Arc::new(Semaphore::new(concurrent.min(Semaphore::MAX_PERMITS))),
            computed: Arc::new(AtomicU64::new(0)),
            in_line: Arc::new(AtomicUsize::new(0)),
            capacity: concurrent.saturating_add(waiting),
            random,
            bcrypt_pepper,
            nobody,
        })
    }

    /// The hash of a new password.
    pub(crate) async fn hash(&self, password: SecretString) -> Result<PasswordHash, PasswordError> {
        let mut salt = [0; 16];
        self.random.fill(&mut salt).map_err(|error| PasswordError::Failed(error.to_string()))?;
        let argon2 = self.argon2.clone();
        self.compute(move || {
            let hash: Phc = argon2
                .hash_password_with_salt(password.expose_secret().as_bytes(), &salt)
                .map_err(|error| PasswordError::Failed(error.to_string()))?;
            Ok(PasswordHash::new(hash.to_string()))
        })
        .await
    }

    /// Whether `password` is the one of `hash`; `None` stands for an account that does not exist and costs the same as one
    /// with a hash of ours. (One of Devise takes its own time until it has been upgraded.)
    pub(crate) async fn verify(
        &self,
        password: SecretString,
        hash: Option<&PasswordHash>,
    ) -> Result<bool, PasswordError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or(&self.nobody).clone();
        let argon2 = self.argon2.clone();
        let pepper = self.bcrypt_pepper.clone();
        self.compute(move || {
            if devise::is_bcrypt(hash.expose()) {
                return devise::verify(password.expose_secret(), pepper.expose_secret(), hash.expose());
            }
            let phc = Phc::new(hash.expose()).map_err(|error| PasswordError::Failed(error.to_string()))?;
            match argon2.verify_password(password.expose_secret().as_bytes(), &phc) {
                Ok(()) => Ok(known),
                Err(PhcError::PasswordInvalid) => Ok(false),
                Err(error) => Err(PasswordError::Failed(error.to_string())),
            }
        })
        .await
    }

    /// Whether `hash` was made with other costs than new ones are, or by Devise.
    pub(crate) fn is_outdated(&self, hash: &PasswordHash) -> bool {
        if devise::is_bcrypt(hash.expose()) {
            return true;
        }
        let made_with = Phc::new(hash.expose()).ok().and_then(|phc| Params::try_from(&phc).ok());
        let wanted = self.argon2.params();
        !made_with.is_some_and(|params| {
            (params.m_cost(), params.t_cost(), params.p_cost()) == (wanted.m_cost(), wanted.t_cost(), wanted.p_cost())
        })
    }

    pub(crate) fn load(&self) -> HashingLoad {
        HashingLoad { computed: self.computed.load(Ordering::Relaxed), in_line: self.in_line.load(Ordering::Acquire) }
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let computed = Arc::clone(&self.computed);
        self.in_turn(move || {
            let result = work();
            computed.fetch_add(1, Ordering::Relaxed);
            result
        })
        .await
    }

    /// Does costly work on a password on a thread of its own, as soon as fewer than the configured number are at it.
    pub(crate) async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = Place::take(&self.in_line, self.capacity).ok_or(PasswordError::Overloaded)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| PasswordError::Overloaded)?;
        let (reply, answer) = oneshot::channel();
        let thread = std::thread::Builder::new().name("baton-password".to_owned()).spawn(move || {
            // Held by the work itself: a client that hangs up does not make room for another one while it still runs.
            let held = (place, turn);
            give_way();
            let result = work();
            drop(held);
            // Nobody may be waiting any more.
            drop(reply.send(result));
        });
        thread.map_err(|error| PasswordError::Failed(format!("a thread could not be started: {error}")))?;
        answer.await.map_err(|_| PasswordError::Failed("the thread panicked".to_owned()))?
    }
}

/// Lets threads that answer requests go first: what runs for milliseconds must not hold up what takes microseconds. A thread may
/// always lower its own priority and mostly not raise it again, hence threads that do nothing else, and end.
fn give_way() {
    /// A thread of this niceness gets a tenth of what one of niceness 0 gets, if both want to run.
    #[cfg(target_os = "linux")]
    const NICENESS: i32 = 10;
    // Elsewhere `nice` is of the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "the priority of a thread that hashes a password could not be lowered");
    }
}

/// A place in the line, given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(in_line: &Arc<AtomicUsize>, capacity: usize) -> Option<Self> {
        in_line
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < capacity).then_some(taken + 1))
            .ok()
            .map(|_| Self(Arc::clone(in_line)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;
    use crate::OsRandom;

    #[tokio::test]
    async fn hashing_gives_way_and_nobody_else_does() {
        let passwords =
            Passwords::new(&Hashing::default(), SecretString::default(), Arc::new(OsRandom)).expect("the defaults");
        let niceness = || getpriority_process(None).expect("to ask is allowed");
        let before = niceness();
        let hashing = passwords.in_turn(move || Ok(niceness())).await.expect("it works");
        assert_eq!(hashing, (before + 10).min(19));
        assert_eq!(niceness(), before);
        let on_the_pool = tokio::task::spawn_blocking(niceness).await.expect("it works");
        assert_eq!(on_the_pool, before);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_gives_its_place_back() {
        let passwords =
            Passwords::new(&Hashing::default(), SecretString::default(), Arc::new(OsRandom)).expect("the defaults");
        let panics = passwords.in_turn(|| if true { panic!("a test") } else { Ok(()) }).await;
        assert!(matches!(panics, Err(PasswordError::Failed(_))), "{panics:?}");
        assert_eq!(passwords.load().in_line, 0);
        assert!(passwords.in_turn(|| Ok(())).await.is_ok());
    }
}
