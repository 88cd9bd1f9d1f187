//! Rate limits: how often a client address may try, and how often an account may be tried.
//!
//! Each limit is a token bucket (governor's GCRA): it holds `burst` attempts and gets one back every `period / burst`. So
//! nothing is ever locked. Whoever used a bucket up, the next attempt passes after that interval.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baton_core::{Clock, Timestamp};
use baton_engine::normalize_email;
use governor::RateLimiter;
use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;

use crate::problem::{Problem, Shape};

/// Rate limits, and the clock that they run on.
#[derive(Clone)]
pub struct RateLimits {
    /// How often what may be tried.
    pub quotas: Quotas,
    /// The time; the store's clock will do. The limits of one process know nothing of those of another.
    pub clock: Arc<dyn Clock>,
}

impl RateLimits {
    /// The default quotas on this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { quotas: Quotas::default(), clock }
    }
}

impl std::fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimits").field("quotas", &self.quotas).finish_non_exhaustive()
    }
}

/// The quotas of each kind of attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// `POST /auth/sign_in`: 30 a minute per address, 10 a minute per account. Only sign-ins that fail count for the account.
    pub sign_in: Scopes,
    /// `POST /auth`: 10 an hour per address, 10 an hour per account.
    pub register: Scopes,
    /// `POST /auth/password`: 10 an hour per address, 5 an hour per account. Each sends a letter.
    pub reset: Scopes,
    /// `POST /auth/confirmation`: the same.
    pub confirm: Scopes,
    /// `POST /auth/unlock`: the same.
    pub unlock: Scopes,
}

impl Quotas {
    /// Nothing is limited.
    pub const NONE: Self = Self {
        sign_in: Scopes::NONE,
        register: Scopes::NONE,
        reset: Scopes::NONE,
        confirm: Scopes::NONE,
        unlock: Scopes::NONE,
    };
}

impl Default for Quotas {
    fn default() -> Self {
        const MINUTE: Duration = Duration::from_secs(60);
        const HOUR: Duration = Duration::from_secs(60 * 60);
        const FIVE: NonZeroU32 = NonZeroU32::new(5).expect("not zero");
        const TEN: NonZeroU32 = NonZeroU32::new(10).expect("not zero");
        const THIRTY: NonZeroU32 = NonZeroU32::new(30).expect("not zero");
        let quota = |burst, period| Some(Quota { burst, period });
        Self {
            sign_in: Scopes { per_address: quota(THIRTY, MINUTE), per_account: quota(TEN, MINUTE) },
            register: Scopes { per_address: quota(TEN, HOUR), per_account: quota(TEN, HOUR) },
            reset: Scopes { per_address: quota(TEN, HOUR), per_account: quota(FIVE, HOUR) },
            confirm: Scopes { per_address: quota(TEN, HOUR), per_account: quota(FIVE, HOUR) },
            unlock: Scopes { per_address: quota(TEN, HOUR), per_account: quota(FIVE, HOUR) },
        }
    }
}

/// The quotas of one kind of attempt; `None` does not limit it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes {
    /// For each client address; IPv6 clients by their /64, which is what one customer is given. A request whose address is
    /// not known ([`crate::ClientAddr`]) is not limited.
    pub per_address: Option<Quota>,
    /// For each e-mail address that is tried, whether it has an account or not.
    pub per_account: Option<Quota>,
}

impl Scopes {
    /// Not limited.
    pub const NONE: Self = Self { per_address: None, per_account: None };
}

/// This many at once, and on average this many in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How many at once.
    pub burst: NonZeroU32,
    /// How long an empty bucket takes to fill up. Taken for a year if it is longer.
    pub period: Duration,
}

impl Quota {
    fn replenish_one(self) -> Duration {
        const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);
        (self.period.min(YEAR) / self.burst.get()).max(Duration::from_nanos(1))
    }
}

/// What is tried. More kinds: a variant, a name, a field of [`Quotas`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    SignIn,
    Register,
    Reset,
    Confirm,
    Unlock,
}

/// The limits of one [`crate::Auth`].
#[derive(Debug, Default)]
pub(crate) struct Limits {
    sign_in: Limiters,
    register: Limiters,
    reset: Limiters,
    confirm: Limiters,
    unlock: Limiters,
}

#[derive(Debug, Default)]
struct Limiters {
    per_address: Option<Limiter>,
    per_account: Option<Limiter>,
}

impl Limits {
    pub(crate) fn new(settings: Option<&RateLimits>) -> Self {
        let Some(RateLimits { quotas, clock }) = settings else { return Self::default() };
        let limiter = |policy, quota: Option<Quota>| quota.map(|quota| Limiter::new(policy, quota, clock));
        let both = |scopes: Scopes, [per_address, per_account]: [&'static str; 2]| Limiters {
            per_address: limiter(per_address, scopes.per_address),
            per_account: limiter(per_account, scopes.per_account),
        };
        let Quotas { sign_in, register, reset, confirm, unlock } = *quotas;
        Self {
            sign_in: both(sign_in, ["sign_in_per_address", "sign_in_per_account"]),
            register: both(register, ["register_per_address", "register_per_account"]),
            reset: both(reset, ["reset_per_address", "reset_per_account"]),
            confirm: both(confirm, ["confirm_per_address", "confirm_per_account"]),
            unlock: both(unlock, ["unlock_per_address", "unlock_per_account"]),
        }
    }

