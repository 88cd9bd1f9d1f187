//! Realms: kinds of account, each with routes and settings of its own.

use baton_axum::{HttpSettings, Quotas};
use baton_engine::Settings;

use super::reader::Reader;
use super::{accounts, cookie, headers, rate_limits};

/// One kind of account.
#[derive(Debug, Clone)]
pub struct RealmConfig {
    /// Where its auth routes are, such as `/auth`.
    pub mount: String,
    /// Its name, tokens, sessions, accounts and passwords.
    pub engine: Settings,
    /// How credentials travel.
    pub http: HttpSettings,
    /// How often what may be tried, if that is limited.
    pub rate_limits: Option<Quotas>,
}

impl RealmConfig {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.engine.realm
    }
}

/// Settings of the server as a whole, which no realm has for itself: one process, one database, one key ring, and hashes of one
/// cost. A realm has all others, but for its name, which is that of its table.
const OF_THE_SERVER: [&str; 17] = [
    "audit.",
    "jwt.",
    "keys.",
    "log.",
    "mail.",
    "server.",
    "sessions.",
    "store.",
    "webhooks.",
    "realm",
    "upstream",
    "password.memory_kib",
    "password.iterations",
    "password.parallelism",
    "password.concurrent",
    "password.waiting",
    "password.bcrypt_pepper",
];

/// Whether each realm may have this setting for itself.
pub(super) fn has(key: &str) -> bool {
    !OF_THE_SERVER.iter().any(|name| if name.ends_with('.') { key.starts_with(name) } else { key == *name })
}

/// All realms. The first is the one that the top level describes.
pub(super) fn read(reader: &mut Reader<'_>) -> Vec<RealmConfig> {
    let scopes: Vec<Option<&str>> = std::iter::once(None).chain(reader.realms().map(Some)).collect();
    let realms: Vec<RealmConfig> = scopes.iter().map(|scope| reader.within(*scope, one)).collect();
    for (index, (realm, scope)) in realms.iter().zip(&scopes).enumerate() {
        for (other, other_scope) in realms.iter().zip(&scopes).take(index) {
            reader.within(*scope, |reader| keep_apart(reader, realm, other, *other_scope));
        }
    }
    realms
}

fn one(reader: &mut Reader<'_>) -> RealmConfig {
    let (engine, mut http) = (accounts::read(reader), headers::read(reader));
    http.cookie = cookie::read(reader, engine.rules.token_lifespan);
    let rate_limits = rate_limits::read(reader);
    let mount = accounts::mount(reader);
    RealmConfig { mount, engine, http, rate_limits }
}

/// Refuses what two realms cannot both have. `reader` is within `realm`.
fn keep_apart(reader: &mut Reader<'_>, realm: &RealmConfig, other: &RealmConfig, other_scope: Option<&str>) {
    if realm.name() == other.name() {
        let why = "is what the top level's realm is called already; further realms have names of their own";
        reader.refuse_other(&format!("realms.{}", realm.name()), why);
    }
    // A mount without a complaint has one spelling: its segments are not empty, and none ends in `.json`.
    let below =
        |path: &str, mount: &str| path.strip_prefix(mount).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mounted = realm.mount.starts_with('/') && other.mount.starts_with('/');
    if mounted && (below(&realm.mount, &other.mount) || below(&other.mount, &realm.mount)) {
        let (name, mount) = (reader.name_in(other_scope, "mount"), &other.mount);
        reader.refuse("mount", format!("shares paths with {name} = {mount:?}; choose one beside it"));
    }
    if let (Some(cookie), Some(others)) = (&realm.http.cookie, &other.http.cookie)
        && cookie.name == others.name
    {
        let (name, others) = (reader.own_name("cookie_name"), reader.name_in(other_scope, "cookie_name"));
        let realms = format!("{} and {}", other.name(), realm.name());
        reader.refuse(
            "cookie_name",
            format!(
                "is the cookie of both {realms}, and a browser keeps one; set {name} to another name than {others}"
            ),
        );
    }
}
