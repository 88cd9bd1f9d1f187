//! How values travel: identifiers as `uuid`, text without the one character that PostgreSQL cannot keep, and what a
//! function is told as JSON.

use std::borrow::Cow;
use std::error::Error;
use std::net::IpAddr;

use baton_core::clock::millis;
use baton_core::event::Trace;
use baton_core::session::{AccountUpdate, EndSessions, NewAccount, NewSession, PasswordHash, Profile};
use bytes::BytesMut;
use serde_json::{Value, json};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// 16 bytes, as a `uuid`: the smallest that PostgreSQL has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(pub(super) [u8; 16]);

impl ToSql for Id {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Id {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }
}

/// A `bigint` that holds an `u32`, for which PostgreSQL has no type.
pub(super) struct Number(pub(super) u32);

impl<'a> FromSql<'a> for Number {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(i64::from_sql(ty, raw)?.try_into()?))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::INT8
    }
}

/// An address as text.
pub(super) struct Ip(pub(super) IpAddr);

impl<'a> FromSql<'a> for Ip {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(<&str>::from_sql(ty, raw)?.parse()?))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT
    }
}

/// Stands for itself when doubled, and for NUL before a zero.
const ESCAPE: char = '\u{1a}';

/// PostgreSQL's text cannot hold NUL. Everything else is kept as it is, but for the character that marks it.
pub(super) fn encode(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    text.replace(ESCAPE, "\u{1a}\u{1a}").replace('\0', "\u{1a}0").into()
}

/// From [`encode`].
pub(super) fn decode(text: String) -> String {
    if !text.contains(ESCAPE) {
        return text;
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        decoded.push(if next != ESCAPE {
            next
        } else if rest.next() == Some('0') {
            '\0'
        } else {
            ESCAPE
        });
    }
    decoded
}

pub(super) fn account(new: &NewAccount) -> String {
    json!({
        "realm": encode(&new.realm),
        "provider": encode(&new.provider),
        "uid": encode(&new.uid),
        "email": encode(&new.email),
        "profile": encode(new.profile.as_json()),
        "password": encode(new.password.expose()),
    })
    .to_string()
}

pub(super) fn session(new: &NewSession) -> String {
    json!({
        "client": uuid(new.client.as_bytes()),
        "lifespan": millis(new.renewal.lifespan),
        "max_lifetime": millis(new.renewal.max_lifetime),
        "others": new.max_devices.saturating_sub(1),
        "user_agent": optional(new.device.user_agent.as_deref()),
        "ip": new.device.ip,
    })
    .to_string()
}

pub(super) fn update(update: &AccountUpdate) -> String {
    let (end, end_all_but) = match update.end {
        EndSessions::None => (false, None),
        EndSessions::AllBut(kept) => (true, Some(uuid(kept.as_bytes()))),
        EndSessions::All => (true, None),
    };
    json!({
        "uid": optional(update.uid.as_deref()),
        "email": optional(update.email.as_deref()),
        "profile": optional(update.profile.as_ref().map(Profile::as_json)),
        "set_unconfirmed_email": update.unconfirmed_email.is_some(),
        "unconfirmed_email": optional(update.unconfirmed_email.as_ref().and_then(Option::as_deref)),
        "confirm": update.confirm,
        "password": optional(update.password.as_ref().map(PasswordHash::expose)),
        "permit_client": update.permit.map(|permit| uuid(permit.client.as_bytes())),
        "permit_until": update.permit.map(|permit| permit.until.as_millis()),
        "void_one_time": update.void_one_time,
        "if_password": optional(update.if_password.as_ref().map(PasswordHash::expose)),
        "end": end,
        "end_all_but": end_all_but,
    })
    .to_string()
}

/// `None` if there is nothing to leave.
pub(super) fn trace(trace: &Trace) -> Result<Option<String>, serde_json::Error> {
    if trace.events.is_empty() && trace.mails.is_empty() {
        return Ok(None);
    }
    let events: Vec<Value> = trace
        .events
        .iter()
        .map(|event| {
            json!({
                "kind": event.kind.as_str(),
                "realm": encode(&event.realm),
                "account": event.account.map(|account| account.0),
                "uid": optional(event.uid.as_deref()),
                "client": event.client.map(|client| uuid(client.as_bytes())),
                "ip": event.device.ip,
                "user_agent": optional(event.device.user_agent.as_deref()),
            })
        })
        .collect();
    let webhooks: Vec<_> = trace.webhooks.iter().map(|url| encode(url)).collect();
    // As text within the text: it is kept as it is, and JSON has an escape of its own for NUL.
    let mails = trace.mails.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(json!({ "events": events, "webhooks": webhooks, "mails": mails }).to_string()))
}

fn optional(text: Option<&str>) -> Option<Cow<'_, str>> {
    text.map(encode)
}

/// In PostgreSQL's notation; the hyphens may be left out.
fn uuid(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_text_is_kept_as_it_is() {
        assert!(matches!(encode("Zoë <zoe@example.test>"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn any_text_comes_back_without_a_nul(text in "[\\x00\\x1a0a👩]{0,12}") {
            let encoded = encode(&text);
            prop_assert!(!encoded.contains('\0'));
            prop_assert_eq!(decode(encoded.into_owned()), text);
        }
    }

    #[test]
    fn identifiers_are_32_digits() {
        assert_eq!(uuid(&[0; 16]), "0".repeat(32));
        assert_eq!(uuid(&[0xab; 16]), "ab".repeat(16));
    }
}
