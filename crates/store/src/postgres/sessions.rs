//! Reading and changing sessions, as every request does: many of them with one statement.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use baton_core::clock::{Timestamp, millis};
use baton_core::ports::Found;
use baton_core::session::{Swap, Swapped};
use baton_core::token::ClientId;
use tokio_postgres::{Error, Row};

use super::Time;
use super::error::{Failure, PostgresError};
use super::gather::Work;
use super::link::Links;
use super::queries::{self, FIND, Query, RESEND, SWAP, SWAP_MANY};
use super::values::Id;

/// Looks for sessions.
pub(super) struct Finds {
    pub(super) links: Arc<Links>,
    pub(super) time: Arc<Time>,
}

impl Work for Finds {
    type Ask = ClientId;
    type Answer = Option<Found>;
    const QUERY: &'static Query = &FIND;

    async fn work(&self, asked: &[ClientId]) -> Vec<Result<Option<Found>, Failure>> {
        let mut clients: Vec<Id> = asked.iter().map(|client| Id(*client.as_bytes())).collect();
        clients.sort_unstable();
        clients.dedup();
        let mut found = self.read(&clients).await;
        if clients.len() > 1 && matches!(found, Err(Failure::Unusable(_))) {
            found = Ok(self.read_each(&clients).await);
        }
        let of = |client: &ClientId| match &found {
            Ok(found) => found.get(client).cloned().transpose(),
            Err(failure) => Err(failure.clone()),
        };
        asked.iter().map(of).collect()
    }
}

impl Finds {
    /// One by one: what is damaged is the trouble of those whose it is.
    async fn read_each(&self, clients: &[Id]) -> HashMap<ClientId, Result<Found, Failure>> {
        let mut found = HashMap::new();
        for client in clients {
            match self.read(std::slice::from_ref(client)).await {
                Ok(one) => found.extend(one),
                Err(failure) => drop(found.insert(ClientId::from_bytes(client.0), Err(failure))),
            }
        }
        found
    }

    /// What there is of these.
    async fn read(&self, clients: &[Id]) -> Result<HashMap<ClientId, Result<Found, Failure>>, Failure> {
        let rows = self.links.run(&FIND, &[&clients]).await?;
        let found = |row: &Row| {
            let (session, account, now) = queries::found(row).map_err(unreadable(&FIND))?;
            Ok(Found { session, account: Arc::new(account), now: self.time.observe(now) })
        };
        rows.iter().map(|row| Ok((queries::client_at(row, 0).map_err(unreadable(&FIND))?, found(row)))).collect()
    }
}

/// A swap that is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) client: ClientId,
    pub(super) swap: Swap,
    pub(super) seen_from: Option<IpAddr>,
}

/// Makes rotations.
pub(super) struct Swaps {
    pub(super) links: Arc<Links>,
    pub(super) time: Arc<Time>,
}

impl Work for Swaps {
    type Ask = Wanted;
    /// `None`: it was not made, and why is to be found out by itself. The session has moved on or is gone, or somebody holds it,
    /// whom the others are not to wait for.
    type Answer = Option<Swapped>;
    const QUERY: &'static Query = &SWAP;

    async fn work(&self, asked: &[Wanted]) -> Vec<Result<Option<Swapped>, Failure>> {
        if let [one] = asked {
            return vec![self.alone(one).await.map(Some)];
        }
        let made = match self.together(asked).await {
            Ok(made) => made,
            // As with what is read.
            Err(Failure::Unusable(_)) => HashMap::new(),
            Err(failure) => return vec![Err(failure); asked.len()],
        };
        (1_i32..).zip(asked).map(|(number, _)| Ok(made.get(&number).map(|at| self.done(*at)))).collect()
    }
}

impl Swaps {
    /// At the time that the record has, also if the node has seen a later one.
    fn done(&self, at: Timestamp) -> Swapped {
        self.time.observe(at);
        Swapped::Done(at)
    }

    /// Waits for whoever holds the session.
    pub(super) async fn alone(&self, wanted: &Wanted) -> Result<Swapped, Failure> {
        let Wanted { client, swap, seen_from } = wanted;
        let (query, expect) = (if swap.resends() { &RESEND } else { &SWAP }, swap.expect);
        let rows = self
            .links
            .run(
                query,
                &[
                    &Id(*client.as_bytes()),
                    &i64::from(expect.generation.get()),
                    &expect.handed_out_at.map(Timestamp::as_millis),
                    &i64::from(expect.confirmed.get()),
                    &i64::from(swap.generation.get()),
                    &i64::from(swap.confirmed.get()),
                    &swap.hand_out.map(|renewal| millis(renewal.lifespan)),
                    &swap.hand_out.map(|renewal| millis(renewal.max_lifetime)),
                    &seen_from.map(|ip| ip.to_string()),
                ],
            )
            .await?;
        Ok(match rows.first().map(queries::swapped).transpose().map_err(unreadable(query))? {
            Some((Some(at), _)) => self.done(at),
            Some((None, Some(session))) => Swapped::Moved(session),
            _ => Swapped::Gone,
        })
    }

    /// When those were made that were, by their numbers from 1 on.
    async fn together(&self, asked: &[Wanted]) -> Result<HashMap<i32, Timestamp>, Failure> {
        fn of<T>(asked: &[Wanted], value: impl Fn(&Wanted) -> T) -> Vec<T> {
            asked.iter().map(value).collect()
        }
        let rows = self
            .links
            .run(
                &SWAP_MANY,
                &[
                    &of(asked, |wanted| Id(*wanted.client.as_bytes())),
                    &of(asked, |wanted| i64::from(wanted.swap.expect.generation.get())),
                    &of(asked, |wanted| wanted.swap.expect.handed_out_at.map(Timestamp::as_millis)),
                    &of(asked, |wanted| i64::from(wanted.swap.expect.confirmed.get())),
                    &of(asked, |wanted| i64::from(wanted.swap.generation.get())),
                    &of(asked, |wanted| i64::from(wanted.swap.confirmed.get())),
                    &of(asked, |wanted| wanted.swap.hand_out.map(|renewal| millis(renewal.lifespan))),
                    &of(asked, |wanted| wanted.swap.hand_out.map(|renewal| millis(renewal.max_lifetime))),
                    &of(asked, |wanted| wanted.seen_from.map(|ip| ip.to_string())),
                ],
            )
            .await?;
        rows.iter().map(queries::swapped_one).collect::<Result<_, _>>().map_err(unreadable(&SWAP_MANY))
    }
}

fn unreadable(query: &Query) -> impl Fn(Error) -> Failure {
    let doing = query.name;
    move |error| Failure::Unusable(PostgresError::new(doing, &error))
}
