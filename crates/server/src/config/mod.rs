//! The configuration: every setting of `default.toml`, from wherever it comes, checked.
//!
//! [`Config::load`] refuses what cannot work; [`Config::check_production`] and [`Config::check_dev`] refuse what works but is
//! not safe where the program is to run. All complaints come at once, each with the setting, its value and its origin.

mod accounts;
mod cookie;
mod events;
mod headers;
mod jwt;
mod keys;
mod links;
mod log;
mod mail;
mod modes;
mod problem;
mod rate_limits;
mod reader;
mod realms;
mod rotation;
mod server;
mod sessions;
mod store;
mod upstreams;
mod values;

pub use crate::client_addr::TrustedProxies;
pub use events::EventsConfig;
pub use jwt::JwtConfig;
pub use keys::KeySource;
pub use log::{Format, LogConfig};
pub use mail::MailConfig;
pub use problem::{Problem, Problems};
pub use realms::RealmConfig;
pub use server::ServerConfig;
pub use store::StoreConfig;
pub use upstreams::{JwtHeader, Require, UpstreamConfig};
pub use values::{DEFAULT_FILE, Origin, Sources};

use reader::{Reader, complaint};
use values::Values;

use baton_core::KeyRing;
use baton_store::redis::RedisOptions;

use crate::keys::KeysError;

/// All settings, ready for use.
#[derive(Debug, Clone)]
pub struct Config {
    /// The kinds of account. The first is the one that the top level describes; the others are in the order of their names.
    pub realms: Vec<RealmConfig>,
    /// Sockets and limits.
    pub server: ServerConfig,
    /// Where accounts and sessions are.
    pub store: StoreConfig,
    /// Where sessions are, if not with the accounts.
    pub sessions: Option<Box<RedisOptions>>,
    /// Where the keys are.
    pub keys: KeySource<KeyRing>,
    /// How backends are told who is signed in, so that they can tell it is true.
    pub jwt: JwtConfig,
    /// Who sends letters, and how they read.
    pub mail: MailConfig,
    /// Where events go, and how long they are kept.
    pub events: EventsConfig,
    /// Which backends requests are passed on to.
    pub upstreams: Vec<UpstreamConfig>,
    /// What is logged, and how.
    pub log: LogConfig,
    /// For complaints about settings that were read long ago.
    values: Values,
}

