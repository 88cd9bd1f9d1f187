//! The statements, and how rows become records.

use std::borrow::Cow;

use baton_core::clock::Timestamp;
use baton_core::event::{Event, EventKind, Message, MessageBody, Recorded};
use baton_core::one_time::Purpose;
use baton_core::ports::{Login, SessionEntry};
use baton_core::session::{Account, AccountId, Device, PasswordHash, Permit, Profile, Session};
use baton_core::token::{ClientId, Generation};
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};

use super::values::{Id, Ip, Number, decode};

/// Which connections a statement takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Those on which nothing waits for the disk or for a lock that is held over it.
    Quick,
    /// The others.
    Durable,
}

/// A statement.
#[derive(Debug)]
pub(super) struct Query {
    /// What it does, for errors; also its name in the cache of prepared statements.
    pub(super) name: &'static str,
    /// With `baton.` for the schema.
    pub(super) sql: &'static str,
    /// Of its parameters. Given, so that a statement without a name takes one round trip.
    pub(super) types: &'static [Type],
    pub(super) lane: Lane,
    /// Whether it changes anything.
    pub(super) writes: bool,
}

impl Query {
    const fn read(name: &'static str, sql: &'static str, types: &'static [Type]) -> Self {
        Self { name, sql, types, lane: Lane::Quick, writes: false }
    }

    /// A relaxed write.
    const fn quick(name: &'static str, sql: &'static str, types: &'static [Type]) -> Self {
        Self { name, sql, types, lane: Lane::Quick, writes: true }
    }

    const fn durable(name: &'static str, sql: &'static str, types: &'static [Type]) -> Self {
        Self { name, sql, types, lane: Lane::Durable, writes: true }
    }

    pub(super) fn text(&self, schema: &str) -> Cow<'static, str> {
        in_schema(self.sql, schema)
    }
}

