//! What can be set, and the URL that most of it is set with.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use baton_core::error::StoreError;
use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::error::unusable;
use super::tls::SslMode;

/// The longest name that PostgreSQL keeps.
const LONGEST_NAME: usize = 63;

/// Whether something between here and PostgreSQL hands out its connections by the transaction, so that nothing may be left
/// in one: no prepared statement and no setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooler {
    /// Found out with each connection: a pooler does not pass settings on. The default.
    #[default]
    Auto,
    /// There is one.
    Yes,
    /// There is none, or it hands out connections by the session.
    No,
}

/// Settings of a [`PostgresStore`](super::PostgresStore).
///
/// Its `Debug` hides the password.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Where PostgreSQL is, and as whom to go there.
    pub(super) server: Config,
    /// How the connections are protected.
    pub ssl_mode: SslMode,
    /// For [`SslMode::VerifyFull`]: a PEM file with the authorities to trust instead of the system's.
    pub ssl_root_cert: Option<PathBuf>,
    /// The schema that holds the tables. Default `baton`. Letters a–z, digits and `_`, at most 63.
    pub schema: String,
    /// Whether opening brings the schema up to date. Default true. If not, a schema that is not is refused: for a role that may
    /// not change it, beside [`PostgresStore::migrate`](super::PostgresStore::migrate) with one that may.
    pub migrate: bool,
    /// Connections for what does not wait for the disk: reads and rotations. 1 to 64, default 4. Each carries many requests
    /// at once.
    pub connections: usize,
    /// Connections for what does: sign-ins, sign-outs, changes. 1 to 64, default 4. What is on its way on one of them waits
    /// for what went before, on the disk and on locks.
    pub writers: usize,
    /// Whether there is a pooler such as PgBouncer.
    pub pooler: Pooler,
    /// After how long PostgreSQL gives a statement up. Default 5 s. Not through a pooler, where nothing can be set: there it
    /// takes `ALTER ROLE … SET statement_timeout`. A connection that is silent for twice as long and a second is given up.
    pub statement_timeout: Duration,
    /// How long making a connection may take. Default 5 s.
    pub connect_timeout: Duration,
    /// How long an operation waits for a connection, while there is none or all are busy, before it is answered
    /// [`StoreError::Unavailable`]. Default 1 s.
    pub acquire_timeout: Duration,
    /// The longest pause between two attempts to connect. They begin at 50 ms and double. Default 2 s.
    pub longest_pause: Duration,
}

impl PostgresOptions {
    /// From a URL: `postgres://user:password@host:port/database?…`, in which all of libpq's forms will do that tokio-postgres
    /// knows. Besides its parameters: `sslmode` (`disable`, `prefer`, `require`, `verify-full`), `sslrootcert` (a path, or
    /// `system`), `schema`, and `pgbouncer` (`auto`, `true`, `false`).
    ///
    /// # Errors
    /// [`StoreError::Unusable`] if it cannot be read. The message does not repeat the URL.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut options = Self {
            server: Config::new(),
            ssl_mode: SslMode::default(),
            ssl_root_cert: None,
            schema: "baton".to_owned(),
            migrate: true,
            connections: 4,
            writers: 4,
            pooler: Pooler::default(),
            statement_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            acquire_timeout: Duration::from_secs(1),
            longest_pause: Duration::from_secs(2),
        };
        let mut others = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8().map_err(|_| wrong(name, "text in UTF-8"))?;
            match name {
                "sslmode" => options.ssl_mode = ssl_mode(&value)?,
                "sslrootcert" if value == "system" => options.ssl_root_cert = None,
                "sslrootcert" => options.ssl_root_cert = Some(value.as_ref().into()),
                "schema" => options.schema = value.into_owned(),
                "pgbouncer" => options.pooler = pooler(&value)?,
                _ => others.push(pair),
            }
        }
        options.check_schema()?;
        let rest = if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) };
        options.server = Config::from_str(&rest).map_err(|error| {
            // Its cause names the parameter and never the value.
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            unusable(format!("the URL cannot be read{cause}"))
        })?;
        options.server.ssl_mode(match options.ssl_mode {
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            SslMode::Require | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
        });
        // A server whose machine has vanished says nothing. These notice that sooner than the system's two hours.
        if !others.iter().any(|pair| pair.starts_with("keepalives")) {
            let second = Duration::from_secs(1);
            options.server.keepalives_idle(30 * second).keepalives_interval(10 * second).keepalives_retries(3);
        }
        if options.server.get_tcp_user_timeout().is_none() {
            options.server.tcp_user_timeout(options.statement_timeout);
        }
        if options.server.get_application_name().is_none() {
            options.server.application_name("baton");
        }
        Ok(options)
    }

    /// Where the server is, as somebody would say it. No password is in it.
    pub(super) fn place(&self) -> String {
        let ports = self.server.get_ports();
        let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let hosts = self.server.get_hosts().iter().enumerate().map(|(index, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(index)),
            Host::Unix(folder) => format!("{}, port {}", folder.display(), port(index)),
        });
        let hosts = hosts.collect::<Vec<_>>().join(", ");
        if !hosts.is_empty() {
            return hosts;
        }
        let addresses = self.server.get_hostaddrs().iter().enumerate();
        addresses.map(|(index, ip)| format!("{ip} port {}", port(index))).collect::<Vec<_>>().join(", ")
    }

    /// Whether the way to the server is open to whoever can change what goes over it, and nobody has said that it may be.
    pub(super) fn is_exposed(&self) -> bool {
        let away = |host: &Host| match host {
            Host::Tcp(name) => !(name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())),
            Host::Unix(_) => false,
        };
        self.ssl_mode == SslMode::Prefer && self.server.get_hosts().iter().any(away)
    }

    /// The name goes into statements as it is, so it has to be one that is harmless there.
    pub(super) fn check_schema(&self) -> Result<(), StoreError> {
        let fits = |name: &str| {
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            name.len() <= LONGEST_NAME && name.chars().all(letters) && !name.starts_with("pg_")
        };
        if !self.schema.is_empty() && fits(&self.schema) && !self.schema.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(());
        }
        Err(wrong("schema", "a name of letters a-z, digits and _, which does not begin with pg_ or a digit"))
    }
}

