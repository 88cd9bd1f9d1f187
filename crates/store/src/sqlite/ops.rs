//! Writing: what each operation does inside a group's transaction.

use std::cell::Cell;
use std::net::IpAddr;

use baton_core::clock::{Timestamp, millis};
use baton_core::ports::KeyBinding;
use baton_core::session::{
    Account, AccountId, AccountUpdate, EndSessions, NewAccount, NewSession, PasswordHash, Profile, Session, Swap,
    Swapped,
};
use baton_core::token::ClientId;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows;
use crate::time::StoreTime;

/// The transaction of a group, as an operation sees it.
pub(super) struct Tx<'a> {
    pub(super) connection: &'a Connection,
    pub(super) time: &'a StoreTime,
    /// Set if an operation may have left half of itself behind: then none of the group may be committed.
    pub(super) spoilt: Cell<bool>,
}

impl Tx<'_> {
    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(params)
    }
}

/// With a hand-out. Both have to agree with `Session::swapped`; the conformance suite compares them.
const SWAP_AND_HAND_OUT: &str = "
    UPDATE sessions SET
        generation = ?5,
        confirmed = max(confirmed, ?6),
        last_seen_at = max(last_seen_at, ?7),
        ip = coalesce(?8, ip),
        handed_out_at = ?7,
        expires_at = max(expires_at, min(?9, created_at + ?10))
    WHERE client = ?1 AND generation = ?2 AND handed_out_at IS ?3 AND confirmed = ?4";

/// Without one.
const SWAP: &str = "
    UPDATE sessions SET
        generation = ?5,
        confirmed = max(confirmed, ?6),
        last_seen_at = max(last_seen_at, ?7),
        ip = coalesce(?8, ip)
    WHERE client = ?1 AND generation = ?2 AND handed_out_at IS ?3 AND confirmed = ?4";

pub(super) fn swap(tx: &Tx<'_>, client: ClientId, swap: &Swap, seen_from: Option<IpAddr>) -> rusqlite::Result<Swapped> {
    let now = tx.time.now();
    let expect = swap.expect;
    let generation = expect.generation.get();
    let handed_out_at = expect.handed_out_at.map(Timestamp::as_millis);
    let confirmed = expect.confirmed.get();
    let ip = seen_from.map(|ip| ip.to_string());
    let made = match swap.hand_out {
        Some(renewal) => tx.execute(
            SWAP_AND_HAND_OUT,
            params![
                client.as_bytes(),
                generation,
                handed_out_at,
                confirmed,
                swap.generation.get(),
                swap.confirmed.get(),
                now.as_millis(),
                ip,
                now.plus(renewal.lifespan).as_millis(),
                millis(renewal.max_lifetime),
            ],
        )?,
        None => tx.execute(
            SWAP,
            params![
                client.as_bytes(),
                generation,
                handed_out_at,
                confirmed,
                swap.generation.get(),
                swap.confirmed.get(),
                now.as_millis(),
                ip,
            ],
        )?,
    };
    if made == 1 {
        return Ok(Swapped::Done(now));
    }
    Ok(rows::find_session(tx.connection, client)?.map_or(Swapped::Gone, Swapped::Moved))
}

/// `None` if the name is taken.
pub(super) fn create_account(
    tx: &Tx<'_>,
    new: NewAccount,
    session: Option<NewSession>,
) -> rusqlite::Result<Option<(Account, Option<Session>)>> {
    let now = tx.time.now();
    let made = tx.execute(
        "INSERT INTO accounts (realm, provider, uid, email, profile, password, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)
         ON CONFLICT (realm, provider, uid) DO NOTHING",
        params![
            new.realm,
            new.provider,
            new.uid,
            new.email,
            new.profile.as_json(),
            new.password.expose(),
            now.as_millis()
        ],
    )?;
    if made == 0 {
        return Ok(None);
    }
    let (account, _) = new.made(AccountId(tx.connection.last_insert_rowid()), now);
    let session = session.map(|session| insert_session(tx, account.id, &session, now)).transpose()?;
    Ok(Some((account, session)))
}

/// Why an account is left as it is.
pub(super) enum Unchanged {
    Gone,
    Overtaken,
    Taken,
}

pub(super) fn update_account(
    tx: &Tx<'_>,
    account: AccountId,
    update: &AccountUpdate,
) -> rusqlite::Result<Result<Account, Unchanged>> {
    let Some(password) = password_of(tx, account)? else { return Ok(Err(Unchanged::Gone)) };
    if update.if_password.as_ref().is_some_and(|checked| *checked != password) {
        return Ok(Err(Unchanged::Overtaken));
    }
    let now = tx.time.now().as_millis();
    let made = tx.execute(
        "UPDATE OR IGNORE accounts SET
             uid = coalesce(?2, uid),
             email = coalesce(?3, email),
             profile = coalesce(?4, profile),
             password = coalesce(?5, password),
             allow_password_change = allow_password_change AND ?5 IS NULL,
             updated_at = max(updated_at, ?6)
         WHERE id = ?1",
        params![
            account.0,
            update.uid,
            update.email,
            update.profile.as_ref().map(Profile::as_json),
            update.password.as_ref().map(PasswordHash::expose),
            now,
        ],
    )?;
    if made == 0 {
        // It exists, so it was the name.
        return Ok(Err(Unchanged::Taken));
    }
    match update.end {
        EndSessions::None => {}
        EndSessions::AllBut(kept) => {
            tx.execute(
                "DELETE FROM sessions WHERE account = ?1 AND client <> ?2",
                params![account.0, kept.as_bytes()],
            )?;
        }
        EndSessions::All => {
            tx.execute("DELETE FROM sessions WHERE account = ?1", [account.0])?;
        }
    }
    rows::account(tx.connection, account).map(Ok)
}

