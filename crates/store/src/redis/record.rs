//! How a session is kept: one value, of which the head changes with the requests, and the rest is what a request wants to
//! know about the account.
//!
//! | bytes | |
//! | --- | --- |
//! | 1 | the version of this format |
//! | 8 | account, where `close.lua` looks at it |
//! | 4, 9, 4 | generation, handed_out_at, confirmed |
//! | 8, 8, 8 | created_at, expires_at, last_seen_at |
//! | 8 | when it was last found in the registry |
//! | 16 | the last operation |
//! | 17 | address: 0, 4 or 6 for its kind, then itself and zeros |
//! | | of the account: realm, provider, uid, email and profile, each after its length in 4 bytes; permit (client in 16 bytes, and until, which is missing without one); created_at, updated_at |
//!
//! Numbers are big-endian, times milliseconds. A time that may be missing has a byte before it: 1 if there is one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use baton_core::clock::Timestamp;
use baton_core::error::StoreError;
use baton_core::session::{Account, AccountId, Permit, Profile, Session};
use baton_core::token::{ClientId, Generation};

use super::error::unusable;

const VERSION: u8 = 1;
/// Bytes of a head.
const HEAD: usize = 91;

/// What changes with the requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) session: Session,
    /// Where it was last seen from.
    pub(super) ip: Option<IpAddr>,
    /// When it was last found in the registry, by the clock of Redis.
    pub(super) verified_at: Timestamp,
    /// The name of the swap that was made last.
    pub(super) operation: [u8; 16],
}

impl Head {
    /// The head of what is kept of a session, and what is kept of its account.
    pub(super) fn split(client: ClientId, kept: &[u8]) -> Result<(Self, &[u8]), StoreError> {
        let mut parts = Parts(kept);
        if parts.take()? != [VERSION] {
            return Err(damaged());
        }
        let session = Session {
            client,
            account: AccountId(parts.number()?),
            generation: parts.generation()?,
            handed_out_at: parts.optional_time()?,
            confirmed: parts.generation()?,
            created_at: parts.time()?,
            expires_at: parts.time()?,
            last_seen_at: parts.time()?,
        };
        let (verified_at, operation, ip) = (parts.time()?, parts.take()?, parts.ip()?);
        Ok((Self { session, ip, verified_at, operation }, parts.0))
    }

    /// With what is to be kept of the account.
    pub(super) fn with(&self, account: &[u8]) -> Vec<u8> {
        let Session { account: id, generation, handed_out_at, confirmed, .. } = &self.session;
        let mut kept = Vec::with_capacity(HEAD + account.len());
        kept.push(VERSION);
        kept.extend(account_id(*id));
        kept.extend(generation.get().to_be_bytes());
        put_optional(&mut kept, *handed_out_at);
        kept.extend(confirmed.get().to_be_bytes());
        let Session { created_at, expires_at, last_seen_at, .. } = &self.session;
        for time in [*created_at, *expires_at, *last_seen_at, self.verified_at] {
            put_time(&mut kept, time);
        }
        kept.extend(self.operation);
        let (kind, address) = match self.ip {
            None => (0, [0; 16]),
            Some(IpAddr::V4(ip)) => {
                let mut address = [0; 16];
                address[..4].copy_from_slice(&ip.octets());
                (4, address)
            }
            Some(IpAddr::V6(ip)) => (6, ip.octets()),
        };
        kept.push(kind);
        kept.extend(address);
        kept.extend_from_slice(account);
        kept
    }
}