fn ssl_mode(value: &str) -> Result<SslMode, StoreError> {
    match value {
        "disable" => Ok(SslMode::Disable),
        "prefer" => Ok(SslMode::Prefer),
        "require" => Ok(SslMode::Require),
        "verify-full" => Ok(SslMode::VerifyFull),
        _ => Err(wrong("sslmode", "disable, prefer, require or verify-full")),
    }
}

fn pooler(value: &str) -> Result<Pooler, StoreError> {
    match value {
        "auto" => Ok(Pooler::Auto),
        "true" => Ok(Pooler::Yes),
        "false" => Ok(Pooler::No),
        _ => Err(wrong("pgbouncer", "auto, true or false")),
    }
}

fn wrong(name: &str, wanted: &str) -> StoreError {
    unusable(format!("the URL's {name} has to be {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_it_all() {
        let options = PostgresOptions::from_url(
            "postgres://ada:se%20cret@db.test:6432/app?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&schema=auth_1\
             &pgbouncer=true&connect_timeout=3",
        )
        .expect("a good one");
        assert_eq!(options.ssl_mode, SslMode::VerifyFull);
        assert_eq!(options.ssl_root_cert, Some("/etc/ca.pem".into()));
        assert_eq!((options.schema.as_str(), options.pooler), ("auth_1", Pooler::Yes));
        assert_eq!(options.server.get_user(), Some("ada"));
        assert_eq!(options.server.get_ports(), [6432]);
        assert_eq!(options.server.get_ssl_mode(), tokio_postgres::config::SslMode::Require);
        assert!(!format!("{options:?}").contains("cret"));
    }

    #[test]
    fn what_is_exposed_is_known() {
        for (url, exposed) in [
            ("postgres://db.test/app", true),
            ("postgres://192.0.2.1/app?sslmode=prefer", true),
            ("postgres://db.test/app?sslmode=disable", false),
            ("postgres://db.test/app?sslmode=verify-full", false),
            ("postgres://localhost/app", false),
            ("postgres://127.0.0.2/app", false),
            ("postgres:///app?host=/run/postgresql", false),
        ] {
            assert_eq!(PostgresOptions::from_url(url).expect("a good one").is_exposed(), exposed, "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for query in
            ["sslmode=verify", "pgbouncer=maybe", "schema=", "schema=pg_x", "schema=a%22b", "schema=1a", "port=x"]
        {
            let error = PostgresOptions::from_url(&format!("postgres://ada:hush@db/app?{query}")).expect_err(query);
            let name = query.split('=').next().expect("a name");
            assert!(error.to_string().contains(name), "{error}");
            assert!(!error.to_string().contains("hush"), "{error}");
        }
        let error = PostgresOptions::from_url("postgres://ada:hush@db:port/app").expect_err("a port");
        assert!(!error.to_string().contains("hush"), "{error}");
    }
}