/// The text with the schema in its place.
pub(super) fn in_schema(sql: &'static str, schema: &str) -> Cow<'static, str> {
    // Quoted, since a reserved word will do as the name of a schema.
    if schema == "baton" { sql.into() } else { sql.replace("baton.", &format!("\"{schema}\".")).into() }
}

/// The columns of a session, in the order in which [`session_at`] reads them.
macro_rules! session_columns {
    ($of:literal) => {
        concat!(
            $of,
            ".client, ",
            $of,
            ".account, ",
            $of,
            ".generation, ",
            $of,
            ".handed_out_at, ",
            $of,
            ".confirmed, ",
            $of,
            ".created_at, ",
            $of,
            ".expires_at, ",
            $of,
            ".last_seen_at"
        )
    };
}
const SESSION_COLUMNS: usize = 8;

/// The columns of an account, in the order in which [`account_at`] reads them.
macro_rules! account_columns {
    ($of:literal) => {
        concat!(
            $of,
            ".id, ",
            $of,
            ".realm, ",
            $of,
            ".provider, ",
            $of,
            ".uid, ",
            $of,
            ".email, ",
            $of,
            ".profile, ",
            $of,
            ".created_at, ",
            $of,
            ".updated_at, ",
            $of,
            ".permit_client, ",
            $of,
            ".permit_until"
        )
    };
}
const ACCOUNT_COLUMNS: usize = 10;

/// The columns of a login, in the order in which [`login_at`] reads them.
macro_rules! login_columns {
    () => {
        concat!(account_columns!("a"), ", a.password, a.confirmed_at, a.unconfirmed_email")
    };
}
const LOGIN_COLUMNS: usize = ACCOUNT_COLUMNS + 3;

/// The columns of an event, in the order in which [`event_at`] reads them.
macro_rules! event_columns {
    ($of:literal) => {
        concat!(
            $of,
            ".id, ",
            $of,
            ".at, ",
            $of,
            ".kind, ",
            $of,
            ".realm, ",
            $of,
            ".account, ",
            $of,
            ".uid, ",
            $of,
            ".client, ",
            $of,
            ".ip, ",
            $of,
            ".user_agent"
        )
    };
}
const EVENT_COLUMNS: usize = 9;

/// `baton_now`, spelled out where a call of it would be much of the cost.
macro_rules! now {
    () => {
        "(SELECT greatest(baton.baton_clock() + c.ahead, c.mark) FROM baton.clock c)"
    };
}

/// Each by the index, whatever the planner takes the number of those asked for to be, which it is not to know: it would
/// make a plan for each.
pub(super) const FIND: Query = Query::read(
    "find a session",
    concat!(
        "SELECT f.* FROM unnest((SELECT $1)) k (client) CROSS JOIN LATERAL (SELECT ",
        session_columns!("s"),
        ", ",
        account_columns!("a"),
        ", greatest(s.last_seen_at, ",
        now!(),
        ") FROM baton.sessions s JOIN baton.accounts a ON a.id = s.account WHERE s.client = k.client OFFSET 0) f"
    ),
    &[Type::UUID_ARRAY],
);

pub(super) const SWAP: Query = Query::quick(
    "swap",
    concat!(
        "SELECT ",
        session_columns!("(r.o_row)"),
        ", r.o_made FROM baton.swap($1, $2, $3, $4, $5, $6, $7, $8, $9, true) r"
    ),
    SWAP_TYPES,
);

pub(super) const RESEND: Query = Query::durable(
    "resend",
    concat!(
        "SELECT ",
        session_columns!("(r.o_row)"),
        ", r.o_made FROM baton.swap($1, $2, $3, $4, $5, $6, $7, $8, $9, false) r"
    ),
    SWAP_TYPES,
);

const SWAP_TYPES: &[Type] =
    &[Type::UUID, Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::TEXT];

/// As `baton.swap`, for many. Answers which were made. Sessions that somebody else holds are left out, so that it never waits for
/// one while it holds others. The limit is none: it is what makes the planner expect so few that it goes by the index.
pub(super) const SWAP_MANY: Query = Query::quick(
    "swap many",
    concat!(
        "WITH n AS MATERIALIZED (SELECT ",
        now!(),
        " AS now, set_config('synchronous_commit', 'off', true)), h AS MATERIALIZED (SELECT h.* FROM n
             CROSS JOIN (SELECT * FROM unnest((SELECT $1)) WITH ORDINALITY LIMIT (SELECT cardinality($1))) k (client, number)
             CROSS JOIN LATERAL (SELECT s.client, k.number::integer AS i, n.now
                 FROM baton.sessions s WHERE s.client = k.client FOR NO KEY UPDATE SKIP LOCKED) h)
         UPDATE baton.sessions s SET
             generation = $5[h.i],
             confirmed = greatest(s.confirmed, $6[h.i]),
             last_seen_at = greatest(s.last_seen_at, h.now),
             ip = coalesce($9[h.i], s.ip),
             handed_out_at = CASE WHEN $7[h.i] IS NULL THEN s.handed_out_at ELSE greatest(s.last_seen_at, h.now) END,
             expires_at = CASE WHEN $7[h.i] IS NULL THEN s.expires_at ELSE greatest(s.expires_at, least(
                 baton.plus(greatest(s.last_seen_at, h.now), $7[h.i]), baton.plus(s.created_at, $8[h.i]))) END
         FROM h WHERE s.client = h.client AND s.generation = $2[h.i] AND s.confirmed = $4[h.i]
             AND s.handed_out_at IS NOT DISTINCT FROM $3[h.i]
         RETURNING h.i, s.last_seen_at"
    ),
    &[
        Type::UUID_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
    ],
);

pub(super) const FIND_LOGIN: Query = Query::read(
    "find a login",
    concat!(
        "SELECT ",
        login_columns!(),
        " FROM baton.accounts a WHERE a.realm = $1 AND a.provider = $2 AND a.uid_key = sha256(convert_to($3, 'UTF8'))"
    ),
    &[Type::TEXT, Type::TEXT, Type::TEXT],
);

/// A row with no session if there is none: the time is asked for too.
pub(super) const SESSIONS: Query = Query::read(
    "list sessions",
    concat!(
        "SELECT ",
        session_columns!("s"),
        ", s.user_agent, s.ip, greatest(max(s.last_seen_at) OVER (), n.now) FROM (SELECT ",
        now!(),
        " AS now) n LEFT JOIN baton.sessions s ON s.account = $1",
        " ORDER BY s.last_seen_at DESC, s.created_at DESC, s.client DESC"
    ),
    &[Type::INT8],
);

pub(super) const FIND_ONE_TIME: Query = Query::read(
    "find a one-time token",
    concat!(
        "SELECT ",
        login_columns!(),
        ", t.purpose, t.email, t.expires_at, ",
        now!(),
        " FROM baton.one_time_tokens t JOIN baton.accounts a ON a.id = t.account WHERE t.id = $1"
    ),
    &[Type::UUID],
);

