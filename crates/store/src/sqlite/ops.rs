//! Writing: what each operation does inside a group's transaction.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::time::Duration;

use baton_core::attempts::{AttemptName, AttemptRule, Attempts, Counted};
use baton_core::clock::{Timestamp, millis};
use baton_core::event::{Message, Outcome, Trace};
use baton_core::one_time::{OneTime, OneTimeId};
use baton_core::ports::{KeyBinding, NewOneTime};
use baton_core::session::{
    Account, AccountId, AccountUpdate, EndSessions, NewAccount, NewSession, PasswordHash, Profile, Session, Swap,
    Swapped,
};
use baton_core::token::ClientId;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::recent::Change;
use super::rows;
use crate::time::StoreTime;

/// The transaction of a group, as an operation sees it.
pub(super) struct Tx<'a> {
    pub(super) connection: &'a Connection,
    pub(super) time: &'a StoreTime,
    /// Set if an operation may have left half of itself behind: then none of the group may be committed.
    pub(super) spoilt: Cell<bool>,
    /// What becomes of sessions that may be remembered.
    pub(super) changes: RefCell<Vec<Change>>,
    /// Whether something in the file is sure to be another than before. SQLite writes nothing where a row stays what it was,
    /// and counts it as changed all the same.
    pub(super) writes: Cell<bool>,
}

impl<'a> Tx<'a> {
    pub(super) fn new(connection: &'a Connection, time: &'a StoreTime) -> Self {
        Self { connection, time, spoilt: Cell::new(false), changes: RefCell::default(), writes: Cell::new(false) }
    }

    pub(super) fn changes(&self, change: Change) {
        self.changes.borrow_mut().push(change);
    }

    /// Removes sessions with a statement that returns their names. How many there were.
    fn remove_sessions(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<usize> {
        let removed = rows::clients(&mut *self.connection.prepare_cached(sql)?, params)?;
        if !removed.is_empty() {
            self.writes.set(true);
        }
        self.changes.borrow_mut().extend(removed.iter().copied().map(Change::Changed));
        Ok(removed.len())
    }

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
        tx.changes(Change::Swapped(client, *swap, now));
        if swap.generation != expect.generation {
            tx.writes.set(true);
        }
        return Ok(Swapped::Done(now));
    }
    Ok(rows::find_session(tx.connection, client)?.map_or(Swapped::Gone, Swapped::Moved))
}

/// `None` if the name is taken.
pub(super) fn create_account(
    tx: &Tx<'_>,
    new: NewAccount,
    session: Option<NewSession>,
    trace: &Trace,
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
    leave(tx, trace, Some(account.id))?;
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
    trace: &Trace,
) -> rusqlite::Result<Result<Account, Unchanged>> {
    let changed = update_row(tx, account, update)?;
    if changed.is_ok() {
        leave(tx, trace, Some(account))?;
    }
    Ok(changed)
}

