//! Reading: the statements that only look, and how rows become records.

use std::net::IpAddr;

use baton_core::clock::Timestamp;
use baton_core::event::{Event, EventKind, Message, MessageBody, Recorded};
use baton_core::one_time::{OneTime, OneTimeId, Purpose};
use baton_core::ports::{Login, SessionEntry};
use baton_core::session::{Account, AccountId, Device, PasswordHash, Permit, Profile, Session};
use baton_core::token::{ClientId, Generation};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Params, Row, Statement};

/// The columns of a session, in the order in which [`session_at`] reads them.
macro_rules! session_columns {
    () => {
        "s.client, s.account, s.generation, s.handed_out_at, s.confirmed, s.created_at, s.expires_at, s.last_seen_at"
    };
}
const SESSION_COLUMNS: usize = 8;

/// The columns of an account, in the order in which [`account_at`] reads them.
macro_rules! account_columns {
    () => {
        "a.id, a.realm, a.provider, a.uid, a.email, a.profile, a.created_at, a.updated_at, \
         a.permit_client, a.permit_until"
    };
}
const ACCOUNT_COLUMNS: usize = 10;

const FIND: &str = concat!(
    "SELECT ",
    session_columns!(),
    ", ",
    account_columns!(),
    " FROM sessions s JOIN accounts a ON a.id = s.account WHERE s.client = ?1"
);
const FIND_SESSION: &str = concat!("SELECT ", session_columns!(), " FROM sessions s WHERE s.client = ?1");
/// The columns of a login, in the order in which [`login_at`] reads them.
macro_rules! login_columns {
    () => {
        concat!(account_columns!(), ", a.password, a.confirmed_at, a.unconfirmed_email")
    };
}
const LOGIN_COLUMNS: usize = ACCOUNT_COLUMNS + 3;
const FIND_LOGIN: &str =
    concat!("SELECT ", login_columns!(), " FROM accounts a WHERE a.realm = ?1 AND a.provider = ?2 AND a.uid = ?3");
const FIND_ONE_TIME: &str = concat!(
    "SELECT ",
    login_columns!(),
    ", t.purpose, t.email, t.expires_at FROM one_time_tokens t JOIN accounts a ON a.id = t.account WHERE t.id = ?1"
);
/// The columns of an event, in the order in which [`event_at`] reads them.
macro_rules! event_columns {
    () => {
        "e.id, e.at, e.kind, e.realm, e.account, e.uid, e.client, e.ip, e.user_agent"
    };
}
const EVENT_COLUMNS: usize = 9;
const EVENTS: &str =
    concat!("SELECT ", event_columns!(), " FROM audit_events e WHERE e.id > ?1 ORDER BY e.id LIMIT ?2");
const DUE: &str = concat!(
    "SELECT ",
    event_columns!(),
    ", o.id, o.attempt + 1, o.created_at, o.mail, o.url FROM outbox o LEFT JOIN audit_events e ON e.id = o.event",
    " WHERE o.due_at <= ?1 ORDER BY o.due_at, o.id LIMIT ?2"
);
const IS_DUE: &str = "SELECT 1 FROM outbox WHERE due_at <= ?1";
const ACCOUNT: &str = concat!("SELECT ", account_columns!(), " FROM accounts a WHERE a.id = ?1");
const SESSIONS_OF: &str = concat!(
    "SELECT ",
    session_columns!(),
    ", s.user_agent, s.ip FROM sessions s WHERE s.account = ?1",
    " ORDER BY s.last_seen_at DESC, s.created_at DESC, s.client DESC"
);

/// A session and whose it is.
pub(super) fn find(connection: &Connection, client: ClientId) -> rusqlite::Result<Option<(Session, Account)>> {
    connection
        .prepare_cached(FIND)?
        .query_row([client.as_bytes()], |row| Ok((session_at(row, 0)?, account_at(row, SESSION_COLUMNS)?)))
        .optional()
}