    /// Counts an attempt from this address, or refuses it.
    pub(crate) fn count_address(&self, kind: Kind, ip: Option<IpAddr>, shape: Shape) -> Result<(), Problem> {
        let (Some(limiter), Some(ip)) = (&self.of(kind).per_address, ip) else { return Ok(()) };
        match limiter.take(&network(ip)) {
            Ok(_) => Ok(()),
            Err(limited) => {
                tracing::info!(policy = limited.policy, %ip, "rate limited");
                Err(Problem::rate_limited(&limited, shape))
            }
        }
    }

    /// Counts an attempt at this account, or refuses it. Looks at the e-mail address alone, so that the answer cannot tell
    /// whether there is an account.
    pub(crate) fn count_account(&self, kind: Kind, email: &str, shape: Shape) -> Result<Counted<'_>, Problem> {
        let Some(limiter) = &self.of(kind).per_account else { return Ok(Counted(None)) };
        // Another spelling is no other bucket.
        match limiter.take(&normalize_email(email)) {
            Ok(slot) => Ok(Counted(Some((limiter, slot)))),
            Err(limited) => {
                // Not whose account: a log is no place for whatever was typed into the field.
                tracing::info!(policy = limited.policy, "rate limited");
                Err(Problem::rate_limited(&limited, shape))
            }
        }
    }

    const fn of(&self, kind: Kind) -> &Limiters {
        match kind {
            Kind::SignIn => &self.sign_in,
            Kind::Register => &self.register,
            Kind::Reset => &self.reset,
            Kind::Confirm => &self.confirm,
            Kind::Unlock => &self.unlock,
        }
    }
}

/// An attempt at an account that was counted.
#[derive(Debug)]
#[must_use]
pub(crate) struct Counted<'a>(Option<(&'a Limiter, Slot)>);

impl Counted<'_> {
    /// It was the owner: not to be counted after all.
    pub(crate) fn take_back(self) {
        if let Some((limiter, slot)) = self.0 {
            limiter.give_back(slot);
        }
    }
}

/// A refusal: which policy, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limited {
    /// The name of the setting.
    pub(crate) policy: &'static str,
    pub(crate) quota: Quota,
    pub(crate) wait: Duration,
}

/// What shares a bucket with this address.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

/// One bucket for each key.
struct Limiter {
    policy: &'static str,
    quota: Quota,
    one: Nanos,
    slots: Slots,
    /// Which slot a key has must not be foreseeable, else somebody could fill another's.
    hasher: RandomState,
    buckets: RateLimiter<Slot, Slots, Ticks, NoOpMiddleware<Nanos>>,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("policy", &self.policy).field("quota", &self.quota).finish_non_exhaustive()
    }
}

impl Limiter {
    fn new(policy: &'static str, quota: Quota, clock: &Arc<dyn Clock>) -> Self {
        let one = quota.replenish_one();
        let slots = Slots::new();
        // A period of at least a nanosecond is what governor asks for.
        let rate = governor::Quota::with_period(one).map(|rate| rate.allow_burst(quota.burst));
        let rate = rate.unwrap_or_else(|| governor::Quota::per_second(quota.burst));
        let buckets = RateLimiter::new(rate, slots.clone(), Ticks::from_now(clock));
        Self { policy, quota, one: one.into(), slots, hasher: RandomState::new(), buckets }
    }

    /// Takes one from the bucket of `key`.
    fn take(&self, key: &impl Hash) -> Result<Slot, Limited> {
        let slot = Slot::of(self.hasher.hash_one(key));
        match self.buckets.check_key(&slot) {
            Ok(()) => Ok(slot),
            Err(not_until) => {
                let wait = not_until.wait_time_from(self.buckets.clock().now());
                Err(Limited { policy: self.policy, quota: self.quota, wait })
            }
        }
    }

    /// Puts one back.
    fn give_back(&self, slot: Slot) {
        self.slots.lower(slot, self.one);
    }
}

/// The place of a key. Two keys may have the same one: they then share a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Slot(usize);

impl Slot {
    fn of(hash: u64) -> Self {
        Self(usize::try_from(hash % Slots::COUNT as u64).unwrap_or(0))
    }
}

/// The state of all buckets: a table of fixed size instead of a map that grows with each key that somebody makes up. To fill
/// the bucket of somebody else by chance takes as many attempts as to fill nearly all of them: with 10 a minute, 20 000 a
/// second without end.
#[derive(Debug, Clone)]
struct Slots(Arc<[AtomicU64]>);