fn update_row(tx: &Tx<'_>, account: AccountId, update: &AccountUpdate) -> rusqlite::Result<Result<Account, Unchanged>> {
    let Some(password) = password_of(tx, account)? else { return Ok(Err(Unchanged::Gone)) };
    if update.if_password.as_ref().is_some_and(|checked| *checked != password) {
        return Ok(Err(Unchanged::Overtaken));
    }
    let concerned = rows::clients_of(tx.connection, account)?;
    tx.changes.borrow_mut().extend(concerned.into_iter().map(Change::Changed));
    let now = tx.time.now().as_millis();
    let permit = update.permit.as_ref();
    let made = tx.execute(
        "UPDATE OR IGNORE accounts SET
             uid = coalesce(?2, uid),
             email = coalesce(?3, email),
             profile = coalesce(?4, profile),
             password = coalesce(?5, password),
             permit_client = CASE WHEN ?7 IS NULL AND ?5 IS NULL THEN permit_client ELSE ?7 END,
             permit_until = CASE WHEN ?7 IS NULL AND ?5 IS NULL THEN permit_until ELSE ?8 END,
             confirmed_at = coalesce(confirmed_at, ?9),
             unconfirmed_email = CASE WHEN ?10 THEN ?11 ELSE unconfirmed_email END,
             updated_at = max(updated_at, ?6)
         WHERE id = ?1",
        params![
            account.0,
            update.uid,
            update.email,
            update.profile.as_ref().map(Profile::as_json),
            update.password.as_ref().map(PasswordHash::expose),
            now,
            permit.map(|permit| permit.client.as_bytes()),
            permit.map(|permit| permit.until.as_millis()),
            update.confirm.then_some(now),
            update.unconfirmed_email.is_some(),
            update.unconfirmed_email.as_ref().and_then(Option::as_ref),
        ],
    )?;
    if made == 0 {
        // It exists, so it was the name.
        return Ok(Err(Unchanged::Taken));
    }
    match update.end {
        EndSessions::None => {}
        EndSessions::AllBut(kept) => {
            tx.remove_sessions(
                "DELETE FROM sessions WHERE account = ?1 AND client <> ?2 RETURNING client",
                params![account.0, kept.as_bytes()],
            )?;
        }
        EndSessions::All => {
            tx.remove_sessions(SESSIONS_OF_ACCOUNT, [account.0])?;
        }
    }
    if update.void_one_time {
        tx.execute("DELETE FROM one_time_tokens WHERE account = ?1", [account.0])?;
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

const SESSIONS_OF_ACCOUNT: &str = "DELETE FROM sessions WHERE account = ?1 RETURNING client";

/// False if there is no such account.
pub(super) fn delete_account(tx: &Tx<'_>, account: AccountId, trace: &Trace) -> rusqlite::Result<bool> {
    tx.remove_sessions(SESSIONS_OF_ACCOUNT, [account.0])?;
    // One-time tokens go with the row.
    let existed = tx.execute("DELETE FROM accounts WHERE id = ?1", [account.0])? == 1;
    if existed {
        leave(tx, trace, Some(account))?;
    }
    Ok(existed)
}

/// `None` if there is no such account, or its password is not the one that was checked.
pub(super) fn create_session(
    tx: &Tx<'_>,
    account: AccountId,
    new: &NewSession,
    trace: &Trace,
) -> rusqlite::Result<Option<Session>> {
    let Some(password) = password_of(tx, account)? else { return Ok(None) };
    if new.if_password.as_ref().is_some_and(|checked| *checked != password) {
        return Ok(None);
    }
    let session = insert_session_with_room(tx, account, new)?;
    leave(tx, trace, Some(account))?;
    Ok(Some(session))
}

/// Adds a session, in the place of the least recently used ones if there are too many.
fn insert_session_with_room(tx: &Tx<'_>, account: AccountId, new: &NewSession) -> rusqlite::Result<Session> {
    let session = insert_session(tx, account, new, tx.time.now())?;
    // The new one is kept whatever the times say, so the others share what remains. Same order as in the list of sessions.
    tx.remove_sessions(
        "DELETE FROM sessions WHERE client IN (
             SELECT client FROM sessions WHERE account = ?1 AND client <> ?2
             ORDER BY last_seen_at DESC, created_at DESC, client DESC
             LIMIT -1 OFFSET ?3)
         RETURNING client",
        params![account.0, new.client.as_bytes(), new.max_devices.saturating_sub(1)],
    )?;
    Ok(session)
}

/// False if the account has no such session.
pub(super) fn end_session(tx: &Tx<'_>, account: AccountId, client: ClientId, trace: &Trace) -> rusqlite::Result<bool> {
    let ended = tx.remove_sessions(
        "DELETE FROM sessions WHERE client = ?1 AND account = ?2 RETURNING client",
        params![client.as_bytes(), account.0],
    )?;
    if ended == 1 {
        leave(tx, trace, Some(account))?;
    }
    Ok(ended == 1)
}

/// False if there is no such account.
pub(super) fn create_one_time(tx: &Tx<'_>, new: &NewOneTime) -> rusqlite::Result<bool> {
    let made = tx.execute(
        "INSERT INTO one_time_tokens (id, account, purpose, email, expires_at)
         SELECT ?1, id, ?3, ?4, ?5 FROM accounts WHERE id = ?2",
        params![
            new.id.as_bytes(),
            new.account.0,
            new.purpose.as_str(),
            new.email,
            tx.time.now().plus(new.lifetime).as_millis(),
        ],
    )?;
    Ok(made == 1)
}

pub(super) fn redeem(
    tx: &Tx<'_>,
    id: OneTimeId,
    update: &AccountUpdate,
    session: Option<&NewSession>,
    trace: &Trace,
) -> rusqlite::Result<Result<(Account, Option<Session>), Unchanged>> {
    let found = rows::find_one_time(tx.connection, id)?.filter(|(token, _)| tx.time.now() < token.expires_at);
    let Some((OneTime { account, purpose, .. }, _)) = found else { return Ok(Err(Unchanged::Gone)) };
    let account = match update_row(tx, account, update)? {
        Ok(account) => account,
        Err(unchanged) => return Ok(Err(unchanged)),
    };
    tx.execute(
        "DELETE FROM one_time_tokens WHERE account = ?1 AND purpose = ?2",
        params![account.id.0, purpose.as_str()],
    )?;
    let session = session.map(|session| insert_session_with_room(tx, account.id, session)).transpose()?;
    leave(tx, trace, Some(account.id))?;
    Ok(Ok((account, session)))
}

pub(super) fn void_one_time(tx: &Tx<'_>, id: OneTimeId) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM one_time_tokens WHERE id = ?1", [id.as_bytes()]).map(drop)
}

pub(super) fn count_attempt(tx: &Tx<'_>, name: AttemptName, rule: AttemptRule) -> rusqlite::Result<Counted> {
    let found = tx
        .connection
        .prepare_cached("SELECT count, locked_until, expires_at FROM attempts WHERE name = ?1")?
        .query_row([name.0], |row| {
            let locked_until = row.get::<_, Option<i64>>(1)?.map(Timestamp::from_millis);
            Ok(Attempts { count: row.get(0)?, locked_until, expires_at: Timestamp::from_millis(row.get(2)?) })
        })
        .optional()?;
    let (next, counted) = found.unwrap_or_default().counted(rule, tx.time.now());
    tx.execute(
        "INSERT INTO attempts (name, count, locked_until, expires_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (name) DO UPDATE SET
             count = excluded.count, locked_until = excluded.locked_until, expires_at = excluded.expires_at",
        params![name.0, next.count, next.locked_until.map(Timestamp::as_millis), next.expires_at.as_millis()],
    )?;
    Ok(counted)
}

pub(super) fn forget_attempts(tx: &Tx<'_>, name: AttemptName) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM attempts WHERE name = ?1", [name.0]).map(drop)
}

/// Leaves a trace of a change of this account, or of nothing.
pub(super) fn leave(tx: &Tx<'_>, trace: &Trace, account: Option<AccountId>) -> rusqlite::Result<()> {
    let now = tx.time.now().as_millis();
    for event in &trace.events {
        tx.execute(
            "INSERT INTO audit_events (at, kind, realm, account, uid, client, ip, user_agent)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                now,
                event.kind.as_str(),
                event.realm,
                event.account.or(account).map(|account| account.0),
                event.uid,
                event.client.as_ref().map(ClientId::as_bytes),
                event.device.ip.map(|ip| ip.to_string()),
                event.device.user_agent,
            ],
        )?;
        let event = tx.connection.last_insert_rowid();
        for url in &trace.webhooks {
            tx.execute(
                "INSERT INTO outbox (url, event, created_at, due_at) VALUES (?1, ?2, ?3, ?3)",
                params![url, event, now],
            )?;
        }
    }
    for mail in &trace.mails {
        let json =
            serde_json::to_string(mail).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        tx.execute("INSERT INTO outbox (mail, created_at, due_at) VALUES (?1, ?2, ?2)", params![json, now])?;
    }
    Ok(())
}