/// `None` if there is no such account.
fn password_of(tx: &Tx<'_>, account: AccountId) -> rusqlite::Result<Option<PasswordHash>> {
    tx.connection
        .prepare_cached("SELECT password FROM accounts WHERE id = ?1")?
        .query_row([account.0], |row| row.get(0).map(PasswordHash::new))
        .optional()
}

/// False if there is no such account.
pub(super) fn delete_account(tx: &Tx<'_>, account: AccountId) -> rusqlite::Result<bool> {
    tx.execute("DELETE FROM sessions WHERE account = ?1", [account.0])?;
    Ok(tx.execute("DELETE FROM accounts WHERE id = ?1", [account.0])? == 1)
}

/// `None` if there is no such account, or its password is not the one that was checked.
pub(super) fn create_session(tx: &Tx<'_>, account: AccountId, new: &NewSession) -> rusqlite::Result<Option<Session>> {
    let Some(password) = password_of(tx, account)? else { return Ok(None) };
    if new.if_password.as_ref().is_some_and(|checked| *checked != password) {
        return Ok(None);
    }
    let session = insert_session(tx, account, new, tx.time.now())?;
    // The new one is kept whatever the times say, so the others share what remains. Same order as in the list of sessions.
    tx.execute(
        "DELETE FROM sessions WHERE client IN (
             SELECT client FROM sessions WHERE account = ?1 AND client <> ?2
             ORDER BY last_seen_at DESC, created_at DESC, client DESC
             LIMIT -1 OFFSET ?3)",
        params![account.0, new.client.as_bytes(), new.max_devices.saturating_sub(1)],
    )?;
    Ok(Some(session))
}

/// False if the account has no such session.
pub(super) fn end_session(tx: &Tx<'_>, account: AccountId, client: ClientId) -> rusqlite::Result<bool> {
    let ended =
        tx.execute("DELETE FROM sessions WHERE client = ?1 AND account = ?2", params![client.as_bytes(), account.0])?;
    Ok(ended == 1)
}

/// How many there were, up to `limit`.
pub(super) fn purge(tx: &Tx<'_>, limit: u32) -> rusqlite::Result<u64> {
    let purged = tx.execute(
        "DELETE FROM sessions WHERE client IN (
             SELECT client FROM sessions WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        params![tx.time.now().as_millis(), limit],
    )?;
    Ok(purged as u64)
}

pub(super) fn bind_keys(tx: &Tx<'_>, fingerprints: &[String]) -> rusqlite::Result<KeyBinding> {
    let mut known = tx.connection.prepare_cached("SELECT 1 FROM known_keys WHERE fingerprint = ?1")?;
    let mut recognised = false;
    for fingerprint in fingerprints {
        recognised |= known.exists([fingerprint])?;
    }
    if !recognised && tx.connection.prepare_cached("SELECT 1 FROM known_keys")?.exists([])? {
        return Ok(KeyBinding::Foreign);
    }
    for fingerprint in fingerprints {
        tx.execute("INSERT INTO known_keys (fingerprint) VALUES (?1) ON CONFLICT DO NOTHING", [fingerprint])?;
    }
    Ok(KeyBinding::Bound)
}

/// A write that changes nothing that anybody looks at.
pub(super) fn touch(tx: &Tx<'_>) -> rusqlite::Result<()> {
    tx.execute("UPDATE meta SET value = value WHERE name = 'time'", []).map(drop)
}

/// Moves the high-water mark up to the store's time.
pub(super) fn keep_time(tx: &Tx<'_>) -> rusqlite::Result<()> {
    let now = tx.time.now().as_millis();
    tx.execute("UPDATE meta SET value = ?1 WHERE name = 'time' AND value < ?1", [now]).map(drop)
}

fn insert_session(tx: &Tx<'_>, account: AccountId, new: &NewSession, now: Timestamp) -> rusqlite::Result<Session> {
    let session = Session::new(new.client, account, now, new.renewal);
    tx.execute(
        "INSERT INTO sessions (client, account, generation, handed_out_at, confirmed, created_at, expires_at,
                               last_seen_at, user_agent, ip)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            session.client.as_bytes(),
            session.account.0,
            session.generation.get(),
            session.handed_out_at.map(Timestamp::as_millis),
            session.confirmed.get(),
            session.created_at.as_millis(),
            session.expires_at.as_millis(),
            session.last_seen_at.as_millis(),
            new.device.user_agent,
            new.device.ip.map(|ip| ip.to_string()),
        ],
    )?;
    Ok(session)
}