impl Config {
    /// Reads and checks all settings.
    ///
    /// # Errors
    /// Everything that is unknown, of the wrong type or out of range.
    pub fn load(sources: &Sources) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut values = Values::read(sources, &mut problems);
        let mut reader = Reader::new(&values, problems);
        let mut realms = realms::read(&mut reader);
        let server = server::read(&mut reader);
        let origins = server::origins(&mut reader);
        for realm in &mut realms {
            realm.http.origins = origins.clone();
        }
        let (store, sessions) = (store::read(&mut reader), sessions::read(&mut reader));
        let keys = keys::read(&mut reader, &values, &sources.env);
        let (mail, events) = (mail::read(&mut reader), events::read(&mut reader));
        let jwt = jwt::read(&mut reader, &values, &sources.env, &mail.public_url);
        let upstreams = upstreams::read(&mut reader, &realms);
        let log = log::read(&mut reader);
        reader.into_problems().into_result()?;
        for secret in [accounts::PEPPER, mail::PASSWORD, events::SECRET] {
            values.forget(secret);
        }
        if matches!(store, StoreConfig::Postgres(_)) {
            values.forget(store::URL);
        }
        if sessions.is_some() {
            values.forget(sessions::URL);
        }
        for realm in &mut realms {
            realm.engine.webhooks.clone_from(&events.webhooks);
        }
        Ok(Self { realms, server, store, sessions, keys, jwt, mail, events, upstreams, log, values })
    }

    /// Reads and checks where accounts and sessions are and what is logged, and nothing else: for what is done to the store without
    /// a server, by somebody who need not have the server's other secrets.
    ///
    /// # Errors
    /// Everything that is unknown, and of these parts what is of the wrong type or out of range.
    pub fn load_stores(sources: &Sources) -> Result<(StoreConfig, Option<Box<RedisOptions>>, LogConfig), Problems> {
        let mut problems = Problems::default();
        let values = Values::read(sources, &mut problems);
        let mut reader = Reader::new(&values, problems);
        let (store, sessions) = (store::read(&mut reader), sessions::read(&mut reader));
        let log = log::read(&mut reader);
        reader.into_problems().into_result()?;
        Ok((store, sessions, log))
    }

    /// Whether anybody is sent a JWT.
    #[must_use]
    pub fn sends_jwts(&self) -> bool {
        self.jwt.forward_auth_audience.is_some()
            || self.upstreams.iter().any(|upstream| upstream.jwt_audience.is_some())
    }

    /// What is wrong with the keys that it names, as a complaint about the setting.
    pub(crate) fn about_keys(&self, error: &KeysError) -> Problem {
        complaint(&self.values, None, "keys.file", error)
    }

    /// The same for those of JWTs.
    pub(crate) fn about_jwt_keys(&self, error: &KeysError) -> Problem {
        complaint(&self.values, None, jwt::KEYS_FILE, error)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use baton_axum::{CookieSettings, HttpSettings, Quotas};
    use baton_core::wire::HeaderNames;
    use baton_engine::{Lockout, Settings};
    use baton_store::sqlite::SqliteOptions;
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn the_default_file_says_what_the_libraries_default_to() {
        let config = Config::load(&Sources::default()).unwrap();
        assert_eq!(config.realms.len(), 1);
        let RealmConfig { mount, engine, http, rate_limits } = &config.realms[0];
        let default = Settings::default();
        assert_eq!(mount, "/auth");
        assert_eq!(engine.rules, default.rules);
        assert_eq!(engine.realm, default.realm);
        assert_eq!(engine.max_number_of_devices, default.max_number_of_devices);
        assert_eq!(engine.password_policy, default.password_policy);
        assert_eq!(engine.hashing, default.hashing);
        assert_eq!(engine.password_strength, default.password_strength);
        assert!(engine.bcrypt_pepper.expose_secret().is_empty() && default.bcrypt_pepper.expose_secret().is_empty());
        assert_eq!(engine.check_current_password_before_update, default.check_current_password_before_update);
        assert_eq!(engine.remove_tokens_after_password_reset, default.remove_tokens_after_password_reset);
        assert_eq!(engine.profile_fields, default.profile_fields);
        assert_eq!((engine.registerable, engine.paranoid), (default.registerable, default.paranoid));
        assert_eq!(engine.redirects, default.redirects);
        assert_eq!(engine.confirmation, default.confirmation);
        assert_eq!(engine.reset, default.reset);
        assert_eq!(engine.lockout, default.lockout);
        assert_eq!(engine.webhooks, default.webhooks);
        assert_eq!(http.headers_names, HeaderNames::default());
        assert_eq!(http.cookie, None);
        assert!(!http.credentials_in_params);
        assert_eq!(http.origins, HttpSettings::default().origins);
        assert_eq!(*rate_limits, Some(Quotas::default()));
        assert!(http.rate_limits.is_none(), "it has no clock yet");
        assert!(config.server.trusted_proxies.is_empty());
        match &config.store {
            StoreConfig::Sqlite { options, .. } => assert_eq!(*options, SqliteOptions::default()),
            other @ StoreConfig::Postgres(_) => panic!("{other:?}"),
        }

        let set = vec!["lockable.enabled=true".to_owned()];
        let config = Config::load(&Sources { set, ..Sources::default() }).unwrap();
        assert_eq!(config.realms[0].engine.lockout, Some(Lockout::default()));

        let set = vec!["cookie_enabled=true".to_owned()];
        let config = Config::load(&Sources { set, ..Sources::default() }).unwrap();
        assert_eq!(config.realms[0].http.cookie, Some(CookieSettings::default()));
    }

    #[test]
    fn the_default_file_names_every_setting_and_no_other() {
        let mut problems = Problems::default();
        let values = Values::read(&Sources::default(), &mut problems);
        let mut reader = Reader::new(&values, problems);
        let realms = realms::read(&mut reader);
        upstreams::read(&mut reader, &realms);
        server::read(&mut reader);
        server::origins(&mut reader);
        store::read(&mut reader);
        sessions::read(&mut reader);
        keys::read(&mut reader, &values, &[]);
        jwt::read(&mut reader, &values, &[], "");
        mail::read(&mut reader);
        events::read(&mut reader);
        log::read(&mut reader);
        let read: BTreeSet<&str> = reader.read.iter().map(String::as_str).collect();
        assert_eq!(read, values.names().collect());
        assert_eq!(reader.into_problems(), Problems::default());
    }

    #[test]
    fn what_a_realm_reads_is_its_own_or_named_as_the_servers() {
        let mut problems = Problems::default();
        let set = vec!["realms.admin.mount=/admin_auth".to_owned()];
        let values = Values::read(&Sources { set, ..Sources::default() }, &mut problems);
        let mut reader = Reader::new(&values, problems);
        realms::read(&mut reader);
        let read: BTreeSet<&str> = reader.read.iter().map(String::as_str).filter(|key| realms::has(key)).collect();
        // Nothing may be set in a realm that would not be looked at, and everything that is looked at may be set.
        assert_eq!(read, values.names().filter(|key| realms::has(key)).collect());
        assert_eq!(reader.into_problems(), Problems::default());
    }
}