/// Messages that are due; until `lease` has passed they are not due again.
pub(super) fn claim(tx: &Tx<'_>, limit: u32, lease: Duration) -> rusqlite::Result<Vec<Message>> {
    let now = tx.time.now();
    let mut claimed = Vec::new();
    for (id, message) in rows::due(tx.connection, now, limit)? {
        let next = now.plus(lease).as_millis();
        tx.execute("UPDATE outbox SET attempt = attempt + 1, due_at = ?2 WHERE id = ?1", params![id, next])?;
        match message {
            Some(message) => claimed.push(message),
            None => tracing::error!(message = id, "the outbox holds a message that this version cannot read"),
        }
    }
    Ok(claimed)
}

pub(super) fn settle(tx: &Tx<'_>, id: i64, attempt: u32, outcome: Outcome) -> rusqlite::Result<()> {
    match outcome {
        Outcome::Done => tx.execute("DELETE FROM outbox WHERE id = ?1 AND attempt = ?2", params![id, attempt]),
        Outcome::Retry(after) => tx.execute(
            "UPDATE outbox SET due_at = ?3 WHERE id = ?1 AND attempt = ?2",
            params![id, attempt, tx.time.now().plus(after).as_millis()],
        ),
    }
    .map(drop)
}

const PURGE_SESSIONS: &str = "
    DELETE FROM sessions WHERE expires_at <= ?1 AND client IN (
        SELECT client FROM sessions WHERE purge_at <= ?1 ORDER BY purge_at LIMIT ?2)
    RETURNING client";

/// What that has left of those that it looked at.
const PUT_OFF_SESSIONS: &str = "
    UPDATE sessions SET purge_at = expires_at WHERE client IN (
        SELECT client FROM sessions WHERE purge_at <= ?1 ORDER BY purge_at LIMIT ?2)";

/// Looks at up to `limit` sessions that were to expire by now, and removes those that have: how many there were of each. One
/// that has been renewed meanwhile is put off.
pub(super) fn purge_sessions(tx: &Tx<'_>, limit: u32) -> rusqlite::Result<(u32, u32)> {
    let now = tx.time.now().as_millis();
    let purged = tx.remove_sessions(PURGE_SESSIONS, params![now, limit])? as u32;
    let put_off = tx.execute(PUT_OFF_SESSIONS, params![now, limit - purged])? as u32;
    Ok((purged + put_off, purged))
}