/// A session alone.
pub(super) fn find_session(connection: &Connection, client: ClientId) -> rusqlite::Result<Option<Session>> {
    connection.prepare_cached(FIND_SESSION)?.query_row([client.as_bytes()], |row| session_at(row, 0)).optional()
}

/// An account by realm, provider and uid.
pub(super) fn find_login(connection: &Connection, name: &[String; 3]) -> rusqlite::Result<Option<Login>> {
    connection.prepare_cached(FIND_LOGIN)?.query_row(rusqlite::params_from_iter(name), login_at).optional()
}

/// A one-time token, expired ones included, with its account.
pub(super) fn find_one_time(connection: &Connection, id: OneTimeId) -> rusqlite::Result<Option<(OneTime, Login)>> {
    connection
        .prepare_cached(FIND_ONE_TIME)?
        .query_row([id.as_bytes()], |row| {
            let login = login_at(row)?;
            let purpose = named(row, LOGIN_COLUMNS, Purpose::parse)?;
            let (email, expires_at) = (row.get(LOGIN_COLUMNS + 1)?, time_at(row, LOGIN_COLUMNS + 2)?);
            Ok((OneTime { id, account: login.account.id, purpose, email, expires_at }, login))
        })
        .optional()
}

/// Events with numbers above `after`, in order.
pub(super) fn events(connection: &Connection, after: i64, limit: u32) -> rusqlite::Result<Vec<Recorded>> {
    connection.prepare_cached(EVENTS)?.query_map([after, limit.into()], event_at)?.collect()
}

/// Whether anything in the outbox is due.
pub(super) fn is_due(connection: &Connection, now: Timestamp) -> rusqlite::Result<bool> {
    connection.prepare_cached(IS_DUE)?.exists([now.as_millis()])
}