pub(super) const EVENTS: Query = Query::read(
    "list events",
    concat!("SELECT ", event_columns!("e"), " FROM baton.audit_events e WHERE e.id > $1 ORDER BY e.id LIMIT $2"),
    &[Type::INT8, Type::INT8],
);

pub(super) const CREATE_ACCOUNT: Query = Query::durable(
    "create an account",
    "SELECT r.o_account, r.o_now FROM baton.create_account($1::text::json, $2::text::json, $3::text::json) r",
    &[Type::TEXT, Type::TEXT, Type::TEXT],
);

pub(super) const CREATE_SESSION: Query = Query::durable(
    "create a session",
    "SELECT baton.create_session($1, $2::text::json, $3, $4::text::json)",
    &[Type::INT8, Type::TEXT, Type::TEXT, Type::TEXT],
);

pub(super) const UPDATE_ACCOUNT: Query = Query::durable(
    "update an account",
    concat!(
        "SELECT r.o_outcome, ",
        account_columns!("(r.o_row)"),
        " FROM baton.update_account($1, $2::text::json, $3::text::json) r"
    ),
    &[Type::INT8, Type::TEXT, Type::TEXT],
);

pub(super) const REDEEM: Query = Query::durable(
    "redeem a one-time token",
    concat!(
        "SELECT r.o_outcome, ",
        account_columns!("(r.o_row)"),
        ", r.o_now FROM baton.redeem($1, $2::text::json, $3::text::json, $4::text::json) r"
    ),
    &[Type::UUID, Type::TEXT, Type::TEXT, Type::TEXT],
);

pub(super) const DELETE_ACCOUNT: Query =
    Query::durable("delete an account", "SELECT baton.delete_account($1, $2::text::json)", &[Type::INT8, Type::TEXT]);

pub(super) const END_SESSION: Query = Query::durable(
    "end a session",
    "SELECT baton.end_session($1, $2, $3::text::json)",
    &[Type::INT8, Type::UUID, Type::TEXT],
);

pub(super) const CREATE_ONE_TIME: Query = Query::durable(
    "keep a one-time token",
    "SELECT baton.create_one_time($1, $2, $3, $4, $5)",
    &[Type::UUID, Type::INT8, Type::TEXT, Type::TEXT, Type::INT8],
);

// What waits for the locks of durable operations goes with those, also if it is relaxed itself.
pub(super) const VOID_ONE_TIME: Query =
    Query::durable("void a one-time token", "SELECT baton.void_one_time($1)", &[Type::UUID]);

pub(super) const COUNT_ATTEMPT: Query = Query::quick(
    "count an attempt",
    "SELECT r.o_locked_until, r.o_last FROM baton.count_attempt($1, $2, $3, $4) r",
    &[Type::UUID, Type::INT8, Type::INT8, Type::INT8],
);

pub(super) const FORGET_ATTEMPTS: Query =
    Query::quick("forget attempts", "SELECT baton.forget_attempts($1)", &[Type::UUID]);

pub(super) const RECORD: Query = Query::durable("record", "SELECT baton.record($1::text::json)", &[Type::TEXT]);

pub(super) const CLAIM: Query = Query::durable(
    "claim messages",
    concat!(
        "SELECT ",
        event_columns!("(r.o_event)"),
        ", r.o_id, r.o_attempt, r.o_created_at, r.o_mail, r.o_url FROM baton.claim($1, $2) r"
    ),
    &[Type::INT8, Type::INT8],
);

pub(super) const SETTLE: Query =
    Query::durable("settle a message", "SELECT baton.settle($1, $2, $3)", &[Type::INT8, Type::INT8, Type::INT8]);

pub(super) const PURGE: Query = Query::durable("purge", "SELECT baton.purge($1)", &[Type::INT8]);

pub(super) const PURGE_OTHERS: Query = Query::durable("purge", "SELECT baton.purge_others($1)", &[Type::INT8]);

pub(super) const DUE: Query = Query::read(
    "look for sessions that are over",
    concat!(
        "SELECT s.account, s.client FROM baton.sessions s WHERE s.purge_at <= ",
        now!(),
        " ORDER BY s.purge_at LIMIT $1"
    ),
    &[Type::INT8],
);

pub(super) const REMEMBER_ENDS: Query = Query::durable("remember ends", "SELECT baton.remember_ends()", &[]);

pub(super) const REMEMBERED_ENDS: Query = Query::read(
    "list ends",
    "SELECT array_agg(e.client) FROM (
         SELECT client FROM baton.ended_sessions WHERE $1::bigint IS NULL OR account = $1 LIMIT $2) e",
    &[Type::INT8, Type::INT8],
);