const EXPIRED: [&str; 2] = [
    "DELETE FROM one_time_tokens WHERE id IN (
         SELECT id FROM one_time_tokens WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
    "DELETE FROM attempts WHERE name IN (
         SELECT name FROM attempts WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
];

/// How many there were, up to `limit` of each, besides sessions.
pub(super) fn purge_others(tx: &Tx<'_>, limit: u32) -> rusqlite::Result<u64> {
    let now = tx.time.now().as_millis();
    EXPIRED.iter().map(|sql| tx.execute(sql, params![now, limit]).map(|purged| purged as u64)).sum()
}

/// From now on a trigger notes the sessions that end.
pub(super) fn remember_ends(tx: &Tx<'_>) -> rusqlite::Result<()> {
    tx.execute("INSERT INTO meta (name, value) VALUES ('remembers_ends', 1) ON CONFLICT DO NOTHING", []).map(drop)
}

pub(super) fn forget_ends(tx: &Tx<'_>, clients: &[ClientId]) -> rusqlite::Result<()> {
    for client in clients {
        tx.execute("DELETE FROM ended_sessions WHERE client = ?1", [client.as_bytes()])?;
    }
    Ok(())
}

/// Takes over how far a session is that is kept elsewhere.
pub(super) fn note(tx: &Tx<'_>, session: &Session) -> rusqlite::Result<()> {
    tx.changes(Change::Changed(session.client));
    tx.execute(
        "UPDATE sessions SET
             handed_out_at = CASE WHEN generation <= ?5 THEN ?6 ELSE handed_out_at END,
             generation = max(generation, ?5),
             confirmed = max(confirmed, ?7),
             last_seen_at = max(last_seen_at, ?2),
             expires_at = max(expires_at, ?3),
             purge_at = CASE WHEN purge_at <= ?4 THEN max(expires_at, ?3) ELSE purge_at END
         WHERE client = ?1",
        params![
            session.client.as_bytes(),
            session.last_seen_at.as_millis(),
            session.expires_at.as_millis(),
            tx.time.now().as_millis(),
            session.generation.get(),
            session.handed_out_at.map(Timestamp::as_millis),
            session.confirmed.get(),
        ],
    )
    .map(drop)
}

/// How many there were, up to `limit`.
pub(super) fn purge_events(tx: &Tx<'_>, age: Duration, limit: u32) -> rusqlite::Result<u64> {
    let oldest = tx.time.now().as_millis().saturating_sub(millis(age));
    let purged = tx.execute(
        "DELETE FROM audit_events WHERE id IN (
             SELECT e.id FROM audit_events e
             WHERE e.at <= ?1 AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.event = e.id)
             ORDER BY e.at LIMIT ?2)",
        params![oldest, limit],
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

/// A write that nobody minds.
pub(super) fn touch(tx: &Tx<'_>) -> rusqlite::Result<()> {
    keep_time(tx, tx.time.now())
}

/// Moves the high-water mark up to the store's time.
pub(super) fn keep_time(tx: &Tx<'_>, now: Timestamp) -> rusqlite::Result<()> {
    let moved = tx.execute("UPDATE meta SET value = ?1 WHERE name = 'time' AND value < ?1", [now.as_millis()])?;
    if moved == 1 {
        tx.writes.set(true);
    }
    Ok(())
}

fn insert_session(tx: &Tx<'_>, account: AccountId, new: &NewSession, now: Timestamp) -> rusqlite::Result<Session> {
    let session = Session::new(new.client, account, now, new.renewal);
    tx.writes.set(true);
    tx.execute(
        "INSERT INTO sessions (client, account, generation, handed_out_at, confirmed, created_at, expires_at, purge_at,
                               last_seen_at, user_agent, ip)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10)",
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

#[cfg(test)]
mod tests {
    use super::*;

    /// However large the tables are.
    #[test]
    fn a_purge_finds_what_has_expired_by_an_index() {
        let mut connection = Connection::open_in_memory().expect("open");
        crate::sqlite::schema::migrate(&mut connection, std::path::Path::new("")).expect("migrate");
        let statements = [PURGE_SESSIONS, PUT_OFF_SESSIONS].into_iter().chain(EXPIRED);
        for sql in statements {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect(sql);
            let steps = plan.query_map(params![0, 0], |row| row.get::<_, String>(3)).expect(sql);
            let steps: Vec<String> = steps.collect::<Result<_, _>>().expect(sql);
            assert!(steps.iter().any(|step| step.contains("INDEX") && step.contains("_at<?)")), "{sql}: {steps:?}");
            assert!(!steps.iter().any(|step| step.starts_with("SCAN") || step.contains("TEMP")), "{sql}: {steps:?}");
        }
    }
}