/// What in the outbox is due; `None` for a message that this version cannot read. Its attempt is the one to come.
pub(super) fn due(
    connection: &Connection,
    now: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<(i64, Option<Message>)>> {
    const FIRST: usize = EVENT_COLUMNS;
    connection
        .prepare_cached(DUE)?
        .query_map([now.as_millis(), limit.into()], |row| {
            let (id, attempt, created_at) = (row.get(FIRST)?, row.get(FIRST + 1)?, time_at(row, FIRST + 2)?);
            let body = match row.get::<_, Option<String>>(FIRST + 3)? {
                Some(mail) => serde_json::from_str(&mail).ok().map(MessageBody::Mail),
                // An event that another version has put there, perhaps. Those behind it must not have to wait for that one.
                None => {
                    let url = row.get(FIRST + 4)?;
                    event_at(row).ok().map(|event| MessageBody::Webhook(url, event))
                }
            };
            Ok((id, body.map(|body| Message { id, attempt, created_at, body })))
        })?
        .collect()
}

/// Sessions that have ended here and have to end elsewhere too.
pub(super) fn ended_sessions(
    connection: &Connection,
    account: Option<AccountId>,
    limit: u32,
) -> rusqlite::Result<Vec<ClientId>> {
    let prepare = |sql| connection.prepare_cached(sql);
    match account {
        Some(account) => clients(
            &mut *prepare("SELECT client FROM ended_sessions WHERE account = ?1 LIMIT ?2")?,
            [account.0, limit.into()],
        ),
        None => clients(&mut *prepare("SELECT client FROM ended_sessions LIMIT ?1")?, [limit]),
    }
}

/// Sessions whose end has come, the earliest first.
pub(super) fn due_sessions(
    connection: &Connection,
    now: Timestamp,
    limit: u32,
) -> rusqlite::Result<Vec<(AccountId, ClientId)>> {
    connection
        .prepare_cached("SELECT account, client FROM sessions WHERE purge_at <= ?1 ORDER BY purge_at LIMIT ?2")?
        .query_map([now.as_millis(), limit.into()], |row| {
            Ok((AccountId(row.get(0)?), ClientId::from_bytes(row.get(1)?)))
        })?
        .collect()
}

/// An account that exists.
pub(super) fn account(connection: &Connection, account: AccountId) -> rusqlite::Result<Account> {
    connection.prepare_cached(ACCOUNT)?.query_row([account.0], |row| account_at(row, 0))
}

/// The sessions of an account, most recently used first.
pub(super) fn sessions_of(connection: &Connection, account: AccountId) -> rusqlite::Result<Vec<SessionEntry>> {
    connection
        .prepare_cached(SESSIONS_OF)?
        .query_map([account.0], |row| {
            let device = Device { user_agent: row.get(SESSION_COLUMNS)?, ip: ip_at(row, SESSION_COLUMNS + 1)? };
            Ok(SessionEntry { session: session_at(row, 0)?, device })
        })?
        .collect()
}

/// The names of an account's sessions.
pub(super) fn clients_of(connection: &Connection, account: AccountId) -> rusqlite::Result<Vec<ClientId>> {
    clients(&mut *connection.prepare_cached("SELECT client FROM sessions WHERE account = ?1")?, [account.0])
}

/// What a statement answers whose rows are names of sessions.
pub(super) fn clients(statement: &mut Statement<'_>, params: impl Params) -> rusqlite::Result<Vec<ClientId>> {
    statement.query_map(params, |row| row.get(0).map(ClientId::from_bytes))?.collect()
}

/// The latest time at which anything was written, by any process.
pub(super) fn high_water_mark(connection: &Connection) -> rusqlite::Result<Timestamp> {
    connection.prepare_cached("SELECT value FROM meta WHERE name = 'time'")?.query_row([], |row| time_at(row, 0))
}

fn session_at(row: &Row<'_>, first: usize) -> rusqlite::Result<Session> {
    Ok(Session {
        client: ClientId::from_bytes(row.get(first)?),
        account: AccountId(row.get(first + 1)?),
        generation: Generation::new(row.get(first + 2)?),
        handed_out_at: row.get::<_, Option<i64>>(first + 3)?.map(Timestamp::from_millis),
        confirmed: Generation::new(row.get(first + 4)?),
        created_at: time_at(row, first + 5)?,
        expires_at: time_at(row, first + 6)?,
        last_seen_at: time_at(row, first + 7)?,
    })
}

fn account_at(row: &Row<'_>, first: usize) -> rusqlite::Result<Account> {
    Ok(Account {
        id: AccountId(row.get(first)?),
        realm: row.get(first + 1)?,
        provider: row.get(first + 2)?,
        uid: row.get(first + 3)?,
        email: row.get(first + 4)?,
        profile: Profile::from_stored(row.get(first + 5)?),
        created_at: time_at(row, first + 6)?,
        updated_at: time_at(row, first + 7)?,
        permit: match row.get::<_, Option<[u8; 16]>>(first + 8)? {
            Some(client) => Some(Permit { client: ClientId::from_bytes(client), until: time_at(row, first + 9)? }),
            None => None,
        },
    })
}

fn login_at(row: &Row<'_>) -> rusqlite::Result<Login> {
    Ok(Login {
        account: account_at(row, 0)?,
        password: PasswordHash::new(row.get(ACCOUNT_COLUMNS)?),
        confirmed_at: row.get::<_, Option<i64>>(ACCOUNT_COLUMNS + 1)?.map(Timestamp::from_millis),
        unconfirmed_email: row.get(ACCOUNT_COLUMNS + 2)?,
    })
}

fn event_at(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    let event = Event {
        kind: named(row, 2, EventKind::parse)?,
        realm: row.get(3)?,
        account: row.get::<_, Option<i64>>(4)?.map(AccountId),
        uid: row.get(5)?,
        client: row.get::<_, Option<[u8; 16]>>(6)?.map(ClientId::from_bytes),
        device: Device { ip: ip_at(row, 7)?, user_agent: row.get(8)? },
    };
    Ok(Recorded { id: row.get(0)?, at: time_at(row, 1)?, event })
}

/// A value that is kept by its name.
fn named<T>(row: &Row<'_>, column: usize, parse: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    parse(row.get_ref(column)?.as_str()?).ok_or_else(|| {
        let error = "a name that this version does not know".into();
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error)
    })
}