pub(super) const FORGET_ENDS: Query = Query::quick("forget ends", "SELECT baton.forget_ends($1)", &[Type::UUID_ARRAY]);

pub(super) const NOTE: Query = Query::quick("note a session", "SELECT baton.note($1, $2, $3, $4, $5, $6)", NOTE_TYPES);

const NOTE_TYPES: &[Type] = &[Type::UUID, Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8];

pub(super) const PURGE_EVENTS: Query =
    Query::durable("purge events", "SELECT baton.purge_events($1, $2)", &[Type::INT8, Type::INT8]);

pub(super) const BIND_KEYS: Query = Query::durable("bind keys", "SELECT baton.bind_keys($1)", &[Type::TEXT_ARRAY]);

pub(super) const CHECK_READ: Query = Query::read("check", concat!("SELECT ", now!()), &[]);

pub(super) const CHECK_WRITE: Query = Query::durable("check writing", "SELECT baton.touch()", &[]);

pub(super) const TICK: Query = Query::quick("keep the time", "SELECT baton.tick($1)", &[Type::INT8]);

/// A session, its account and the time.
pub(super) fn found(row: &Row) -> Result<(Session, Account, Timestamp), Error> {
    let time = time_at(row, SESSION_COLUMNS + ACCOUNT_COLUMNS)?;
    Ok((session_at(row, 0)?, account_at(row, SESSION_COLUMNS)?, time))
}

/// When a swap was made, or the session as it is.
pub(super) fn swapped(row: &Row) -> Result<(Option<Timestamp>, Option<Session>), Error> {
    let made = optional_time_at(row, SESSION_COLUMNS)?;
    let exists = row.try_get::<_, Option<Id>>(0)?.is_some();
    Ok((made, if exists { Some(session_at(row, 0)?) } else { None }))
}

/// Which swap of many was made, and when.
pub(super) fn swapped_one(row: &Row) -> Result<(i32, Timestamp), Error> {
    Ok((row.try_get(0)?, time_at(row, 1)?))
}

/// A session whose registered end has come.
pub(super) fn due(row: &Row) -> Result<(AccountId, ClientId), Error> {
    Ok((AccountId(row.try_get(0)?), client_at(row, 1)?))
}

/// The time, and a session of the list if there is one.
pub(super) fn listed(row: &Row) -> Result<(Timestamp, Option<SessionEntry>), Error> {
    let now = time_at(row, SESSION_COLUMNS + 2)?;
    if row.try_get::<_, Option<Id>>(0)?.is_none() {
        return Ok((now, None));
    }
    let device = Device { user_agent: optional_text_at(row, SESSION_COLUMNS)?, ip: ip_at(row, SESSION_COLUMNS + 1)? };
    Ok((now, Some(SessionEntry { session: session_at(row, 0)?, device })))
}

/// An outcome, and the account if it is one that was changed.
pub(super) fn changed(row: &Row) -> Result<(String, Option<Account>), Error> {
    let outcome: String = row.try_get(0)?;
    let account = if outcome == "done" { Some(account_at(row, 1)?) } else { None };
    Ok((outcome, account))
}

pub(super) fn client_at(row: &Row, column: usize) -> Result<ClientId, Error> {
    row.try_get::<_, Id>(column).map(|id| ClientId::from_bytes(id.0))
}

/// Null for none.
pub(super) fn clients_at(row: &Row, column: usize) -> Result<Vec<ClientId>, Error> {
    let ids: Option<Vec<Id>> = row.try_get(column)?;
    Ok(ids.unwrap_or_default().into_iter().map(|id| ClientId::from_bytes(id.0)).collect())
}

/// The time of a redemption that was made.
pub(super) fn redeemed_at(row: &Row) -> Result<Timestamp, Error> {
    time_at(row, 1 + ACCOUNT_COLUMNS)
}

/// What there is of a one-time token besides its name: whose, for what, sent where, until when, and the time. `None` for the
/// purpose if this version does not know it.
pub(super) fn one_time(row: &Row) -> Result<(Login, Option<Purpose>, String, [Timestamp; 2]), Error> {
    let purpose = Purpose::parse(row.try_get(LOGIN_COLUMNS)?);
    let email = text_at(row, LOGIN_COLUMNS + 1)?;
    Ok((login_at(row)?, purpose, email, [time_at(row, LOGIN_COLUMNS + 2)?, time_at(row, LOGIN_COLUMNS + 3)?]))
}