/// As it stands in a head.
pub(super) const fn account_id(id: AccountId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// What is kept of an account.
pub(super) fn keep_account(account: &Account) -> Vec<u8> {
    let mut kept = Vec::new();
    let Account { realm, provider, uid, email, profile, permit, created_at, updated_at, .. } = account;
    for text in [realm, provider, uid, email, profile.as_json()] {
        // Nothing that comes near 4 GiB gets here.
        kept.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        kept.extend_from_slice(text.as_bytes());
    }
    kept.extend(permit.as_ref().map_or([0; 16], |permit| *permit.client.as_bytes()));
    put_optional(&mut kept, permit.as_ref().map(|permit| permit.until));
    put_time(&mut kept, *created_at);
    put_time(&mut kept, *updated_at);
    kept
}

/// The account of this number, from what is kept of it.
pub(super) fn account(id: AccountId, kept: &[u8]) -> Result<Account, StoreError> {
    let mut parts = Parts(kept);
    let account = Account {
        id,
        realm: parts.text()?,
        provider: parts.text()?,
        uid: parts.text()?,
        email: parts.text()?,
        profile: Profile::from_stored(parts.text()?),
        permit: parts.permit()?,
        created_at: parts.time()?,
        updated_at: parts.time()?,
    };
    if parts.0.is_empty() { Ok(account) } else { Err(damaged()) }
}

fn put_time(kept: &mut Vec<u8>, time: Timestamp) {
    kept.extend(time.as_millis().to_be_bytes());
}

fn put_optional(kept: &mut Vec<u8>, time: Option<Timestamp>) {
    kept.push(time.is_some().into());
    put_time(kept, time.unwrap_or(Timestamp::from_millis(0)));
}

/// What has not been read yet.
struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (part, rest) = self.0.split_first_chunk().ok_or_else(damaged)?;
        self.0 = rest;
        Ok(*part)
    }

    fn number(&mut self) -> Result<i64, StoreError> {
        self.take().map(i64::from_be_bytes)
    }

    fn generation(&mut self) -> Result<Generation, StoreError> {
        self.take().map(u32::from_be_bytes).map(Generation::new)
    }

    fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.number().map(Timestamp::from_millis)
    }

    fn optional_time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let ([there], time) = (self.take()?, self.time()?);
        Ok((there != 0).then_some(time))
    }

    fn ip(&mut self) -> Result<Option<IpAddr>, StoreError> {
        let ([kind], address): (_, [u8; 16]) = (self.take()?, self.take()?);
        match (kind, address) {
            (0, _) => Ok(None),
            (4, [a, b, c, d, ..]) => Ok(Some(Ipv4Addr::new(a, b, c, d).into())),
            (6, address) => Ok(Some(Ipv6Addr::from(address).into())),
            _ => Err(damaged()),
        }
    }

    fn permit(&mut self) -> Result<Option<Permit>, StoreError> {
        let (client, until) = (ClientId::from_bytes(self.take()?), self.optional_time()?);
        Ok(until.map(|until| Permit { client, until }))
    }

    fn text(&mut self) -> Result<String, StoreError> {
        let length = u32::from_be_bytes(self.take()?);
        let length = usize::try_from(length).map_err(|_| damaged())?;
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(damaged)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| damaged())
    }
}

fn damaged() -> StoreError {
    unusable("a session is not as this version keeps it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kept: &[u8]) -> Result<(Head, Account), StoreError> {
        let (head, rest) = Head::split(ClientId::from_bytes([7; 16]), kept)?;
        let account = account(head.session.account, rest)?;
        Ok((head, account))
    }

    fn examples() -> [(Head, Account); 2] {
        let time = Timestamp::from_millis;
        let (client, id) = (ClientId::from_bytes([7; 16]), AccountId(i64::MAX));
        let session = Session {
            client,
            account: id,
            generation: Generation::new(u32::MAX),
            handed_out_at: Some(time(0)),
            confirmed: Generation::new(3),
            created_at: time(i64::MIN),
            expires_at: time(i64::MAX),
            last_seen_at: time(-1),
        };
        let new = Session { account: AccountId(1), handed_out_at: None, ..session.clone() };
        let account = Account {
            id,
            realm: String::new(),
            provider: "\0\n \u{1f980}".to_owned(),
            uid: "a".repeat(70_000),
            email: "ada@example.test".to_owned(),
            profile: Profile::from_stored("{}".to_owned()),
            permit: Some(Permit { client: ClientId::from_bytes([0; 16]), until: time(0) }),
            created_at: time(1),
            updated_at: time(i64::MIN),
        };
        let other = Account { id: AccountId(1), uid: "ada".to_owned(), permit: None, ..account.clone() };
        let ip = Some(IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()));
        [
            (Head { session, ip, verified_at: time(5), operation: [9; 16] }, account),
            (Head { session: new, ip: Some([192, 0, 2, 1].into()), verified_at: time(0), operation: [0; 16] }, other),
        ]
    }

    #[test]
    fn what_is_kept_comes_back() {
        for (head, account) in examples() {
            for ip in [head.ip, None] {
                let head = Head { ip, ..head.clone() };
                let kept = head.with(&keep_account(&account));
                assert_eq!(read(&kept).expect("it is whole"), (head, account.clone()));
                assert_eq!(kept.len(), HEAD + keep_account(&account).len());
                // Where `close.lua` looks.
                assert_eq!(kept[1..9], account_id(account.id));
            }
        }
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let [_, (head, account)] = examples();
        let kept = head.with(&keep_account(&account));
        for length in 0..kept.len() {
            read(&kept[..length]).expect_err("a part is missing");
        }
        for (place, byte) in [(0, 0), (0, VERSION + 1), (HEAD - 17, 5)] {
            let mut other = kept.clone();
            other[place] = byte;
            read(&other).expect_err("there is no such format");
        }
        read(&[&*kept, &[0]].concat()).expect_err("something is added");
    }
}