fn time_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

fn ip_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<IpAddr>> {
    let Some(text) = row.get_ref(column)?.as_str_or_null()? else { return Ok(None) };
    let ip = text.parse();
    ip.map(Some).map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{SqliteOptions, file};

    /// A file in which a scan of a table would show: there are some of everything.
    fn filled() -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("baton.db");
        let writer = file::open_writer(&path, &SqliteOptions::default()).expect("open");
        for number in 0..20_u8 {
            let id = [number; 16];
            let account = i64::from(number / 4 + 1);
            let fill = [
                "INSERT OR IGNORE INTO accounts (id, realm, provider, uid, email, profile, password, created_at, updated_at)
                 VALUES (?2, 'user', 'email', ?2, '', '{}', '', 0, 0)",
                "INSERT INTO sessions (client, account, generation, confirmed, created_at, expires_at, last_seen_at)
                 VALUES (?1, ?2, 1, 0, 0, 0, 0)",
                "INSERT INTO one_time_tokens (id, account, purpose, email, expires_at) VALUES (?1, ?2, 'reset', '', 0)",
                "INSERT INTO audit_events (at, kind, realm, account, client) VALUES (0, 'locked', 'user', ?2, ?1)",
                "INSERT INTO outbox (url, event, created_at, due_at) VALUES (hex(?1), last_insert_rowid(), 0, 1000 * ?2)",
            ];
            for sql in fill {
                let mut statement = writer.prepare(sql).expect(sql);
                let given: &[&dyn rusqlite::ToSql] = &[&id, &account];
                // SQLite counts a statement's parameters up to the highest number, used or not.
                statement.execute(&given[..statement.parameter_count()]).expect(sql);
            }
        }
        let connection = file::open_reader(&path, &SqliteOptions::default()).expect("open");
        (folder, connection)
    }

    #[test]
    fn the_hot_read_is_planned_once_and_by_index() {
        let (_folder, connection) = filled();
        for number in 0..10 {
            let found = find(&connection, ClientId::from_bytes([2 * number + 1; 16])).expect("find");
            assert!(found.is_some(), "{number}");
        }
        assert_eq!(find(&connection, ClientId::from_bytes([99; 16])).expect("find"), None);
        let statement = connection.prepare_cached(FIND).expect("prepare");
        assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0);
        assert_eq!(statement.get_status(rusqlite::StatementStatus::FullscanStep), 0);
        assert_eq!(statement.get_status(rusqlite::StatementStatus::Run), 11, "it came from the cache");
    }

    #[test]
    fn no_other_read_scans_or_sorts_a_table() {
        let (_folder, connection) = filled();
        let now = Timestamp::from_millis(2_000);
        assert!(find_one_time(&connection, OneTimeId::from_bytes([3; 16])).expect("find").is_some());
        assert!(is_due(&connection, now).expect("look"));
        assert!(!is_due(&connection, Timestamp::from_millis(0)).expect("look"));
        assert_eq!(due(&connection, now, 5).expect("list").len(), 5);
        assert_eq!(events(&connection, 10, 3).expect("list").len(), 3);
        let name = ["user", "email", "1"].map(str::to_owned);
        assert!(find_login(&connection, &name).expect("find").is_some());
        for sql in [FIND_ONE_TIME, IS_DUE, DUE, EVENTS, FIND_LOGIN] {
            let statement = connection.prepare_cached(sql).expect("prepare");
            assert!(statement.get_status(rusqlite::StatementStatus::Run) > 0, "{sql}");
            assert_eq!(statement.get_status(rusqlite::StatementStatus::FullscanStep), 0, "{sql}");
            assert_eq!(statement.get_status(rusqlite::StatementStatus::Sort), 0, "{sql}");
        }
    }
}