/// A message that was claimed, by its number; `None` for one that this version cannot read.
pub(super) fn message(row: &Row) -> Result<(i64, Option<Message>), Error> {
    const FIRST: usize = EVENT_COLUMNS;
    let id = row.try_get(FIRST)?;
    let created_at = time_at(row, FIRST + 2)?;
    let body = match row.try_get::<_, Option<&str>>(FIRST + 3)? {
        Some(mail) => serde_json::from_str(mail).ok().map(MessageBody::Mail),
        // An event that another version has put there, perhaps. Those behind it must not have to wait for that one.
        None => {
            let url = text_at(row, FIRST + 4)?;
            event_at(row)?.map(|event| MessageBody::Webhook(url, event))
        }
    };
    let attempt = number_at(row, FIRST + 1)?;
    Ok((id, body.map(|body| Message { id, attempt, created_at, body })))
}

/// `None` if it is of a kind that this version does not know.
pub(super) fn event_at(row: &Row) -> Result<Option<Recorded>, Error> {
    let Some(kind) = EventKind::parse(row.try_get(2)?) else { return Ok(None) };
    let event = Event {
        kind,
        realm: text_at(row, 3)?,
        account: row.try_get::<_, Option<i64>>(4)?.map(AccountId),
        uid: optional_text_at(row, 5)?,
        client: row.try_get::<_, Option<Id>>(6)?.map(|id| ClientId::from_bytes(id.0)),
        device: Device { ip: ip_at(row, 7)?, user_agent: optional_text_at(row, 8)? },
    };
    Ok(Some(Recorded { id: row.try_get(0)?, at: time_at(row, 1)?, event }))
}

pub(super) fn login_at(row: &Row) -> Result<Login, Error> {
    Ok(Login {
        account: account_at(row, 0)?,
        password: PasswordHash::new(text_at(row, ACCOUNT_COLUMNS)?),
        confirmed_at: optional_time_at(row, ACCOUNT_COLUMNS + 1)?,
        unconfirmed_email: optional_text_at(row, ACCOUNT_COLUMNS + 2)?,
    })
}

fn session_at(row: &Row, first: usize) -> Result<Session, Error> {
    Ok(Session {
        client: client_at(row, first)?,
        account: AccountId(row.try_get(first + 1)?),
        generation: Generation::new(number_at(row, first + 2)?),
        handed_out_at: optional_time_at(row, first + 3)?,
        confirmed: Generation::new(number_at(row, first + 4)?),
        created_at: time_at(row, first + 5)?,
        expires_at: time_at(row, first + 6)?,
        last_seen_at: time_at(row, first + 7)?,
    })
}

fn account_at(row: &Row, first: usize) -> Result<Account, Error> {
    Ok(Account {
        id: AccountId(row.try_get(first)?),
        realm: text_at(row, first + 1)?,
        provider: text_at(row, first + 2)?,
        uid: text_at(row, first + 3)?,
        email: text_at(row, first + 4)?,
        profile: Profile::from_stored(text_at(row, first + 5)?),
        created_at: time_at(row, first + 6)?,
        updated_at: time_at(row, first + 7)?,
        permit: match row.try_get::<_, Option<Id>>(first + 8)? {
            Some(client) => Some(Permit { client: ClientId::from_bytes(client.0), until: time_at(row, first + 9)? }),
            None => None,
        },
    })
}

pub(super) fn time_at(row: &Row, column: usize) -> Result<Timestamp, Error> {
    row.try_get(column).map(Timestamp::from_millis)
}

pub(super) fn optional_time_at(row: &Row, column: usize) -> Result<Option<Timestamp>, Error> {
    Ok(row.try_get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

fn text_at(row: &Row, column: usize) -> Result<String, Error> {
    row.try_get(column).map(decode)
}

fn optional_text_at(row: &Row, column: usize) -> Result<Option<String>, Error> {
    Ok(row.try_get::<_, Option<String>>(column)?.map(decode))
}

/// A number that this crate wrote as an `u32`.
fn number_at(row: &Row, column: usize) -> Result<u32, Error> {
    row.try_get::<_, Number>(column).map(|number| number.0)
}

fn ip_at(row: &Row, column: usize) -> Result<Option<std::net::IpAddr>, Error> {
    Ok(row.try_get::<_, Option<Ip>>(column)?.map(|ip| ip.0))
}
