//! How a session is kept: a hash with one-letter fields, and with it what a request wants to know about the account.

use std::net::IpAddr;

use baton_core::clock::Timestamp;
use baton_core::error::StoreError;
use baton_core::session::{Account, AccountId, Permit, Profile, Session};
use baton_core::token::{ClientId, Generation};

use super::error::unusable;

/// A session as it is kept.
pub(super) struct Record {
    pub(super) session: Session,
    pub(super) ip: Option<IpAddr>,
    /// When it was last found in the registry, by the clock of Redis.
    pub(super) verified_at: i64,
    pub(super) account: Account,
}

impl Record {
    /// From the values of [`FIELDS`]. `None` if there is none.
    pub(super) fn read(client: ClientId, mut values: Vec<Option<Vec<u8>>>) -> Result<Option<Self>, StoreError> {
        if values.first().is_none_or(Option::is_none) {
            return Ok(None);
        }
        let mut fields = Fields(values.iter_mut());
        let id = AccountId(fields.number()?);
        let session = fields.session(client, id)?;
        let ip = fields.text()?;
        Ok(Some(Self {
            session,
            ip: if ip.is_empty() { None } else { Some(ip.parse().map_err(|_| damaged())?) },
            verified_at: fields.number()?,
            account: Account {
                id,
                realm: fields.text()?,
                provider: fields.text()?,
                uid: fields.text()?,
                email: fields.text()?,
                profile: Profile::from_stored(fields.text()?),
                permit: fields.permit()?,
                created_at: fields.time()?,
                updated_at: fields.time()?,
            },
        }))
    }
}

/// The fields that a request wants to know, in the order in which they are read: account, generation, handed_out_at, confirmed,
/// born, ends, last seen, address, verified (found in the registry); of the account: realm, provider, uid, email, profile, permit
/// (client and until), created, modified.
pub(super) const FIELDS: [&str; 18] =
    ["a", "g", "h", "c", "b", "e", "l", "i", "v", "ar", "ap", "au", "ae", "af", "ax", "ay", "ac", "am"];

/// Names and values of a new session's fields, but for the account's.
pub(super) fn session(session: &Session, ip: Option<IpAddr>) -> Vec<Vec<u8>> {
    let fields = [
        ("a", session.account.0.to_string()),
        ("g", session.generation.get().to_string()),
        ("h", optional(session.handed_out_at)),
        ("c", session.confirmed.get().to_string()),
        ("b", session.created_at.as_millis().to_string()),
        ("e", session.expires_at.as_millis().to_string()),
        ("l", session.last_seen_at.as_millis().to_string()),
        ("i", ip.map(|ip| ip.to_string()).unwrap_or_default()),
    ];
    flat(fields)
}

/// Names and values of the account's fields.
pub(super) fn account(account: &Account) -> Vec<Vec<u8>> {
    let permit = account.permit.as_ref();
    flat([
        ("ar", account.realm.clone()),
        ("ap", account.provider.clone()),
        ("au", account.uid.clone()),
        ("ae", account.email.clone()),
        ("af", account.profile.as_json().to_owned()),
        ("ax", permit.map(|permit| permit.client.to_string()).unwrap_or_default()),
        ("ay", optional(permit.map(|permit| permit.until))),
        ("ac", account.created_at.as_millis().to_string()),
        ("am", account.updated_at.as_millis().to_string()),
    ])
}

/// The session in the answer of a swap that was not made, from its account on.
pub(super) fn moved(client: ClientId, mut values: Vec<Option<Vec<u8>>>) -> Result<Session, StoreError> {
    let mut fields = Fields(values.iter_mut());
    let id = AccountId(fields.number()?);
    fields.session(client, id)
}

pub(super) fn optional(time: Option<Timestamp>) -> String {
    time.map(|time| time.as_millis().to_string()).unwrap_or_default()
}

fn flat<const N: usize>(fields: [(&str, String); N]) -> Vec<Vec<u8>> {
    fields.into_iter().flat_map(|(name, value)| [name.as_bytes().to_vec(), value.into_bytes()]).collect()
}

struct Fields<'a>(std::slice::IterMut<'a, Option<Vec<u8>>>);

impl Fields<'_> {
    fn session(&mut self, client: ClientId, account: AccountId) -> Result<Session, StoreError> {
        Ok(Session {
            client,
            account,
            generation: self.generation()?,
            handed_out_at: self.optional_time()?,
            confirmed: self.generation()?,
            created_at: self.time()?,
            expires_at: self.time()?,
            last_seen_at: self.time()?,
        })
    }

    fn permit(&mut self) -> Result<Option<Permit>, StoreError> {
        let (client, until) = (self.text()?, self.optional_time()?);
        let Some(until) = until else { return Ok(None) };
        let client = ClientId::parse(&client).ok_or_else(damaged)?;
        Ok(Some(Permit { client, until }))
    }

    fn generation(&mut self) -> Result<Generation, StoreError> {
        self.text()?.parse().map(Generation::new).map_err(|_| damaged())
    }

    fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.number().map(Timestamp::from_millis)
    }

    fn optional_time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(|millis| Some(Timestamp::from_millis(millis))).map_err(|_| damaged())
    }

    fn number(&mut self) -> Result<i64, StoreError> {
        self.text()?.parse().map_err(|_| damaged())
    }

    fn text(&mut self) -> Result<String, StoreError> {
        let value = self.0.next().and_then(Option::take).ok_or_else(damaged)?;
        String::from_utf8(value).map_err(|_| damaged())
    }
}

fn damaged() -> StoreError {
    unusable("a session is not as this version keeps it")
}