impl Slots {
    /// 1 MiB for each limit.
    const COUNT: usize = 1 << 17;

    fn new() -> Self {
        Self((0..Self::COUNT).map(|_| AtomicU64::new(0)).collect())
    }

    fn lower(&self, slot: Slot, by: Nanos) {
        if let Some(state) = self.0.get(slot.0) {
            // The closure always answers, so this cannot fail. Zero is a full bucket.
            let _ = state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |at| Some(at.saturating_sub(by.as_u64())));
        }
    }
}

impl StateStore for Slots {
    type Key = Slot;

    fn measure_and_replace<T, F, E>(&self, slot: &Slot, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // A slot is made modulo the size of the table.
        let state = &self.0[slot.0];
        let mut seen = state.load(Ordering::Acquire);
        loop {
            let (answer, next) = decide((seen != 0).then(|| Nanos::from(seen)))?;
            match state.compare_exchange_weak(seen, next.as_u64(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(answer),
                Err(changed) => seen = changed,
            }
        }
    }
}

/// Our clock as governor wants it: nanoseconds since the limiter was made.
struct Ticks {
    clock: Arc<dyn Clock>,
    start: Timestamp,
}

impl Ticks {
    fn from_now(clock: &Arc<dyn Clock>) -> Self {
        Self { clock: Arc::clone(clock), start: clock.now() }
    }
}

impl GovernorClock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        // governor adds to this without looking, and 64 bits of nanoseconds are 584 years: a broken clock stops at 200.
        const END: Duration = Duration::from_secs(200 * 366 * 24 * 60 * 60);
        self.clock.now().since(self.start).min(END).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(std::sync::atomic::AtomicI64);

    impl Clock for Fixed {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    fn limiter(burst: u32, period: Duration) -> (Arc<Fixed>, Limiter) {
        let clock = Arc::new(Fixed(0.into()));
        let shared: Arc<dyn Clock> = clock.clone();
        let quota = Quota { burst: NonZeroU32::new(burst).unwrap(), period };
        (clock, Limiter::new("test", quota, &shared))
    }

    #[test]
    fn memory_does_not_grow_with_the_number_of_keys() {
        let (_, limiter) = limiter(1, Duration::from_secs(60));
        let bytes = |limiter: &Limiter| std::mem::size_of_val(&*limiter.slots.0);
        assert_eq!(bytes(&limiter), 1 << 20);
        let mut refused = 0_u32;
        for key in 0..500_000_u32 {
            refused += u32::from(limiter.take(&key).is_err());
        }
        assert_eq!(bytes(&limiter), 1 << 20);
        // More keys than slots: nearly each of them was taken once, and no more than once.
        assert!((500_000 - (1 << 17)..400_000).contains(&refused), "{refused}");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more() {
        let (clock, limiter) = limiter(2, Duration::from_secs(60));
        for _ in 0..100 {
            let slot = limiter.take(&1).unwrap();
            limiter.give_back(slot);
        }
        assert!(limiter.take(&1).is_ok());
        let slot = limiter.take(&1).unwrap();
        assert!(limiter.take(&1).is_err());
        limiter.give_back(slot);
        assert!(limiter.take(&1).is_ok());
        assert!(limiter.take(&1).is_err());
        // What was not used for long does not add up, given back or not.
        clock.0.store(1_000_000_000, Ordering::Relaxed);
        let slot = limiter.take(&1).unwrap();
        limiter.give_back(slot);
        assert_eq!((0..10).filter(|_| limiter.take(&1).is_ok()).count(), 2);
    }

    #[test]
    fn concurrent_attempts_are_all_counted() {
        let (_, limiter) = limiter(50, Duration::from_secs(60));
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..50).filter(|_| limiter.take(&1).is_ok()).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 50);
    }

    #[test]
    fn no_quota_and_no_clock_is_too_extreme() {
        for (burst, period) in [
            (1, Duration::ZERO),
            (1, Duration::MAX),
            (u32::MAX, Duration::MAX),
            (u32::MAX, Duration::from_nanos(1)),
            (7, Duration::from_secs(60)),
        ] {
            let (clock, limiter) = limiter(burst, period);
            assert!(limiter.take(&1).is_ok());
            for at in [1, i64::MAX / 2, i64::MAX] {
                clock.0.store(at, Ordering::Relaxed);
                if let Ok(slot) = limiter.take(&1) {
                    limiter.give_back(slot);
                }
            }
        }
    }

    #[test]
    fn addresses_share_a_bucket_where_they_are_one_customers() {
        let same = |a: &str, b: &str| network(a.parse().unwrap()) == network(b.parse().unwrap());
        assert!(same("192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("::ffff:192.0.2.1", "::ffff:192.0.2.2"));
        assert!(same("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:0:1::1", "2001:db8:0:2::1"));
    }
}
